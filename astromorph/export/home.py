"""The step `report home`: the page that shows a run and leads to all its results."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from astromorph.artefacts.columns import EMBED, NONE, REJECTED, TEST, TRAIN
from astromorph.artefacts.model_file import read_model_file
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import all_tensors, find_in_catalogue
from astromorph.artefacts.tables import read_csv, read_table
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.catalogue.summary import describe_reasons, general_reason
from astromorph.errors import AstromorphError
from astromorph.export.gallery.map_picture import PICTURE, choose_maps, map_png
from astromorph.export.gallery.pictures import Picture, fit_into_frame
from astromorph.export.home_links import file_links, page_links
from astromorph.pages.html import write_page
from astromorph.pages.pictures import PageImage, picture_url, png_url
from astromorph.pages.thumbnails import read_images
from astromorph.system.logs import printable, shortened

LOG = logging.getLogger(__name__)
MAX_REASONS = 5
MAX_CLUSTERS = 24  # with a picture
MAX_OUTLIERS = 10
WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the listed files.

    Attributes
    ----------
    listed : int
        Rows of the list.
    training, test : int
        Images that training used, and images held out.
    embedded : int
        Images that were only embedded, as they are blank or repeat another image.
    warned : int
        Used images with a warning.
    rejected : int
        Files without a usable image, and duplicates that were dropped.
    left_out : int
        Usable images that the split excludes.
    """

    listed: int
    training: int
    test: int
    embedded: int
    warned: int
    rejected: int
    left_out: int

    @property
    def used(self) -> int:
        """Number of images with an embedding."""
        return self.training + self.test + self.embedded


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for warnings or rejections.

    Attributes
    ----------
    status : str
        ``"rejected"`` or ``"warning"``.
    text : str
        The reason, printable.
    number : int
        Number of files.
    """

    status: str
    text: str
    number: int


def write_home(
    files: RunFiles,
    datafile: str | None,
    results: Mapping[str, Sequence[Path]],
    with_evaluation: bool,
) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        `split`, `catalogue`, `analysis`, `analysis_summary`, `model` and the images
        that the page shows are read; `evaluation` if there is one, `history` if the
        run has trained. `home` is written.
    datafile : str or None
        Name of the file list.
    results : mapping of str to sequence of path
        The results of each step of the run, in the order of the steps. The page has
        links to these and to their logs.
    with_evaluation : bool
        Whether to show the verdict of the evaluation.

    Raises
    ------
    AstromorphError
        A file is missing, or the files do not belong together.
    """
    summary = _read_json(files.analysis_summary, "analyse")
    chosen = summary["methods"][summary["cluster_by"]]
    clusters = chosen["clusters"][:MAX_CLUSTERS]
    outliers = summary["outliers"][:MAX_OUTLIERS]
    shown = [cluster["representative"] for cluster in clusters]
    shown += [outlier["image_id"] for outlier in outliers]
    images, map_url, dark_map_url = _draw_pictures(files, shown)
    counts, reasons = count_files(
        read_table(files.split, ["status", "reason", "subset"])
    )
    write_page(
        files.home,
        "home.html",
        files,
        datafile=shortened(printable(datafile or "")),
        facts=_training_facts(files, "train" in results),
        summary=summary,
        chosen=chosen,
        clusters=clusters,
        outliers=outliers,
        images=images,
        map_url=map_url,
        dark_map_url=dark_map_url,
        counts=counts,
        reasons=reasons,
        verdict=_read_json(files.evaluation, "evaluate")["verdict"]
        if with_evaluation
        else None,
        pages=page_links(files, results),
        links=file_links(files, results),
    )
    LOG.info("%s: %d images, %d clusters", files.home, counts.used, chosen["number"])


def count_files(split: "pd.DataFrame") -> tuple[Counts, list[Reason]]:
    """Count the listed files, and the most frequent reasons.

    Parameters
    ----------
    split : DataFrame
        Columns `status`, `reason` and `subset` of the split.

    Returns
    -------
    counts : Counts
    reasons : list of Reason
        At most `MAX_REASONS`; rejections first, then the most frequent.
    """
    used = split["subset"] != NONE
    is_rejected = split["status"] == REJECTED
    counts = Counts(
        listed=len(split),
        training=int((split["subset"] == TRAIN).sum()),
        test=int((split["subset"] == TEST).sum()),
        embedded=int((split["subset"] == EMBED).sum()),
        warned=int((used & (split["status"] == WARNING)).sum()),
        rejected=int(is_rejected.sum()),
        left_out=int((~used & ~is_rejected).sum()),
    )
    numbers: Counter[tuple[str, str]] = Counter()
    given = split[split["reason"] != ""]
    texts: dict[tuple[str, str], list[str]] = {}
    for (status, reason), number in given.groupby(["status", "reason"]).size().items():
        kind = status, general_reason(reason)
        numbers[kind] += int(number)
        texts.setdefault(kind, []).append(reason)
    ranked = sorted(
        numbers.items(), key=lambda item: (item[0][0] != REJECTED, -item[1])
    )
    reasons = [
        Reason(kind[0], shortened(printable(describe_reasons(texts[kind]))), number)
        for kind, number in ranked[:MAX_REASONS]
    ]
    return counts, reasons


def _training_facts(files: RunFiles, trained_here: bool) -> dict[str, Any]:
    """The network and the images in a few numbers."""
    model, shard = read_model_file(files.model), read_shard(files.all_tensors[0])
    settings = json.loads(shard.settings).get("preprocess_settings", {})
    has_history = trained_here and files.history.exists()
    epochs = sum(1 for _ in read_csv(files.history)) if has_history else None
    return {
        "network": str(model.settings.get("network_name", "")),
        "size": settings.get("size"),
        "channels": shard.channels,
        "epochs": epochs,
        "model": None if trained_here else shortened(printable(str(files.model))),
    }


def _draw_pictures(
    files: RunFiles, shown: Sequence[str]
) -> tuple[dict[str, PageImage], str, str]:
    """The images of the page by id, and the map for light and dark pages, as URLs."""
    contents = choose_maps(files, None)[0]
    on_map = {frame.image_id for frame in contents.sheet.frames}
    urls: dict[str, str] = {}
    pictures: dict[str, Picture] = {}
    for image_id, pixels in read_images(all_tensors(files), on_map.union(shown)):
        urls[image_id] = picture_url(pixels)
        if image_id in on_map:
            gray: NDArray[np.float32] = pixels.mean(axis=0)
            pictures[image_id] = fit_into_frame(gray, None, None, PICTURE)
    table = find_in_catalogue(files, list(urls), ["path"])
    images = {
        row["image_id"]: PageImage.of(row["path"], urls[row["image_id"]])
        for row in table.to_dict("records")
    }
    examples = [pictures[frame.image_id] for frame in contents.sheet.frames]
    light, dark = (png_url(map_png(contents, examples, dark)) for dark in (False, True))
    return images, light, dark


def _read_json(path: Path, step: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AstromorphError(
            f"{path}: this file cannot be read ({error}); run `{step}` again"
        ) from None
    return values
