"""What follows from the settings: defaults by the number of images, channels.

Unlike the rest of this folder, digests of the code include this module.
"""

import math

from astromorph.settings.sections import Settings
from astromorph.settings.steps import TrainStepSettings

MAX_LISTED = 50_000  # with more, training uses no simulated images by default
SIMULATED = 12_000
SAMPLES, SAMPLES_UP_TO, MAX_EPOCHS = 30_000, 1_000, 150
MAX_START_SHARE, FEW_TO_LEARN_FROM = 0.95, 5_000


def preset_epochs(number: int) -> int:
    """Default number of epochs.

    Training uses 30,000 samples for up to 1,000 images. Beyond that, the number of
    samples grows with the square root of the number of images. This gives 150 epochs
    for 200 images, 26 for 1,300, 3 for 100,000, 1 for a million.

    Parameters
    ----------
    number : int
        Number of training images, at least 1.
    """
    samples = SAMPLES * math.sqrt(max(1.0, number / SAMPLES_UP_TO))
    return max(1, min(MAX_EPOCHS, round(samples / number)))


def preset_start_share(number: int) -> float:
    """Default share of the start weights in the model.

    With up to 5,000 images, training lost more than it gained on most labelled sets
    (docs/training.md), so that the model stays close to the start weights. With more,
    the share falls with the logarithm of the number, to 0 for 50,000.

    Parameters
    ----------
    number : int
        Number of training images, at least 1.

    Returns
    -------
    float
        From 0 to 0.95.
    """
    few, many = FEW_TO_LEARN_FROM, MAX_LISTED
    fraction = math.log(many / max(1, number)) / math.log(many / few)
    return MAX_START_SHARE * min(1.0, max(0.0, fraction))


def simulated_images(settings: Settings | TrainStepSettings, number: int) -> int:
    """Number of simulated images in training.

    Parameters
    ----------
    settings : Settings or TrainStepSettings
        `training_settings.simulated_images` and `epochs` are used.
    number : int
        Number of training images.

    Returns
    -------
    int
        The default is limited to the number that training can use: one for each
        training image in each epoch.
    """
    simulated = settings.training_settings.simulated_images
    if simulated is None:
        samples = number * (settings.epochs or preset_epochs(max(number, 1)))
        simulated = min(SIMULATED, samples) if number <= MAX_LISTED else 0
    return simulated


def fixed_channels(
    planes: int | str | tuple[int, ...] | None, files: int
) -> int | None:
    """Number of channels that the settings give each image.

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
