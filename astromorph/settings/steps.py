"""The settings that each step depends on."""

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

# Settings for reading a FITS file, and for preparing its image.
READING = ("data_settings.hdu", "data_settings.planes", "data_settings.max_pixels")
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
    # Written into the tables; earlier steps depend on them too.
    "export_tables": ("seed", "inference_settings", "analysis_settings"),
    "export_tensorboard": ("export_settings.thumbnail_size",),
    "export_map": (
        "export_settings.map_thumbnail_size",
        "export_settings.map_one_file",
    ),
    "export_gallery": (
        "seed",
        *READING,
        "evaluation_settings.label",
        "export_settings.gallery_images",
        "export_settings.gallery_stretch",
    ),
    # The settings of training are read from the model file.
    "report_settings": (
        "datafile",
        "seed",
        "data_settings",
        "validate_settings",
        "preprocess_settings",
        "split_settings",
        "inference_settings",
        "evaluation_settings",
        "analysis_settings",
        "export_settings",
    ),
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
        All settings of a run, or those parsed from a model file.
    """
    return TrainStepSettings(
        **{name: getattr(settings, name) for name in PARTS["train"] if "." not in name},
        stacksize=settings.data_settings.stacksize,
    )


def fixed_channels(
    planes: int | str | tuple[int, ...] | None, files: int
) -> int | None:
    """Number of channels of each image, if the settings determine it.

    Parameters
    ----------
    planes : int, str, tuple of int or None
        The setting `data_settings.planes`.
    files : int
        Number of files per image.

    Returns
    -------
    int or None
        None if it depends on the number of planes in the files.
    """
    if isinstance(planes, tuple):
        return len(planes) * files
    if isinstance(planes, str) and planes.startswith("channels"):
        first, _, last = planes.partition(" ")[2].partition(":")
        return (int(last) - int(first or 0)) * files if last else None
    return files


def needs_head(settings: Settings) -> bool:
    """Whether the first rows of the list determine how all images are prepared."""
    return (
        settings.preprocess_settings.stretch_scope == "dataset"
        or fixed_channels(settings.data_settings.planes, 1) is None
    )
