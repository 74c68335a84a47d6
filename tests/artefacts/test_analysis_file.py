"""The file between `analyse` and the exports."""

import numpy as np
import pytest

from astromorph.artefacts import analysis_file
from astromorph.artefacts.analysis_file import (
    Analysis,
    read_analysis,
    read_analysis_parts,
    write_analysis,
)
from astromorph.errors import AstromorphError


def analysis_of(number: int, neighbours: int) -> Analysis:
    """Made-up findings about some images."""
    draw = np.random.default_rng(0)
    ids = tuple(f"{k:016x}" for k in range(number))
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


@pytest.mark.parametrize(("number", "neighbours"), [(7, 3), (2, 1), (1, 0), (5, 4)])
def test_the_analysis_comes_back(tmp_path, monkeypatch, number, neighbours):
    """All of it, at once and in parts; one image has no neighbour."""
    monkeypatch.setattr(analysis_file, "ROWS_AT_A_TIME", 3)
    written = analysis_of(number, neighbours)
    path = tmp_path / "analysis.parquet"
    write_analysis(path, written)
    read = read_analysis(path)
    for name in Analysis.__slots__:
        one, other = getattr(read, name), getattr(written, name)
        assert one == other if isinstance(one, tuple) else np.array_equal(one, other)
    parts = list(read_analysis_parts(path))
    assert [len(part) for part in parts] == [3] * (number // 3) + [number % 3] * (
        number % 3 > 0
    )


def test_another_file_is_refused(tmp_path):
    """Missing, or not an analysis: the message names the file and the step."""
    with pytest.raises(
        AstromorphError, match=r"none\.parquet: no analysis .* `analyse`"
    ):
        read_analysis(tmp_path / "none.parquet")
    (tmp_path / "other.parquet").write_text("other")
    with pytest.raises(AstromorphError, match=r"other\.parquet: no analysis"):
        read_analysis(tmp_path / "other.parquet")
