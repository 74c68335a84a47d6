"""The model card: what a model is, how it was trained, and how good it is.

The headings are those of the model cards of Hugging Face (Mitchell et al. 2019,
arXiv:1810.03993).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from astromorph.artefacts.model_file import ModelFile
from astromorph.embedding.evaluate import MAX_PERTURBED
from astromorph.export.model.onnx_file import min_side
from astromorph.preprocessing.preparation import Preparation
from astromorph.settings.presets import (
    RANDOM,
    SKY,
    TORCHVISION,
    preset_epochs,
    simulated_images,
    start_weights_source,
)
from astromorph.settings.sections import PreprocessSettings
from astromorph.settings.steps import TrainStepSettings
from astromorph.system.logs import printable
from astromorph.training.train import RANDOM_START_RATE, START_WEIGHTS_RATE

MARKDOWN = r"\`*_{}[]<>#|~&"  # characters that have a meaning in running text
TEMPLATE, PROGRAM = "card.md", "embed_with_onnx.txt"
FOLD_SCORES = (
    ("knn", "10 nearest neighbours"),
    ("knn_whitened", "10 nearest neighbours, whitened"),
    ("linear", "linear model"),
)
PROPERTIES = (
    ("effective_rank", "effective rank (1: collapsed)"),
    ("spread", "spread (0: collapsed, 1: uniform)"),
    ("uniformity", "uniformity (0: collapsed, about -4: uniform)"),
)
SIGMAS = 1.959964  # of a normal distribution, for an interval of 95 %


@dataclass(frozen=True, slots=True)
class ExportedEncoder:
    """What the card says about the files of the encoder.

    Attributes
    ----------
    parameters, length : int
        Number of its parameters, and length of an embedding.
    symmetry : str
        `d4` or `none`: what the ONNX file averages over.
    any_size : bool
        Whether it accepts images of any height and width.
    difference : float
        Largest difference of its embeddings from those of PyTorch.
    run_difference : float or None
        Largest difference from the embeddings of a run; None if there are none.
    versions : dict of str to str
        Versions of the packages that wrote the files.
    """

    parameters: int
    length: int
    symmetry: str
    any_size: bool
    difference: float
    run_difference: float | None
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a results folder says about the training of a model.

    Attributes
    ----------
    training_images, test_images : int or None
        Number of images; None if they are not known.
    file_list_digest : str
        Digest of the file list; empty if it is not known.
    losses : tuple of (str, str)
        Names and values of the losses after the last epoch.
    evaluation : dict or None
        The contents of `evaluation.json`.
    """

    training_images: int | None = None
    test_images: int | None = None
    file_list_digest: str = ""
    losses: tuple[tuple[str, str], ...] = ()
    evaluation: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A row of the table of measures: its title, and a cell for each network."""

    title: str
    cells: tuple[str, ...]


def render_card(
    model: ModelFile,
    training: TrainStepSettings,
    preparation: Preparation,
    encoder: ExportedEncoder,
    run: TrainingRun,
) -> str:
    """The card as Markdown; text from headers and lists is escaped.

    Parameters
    ----------
    model : ModelFile
        The model file.
    training : TrainStepSettings
        The settings of the training, without names of folders.
    preparation : Preparation
        How images are prepared.
    encoder : ExportedEncoder
        The files of the encoder.
    run : TrainingRun
        What else is known; ``TrainingRun()`` if there is only a model file.

    Returns
    -------
    str
    """
    start = start_weights_source(training)
    values = preparation.to_dict()
    number = run.training_images
    epochs = training.epochs
    if epochs is None and number is not None:
        epochs = preset_epochs(number)
    rate = RANDOM_START_RATE if start == RANDOM else START_WEIGHTS_RATE
    rules = preparation.settings.preprocess_settings
    smallest = min_side(training.network_name)
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            model=model,
            training=training,
            network=training.network_name,
            channels=values["channels"],
            data=preparation.settings.data_settings,
            rules=rules,
            lost=" and ".join(_lost_properties(rules)),
            preparation_json=_json_block(values["settings"]),
            training_json=_json_block(training.to_dict()),
            start=start,
            start_is_own_file=start not in (RANDOM, SKY, TORCHVISION),
            program=Markup(program()),
            min_side=smallest if rules.size == "native" else min(smallest, rules.size),
            epochs=epochs,
            simulated=None if number is None else simulated_images(training, number),
            learning_rate=rate
            if training.learning_rate is None
            else training.learning_rate,
            encoder=encoder,
            run=run,
            **_evaluation_values(run.evaluation),
        )
    )


def program() -> str:
    """The program of the card that embeds FITS images with the exported files."""
    folder = resources.files("astromorph.export.model")
    return (folder / PROGRAM).read_text(encoding="utf-8").rstrip()


def wilson_interval(fraction: float, number: int) -> tuple[float, float]:
    """The 95 % interval of a fraction that was measured with a number of trials.

    Wilson (1927), with the quantile 1.96 of the normal distribution.

    Parameters
    ----------
    fraction : float
        From 0 to 1.
    number : int
        Number of trials, at least 1.

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> [round(limit, 3) for limit in wilson_interval(0.5, 10)]
    [0.237, 0.763]
    """
    square = SIGMAS**2 / number
    centre = (fraction + square / 2) / (1 + square)
    spread = fraction * (1 - fraction) / number + square / (4 * number)
    half = SIGMAS * math.sqrt(spread) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def _lost_properties(rules: PreprocessSettings) -> Iterator[str]:
    """What an image no longer has when it is prepared."""
    if rules.stretch_scope == "image":
        yield "its absolute brightness"
    if rules.crop == "source":
        yield "the angular size of the object"
    if rules.size != "native":
        yield "its size in pixels"


def _evaluation_values(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values of the template about the evaluation."""
    if evaluation is None:
        return {
            "measures": [],
            "columns": [],
            "evaluated": 0,
            "label": "",
            "verdict": "",
        }
    networks = evaluation["networks"]
    trained = networks["trained"]
    has_scores = "knn" in trained or "regression" in trained
    return {
        "measures": list(measure_rows(networks, evaluation["images"])),
        "columns": list(networks),
        "evaluated": evaluation["images"],
        "label": evaluation["label"]["column"] if has_scores else "",
        "verdict": evaluation["verdict"]["sentence"],
    }


