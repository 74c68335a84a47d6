"""The file between `analyse` and the exports."""

import numpy as np
import pytest
from finished_run import image_ids, random_analysis

from astromorph.artefacts import analysis_table
from astromorph.artefacts.analysis_table import (
    ANALYSIS_COLUMNS,
    Analysis,
    read_analysis,
    read_analysis_columns,
    read_analysis_parts,
    write_analysis,
)
from astromorph.errors import AstromorphError


@pytest.mark.parametrize(("number", "neighbours"), [(7, 3), (2, 1), (1, 0), (5, 4)])
def test_the_analysis_is_read_back(tmp_path, monkeypatch, number, neighbours):
    """It is read as a whole, in parts and as a table."""
    monkeypatch.setattr(analysis_table, "ROWS_AT_A_TIME", 3)
    written = random_analysis(image_ids(number), neighbours)
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
    table = read_analysis_columns(path)
    assert tuple(table) == ANALYSIS_COLUMNS
    assert tuple(table["image_id"]) == written.image_ids
    np.testing.assert_array_equal(table[["x", "y"]].to_numpy(), written.map)
    assert table["outlier_rank"].dtype == np.int32
    assert [tuple(ids) for ids in table["neighbour_ids"]] == list(written.neighbours)
    assert list(read_analysis_columns(path, ["role", "path"])) == ["image_id", "role"]


@pytest.mark.parametrize("read", [read_analysis, read_analysis_columns])
def test_another_file_is_an_error(tmp_path, read):
    """If it is missing or not an analysis, the message names the file and the step."""
    with pytest.raises(
        AstromorphError,
        match=r"none\.parquet: the analysis cannot be read .* `analyse`",
    ):
        read(tmp_path / "none.parquet")
    (tmp_path / "other.parquet").write_text("other")
    with pytest.raises(
        AstromorphError, match=r"other\.parquet: the analysis cannot be read"
    ):
        read(tmp_path / "other.parquet")
    write_analysis(tmp_path / "empty.parquet", random_analysis(()))
    with pytest.raises(
        AstromorphError, match=r"empty\.parquet: the analysis contains no images"
    ):
        read(tmp_path / "empty.parquet")
