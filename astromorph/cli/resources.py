"""What a step asks a cluster for: memory and time, from the size of its work.

Estimates on the safe side; a job that was given too little is given more at its
next attempt, and a training goes on from its checkpoint. All others begin anew.
"""

import math
from dataclasses import dataclass

from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.settings.sections import Settings

# MB that a job takes before it begins: two Snakemakes, Python, and torch.
PLAIN, WITH_TORCH = 800, 2500
NATIVE = 512  # taken for the side of images that keep their size, unless it is known
LIKE = 128  # beyond this side images that keep their size count as several in a batch
FEATURES = 512  # taken for the length of an embedding that the network decides
# Of one core; half of what an old machine does, for images of 64 pixels.
FILES_PER_SECOND, TRAINED_PER_SECOND, EMBEDDED_PER_SECOND = 50.0, 10.0, 60.0
# Of the analysis; a third of what a machine of 2023 does.
ANALYSED_PER_SECOND, PAIRS_PER_SECOND, EXACT = 200.0, 5e7, 100_000
COPIES = 1.5  # of a shard's tensors; preprocessing holds one, and what is valid
# MB per image of 64 pixels in a batch, 1.3 times the most that was measured on a CPU:
# training n_layer_resnet up to layer3 took 5.5 in float32, 3.3 in bfloat16, at 256
# pixels 4.6 and 2.9 times the area, `amm` 2.3 and 1.7; embedding took 0.6.
TRAINED_MB, EMBEDDED_MB = 7.2, 0.8
LONGEST = 1440  # minutes; a training that takes longer goes on in the next attempt
MAX_OTHER_MINUTES = 14 * 1440  # what is cut short begins anew; more than clusters give
MAX_MB = 64_000  # images beyond this stay in their files


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job asks for at its first attempt.

    Attributes
    ----------
    mem_mb : int
        Memory in MB (10^6 bytes).
    minutes : int
        Time.
    longest : int
        Minutes that no attempt goes beyond.
    """

    mem_mb: int
    minutes: int
    longest: int = MAX_OTHER_MINUTES

    def at(self, attempt: int) -> "Resources":
        """The same for a later attempt, from 1: as many times as much."""
        minutes = min(self.minutes * attempt, self.longest)
        return Resources(self.mem_mb * attempt, minutes, self.longest)


def resources_for(
    step: str,
    settings: Settings,
    images: int,
    cores: int = 1,
    native_side: int = NATIVE,
) -> Resources:
    """What a step needs.

    Parameters
    ----------
    step : str
        ``validate``, ``preprocess``, ``split``, ``train``, ``infer``, ``evaluate``,
        ``gallery``, ``report``, ``analyse`` or ``export``.
    settings : Settings
        All of them.
    images : int
        How many the job works on: those of a shard, or all.
    cores : int
        CPU cores that it has.
    native_side : int
        Side in pixels of images that keep their size, by default 512.

    Returns
    -------
    Needs
    """
    side = settings.preprocess_settings.size
    area = ((native_side if side == "native" else side) / 64) ** 2
    size = 2 if settings.preprocess_settings.dtype == "float16" else 4
    cached = images * 64**2 * area * size / 1e6
    if step in ("validate", "split"):
        return _needs(PLAIN + images * 5e-4, images / FILES_PER_SECOND / cores)
    if step == "preprocess":
        return _needs(PLAIN + 200 + COPIES * cached, images / FILES_PER_SECOND)
    if step == "train":
        in_step = _in_batch(settings.batch_size, settings, area, fewest=2)
        in_step *= _with_simulated(settings, images)
        batch = in_step * TRAINED_MB / settings.training_settings.nodes
        seconds = _samples(settings, images) * area / TRAINED_PER_SECOND / cores
        return _needs(WITH_TORCH + batch + min(2 * cached, MAX_MB), seconds, LONGEST)
    views = 1 if settings.inference_settings.symmetry == "none" else 8
    at_once = settings.inference_settings.batch_size
    batch = _in_batch(at_once, settings, area, fewest=1) * EMBEDDED_MB
    seconds = views * area / EMBEDDED_PER_SECOND / cores
    if step == "infer":
        return _needs(WITH_TORCH + batch + cached, images * seconds)
    if step == "evaluate":
        looked_at = min(images, settings.evaluation_settings.images)
        # The original and what became of it, by two or three networks.
        return _needs(WITH_TORCH + 2 * batch + 1000, 30 * looked_at * seconds)
    if step in ("gallery", "report"):
        # Torch, and the analysis a part at a time; sheets have a limit.
        return _needs(WITH_TORCH, images / FILES_PER_SECOND / 20)
    length = settings.byol_settings.representation_size or FEATURES
    if step == "analyse":
        # The embeddings twice, their points, the map's graph; all pairs up to 10^5.
        pairs = images * min(images, EXACT) / PAIRS_PER_SECOND / cores
        return _needs(
            PLAIN + 600 + images * (length * 1e-5 + 4e-3),
            120 + images / ANALYSED_PER_SECOND + pairs,
        )
    return _needs(PLAIN + 500 + images * length * 8e-6, images / FILES_PER_SECOND / 4)


def _needs(
    megabytes: float, seconds: float, longest: int = MAX_OTHER_MINUTES
) -> Resources:
    """Rounded up, with ten minutes for what comes before and after."""
    minutes = min(longest, 10 + math.ceil(seconds / 60))
    return Resources(100 * math.ceil(megabytes / 100), minutes, longest)


def _in_batch(batch_size: int, settings: Settings, area: float, fewest: int) -> float:
    """Images of 64 pixels that are as many pixels as a batch has."""
    if settings.preprocess_settings.size != "native":
        return batch_size * area
    most = batch_size * min(area, (LIKE / 64) ** 2)
    return max(most, fewest * area)


def _samples(settings: Settings, images: int) -> float:
    """Images that training sees in all."""
    epochs = settings.epochs or preset_epochs(max(images, 1))
    return epochs * images * _with_simulated(settings, images)


def _with_simulated(settings: Settings, images: int) -> int:
    """How many images there are for each listed one in a batch."""
    return 2 if simulated_images(settings, images) else 1
