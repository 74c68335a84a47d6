"""Preparation of images: cropping, resizing, stretching and memory."""

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

from astromorph.artefacts.run_files import RunFiles
from astromorph.errors import FitsImageError
from astromorph.filelist.shards import Shard
from astromorph.fits.image import read_image
from astromorph.fits.pixels import Image
from astromorph.preprocessing.image_to_tensor import (
    common_scale,
    measure_scale,
    prepare,
    sigma_clip,
)
from astromorph.preprocessing.list_reference import native_side
from astromorph.preprocessing.preprocess import preprocess
from astromorph.preprocessing.resample import resize
from astromorph.settings.loading import parse
from astromorph.settings.sections import DataSettings, PreprocessSettings


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
    """Without bad pixels, it equals antialiased bilinear interpolation."""
    data = noisy(shape)
    resized, valid = resize(image(data), 48, 37)
    expected = functional.interpolate(
        torch.from_numpy(data)[None, None], (48, 37), mode="bilinear",
        antialias=True, align_corners=False,
    )  # fmt: skip
    assert valid.shape == (48, 37)
    assert valid.all()
    np.testing.assert_allclose(resized[0], expected[0, 0].numpy(), atol=2e-5)


def test_bad_pixels_have_no_weight():
    """Their values do not matter, and a constant image remains constant."""
    data, mask = np.full((60, 60), 7.0, np.float32), np.zeros((60, 60), bool)
    mask[10:25, 5:50] = True
    results = []
    for filler in (0.0, 1e6, -3.0):
        data[mask] = filler
        results.append(resize(image(data, mask), 30, 30))
    for pixels, valid in results:
        np.testing.assert_allclose(pixels[0][valid], 7.0, rtol=1e-5)
        np.testing.assert_array_equal(valid, results[0][1])
    assert 0 < (~results[0][1]).sum() < 300


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log", "asinh"])
@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
@pytest.mark.parametrize("filler", [0.0, 1e30])
def test_bad_pixels_do_not_affect_the_stretch(stretch, interval, filler):
    """Statistics, interval and stretch depend on valid pixels only."""
    settings = rules(stretch=stretch, interval=interval)
    mask = np.zeros((80, 80), bool)
    mask[:20] = True
    clean, dirty = source(), source()
    clean[mask], dirty[mask] = 5.0, filler
    a, b = (prepare(image(d, mask), settings) for d in (clean, dirty))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert a.statistics == b.statistics
    assert a.statistics["valid_fraction"] == 0.75


@pytest.mark.parametrize("shape", [(80, 80), (80, 41), (17, 80), (16, 16), (1, 1)])
@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze"])
def test_prepared_images_are_square_and_from_0_to_1(shape, fit):
    """For images of any shape; the input is not changed."""
    data = noisy(shape)
    original = data.copy()
    prepared = prepare(image(data), rules(fit=fit))
    assert prepared.pixels.shape == (1, 32, 32)
    assert prepared.valid.shape == (32, 32)
    assert prepared.pixels.dtype == np.float32
    np.testing.assert_array_equal(data, original)
    if shape != (1, 1):
        assert prepared.pixels.min() == 0
        assert prepared.pixels.max() == 1
    assert prepared.valid.all() == (fit != "pad" or shape[0] == shape[1])


def test_aspect_ratio_is_kept_by_pad_and_crop_only():
    """A round source remains round; `squeeze` changes it."""
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


def test_padding_and_bad_pixels_show_the_background():
    """Their value is the stretched median, not 0."""
    data, mask = noisy((40, 80)), np.zeros((40, 80), bool)
    mask[:, :20] = True
    prepared = prepare(image(data, mask), rules(size=64))
    pixels = prepared.pixels[0]
    padding, bad, sky = pixels[:10], pixels[20:40, :10], pixels[20:40, 30:]
    assert np.ptp(padding) == 0
    np.testing.assert_array_equal(bad, padding[0, 0])
    assert abs(padding[0, 0] - np.median(sky)) < 0.05
    assert not prepared.valid[:16].any()
    assert not prepared.valid[:, :15].any()
    assert prepared.valid[16:48, 17:].all()


