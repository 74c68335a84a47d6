"""What the number of images decides where the settings leave it open."""

import math

from astromorph.settings.sections import Settings
from astromorph.settings.steps import TrainStepSettings

FEW_IMAGES = 50_000  # up to which the simulated sky joins the training
SIMULATED = 12_000
SAMPLES, OF_IMAGES, MAX_EPOCHS = 30_000, 1_000, 150


def preset_epochs(number: int) -> int:
    """How often a set is seen by default.

    30,000 samples of up to 1,000 images, and with the square root of their number
    more of more: 150 epochs of 200 images, 26 of 1,300, 3 of 100,000, 1 of a
    million.

    Parameters
    ----------
    number : int
        Training images, at least 1.
    """
    samples = SAMPLES * math.sqrt(max(1.0, number / OF_IMAGES))
    return max(1, min(MAX_EPOCHS, round(samples / number)))


def simulated_images(settings: Settings | TrainStepSettings, number: int) -> int:
    """How many simulated images join a training.

    By default no more than it has places for: one for each image in each epoch.

    Parameters
    ----------
    settings : Settings or TrainStepSettings
        `training_settings.simulated_images`, where it is set, and `epochs`.
    number : int
        Training images.
    """
    wanted = settings.training_settings.simulated_images
    if wanted is None:
        places = number * (settings.epochs or preset_epochs(max(number, 1)))
        wanted = min(SIMULATED, places) if number <= FEW_IMAGES else 0
    return wanted
