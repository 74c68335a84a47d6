"""The step `rank`: rank all images by their similarity to those that are marked."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from astromorph.analysis.components import leading_components
from astromorph.analysis.embedded_images import read_analysed_images
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import all_tensors
from astromorph.artefacts.tables import write_table
from astromorph.atomic import atomic_folder, check_writable
from astromorph.errors import AstromorphError
from astromorph.export.gallery.contact_sheet import draw_sheet
from astromorph.export.gallery.gallery import NETWORK, PictureSource, read_facts
from astromorph.export.gallery.pictures import find_images
from astromorph.export.gallery.sheets import Frame, Sheet
from astromorph.pages.html import write_page
from astromorph.pages.pictures import PageImage, picture_url
from astromorph.ranking.marks import INTERESTING, NOT_INTERESTING, Marks, read_marks
from astromorph.ranking.model import (
    Points,
    Target,
    find_targets,
    fit_target,
    most_informative,
)
from astromorph.ranking.quality import MIN_OF_EACH, Quality, cross_validate
from astromorph.settings.sections import DataSettings, Settings

if TYPE_CHECKING:  # pandas takes long to import; functions import it themselves
    from pandas import DataFrame

LOG = logging.getLogger(__name__)
COLUMNS, FRAMES = 6, 36  # of a contact sheet
MAX_TARGETS = 50
LISTED = 24  # images on the page
PLOT = (380, 200)  # width and height of the curve on the page, in pixels
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranking of N images by one target.

    Attributes
    ----------
    target : Target
        What it is about.
    scores : ndarray, shape (N,), float64
        From 0 to 1.
    quality : Quality or None
        None if there are too few marks.
    best : ndarray, int64
        Rows of unmarked images, those with the highest scores first.
    """

    target: Target
    scores: Scores
    quality: Quality | None
    best: NDArray[np.int64]


def rank(files: RunFiles, marks_file: str | Path) -> None:
    """Rank all images by their similarity to those that are marked.

    Parameters
    ----------
    files : RunFiles
        A run with an analysis. Catalogue, split, embeddings, `analysis_summary` and
        tensors are read; `ranking` (CSV: a row for each image, the highest score
        first), `ranking_page` and the folder `ranking_sheets` are written.
    marks_file : path
        CSV with the columns `image_id`, `path`, `mark` and `class`.

    Raises
    ------
    AstromorphError
        The marks cannot be read or contain no example, or results are missing or do
        not match.
    """
    if not marks_file:
        raise AstromorphError(
            f"`marks`: found no file; mark images on the map ({files.map}), save the "
            "marks there, and give the file with --marks, or with the setting `marks`"
        )
    check_writable([files.ranking, files.ranking_page])
    images, space = read_analysed_images(files)
    marks = read_marks(marks_file, images.image_ids, images.paths)
    targets = find_targets(marks)
    if not targets:
        raise AstromorphError(
            f"{marks_file}: {_describe(marks)}; mark at least one image of this run as "
            "interesting, or with a class"
        )
    if len(targets) > MAX_TARGETS:
        raise AstromorphError(
            f"{marks_file}: found {len(set(marks.classes) - {''})} classes; at most "
            f"{MAX_TARGETS} are allowed; remove the column `class` if it contains "
            "something else"
        )
    with threadpool_limits(1):  # so that the result does not depend on their number
        points = leading_components(images.vectors, space).values()
        rankings = [_rank(points, target, marks) for target in targets]
    overall = _overall_scores(rankings)
    informative = most_informative(points, overall, marks.rows)
    table = _make_table(
        images.image_ids, images.paths, marks, rankings, overall, informative
    )
    sheets = _choose_sheets(images.image_ids, rankings, informative)
    pictures = _draw_sheets(files, sheets)
    write_table(files.ranking, table)
    _write_page(
        files, Path(marks_file), images.paths, marks, rankings, pictures,
        images.image_ids,
    )  # fmt: skip
    for ranking in rankings:
        LOG.info("%s: %s", ranking.target.name, _describe_quality(ranking))
    LOG.info("%s: %d images, %s", files.ranking, len(table), _describe(marks))


def _rank(points: Points, target: Target, marks: Marks) -> Ranking:
    rows = np.array(marks.rows, np.int64)
    scores = fit_target(points, target, rows).scores(points)
    order = np.argsort(-scores, kind="stable")
    best = order[~np.isin(order, rows)]
    return Ranking(target, scores, cross_validate(points, target, rows), best)


def _overall_scores(rankings: Sequence[Ranking]) -> Scores:
    """Scores of `interesting`; without this mark, the highest score of any class."""
    if not rankings[0].target.is_class:
        return rankings[0].scores
    scores: Scores = np.max([ranking.scores for ranking in rankings], axis=0)
    return scores


def _make_table(
    image_ids: Sequence[str],
    paths: Sequence[str],
    marks: Marks,
    rankings: Sequence[Ranking],
    overall: Scores,
    informative: NDArray[np.int64],
) -> "DataFrame":
    """A row for each image, the highest score first."""
    import pandas as pd

    number = len(image_ids)
    rows = list(marks.rows)
    kinds, classes = np.full((2, number), "", object)
    kinds[rows], classes[rows] = marks.marks, marks.classes
    order = np.argsort(-overall, kind="stable")
    ranks, places = np.empty(number, np.int64), np.full(number, "", object)
    ranks[order] = np.arange(1, number + 1)
    places[informative] = [str(k) for k in range(1, len(informative) + 1)]
    columns: dict[str, Any] = {
        "rank": ranks,
        "image_id": list(image_ids),
        "path": list(paths),
        "score": overall,
        "uncertainty": 1 - np.abs(2 * overall - 1),
        "informative": places,
        "mark": kinds,
        "class": classes,
    }
    for ranking in rankings:
        if ranking.target.is_class:
            columns[f"score_{ranking.target.name}"] = ranking.scores
    return pd.DataFrame(columns).iloc[order]