@given(
    arrays(np.float32, st.integers(1, 4000), elements=st.floats(-1e6, 1e6, width=32)),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_clipping_agrees_with_astropy_for_any_values(values):
    """Median and deviation are equal to the precision of float32."""
    _, median, deviation = sigma_clipped_stats(values.astype(np.float64))
    background, noise = sigma_clip(values)
    scale = float(np.abs(values).max()) + 1e-30
    if deviation > 1e-5 * scale:
        assert background == pytest.approx(median, abs=1e-5 * scale)
        assert noise == pytest.approx(deviation, rel=1e-3)


@pytest.mark.parametrize("sources", [0, 40, 400])
def test_clipping_removes_sources(sources):
    """Background and noise of 4000 normal numbers are those of astropy."""
    values = noisy((4000,))
    values[:sources] += 50
    found = sigma_clip(values)
    expected = sigma_clipped_stats(values.astype(np.float64))[1:]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found == pytest.approx((5, 2), rel=0.03)


def test_large_images_are_measured_from_a_sample():
    """Evenly spaced pixels give nearly the same values."""
    values = noisy((10**6,))
    assert sigma_clip(values) == pytest.approx((5, 2), rel=0.05)


def test_statistics_are_in_the_unit_of_the_file():
    """Those of the stretched image are in its own units."""
    data = source()
    prepared = prepare(image(1e-3 * data), rules(size=80))
    found = prepared.statistics
    assert found["background"] == pytest.approx(5e-3, rel=0.05)
    assert found["noise"] == pytest.approx(2e-3, rel=0.1)
    assert found["maximum"] == pytest.approx(1e-3 * data.max(), rel=1e-6)
    sky = prepared.pixels[0, :20, :20]
    assert found["stretched_background"] == pytest.approx(np.median(sky), abs=0.01)
    assert found["stretched_noise"] == pytest.approx(sky.std(), rel=0.2)


def test_stretch_does_not_depend_on_unit_or_offset():
    """Jansky and millijansky give the same tensor."""
    data = noisy((50, 50))
    a, b = (prepare(image(d), rules()).pixels for d in (data, 1e-3 * data + 4))
    np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_stretches_enhance_faint_emission(interval):
    """All do so more than the linear one; values are from 0 to 1."""
    data = source(peak=2000.0)
    means = {}
    for stretch in ("linear", "sqrt", "log", "asinh"):
        pixels = prepare(image(data), rules(stretch=stretch, interval=interval)).pixels
        assert 0 <= pixels.min() < pixels.max() <= 1
        means[stretch] = pixels.mean()
    assert means["linear"] < min(means["sqrt"], means["asinh"], means["log"])


def test_common_scale_keeps_brightness_comparable():
    """A source ten times fainter remains fainter, unlike with its own scale."""
    faint, bright = (image(source(peak=p)) for p in (100.0, 1000.0))
    images = [faint, bright, image(noisy((80, 80), 3))]
    scale = common_scale([measure_scale(i, rules()) for i in images], rules())
    peaks = [prepare(i, rules(), scale).pixels.max() for i in (faint, bright)]
    assert peaks[0] < 0.8 * peaks[1]
    own = [prepare(i, rules()).pixels.max() for i in (faint, bright)]
    assert own == [1, 1]


@pytest.mark.parametrize("interval", ["minmax", "percentile", "zscale"])
def test_common_scale_with_other_intervals(interval):
    """Limits are those of the data set; images are clipped to 0 and 1."""
    settings = rules(interval=interval, stretch_scope="dataset")
    images = [image(source(peak=p)) for p in (100.0, 1000.0)]
    scale = common_scale([measure_scale(i, settings) for i in images], settings)
    assert scale.low.shape == (1,)
    peaks = [prepare(i, settings, scale).pixels.max() for i in images]
    assert peaks[0] <= peaks[1] <= 1


@pytest.mark.parametrize("size", [64, 300])
def test_small_source_on_a_constant_background_is_visible(size):
    """Even if no pixel of the source is in the measured sample."""
    data = np.zeros((size, size))
    data[10:12, 20:22] = 1e-3
    prepared = prepare(image(data), rules())
    assert prepared.pixels.max() > 0.5
    assert prepared.warning == ""
    assert prepared.statistics["noise"] > 0


def test_crop_to_the_source_centres_and_zooms():
    """A small source fills the tensor; a hot pixel is ignored."""
    data = source((100, 100), (80, 25), 3.0)
    data[3, 90] = 1e4
    pixels = prepare(image(data), rules(crop="source")).pixels[0]
    y, x = np.nonzero(pixels > 0.5)
    assert abs(y.mean() - 15.5) < 3
    assert abs(x.mean() - 15.5) < 3
    assert np.ptp(y) > 12
    uncropped = prepare(image(data), rules()).pixels[0]
    assert (uncropped[16:] > 0.5).sum() < 60


def test_source_at_the_edge_is_centred():
    """Pixels beyond the edge are not valid."""
    prepared = prepare(image(source(centre=(2, 40))), rules(crop="source"))
    assert not prepared.valid[0].any()
    assert prepared.valid[-1].all()
    assert prepared.warning == ""


def test_crop_to_the_source_without_emission_causes_a_warning():
    """The whole image is used."""
    prepared = prepare(image(noisy((80, 80))), rules(crop="source"))
    assert "nothing is brighter than 5 times the noise" in prepared.warning
    assert prepared.valid.all()


def test_crop_fraction_keeps_the_centre():
    """With 0.5, half of each side remains."""
    data = np.arange(1600, dtype=np.float32).reshape(40, 40)
    part = prepare(image(data[10:30, 10:30]), rules())
    cropped = prepare(image(data), rules(crop_fraction=0.5))
    np.testing.assert_array_equal(part.pixels, cropped.pixels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 70), (48, 80)), ((64, 96), (64, 96)), ((3, 5), (32, 32))],
)
def test_native_size_is_kept(shape, expected):
    """Pixels are not resampled; sides are padded to multiples of 16."""
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
    """In units of its noise, the brighter channel remains brighter."""
    blue, red = noisy((80, 80), 1), 1e3 * source()
    prepared = prepare(image(np.stack([blue, red])), rules())
    assert prepared.pixels.shape == (2, 32, 32)
    assert prepared.pixels[0].max() < 0.6 < prepared.pixels[1].max() == 1


