"""The last lines of a run: what was made, how good it is, and what to do next."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from astromorph.artefacts.columns import EMBED, NONE, REJECTED, TEST, TRAIN
from astromorph.artefacts.run_files import RunFiles
from astromorph.artefacts.tables import read_csv
from astromorph.cli.steps import STEPS
from astromorph.errors import AstromorphError
from astromorph.settings.sections import Settings
from astromorph.system.logs import printable

WIDTH = len("home page")  # of the longest word before a line
NO_VERDICT = "not part of this run (`evaluation_settings.images` is 0)"
NO_MAP = "not part of this run (`export_settings.map` is false)"
NEXT = (
    "open the home page in a browser; mark images on the map to find others like them"
)
NEXT_IF_NOT_BETTER = (
    "open {page} in a browser: it says what the verdict rests on; then list more "
    "images or change settings, and run the same command again"
)
NEXT_AFTER_TRAINING = (
    "run `astromorph infer` with the same options: it embeds the images and writes the "
    "verdict, the map and the home page"
)


def closing_lines(
    files: RunFiles, settings: Settings, folder: str | Path = ""
) -> list[str]:
    """Five lines about a finished run.

    Parameters
    ----------
    files : RunFiles
        `split` is read, and `evaluation` if it is part of the run.
    settings : Settings
        They determine whether the run has a verdict and a map.
    folder : path
        The folder of the run, if its paths are not relative to that of the user.

    Returns
    -------
    list of str
        Images used and rejected; the verdict; the map; the home page; what to do next.

    Raises
    ------
    AstromorphError
        A file is missing or damaged.
    """
    folder = Path(folder)
    verdict: dict[str, Any] = {"summary": NO_VERDICT, "better": True}
    if STEPS["evaluate"].is_wanted(settings):
        verdict = _read_verdict(files.evaluation)
    has_map = STEPS["export_map"].is_wanted(settings)
    page = folder / files.evaluation_page
    return _lines(
        images=_count_images(files, folder),
        verdict=str(verdict["summary"]),
        map=str(folder / files.map) if has_map else NO_MAP,
        home_page=str(folder / files.home),
        next=NEXT if verdict["better"] else NEXT_IF_NOT_BETTER.format(page=page),
    )


def closing_lines_of_training(files: RunFiles) -> list[str]:
    """Five lines about a finished training without the steps that follow it.

    Parameters
    ----------
    files : RunFiles
        `split` and `history` are read.

    Returns
    -------
    list of str
        Images used and rejected; the training; the model file; the page about the
        listed files; what to do next.

    Raises
    ------
    AstromorphError
        A file is missing or damaged.
    """
    epochs = [*read_csv(files.history, ["epoch", "train_loss"])]
    first, last = (float(row["train_loss"]) for row in (epochs[0], epochs[-1]))
    return _lines(
        images=_count_images(files, Path()),
        training=f"{len(epochs)} epochs, train loss from {first:.3f} to {last:.3f}: "
        f"{files.history_figure}",
        model=str(files.model),
        files=str(files.validation_page),
        next=NEXT_AFTER_TRAINING,
    )


def _read_verdict(evaluation: Path) -> dict[str, Any]:
    try:
        values = json.loads(evaluation.read_text(encoding="utf-8"))
        return {key: values["verdict"][key] for key in ("summary", "better")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AstromorphError(
            f"{evaluation}: this file cannot be read ({error}); run `evaluate` again"
        ) from None


def _lines(**parts: str) -> list[str]:
    return [
        printable(f"{name.replace('_', ' '):{WIDTH}}  {text}")
        for name, text in parts.items()
    ]


def _count_images(files: RunFiles, folder: Path) -> str:
    """How many listed files were used, rejected and left out."""
    subsets: Counter[str] = Counter()
    rejected = 0
    for row in read_csv(files.split, ["subset", "status"]):
        subsets[row["subset"]] += 1
        rejected += row["status"] == REJECTED
    training, test, embedded = subsets[TRAIN], subsets[TEST], subsets[EMBED]
    parts = f"{training} for training, {test} for testing"
    if embedded:
        parts += f", {embedded} only embedded"
    text = f"{training + test + embedded} used ({parts}), {rejected} rejected"
    if left_out := subsets[NONE] - rejected:
        text += f", {left_out} left out"
    if not subsets[NONE]:
        return text
    return f"{text}; {folder / files.validation_page} says why"
