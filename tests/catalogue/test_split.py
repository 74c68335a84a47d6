"""Shards of prepared images, and the split into training and test sets."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.columns import CONTENTS_COLUMNS
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.catalogue.split import MAX_ROWS_PER_OBJECT, split
from astromorph.datasets.batching import pad_by_reflection
from astromorph.datasets.tensor_datasets import (
    NativeDataset,
    read_subset,
    shard_image_set,
)
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist
from astromorph.filelist.shards import Shard
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse


def run_preprocess(datafile, shard, files, settings):
    data, preprocessing = settings.data_settings, settings.preprocess_settings
    preprocess(datafile, shard, files, data, preprocessing)


def run_split(datafile, files, settings):
    rules, validation = settings.split_settings, settings.validate_settings
    split(datafile, files, rules, validation, settings.seed)


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_shard_agrees_with_its_contents(prepared, sky):
    """Ids, rows and positions are equal; images are half floats from 0 to 1."""
    shard, table = read_shard(prepared / "00001.pt"), read_rows(prepared / "00001.csv")
    assert shard.images.shape == (12, 1, 32, 32)
    assert shard.images.dtype == torch.float16
    assert 0 <= shard.images.min() < shard.images.max() <= 1
    assert list(shard.image_ids) == [r["image_id"] for r in table]
    assert shard.rows.tolist() == list(range(16, 28))
    assert [int(r["position"]) for r in table] == list(range(12))
    for name in ("noise", "stretched_noise"):
        column = [float(r[name]) for r in table]
        np.testing.assert_allclose(shard.statistics[name], column, rtol=1e-6)
        assert min(column) > 0


def test_shard_stores_the_mask_of_valid_pixels(prepared, sky):
    """Borders of NaN and padding are not valid."""
    shard = read_shard(prepared / "00000.pt")
    valid = shard.unpack_valid()
    assert len(valid) == len(shard) == 16
    shares = [float(v.float().mean()) for v in valid]
    assert min(shares) < 0.95
    assert max(shares) == 1
    for mask, image in zip(valid, shard.images, strict=True):
        assert mask.shape == (32, 32)
        fill = image[0][~mask]
        assert len(fill) == 0 or (fill == fill[0]).all()


def test_bad_files_do_not_affect_other_files(sky, settings, tmp_path):
    """A shard with bad files only is also written, without images."""
    good = f"{sky.parent}/sky_000000.fits"
    (tmp_path / "list.txt").write_text(f'path,n\n"",1\n{good},2\n')
    files = RunFiles(tmp_path)
    run_preprocess(tmp_path / "list.txt", Shard("a", 0, 2), files, settings)
    table = read_rows(files.contents("a"))
    assert [r["status"] for r in table] == ["rejected", "ok"]
    assert [r["position"] for r in table] == ["", "0"]
    assert "empty path" in table[0]["reason"]
    run_preprocess(tmp_path / "list.txt", Shard("a", 0, 1), files, settings)
    shard = read_shard(files.tensors("a"))
    assert shard.images.shape == (0, 1, 32, 32)
    assert shard.image_list() == shard.unpack_valid() == []
    assert shard_image_set(shard, 1) is None


def test_shortened_list_is_an_error(sky, settings, tmp_path):
    """The step ends if rows of the shard no longer exist."""
    with pytest.raises(
        AstromorphError, match="rows 20 to 40 are needed, but only 8 of them"
    ):
        run_preprocess(sky, Shard("a", 20, 40), RunFiles(tmp_path), settings)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_images_do_not_depend_on_the_boundaries_of_shards(sky, tmp_path, dtype):
    """Each shard determines the same common scale from the first rows of the list."""
    values = {"size": 24, "stretch_scope": "dataset", "dtype": dtype}
    changed = parse({"preprocess_settings": values}, "test")
    files = RunFiles(tmp_path)
    run_preprocess(sky, Shard("all", 0, 28), files, changed)
    run_preprocess(sky, Shard("end", 20, 28), files, changed)
    complete, end = read_shard(files.tensors("all")), read_shard(files.tensors("end"))
    assert complete.images.dtype == getattr(torch, dtype)
    assert torch.equal(complete.images[20:], end.images)


@pytest.fixture
def native(sky, tmp_path):
    """A run with one shard of images in their native size."""
    changed = parse({"preprocess_settings": {"size": "native"}}, "test")
    files = RunFiles.of_run(tmp_path, shards=1)
    run_preprocess(sky, Shard("00000", 0, 28), files, changed)
    run_split(sky, files, changed)
    return files


def test_native_images_have_the_size_in_the_contents(native):
    """Their masks have the same size."""
    shard, table = (
        read_shard(native.tensors("00000")),
        read_rows(native.contents("00000")),
    )
    images, valid = shard.image_list(), shard.unpack_valid()
    shapes = [(int(r["height"]), int(r["width"])) for r in table]
    assert [tuple(i.shape) for i in images] == [(1, *s) for s in shapes]
    assert [tuple(v.shape) for v in valid] == shapes
    assert len(set(shapes)) > 10
    assert all(0 <= i.min() < i.max() <= 1 for i in images)


@pytest.mark.parametrize("fewest", [1, 2])
def test_native_batches_contain_similar_sizes(native, fewest):
    """Each image occurs once; with 1 sizes are equal, with 2 no image is alone."""
    data = read_subset(native.split, native.all_tensors, "train").images
    assert isinstance(data, NativeDataset)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    parts = list(data.batches(8, order, fewest))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(data)))
    assert all(fewest <= len(part) <= 9 for part in parts)
    for part in parts:
        shapes = {tuple(data.images[k].shape) for k in part.tolist()}
        assert fewest > 1 or len(shapes) == 1
        batch = data.batch(part)
        largest = [max(s[axis] for s in shapes) for axis in (1, 2)]
        assert list(batch.shape[2:]) == largest
    assert data[3].shape == data.images[3].shape
    again = list(data.batches(8, order, fewest))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_batches_of_large_images_are_smaller():
    """The memory of a batch is about that of images of 128 by 128 pixels."""
    data = NativeDataset([torch.zeros(1, 256, 256)] * 40)
    assert max(len(part) for part in data.batches(16)) == 4


@pytest.mark.parametrize("size", [5, 6, 11, 30])
def test_small_images_are_padded_by_reflection(size):
    """The result equals symmetric padding of numpy, at any distance."""
    image = torch.arange(20.0).reshape(1, 4, 5)
    before = [((size - n) // 2, size - n - (size - n) // 2) for n in (4, 5)]
    expected = np.pad(image.numpy(), [(0, 0), *before], mode="symmetric")
    np.testing.assert_array_equal(
        pad_by_reflection(image, size, size).numpy(), expected
    )


@pytest.fixture
def split_rows(tmp_path):
    """A function that splits good images with given columns and contents."""

    def run(number, seed=0, fraction=0.25, contents=None, rules=None, **columns):
        listed = [
            {"path": f"{k}.fits"} | {name: value(k) for name, value in columns.items()}
            for k in range(number)
        ]
        datafile, files = tmp_path / "list.csv", RunFiles.of_run(tmp_path, shards=1)
        artefacts.write_csv(datafile, ("path", *columns), listed)
        shard = [
            {"image_id": e.image_id, "path": e.path, "status": "ok", "position": n}
            | {"content": f"content {n}"}
            | ({"reach_arcsec": 1} | contents(n) if contents else {})
            for n, e in enumerate(read_filelist(datafile))
        ]
        artefacts.write_csv(files.contents("00000"), CONTENTS_COLUMNS, shard)
        values = {"test_fraction": fraction} | (rules or {})
        drop = values.pop("on_duplicate", "keep")
        settings = parse(
            {"seed": seed, "split_settings": values,
             "validate_settings": {"on_duplicate": drop}}, "test",
        )  # fmt: skip
        run_split(datafile, files, settings)
        return {int(Path(r["path"]).stem): r["subset"] for r in read_rows(files.split)}

    return run


def test_split_is_stable_and_has_the_requested_fraction(split_rows):
    """Appended files do not change earlier assignments; another seed does."""
    before, after, other = split_rows(800), split_rows(1000), split_rows(800, seed=1)
    assert all(after[name] == subset for name, subset in before.items())
    assert other != before
    share = sum(subset == "test" for subset in after.values()) / 1000
    assert 0.2 < share < 0.3


def test_group_is_never_divided(split_rows):
    """Images with the same `group` are in the same subset."""
    subsets = split_rows(300, group=lambda k: k // 3)
    for k in range(0, 300, 3):
        assert len({subsets[k + n] for n in range(3)}) == 1
    assert set(subsets.values()) == {"train", "test"}


def test_object_is_never_divided(split_rows):
    """OBJECT defines groups even if positions differ, as for a comet."""
    subsets = split_rows(
        300,
        contents=lambda k: {"object": f"NGC {k % 100}", "ra_deg": k, "dec_deg": 1.0},
    )
    for k in range(100):
        assert len({subsets[k + n] for n in (0, 100, 200)}) == 1
    assert set(subsets.values()) == {"train", "test"}


def test_survey_name_is_not_an_object(split_rows, caplog):
    """The same OBJECT in all files does not assign all of them to one subset."""
    subsets = split_rows(
        400, contents=lambda k: {"object": "SURVEY", "ra_deg": k / 2, "dec_deg": 1.0}
    )
    assert len({subsets[k] for k in range(MAX_ROWS_PER_OBJECT)}) == 1
    assert set(subsets.values()) == {"train", "test"}
    assert "SURVEY: more than 50 images have this name" in caplog.text


@pytest.mark.parametrize("radius", [None, 20.0])
def test_images_at_one_position_are_never_divided(split_rows, radius):
    """Within half a field or the given radius; appended rows have no effect."""
    offsets = (0.0, 15.0, 25.0)

    def contents(k):
        field = 80.0 if k % 2 else 40.0  # neighbours also differ in size
        ra = 40.0 * (k % 60) * (1 / 60) + 360 - 20
        return {
            "ra_deg": ra % 360, "dec_deg": 5 + offsets[k // 60] / 3600,
            "field_arcsec": field,
        }  # fmt: skip

    rules = {"group_radius_arcsec": radius}
    subsets = split_rows(180, contents=contents, rules=rules)
    for k in range(60):
        assert subsets[k] == subsets[k + 60]
    assert any(subsets[k] != subsets[(k + 1) % 60] for k in range(60))
    before = split_rows(120, contents=contents, rules=rules)
    assert all(subsets[name] == subset for name, subset in before.items())


def test_radius_of_zero_forms_no_groups(split_rows):
    """Images at one position can then be in different subsets."""
    contents = lambda k: {"ra_deg": 10.0, "dec_deg": 1.0, "field_arcsec": 60}  # noqa: E731
    assert len(set(split_rows(50, contents=contents).values())) == 1
    found = split_rows(50, contents=contents, rules={"group_radius_arcsec": 0})
    assert set(found.values()) == {"train", "test"}


def test_large_group_causes_a_warning(split_rows, caplog):
    """The log reports that many images count as one object."""
    split_rows(40, group=lambda k: k // 30)
    assert "30 of 40 images count as one object" in caplog.text


def test_column_split_takes_precedence(split_rows):
    """Other images of a group follow its first row."""
    sides = ("test", "TRAIN", "", "none")
    subsets = split_rows(
        200, split=lambda k: sides[k % 4] if k < 100 else "", group=lambda k: k % 100
    )
    for k in range(100):
        if sides[k % 4]:
            assert subsets[k] == sides[k % 4].lower()
        if sides[k % 4] in ("test", "TRAIN"):
            assert subsets[k + 100] == subsets[k]
    with pytest.raises(AstromorphError, match="'validation'; allowed are train, test"):
        split_rows(10, split=lambda k: "validation")


def test_dropped_duplicates_are_not_used(split_rows, tmp_path):
    """Even if only their pixels show that they are duplicates."""
    contents = lambda k: {"content": f"{k % 8:x}"}  # noqa: E731
    subsets = split_rows(10, contents=contents)
    assert [k for k, subset in subsets.items() if subset == "embed"] == [8, 9]
    assert "none" not in subsets.values()
    assert [r["status"] for r in read_rows(tmp_path / "split.csv")][8:] == [
        "warning"
    ] * 2
    dropped = split_rows(10, contents=contents, rules={"on_duplicate": "drop"})
    assert [k for k, subset in dropped.items() if subset == "none"] == [8, 9]
    reason = read_rows(tmp_path / "split.csv")[8]["reason"]
    assert reason.startswith("duplicate: left out, the same content as ")
    assert reason.endswith("/0.fits")


def test_images_that_add_nothing_are_only_embedded(split_rows):
    """Blank images and repetitions; the list can request otherwise for each of them.

    A blank image may be the first of its group: the others are used as usual. So is a
    copy of an image that the list excludes.
    """
    sides = {3: "train", 4: "embed", 5: "none"}
    subsets = split_rows(
        60,
        contents=lambda k: {"content": "" if k < 3 or k >= 58 else f"{k % 50:x}"},
        split=lambda k: sides.get(k, "test" if k == 57 else ""),
        group=lambda k: k // 2,
    )
    embedded = [k for k, subset in subsets.items() if subset == "embed"]
    assert embedded == [0, 1, 2, 4, 53, 54, 56, 58, 59]
    assert (subsets[3], subsets[5], subsets[57]) == ("train", "none", "test")
    assert {subsets[k] for k in (*range(6, 53), 55)} == {"train", "test"}


def test_too_few_images_are_all_used_for_training(split_rows, caplog):
    """If fewer than two training images remain, none is used for testing."""
    assert set(split_rows(2, fraction=0.99).values()) == {"train"}
    assert "all images are used for training" in caplog.text


def test_contents_of_another_list_are_an_error(prepared, sky, settings, tmp_path):
    """Shards in the wrong order and missing shards give an error with a remedy."""
    (tmp_path / "tensors").symlink_to(prepared)
    files = RunFiles(tmp_path)
    with pytest.raises(AstromorphError, match="do not list the same images"):
        run_split(sky, replace(files, shards=("00001",)), settings)
    with pytest.raises(AstromorphError, match="lists more images"):
        run_split(sky, replace(files, shards=("00000",)), settings)


def test_compressed_copy_is_a_duplicate(tmp_path, settings):
    """Its bytes differ, but its pixels are the same."""
    import gzip

    pixels = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    compressed = gzip.compress((tmp_path / "a.fits").read_bytes())
    (tmp_path / "b.fits.gz").write_bytes(compressed)
    datafile, files = tmp_path / "list.txt", RunFiles.of_run(tmp_path, shards=1)
    datafile.write_text("a.fits\nb.fits.gz\n")
    run_preprocess(datafile, Shard("00000", 0, 2), files, settings)
    run_split(datafile, files, settings)
    assert "the same content as" in read_rows(files.split)[1]["reason"]


def test_duplicates_are_never_divided(split_rows):
    """Duplicates without name or position are not trained on or tested."""
    contents = lambda k: {"content": f"{k % 60:x}"}  # noqa: E731
    subsets = split_rows(180, contents=contents)
    assert {subsets[k] for k in range(60)} == {"train", "test"}
    assert {subsets[k] for k in range(60, 180)} == {"embed"}
    before = split_rows(100, contents=contents)
    assert all(subsets[name] == subset for name, subset in before.items())


def test_many_images_at_one_position_are_one_group(split_rows):
    """Even with absurdly large beams."""
    contents = lambda k: {  # noqa: E731
        "ra_deg": 10.0 + k * 1e-7, "dec_deg": 1.0, "field_arcsec": 60,
        "reach_arcsec": 1e300,
    }  # fmt: skip
    assert len(set(split_rows(2000, contents=contents).values())) == 1


def test_common_scale_ignores_unusable_images(tmp_path):
    """One of the images has no valid pixels after cropping."""
    for k in range(4):
        pixels = np.random.default_rng(k).normal(size=(60, 60)).astype(np.float32)
        if k == 1:
            pixels[10:50, 10:50] = np.nan
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{k}.fits")
    datafile = tmp_path / "list.txt"
    datafile.write_text("".join(f"{k}.fits\n" for k in range(4)))
    rules = {"crop_fraction": 0.5, "stretch_scope": "dataset", "size": 24}
    files = RunFiles(tmp_path)
    changed = parse({"preprocess_settings": rules}, "test")
    run_preprocess(datafile, Shard("a", 0, 4), files, changed)
    reasons = [r["reason"] for r in read_rows(files.contents("a"))]
    assert [bool(r) for r in reasons] == [False, True, False, False]


def test_wide_and_tall_images_are_not_padded_to_squares():
    """The size of a batch includes padding."""
    shapes = [(1, 32, 1024)] * 9 + [(1, 1024, 32)] * 9
    data = NativeDataset([torch.zeros(shape) for shape in shapes])
    for indices in data.batches(64, min_size=2):
        assert data.batch(indices)[0].numel() < 512 * 512
