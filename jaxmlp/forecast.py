"""Will a run live? A verdict before its first step, with calibrated probabilities.

Two things are looked at: the sharpness at initialisation (curvature.py), and a rehearsal: the run's
first steps, trained on a copy and thrown away. Two logistic models turn them into probabilities.
Their weights were fitted by `scripts/calibrate.py` on one family of random experiments; it prints
how well they do on another.

    diverges   the loss becomes non-finite or passes 1.5 times its first value + 0.5, or a hidden
               layer ends without an active unit on most test images
    dies       it diverges and does not come back: after six epochs it is non-finite or the loss
               still rises, or the network has lost so many units that its test accuracy is below
               twice that of guessing

The verdict: `fatal` (it dies), `catapult` (it diverges, and lives), `stable`.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmlp import devices
from jaxmlp.curvature import Sharpness, sample, sharpness
from jaxmlp.data import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.preprocessing import Images
from jaxmlp.train import Hyperparameters, State, StepMetrics, batch_step, program, start

REHEARSAL = 100  # steps; measured: 40 know less, and 100 take 0.4 s of the question's network
LAST = 10  # steps of the rehearsal that are averaged at a time
FATAL = 0.3  # verdict; measured on family 1: few die, and at 0.5 too many deaths are missed
GONE = 0.99  # of a layer's units: as good as all
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
DIES = Model(  # given that it diverges
    0.080, {"late": 1.201, "end": 0.991, "alive": -2.543, "accuracy": -7.809}
)


class Forecast(NamedTuple):
    """What is known of a run before its first step."""

    sharpness: Sharpness  # on a sample of 1000 images
    loss: Float[np.ndarray, " steps"]  # of the rehearsal's steps
    dead: Float[np.ndarray, "steps hidden"]  # fraction of each hidden layer's units
    diverges: float  # probabilities
    dies: float

    @property
    def verdict(self) -> str:
        if self.dies >= FATAL:
            return "fatal"
        return "catapult" if self.diverges >= 0.5 else "stable"

    def to_json(self) -> dict[str, Any]:
        """The record's section `stability`."""
        return {
            "sharpness": self.sharpness.value,
            "limit": self.sharpness.limit,
            "ratio": self.sharpness.ratio,
            "images": self.sharpness.images,
            "rehearsed_steps": len(self.loss),
            "diverges": self.diverges,
            "dies": self.dies,
            "verdict": self.verdict,
        }


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def rehearse(
    experiment: Experiment,
    widths: tuple[int, ...],
    state: State,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
    steps_per_epoch: int,
) -> StepMetrics:
    """The metrics of a run's first steps."""
    step = batch_step(experiment, widths, hyper, images, steps_per_epoch)
    return jax.lax.scan(step, state, batches)[1]


def forecast(experiment: Experiment, dataset: Dataset) -> Forecast:
    """The verdict on a run, before its first step.

    Raises:
        ValueError: the run cannot start (`train.start`).
    """
    ready, static = start(experiment, dataset), program(experiment)
    batches = next(ready.order)
    length = min(REHEARSAL, experiment.epochs * ready.steps_per_epoch)
    repeats = -(-length // len(batches))  # of an epoch that is shorter than the rehearsal
    first = np.concatenate([batches, *(next(ready.order) for _ in range(repeats - 1))])[:length]
    found = sharpness(experiment, ready, sample(batches))
    with devices.precision(experiment):
        metrics = rehearse(
            static, ready.widths, ready.state, ready.hyper, first, ready.images,
            ready.steps_per_epoch,
        )  # fmt: skip
        metrics = jax.device_get(metrics)
    loss = np.asarray(metrics.loss, np.float64)
    dead = metrics.dead / np.array(experiment.hidden)
    correct = metrics.correct / experiment.batch_size
    known = features(found.ratio, loss, dead, correct, dataset.classes)
    diverges, dies = DIVERGES.probability(known), DIES.probability(known)
    if not np.isfinite(loss).all():  # it has happened
        diverges = dies = 1.0
    return Forecast(found, loss, dead, diverges, diverges * dies)


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
    end = float(np.median(loss[-LAST:]))
    middle = len(loss) // 2
    halfway = float(np.median(loss[max(middle - LAST // 2, 0) : middle + LAST // 2]))
    margin = math.log(loss.max() / (1.5 * loss[0] + 0.5))
    dead_share = float(dead[-LAST:].mean(axis=0).max(initial=0.0))
    return {
        "sharpness": _log(ratio, 6),
        "passed": float(margin > 0 or dead_share >= GONE),
        "margin": max(-2.0, min(3.0, margin)),
        "end": _log(end / loss[0], 3),
        "late": _log(end / halfway, 3),
        "alive": math.log10(max(1 - dead_share, 1e-3)),
        "accuracy": _log(float(correct[-LAST:].mean()) * classes, 2),
    }


def _log(value: float, limit: float) -> float:
    """The logarithm, between ± limit; the upper one for NaN, as of an overflown Hessian."""
    if math.isnan(value):
        return limit
    return max(-limit, min(limit, math.log(max(value, 1e-300))))
