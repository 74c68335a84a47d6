"""Which HDU of a file is its image."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from astromorph.catalogue.validate import describe_entry
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import read_filelist
from astromorph.fits import image as fits_image
from astromorph.preprocessing.list_reference import ListReference
from astromorph.settings.sections import DataSettings

SHAPE = (24, 30)


def picture(level, shape=SHAPE, name="", version=None, **cards):
    """An extension whose pixels are all equal to `level`."""
    hdu = fits.ImageHDU(np.full(shape, level, np.float32), name=name, ver=version)
    hdu.header.update(cards)
    return hdu


def write(path, hdus, primary=None):
    fits.HDUList([fits.PrimaryHDU(primary), *hdus]).writeto(path)
    return path


def chosen(path, **rules):
    """Number of the HDU, number of images, and the level of its pixels."""
    facts, image = fits_image.read_image([path], DataSettings(**rules))
    described = fits_image.describe_image([path], DataSettings(**rules))
    assert described == facts
    return facts.hdu, facts.images, float(image.pixels.max())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("names", "number", "images"),
    [
        (("DQ", "ERR", "SCI"), 3, 1),
        (("", "", ""), 1, 3),
        (("A", "B", "DATA", "IMAGE"), 3, 4),
        (("PIXELDQ", "VAR_POISSON", "WMAP", "SCI", "SCI"), 4, 2),
        (("CHIP1.RMS", "CHIP1.SCI", "CHIP2.SCI"), 2, 2),
        (("image", "error", "coverage", "stDev"), 1, 1),
        (("GPSF", "IPSF", "GIMG"), 3, 1),
        (("FLUX_ERR", "FLUX_MASK", "FLUX"), 3, 1),
        (("MODEL", "RESIDUAL", "THUMB"), 1, 2),
        (("D2IMARR", "NOISEMAP", "FLUXERR", "e_flux", "PSFIMAGE", "S/N", "A1"), 7, 1),
        (("CCD1VAR", "CCD1X", "CCD1SCI", "CCD2SCI"), 3, 3),
        (("TIME", "APERTURE", "dqflags", "ConfidenceMap", "WT", "DET1.CHIP1"), 6, 1),
        (("EXP_TIME", "WHT", "CTX", "DRIZZLED"), 4, 1),
    ],
)  # fmt: skip
def test_names_of_science_data_come_first_and_others_never(
    tmp_path, names, number, images, packed
):
    """Whether the file is compressed does not matter."""
    path = write(
        tmp_path / "a.fits", [picture(k, name=n) for k, n in enumerate(names, 1)]
    )
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert chosen(path) == (number, images, number)


def test_image_of_the_primary_hdu(tmp_path):
    """It is the image unless an extension has a name of science data."""
    pixels = np.full(SHAPE, 9, np.float32)
    first = write(tmp_path / "a.fits", [picture(1), picture(2, name="IVAR")], pixels)
    assert chosen(first) == (0, 2, 9)
    second = write(tmp_path / "b.fits", [picture(1, name="SCI")], pixels)
    assert chosen(second) == (1, 2, 1)


def test_class_of_an_extension_excludes_it(tmp_path):
    """HDUCLAS2 of ESO, with any name."""
    hdus = [
        picture(1, name="CHIP1", HDUCLAS1="IMAGE", HDUCLAS2="QUALITY"),
        picture(2, name="CHIP1A", HDUCLAS1="IMAGE", HDUCLAS2="DATA"),
    ]
    assert chosen(write(tmp_path / "a.fits", hdus)) == (2, 1, 2)


def test_file_with_other_images_only_needs_the_setting(tmp_path):
    """Its images are used where they are named."""
    hdus = [picture(1, name="WHT"), picture(2, name="MASK")]
    path = write(tmp_path / "a.fits", hdus)
    with pytest.raises(FitsImageError, match=r"data \(HDU 1 WHT, 2 MASK\)"):
        chosen(path)
    assert chosen(path, hdu="wht") == (1, None, 1)
    assert chosen(path, hdu=("SCI", 2)) == (2, None, 2)


@pytest.mark.parametrize(
    ("first", "rules", "reason"),
    [
        ((5, *SHAPE), {}, "HDU 1 FLUX: 5x24x30 pixels: it is a cube of 5 planes"),
        ((5, *SHAPE), {"planes": 7}, "the image has 5 planes"),
        ((300, 300), {"max_pixels": 2000}, "HDU 1 FLUX: it has 300x300 pixels, more"),
    ],
)
def test_no_later_hdu_replaces_the_image(tmp_path, first, rules, reason):
    """The reason of the image itself is given, also if a setting would suit others."""
    hdus = [picture(1, first, "FLUX"), picture(2, name="GIMG"), picture(3, name="R")]
    path = write(tmp_path / "a.fits", hdus)
    with pytest.raises(FitsImageError, match=reason):
        chosen(path, **rules)
    assert chosen(path, hdu="GIMG") == (2, None, 2)


def test_spectra_and_empty_arrays_are_not_images(tmp_path):
    """Arrays of one axis before the image do not matter, whatever their name."""
    hdus = [fits.ImageHDU(np.ones(50), name="FLUX"), picture(2), fits.ImageHDU()]
    assert chosen(write(tmp_path / "a.fits", hdus)) == (2, 1, 2)


def test_damage_after_the_image_does_not_matter(tmp_path):
    """The header of a later HDU is cut or wrong in an uncompressed file."""
    path = write(tmp_path / "a.fits", [picture(1), picture(2)])
    raw = path.read_bytes()
    at = raw.rindex(b"BITPIX  =")
    path.write_bytes(raw[:at] + b"BITPIX  = 7".ljust(30) + raw[at + 30 :])
    assert chosen(path) == (1, 1, 1)


@pytest.mark.parametrize(
    ("hdu", "level"),
    [("SCI,2", 4), ("sci , 2", 4), ("SCI,1", 1), ("SCI", 1), ("ERR,2", 5),
     (("SCI,9", "SCI,3"), 6), ("A,B", 7), ("PLAIN,1", 8)],
)  # fmt: skip
def test_hdu_is_selected_by_extver(tmp_path, hdu, level):
    """As in IRAF and astropy; without EXTVER it is 1."""
    hdus = [
        picture(1, name="SCI", version=1), picture(2, name="ERR", version=1),
        picture(3, name="DQ", version=1), picture(4, name="SCI", version=2),
        picture(5, name="ERR", version=2), picture(6, name="SCI", version=3),
        picture(7, name="A,B"), picture(8, name="PLAIN"),
    ]  # fmt: skip
    path = write(tmp_path / "a.fits", hdus)
    assert chosen(path, hdu=hdu)[2] == level


def test_missing_extver_is_an_error(tmp_path):
    """It names the HDU, and those of the file."""
    path = write(tmp_path / "a.fits", [picture(1, name="SCI")])
    with pytest.raises(
        FitsImageError, match=r"no HDU SCI,2, which .* 0 PRIMARY, 1 SCI"
    ):
        chosen(path, hdu="SCI,2")


def test_each_chip_of_a_file_is_an_image_of_its_own(tmp_path):
    """A column `hdu`, or the HDU in brackets; a file of that very name is preferred."""
    chips = [picture(k, name="SCI", version=k) for k in (1, 2, 3)]
    write(tmp_path / "m.fits", chips)
    write(tmp_path / "m.fits[2]", [picture(50)])
    data = DataSettings(hdu=1)
    results = []
    for text in (
        'path,hdu,note\nm.fits,1,a\nm.fits,"SCI,2",b\nm.fits,SCI,c\nm.fits,,d\n',
        "m.fits[1]\nm.fits[SCI,2]\nm.fits[2]\nm.fits[ sci, 3 ]\nm.fits[]\n",
    ):
        (tmp_path / "list").write_text(text)
        entries = list(read_filelist(tmp_path / "list"))
        assert len({entry.image_id for entry in entries}) == len(entries)
        levels, keys = [], []
        for entry in entries:
            try:
                _, image = fits_image.read_image(entry.paths, data)
            except FitsImageError as error:
                levels.append(str(error))
                continue
            levels.append(float(image.pixels.max()))
            keys += describe_entry(entry, ListReference(1), data)[1]
        assert len(set(keys)) == len(keys)  # no chip repeats another one
        results.append(levels)
    assert results[0] == [1, 2, 1, 1]
    assert results[1] == [1, 2, 50, 3, "there is no such file"]


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_on_the_last_axis_are_planes(tmp_path, colours):
    """As arrays of pictures are written: `(H, W, 3)`."""
    pixels = np.random.default_rng(0).normal(size=(20, 31, colours)).astype(np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    for planes, expected in (("channels", np.moveaxis(pixels, 2, 0)),
                             (1, pixels[None, :, :, 1])):  # fmt: skip
        rules = DataSettings(planes=planes)
        facts, image = fits_image.read_image([tmp_path / "a.fits"], rules)
        assert (facts.height, facts.width) == (20, 31)
        np.testing.assert_array_equal(image.pixels, expected)
    with pytest.raises(FitsImageError, match=f"a cube of {colours} planes"):
        fits_image.describe_image([tmp_path / "a.fits"], DataSettings())


def test_narrow_images_of_a_cube_are_not_colours(tmp_path):
    """Celestial axes, and the usual order, take precedence."""
    cube = np.ones((20, 31, 3), np.float32)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    fits.PrimaryHDU(cube, header).writeto(tmp_path / "a.fits")
    facts = fits_image.describe_image([tmp_path / "a.fits"], DataSettings(planes=0))
    assert (facts.height, facts.width) == (31, 3)
    assert facts.warning.startswith("it has 20 images of 31x3 pixels; if the last axis")
    fits.PrimaryHDU(np.ones((3, 20, 31))).writeto(tmp_path / "b.fits")
    facts = fits_image.describe_image([tmp_path / "b.fits"], DataSettings(planes=0))
    assert (facts.height, facts.width) == (20, 31)


@pytest.mark.parametrize(
    ("shape", "warned"),
    [((20, 31, 5), True), ((20, 31, 2), True), ((1, 20, 31, 6), True),
     ((2, 31, 5), False), ((20, 31, 9), False), ((20, 5, 31), False),
     ((5, 20, 31), False), ((20, 31, 3), False)],
)  # fmt: skip
def test_other_channels_on_the_last_axis_cause_a_warning(tmp_path, shape, warned):
    fits.PrimaryHDU(np.ones(shape, np.float32)).writeto(tmp_path / "a.fits")
    facts = fits_image.describe_image([tmp_path / "a.fits"], DataSettings(planes=0))
    assert ("if the last axis contains channels" in facts.warning) == warned
