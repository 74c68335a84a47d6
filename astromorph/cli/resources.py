"""Memory and time that a step requests from a cluster, estimated from its input.

The estimates are generous. A job that runs out of memory or time gets more in its next
attempt, in which training continues from its checkpoint and other steps start again.
"""

import math
from dataclasses import dataclass

from astromorph.settings.presets import preset_epochs, simulated_images
from astromorph.settings.sections import Settings

# MB that a job needs before it starts to work: two Snakemake processes, Python, torch.
BASE_MB, BASE_WITH_TORCH_MB = 800, 2500
DEFAULT_NATIVE_SIDE = 512  # side of images that keep their size, if it is unknown
# Images that keep their size form smaller batches if their side is larger than this.
MAX_SIDE_OF_FULL_BATCH = 128
DEFAULT_LENGTH = 512  # length of an embedding, if the network determines it
# Per core, for images of 64 by 64 pixels; half the rate of an old machine.
FILES_PER_SECOND, TRAINED_PER_SECOND, EMBEDDED_PER_SECOND = 50.0, 10.0, 60.0
# For the analysis; a third of the rate of a machine of 2023. Up to MAX_ALL_PAIRS
# images, all pairs are compared.
ANALYSED_PER_SECOND, PAIRS_PER_SECOND, MAX_ALL_PAIRS = 200.0, 5e7, 100_000
COPIES = 1.5  # memory of preprocessing relative to a shard's tensors; includes masks
# MB per image of 64 by 64 pixels in a batch, 1.3 times the maximum measured on a CPU.
# Training took 5.5 in float32 and 3.3 in bfloat16 for n_layer_resnet up to layer3 (at
# 256 pixels 4.6 and 2.9 times the area), 2.3 and 1.7 for `amm`; embedding took 0.6.
TRAINED_MB, EMBEDDED_MB = 7.2, 0.8
# Minutes. Longer training continues in the next attempt. Other steps start again, so
# they may request more than a cluster allows.
MAX_TRAINING_MINUTES, MAX_OTHER_MINUTES = 1440, 14 * 1440
MAX_IMAGES_MB = 64_000  # training does not load larger data into memory
# Per image: the joined table of an export, and some columns of the catalogue.
TABLE_MB, CATALOGUE_MB = 1.3e-3, 6e-4


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that a job requests in its first attempt.

    Attributes
    ----------
    mem_mb : int
        Memory in MB (10^6 bytes).
    minutes : int
        Time.
    max_minutes : int
        Upper bound of the time of every attempt.
    """

    mem_mb: int
    minutes: int
    max_minutes: int = MAX_OTHER_MINUTES

    def at(self, attempt: int) -> "Resources":
        """The resources of an attempt, from 1: the first request times its number."""
        minutes = min(self.minutes * attempt, self.max_minutes)
        return Resources(self.mem_mb * attempt, minutes, self.max_minutes)


def resources_for(
    step: str,
    settings: Settings,
    images: int,
    cores: int = 1,
    native_side: int = DEFAULT_NATIVE_SIDE,
) -> Resources:
    """Estimate the resources of a step.

    Parameters
    ----------
    step : str
        ``validate``, ``preprocess``, ``split``, ``train``, ``infer``, ``evaluate``,
        ``gallery``, ``report``, ``analyse``, ``rank`` or ``export``.
    settings : Settings
        All of them.
    images : int
        Number of images that the job works on: those of a shard, or all.
    cores : int
        Number of CPU cores of the job.
    native_side : int
        Side in pixels of images that keep their size, by default 512.

    Returns
    -------
    Resources
    """
    side = settings.preprocess_settings.size
    area = ((native_side if side == "native" else side) / 64) ** 2
    size = 2 if settings.preprocess_settings.dtype == "float16" else 4
    cached = images * 64**2 * area * size / 1e6
    if step in ("validate", "split"):
        return _rounded(BASE_MB + images * 5e-4, images / FILES_PER_SECOND / cores)
    if step == "preprocess":
        return _rounded(BASE_MB + 200 + COPIES * cached, images / FILES_PER_SECOND)
    if step == "train":
        equivalent = _images_in_batch(settings.batch_size, settings, area, min_images=2)
        equivalent *= _with_simulated(settings, images)
        batch = equivalent * TRAINED_MB / settings.training_settings.nodes
        seconds = _samples(settings, images) * area / TRAINED_PER_SECOND / cores
        return _rounded(
            BASE_WITH_TORCH_MB + batch + min(2 * cached, MAX_IMAGES_MB),
            seconds,
            MAX_TRAINING_MINUTES,
        )
    views = 1 if settings.inference_settings.symmetry == "none" else 8
    batch_size = settings.inference_settings.batch_size
    batch = _images_in_batch(batch_size, settings, area, min_images=1) * EMBEDDED_MB
    seconds = views * area / EMBEDDED_PER_SECOND / cores
    if step == "infer":
        return _rounded(BASE_WITH_TORCH_MB + batch + cached, images * seconds)
    if step == "evaluate":
        sampled = min(images, settings.evaluation_settings.images)
        # Each image and its perturbed versions, embedded by two or three networks.
        return _rounded(
            BASE_WITH_TORCH_MB + 2 * batch + 1000 + images * CATALOGUE_MB,
            30 * sampled * seconds,
        )
    if step in ("gallery", "report"):
        # Torch, and parts of the analysis; the number of sheets is bounded.
        return _rounded(
            BASE_WITH_TORCH_MB + images * CATALOGUE_MB, images / FILES_PER_SECOND / 20
        )
    length = settings.byol_settings.representation_size or DEFAULT_LENGTH
    if step == "analyse":
        # The embeddings twice, their principal components, the graph of the map; torch,
        # which reads the pictures.
        pairs = images * min(images, MAX_ALL_PAIRS) / PAIRS_PER_SECOND / cores
        return _rounded(
            BASE_MB + 900 + images * (length * 1e-5 + 4e-3),
            120 + images / ANALYSED_PER_SECOND + pairs,
        )
    # The ranking draws contact sheets with torch; it reads the same as an export.
    base = BASE_WITH_TORCH_MB if step == "rank" else BASE_MB
    return _rounded(
        base + 500 + images * (length * 8e-6 + TABLE_MB),
        images / FILES_PER_SECOND / 4,
    )


def _rounded(
    megabytes: float, seconds: float, max_minutes: int = MAX_OTHER_MINUTES
) -> Resources:
    """Resources rounded up, plus ten minutes for the start and the end of the job."""
    minutes = min(max_minutes, 10 + math.ceil(seconds / 60))
    return Resources(100 * math.ceil(megabytes / 100), minutes, max_minutes)


def _images_in_batch(
    batch_size: int, settings: Settings, area: float, min_images: int
) -> float:
    """Number of images of 64 by 64 pixels with as many pixels as a batch."""
    if settings.preprocess_settings.size != "native":
        return batch_size * area
    largest_full = (MAX_SIDE_OF_FULL_BATCH / 64) ** 2
    return max(batch_size * min(area, largest_full), min_images * area)


def _samples(settings: Settings, images: int) -> float:
    """Number of samples in all training epochs."""
    epochs = settings.epochs or preset_epochs(max(images, 1))
    return epochs * images * _with_simulated(settings, images)


def _with_simulated(settings: Settings, images: int) -> int:
    """Number of images in a batch for each listed image, including simulated ones."""
    return 2 if simulated_images(settings, images) else 1
