"""Read thousands of damaged FITS files; each must give an image or a reason.

    python benchmarks/robustness.py --number 5000 [--seeds ../shared/data/odd-fits]

Seeds are small files of all kinds, which are written here, and those in a given folder.
They are truncated, their bits are flipped, header cards are edited, deleted or
repeated, bytes of tables and tiles are changed, or their sizes are inflated. Each file
is read twice, with the same result. The longest time and the largest memory are
printed with their ratios to the limits of 1 s and 200 MB. A file that exceeds them ends
the run with its name; so does any other error than a reason.
"""

import argparse
import bz2
import collections
import gzip
import lzma
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from astromorph.catalogue.summary import general_reason
from astromorph.errors import FitsImageError
from astromorph.fits import image as fits_image
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.settings.sections import DataSettings, PreprocessSettings

SECONDS, MEGABYTES = 1.0, 200.0
MAX_SEED = 600_000  # bytes
KEYWORDS = (
    b"NAXIS   ", b"NAXIS1  ", b"NAXIS2  ", b"NAXIS3  ", b"BITPIX  ", b"PCOUNT  ",
    b"GCOUNT  ", b"ZNAXIS1 ", b"ZNAXIS2 ", b"ZTILE1  ", b"ZTILE2  ", b"ZBITPIX ",
    b"ZCMPTYPE", b"TFIELDS ", b"TFORM1  ", b"BSCALE  ", b"BZERO   ", b"BLANK   ",
    b"CTYPE1  ", b"CDELT1  ", b"CRVAL1  ", b"XTENSION", b"SIMPLE  ", b"END     ",
    b"ZIMAGE  ", b"ZQUANTIZ", b"ZSCALE  ", b"ZVAL1   ", b"THEAP   ", b"CRPIX1  ",
)  # fmt: skip
VALUES = (
    b"0", b"1", b"-1", b"2", b"3", b"16", b"-32", b"64", b"999", b"1000", b"20000",
    b"100000", b"2147483647", b"4294967296", b"9223372036854775807", b"1e308", b"NaN",
    b"T", b"F", b"'RA---TAN'", b"'XXXX-TNX'", b"''", b"'unclosed", b"1.5", b"(1,2)",
    b"'1QE(9999)'", b"'BINTABLE'", b"'IMAGE'", b"'HCOMPRESS_1'", b"'PLIO_1'", b"",
)  # fmt: skip


