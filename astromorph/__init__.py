"""From FITS images without labels to embeddings in which like lies with like.

The public names load on use, so that importing the package costs nothing.
"""

import importlib
import importlib.metadata
from typing import Any

_HOMES = {
    "BYOL": "byol.byol",
    "cosine_loss": "byol.byol",
    "ByolTrainer": "training.trainer",
    "MinMaxNorm": "models.encoders",
    "CachedDataset": "datasets.tensor_datasets",
    "MappedDataset": "datasets.tensor_datasets",
    "NativeDataset": "datasets.tensor_datasets",
    "FitsFilelistDataset": "datasets.filelist_dataset",
    "SizeBucketSampler": "datasets.batching",
    "collate_images": "datasets.batching",
    "split_images": "datasets.batching",
    "LARS": "byol.optimise",
    "moving_average_decay": "byol.optimise",
    "warm_up_cosine": "byol.optimise",
    "SkyAugmentation": "byol.augment",
    "NLayerResnet": "models.encoders",
    "AstroMorphologyModel": "models.encoders",
    "PreparedImages": "datasets.prepared_images",
    "prepared_images": "datasets.prepared_images",
    "start_from_sky": "byol.start_weights",
    "auxiliary_task_for": "training.auxiliary_task",
    "load_model": "byol.build",
    "embed_images": "embedding.embed",
    "AstromorphError": "errors",
    "Settings": "settings.sections",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("astromorph")
    if name in _HOMES:
        module = importlib.import_module(f"astromorph.{_HOMES[name]}")
        return getattr(module, name)
    if name == "astromorph":
        from astromorph.moved import told

        told("astromorph.astromorph", "astromorph.cli.main.main")
        return _command
    raise AttributeError(f"module 'astromorph' has no attribute {name!r}")


def _command(args: list[str] | None = None, prog_name: str = "astromorph") -> None:
    """The command line, as version 0.1 called it."""
    importlib.import_module("astromorph.cli.main").main(args)


def __dir__() -> list[str]:
    return __all__
