"""Self-supervised embeddings of FITS images: similar objects lie close together.

Public names load when they are first used, so that ``import astromorph`` is fast.
Editors and type checkers read the imports below; the program reads `_MODULES`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from astromorph.system.cache_folders import use_writable_folders

if TYPE_CHECKING:
    from astromorph.byol.augment import SkyAugmentation as SkyAugmentation
    from astromorph.byol.build import load_model as load_model
    from astromorph.byol.byol import BYOL as BYOL
    from astromorph.byol.byol import cosine_loss as cosine_loss
    from astromorph.byol.optimise import LARS as LARS
    from astromorph.byol.optimise import moving_average_decay as moving_average_decay
    from astromorph.byol.optimise import warm_up_cosine as warm_up_cosine
    from astromorph.byol.start_weights import start_from_sky as start_from_sky
    from astromorph.compat import FilelistDataset as FilelistDataset
    from astromorph.datasets.batching import SizeBucketSampler as SizeBucketSampler
    from astromorph.datasets.batching import collate_images as collate_images
    from astromorph.datasets.batching import split_images as split_images
    from astromorph.datasets.fits_images import (
        FitsFilelistDataset as FitsFilelistDataset,
    )
    from astromorph.datasets.fits_images import PreparedImages as PreparedImages
    from astromorph.datasets.fits_images import prepared_images as prepared_images
    from astromorph.datasets.tensor_datasets import CachedDataset as CachedDataset
    from astromorph.datasets.tensor_datasets import MappedDataset as MappedDataset
    from astromorph.datasets.tensor_datasets import NativeDataset as NativeDataset
    from astromorph.embedding.embed import embed_images as embed_images
    from astromorph.errors import AstromorphError as AstromorphError
    from astromorph.models.encoders import AstroMorphologyModel as AstroMorphologyModel
    from astromorph.models.encoders import MinMaxNorm as MinMaxNorm
    from astromorph.models.encoders import NLayerResnet as NLayerResnet
    from astromorph.settings.sections import Settings as Settings
    from astromorph.training.auxiliary_task import (
        auxiliary_task_for as auxiliary_task_for,
    )
    from astromorph.training.trainer import ByolTrainer as ByolTrainer

    __version__: str

use_writable_folders()  # before a module imports numba, matplotlib or astropy

_MODULES = {
    "AstroMorphologyModel": "models.encoders",
    "AstromorphError": "errors",
    "BYOL": "byol.byol",
    "ByolTrainer": "training.trainer",
    "CachedDataset": "datasets.tensor_datasets",
    "FilelistDataset": "compat",
    "FitsFilelistDataset": "datasets.fits_images",
    "LARS": "byol.optimise",
    "MappedDataset": "datasets.tensor_datasets",
    "MinMaxNorm": "models.encoders",
    "NLayerResnet": "models.encoders",
    "NativeDataset": "datasets.tensor_datasets",
    "PreparedImages": "datasets.fits_images",
    "Settings": "settings.sections",
    "SizeBucketSampler": "datasets.batching",
    "SkyAugmentation": "byol.augment",
    "auxiliary_task_for": "training.auxiliary_task",
    "collate_images": "datasets.batching",
    "cosine_loss": "byol.byol",
    "embed_images": "embedding.embed",
    "load_model": "byol.build",
    "moving_average_decay": "byol.optimise",
    "prepared_images": "datasets.fits_images",
    "split_images": "datasets.batching",
    "start_from_sky": "byol.start_weights",
    "warm_up_cosine": "byol.optimise",
}
__all__ = sorted([*_MODULES, "__version__"])

if not TYPE_CHECKING:  # otherwise type checkers accept any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # slow to import

            return version("astromorph")
        if name in _MODULES:
            module = importlib.import_module(f"astromorph.{_MODULES[name]}")
            return getattr(module, name)
        raise AttributeError(f"module 'astromorph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
