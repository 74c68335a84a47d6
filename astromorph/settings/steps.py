"""Which settings each step depends on, and no others."""

from dataclasses import dataclass
from typing import Any

from astromorph.settings.sections import (
    AugmentationSettings,
    ByolSettings,
    NetworkSettings,
    PreprocessSettings,
    Section,
    Settings,
    TrainingSettings,
)

# Settings of reading a FITS file, and of preparing its image.
READING = tuple(
    f"data_settings.{name}"
    for name in ("hdu", "planes", "max_pixels", "bad_values", "zeros_at_edge")
)
PREPARING = tuple(
    f"preprocess_settings.{name}"
    for name in PreprocessSettings.model_fields
    if name != "shard_size"
)


# The settings of each step: sections, and single settings as "section.name".
PARTS: dict[str, tuple[str, ...]] = {
    "validate": (
        *READING,
        "data_settings.header_columns",
        "validate_settings",
        "evaluation_settings.label",
        *PREPARING,
    ),
    "preprocess": (*READING, *PREPARING),
    "split": ("seed", "split_settings", "validate_settings"),
    "train": (
        "seed",
        "network_name",
        "epochs",
        "batch_size",
        "learning_rate",
        "exponential_lr",
        "gamma",
        "network_settings",
        "training_settings",
        "byol_settings",
        "augmentation_settings",
        "data_settings.stacksize",
    ),
    "infer": ("inference_settings",),
    "evaluate": ("inference_settings", "evaluation_settings"),
    "analyse": ("seed", "analysis_settings"),
    "export_csv": ("export_settings.csv_separator",),
    # Written into the tables; the steps before depend on them too.
    "export_tables": ("seed", "inference_settings", "analysis_settings"),
    "export_tensorboard": ("export_settings.thumbnail_size",),
    "export_map": (
        "export_settings.map_thumbnail_size",
        "export_settings.map_one_file",
        "export_settings.gallery",
    ),
    "export_gallery": (
        "seed",
        *READING,
        "evaluation_settings.label",
        "export_settings.gallery_images",
        "export_settings.map",
        "export_settings.gallery_stretch",
    ),
    "rank": ("marks",),
    # Those that training depends on are read from the model file.
    "report_settings": (
        "datafile",
        "seed",
        "marks",
        "data_settings",
        "validate_settings",
        "preprocess_settings",
        "split_settings",
        "inference_settings",
        "evaluation_settings",
        "analysis_settings",
        "export_settings",
    ),
    # Which tables and pages there are.
    "report_home": ("datafile", "export_to_csv", "export_settings", "marks"),
}


def part_of(settings: Settings, step: str) -> dict[str, Any]:
    """Select the settings that a step depends on.

    Parameters
    ----------
    settings : Settings
        All settings of a run.
    step : str
        A key of `PARTS`.

    Returns
    -------
    dict
        Plain nested values, which `astromorph.settings.loading.parse` accepts.
    """
    values = settings.model_dump(mode="json")
    part: dict[str, Any] = {}
    for name in PARTS[step]:
        section, _, key = name.partition(".")
        if key:
            part.setdefault(section, {})[key] = values[section][key]
        else:
            part[name] = values[name]
    return part


@dataclass(frozen=True, slots=True)
class TrainStepSettings:
    """The settings that training depends on, those of ``PARTS["train"]``.

    Each attribute is the setting of the same name; `stacksize` is
    `data_settings.stacksize`.
    """

    seed: int
    network_name: str
    epochs: int | None
    batch_size: int
    learning_rate: float | None
    exponential_lr: bool
    gamma: float
    network_settings: NetworkSettings
    training_settings: TrainingSettings
    byol_settings: ByolSettings
    augmentation_settings: AugmentationSettings
    stacksize: int

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, equal to ``part_of(settings, "train")``."""
        values: dict[str, Any] = {}
        for name in PARTS["train"]:
            if name == "data_settings.stacksize":
                values["data_settings"] = {"stacksize": self.stacksize}
            else:
                value = getattr(self, name)
                is_section = isinstance(value, Section)
                values[name] = value.model_dump(mode="json") if is_section else value
        return values


def train_step_settings(settings: Settings) -> TrainStepSettings:
    """The settings that training depends on.

    Parameters
    ----------
    settings : Settings
        All settings of a run, or those that `parse` makes of a model file's.
    """
    return TrainStepSettings(
        **{name: getattr(settings, name) for name in PARTS["train"] if "." not in name},
        stacksize=settings.data_settings.stacksize,
    )
