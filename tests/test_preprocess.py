"""From image to tensor: resizing by valid pixels, stretch, shards, split."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from astromorph import artefacts
from astromorph import validate as validation
from astromorph.cache import read_shard
from astromorph.errors import AstromorphError, FitsImageError
from astromorph.filelist import read_filelist
from astromorph.fits_image import Image
from astromorph.preprocess import measure, prepare, resize
from astromorph.settings import parse
from astromorph.shards import preprocess
from astromorph.split import split
from astromorph.validate import validate


def image(pixels, mask=None) -> Image:
    pixels = np.asarray(pixels, np.float32)[None]
    return Image(pixels, np.zeros(pixels.shape[1:], bool) if mask is None else mask)


def noisy(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(100, 100), (90, 120), (20, 31), (64, 64), (7, 40)])
def test_resizing_agrees_with_torch(shape):
    """Without bad pixels it is torch's antialiased bilinear interpolation."""
    data = noisy(shape)
    found, seen = resize(image(data), 48)
    expected = functional.interpolate(
        torch.from_numpy(data)[None, None], found.shape[1:], mode="bilinear",
        antialias=True, align_corners=False,
    )  # fmt: skip
    assert max(found.shape) == 48
    assert seen.all()
    np.testing.assert_allclose(found[0], expected[0, 0].numpy(), atol=2e-5)


def test_bad_pixels_have_no_weight():
    """Whatever stands in them, the result is the same, and a constant stays one."""
    data, mask = np.full((60, 60), 7.0, np.float32), np.zeros((60, 60), bool)
    mask[10:25, 5:50] = True
    results = []
    for filler in (0.0, 1e6, -3.0):
        data[mask] = filler
        results.append(resize(image(data, mask), 30))
    for pixels, seen in results:
        np.testing.assert_allclose(pixels[0][seen], 7.0, rtol=1e-5)
        np.testing.assert_array_equal(seen, results[0][1])
    assert 0 < (~results[0][1]).sum() < 300


@pytest.mark.parametrize("shape", [(80, 80), (80, 41), (17, 80), (16, 16), (1, 1)])
def test_tensors_are_square_and_run_from_0_to_1(shape):
    """Any shape; the input is not changed."""
    data = noisy(shape)
    kept = data.copy()
    prepared = prepare(image(data), 32)
    assert prepared.pixels.shape == (1, 32, 32)
    assert prepared.pixels.dtype == np.float32
    np.testing.assert_array_equal(data, kept)
    if shape != (1, 1):
        assert prepared.pixels.min() == 0
        assert prepared.pixels.max() == 1


def test_padding_and_unseen_pixels_show_the_background():
    """Beside a wide image stands the stretched median, not black."""
    data, mask = noisy((40, 80)), np.zeros((40, 80), bool)
    mask[:, :20] = True
    pixels = prepare(image(data, mask), 64).pixels[0]
    padding, unseen, sky = pixels[:10], pixels[20:40, :10], pixels[20:40, 30:]
    assert np.ptp(padding) == 0
    np.testing.assert_array_equal(unseen, padding[0, 0])
    assert abs(padding[0, 0] - np.median(sky)) < 0.05


def test_statistics_are_robust_and_in_the_unit_of_the_file():
    """Median and MAD of 20,000 normal numbers, with a source and without weight."""
    values = noisy((1, 20000))
    values[0, :300] = 1e4
    found = measure(values)
    assert found["background"] == pytest.approx(5, abs=0.1)
    assert found["noise"] == pytest.approx(2, rel=0.05)
    assert found["maximum"] == 1e4


def test_the_stretch_does_not_depend_on_unit_or_offset():
    """Janskys or millijanskys: the same tensor."""
    data = noisy((50, 50))
    a, b = (prepare(image(d), 32).pixels for d in (data, 1e-3 * data + 4))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_a_constant_image_gives_zeros_and_a_warning():
    """Not NaN."""
    prepared = prepare(image(np.full((30, 30), 3.0)), 32)
    assert (prepared.pixels == 0).all()
    assert "the same value" in prepared.warning


def test_all_bad_is_refused():
    """An image of NaN alone has a reason."""
    with pytest.raises(FitsImageError, match="all pixels are NaN"):
        prepare(image(np.zeros((5, 5)), np.ones((5, 5), bool)), 16)


