"""The calibrated models: from the first steps to the course of a run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmlp.experiment import Experiment
from jaxmlp.law import words
from jaxmlp.record.metrics import EpochResult, StepMetrics
from jaxmlp.record.outcomes import FAILS_FROM

REHEARSAL = 100  # steps; measured: 40 know less, and 100 take 0.4 s of the question's network
STEPS_AVERAGED = 10  # steps of the rehearsal that are averaged at a time
ALMOST_ALL = 0.99  # of a layer's units: as good as all
HUGE = 1e30  # stands for a loss that is not finite


class Model(NamedTuple):
    """A logistic model: P = 1 / (1 + exp(-(intercept + weights · features)))."""

    intercept: float
    weights: dict[str, float]

    def probability(self, features: dict[str, float]) -> float:
        logit = self.intercept + sum(w * features[name] for name, w in self.weights.items())
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))


# Fitted to 400 random experiments on CIFAR-10 by
# scripts/calibrate.py --family 1 --experiments 400 --fit
CURVATURE_ALONE = Model(-0.982, {"sharpness": 0.785})  # for comparison: no rehearsal
DIVERGES = Model(-3.877, {"sharpness": 0.187, "passed": 6.647, "margin": 1.045, "end": 0.161})
FAILS = Model(  # given that it diverges
    0.080, {"late": 1.201, "end": 0.991, "alive": -2.543, "accuracy": -7.809}
)


class Sharpness(NamedTuple):
    """Dimensionless; above `limit` the first steps overshoot along the eigenvector."""

    value: float  # NaN where the Hessian is not finite or no eigenvalue was found
    limit: float
    images: int  # of the sample

    @property
    def ratio(self) -> float:
        return self.value / self.limit


class Forecast(NamedTuple):
    """What is known of a run before its first step."""

    sharpness: Sharpness  # on a sample of 1000 images
    loss: Float[np.ndarray, " steps"]  # of the rehearsal's steps
    dead: Float[np.ndarray, "steps hidden"]  # fraction of each hidden layer's units
    diverges: float  # probabilities
    fails: float

    @property
    def course(self) -> str:
        if self.fails >= FAILS_FROM:
            return "fails"
        return "recovers" if self.diverges >= 0.5 else "stable"

    def __str__(self) -> str:
        """The course, its probability, and the curvature at the start, in words."""
        return words.forecast(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The record's section `forecast`."""
        return {
            "sharpness": self.sharpness.value,
            "limit": self.sharpness.limit,
            "ratio": self.sharpness.ratio,
            "images": self.sharpness.images,
            "rehearsed_steps": len(self.loss),
            "diverges": self.diverges,
            "fails": self.fails,
            "course": self.course,
        }


def judge(
    experiment: Experiment, found: Sharpness, rehearsed: StepMetrics, classes: int
) -> Forecast:
    """The forecast from the sharpness at the start and the metrics of the first REHEARSAL steps."""
    features = run_features(experiment, found, rehearsed, classes)
    diverges, fails = DIVERGES.probability(features), FAILS.probability(features)
    loss = np.asarray(rehearsed.loss, np.float64)
    if not np.isfinite(loss).all():  # it has happened
        diverges = fails = 1.0
    return Forecast(found, loss, _shares(experiment, rehearsed), diverges, diverges * fails)


def first_steps(results: Sequence[EpochResult]) -> StepMetrics:
    """A run's own rehearsal, out of its epochs."""
    parts: Any = zip(*(result.steps for result in results), strict=True)
    return StepMetrics(*(np.concatenate(part)[:REHEARSAL] for part in parts))  # pyright: ignore


def run_features(
    experiment: Experiment, found: Sharpness, rehearsed: StepMetrics, classes: int
) -> dict[str, float]:
    """`features` of a run."""
    loss = np.asarray(rehearsed.loss, np.float64)
    correct = np.asarray(rehearsed.correct) / experiment.batch_size
    return features(found.ratio, loss, _shares(experiment, rehearsed), correct, classes)


def _shares(experiment: Experiment, rehearsed: StepMetrics) -> Float[np.ndarray, "steps hidden"]:
    return np.asarray(rehearsed.dead) / np.array(experiment.hidden)


def features(
    ratio: float,
    loss: Float[np.ndarray, " steps"],
    dead: Float[np.ndarray, "steps hidden"],
    correct: Float[np.ndarray, " steps"],
    classes: int,
) -> dict[str, float]:
    """What the logistic models look at; logarithms, each kept within the range that was seen.

    Args:
        ratio: sharpness over its limit.
        correct: fraction of each batch, before the step.
    """
    loss = np.where(np.isfinite(loss), np.clip(loss, 1 / HUGE, HUGE), HUGE)
    end = float(np.median(loss[-STEPS_AVERAGED:]))
    middle = len(loss) // 2
    halfway = float(
        np.median(loss[max(middle - STEPS_AVERAGED // 2, 0) : middle + STEPS_AVERAGED // 2])
    )
    margin = math.log(loss.max() / (1.5 * loss[0] + 0.5))
    dead_share = float(dead[-STEPS_AVERAGED:].mean(axis=0).max(initial=0.0))
    return {
        "sharpness": _log(ratio, 6),
        "passed": float(margin > 0 or dead_share >= ALMOST_ALL),
        "margin": max(-2.0, min(3.0, margin)),
        "end": _log(end / loss[0], 3),
        "late": _log(end / halfway, 3),
        "alive": math.log10(max(1 - dead_share, 1e-3)),
        "accuracy": _log(float(correct[-STEPS_AVERAGED:].mean()) * classes, 2),
    }


def _log(value: float, limit: float) -> float:
    """The logarithm, between ± limit; the upper one for NaN, as of an overflown Hessian."""
    if math.isnan(value):
        return limit
    return max(-limit, min(limit, math.log(max(value, 1e-300))))
