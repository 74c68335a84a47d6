"""The encoder as an ONNX file, which programs without PyTorch can run."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from astromorph.errors import AstromorphError, is_machine_error
from astromorph.settings.sections import TORCHVISION

LOG = logging.getLogger(__name__)
INPUT, OUTPUT = "images", "embeddings"
# Names of the axes of variable length.
BATCH, HEIGHT, WIDTH = "batch", "height", "width"
TOLERANCE = 1e-4  # of an embedding, relative to its largest value if that is above 1
Symmetry = Literal["d4", "none"]
Vectors = NDArray[np.float32]
SEED = 0  # of the random images that are compared


class PreparedImageEncoder(nn.Module):
    """From prepared images to the embeddings in the table of a run.

    Parameters
    ----------
    encoder : nn.Module
        The encoder of a BYOL, in evaluation mode.
    stacksize : int
        Number of times that a single channel is repeated.
    symmetry : {'d4', 'none'}
        `d4` averages over the 8 flips and right-angle rotations.

    Examples
    --------
    >>> from astromorph import AstroMorphologyModel
    >>> encoder = AstroMorphologyModel(in_channels=3).eval()
    >>> PreparedImageEncoder(encoder, 3, "d4")(torch.rand(2, 1, 32, 40)).shape
    torch.Size([2, 128])
    """

    def __init__(self, encoder: nn.Module, stacksize: int, symmetry: Symmetry) -> None:
        super().__init__()
        self.encoder = encoder
        self.stacksize = stacksize
        self.symmetry = symmetry
        self.train(encoder.training)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings `(N, D)` of images `(N, C, H, W)` from 0 to 1."""
        if self.stacksize > 1:
            images = images.repeat(1, self.stacksize, 1, 1)
        if self.symmetry == "none":
            single: Tensor = self.encoder(images)
            return single
        # Four views have the shape of the image and four the transposed one, so that
        # the graph contains the network twice and not eight times.
        views = torch.cat([images, images.flip(2), images.flip(3), images.flip(2, 3)])
        both = [self.encoder(views), self.encoder(views.transpose(2, 3))]
        means: Tensor = torch.cat(both).reshape(8, images.shape[0], -1).mean(dim=0)
        return means


def min_side(network_name: str) -> int:
    """Smallest height and width, in pixels, of the images that a network accepts."""
    return 64 if network_name in TORCHVISION else 16


def save_onnx(
    path: Path,
    encoder: PreparedImageEncoder,
    channels: int,
    size: int | Literal["native"],
    min_side: int,
    metadata: Mapping[str, str],
) -> tuple[bool, float]:
    """Write an encoder as ONNX, and compare it with PyTorch.

    Parameters
    ----------
    path : path
        The file to write.
    encoder : PreparedImageEncoder
        In evaluation mode, on the CPU.
    channels : int
        Channels of the prepared images.
    size : int or 'native'
        `preprocess_settings.size`.
    min_side : int
        Smallest height and width that the network accepts.
    metadata : mapping of str to str
        Texts for the header of the file.

    Returns
    -------
    any_size : bool
        Whether images of any height and width are allowed, not only of `size`. The
        number of images is always variable.
    difference : float
        The largest absolute difference between the embeddings of random images in ONNX
        Runtime and in PyTorch.

    Raises
    ------
    AstromorphError
        PyTorch cannot write this network as ONNX.
    """
    side = 64 if size == "native" else size
    square, others = (side, side), [(side + 16, side + 48), (side + 32, side)]
    reason = ""
    for any_size in (True, False) if size != "native" else (True,):
        # With different sides, no operation can assume that they are equal.
        shape = (2, channels, side, side + 32 if any_size else side)
        try:
            graph = _trace(encoder, shape, any_size, min_side)
            _clean(graph, metadata)
            path.write_bytes(graph.SerializeToString())
            sides = [square, *others] if any_size else [square]
            batches = _random_batches(encoder, channels, sides)
            return any_size, check_onnx(path, batches, "PyTorch")
        except OSError:
            raise
        except Exception as error:  # torch and ONNX Runtime raise many kinds
            if is_machine_error(error):
                raise
            reason = " ".join(str(error).split())[:300]
            LOG.debug("%s: %s", path, reason)
    raise AstromorphError(
        f"{path.name}: this network cannot be written as ONNX by torch "
        f"{torch.__version__} ({reason}); choose another `network_name`"
    )


@torch.inference_mode()
def _random_batches(
    encoder: PreparedImageEncoder, channels: int, sides: Iterable[tuple[int, int]]
) -> list[tuple[Vectors, Vectors]]:
    """Random images, as one and as three, and their embeddings in PyTorch."""
    generator = torch.Generator().manual_seed(SEED)
    pairs = []
    for number in (1, 3):
        for side in sides:
            images = torch.rand((number, channels, *side), generator=generator)
            pairs.append((images.numpy(), encoder(images).numpy()))
    return pairs


def _trace(
    encoder: nn.Module, shape: tuple[int, ...], any_size: bool, min_side: int
) -> Any:
    """The graph of a network as an ONNX ModelProto."""
    axes = {0: torch.export.Dim(BATCH)}
    if any_size:
        axes |= {2: torch.export.Dim(HEIGHT, min=min_side)}
        axes |= {3: torch.export.Dim(WIDTH, min=min_side)}
    with _quiet():
        program = torch.onnx.export(
            encoder,
            (torch.rand(shape),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            dynamic_shapes=(axes,),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what torch and onnxscript log; errors are raised all the same."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _clean(graph: Any, metadata: Mapping[str, str]) -> None:
    """Replace what torch records, such as paths on this machine, by `metadata`."""
    parts = [graph.graph, *graph.graph.node, *graph.graph.initializer]
    parts += [*graph.graph.input, *graph.graph.output, *graph.graph.value_info]
    for function in graph.functions:
        parts += [function, *function.node, *function.value_info]
    for part in (graph, *parts):
        del part.metadata_props[:]
        part.doc_string = ""
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)


def run_onnx(path: Path, images: Iterable[Vectors]) -> list[Vectors]:
    """Embed batches of prepared images in ONNX Runtime on the CPU.

    Parameters
    ----------
    path : path
        The file.
    images : iterable of ndarray, shape (N, C, H, W), float32
        The batches.

    Returns
    -------
    list of ndarray, shape (N, D), float32
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return [session.run([OUTPUT], {INPUT: batch})[0] for batch in images]


def check_onnx(
    path: Path,
    batches: Iterable[tuple[Vectors, Vectors]],
    source: str,
) -> float:
    """Compare the embeddings of ONNX Runtime with expected ones.

    Parameters
    ----------
    path : path
        The file.
    batches : iterable of (ndarray, ndarray)
        Prepared images `(N, C, H, W)` and their embeddings `(N, D)`.
    source : str
        Where the expected embeddings are from, for the error message.

    Returns
    -------
    float
        The largest absolute difference.

    Raises
    ------
    AstromorphError
        The difference is above 0.0001, or above that fraction of the largest value.
    """
    pairs = list(batches)
    found = run_onnx(path, [images for images, _ in pairs])
    largest = 0.0
    for vectors, (_, expected) in zip(found, pairs, strict=True):
        difference = float(np.abs(vectors - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise AstromorphError(
                f"{path.name}: in ONNX Runtime, the embeddings differ by "
                f"{difference:.1e} from those of {source}, more than {TOLERANCE:g}; "
                "install other versions of torch, onnxscript and onnxruntime"
            )
        largest = max(largest, difference)
    return largest