def test_constant_channel_causes_a_warning():
    """The other channels are not affected."""
    prepared = prepare(image(np.stack([np.zeros((80, 80)), source()])), rules())
    assert (prepared.pixels[0] == 0).all()
    assert prepared.pixels[1].max() == 1
    assert prepared.warning.endswith("in 1 of 2 channels")


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_constant_image_gives_zeros_and_a_warning(interval):
    """The result has no NaN."""
    prepared = prepare(image(np.full((30, 30), 3.0)), rules(interval=interval))
    assert (prepared.pixels == 0).all()
    assert prepared.warning == "all valid pixels have the same value"


def test_image_without_valid_pixels_is_refused():
    """The error gives the reason."""
    with pytest.raises(FitsImageError, match="all pixels are NaN"):
        prepare(image(np.zeros((5, 5)), np.ones((5, 5), bool)), rules())


@pytest.mark.parametrize("interval", ["noise", "minmax", "percentile", "zscale"])
def test_extreme_values_give_an_image_or_a_reason(interval):
    """All values of the image are finite."""
    data = noisy((40, 40))
    data[3, 3], data[4, 4] = 3e38, -3e38
    try:
        prepared = prepare(image(data), rules(interval=interval))
    except FitsImageError as error:
        assert "too large" in str(error)
    else:
        assert np.isfinite(prepared.pixels).all()