def own_seeds(folder: Path) -> list[Path]:
    """Write a small file of each kind."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(10, 3, (64, 48)).astype(np.float32)
    pixels[10:14] = np.nan
    header = fits.Header({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0,
        "CRPIX1": 24.0, "CRPIX2": 32.0, "CDELT1": -0.001, "CDELT2": 0.001,
        "OBJECT": "M 31", "BMAJ": 0.002, "RADESYS": "FK5", "EQUINOX": 1975.0,
    })  # fmt: skip
    ints = np.nan_to_num(pixels).astype(np.int16)
    hdus = {
        "plain": fits.PrimaryHDU(pixels, header),
        "int": fits.PrimaryHDU(ints, header),
        "cube": fits.PrimaryHDU(np.stack([pixels] * 3), header),
        "rice": fits.CompImageHDU(pixels, header, compression_type="RICE_1"),
        "gzip1": fits.CompImageHDU(pixels, header, compression_type="GZIP_1"),
        "gzip2": fits.CompImageHDU(ints, header, compression_type="GZIP_2"),
        "plio": fits.CompImageHDU(abs(ints), header, compression_type="PLIO_1"),
        "hcompress": fits.CompImageHDU(ints, header, compression_type="HCOMPRESS_1"),
        "extension": fits.ImageHDU(pixels, header),
    }
    for name, hdu in hdus.items():
        first = [] if isinstance(hdu, fits.PrimaryHDU) else [fits.PrimaryHDU()]
        fits.HDUList([*first, hdu]).writeto(folder / f"{name}.fits")
    plain = (folder / "plain.fits").read_bytes()
    (folder / "plain.fits.gz").write_bytes(gzip.compress(plain))
    (folder / "plain.fits.bz2").write_bytes(bz2.compress(plain))
    (folder / "plain.fits.xz").write_bytes(lzma.compress(plain))
    with zipfile.ZipFile(folder / "plain.fits.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("plain.fits", plain)
    return sorted(folder.iterdir())


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """A damaged copy; a compressed file is damaged outside or inside."""
    if raw[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        return gzip.compress(mutate(gzip.decompress(raw), rng), 1)
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        MUTATIONS[rng.randrange(len(MUTATIONS))](data, rng)
    return bytes(data)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 8, 64))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 16))):
        if data:
            data[rng.randrange(min(len(data), 5760))] = rng.randrange(256)


def flip_tiles(data: bytearray, rng: random.Random) -> None:
    """Change bytes and numbers behind the last header: descriptors and tiles."""
    start = -(-(data.rfind(b"END" + b" " * 77) + 80) // 2880) * 2880
    for _ in range(rng.choice((1, 1, 2, 8))):
        if start < len(data):
            at = rng.randrange(start, min(len(data), start + rng.choice((64, 10**6))))
            number = rng.choice((0, 1, 2**12, 2**31 - 1, 2**32 - 1))
            changed = rng.choice((bytes([rng.randrange(256)]), number.to_bytes(4)))
            data[at : at + len(changed)] = changed


def edit_card(data: bytearray, rng: random.Random) -> None:
    """Change the value of one of `KEYWORDS`."""
    places = []
    for keyword in KEYWORDS:
        at = data.find(keyword)
        while at >= 0:
            if at % 80 == 0:
                places.append(at)
            at = data.find(keyword, at + 1)
    if places:
        at = rng.choice(places)
        data[at + 8 : at + 80] = (b"= " + rng.choice(VALUES).rjust(20)).ljust(72)


def inflate(data: bytearray, rng: random.Random) -> None:
    """Increase sizes, sometimes several of them consistently."""
    length = b"%d" % rng.choice((1000, 5000, 10000, 16000, 10**6))
    for keyword in rng.choice((
        (b"NAXIS1  ",), (b"NAXIS2  ",), (b"NAXIS1  ", b"NAXIS2  "),
        (b"ZNAXIS1 ",), (b"ZNAXIS1 ", b"ZTILE1  "), (b"ZNAXIS2 ", b"ZTILE2  "),
        (b"ZNAXIS1 ", b"ZNAXIS2 ", b"ZTILE1  ", b"ZTILE2  "), (b"PCOUNT  ",),
    )):  # fmt: skip
        at = data.find(keyword)
        if at >= 0 and at % 80 == 0:
            data[at + 8 : at + 80] = (b"= " + length.rjust(20)).ljust(72)


def move_card(data: bytearray, rng: random.Random) -> None:
    """Write a card over another one, so that it is repeated, lost or out of order."""
    cards = min(len(data), 5760) // 80
    if cards > 1:
        one, other = rng.randrange(cards) * 80, rng.randrange(cards) * 80
        data[one : one + 80] = data[other : other + 80]


def add_cards(data: bytearray, rng: random.Random) -> None:
    """Insert thousands of commentary cards."""
    at = data.find(b"END" + b" " * 77)
    if at >= 0:
        card = rng.choice((b"HISTORY x", b"COMMENT", b"CTYPE9  = 'A'", b"A_ORDER = 9"))
        data[at:at] = card.ljust(80) * (36 * rng.choice((1, 10, 300)))


MUTATIONS = (
    cut,
    flip,
    flip_header,
    flip_tiles,
    flip_tiles,
    edit_card,
    edit_card,
    inflate,
    move_card,
    add_cards,
)


def memory_mb() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def read(path: Path, rules: DataSettings) -> tuple[str, bytes]:
    """Read a file; return "an image" or the reason against it, and its pixels."""
    try:
        fits_image.describe_image([path], rules)
        _, image = fits_image.read_image([path], rules)
        prepare(image, PreprocessSettings())
    except FitsImageError as error:
        return general_reason(str(error))[:60], b""
    return "an image", image.pixels.tobytes()


def timed_read(path: Path, rules: DataSettings) -> tuple[tuple[str, bytes], float]:
    """The result of reading a file, and the time in seconds."""
    start = time.perf_counter()
    result = read(path, rules)
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=5000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0, help="seed of random numbers")
    parser.add_argument("--seeds", type=Path, help="folder of more files to damage")
    parser.add_argument(
        "--limit",
        type=float,
        default=SECONDS,
        help="time in seconds that ends the run; more on a busy machine",
    )
    options = parser.parse_args()
    warnings.simplefilter("error")
    rng, results = random.Random(options.seed), collections.Counter[str]()
    slowest, largest = (0.0, ""), 0.0
    choices = [DataSettings(planes=p) for p in (None, "max", "channels")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = own_seeds(folder / "seeds")
        if options.seeds:
            more = [p for p in sorted(options.seeds.rglob("*.fit*")) if p.is_file()]
            seeds += [p for p in more if p.stat().st_size < MAX_SEED]
        contents = {path.name: path.read_bytes() for path in seeds}
        for path in seeds:
            read(path, choices[1])
        before = memory_mb()
        for k in range(options.number):
            seed = rng.choice(sorted(contents))
            path = folder / f"{k}_{seed}"
            path.write_bytes(mutate(contents[seed], rng))
            reset_peak()
            rules = rng.choice(choices)
            (result, seconds), (again, seconds_again) = (
                timed_read(path, rules) for _ in range(2)
            )
            # The shorter time, so that other work on the machine matters less.
            seconds = min(seconds, seconds_again)
            results[result[0]] += 1
            if again != result:
                copy = Path(tempfile.gettempdir()) / path.name
                copy.write_bytes(path.read_bytes())
                sys.exit(f"{copy}: two readings differ")
            megabytes = peak_mb() - before
            slowest = max(slowest, (seconds, seed))
            largest = max(largest, megabytes)
            if seconds > options.limit or megabytes > MEGABYTES:
                copy = Path(tempfile.gettempdir()) / path.name
                copy.write_bytes(path.read_bytes())
                sys.exit(f"{copy}: {seconds:.2f} s, {megabytes:.0f} MB")
            path.unlink()
    print(f"{options.number} damaged files of {len(contents)} seeds")
    print(
        f"slowest {slowest[0]:.3f} s ({slowest[1]}), {slowest[0] / SECONDS:.2f} of the "
        f"limit; largest {largest:.0f} MB, {largest / MEGABYTES:.2f} of the limit"
    )
    for reason, count in results.most_common(25):
        print(f"{count:7d}  {reason}")


def reset_peak() -> None:
    """Reset the maximum of the resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The largest resident memory since `reset_peak`."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
