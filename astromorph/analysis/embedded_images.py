"""The images of a run that are analysed, and the space in which they are compared."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.analysis.space import Space, fit_space
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import (
    embedded_table,
    embedding_blocks,
    reference_names,
    reference_of,
)
from astromorph.errors import AstromorphError
from astromorph.settings.loading import parse
from astromorph.settings.sections import AnalysisSettings

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """The images that are analysed.

    Attributes
    ----------
    image_ids, paths : tuple of str
        N ids and paths, in the order of the file list.
    vectors : ndarray, shape (N, D), float32
        Their embeddings.
    """

    image_ids: tuple[str, ...]
    paths: tuple[str, ...]
    vectors: Vectors


def read_embedded_images(files: RunFiles) -> EmbeddedImages:
    """Read the embeddings of all images that the split does not exclude.

    Raises
    ------
    AstromorphError
        There are none, or the files do not match.
    """
    table = embedded_table(files, ["path"])
    if table.empty:
        raise AstromorphError(
            f"{files.split}: no image has an embedding; correct the file list, then "
            "run again from `validate`"
        )
    vectors = [vectors for _, vectors in embedding_blocks(files, table)]
    return EmbeddedImages(
        tuple(table["image_id"]), tuple(table["path"]), np.concatenate(vectors)
    )


def read_analysed_images(files: RunFiles) -> tuple[EmbeddedImages, Space]:
    """Read all images of an analysis, and fit the space in which it compares them.

    Returns
    -------
    images : EmbeddedImages
        Those of the run, followed by those that only its reference run has.
    space : Space
        Fitted to the images of the reference run, if there is one.

    Raises
    ------
    AstromorphError
        Results are missing, or do not match.
    """
    images = read_embedded_images(files)
    reference = reference_of(files)
    if reference is None:
        rules = read_analysis_settings(files.analysis_summary)
        return images, fit_space(images.vectors, rules.whiten, rules.components)
    others = read_embedded_images(reference)
    rules = read_analysis_settings(reference.analysis_summary)
    space = fit_space(others.vectors, rules.whiten, rules.components)
    renamed = reference_names(files, reference)
    names = [renamed.get(name, name) for name in others.image_ids]
    rows = [row for row, name in enumerate(names) if name]
    joined = EmbeddedImages(
        (*images.image_ids, *(names[row] for row in rows)),
        (*images.paths, *(others.paths[row] for row in rows)),
        np.concatenate([images.vectors, others.vectors[rows]]),
    )
    return joined, space


def read_analysis_settings(summary: Path) -> AnalysisSettings:
    """The settings of an analysis, from its JSON file.

    Raises
    ------
    AstromorphError
        The file is missing or damaged.
    """
    try:
        values = json.loads(summary.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AstromorphError(
            f"{summary}: the settings of the analysis cannot be read ({error}); run "
            "`analyse` first"
        ) from None
    return parse(values, str(summary)).analysis_settings
