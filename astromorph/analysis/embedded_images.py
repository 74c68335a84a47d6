"""The images of a run that are analysed, and the space in which they are compared."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import embedded_table, embedding_blocks
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