def test_native_images_are_in_memory_once(tmp_path):
    """Writing them makes no second copy, which could take gigabytes."""
    pixels = np.random.default_rng(1).normal(size=(500, 500)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    (tmp_path / "list.txt").write_text("a.fits\n" * 60)
    native = parse({"preprocess_settings": {"size": "native"}}, "test")
    files, shard = RunFiles(tmp_path), Shard("a", 0, 60)
    data, preprocessing = native.data_settings, native.preprocess_settings
    tracemalloc.start()
    preprocess(tmp_path / "list.txt", shard, files, data, preprocessing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tensors = 60 * 500**2 * 2
    assert tensors < files.tensors("a").stat().st_size < 1.2 * tensors
    assert peak < 1.7 * tensors


def test_native_side_is_that_of_the_largest_image(tmp_path):
    """The first 16 files count; those without an image are ignored."""
    for k, shape in enumerate([(30, 20), (40, 90), (500, 500)]):
        fits.PrimaryHDU(np.ones(shape, np.float32)).writeto(tmp_path / f"{k}.fits")
    (tmp_path / "list.txt").write_text("gone.fits\n" + "0.fits\n" * 14 + "1.fits\n")
    assert native_side(tmp_path / "list.txt", DataSettings()) == 60
    (tmp_path / "list.txt").write_text("0.fits\n" * 16 + "2.fits\n")
    assert native_side(tmp_path / "list.txt", DataSettings()) == 25
    (tmp_path / "list.txt").write_text("gone.fits\n")
    assert native_side(tmp_path / "list.txt", DataSettings()) is None


def prepared_from_file(path, values, **cards):
    """An image that was written to a file, read and prepared."""
    hdu = fits.PrimaryHDU(values)
    hdu.header.update(cards)
    hdu.writeto(path)
    _, read = read_image([path], DataSettings())
    return prepare(read, rules())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("factor", "pedestal"),
    [(3e37, 0), (1e42, 0), (1e200, 0), (1e-20, 0), (1e-36, 0), (1e-40, 0), (1e-250, 0),
     (1, 1e5), (1, 1e8), (1e-3, 1e9), (1e-30, 1e-24), (1e36, 1e43), (-1e41, 1e45)],
)  # fmt: skip
def test_unit_and_pedestal_of_a_file_do_not_matter(tmp_path, dtype, factor, pedestal):
    """Noise, extremes and picture are those of the same image around zero."""
    plain = (source() - 5).astype(np.float64)
    with np.errstate(over="ignore"):
        stored = (plain * factor + pedestal).astype(dtype)
    exact = stored.astype(np.float64)
    if not np.abs((exact - pedestal) / factor - plain).max() < 0.02:
        pytest.skip("this type cannot contain it")
    found = prepared_from_file(tmp_path / "a.fits", stored)
    expected = prepare(image(plain if factor > 0 else -plain), rules())
    assert found.statistics["valid_fraction"] == 1
    assert found.statistics["maximum"] == exact.max()
    assert found.statistics["minimum"] == exact.min()
    noise = expected.statistics["noise"] * abs(factor)
    assert found.statistics["noise"] == pytest.approx(noise, rel=0.01)
    level = expected.statistics["background"] * abs(factor) + pedestal
    assert abs(found.statistics["background"] - level) < 0.02 * noise
    np.testing.assert_allclose(found.pixels, expected.pixels, atol=0.01)


@pytest.mark.parametrize("level", [4_000_000_000, 2**40])
def test_counters_with_a_large_pedestal_keep_their_noise(tmp_path, level):
    """Unsigned integers of 32 and 64 bits."""
    values = np.rint(source(width=6.0).astype(np.float64) * 4) + level
    stored = values.astype(np.uint32 if level < 2**32 else np.uint64)
    found = prepared_from_file(tmp_path / "a.fits", stored)
    noise = prepare(image(values - level), rules()).statistics["noise"]
    assert found.statistics["noise"] == pytest.approx(noise, rel=1e-3)
    assert found.statistics["maximum"] == values.max()
    assert found.pixels.std() > 0.05


def test_short_integers_whose_zero_is_large_keep_their_noise(tmp_path):
    """BZERO of a thousand million, and a BSCALE beyond float32."""
    stored = np.rint(source() * 10).astype(np.int16)
    for k, cards in enumerate(({"BZERO": 1e9}, {"BSCALE": 1e40}, {"BSCALE": 1e-44})):
        path = tmp_path / f"{k}.fits"
        hdu = fits.PrimaryHDU(stored)
        hdu.writeto(path)
        text = path.read_bytes()
        ((keyword, value),) = cards.items()
        card = f"{keyword:8}= {value:>20}".ljust(80).encode()
        at = text.index(b"EXTEND")
        path.write_bytes(text[:at] + card + text[at + 80 :])
        _, read = read_image([path], DataSettings())
        found = prepare(read, rules()).statistics
        noise = prepare(image(stored), rules()).statistics["noise"]
        expected = noise * cards.get("BSCALE", 1)
        assert found["noise"] == pytest.approx(expected, rel=0.01)


def test_pixels_far_beyond_all_others_leave_the_noise_unchanged(tmp_path):
    """Sixty orders of magnitude in one image; only the largest float64 is refused."""
    values = source().astype(np.float64) * 1e-20
    expected = prepare(image(source()), rules()).statistics["noise"] * 1e-20
    values[5, 5], values[60, 7] = 1e40, -1e39
    found = prepared_from_file(tmp_path / "a.fits", values).statistics
    assert found["noise"] == pytest.approx(expected, rel=0.02)
    assert (found["minimum"], found["maximum"]) == (-1e39, 1e40)
    values[7, 7], values[7, 8] = 1.7e308, -1.7e308
    with pytest.raises(FitsImageError, match="too large for 64-bit"):
        prepared_from_file(tmp_path / "b.fits", values)


@pytest.mark.parametrize("planes", ["sum", "mean", "max", "channels"])
def test_planes_of_a_cube_may_exceed_float32_together(tmp_path, planes):
    """The sum of planes that float32 can contain."""
    cube = np.stack([source()] * 4)
    cube = (cube / cube.max() * 3e38).astype(np.float32)
    fits.PrimaryHDU(cube).writeto(tmp_path / "a.fits")
    _, read = read_image([tmp_path / "a.fits"], DataSettings(planes=planes))
    assert not read.mask.any()
    exact = cube.astype(np.float64).max() * (4 if planes == "sum" else 1)
    found = prepare(read, rules()).statistics
    assert found["maximum"] == pytest.approx(exact, rel=1e-6)
    assert found["valid_fraction"] == 1


UNSEEN, FLT_MAX = -1.6375e30, 3.4028234663852886e38


def with_markers(values, markers, fraction):
    """Replace some pixels by values that mark the absence of data."""
    marked, rng = np.array(values), np.random.default_rng(8)
    where = rng.random(values.shape) < fraction
    marked[where] = rng.choice(np.array(markers, marked.dtype), where.sum())
    return marked


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.8])
@pytest.mark.parametrize(
    "markers",
    [[UNSEEN], [FLT_MAX], [-FLT_MAX], [-9999], [-32768], [-9999, -32768], [99999, 1e20],
     [UNSEEN, FLT_MAX, -99999]],
)  # fmt: skip
def test_values_that_mark_missing_data_cause_a_warning(
    tmp_path, markers, fraction, dtype
):
    """With the setting that the warning names, the image is that without them."""
    if dtype == "int32" and max(map(abs, markers)) > 1e9:
        pytest.skip("they do not fit")
    values = (source() * 4).astype(dtype)
    marked = with_markers(values, markers, fraction)
    fits.PrimaryHDU(marked).writeto(tmp_path / "a.fits")
    _, read = read_image([tmp_path / "a.fits"], DataSettings())
    warning = prepare(read, rules()).warning
    for marker in markers:
        assert f"the value {marker:.8g}, far from all others" in warning
    assert "data_settings.bad_values" in warning
    _, read = read_image([tmp_path / "a.fits"], DataSettings(bad_values=markers))
    found = prepare(read, rules(min_valid_fraction=0.1))
    expected = prepare(image(values, marked != values), rules())
    np.testing.assert_allclose(found.pixels, expected.pixels, atol=1e-3)
    assert found.warning == ""
    share = found.statistics["valid_fraction"]
    assert share == pytest.approx(np.mean(marked == values))