def _choose_sheets(
    image_ids: Sequence[str],
    rankings: Sequence[Ranking],
    informative: NDArray[np.int64],
) -> list[Sheet]:
    """The contact sheets: the best of each target, and the most informative images."""
    sheets = []
    for ranking, name in zip(rankings, _sheet_names(rankings), strict=True):
        frames = [
            Frame(image_ids[row], f"score {ranking.scores[row]:.3f}")
            for row in ranking.best[:FRAMES].tolist()
        ]
        title = f"Unmarked images, most likely {_describe_target(ranking.target)}"
        sheets.append(_sheet(name, title, frames))
    frames = [
        Frame(image_ids[row], f"{place}.")
        for place, row in enumerate(informative[:FRAMES].tolist(), start=1)
    ]
    sheets.append(_sheet("informative", "Most informative to mark next", frames))
    return [sheet for sheet in sheets if sheet.frames]


def _sheet(name: str, title: str, frames: Sequence[Frame]) -> Sheet:
    columns = min(COLUMNS, max(1, len(frames)))
    return Sheet(name, "ranking", title, columns, tuple(frames))


def _draw_sheets(files: RunFiles, sheets: Sequence[Sheet]) -> dict[str, str]:
    """Write the contact sheets; pictures for the page, as data URLs by image id."""
    image_ids = {frame.image_id for sheet in sheets for frame in sheet.frames}
    source = PictureSource(
        images=find_images(all_tensors(files), image_ids),
        fits_paths={},
        facts=read_facts(files, image_ids),
        data=DataSettings(),
        stretch=NETWORK,
        training=Settings(),
        seed=0,
    )
    with atomic_folder(files.ranking_sheets) as folder:
        for sheet in sheets:
            names = [source.facts[frame.image_id].name for frame in sheet.frames]
            path = folder / f"{sheet.name}.png"
            draw_sheet(path, sheet, source.pictures(sheet), names)
    listed = {f.image_id for sheet in sheets for f in sheet.frames[:LISTED]}
    return {
        image_id: picture_url(source.images.pixels(image_id)[None])
        for image_id in sorted(listed)
    }


def _sheet_names(rankings: Sequence[Ranking]) -> list[str]:
    """Names of the sheets without suffix; classes are numbered from 0."""
    before = sum(not ranking.target.is_class for ranking in rankings)
    return [
        f"class_{number - before:02d}" if ranking.target.is_class else INTERESTING
        for number, ranking in enumerate(rankings)
    ]


def _write_page(
    files: RunFiles,
    marks_file: Path,
    paths: Sequence[str],
    marks: Marks,
    rankings: Sequence[Ranking],
    pictures: dict[str, str],
    image_ids: Sequence[str],
) -> None:
    """Write the page: the quality of each ranking, and its best images."""
    sections = []
    for ranking, name in zip(rankings, _sheet_names(rankings), strict=True):
        target, quality = ranking.target, ranking.quality
        sections.append(
            {
                "title": f"Class {target.name}" if target.is_class else "Interesting",
                "positives": target.positives,
                "negatives": target.negatives,
                "quality": quality,
                "curve": _curve(quality) if quality else None,
                "sheet": f"{files.ranking_sheets.name}/{name}.png",
                "best": [
                    (
                        PageImage.of(paths[row], pictures[image_ids[row]]),
                        float(ranking.scores[row]),
                    )
                    for row in ranking.best[:LISTED].tolist()
                ],
            }
        )
    write_page(
        files.ranking_page,
        "ranking.html",
        files,
        images=len(paths),
        table=files.ranking.name,
        marks_file=str(marks_file),
        summary=_describe(marks),
        unknown=marks.unknown,
        min_of_each=MIN_OF_EACH,
        informative=f"{files.ranking_sheets.name}/informative.png"
        if len(marks) < len(paths)
        else None,
        sections=sections,
    )


def _curve(quality: Quality) -> dict[str, Any]:
    """The points of precision over rank, for the SVG of the page."""
    width, height = PLOT
    x = width * (quality.ranks - 1) / (quality.ranks[-1] - 1)
    line, low, high = (
        " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(x, height * (1 - y), strict=True)
        ).split(" ")
        for y in (quality.precision, quality.precision_low, quality.precision_high)
    )
    return {
        "width": width,
        "height": height,
        "line": " ".join(line),
        "band": " ".join([*low, *reversed(high)]),
        "share": height * (1 - quality.share),
    }


def _describe_target(target: Target) -> str:
    return f"of class {target.name}" if target.is_class else "interesting"


def _describe(marks: Marks) -> str:
    """The numbers of marks, in words."""
    number = sum(name != "" for name in marks.classes)
    interesting = marks.count(INTERESTING)
    return (
        f"{interesting} image{'' if interesting == 1 else 's'} marked as interesting, "
        f"{marks.count(NOT_INTERESTING)} as not interesting, {number} with a class"
    )


def _describe_quality(ranking: Ranking) -> str:
    """The average precision in words, or why there is none."""
    quality, target = ranking.quality, ranking.target
    used = (
        f"{target.positives} example{'' if target.positives == 1 else 's'} and "
        f"{target.negatives} counter-example{'' if target.negatives == 1 else 's'}"
    )
    if quality is None:
        too_few = f"with fewer than {MIN_OF_EACH} of either, no quality can be given"
        return f"{used}; {too_few}"
    return (
        f"average precision {quality.average_precision:.2f} "
        f"({quality.low:.2f} to {quality.high:.2f}) in {used}"
    )
