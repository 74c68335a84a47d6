"""From image to tensor: crops, resizing by valid pixels, stretches."""

import tracemalloc

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.stats import sigma_clipped_stats
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from astromorph.errors import FitsImageError
from astromorph.fits.pixels import Image
from astromorph.preprocessing.background import sigma_clip
from astromorph.preprocessing.list_wide import native_side
from astromorph.preprocessing.prepare import common_scale, measure_scale, prepare
from astromorph.preprocessing.preprocess import preprocess
from astromorph.preprocessing.resample import resize
from astromorph.settings.loading import parse
from astromorph.settings.sections import PreprocessSettings


def image(pixels, mask=None) -> Image:
    pixels = np.asarray(pixels, np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    return Image(pixels, np.zeros(pixels.shape[1:], bool) if mask is None else mask)


def noisy(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, shape).astype(np.float32)


def source(shape=(80, 80), centre=(40, 40), width=4.0, peak=200.0) -> np.ndarray:
    y, x = np.indices(shape)
    r2 = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    return noisy(shape) + (peak * np.exp(-r2 / 2 / width**2)).astype(np.float32)


def rules(**values) -> PreprocessSettings:
    return PreprocessSettings(**({"size": 32} | values))


@pytest.mark.parametrize("shape", [(100, 100), (90, 120), (20, 31), (64, 64), (7, 40)])
def test_resizing_agrees_with_torch(shape):
    """Without bad pixels it is torch's antialiased bilinear interpolation."""
    data = noisy(shape)
    found, seen = resize(image(data), 48, 37)
    expected = functional.interpolate(
        torch.from_numpy(data)[None, None], (48, 37), mode="bilinear",
        antialias=True, align_corners=False,
    )  # fmt: skip
    assert seen.shape == (48, 37)
    assert seen.all()
    np.testing.assert_allclose(found[0], expected[0, 0].numpy(), atol=2e-5)


def test_bad_pixels_have_no_weight():
    """Whatever stands in them, the result is the same, and a constant stays one."""
    data, mask = np.full((60, 60), 7.0, np.float32), np.zeros((60, 60), bool)
    mask[10:25, 5:50] = True
    results = []
    for filler in (0.0, 1e6, -3.0):
        data[mask] = filler
        results.append(resize(image(data, mask), 30, 30))
    for pixels, seen in results:
        np.testing.assert_allclose(pixels[0][seen], 7.0, rtol=1e-5)
        np.testing.assert_array_equal(seen, results[0][1])
    assert 0 < (~results[0][1]).sum() < 300


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log", "asinh"])
@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
@pytest.mark.parametrize("filler", [0.0, 1e30])
def test_bad_pixels_change_no_stretch(stretch, interval, filler):
    """Statistics, interval and stretch look at valid pixels alone."""
    chosen = rules(stretch=stretch, interval=interval)
    mask = np.zeros((80, 80), bool)
    mask[:20] = True
    clean, dirty = source(), source()
    clean[mask], dirty[mask] = 5.0, filler
    a, b = (prepare(image(d, mask), chosen) for d in (clean, dirty))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert a.statistics == b.statistics
    assert a.statistics["valid_fraction"] == 0.75


@pytest.mark.parametrize("shape", [(80, 80), (80, 41), (17, 80), (16, 16), (1, 1)])
@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze"])
def test_tensors_are_square_and_run_from_0_to_1(shape, fit):
    """Any shape; the input is not changed."""
    data = noisy(shape)
    kept = data.copy()
    prepared = prepare(image(data), rules(fit=fit))
    assert prepared.pixels.shape == (1, 32, 32)
    assert prepared.valid.shape == (32, 32)
    assert prepared.pixels.dtype == np.float32
    np.testing.assert_array_equal(data, kept)
    if shape != (1, 1):
        assert prepared.pixels.min() == 0
        assert prepared.pixels.max() == 1
    assert prepared.valid.all() == (fit != "pad" or shape[0] == shape[1])


def test_fits_keep_the_aspect_or_not():
    """A round source stays round with pad and crop, and is squeezed by squeeze."""
    data = source((40, 80), (20, 40))

    def extent(fit):
        above = prepare(image(data), rules(size=64, fit=fit)).pixels[0] > 0.6
        y, x = np.nonzero(above)
        return np.ptp(y) + 1, np.ptp(x) + 1

    for fit, factor in (("pad", 0.8), ("crop", 1.6)):
        height, width = extent(fit)
        assert abs(height - width) <= 1
        assert height == pytest.approx(15 * factor, abs=4)
    height, width = extent("squeeze")
    assert height == pytest.approx(2 * width, abs=2)


def test_padding_and_unseen_pixels_show_the_background():
    """Beside a wide image stands the stretched median, not black."""
    data, mask = noisy((40, 80)), np.zeros((40, 80), bool)
    mask[:, :20] = True
    prepared = prepare(image(data, mask), rules(size=64))
    pixels = prepared.pixels[0]
    padding, unseen, sky = pixels[:10], pixels[20:40, :10], pixels[20:40, 30:]
    assert np.ptp(padding) == 0
    np.testing.assert_array_equal(unseen, padding[0, 0])
    assert abs(padding[0, 0] - np.median(sky)) < 0.05
    assert not prepared.valid[:16].any()
    assert not prepared.valid[:, :15].any()
    assert prepared.valid[16:48, 17:].all()


@given(
    arrays(np.float32, st.integers(1, 4000), elements=st.floats(-1e6, 1e6, width=32)),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_clipping_agrees_with_astropy_on_anything(values):
    """The same median and deviation, to float32's precision."""
    _, median, deviation = sigma_clipped_stats(values.astype(np.float64))
    background, noise = sigma_clip(values)
    scale = float(np.abs(values).max()) + 1e-30
    if deviation > 1e-5 * scale:
        assert background == pytest.approx(median, abs=1e-5 * scale)
        assert noise == pytest.approx(deviation, rel=1e-3)


@pytest.mark.parametrize("sources", [0, 40, 400])
def test_clipping_finds_background_and_noise(sources):
    """Of 4000 normal numbers with sources in them: astropy's numbers."""
    values = noisy((4000,))
    values[:sources] += 50
    found = sigma_clip(values)
    expected = sigma_clipped_stats(values.astype(np.float64))[1:]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found == pytest.approx((5, 2), rel=0.03)


def test_large_images_are_measured_by_a_sample():
    """Evenly spaced pixels give nearly the same."""
    values = noisy((10**6,))
    assert sigma_clip(values) == pytest.approx((5, 2), rel=0.05)


def test_statistics_are_in_the_unit_of_the_file():
    """And the noise of the tensor itself is known, in its own units."""
    data = source()
    prepared = prepare(image(1e-3 * data), rules(size=80))
    found = prepared.statistics
    assert found["background"] == pytest.approx(5e-3, rel=0.05)
    assert found["noise"] == pytest.approx(2e-3, rel=0.1)
    assert found["maximum"] == pytest.approx(1e-3 * data.max(), rel=1e-6)
    sky = prepared.pixels[0, :20, :20]
    assert found["stretched_background"] == pytest.approx(np.median(sky), abs=0.01)
    assert found["stretched_noise"] == pytest.approx(sky.std(), rel=0.2)


def test_the_stretch_does_not_depend_on_unit_or_offset():
    """Janskys or millijanskys: the same tensor."""
    data = noisy((50, 50))
    a, b = (prepare(image(d), rules()).pixels for d in (data, 1e-3 * data + 4))
    np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_stretches_are_ordered_by_how_much_they_lift_what_is_faint(interval):
    """Linear below sqrt, and asinh and log above linear; all keep the order."""
    data = source(peak=2000.0)
    means = {}
    for stretch in ("linear", "sqrt", "log", "asinh"):
        pixels = prepare(image(data), rules(stretch=stretch, interval=interval)).pixels
        assert 0 <= pixels.min() < pixels.max() <= 1
        means[stretch] = pixels.mean()
    assert means["linear"] < min(means["sqrt"], means["asinh"], means["log"])


def test_one_scale_for_the_data_set_keeps_brightness_comparable():
    """A source ten times fainter stays fainter; with its own scale it does not."""
    faint, bright = (image(source(peak=p)) for p in (100.0, 1000.0))
    images = [faint, bright, image(noisy((80, 80), 3))]
    scale = common_scale([measure_scale(i, rules()) for i in images], rules())
    peaks = [prepare(i, rules(), scale).pixels.max() for i in (faint, bright)]
    assert peaks[0] < 0.8 * peaks[1]
    own = [prepare(i, rules()).pixels.max() for i in (faint, bright)]
    assert own == [1, 1]


@pytest.mark.parametrize("interval", ["minmax", "percentile", "zscale"])
def test_one_scale_with_other_intervals(interval):
    """Limits come from the data set, images are clipped to 0 and 1."""
    chosen = rules(interval=interval, stretch_scope="dataset")
    images = [image(source(peak=p)) for p in (100.0, 1000.0)]
    scale = common_scale([measure_scale(i, chosen) for i in images], chosen)
    assert scale.low.shape == (1,)
    peaks = [prepare(i, chosen, scale).pixels.max() for i in images]
    assert peaks[0] <= peaks[1] <= 1


@pytest.mark.parametrize("size", [64, 300])
def test_a_small_source_on_a_constant_background_is_kept(size):
    """Also where the background's sample has no pixel of the source."""
    data = np.zeros((size, size))
    data[10:12, 20:22] = 1e-3
    made = prepare(image(data), rules())
    assert made.pixels.max() > 0.5
    assert made.warning == ""
    assert made.statistics["noise"] > 0


def test_cropping_to_the_source_centres_and_zooms():
    """A small source in a corner fills the tensor; a hot pixel does not count."""
    data = source((100, 100), (80, 25), 3.0)
    data[3, 90] = 1e4
    pixels = prepare(image(data), rules(crop="source")).pixels[0]
    y, x = np.nonzero(pixels > 0.5)
    assert abs(y.mean() - 15.5) < 3
    assert abs(x.mean() - 15.5) < 3
    assert np.ptp(y) > 12
    whole = prepare(image(data), rules()).pixels[0]
    assert (whole[16:] > 0.5).sum() < 60


def test_a_source_at_the_edge_is_centred_too():
    """What lies beyond the edge is not valid."""
    prepared = prepare(image(source(centre=(2, 40))), rules(crop="source"))
    assert not prepared.valid[0].any()
    assert prepared.valid[-1].all()
    assert prepared.warning == ""


def test_nothing_to_crop_to_is_a_warning():
    """The whole image is taken."""
    prepared = prepare(image(noisy((80, 80))), rules(crop="source"))
    assert "nothing is brighter than 5 times the noise" in prepared.warning
    assert prepared.valid.all()


def test_crop_fraction_keeps_the_middle():
    """Half of each side."""
    data = np.arange(1600, dtype=np.float32).reshape(40, 40)
    whole = prepare(image(data[10:30, 10:30]), rules())
    part = prepare(image(data), rules(crop_fraction=0.5))
    np.testing.assert_array_equal(whole.pixels, part.pixels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 70), (48, 80)), ((64, 96), (64, 96)), ((3, 5), (32, 32))],
)
def test_native_size_is_kept(shape, expected):
    """Pixels stay what they are; the canvas is a multiple of 16."""
    data = noisy(shape)
    prepared = prepare(image(data), rules(size="native"))
    assert prepared.pixels.shape == (1, *expected)
    assert prepared.valid.sum() == data.size
    y, x = np.nonzero(prepared.valid)
    part = prepared.pixels[0, y.min() : y.max() + 1, x.min() : x.max() + 1]
    assert part.shape == shape
    ranks = np.corrcoef(part.ravel(), data.ravel())[0, 1]
    assert ranks > 0.95


