"""The columns of all tables: names, types, units, UCDs and meanings.

UCDs follow the UCD1+ vocabulary (IVOA, version 1.6).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from astromorph.artefacts.embeddings import EMBEDDING_PREFIX

Status = Literal["ok", "warning", "rejected"]
REJECTED: Status = "rejected"

# The catalogue: one row for each listed file. Further columns of the list follow.
CATALOGUE_COLUMNS = (
    "image_id",
    "path",
    "status",
    "reason",
    "hdu",
    "shape",
    "dtype",
    "width",
    "height",
    "ra_deg",
    "dec_deg",
    "pixel_scale_arcsec",
    "object",
    "telescope",
    "unit",
    "date_obs",
    "band",
    "rest_frequency_hz",
    "beam_major_arcsec",
    "beam_minor_arcsec",
    "beam_angle_deg",
    "channels",
    "file_bytes",
)
# Pixel statistics of each image, also stored in its shard.
STATISTICS = (
    "background",
    "noise",
    "minimum",
    "maximum",
    "valid_fraction",
    "stretched_background",
    "stretched_noise",
)
# The contents of a shard: one row for each of its rows in the catalogue.
CONTENTS_COLUMNS = (
    "image_id",
    "path",
    "status",
    "reason",
    "position",
    "height",
    "width",
    "content",
    "object",
    "ra_deg",
    "dec_deg",
    "band",
    "reach_arcsec",
    "field_arcsec",
    *STATISTICS,
)
# Whether each listed file is used for training, for testing, or not at all.
SPLIT_COLUMNS = (
    "image_id",
    "path",
    "status",
    "reason",
    "subset",
    "group",
    "shard",
    "position",
)
TRAIN, TEST, NONE = "train", "test", "none"
HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "test_loss",
    "auxiliary_loss",
    "learning_rate",
    "moving_average_decay",
    "effective_rank",
    "spread",
)
# The facts that come before the columns of the list in the CSV export.
EXPORT_COLUMNS = (
    "image_id",
    "path",
    "object",
    "ra_deg",
    "dec_deg",
    "rest_frequency_hz",
)
# The position of each image on the contact sheets.
GALLERY_COLUMNS = ("sheet", "row", "column", "image_id", "object", "path", "note")

Kind = Literal["text", "int64", "float64", "ids", "int32", "float32", "vector"]
LISTED_PREFIX = "listed_"  # for columns of the list whose names we use
LISTED_MEANING = "column of the file list"
ROWS_AT_A_TIME = 16_384


@dataclass(frozen=True, slots=True)
class Column:
    """The name, type and meaning of a column.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        `text`; `int64` and `float64`, which may have empty cells; `int32` and
        `float32`, which have none; `ids`, a list of image ids; `vector`, a fixed number
        of float32.
    meaning : str
        One line of at most 60 ASCII characters, so that it fits a FITS card.
    ucd : str
        Its UCD; empty if none fits.
    unit : str
        As in FITS and VOTable; empty for none.
    length : int
        For a vector, the number of its components. For texts, the UTF-16 units of the
        longest; ids are joined by spaces.
    escaped_length : int
        For texts, the characters of the longest as `escape_to_ascii` writes it.
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
    Column("ra_deg", "float64", "right ascension of the centre, ICRS",
           "pos.eq.ra;meta.main", "deg"),
    Column("dec_deg", "float64", "declination of the centre, ICRS",
           "pos.eq.dec;meta.main", "deg"),
    Column("rest_frequency_hz", "float64", "rest frequency, RESTFRQ", "em.freq", "Hz"),
    Column("status", "text", "ok, or warning", "meta.code.status"),
    Column("reason", "text", "warning about the file", "meta.note"),
    Column("hdu", "int64", "number of the HDU with the image, from 0",
           "meta.id.part"),
    Column("shape", "text", "axes as stored, slowest first", "meta.note"),
    Column("dtype", "text", "stored type, before scaling", "meta.note"),
    Column("width", "int64", "pixels along x", "meta.number;instr.pixel", "pix"),
    Column("height", "int64", "pixels along y", "meta.number;instr.pixel", "pix"),
    Column("pixel_scale_arcsec", "float64", "side of a pixel, geometric mean of two",
           "phys.angSize;instr.pixel", "arcsec"),
    Column("telescope", "text", "TELESCOP of the header", "meta.id;instr.tel"),
    Column("unit", "text", "unit of the pixels, BUNIT", "meta.unit"),
    Column("date_obs", "text", "DATE-OBS of the header", "time.start;obs"),
    Column("band", "text", "frequency and filter", "instr.bandpass"),
    Column("beam_major_arcsec", "float64", "major axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_minor_arcsec", "float64", "minor axis of the beam, FWHM",
           "phys.angSize;instr.beam", "arcsec"),
    Column("beam_angle_deg", "float64", "position angle of the beam",
           "pos.posAng;instr.beam", "deg"),
    Column("channels", "int64", "planes or files that are channels of the network",
           "meta.number"),
    Column("file_bytes", "int64", "size of the file or files", "", "byte"),
    Column("subset", "text", "train or test; test images are not trained on",
           "meta.code.class"),
)  # fmt: skip
ANALYSED = (
    Column("cluster", "int32", "cluster, 0 is the largest, -1 is none",
           "meta.code.class;meta.main"),
    Column("cluster_kmeans", "int32", "cluster by k-means", "meta.code.class"),
    Column("cluster_hdbscan", "int32", "cluster by HDBSCAN, -1 is none",
           "meta.code.class"),
    Column("x", "float32", "horizontal position on the map", "pos.cartesian.x"),
    Column("y", "float32", "vertical position on the map", "pos.cartesian.y"),
    Column("pca_1", "float32", "first principal component of the embedding",
           "stat.param"),
    Column("pca_2", "float32", "second principal component of the embedding",
           "stat.param"),
    Column("outlier_score", "float32",
           "distance from similar images; larger is more unusual", "stat.value"),
    Column("outlier_rank", "int32", "1 is the most unusual image", "meta.number"),
    Column("role", "text", "representative or odd member of its cluster",
           "meta.code.class"),
    Column("neighbour_ids", "ids", "the nearest images, nearest first",
           "meta.id.assoc"),
    Column("duplicate_ids", "ids", "near-duplicates", "meta.id.assoc"),
)  # fmt: skip
DISTANCES = Column(
    "neighbour_distances", "vector", "distances of neighbour_ids", "stat.value"
)
EMBEDDING = Column(
    "embedding", "vector", "embedding of the image by the network", "stat.param"
)
FACTS = tuple(
    next(c for c in _FACTS if c.name == name)
    for name in dict.fromkeys((*EXPORT_COLUMNS, *CATALOGUE_COLUMNS, "subset"))
)
_OUR_NAMES = frozenset(c.name for c in (*FACTS, *ANALYSED, DISTANCES, EMBEDDING))


def listed_names(columns: Sequence[str]) -> dict[str, str]:
    """Choose the names of the columns of a user's list in the exported tables.

    In all tables, a column gets the prefix `listed_` if astromorph uses its name, or if
    it differs from an earlier column only in case, because FITS ignores case.

    Parameters
    ----------
    columns : sequence of str
        Their names in the catalogue.

    Returns
    -------
    dict of str to str
        Name in the catalogue to name in the tables, in order.
    """
    used, names = set(_OUR_NAMES), {}
    in_list = {name.lower() for name in columns}
    for column in columns:
        name = column
        while name.lower() in used or _is_embedding_name(name):
            name = LISTED_PREFIX + name
            while name.lower() in in_list:
                name = LISTED_PREFIX + name
        used.add(name.lower())
        names[column] = name
    return names


def _is_embedding_name(name: str) -> bool:
    return re.fullmatch(rf"(?i){EMBEDDING_PREFIX}\d+", name) is not None


def is_listed(column: Column) -> bool:
    """Whether a column comes from the file list."""
    return column.meaning == LISTED_MEANING
