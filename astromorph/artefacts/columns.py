"""Names of the columns of all tables, and what some of their cells can be.

Every step depends on this module; `column_types` has what only exports need.
"""

from typing import Literal

Status = Literal["ok", "warning", "rejected"]
REJECTED: Status = "rejected"

# The catalogue: one row for each listed file. Further columns of the list follow.
CATALOGUE_COLUMNS = (
    "image_id",
    "path",
    "status",
    "reason",
    "hdu",
    "images",
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
    "plane",
    "reach_arcsec",
    "field_arcsec",
    *STATISTICS,
)
# How each listed file is used: for training, for testing, only embedded, or not.
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
TRAIN, TEST, EMBED, NONE = "train", "test", "embed", "none"
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

ROWS_AT_A_TIME = 16_384
