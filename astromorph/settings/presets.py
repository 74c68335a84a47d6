"""What follows from the settings: defaults by the number of images, channels.

Unlike the rest of this folder, digests of the code include this module.
"""

import math

from astromorph.settings.sections import Settings
from astromorph.settings.steps import TrainStepSettings

MAX_LISTED = 50_000  # with more, training uses no simulated images by default
SIMULATED = 12_000
RANDOM, SKY, TORCHVISION = "random", "sky", "torchvision"  # sources of start weights
WITH_SKY_WEIGHTS = ("n_layer_resnet", "amm")  # networks; weights come with the package
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


def start_weights_source(settings: Settings | TrainStepSettings) -> str:
    """Where the start weights come from: `random`, `sky`, `torchvision` or a file.

    Parameters
    ----------
    settings : Settings or TrainStepSettings
        `network_name` and `network_settings` are used.

    Returns
    -------
    str
    """
    rules = settings.network_settings
    if rules.weights is not None:
        return rules.weights
    return SKY if settings.network_name in WITH_SKY_WEIGHTS else RANDOM


def knows_simulated_shapes(settings: Settings | TrainStepSettings) -> bool:
    """Whether every layer of the encoder starts with weights of the simulated sky.

    Any `representation_size` counts as a layer with random weights.

    Parameters
    ----------
    settings : Settings or TrainStepSettings
        `network_name`, `network_settings` and `byol_settings` are used.
    """
    has_random_block = (
        settings.network_name == "n_layer_resnet"
        and settings.network_settings.last_layer == "layer4"
    )
    has_random_layer = settings.byol_settings.representation_size is not None
    is_sky = start_weights_source(settings) == SKY
    return is_sky and not (has_random_block or has_random_layer)


def simulated_images(settings: Settings | TrainStepSettings, number: int) -> int:
    """Number of simulated images in training.

    Parameters
    ----------
    settings : Settings or TrainStepSettings
        Sections of network and training, and `epochs`, are used.
    number : int
        Number of training images.

    Returns
    -------
    int
        The default is 0 with start weights that know the simulated shapes already, or
        with more than 50,000 images; otherwise 12,000, limited to the number that
        training can use: one for each training image in each epoch.
    """
    simulated = settings.training_settings.simulated_images
    if simulated is None:
        samples = number * (settings.epochs or preset_epochs(max(number, 1)))
        is_needed = number <= MAX_LISTED and not knows_simulated_shapes(settings)
        simulated = min(SIMULATED, samples) if is_needed else 0
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
