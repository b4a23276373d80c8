"""The experiments of the question: its cases, its answers' claims, rates at three scales."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from jaxmlp import question
from jaxmlp.experiment import Experiment
from jaxmlp.law.transport import transport

MOST_CLAIM_SEEDS = 3  # three times the epochs, or wider networks, take as many times as long
SCALES, RATES = (1.0, 16.0, 255.0), np.geomspace(0.02 / 64, 0.02 * 8, 10)  # of the collapse
COLLAPSE_EPOCHS = 2
Wanted = tuple[str, str, Experiment]  # framework, name, and with its seed


def cases(epochs: int) -> dict[str, Experiment]:
    """The question's cases by name."""
    return {case: Experiment(**question.settings(case), epochs=epochs) for case in question.CASES}


def claims(epochs: int) -> dict[str, Experiment]:
    """What the question's answers say, as experiments."""
    scale = question.SCALE
    scaled_lr = question.settings("scaled-lr")
    changes: dict[str, dict[str, Any]] = {
        "scaled-lr, 3 × the epochs": {**scaled_lr, "epochs": 3 * epochs},
        "baseline, 3 × the epochs": {"epochs": 3 * epochs},
        "baseline, inputs centred": {"preprocessing": "center"},
        "baseline, inputs standardised": {"preprocessing": "standardize"},
        "scaled, inputs centred": {"preprocessing": "center", "input_scale": scale},
        "scaled-lr, inputs centred": {**scaled_lr, "preprocessing": "center"},
        "baseline, 1000 units": {"hidden": (1000,)},
        "baseline, 300-300-300 units": {"hidden": (300, 300, 300)},
        "standardised, 1000-1000 units": {"hidden": (1000, 1000), "preprocessing": "standardize"},
    }
    return {
        name: Experiment(**{"epochs": epochs, **settings}) for name, settings in changes.items()
    }


def collapse() -> dict[str, Experiment]:
    """Learning rates at several input scales, each started as the baseline is (κ = 1)."""
    experiments = {}
    for scale, rate in itertools.product(SCALES, RATES):
        same_start = transport(Experiment(epochs=COLLAPSE_EPOCHS), scale)
        change = rate / question.RATE
        learning_rate = same_start.per_layer("learning_rate")[0] * change
        name = f"rate {rate:.3g} at × {scale:g}"
        experiments[name] = dataclasses.replace(same_start, learning_rate=(learning_rate,))
    return experiments


def seeded(experiment: Experiment, count: int) -> list[Experiment]:
    """The experiment with the seeds 0 to count - 1."""
    return [dataclasses.replace(experiment, seed=seed) for seed in range(count)]


def wanted(
    frameworks: tuple[str, ...], epochs: int, seeds: int, cases_only: bool = False
) -> list[Wanted]:
    """All runs of an answer, in the order in which they are trained.

    Args:
        epochs: of a case.
        seeds: of a case, counted from 0.
        cases_only: neither the claims nor the rates.
    """
    runs = [
        (framework, name, experiment)
        for framework in frameworks
        for name, case in cases(epochs).items()
        for experiment in seeded(case, seeds)
    ]
    if "jax" in frameworks and not cases_only:
        for name, claim in claims(epochs).items():
            each = seeded(claim, min(seeds, MOST_CLAIM_SEEDS))
            runs += [("jax", name, experiment) for experiment in each]
        runs += [("jax", name, experiment) for name, experiment in collapse().items()]
    return runs
