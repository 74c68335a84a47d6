"""The command `similar --at`: find the images of a run by their position on the sky."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astromorph.artefacts.column_types import to_numbers
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.run_table import listed_columns, run_table
from astromorph.artefacts.tables import write_csv
from astromorph.errors import AstromorphError

Angles = NDArray[np.float64]
Rows = list[dict[str, str]]

LOG = logging.getLogger(__name__)
COLUMNS = ("path", "ra_deg", "dec_deg", "object", "cluster")


def images_at(
    files: RunFiles,
    ra_deg: float,
    dec_deg: float,
    radius_arcsec: float | None = None,
    count: int | None = None,
    table: str | Path | None = None,
) -> Rows:
    """Find the images of a run that are nearest to a position.

    The distance is that of the centres of the images. The number of images without a
    position is logged.

    Parameters
    ----------
    files : RunFiles
        A finished run.
    ra_deg, dec_deg : float
        ICRS, in degrees.
    radius_arcsec : float, optional
        Images farther than this are left out.
    count : int, optional
        Maximum number of images; by default all.
    table : path, optional
        CSV to write: the returned rows.

    Returns
    -------
    list of dict of str to str
        A row for each image, the nearest first: `rank`, `separation_arcsec`,
        `image_id`, `path`, `ra_deg`, `dec_deg`, `object`, `cluster` and the columns of
        the file list. Empty if no image is within the radius; the nearest one is
        logged.

    Raises
    ------
    AstromorphError
        No image has a position, or results are missing or do not match.
    """
    names = [*COLUMNS, *listed_columns(files).values()]
    images = run_table(files, names)
    ra = to_numbers(images["ra_deg"], "float64").to_numpy()
    dec = to_numbers(images["dec_deg"], "float64").to_numpy()
    distances = separation_arcsec(ra_deg, dec_deg, ra, dec)
    missing = int(np.count_nonzero(np.isnan(distances)))
    if missing == len(images):
        raise AstromorphError(
            f"{files.catalogue}: none of the {missing} images has a position "
            "(`ra_deg`, `dec_deg`); their headers have no world coordinates"
        )
    if missing:
        LOG.info("%d of %d images have no position", missing, len(images))
    order = np.argsort(distances, kind="stable")[: len(images) - missing]
    nearest = order[0]
    if radius_arcsec is not None:
        order = order[distances[order] <= radius_arcsec]
    if not len(order):
        LOG.info(
            "no image is within %g arcsec; the nearest is %s at %.1f arcsec",
            radius_arcsec,
            images["path"].iloc[nearest],
            distances[nearest],
        )
    order = order[:count]
    facts = images.iloc[order][["image_id", *names]].to_dict("records")
    rows = [
        {"rank": str(rank), "separation_arcsec": f"{distances[k]:.3f}"}
        | {name: str(cell) for name, cell in row.items()}
        for rank, (k, row) in enumerate(zip(order, facts, strict=True), start=1)
    ]
    if table is not None:
        columns = ["rank", "separation_arcsec", "image_id", *names]
        write_csv(table, columns, rows)
    return rows


def separation_arcsec(
    ra_deg: float, dec_deg: float, other_ra_deg: Angles, other_dec_deg: Angles
) -> Angles:
    """Angular separations of a position from others.

    The formula of Vincenty (1975) for a sphere, which is exact at all separations, at
    the poles too.

    Parameters
    ----------
    ra_deg, dec_deg : float
        The position, in degrees.
    other_ra_deg, other_dec_deg : ndarray, shape (N,), float64
        The others, in degrees.

    Returns
    -------
    ndarray, shape (N,), float64
        Arcseconds; NaN where a position is NaN.

    References
    ----------
    .. [1] Vincenty 1975, Survey Review, 23, 88
    """
    difference = np.radians(other_ra_deg - ra_deg)
    first, second = np.radians(dec_deg), np.radians(other_dec_deg)
    across = np.cos(second) * np.sin(difference)
    along = np.cos(first) * np.sin(second)
    along = along - np.sin(first) * np.cos(second) * np.cos(difference)
    radial = np.sin(first) * np.sin(second)
    radial = radial + np.cos(first) * np.cos(second) * np.cos(difference)
    angle = np.arctan2(np.hypot(across, along), radial)
    return np.asarray(np.degrees(angle) * 3600)
