"""Running statistics of batch norm after few steps.

In evaluation mode, batch norm uses running means and variances that start at 0 and 1
and forget a tenth at each step (Ioffe & Szegedy 2015, alg. 2, with torch's moving
average). After few steps, the initial values still contribute much. If the preceding
layers shrink their input, as in a deep network with random weights, a variance of 1 is
so wrong that all images get the same embedding. In the first steps, the statistics are
therefore measured again, as the mean over batches of images without augmentation (the
precise batch norm of Wu & Johnson 2021, section 3).
"""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from astromorph.byol.byol import BYOL
from astromorph.models.encoders import explaining_channels
from astromorph.training.batches import TrainingBatches

FEW_STEPS = 100  # the weight of the initial values is then 0.9^100, about 3e-5
MAX_MEASURED, PER_BATCH = 1024, 128  # images


@torch.no_grad()
def remeasure(byol: BYOL, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of all batch norm layers again, in place.

    Weights do not change and no random number is drawn: only batch norm is put into
    training mode, dropout is not.

    Parameters
    ----------
    byol : BYOL
        Its encoder, projector, predictor and target are measured; the modes of all
        modules are restored.
    batches : iterable of Tensor, each of shape (B, C, H, W), B at least 2
        Images without augmentation, on the device of the network.

    Examples
    --------
    >>> import torch
    >>> from astromorph import BYOL, AstroMorphologyModel
    >>> byol = BYOL(AstroMorphologyModel(1))
    >>> remeasure(byol, torch.rand(8, 1, 32, 32).split(4))
    >>> int(byol.encoder.body[0][1].num_batches_tracked)
    2
    """
    norms = [m for m in byol.modules() if isinstance(m, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    modes = {module: module.training for module in byol.modules()}
    with ExitStack() as restoring:
        restoring.callback(_restore_modes, modes)
        byol.eval()
        for norm in norms:
            restoring.callback(setattr, norm, "momentum", norm.momentum)
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for images in batches:
            normalized = byol.normalize(images)
            byol.predictor(byol.projector(byol.encoder(normalized.clone())))
            if byol.use_momentum:
                byol.target(normalized.clone())


def remeasure_after_few_steps(byol: BYOL, batches: TrainingBatches, step: int) -> None:
    """Measure the running statistics again if fewer than 100 steps were trained.

    Parameters
    ----------
    byol : BYOL
        Measured with up to 1024 evenly spaced images.
    batches : TrainingBatches
        The training images.
    step : int
        Steps so far.
    """
    modules = byol.encoder.modules()
    if step >= FEW_STEPS or not any(isinstance(m, _BatchNorm) for m in modules):
        return
    images = batches.images
    number = min(len(images), MAX_MEASURED)
    chosen = torch.linspace(0, len(images) - 1, number).long()
    sample = images.subset(chosen.tolist())
    parts = sample.batches(max(batches.batch_size, PER_BATCH), None, 2)
    with explaining_channels(byol.encoder, images.channels):
        remeasure(byol, (sample.batch(part).to(batches.device) for part in parts))


def _restore_modes(modes: dict[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode
