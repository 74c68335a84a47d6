"""Shards and the split: what goes where, and that it stays there."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from astromorph.artefacts import tables as artefacts
from astromorph.artefacts.tensor_shard import read_shard
from astromorph.catalogue.split import MAX_OBJECT_SHARE, split
from astromorph.datasets.batching import pad_by_reflection
from astromorph.datasets.tensor_datasets import (
    NativeDataset,
    read_subset,
    shard_image_set,
)
from astromorph.errors import AstromorphError
from astromorph.filelist.entries import read_filelist
from astromorph.preprocessing.preprocess import preprocess
from astromorph.settings.loading import parse


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_shard_holds_what_its_table_says(prepared, sky):
    """Ids, rows and positions agree, images are half floats from 0 to 1."""
    shard, table = read_shard(prepared / "00001.pt"), rows(prepared / "00001.csv")
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


def test_a_shard_knows_what_was_observed(prepared, sky):
    """Borders of NaN and padding are not valid; the rest is."""
    shard = read_shard(prepared / "00000.pt")
    valid = shard.unpack_valid()
    assert len(valid) == len(shard) == 16
    shares = [float(v.float().mean()) for v in valid]
    assert min(shares) < 0.95
    assert max(shares) == 1
    for mask, image in zip(valid, shard.images, strict=True):
        assert mask.shape == (32, 32)
        unseen = image[0][~mask]
        assert len(unseen) == 0 or (unseen == unseen[0]).all()


def test_bad_files_cost_the_others_nothing(sky, settings, tmp_path):
    """A shard of bad files alone is written too, and holds no image."""
    good = f"{sky.parent}/sky_000000.fits"
    (tmp_path / "list.txt").write_text(f'path,n\n"",1\n{good},2\n')
    outputs = (tmp_path / "a.pt", tmp_path / "a.csv")
    preprocess(settings, tmp_path / "list.txt", (0, 2), *outputs)
    table = rows(tmp_path / "a.csv")
    assert [r["status"] for r in table] == ["rejected", "ok"]
    assert [r["position"] for r in table] == ["", "0"]
    assert "empty path" in table[0]["reason"]
    preprocess(settings, tmp_path / "list.txt", (0, 1), *outputs)
    shard = read_shard(tmp_path / "a.pt")
    assert shard.images.shape == (0, 1, 32, 32)
    assert shard.each() == shard.unpack_valid() == []
    assert shard_image_set(shard, 1) is None


def test_a_list_that_became_shorter_says_so(sky, settings, tmp_path):
    """Rows that are no longer there end the step."""
    with pytest.raises(AstromorphError, match="rows 20 to 40 are needed, 8 of them"):
        preprocess(settings, sky, (20, 40), tmp_path / "a.pt", tmp_path / "a.csv")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shards_do_not_depend_on_how_the_list_is_cut(sky, tmp_path, dtype):
    """One scale for the data set: each shard finds the same from the list's head."""
    values = {"size": 24, "stretch_scope": "dataset", "dtype": dtype}
    chosen = parse({"preprocess_settings": values}, "test")
    preprocess(chosen, sky, (0, 28), tmp_path / "all.pt", tmp_path / "all.csv")
    preprocess(chosen, sky, (20, 28), tmp_path / "end.pt", tmp_path / "end.csv")
    whole, end = read_shard(tmp_path / "all.pt"), read_shard(tmp_path / "end.pt")
    assert whole.images.dtype == getattr(torch, dtype)
    assert torch.equal(whole.images[20:], end.images)


@pytest.fixture
def native(sky, tmp_path):
    """A shard of images in their own size."""
    chosen = parse({"preprocess_settings": {"size": "native"}}, "test")
    preprocess(chosen, sky, (0, 28), tmp_path / "00000.pt", tmp_path / "00000.csv")
    split(chosen, sky, [tmp_path / "00000.csv"], tmp_path / "split.csv")
    return tmp_path


def test_native_images_keep_their_size(native):
    """Each comes back as large as its table says, with its mask."""
    shard, table = read_shard(native / "00000.pt"), rows(native / "00000.csv")
    images, valid = shard.each(), shard.unpack_valid()
    shapes = [(int(r["height"]), int(r["width"])) for r in table]
    assert [tuple(i.shape) for i in images] == [(1, *s) for s in shapes]
    assert [tuple(v.shape) for v in valid] == shapes
    assert len(set(shapes)) > 10
    assert all(0 <= i.min() < i.max() <= 1 for i in images)


@pytest.mark.parametrize("fewest", [1, 2])
def test_native_batches_hold_like_sizes(native, fewest):
    """Each image comes once; with 1 sizes are equal, with 2 none is alone."""
    data = read_subset(native / "split.csv", [native / "00000.pt"], "train").images
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


def test_large_images_come_in_smaller_batches():
    """Memory of a batch stays about that of 128 by 128 pixels."""
    data = NativeDataset([torch.zeros(1, 256, 256)] * 40)
    assert max(len(part) for part in data.batches(16)) == 4


