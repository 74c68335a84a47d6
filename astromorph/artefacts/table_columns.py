"""The columns of the exported tables: names, units, UCDs, what they mean.

UCDs are of the vocabulary UCD1+ (IVOA, version 1.6). Columns of the user's list join
them under names that none of ours has.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from astromorph.artefacts.embeddings import EMBEDDING_PREFIX
from astromorph.artefacts.tables import CATALOGUE_COLUMNS, EXPORT_COLUMNS

Kind = Literal["text", "integer", "number", "ids", "short", "single", "vector"]
LISTED = "listed_"  # before a name of the list that is taken
OF_THE_LIST = "column of the file list"


@dataclass(frozen=True, slots=True)
class Column:
    """What a column is.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        `text`; `integer` (64 bits) and `number` (64 bits), which may be empty; `short`
        (32-bit integers) and `single` (32-bit numbers), which are never; `ids`, a list
        of them; `vector`, a fixed number of 32-bit numbers.
    meaning : str
        One line, at most 68 ASCII characters, so that it fits a FITS card.
    ucd : str
        Its UCD, empty where none fits.
    unit : str
        As FITS and VOTable write it, empty for none.
    length : int
        Of a vector: how many numbers. Of texts: UTF-16 units of the longest.
    escaped_length : int
        Of texts: characters of the longest in the ASCII that FITS allows.
    ascii : bool
        Whether all texts are ASCII.
    """

    name: str
    kind: Kind
    meaning: str
    ucd: str = ""
    unit: str = ""
    length: int = 0
    escaped_length: int = 0
    ascii: bool = True


_FACTS = (
    Column("image_id", "text", "id of the image, the same in all tables",
           "meta.id;meta.main"),
    Column("path", "text", "the FITS file", "meta.id;meta.file"),
    Column("object", "text", "OBJECT of the header", "meta.id"),
    Column("ra_deg", "number", "right ascension of the centre, ICRS",
           "pos.eq.ra;meta.main", "deg"),
    Column("dec_deg", "number", "declination of the centre, ICRS",
           "pos.eq.dec;meta.main", "deg"),
    Column("rest_frequency_hz", "number", "rest frequency, RESTFRQ", "em.freq", "Hz"),
    Column("status", "text", "ok, or warning", "meta.code.status"),
    Column("reason", "text", "what is odd about the file", "meta.note"),
    Column("hdu", "integer", "number of the HDU with the image, from 0",
           "meta.id.part"),
    Column("shape", "text", "axes as stored, slowest first", "meta.note"),
    Column("dtype", "text", "stored type, before scaling", "meta.note"),
    Column("width", "integer", "pixels along x", "meta.number;instr.pixel", "pix"),
    Column("height", "integer", "pixels along y", "meta.number;instr.pixel", "pix"),
    Column("pixel_scale_arcsec", "number", "side of a pixel, geometric mean of two",
           "phys.angSize;instr.pixel", "arcsec"),
    Column("telescope", "text", "TELESCOP of the header", "meta.id;instr.tel"),
    Column("unit", "text", "unit of the pixels, BUNIT", "meta.unit"),
    Column("date_obs", "text", "DATE-OBS of the header", "time.start;obs"),
    Column("band", "text", "frequency and filter", "instr.bandpass"),
    Column("beam_major_arcsec", "number", "major axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_minor_arcsec", "number", "minor axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_angle_deg", "number", "position angle of the beam",
           "pos.posAng;instr.beam", "deg"),
    Column("channels", "integer", "planes or files that are channels of the network",
           "meta.number"),
    Column("file_bytes", "integer", "size of the file or files", "", "byte"),
    Column("subset", "text", "train, or test: held out of training",
           "meta.code.class"),
)  # fmt: skip
ANALYSED = (
    Column("cluster", "short", "cluster, 0 is the largest, -1 is none",
           "meta.code.class;meta.main"),
    Column("cluster_kmeans", "short", "cluster by k-means", "meta.code.class"),
    Column("cluster_hdbscan", "short", "cluster by HDBSCAN, -1 is none",
           "meta.code.class"),
    Column("x", "single", "place on the map", "pos.cartesian.x"),
    Column("y", "single", "place on the map", "pos.cartesian.y"),
    Column("pca_1", "single", "first principal component of the embedding",
           "stat.param"),
    Column("pca_2", "single", "second principal component of the embedding",
           "stat.param"),
    Column("outlier_score", "single", "how far from its like; larger is odder",
           "stat.value"),
    Column("outlier_rank", "short", "1 is the oddest", "meta.number"),
    Column("role", "text", "representative, or odd, of its cluster",
           "meta.code.class"),
    Column("neighbour_ids", "ids", "the nearest images, nearest first",
           "meta.id.assoc"),
    Column("duplicate_ids", "ids", "images that are nearly the same", "meta.id.assoc"),
)  # fmt: skip
DISTANCES = Column(
    "neighbour_distances", "vector", "how far neighbour_ids are", "stat.value"
)
EMBEDDING = Column(
    "embedding", "vector", "what the network made of the image", "stat.param"
)
FACTS = tuple(
    next(c for c in _FACTS if c.name == name)
    for name in dict.fromkeys((*EXPORT_COLUMNS, *CATALOGUE_COLUMNS, "subset"))
)
_TAKEN = frozenset(c.name for c in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING))


def listed_names(columns: Sequence[str]) -> dict[str, str]:
    """Names in the exported tables of the columns of a user's list.

    One with a name of ours gets `listed_` before it, in every table; so does one that
    differs from an earlier one by its case alone, as FITS does not tell these apart.

    Parameters
    ----------
    columns : sequence of str
        As the catalogue has them.

    Returns
    -------
    dict of str to str
        Name in the catalogue to name in the tables, in order.
    """
    taken, names = set(_TAKEN), {}
    waiting = {name.lower() for name in columns}
    for column in columns:
        name = column
        while name.lower() in taken or _is_of_embedding(name):
            name = LISTED + name
            while name.lower() in waiting:
                name = LISTED + name
        taken.add(name.lower())
        names[column] = name
    return names


def _is_of_embedding(name: str) -> bool:
    return re.fullmatch(rf"(?i){EMBEDDING_PREFIX}\d+", name) is not None
