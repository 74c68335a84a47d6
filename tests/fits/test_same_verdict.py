"""The steps `validate` and `preprocess` accept the same files."""

import random

import numpy as np
import pytest
from astropy.io import fits

from astromorph.catalogue.validate import describe_entry
from astromorph.errors import FitsImageError
from astromorph.filelist.entries import entries_from_paths
from astromorph.preprocessing.list_reference import ListReference
from astromorph.preprocessing.preprocess import prepare_entry
from astromorph.settings.sections import DataSettings, PreprocessSettings

PIXELS = np.random.default_rng(0).normal(100, 10, (40, 50)).astype(np.float32)
KEYWORDS = (
    "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT",
    "GROUPS", "BSCALE", "BZERO", "BLANK", "EXTEND", "END", "ZIMAGE", "ZCMPTYPE",
    "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2", "ZNAME1", "ZVAL1",
    "ZVAL2", "TFIELDS", "TTYPE1", "TFORM1", "TFORM2", "THEAP", "ZQUANTIZ", "ZDITHER0",
    "ZSCALE", "ZZERO", "ZBLANK", "CTYPE1", "CDELT1",
)  # fmt: skip
VALUES = (
    "= 0", "= 1", "= -1", "= 2", "= 16", "= -32", "= 64", "= 50", "= 40", "= 1000000",
    "= 4294967296", "= 1e308", "= 1e400", "= 1.5", "= '1'", "= T", "= 'IMAGE'", "=",
    "=5", " 5", "= 5 6", "= NaN", "= (1,2)", "= 'RICE_1'", "= 'GZIP_1'", "= '1PB(9)'",
)  # fmt: skip
# Reasons that follow from the pixels, which `validate` does not read.
PIXEL_REASONS = (
    "all pixels are NaN", "the file is damaged: ", "tiles cannot be decoded",
    "for 64-bit floating point",
)  # fmt: skip


def verdicts(path, **rules):
    """The reason of each step; None if it accepts the file."""
    (entry,) = entries_from_paths([path])
    data, reference = DataSettings(max_pixels=2**24, **rules), ListReference(1)
    reasons: list[str | None] = []
    for step in (
        lambda: describe_entry(entry, reference, data),
        lambda: prepare_entry(entry, reference, data, PreprocessSettings()),
    ):
        try:
            step()
            reasons.append(None)
        except FitsImageError as error:
            reasons.append(str(error))
    return reasons


def check(path, **rules):
    """A file that `validate` rejects is rejected by `preprocess` for that reason."""
    validated, prepared = verdicts(path, **rules)
    if validated is not None:
        assert prepared == validated, path
    elif prepared is not None:
        assert any(reason in prepared for reason in PIXEL_REASONS), (path, prepared)
    return validated, prepared


@pytest.mark.parametrize("planes", [None, "max", 0])
def test_unusual_files(unusual_fits, planes):
    """All of them, with their damaged and odd headers."""
    results = [
        check(path, planes=planes)
        for path in sorted(unusual_fits.rglob("*.*"))
        if path.suffix != ".md"
    ]
    assert len(results) >= 50
    assert sum(result == (None, None) for result in results) > 38


def seed_files(folder):
    header = fits.Header({"CTYPE1": "RA---TAN", "CDELT1": -0.001})
    image = fits.ImageHDU(PIXELS.astype(np.int16), header)
    image.header["BLANK"] = -1
    rice = fits.CompImageHDU(PIXELS, header, quantize_method=1, dither_seed=3)
    lists = {
        "plain": [fits.PrimaryHDU(PIXELS, header)],
        "extension": [fits.PrimaryHDU(), image, fits.ImageHDU(PIXELS)],
        "rice": [fits.PrimaryHDU(), rice],
        "gzip": [fits.PrimaryHDU(), fits.CompImageHDU(
            PIXELS.astype(np.int16), header, compression_type="GZIP_1")],
    }  # fmt: skip
    contents = []
    for name, hdus in lists.items():
        fits.HDUList(hdus).writeto(folder / name)
        contents.append((folder / name).read_bytes())
    return contents


def change_cards(raw: bytes, rng: random.Random) -> bytes:
    """Change, remove, copy or damage cards of any of its headers."""
    data = bytearray(raw)
    starts = [
        at
        for at in range(0, len(data), 80)
        if data[at : at + 8].decode("latin-1").strip() in KEYWORDS
    ]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.choice(starts), rng.randrange(5)
        keyword = data[at : at + 8].decode("latin-1")
        if kind < 2:
            card = keyword + rng.choice(VALUES)
        elif kind == 2:
            card = rng.choice(KEYWORDS).ljust(8) + rng.choice(VALUES)
        elif kind == 3:
            other = rng.choice(starts)
            card = data[other : other + 80].decode("latin-1")
        else:
            card = data[at : at + 80].decode("latin-1")
            k = rng.randrange(12)
            card = card[:k] + rng.choice("=' X5/-\0") + card[k + 1 :]
        data[at : at + 80] = card[:80].ljust(80).encode("latin-1")
    return bytes(data)


@pytest.mark.slow
def test_changed_headers(tmp_path):
    """Cards with other values, without values, missing, repeated and misplaced."""
    seeds, rng = seed_files(tmp_path), random.Random(0)
    path = tmp_path / "a.fits"
    accepted = 0
    for _ in range(600):
        path.write_bytes(change_cards(rng.choice(seeds), rng))
        accepted += check(path)[1] is None
    assert 100 < accepted < 500


@pytest.mark.parametrize("cards", [{"PCOUNT": 10**6}, {"GCOUNT": 50}, {"GCOUNT": 0}])
@pytest.mark.parametrize("length", [None, 5000])
def test_length_of_the_file(tmp_path, cards, length):
    """PCOUNT and GCOUNT count, and so do the pixels of the image."""
    hdu = fits.PrimaryHDU(PIXELS)
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    raw = path.read_bytes()
    ((keyword, value),) = cards.items()
    card = f"{keyword:8}= {value:>20}".ljust(80).encode()
    at = raw.index(b"EXTEND")
    path.write_bytes((raw[:at] + card + raw[at + 80 :])[:length])
    validated, prepared = check(path)
    if value or length:
        assert "the file is truncated" in validated
        assert validated == prepared
    else:
        assert prepared is None
