"""The verdict: whether training made the embedding better, in one sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from astromorph.embedding.perturbations import GEOMETRIC
from astromorph.embedding.references import PIXELS, TRAINED, UNTRAINED

MIN_DIFFERENCE = 0.02  # smaller differences count as none
ADVICE = (
    "train longer (`epochs`), use stronger augmentations (`augmentation_settings`), or "
    "list more images"
)


def give_verdict(networks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the trained network with its references.

    Parameters
    ----------
    networks : mapping of str to mapping
        The measures of each network, as in `evaluation.json`.

    Returns
    -------
    dict
        `better`, bool: whether the trained network is better than the untrained one;
        `measure`, str: what decides; `difference`, float; `sentence`, str.
    """
    if "knn_whitened" in networks[TRAINED]:
        measure = "knn_whitened"
        description = "in balanced accuracy of nearest neighbours"
        scores = {name: m["knn_whitened"]["mean"] for name, m in networks.items()}
    else:
        measure = "retrieval"
        description = "in retrieval of rotated, flipped and shifted images"
        scores = {
            name: float(np.mean([m["retrieval"][change] for change in GEOMETRIC]))
            for name, m in networks.items()
        }
    difference = scores[TRAINED] - scores[UNTRAINED]
    better = difference > MIN_DIFFERENCE
    others = [f"{name} {s:.3f}" for name, s in scores.items() if name != TRAINED]
    numbers = f"({scores[TRAINED]:.3f}; {', '.join(others)})"
    if better:
        sentence = (
            f"better than the untrained network by {difference:.3f} {description} "
            f"{numbers}"
        )
    elif difference < -MIN_DIFFERENCE:
        sentence = (
            f"WORSE than the untrained network by {-difference:.3f} {description} "
            f"{numbers}: {ADVICE}"
        )
    else:
        sentence = (
            f"no better than the untrained network {description} {numbers}: {ADVICE}"
        )
    return {
        "better": better,
        "measure": measure,
        "difference": difference,
        "sentence": sentence + _compare_with_others(scores, better),
    }


def _compare_with_others(scores: Mapping[str, float], better: bool) -> str:
    """What pixels or the start weights do as well as the trained network, or better."""
    remarks = ""
    if better and scores[PIXELS] > scores[TRAINED] + MIN_DIFFERENCE:
        remarks += "; principal components of the pixels are better still"
    for name in set(scores) - {TRAINED, UNTRAINED, PIXELS}:
        if scores[name] > scores[TRAINED] + MIN_DIFFERENCE:
            remarks += f"; the weights that training began with ({name}) were better"
        elif better and scores[name] >= scores[TRAINED] - MIN_DIFFERENCE:
            remarks += f"; the weights that training began with ({name}) are as good"
    return remarks
