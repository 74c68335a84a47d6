"""The command `simulate`: a folder of simulated FITS images with known kinds."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts import tables as artefacts
from astromorph.errors import AstromorphError, describe_file_error
from astromorph.fits import image as fits_image
from astromorph.fits.facts import ImageFacts
from astromorph.progress import track
from astromorph.sky import draw as sky
from astromorph.sky.morphologies import KINDS

LOG = logging.getLogger(__name__)
MIN_SIDE, MAX_SIDE = 40, 120  # pixels
# Fractions of images that are square, have borders of NaN, or axes of length 1.
SQUARE, BORDERED, DEGENERATE = 0.6, 0.25, 0.4
REST_FREQUENCIES_HZ = (1.420405751e9, 1.15271202e11, 2.30538e11, 3.45796e11)


def simulate(
    output: str | Path, number: int, seed: int, morphologies: Sequence[str] = ()
) -> Path:
    """Write simulated FITS images and their file list.

    All kinds, or the given morphologies, are drawn in turn. Sides are 40 to 120 pixels
    long. Noise, beam and flux vary; some images have borders of NaN, some have the
    shape (1, 1, ny, nx).

    Parameters
    ----------
    output : path
        The folder for the images; files with the same names are replaced.
    number : int
        Number of images.
    seed : int
        Random seed; each image depends only on it and on its own number.
    morphologies : sequence of str
        Names in `astromorph.sky.morphologies.MORPHOLOGIES`; the labels are then these
        names instead of the kinds.

    Returns
    -------
    Path
        The file list, CSV with the columns `path` and `label`.

    Raises
    ------
    AstromorphError
        `number` is not positive, or the folder cannot be written.
    """
    if number < 1:
        raise AstromorphError(f"--number: found {number}; give 1 or more")
    output = Path(output)
    labels = list(morphologies or KINDS)
    draw = sky.draw_morphology if morphologies else sky.draw
    rows = []
    try:
        for k in track(range(number), number, "images simulated"):
            label = labels[k % len(labels)]
            name = f"sky_{k:06d}.fits"
            rng = np.random.default_rng([seed, k])
            _write_image(output / name, partial(draw, label), rng, k)
            rows.append({"path": name, "label": label})
        filelist = output / "filelist.csv"
        artefacts.write_csv(filelist, ("path", "label"), rows)
    except OSError as error:
        raise AstromorphError(
            f"{output}: the folder cannot be written ({describe_file_error(error)}); "
            "choose another"
        ) from None
    LOG.info("%s lists %d simulated images", filelist, number)
    return filelist


def _write_image(
    path: Path,
    draw: Callable[[tuple[int, int], np.random.Generator], sky.Drawing],
    rng: np.random.Generator,
    k: int,
) -> None:
    width, height = (int(n) for n in rng.integers(MIN_SIDE, MAX_SIDE + 1, 2))
    if rng.random() < SQUARE:
        height = width
    drawing = draw((height, width), rng)
    sigma = 10 ** rng.uniform(-5, -3)  # Jy/beam
    pixels = drawing.pixels * np.float32(sigma)
    if rng.random() < BORDERED:
        pixels = _add_border(pixels, rng)
    if rng.random() < DEGENERATE:
        pixels = pixels[None, None]
    scale = rng.uniform(0.05, 2.0)
    facts = ImageFacts(
        hdu=0,
        shape=pixels.shape,
        dtype="float32",
        width=width,
        height=height,
        ra_deg=float(rng.uniform(0, 360)),
        dec_deg=float(np.degrees(np.arcsin(rng.uniform(-0.95, 0.95)))),
        pixel_scale_arcsec=float(scale),
        object_name=f"SKY {k:06d}",
        telescope="SIMULATED",
        unit="Jy/beam",
        rest_frequency_hz=float(rng.choice(REST_FREQUENCIES_HZ)),
    )
    fits_image.write_image(path, pixels, facts, drawing.beam * scale)


def _add_border(
    pixels: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Set pixels to NaN outside a primary beam or beyond the edge of a survey."""
    y, x = np.indices(pixels.shape)
    height, width = pixels.shape
    if rng.random() < 0.5:
        r = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
        inside = r < max(height, width) * rng.uniform(0.48, 0.6)
    else:
        inside = x >= rng.integers(2, 1 + width // 6)
        inside = inside if rng.random() < 0.5 else inside[:, ::-1]
    return np.where(inside, pixels, np.float32(np.nan))