def test_channels_keep_their_colours():
    """In units of each one's noise: a channel that is brighter stays brighter."""
    blue, red = noisy((80, 80), 1), 1e3 * source()
    prepared = prepare(image(np.stack([blue, red])), rules())
    assert prepared.pixels.shape == (2, 32, 32)
    assert prepared.pixels[0].max() < 0.6 < prepared.pixels[1].max() == 1


def test_a_dead_channel_is_a_warning():
    """The others are as they would be."""
    prepared = prepare(image(np.stack([np.zeros((80, 80)), source()])), rules())
    assert (prepared.pixels[0] == 0).all()
    assert prepared.pixels[1].max() == 1
    assert prepared.warning.endswith("in 1 of 2 channels")


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_a_constant_image_gives_zeros_and_a_warning(interval):
    """Not NaN."""
    prepared = prepare(image(np.full((30, 30), 3.0)), rules(interval=interval))
    assert (prepared.pixels == 0).all()
    assert prepared.warning == "all valid pixels have the same value"


def test_all_bad_is_refused():
    """An image of NaN alone has a reason."""
    with pytest.raises(FitsImageError, match="all pixels are NaN"):
        prepare(image(np.zeros((5, 5)), np.ones((5, 5), bool)), rules())


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_extreme_values_give_an_image_or_a_reason(interval):
    """Nothing that is not finite reaches the network."""
    data = noisy((40, 40))
    data[3, 3], data[4, 4] = 3e38, -3e38
    try:
        prepared = prepare(image(data), rules(interval=interval))
    except FitsImageError as error:
        assert "too large" in str(error)
    else:
        assert np.isfinite(prepared.pixels).all()