def measure_rows(
    networks: Mapping[str, Mapping[str, Any]], images: int
) -> Iterator[MeasureRow]:
    """The measures of an evaluation with their uncertainties.

    Parameters
    ----------
    networks : mapping of str to mapping
        The measures of each network, as in `evaluation.json`.
    images : int
        Number of evaluated images.

    Yields
    ------
    MeasureRow
    """

    def row(title: str, cells: Sequence[str]) -> MeasureRow:
        return MeasureRow(title, tuple(cells))

    each = list(networks.values())
    trained = networks["trained"]
    for key, title in FOLD_SCORES:
        if key in trained:
            cells = [_score(m[key], "mean", "std") for m in each]
            yield row(f"balanced accuracy, {title}", cells)
        if key in trained.get("regression", {}):
            scores = [m["regression"][key] for m in each]
            cells = [_score(s, "mean", "std") for s in scores]
            yield row(f"rank correlation, {title}", cells)
            cells = [_score(s, "r2_mean", "r2_std") for s in scores]
            yield row(f"R², {title}", cells)
    number = min(images, MAX_PERTURBED)
    for name in trained["retrieval"]:
        cells = [_fraction(m["retrieval"][name], number) for m in each]
        yield row(f"retrieval of {name} images ({number})", cells)
    for key, title in PROPERTIES:
        yield row(title, [f"{m[key]:.2f}" for m in each])
    for name in trained["nuisance"]:
        cells = [f"{m['nuisance'][name]:.2f}" for m in each]
        yield row(f"largest correlation with {name}", cells)


def _score(score: Mapping[str, float], mean: str, std: str) -> str:
    return f"{score[mean]:.3f} ± {score[std]:.3f}"


def _fraction(fraction: float, number: int) -> str:
    low, high = wilson_interval(fraction, number)
    return f"{fraction:.2f} ({low:.2f} to {high:.2f})"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("astromorph.export.model", "."),
        autoescape=False,
        finalize=_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    environment.filters["json_text"] = json.dumps
    return environment


def _escape(value: Any) -> Any:
    """Escape text for Markdown; `Markup` is inserted as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(f"\\{c}" if c in MARKDOWN else c for c in printable(value))


def _code(text: str) -> Markup:
    """Text as it is, in a fixed-width font."""
    return Markup("`" + printable(text).replace("`", "'") + "`")


def _json_block(values: Any) -> Markup:
    """JSON that cannot end a block of code."""
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
    return Markup(text.replace("`", "\\u0060"))
