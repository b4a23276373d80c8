"""Fitting and judging the forecasts: random experiments, and how they went beside what was said."""

import math
from typing import Any

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float

from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting.models import FAILS_FROM, Model, first_steps, run_features
from jaxmlp.record import outcomes
from jaxmlp.record.metrics import EpochResult
from jaxmlp.record.reliability import reliability
from jaxmlp.training.run import Run, prepare

CALM_EPOCHS = 2  # what has not diverged by then is counted as stable
EPOCHS = 6  # for what has: some networks take that long to recover
NETWORKS = ((), (100,), (300,), (300,), (300,), (100, 60), (60, 60, 60))
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"momentum": 0.0},
    {"nesterov": True},
    {"optimizer": "adam"},
    {"optimizer": "adamw"},
    {"optimizer": "rmsprop"},
    {"optimizer": "adagrad"},
    {"optimizer": "lion"},
)
MODELS = {  # features; the last is fitted to the experiments that diverge
    "CURVATURE_ALONE": ("sharpness",),
    "DIVERGES": ("sharpness", "passed", "margin", "end"),
    "FAILS": ("late", "end", "alive", "accuracy"),
}
RIDGE = 1e-3  # on the weights of standardised features: keeps separable data from infinity


def random_experiment(family: int, index: int) -> Experiment:
    """One experiment of a family: scales over three decades, inits and rates each per layer."""
    draw = np.random.default_rng([family, index])
    hidden = NETWORKS[draw.integers(len(NETWORKS))]
    chosen = OPTIMIZERS[draw.integers(len(OPTIMIZERS))]
    rate = OPTIMIZER_DEFAULTS[chosen.get("optimizer", "sgd")]["learning_rate"][0]

    def decades(low: float, high: float, size: int | None = None):
        return 10 ** draw.uniform(low, high, size)

    layers = len(hidden) + 1
    return Experiment(
        hidden=hidden,
        bias=bool(draw.integers(4) == 0),
        preprocessing=("unit", "unit", "center", "standardize")[draw.integers(4)],
        batch_size=(250, 250, 100)[draw.integers(3)],
        input_scale=float(decades(-0.5, 2.5)),
        init_scale=tuple(decades(-2, 1, layers).tolist()),
        learning_rate=tuple((rate * decades(-2.5, 0.5, layers)).tolist()),
        weight_decay=(float(decades(-5, -2)),),
        seed=int(draw.integers(1000)),
        epochs=EPOCHS,
        **chosen,
    )


def measure(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """What can be known before, and how the run went."""
    ready = prepare(experiment, dataset)
    sharpness = curvature.sharpness(experiment, ready, curvature.sample(next(ready.order)))
    results: list[EpochResult] = []
    course: dict[str, Any] = {}
    for result in Run(experiment, dataset).epochs():
        results.append(result)
        course = outcomes.course(experiment, results, len(dataset.test_labels), dataset.classes)
        if len(results) >= CALM_EPOCHS and not (course["diverges"] and course["finite"]):
            break  # its course is known
    rehearsed = first_steps(results)
    features = run_features(experiment, sharpness, rehearsed, dataset.classes)
    return {"features": features, "ratio": sharpness.ratio, **course}


def fit(measured: list[dict[str, Any]], names: tuple[str, ...], outcome: str) -> Model:
    """Logistic regression by maximum likelihood, with a little ridge on standardised features."""
    values = np.array([[row["features"][name] for name in names] for row in measured])
    truth = np.array([row[outcome] for row in measured])
    mean, deviation = values.mean(axis=0), values.std(axis=0) + 1e-12
    inputs = np.column_stack([np.ones(len(values)), (values - mean) / deviation])

    def loss(weights):
        logits = inputs @ weights
        likelihood = np.logaddexp(0, np.where(truth, -logits, logits)).mean()
        return likelihood + RIDGE * (weights[1:] ** 2).sum()

    weights = scipy.optimize.minimize(loss, np.zeros(inputs.shape[1]), method="BFGS").x
    slopes = weights[1:] / deviation
    return Model(
        float(weights[0] - slopes @ mean), dict(zip(names, map(float, slopes), strict=True))
    )


def fit_all(measured: list[dict[str, Any]]) -> dict[str, Model]:
    """All models.

    Raises:
        ValueError: too few of the experiments diverged.
    """
    diverging = [row for row in measured if row["diverges"]]
    if len(diverging) < 10:
        raise ValueError(f"only {len(diverging)} experiments diverged; give more --experiments")
    return {
        "CURVATURE_ALONE": fit(measured, MODELS["CURVATURE_ALONE"], "diverges"),
        "DIVERGES": fit(measured, MODELS["DIVERGES"], "diverges"),
        "FAILS": fit(diverging, MODELS["FAILS"], "fails"),
    }


def probabilities(
    measured: list[dict[str, Any]], models: dict[str, Model]
) -> dict[str, tuple[Float[np.ndarray, " experiments"], Bool[np.ndarray, " experiments"]]]:
    """By what was foretold: the probabilities and what came true."""
    said = {
        name: np.array([model.probability(row["features"]) for row in measured])
        for name, model in models.items()
    }
    diverges, fails = (np.array([row[name] for row in measured]) for name in ("diverges", "fails"))
    return {
        "diverges, from curvature alone": (said["CURVATURE_ALONE"], diverges),
        "diverges": (said["DIVERGES"], diverges),
        "fails": (said["DIVERGES"] * said["FAILS"], fails),
    }


def assessment(measured: list[dict[str, Any]], models: dict[str, Model]) -> str:
    """Confusion matrices, balanced accuracies, and how well the probabilities are calibrated."""
    ratios = [row["ratio"] for row in measured]
    ratio = np.array([math.inf if math.isnan(value) else value for value in ratios])
    diverges = np.array([row["diverges"] for row in measured])
    lines = [confusion("diverges, by S / limit > 1", (ratio > 1).astype(float), diverges)]
    for name, (foretold, truth) in probabilities(measured, models).items():
        threshold = FAILS_FROM if name == "fails" else 0.5
        lines.append(confusion(name, foretold, truth, threshold))
        brier = float(np.mean((foretold - truth) ** 2))
        bins = "; ".join(
            f"{mean:.2f} → {share:.2f} ({count})"
            for mean, share, _, count in reliability(foretold, truth)
        )
        lines.append(f"  Brier score {brier:.3f}; foretold → came true (experiments): {bins}")
    return "\n".join(lines)


def confusion(name: str, foretold: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> str:
    """How often what was foretold from a probability on came true, in a sentence."""
    said = foretold >= threshold
    yes, no = int((said & truth).sum()), int((~said & ~truth).sum())
    missed, alarm = int((~said & truth).sum()), int((said & ~truth).sum())
    balanced = (yes / max(yes + missed, 1) + no / max(no + alarm, 1)) / 2
    return (
        f"{name}: {yes} foretold and true, {missed} missed, {alarm} false alarms, {no} rightly "
        f"not; balanced accuracy {balanced:.1%}, accuracy {(yes + no) / len(truth):.1%}"
    )
