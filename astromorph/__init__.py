"""From FITS images without labels to embeddings in which like lies with like.

The public names load on use, so that importing the package costs nothing.
"""

import importlib
import importlib.metadata
from typing import Any

_HOMES = {
    "BYOL": "byol",
    "cosine_loss": "byol",
    "ByolTrainer": "trainer",
    "MinMaxNorm": "networks",
    "CachedDataset": "datasets",
    "MappedDataset": "datasets",
    "NativeDataset": "datasets",
    "FitsFilelistDataset": "fits_dataset",
    "SizeBucketSampler": "batching",
    "collate_images": "batching",
    "split_images": "batching",
    "LARS": "optimise",
    "moving_average_decay": "optimise",
    "warm_up_cosine": "optimise",
    "SkyAugmentation": "augment",
    "NLayerResnet": "networks",
    "AstroMorphologyModel": "networks",
    "PreparedImages": "prepared",
    "prepared_images": "prepared",
    "start_from_sky": "initial_weights",
    "lessons_for": "teacher",
    "load_model": "checkpoint",
    "embeddings_of": "embed",
    "AstromorphError": "errors",
    "Settings": "settings",
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

        told("astromorph.astromorph", "astromorph.cli.main")
        return _command
    raise AttributeError(f"module 'astromorph' has no attribute {name!r}")


def _command(args: list[str] | None = None, prog_name: str = "astromorph") -> None:
    """The command line, as version 0.1 called it."""
    importlib.import_module("astromorph.cli").main(args)


def __dir__() -> list[str]:
    return __all__
