"""What the home page of a run leads to: pages, tables, other files, logs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from astromorph.artefacts.run_files import RunFiles
from astromorph.pages.html import link_to

Results = Mapping[str, Sequence[Path]]
# A path, its name on the page, and a sentence: what it is for.
Entry = tuple[Path, str, str]
# What the log of each step contains.
LOGGED = {
    "validate": "Counts of the files, the most frequent reasons, remarks on columns.",
    "preprocess": "Files that proved unusable when their pixels were read.",
    "split": "Sizes of the training set and of the test set.",
    "train": "Progress, checkpoints and warnings of the training.",
    "report_history": "Number of epochs in the figure.",
    "infer": "Progress of the embedding.",
    "evaluate": "The main measures of each network, and the verdict.",
    "analyse": "Numbers of clusters and of near-duplicates.",
    "export_csv": "Number of rows, and columns that were renamed.",
    "export_parquet": "Number of rows, and columns that were renamed.",
    "export_fits": "Number of rows, and names and cells that were cut.",
    "export_votable": "Number of rows, and cells that were cut.",
    "export_tensorboard": "Number of images, and whether they are a sample.",
    "export_map": "Number of images, and the size of the page.",
    "export_gallery": "Number of contact sheets.",
    "rank": "Numbers of marks, and the quality of the ranking.",
    "report_settings": "Where the page is.",
}


@dataclass(frozen=True, slots=True)
class Link:
    """A result in a list of the page.

    Attributes
    ----------
    address : str
        Relative to the page.
    name : str
        What the page calls it.
    purpose : str
        A sentence: what it is for.
    size : str
        Size of a table, such as ``"1.2 MB"``; empty for all else.
    """

    address: str
    name: str
    purpose: str
    size: str = ""


def page_links(files: RunFiles, results: Results) -> dict[str, Link]:
    """The pages and the figure of a run, in the order in which to read them.

    Parameters
    ----------
    files : RunFiles
        The files of the run.
    results : mapping of str to sequence of path
        The results of each step of the run.

    Returns
    -------
    dict of str to Link
        Those that exist, by a short name.
    """
    entries = {
        "validation": (
            files.validation_page,
            "Validation of the file list",
            "Which files were rejected and why, and how the network sees the images: "
            "training cannot repair bad images.",
        ),
        "history": (
            files.history_figure,
            "Training curves",
            "Whether the loss has fallen, and whether the embedding has collapsed.",
        ),
        "evaluation": (
            files.evaluation_page,
            "Embedding quality",
            "Whether the trained network is better than an untrained one, and, with "
            "labels, for which classes.",
        ),
        "map": (
            files.map,
            "Interactive map",
            "All images as points: colour them by any column, search, select, and look "
            "at the nearest neighbours of each.",
        ),
        "gallery": (
            files.gallery / "index.html",
            "Contact sheets",
            "Many images of each cluster side by side, outliers, neighbours, and the "
            "augmented views.",
        ),
        "analysis": (
            files.analysis_page,
            "Clusters, duplicates and outliers",
            "How well separated and how reproducible the clusters are, which images "
            "are nearly the same, and which are unusual.",
        ),
        "ranking": (
            files.ranking_page,
            "Images like those marked",
            "All images in the order of their similarity to those that you marked, and "
            "how good this order is.",
        ),
        "settings": (
            files.settings_page,
            "Settings and versions",
            "What differs from the defaults, and all that is needed to repeat the run.",
        ),
    }
    return {
        name: _link(files, entry)
        for name, entry in entries.items()
        if _is_made(entry[0], results)
    }


def file_links(files: RunFiles, results: Results) -> dict[str, list[Link]]:
    """All other results of a run by kind, in the order in which to read them.

    Parameters
    ----------
    files, results
        See `page_links`.

    Returns
    -------
    dict of str to list of Link
        Those that exist, by the title of their kind. A step with several logs has one
        link to their folder.
    """
    tables = _existing(_tables(files), results)
    others = _existing(_other_files(files), results)
    logs = [_log(files, step) for step in results]
    kinds = {
        "Tables": [_link(files, entry, _format_size(entry[0])) for entry in tables],
        "For other programs": [_link(files, entry) for entry in others],
        "Logs": [_link(files, entry) for entry in logs if entry[0].exists()],
    }
    return {title: links for title, links in kinds.items() if links}


def _existing(entries: Iterable[Entry], results: Results) -> list[Entry]:
    return [entry for entry in entries if _is_made(entry[0], results)]


def _is_made(path: Path, results: Results) -> bool:
    """Whether an existing path is a result of the run, or in a folder that is one."""
    made = {made for paths in results.values() for made in paths}
    return path.exists() and not made.isdisjoint([path, *path.parents])


def _link(files: RunFiles, entry: Entry, size: str = "") -> Link:
    path, name, purpose = entry
    slash = "/" if path.is_dir() else ""
    return Link(link_to(path, files.home) + slash, name, purpose, size)


def _format_size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    digits = 0 if size >= 10 or unit == "bytes" else 1
    return f"{size:.{digits}f} {unit}"


def _tables(files: RunFiles) -> list[Entry]:
    return [
        (
            files.table("csv"),
            "embeddings.csv",
            "A row for each image with metadata, your columns, cluster, outlier score "
            "and embedding; for spreadsheets.",
        ),
        (
            files.table("parquet"),
            "embeddings.parquet",
            "The same table with types, for pandas and databases.",
        ),
        (
            files.table("fits"),
            "embeddings.fits",
            "The same table with units, for TOPCAT and astropy.",
        ),
        (
            files.table("vot"),
            "embeddings.vot",
            "The same table as a VOTable, for the Virtual Observatory.",
        ),
        (
            files.catalogue,
            "catalogue.csv",
            "A row for each listed file: what its header says, or why it is rejected.",
        ),
        (
            files.split,
            "split.csv",
            "A row for each listed file: training set, test set or neither, and why.",
        ),
        (
            files.analysis,
            "analysis.parquet",
            "Cluster, position on the map, neighbours and outlier score of each image.",
        ),
        (
            files.gallery / "sheets.csv",
            "sheets.csv",
            "Which image is in which frame of the contact sheets.",
        ),
        (
            files.ranking,
            "ranking.csv",
            "The score of each image by your marks, and which to mark next.",
        ),
        (
            files.history,
            "history.csv",
            "Losses and measures of each epoch; the numbers of the training curves.",
        ),
        (
            files.analysis_summary,
            "analysis.json",
            "The numbers of the page on clusters, for programs.",
        ),
        (
            files.evaluation,
            "evaluation.json",
            "The numbers of the page on quality, for programs.",
        ),
    ]


def _other_files(files: RunFiles) -> list[Entry]:
    return [
        (
            files.own_model,
            "model.pt",
            "The trained network; copy it to embed other images with it.",
        ),
        (
            files.projector,
            "Projector of TensorBoard",
            "Thumbnails as points in three dimensions: run `tensorboard --logdir "
            "results`, and open `/#projector` at the address that it prints.",
        ),
        (
            files.scalars,
            "Training in TensorBoard",
            "Training curves, settings and pairs of views, in the same way, under "
            "`/#scalars`, `/#hparams` and `/#images`.",
        ),
    ]


def _log(files: RunFiles, step: str) -> Entry:
    """The log of a step, or the folder of its logs if it has several."""
    group, _, job = step.partition("_")
    path = files.log(group, job or None)
    if not path.exists() and not job:
        path = path.parent
    return path, step.replace("_", " "), LOGGED.get(step, "Messages of this step.")
