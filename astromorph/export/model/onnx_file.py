"""The encoder as an ONNX file, which programs without PyTorch can run."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
TOLERANCE = 1e-4  # relative to the largest value of the embeddings
Symmetry = Literal["d4", "none"]
Vectors = NDArray[np.float32]
MAX_TRACED = 96  # pixels; more take time and memory
SEED = 0  # of the random images that are compared


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between embeddings of the same images.

    Attributes
    ----------
    absolute : float
        The largest absolute difference of a component.
    largest : float
        The largest absolute value of a component.
    """

    absolute: float
    largest: float

    @property
    def is_small(self) -> bool:
        """Whether it is at most 0.0001 of the largest value; false for NaN."""
        return self.absolute <= TOLERANCE * self.largest


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
    reason = ""
    for sides, any_size in _attempts(size, min_side):
        shape = (2, channels, *sides[0])
        try:
            graph = _trace(encoder, shape, any_size, min_side)
            _clean(graph, metadata)
            path.write_bytes(graph.SerializeToString())
            batches = _random_batches(encoder, channels, sides)
            difference = compare_onnx(path, batches)
            if difference.is_small:
                return any_size, difference.absolute
            reason = (
                f"its embeddings differ by {difference.absolute:.1e} from those of "
                f"PyTorch, whose largest value is {difference.largest:.1e}"
            )
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


def _attempts(
    size: int | Literal["native"], min_side: int
) -> Iterator[tuple[list[tuple[int, int]], bool]]:
    """Heights and widths to trace (the first pair) and to compare: any, then fixed."""
    side = max(min_side, min(MAX_TRACED, 64 if size == "native" else size))
    # With different sides, no operation can assume that they are equal.
    sides = [(side, side + 32), (side, side), (side + 48, side + 16)]
    if size == "native":
        yield sides, True
        return
    yield [*sides, (min(size, side), min(size, side))], True
    yield [(size, size)], False


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


def compare_onnx(path: Path, batches: Iterable[tuple[Vectors, Vectors]]) -> Difference:
    """Compare the embeddings of ONNX Runtime with expected ones.

    Parameters
    ----------
    path : path
        The file.
    batches : iterable of (ndarray, ndarray)
        Prepared images `(N, C, H, W)` and their embeddings `(N, D)`.

    Returns
    -------
    Difference
    """
    pairs = list(batches)
    found = run_onnx(path, [images for images, _ in pairs])
    expected = [vectors for _, vectors in pairs]
    differences = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]
    largest = max(np.abs(vectors).max() for vectors in expected)
    return Difference(float(np.max(differences)), float(largest))
