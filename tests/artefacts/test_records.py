"""Records: what results were made from, and whether they are complete."""

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromorph.artefacts.records import (
    Inputs,
    all_records,
    now,
    read_record,
    remove_record,
    write_record,
)
from astromorph.artefacts.run_files import RunFiles

INPUTS = Inputs("s", "l", "f", "c")


@pytest.fixture
def files(tmp_path):
    """A run with a table and a folder."""
    files = RunFiles.of_run(tmp_path / "results")
    (files.gallery / "deep").mkdir(parents=True)
    (files.gallery / "deep" / "a.png").write_bytes(b"123")
    (files.gallery / "b.png").write_bytes(b"45")
    files.split.write_text("text")
    return files


def write(files):
    write_record(files, "split", "split", INPUTS, [files.split, files.gallery])
    return read_record(files, "split", "split")


def test_a_record_is_read_as_it_was_written(files):
    """With the sizes of files and folders, relative to the results folder."""
    record = write(files)
    assert record.made_from == INPUTS
    assert record.outputs == {"split.csv": 4, "export/gallery": 5}
    assert record.has_complete_outputs(files.results)
    assert all_records(files) == [record]


def test_an_output_elsewhere_is_recorded_with_its_full_path(files, tmp_path):
    """A model file may be outside the results folder."""
    model = tmp_path / "model.pt"
    model.write_text("model")
    write_record(files, "train", "train", INPUTS, [model])
    record = read_record(files, "train", "train")
    assert record.outputs == {str(model): 5}
    assert record.has_complete_outputs(files.results)
    model.unlink()
    assert not record.has_complete_outputs(files.results)


@pytest.mark.parametrize("damage", ["", "texts", None])
def test_a_file_of_another_size_is_not_complete(files, damage):
    """A power failure can leave an empty file."""
    record = write(files)
    if damage is None:
        files.split.unlink()
    else:
        files.split.write_text(damage)
    assert not record.has_complete_outputs(files.results)


def test_a_removed_record_is_gone(files):
    """Removing one that does not exist does nothing."""
    write(files)
    for _ in range(2):
        remove_record(files, "split", "split")
        assert read_record(files, "split", "split") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 1}', "\ud800", '{"version": 99}']
    + [
        json.dumps({"version": 1, "step": "a", "job": "b", "finished": "", **parts})
        for parts in (
            {"made_from": {}, "outputs": {}},
            {"made_from": [], "outputs": {}},
            {"made_from": {"settings": 1}, "outputs": {}},
            {"made_from": {}, "outputs": []},
        )
    ],
)
def test_what_is_no_record_counts_as_none(files, text):
    """A damaged record must not end a run; the result is made again."""
    path = files.record("split", "split")
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_record(files, "split", "split") is None
    assert all_records(files) == []


texts = st.text(max_size=4)
inputs = st.builds(Inputs, texts, texts, texts, texts)


@given(inputs)
def test_inputs_survive_json(value):
    """They are passed on the command line."""
    assert Inputs.from_json(value.to_json()) == value


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": "a"}'])
def test_other_json_is_refused(text):
    """The option `--inputs` reports it."""
    with pytest.raises(ValueError, match=r"JSON|object|Expecting"):
        Inputs.from_json(text)


@given(inputs, st.lists(inputs, max_size=3), inputs)
def test_a_change_of_any_previous_step_changes_the_inputs(own, previous, other):
    """In the attribute that has changed, and in no other."""
    before = own.with_previous([*previous, own])
    after = own.with_previous([*previous, other])
    assert before.differences(after) == own.differences(other)


def test_the_order_of_previous_steps_counts():
    """Two shards must not be exchanged."""
    one, two = Inputs("1", "", "", ""), Inputs("2", "", "", "")
    assert INPUTS.with_previous([one, two]) != INPUTS.with_previous([two, one])


def test_the_date_can_be_given(monkeypatch):
    """For reproducible files, as the standard variable says."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert now() == datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert now().year > 2020
