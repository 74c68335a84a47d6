"""The encoder alone as a safetensors file, to share it and to start training from."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from astromorph.byol.byol import BYOL
from astromorph.errors import AstromorphError

SUFFIX = ".safetensors"
# The name, in the file, of the linear layer of `byol_settings.representation_size`.
LINEAR = "representation"
INSTALL = "install with: pip install 'astromorph[model-export]'"


def save_encoder(path: str | Path, byol: BYOL, metadata: Mapping[str, str]) -> None:
    """Write the encoder of a network.

    Parameters
    ----------
    path : path
        The file to write.
    byol : BYOL
        The network. The tensors of its encoder get the names that they have in
        ``build_network(...).state_dict()``; those of the linear layer of
        `representation_size`, if there is one, begin with ``representation.``
    metadata : mapping of str to str
        Texts for the header of the file.

    Raises
    ------
    AstromorphError
        The package safetensors is missing.
    """
    save = _safetensors(path).save
    Path(path).write_bytes(save(encoder_state(byol.encoder), dict(metadata)))


def encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Named tensors of the encoder of a BYOL, contiguous and on the CPU."""
    state = encoder.state_dict()
    if isinstance(encoder, nn.Sequential):  # the network and the linear layer
        names = {"0.": "", "1.": f"{LINEAR}."}
        state = {names[key[:2]] + key[2:]: value for key, value in state.items()}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def read_encoder(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, which cannot contain code.

    Parameters
    ----------
    path : path
        A file that `save_encoder` or another program wrote.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    AstromorphError
        The package safetensors is missing.
    Exception
        The file is damaged or of another format; safetensors raises several kinds.
    """
    state: dict[str, Tensor] = _safetensors(path).load_file(str(path))
    return state


def _safetensors(path: str | Path) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise AstromorphError(
            f"{path}: this file needs the package safetensors; {INSTALL}"
        ) from None
    module: ModuleType = safetensors.torch
    return module
