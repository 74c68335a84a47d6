"""The page of the step `evaluate`: plots and tables of the measures of each network."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astromorph.artefacts.run_files import RunFiles
from astromorph.embedding.verdict import PIXELS, TRAINED, UNTRAINED
from astromorph.pages.charts import Plot, make_plot
from astromorph.pages.html import write_page

START = "start"  # the weights that training started from, whatever their name
# The number of a network determines its colour and its mark in all plots.
SERIES = {TRAINED: 0, START: 1, UNTRAINED: 2, PIXELS: 3}
FIRST_REFERENCE = len(SERIES)  # numbers of other networks begin here
PREDICTORS = {
    "knn": "10 nearest neighbours",
    "knn_whitened": "the same, whitened",
}
Networks = Mapping[str, Mapping[str, Any]]


def write_evaluation_page(files: RunFiles, result: Mapping[str, Any]) -> None:
    """Write the page.

    Parameters
    ----------
    files : RunFiles
        `evaluation_page` is written.
    result : mapping
        The contents of `evaluation.json`.
    """
    networks: Networks = result["networks"]
    series = number_series(networks, result.get("references", ()))
    write_page(
        files.evaluation_page,
        "evaluation.html",
        files,
        result=result,
        series=series,
        plots=_make_plots(networks, series),
    )


def number_series(networks: Iterable[str], references: Sequence[str]) -> dict[str, int]:
    """The number of each network in plots; colour and mark are the same in all."""
    numbers = SERIES | {name: FIRST_REFERENCE + k for k, name in enumerate(references)}
    return {name: numbers.get(name, SERIES[START]) for name in networks}


def _make_plots(networks: Networks, series: Mapping[str, int]) -> dict[str, Plot]:
    """The plots by name; those that need labels only if there are any."""
    trained = networks[TRAINED]
    plots = {
        "retrieval": make_plot(
            {
                name: {
                    series[n]: (m["retrieval"][name], None) for n, m in networks.items()
                }
                for name in trained["retrieval"]
            },
            bars=True,
        ),
        "nuisance": make_plot(
            {
                name: {
                    series[n]: (m["nuisance"][name], None) for n, m in networks.items()
                }
                for name in trained["nuisance"]
                if any(m["nuisance"][name] for m in networks.values())
            },
        ),
    }
    if "knn" in trained:
        predictors = PREDICTORS | {"linear": "linear probe"}
        plots["classes"] = make_plot(
            {
                title: {
                    series[n]: (m[key]["mean"], m[key]["std"])
                    for n, m in networks.items()
                }
                for key, title in predictors.items()
            },
            chance=1 / len(trained["classes"]),
        )
    if "regression" in trained:
        predictors = PREDICTORS | {"linear": "ridge regression"}
        plots["numbers"] = make_plot(
            {
                title: {
                    series[n]: (
                        m["regression"][key]["mean"],
                        m["regression"][key]["std"],
                    )
                    for n, m in networks.items()
                }
                for key, title in predictors.items()
            },
            chance=0,
        )
    return plots
