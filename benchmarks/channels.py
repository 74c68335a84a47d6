"""Frozen networks on images with three channels: joint or separate channels.

    python benchmarks/channels.py FOLDER [--images 600]

FOLDER has FITS images with one channel, whose shapes are used. Two sets of labelled
images are made from them: shapes in three colours, and alerts (an image, a template and
their difference) that contain a transient or an artefact. Balanced accuracies of
nearest neighbours, whitened nearest neighbours and a linear probe are printed for
networks with random weights and with the start weights `sky`, without training.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift, zoom
from torch import Tensor, nn

from astromorph import NLayerResnet, start_from_sky
from astromorph.embedding.metrics import knn_score, linear_score, whiten
from astromorph.fits.image import read_image
from astromorph.fits.pixels import Image
from astromorph.models.encoders import SeparateChannels
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.settings.sections import DataSettings, PreprocessSettings

SIDE, BATCH_SIZE = 63, 128
COLOURS = {"red": (1.0, 0.8, 0.5), "blue": (0.5, 0.8, 1.0), "gray": (0.9, 0.9, 0.9)}
Pixels = NDArray[np.float64]
Labelled = tuple[list[Pixels], list[str]]


def read_shapes(folder: Path, number: int, rng: np.random.Generator) -> list[Pixels]:
    """Images of unit maximum and background 0."""
    paths = sorted(p for p in folder.rglob("*.fits*") if p.is_file())
    rng.shuffle(paths)
    shapes = []
    for path in paths[:number]:
        pixels = read_image((path,), DataSettings())[1].pixels[0].astype(np.float64)
        pixels -= np.median(pixels)
        height, width = pixels.shape
        pixels = zoom(pixels, (SIDE / height, SIDE / width), order=1)
        shapes.append(pixels / max(float(pixels.max()), 1e-30))
    return shapes


def point(fwhm: float, centre: NDArray[np.float64]) -> Pixels:
    """A Gaussian of unit maximum."""
    y, x = np.mgrid[:SIDE, :SIDE]
    squared = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    return np.asarray(np.exp(-4 * np.log(2) * squared / fwhm**2))


def coloured(shapes: list[Pixels], number: int, rng: np.random.Generator) -> Labelled:
    """The same shapes in three colours."""
    images, labels = [], []
    for _ in range(number):
        shape = gaussian_filter(
            shapes[rng.integers(len(shapes))], rng.uniform(0.5, 1.5)
        )
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        peaks = rng.uniform(15, 60) * np.array(COLOURS[colour])
        peaks *= rng.uniform(0.85, 1.15, 3)
        noise = rng.normal(size=(3, SIDE, SIDE))
        images.append(peaks[:, None, None] * shape + noise)
        labels.append(colour)
    return images, labels


def alerts(shapes: list[Pixels], number: int, rng: np.random.Generator) -> Labelled:
    """New image, template and difference, with a transient or an artefact."""
    images, labels = [], []
    for _ in range(number):
        fwhm, flux = rng.uniform(2, 4), rng.uniform(8, 40)
        host = gaussian_filter(shapes[rng.integers(len(shapes))], 1)
        template = host * rng.uniform(0, 60)
        for _ in range(rng.integers(0, 6)):
            star = point(fwhm, rng.uniform(0, SIDE, 2))
            template = template + rng.uniform(5, 80) * star
        centre = SIDE / 2 + rng.normal(0, 0.7, 2)
        star = flux * point(fwhm, centre)
        kind = rng.choice(["transient"] * 3 + ["shifted star", "cosmic ray", "seeing"])
        new = template.copy()
        if kind == "transient":
            new = new + star
        elif kind == "shifted star":
            new = new + shift(4 * star, rng.normal(0, 0.8, 2), order=1)
            template = template + 4 * star
        elif kind == "cosmic ray":
            angle, length = rng.uniform(0, np.pi), rng.integers(1, 7)
            for step in np.linspace(0, length, 2 * length + 1):
                y, x = centre + step * np.array([np.sin(angle), np.cos(angle)])
                new[int(y), int(x)] += 2 * flux
        else:
            new = new + 4 * flux * point(1.25 * fwhm, centre)
            template = template + 6 * star
        new = new + rng.normal(0, 1, new.shape)
        template = template + rng.normal(0, 0.5, template.shape)
        images.append(np.stack([new, template, new - template]))
        labels.append("transient" if kind == "transient" else "artefact")
    return images, labels


def prepared(images: list[Pixels]) -> Tensor:
    """Images as the workflow prepares them, `(N, 3, 64, 64)`."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    rules = PreprocessSettings()
    return torch.from_numpy(
        np.stack([prepare(Image(pixels, mask), rules).pixels for pixels in images])
    )


def orientations(images: Tensor) -> Iterator[Tensor]:
    for turns in range(4):
        turned = images.rot90(turns, (2, 3))
        yield turned
        yield turned.flip(3)


@torch.no_grad()
def embed(network: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Features, averaged over eight orientations."""
    network.eval()
    features = [
        torch.cat([network(batch) for batch in torch.split(turned, BATCH_SIZE)])
        for turned in orientations(images)
    ]
    return np.asarray(torch.stack(features).mean(0), np.float64)


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Joint and separate channels, with random weights and with start weights."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "joint": lambda: NLayerResnet(3, "layer3"),
        "separate": lambda: SeparateChannels(NLayerResnet(1, "layer3"), 3),
    }
    for name, make in makers.items():
        torch.manual_seed(0)
        network = make()
        yield f"untrained, {name}", network
        start_from_sky(network.network if name == "separate" else network)  # type: ignore[arg-type]
        yield f"sky, {name}", network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="FITS images with one channel")
    parser.add_argument("--images", type=int, default=600, help="number for each set")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    shapes = read_shapes(options.folder, 300, rng)
    for title, make in {"coloured": coloured, "alerts": alerts}.items():
        images, labels = make(shapes, options.images, rng)
        tensor, groups = prepared(images), [str(k) for k in range(len(labels))]
        print(f"{title}: {len(labels)} images", flush=True)
        for name, network in networks():
            vectors = embed(network, tensor)
            scores = [
                knn_score(vectors, labels, groups).mean,
                knn_score(whiten(vectors), labels, groups).mean,
                linear_score(vectors, labels, groups).mean,
            ]
            print(f"  {name:20s}", *(f"{score:.3f}" for score in scores), flush=True)


if __name__ == "__main__":
    main()