@pytest.mark.parametrize("pedestal", [0, 2, 10, 1000])
def test_border_of_zeros_can_be_bad(tmp_path, pedestal):
    """A tilted footprint; a zero inside it is a value."""
    values = source().astype(np.float32) + pedestal
    y, x = np.indices(values.shape)
    outside = (x + y < 40) | (x + y > 120) | (x - y > 30)
    values[outside], values[50, 50] = 0, 0
    fits.PrimaryHDU(values).writeto(tmp_path / "a.fits")
    _, read = read_image([tmp_path / "a.fits"], DataSettings())
    warning = prepare(read, rules()).warning
    assert "have the value 0, unlike all others" in warning
    assert "set `data_settings.zeros_at_edge`" in warning
    _, read = read_image([tmp_path / "a.fits"], DataSettings(zeros_at_edge=True))
    np.testing.assert_array_equal(read.mask, outside)
    assert prepare(read, rules()).warning == ""
    _, read = read_image([tmp_path / "a.fits"], DataSettings(bad_values=[0]))
    assert read.mask[50, 50]


@pytest.mark.parametrize("planes", ["sum", "channels", "max"])
def test_bad_values_are_removed_before_planes_are_combined(tmp_path, planes):
    """In tiles as well, and after BSCALE and BZERO."""
    cube = np.stack([source(), source() + 1]).astype(np.float32)
    cube[0, 3, 4], cube[1, 5, 6] = -999, -99.25
    rules_ = DataSettings(planes=planes, bad_values=[-999, -99.25])
    for k, hdu in enumerate((fits.PrimaryHDU(cube), fits.CompImageHDU(
            cube, compression_type="GZIP_1", quantize_level=0))):  # fmt: skip
        hdu.writeto(tmp_path / f"{k}.fits")
        _, read = read_image([tmp_path / f"{k}.fits"], rules_)
        assert read.pixels.min() > -5
        assert read.mask.sum() == (2 if planes == "channels" else 0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize(
    "kind", ["noise", "saturated", "counts", "more counts", "floor", "steps"]
)
def test_plausible_values_cause_no_warning(dtype, kind):
    """Saturated stars, photon counts, simulations with a floor, few grey levels."""
    rng = np.random.default_rng(3)
    full = 250 if dtype == "uint8" else 30000
    bright = np.maximum(source(peak=9), 0)
    values = {
        "noise": lambda: rng.normal(30, 3, (80, 80)),
        "saturated": lambda: np.minimum(source(peak=5e4, width=8), full),
        "counts": lambda: rng.poisson(0.05 + bright * 0.1),
        "more counts": lambda: rng.poisson(2 + bright),
        "floor": lambda: np.maximum(source(peak=100) - 40, 0),
        "steps": lambda: np.rint(source(peak=100) / 40) * 40,
    }[kind]()  # fmt: skip
    assert prepare(image(values.astype(dtype)), rules()).warning == ""


@pytest.mark.parametrize(("fraction", "warned"), [(0.98, True), (0.5, False)])
def test_few_valid_pixels_cause_a_warning(fraction, warned):
    """By default below a tenth."""
    mask = np.random.default_rng(4).random((80, 80)) < fraction
    prepared = prepare(image(np.where(mask, 0, source()), mask), rules())
    assert ("min_valid_fraction`, 0.1" in prepared.warning) == warned
    assert prepare(image(source(), mask), rules(min_valid_fraction=0)).warning == ""