@pytest.mark.parametrize("size", [5, 6, 11, 30])
def test_small_images_are_continued_by_their_mirror_images(size):
    """As numpy's symmetric padding does it, however far."""
    image = torch.arange(20.0).reshape(1, 4, 5)
    before = [((size - n) // 2, size - n - (size - n) // 2) for n in (4, 5)]
    expected = np.pad(image.numpy(), [(0, 0), *before], mode="symmetric")
    np.testing.assert_array_equal(
        pad_by_reflection(image, size, size).numpy(), expected
    )


@pytest.fixture
def tables(tmp_path):
    """Split N good images whose list and shard have further columns."""

    def divide(number, seed=0, fraction=0.25, held=None, rules=None, **columns):
        listed = [
            {"path": f"{k}.fits"} | {name: value(k) for name, value in columns.items()}
            for k in range(number)
        ]
        datafile, contents = tmp_path / "list.csv", tmp_path / "00000.csv"
        artefacts.write_csv(datafile, ("path", *columns), listed)
        shard = [
            {"image_id": e.image_id, "path": e.path, "status": "ok", "position": n}
            | ({"reach_arcsec": 1} | held(n) if held else {})
            for n, e in enumerate(read_filelist(datafile))
        ]
        artefacts.write_csv(contents, artefacts.CONTENTS_COLUMNS, shard)
        values = {"test_fraction": fraction} | (rules or {})
        drop = values.pop("on_duplicate", "keep")
        chosen = parse(
            {"seed": seed, "split_settings": values,
             "validate_settings": {"on_duplicate": drop}}, "test",
        )  # fmt: skip
        split(chosen, datafile, [contents], tmp_path / "split.csv")
        made = rows(tmp_path / "split.csv")
        return {int(Path(r["path"]).stem): r["subset"] for r in made}

    return divide


def test_the_split_is_stable_and_about_as_large_as_asked(tables):
    """Appended files move none of the old ones; another seed moves many."""
    before, after, other = tables(800), tables(1000), tables(800, seed=1)
    assert all(after[name] == subset for name, subset in before.items())
    assert other != before
    share = sum(subset == "test" for subset in after.values()) / 1000
    assert 0.2 < share < 0.3


def test_a_group_is_never_on_both_sides(tables):
    """Images with one `group` go together."""
    subsets = tables(300, group=lambda k: k // 3)
    for k in range(0, 300, 3):
        assert len({subsets[k + n] for n in range(3)}) == 1
    assert set(subsets.values()) == {"train", "test"}


def test_an_object_is_never_on_both_sides(tables):
    """OBJECT groups, also where positions differ, as those of a comet do."""
    subsets = tables(
        300, held=lambda k: {"object": f"NGC {k % 100}", "ra_deg": k, "dec_deg": 1.0}
    )
    for k in range(100):
        assert len({subsets[k + n] for n in (0, 100, 200)}) == 1
    assert set(subsets.values()) == {"train", "test"}


def test_a_survey_name_is_no_object(tables, caplog):
    """One OBJECT for all files does not put them all on one side."""
    subsets = tables(
        400, held=lambda k: {"object": "SURVEY", "ra_deg": k / 2, "dec_deg": 1.0}
    )
    assert len({subsets[k] for k in range(MAX_OBJECT_SHARE)}) == 1
    assert set(subsets.values()) == {"train", "test"}
    assert "SURVEY: more than 50 images have this name" in caplog.text


@pytest.mark.parametrize("radius", [None, 20.0])
def test_one_place_is_never_on_both_sides(tables, radius):
    """Within half a field, or the radius that is set; appended rows move none."""
    offsets = (0.0, 15.0, 25.0)

    def held(k):
        field = 80.0 if k % 2 else 40.0  # images of different sizes meet, too
        ra = 40.0 * (k % 60) * (1 / 60) + 360 - 20
        return {
            "ra_deg": ra % 360, "dec_deg": 5 + offsets[k // 60] / 3600,
            "field_arcsec": field,
        }  # fmt: skip

    rules = {"group_radius_arcsec": radius}
    subsets = tables(180, held=held, rules=rules)
    for k in range(60):
        assert subsets[k] == subsets[k + 60]
    assert any(subsets[k] != subsets[(k + 1) % 60] for k in range(60))
    before = tables(120, held=held, rules=rules)
    assert all(subsets[name] == subset for name, subset in before.items())


def test_a_radius_of_zero_groups_nothing(tables):
    """Images of one place can be on both sides if that is asked for."""
    held = lambda k: {"ra_deg": 10.0, "dec_deg": 1.0, "field_arcsec": 60}  # noqa: E731
    assert len(set(tables(50, held=held).values())) == 1
    found = tables(50, held=held, rules={"group_radius_arcsec": 0})
    assert set(found.values()) == {"train", "test"}


def test_a_large_group_is_a_warning(tables, caplog):
    """Where much of the set counts as one object, the log says so."""
    tables(40, group=lambda k: k // 30)
    assert "30 of 40 images count as one object" in caplog.text


def test_the_column_split_is_obeyed(tables):
    """And the rest of a group follows its first row."""
    sides = ("test", "TRAIN", "", "none")
    subsets = tables(
        200, split=lambda k: sides[k % 4] if k < 100 else "", group=lambda k: k % 100
    )
    for k in range(100):
        if sides[k % 4]:
            assert subsets[k] == sides[k % 4].lower()
        if sides[k % 4] in ("test", "TRAIN"):
            assert subsets[k + 100] == subsets[k]
    with pytest.raises(AstromorphError, match="'validation'; allowed are train, test"):
        tables(10, split=lambda k: "validation")


def test_dropped_duplicates_train_no_one(tables, tmp_path):
    """What only the pixels show to be the same is left out as well."""
    held = lambda k: {"content": f"{k % 8:x}"}  # noqa: E731
    kept = tables(10, held=held)
    assert "none" not in kept.values()
    assert [r["status"] for r in rows(tmp_path / "split.csv")][8:] == ["warning"] * 2
    dropped = tables(10, held=held, rules={"on_duplicate": "drop"})
    assert [k for k, subset in dropped.items() if subset == "none"] == [8, 9]
    reason = rows(tmp_path / "split.csv")[8]["reason"]
    assert reason.startswith("duplicate: left out, the same content as ")
    assert reason.endswith("/0.fits")


def test_too_few_images_all_train(tables, caplog):
    """Where fewer than two would train, none is held out, with a warning."""
    assert set(tables(2, fraction=0.99).values()) == {"train"}
    assert "all of them train" in caplog.text


def test_tables_of_different_lists_are_refused(prepared, sky, settings, tmp_path):
    """Shards in the wrong order, or too few, name the remedy."""
    with pytest.raises(AstromorphError, match="do not list the same images"):
        split(settings, sky, [prepared / "00001.csv"], tmp_path / "s.csv")
    with pytest.raises(AstromorphError, match="lists more images"):
        split(settings, sky, [prepared / "00000.csv"], tmp_path / "s.csv")


def test_the_same_image_packed_twice_is_the_same_content(tmp_path, settings):
    """A file and its compressed copy: bytes differ, pixels do not."""
    import gzip

    pixels = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    packed = gzip.compress((tmp_path / "a.fits").read_bytes())
    (tmp_path / "b.fits.gz").write_bytes(packed)
    (tmp_path / "list.txt").write_text("a.fits\nb.fits.gz\n")
    outputs = tmp_path / "00000.pt", tmp_path / "00000.csv"
    preprocess(settings, tmp_path / "list.txt", (0, 2), *outputs)
    split(settings, tmp_path / "list.txt", [outputs[1]], tmp_path / "split.csv")
    assert "the same content as" in rows(tmp_path / "split.csv")[1]["reason"]


def test_equal_images_are_never_on_both_sides(tables):
    """Kept duplicates without name or position follow their first row."""
    held = lambda k: {"content": f"{k % 60:x}"}  # noqa: E731
    subsets = tables(180, held=held)
    for k in range(60):
        assert len({subsets[k + n] for n in (0, 60, 120)}) == 1
    assert set(subsets.values()) == {"train", "test"}
    before = tables(100, held=held)
    assert all(subsets[name] == subset for name, subset in before.items())


def test_many_images_of_one_place_are_one_group(tables):
    """Absurd beams are no obstacle either."""
    held = lambda k: {  # noqa: E731
        "ra_deg": 10.0 + k * 1e-7, "dec_deg": 1.0, "field_arcsec": 60,
        "reach_arcsec": 1e300,
    }  # fmt: skip
    assert len(set(tables(2000, held=held).values())) == 1


def test_one_unusable_image_does_not_cost_the_common_scale(tmp_path):
    """Where nothing is left of an image after cropping, the others decide."""
    for k in range(4):
        pixels = np.random.default_rng(k).normal(size=(60, 60)).astype(np.float32)
        if k == 1:
            pixels[10:50, 10:50] = np.nan
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{k}.fits")
    datafile = tmp_path / "list.txt"
    datafile.write_text("".join(f"{k}.fits\n" for k in range(4)))
    rules = {"crop_fraction": 0.5, "stretch_scope": "dataset", "size": 24}
    chosen = parse({"preprocess_settings": rules}, "test")
    preprocess(chosen, datafile, (0, 4), tmp_path / "a.pt", tmp_path / "a.csv")
    reasons = [r["reason"] for r in rows(tmp_path / "a.csv")]
    assert [bool(r) for r in reasons] == [False, True, False, False]


def test_long_and_tall_images_are_not_padded_to_squares():
    """A batch's size counts what it is padded to."""
    shapes = [(1, 32, 1024)] * 9 + [(1, 1024, 32)] * 9
    data = NativeDataset([torch.zeros(shape) for shape in shapes])
    for indices in data.batches(64, min_size=2):
        assert data.batch(indices)[0].numel() < 512 * 512
