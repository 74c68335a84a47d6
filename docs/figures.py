"""Draw the figures of the guide with the package's own code, without any data.

python docs/figures.py [FOLDER]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astromorph import SkyAugmentation, moving_average_decay, warm_up_cosine
from astromorph.byol.collapse import rank_me
from astromorph.embedding import metrics
from astromorph.fits.pixels import Image
from astromorph.preprocessing.image_to_tensor import prepare
from astromorph.settings.sections import AugmentationSettings, PreprocessSettings
from astromorph.sky.draw import Telescope, draw, draw_morphology
from astromorph.sky.morphologies import KINDS, MORPHOLOGIES

# Okabe & Ito (2008): distinguishable with all kinds of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
HERE = Path(__file__).parent
mpl.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def write_figures(folder: Path) -> None:
    """Write the figures that are missing or older than this file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw_figure in FIGURES.items():
        path = folder / f"{name}.png"
        if path.exists() and path.stat().st_mtime > Path(__file__).stat().st_mtime:
            continue
        temporary = path.with_suffix(".tmp")
        draw_figure().savefig(temporary, format="png", dpi=160, bbox_inches="tight")
        temporary.replace(path)


def method() -> Figure:
    """Draw the networks of BYOL, their inputs and outputs, in the paper's symbols."""
    figure = Figure(figsize=(8, 2.9))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 16), ylim=(0, 5.8))
    axes.axis("off")
    _box(axes, (0.9, 2.9), "image\n$x$", GREY)
    for height, view, name in ((4.4, "$v$", "t"), (1.4, "$v'$", "t'")):
        _arrow(axes, (1.6, 2.9), (3.0, height), f"${name}$")
        _box(axes, (3.7, height), f"view\n{view}", GREY)
    online = (
        "encoder\n$f_\\theta$",
        "projector\n$g_\\theta$",
        "predictor\n$q_\\theta$",
    )
    target = ("encoder\n$f_\\xi$", "projector\n$g_\\xi$")
    for height, colour, parts in ((4.4, BLUE, online), (1.4, ORANGE, target)):
        for k, part in enumerate(parts):
            left = 4.4 + 2.7 * k
            mark = (
                ("", r"$y_\theta$", r"$z_\theta$") if colour == BLUE else ("", "", "")
            )
            _arrow(axes, (left, height), (left + 1.2, height), mark[k])
            _box(axes, (left + 2.0, height), part, colour)
    _arrow(axes, (12.5, 4.4), (14.2, 3.2), r"$q_\theta(z_\theta)$", (0.75, 0.2))
    _arrow(axes, (9.8, 1.4), (14.2, 2.6), r"$\mathrm{sg}(z'_\xi)$", (0.4, -0.5))
    _box(axes, (14.9, 2.9), "loss\n$2-2\\cos$", GREEN)
    _arrow(axes, (6.4, 3.9), (6.4, 1.95))
    rule = r"$\xi\leftarrow\tau\xi+(1-\tau)\theta$"
    axes.text(6.55, 2.9, rule, va="center", color=ORANGE)
    axes.text(7.75, 5.3, "embedding: output of the encoder", ha="center", color=BLUE)
    return figure