def test_extreme_values_give_an_image_or_a_reason():
    """Nothing that is not finite reaches the network."""
    data = noisy((40, 40))
    data[3, 3], data[4, 4] = 3e38, -3e38
    try:
        assert np.isfinite(prepare(image(data), 32).pixels).all()
    except FitsImageError as error:
        assert "too large" in str(error)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_catalogue_has_a_row_per_file(prepared, sky):
    """In the order of the list, with label and position."""
    catalogue = rows(prepared / "catalogue.csv")
    labels = [r["label"] for r in rows(sky)]
    assert [r["label"] for r in catalogue] == labels
    assert {r["status"] for r in catalogue} == {"ok"}
    assert all(0 <= float(r["ra_deg"]) < 360 for r in catalogue)
    assert {r["unit"] for r in catalogue} == {"Jy/beam"}


def test_two_processes_write_the_same_catalogue(sky, settings, tmp_path, monkeypatch):
    """Whatever their number, rows come in the order of the list."""
    monkeypatch.setattr(validation, "SERIAL_BELOW", 0)
    monkeypatch.setattr(validation, "BLOCK", 10)
    texts = []
    for processes in (1, 2):
        path = tmp_path / f"{processes}.csv"
        validate(settings, sky, path, tmp_path / "page.html", processes)
        texts.append(path.read_text())
    assert texts[0] == texts[1]


def test_the_page_escapes_what_it_shows(sky, settings, tmp_path):
    """A path with markup is text, not a tag."""
    path = tmp_path / "list.txt"
    good = [str(p) for p in sorted(sky.parent.glob("*.fits"))[:2]]
    path.write_text("\n".join([*good, "<script>alert(1)</script>.fits"]))
    validate(settings, path, tmp_path / "c.csv", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "there is no such file" in page


def test_a_shard_holds_what_its_table_says(prepared, sky):
    """Ids, rows and positions agree, images are half floats from 0 to 1."""
    shard, table = read_shard(prepared / "00001.pt"), rows(prepared / "00001.csv")
    assert shard.images.shape == (12, 1, 32, 32)
    assert shard.images.dtype == torch.float16
    assert 0 <= shard.images.min() < shard.images.max() <= 1
    assert list(shard.image_ids) == [r["image_id"] for r in table]
    assert shard.rows.tolist() == list(range(16, 28))
    assert [int(r["position"]) for r in table] == list(range(12))
    noise = [float(r["noise"]) for r in table]
    np.testing.assert_allclose(shard.statistics["noise"], noise, rtol=1e-6)


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
    assert read_shard(tmp_path / "a.pt").images.shape == (0, 1, 32, 32)


def test_a_list_that_became_shorter_says_so(sky, settings, tmp_path):
    """Rows that are no longer there end the step."""
    with pytest.raises(AstromorphError, match="rows 20 to 40 are needed, 8 of them"):
        preprocess(settings, sky, (20, 40), tmp_path / "a.pt", tmp_path / "a.csv")


@pytest.fixture
def tables(tmp_path):
    """Split N good images whose list has further columns."""

    def divide(number, seed=0, fraction=0.25, **columns):
        listed = [
            {"path": f"{k}.fits"} | {name: value(k) for name, value in columns.items()}
            for k in range(number)
        ]
        datafile, contents = tmp_path / "list.csv", tmp_path / "00000.csv"
        artefacts.write_csv(datafile, ("path", *columns), listed)
        held = [
            {"image_id": e.image_id, "path": e.path, "status": "ok", "position": n}
            for n, e in enumerate(read_filelist(datafile))
        ]
        artefacts.write_csv(contents, artefacts.CONTENTS_COLUMNS, held)
        values = {"seed": seed, "split_settings": {"test_fraction": fraction}}
        split(parse(values, "test"), datafile, [contents], tmp_path / "split.csv")
        made = rows(tmp_path / "split.csv")
        return {Path(r["path"]).stem: r["subset"] for r in made}

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
        assert len({subsets[str(k + n)] for n in range(3)}) == 1
    assert set(subsets.values()) == {"train", "test"}


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