def test_a_shard_of_images_that_keep_their_size_is_held_once(tmp_path):
    """Large ones take gigabytes; what is written is no second copy of them."""
    pixels = np.random.default_rng(1).normal(size=(500, 500)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    (tmp_path / "list.txt").write_text("a.fits\n" * 60)
    native = parse({"preprocess_settings": {"size": "native"}}, "test")
    target = tmp_path / "a.pt", tmp_path / "a.csv"
    tracemalloc.start()
    preprocess(native, tmp_path / "list.txt", (0, 60), *target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tensors = 60 * 500**2 * 2
    assert tensors < (tmp_path / "a.pt").stat().st_size < 1.2 * tensors
    assert peak < 1.7 * tensors


def test_the_side_of_images_that_keep_theirs_is_looked_up(tmp_path):
    """The largest of the first 16; files without an image are for others to name."""
    native = parse({"preprocess_settings": {"size": "native"}}, "test")
    for k, shape in enumerate([(30, 20), (40, 90), (500, 500)]):
        fits.PrimaryHDU(np.ones(shape, np.float32)).writeto(tmp_path / f"{k}.fits")
    (tmp_path / "list.txt").write_text("gone.fits\n" + "0.fits\n" * 14 + "1.fits\n")
    assert native_side(native, tmp_path / "list.txt") == 60
    (tmp_path / "list.txt").write_text("0.fits\n" * 16 + "2.fits\n")
    assert native_side(native, tmp_path / "list.txt") == 25
    (tmp_path / "list.txt").write_text("gone.fits\n")
    assert native_side(native, tmp_path / "list.txt") is None