def views() -> Figure:
    """Draw simulated objects and augmented views of them."""
    kinds = [kind for kind in KINDS if kind != "none"]
    rng = np.random.default_rng(3)
    telescope = Telescope(2.5, 40.0)
    drawn = [draw(kind, (128, 128), rng, telescope).pixels for kind in kinds]
    bad = np.zeros((128, 128), np.bool_)
    settings = PreprocessSettings(size=64)
    images = torch.from_numpy(
        np.stack([prepare(Image(one[None], bad), settings).pixels for one in drawn])
    )
    augment = SkyAugmentation(
        AugmentationSettings(), generator=torch.Generator().manual_seed(5)
    )
    columns = [images, *(augment(images) for _ in range(5))]
    figure = Figure(figsize=(8, 1.32 * len(kinds)))
    grid = figure.subplots(len(kinds), 6)
    for column, stack in enumerate(columns):
        for row, pixels in enumerate(stack[:, 0].numpy()):
            axes = grid[row, column]
            axes.imshow(pixels, origin="lower", cmap="magma", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for row, kind in enumerate(kinds):
        grid[row, 0].set_ylabel(kind.replace("_", " "))
    grid[0, 0].set_title("image", color=GREY)
    for column in range(1, 6):
        grid[0, column].set_title(f"view {column}", color=BLUE)
    figure.subplots_adjust(wspace=0.04, hspace=0.06)
    return figure


def morphologies() -> Figure:
    """Draw an example of each morphology of the simulated sky."""
    columns = 7
    names = list(MORPHOLOGIES)
    rows = -(-len(names) // columns)
    bad = np.zeros((128, 128), np.bool_)
    settings = PreprocessSettings(size=64)
    figure = Figure(figsize=(8, 1.28 * rows))
    grid = figure.subplots(rows, columns).flat
    for k, (axes, name) in enumerate(zip(grid, names, strict=False)):
        rng = np.random.default_rng(k + 2)
        drawing = draw_morphology(
            name, (128, 128), rng, Telescope(2.5, 150.0), radii=(0.25, 0.35)
        )
        pixels = prepare(Image(drawing.pixels[None], bad), settings).pixels[0]
        axes.imshow(pixels, origin="lower", cmap="magma", vmin=0, vmax=1)
        axes.set_title(name, fontsize=7, pad=2)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 0.97, wspace=0.04, hspace=0.2)
    return figure


def schedules() -> Figure:
    """Plot learning rate and decay of the moving average over a training."""
    steps = 200
    indices = list(range(steps))
    fractions = [k / steps for k in indices]
    figure = Figure(figsize=(8, 2.1))
    left, right = figure.subplots(1, 2)
    left.plot(
        fractions,
        [1e-3 * warm_up_cosine(k, steps) for k in indices],
        color=BLUE,
    )
    left.set(xlabel="fraction of the training", ylabel="learning rate")
    for start, style in ((0.97, ":"), (0.99, "-"), (0.996, "--")):
        decay = [moving_average_decay(k, steps, start) for k in indices]
        right.plot(fractions, decay, style, color=ORANGE, label=f"from {start}")
    right.set(xlabel="fraction of the training", ylabel=r"$\tau$")
    right.legend(frameon=False)
    figure.tight_layout()
    return figure


def evaluation() -> Figure:
    """Plot three embeddings of a data set with two classes, and their measures."""
    rng = np.random.default_rng(0)
    number = 300
    classes = np.repeat([0, 1], number // 2)
    names = [str(one) for one in classes]
    groups = [str(k) for k in range(number)]
    signal = np.where(classes == 0, -1.0, 1.0) * 0.5 + rng.normal(0, 0.22, number)
    flux = rng.normal(0, 6, (number, 3))
    noise = rng.normal(0, 0.25, (number, 6))
    cases = {
        "spread out": np.column_stack([rng.normal(0, 0.5, number), signal, noise]),
        "dominated by flux": np.column_stack([flux[:, 0], signal, flux[:, 1:], noise]),
        "collapsed": 3 + 1e-3 * (signal[:, None] + rng.normal(0, 2, (number, 8))),
    }
    figure = Figure(figsize=(8, 3.3))
    for axes, (title, vectors) in zip(
        figure.subplots(1, 3), cases.items(), strict=True
    ):
        for kind, colour, marker in ((0, BLUE, "o"), (1, ORANGE, "^")):
            members = vectors[classes == kind]
            axes.plot(
                members[:, 0], members[:, 1], marker, color=colour, ms=3, alpha=0.6
            )
        span = 15 if title != "spread out" else 2
        middle = 3 if title == "collapsed" else 0
        axes.set(
            xlim=(middle - span, middle + span), ylim=(middle - span, middle + span)
        )
        axes.set(xticks=[], yticks=[], title=title, aspect="equal")
        plain = metrics.knn_score(vectors, names, groups).mean
        white = metrics.knn_score(metrics.whiten(vectors), names, groups).mean
        caption = (
            f"effective rank {rank_me(vectors):.1f}\n"
            f"uniformity {metrics.uniformity(vectors):.2f}\n"
            f"knn {plain:.2f}, whitened {white:.2f}"
        )
        axes.set_xlabel(caption)
        axes.spines[:].set_visible(True)
    figure.tight_layout()
    return figure


def _box(axes: Axes, middle: tuple[float, float], text: str, colour: str) -> None:
    frame = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": colour, "lw": 1.4}
    axes.text(*middle, text, ha="center", va="center", bbox=frame)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    offset: tuple[float, float] = (0, 0.3),
) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
    x, y = ((a + b) / 2 + c for a, b, c in zip(start, end, offset, strict=True))
    axes.text(x, y, text, ha="center", va="center", color=GREY)


FIGURES: dict[str, Callable[[], Figure]] = {
    "method": method,
    "morphologies": morphologies,
    "views": views,
    "schedules": schedules,
    "evaluation": evaluation,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", type=Path, nargs="?", default=HERE / "figures",
        help="where the PNG files are written, by default docs/figures",
    )  # fmt: skip
    write_figures(parser.parse_args().folder)
