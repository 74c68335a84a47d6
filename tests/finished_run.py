"""A finished run with made-up contents, written through `RunFiles`.

Every test that needs the files of a run without running its steps gets them here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astromorph.artefacts.analysis_table import Analysis, write_analysis
from astromorph.artefacts.columns import (
    CATALOGUE_COLUMNS,
    NONE,
    REJECTED,
    SPLIT_COLUMNS,
    TRAIN,
)
from astromorph.artefacts.embeddings import Embeddings, write_embeddings
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.shard_writer import SHARD_FORMAT, SHARD_VERSION, save_tensors
from astromorph.artefacts.tables import write_csv
from astromorph.settings.sections import Settings

LENGTH, SIDE = 5, 16  # of an embedding, and pixels of an image


def image_ids(number: int) -> tuple[str, ...]:
    """Ids of `number` images, in order."""
    return tuple(f"{k:016x}" for k in range(number))


def catalogue_rows(number: int, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of a catalogue of usable files; `columns` are added or replaced."""
    ids = image_ids(number)
    rows = [
        {"image_id": ids[k], "path": f"fits/{k:03d}.fits", "status": "ok", "width": 60,
         "height": 60}
        for k in range(number)
    ]  # fmt: skip
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    return rows


def random_analysis(ids: Sequence[str], neighbours: int = 3) -> Analysis:
    """An analysis of some images; the second is odd, the third repeats the first."""
    draw = np.random.default_rng(0)
    number, ids = len(ids), tuple(ids)
    return Analysis(
        image_ids=ids,
        cluster=draw.integers(-1, 3, number).astype(np.int32),
        kmeans=draw.integers(0, 3, number).astype(np.int32),
        hdbscan=draw.integers(-1, 3, number).astype(np.int32),
        map=draw.normal(size=(number, 2)).astype(np.float32),
        pca=draw.normal(size=(number, 2)).astype(np.float32),
        outlier_score=draw.random(number).astype(np.float32),
        outlier_rank=(1 + draw.permutation(number)).astype(np.int32),
        roles=tuple("odd" if k == 1 else "" for k in range(number)),
        neighbours=tuple((ids * 2)[k + 1 : k + 1 + neighbours] for k in range(number)),
        distances=draw.random((number, neighbours)).astype(np.float32),
        duplicates=tuple((ids[0],) if k == 2 else () for k in range(number)),
    )


def write_run(
    results: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    shard_sizes: Sequence[int] = (),
    subsets: Sequence[str] = (),
    vectors: np.ndarray | None = None,
    analysis: Analysis | None = None,
    pixels: np.ndarray | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
) -> RunFiles:
    """Write catalogue, split, tensors, embeddings and analysis of a run.

    Parameters
    ----------
    results : path
        The folder to write.
    rows : sequence of mapping
        The catalogue; its further columns are those of the list. All but the rejected
        ones have a tensor and an embedding.
    shard_sizes : sequence of int
        Rows of each shard; by default one shard.
    subsets : sequence of str
        For each row `train`, `test`, `embed` or `none`; by default `train`, for
        rejected rows `none`. Images of `none` are not analysed.
    vectors : ndarray, shape (M, D), optional
        Embeddings of the images; by default random.
    analysis : Analysis, optional
        By default random.
    pixels : ndarray, shape (M, C, S, S), optional
        Images; by default random.
    statistics : dict of str to ndarray, shape (M,)
        What the tensors say of the images.
    """
    rows = [dict(row) for row in rows]
    usable = [k for k, row in enumerate(rows) if row.get("status") != REJECTED]
    subsets = list(subsets) or [
        TRAIN if k in usable else NONE for k in range(len(rows))
    ]
    sizes = shard_sizes or (len(rows),)
    files = RunFiles.of_run(results, shards=len(sizes))
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    draw = np.random.default_rng(2)
    if vectors is None:
        vectors = draw.normal(size=(len(usable), LENGTH)).astype(np.float32)
    if pixels is None:
        pixels = draw.random((len(usable), 1, SIDE, SIDE)).astype(np.float32)
    positions: dict[int, int] = {}
    for shard, name in enumerate(files.shards):
        members = [m for m, k in enumerate(usable) if shard_of[k] == shard]
        positions |= {usable[m]: place for place, m in enumerate(members)}
        ids = [rows[usable[m]]["image_id"] for m in members]
        write_embeddings(
            files.embeddings(name), Embeddings(tuple(ids), vectors[members])
        )
        some = {key: value[members] for key, value in (statistics or {}).items()}
        write_tensors(files.tensors(name), ids, pixels[members], some)
    further = [name for name in rows[0] if name not in CATALOGUE_COLUMNS]
    write_csv(files.catalogue, (*CATALOGUE_COLUMNS, *further), rows)
    write_csv(
        files.split,
        SPLIT_COLUMNS,
        (
            {name: row.get(name, "") for name in SPLIT_COLUMNS[:4]}
            | {"subset": subsets[k], "shard": files.shards[shard_of[k]]}
            | {"position": positions.get(k, "")}
            for k, row in enumerate(rows)
        ),
    )
    used = [rows[k]["image_id"] for k in usable if subsets[k] != NONE]
    write_analysis(files.analysis, analysis or random_analysis(used))
    files.analysis_summary.write_text('{"settings": {}}', encoding="utf-8")
    return files


def write_tensors(
    path: Path,
    ids: Iterable[str],
    pixels: np.ndarray,
    statistics: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one shard of square images `(N, C, S, S)` with valid pixels only."""
    number, channels, side, _ = pixels.shape
    save_tensors(
        path,
        {
            "format": SHARD_FORMAT,
            "format_version": SHARD_VERSION,
            "images": pixels,
            "shapes": np.full((number, 2), side, np.int32),
            "channels": channels,
            "valid": np.full(number * -(-(side**2) // 8), 255, np.uint8),
            "image_ids": list(ids),
            "rows": np.arange(number),
            "statistics": dict(statistics or {}),
            "settings": "{}",
        },
    )


def write_random_model(path: Path, settings: Settings, channels: int = 1) -> None:
    """Write a model file with random weights."""
    from astromorph.artefacts.model_file import ModelFile, save_model
    from astromorph.byol.build import seeded_byol
    from astromorph.settings.steps import train_step_settings

    training = train_step_settings(settings)
    state = seeded_byol(training, channels).state_dict()
    save_model(path, ModelFile(state, training.to_dict(), channels, "{}", "0"))
