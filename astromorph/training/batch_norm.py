"""Running statistics of batch norm after few steps.

In evaluation, batch norm takes running means and variances that begin at 0 and 1 and
forget a tenth at each step (Ioffe & Szegedy 2015, alg. 2, with torch's moving average).
After few steps much of the beginning is left, and where the layers before shrink their
input, as those of a deep network with fresh weights do, 1 is so far off that all images
come out alike. Until then the statistics are measured once more: as the mean over
batches of the images as they are embedded (the precise batch norm of Wu & Johnson 2021,
section 3).
"""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from astromorph.byol.byol import BYOL
from astromorph.datasets.tensor_datasets import ImageSet

FEW_STEPS = 100  # of the beginning 0.9^100, some 3e-5, is left after them
MAX_MEASURED, PER_BATCH = 1024, 128  # images


@torch.no_grad()
def remeasure(byol: BYOL, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of all batch norms anew, in place.

    No weight changes and no random number is drawn: only batch norm is in training
    mode meanwhile, dropout is not.

    Parameters
    ----------
    byol : BYOL
        Its encoder, projector, predictor and target. Modes are left as they are.
    batches : iterable of Tensor, each of shape (B, C, H, W), B at least 2
        Images as the network is to embed them, on its device.

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
    with ExitStack() as after:
        after.callback(_back, modes)
        byol.eval()
        for norm in norms:
            after.callback(setattr, norm, "momentum", norm.momentum)
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for images in batches:
            seen = byol.normalised(images)
            byol.predictor(byol.projector(byol.encoder(seen.clone())))
            if byol.use_momentum:
                byol.target(seen.clone())


def remeasure_after_few_steps(
    byol: BYOL, data: ImageSet, batch_size: int, device: torch.device
) -> None:
    """The same with up to 1024 of some images, evenly spread.

    Parameters
    ----------
    byol : BYOL
        On `device`.
    data : CachedDataset, MappedDataset or NativeDataset
        The training images, at least 2.
    batch_size : int
        Images at a time, if more than 128.
    device : torch.device
        Where the network is.
    """
    if not any(isinstance(module, _BatchNorm) for module in byol.encoder.modules()):
        return
    chosen = torch.linspace(0, len(data) - 1, min(len(data), MAX_MEASURED)).long()
    some = data.subset(chosen.tolist())
    parts = some.batches(max(batch_size, PER_BATCH), None, 2)
    remeasure(byol, (some.batch(part).to(device) for part in parts))


def _back(modes: dict[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode
