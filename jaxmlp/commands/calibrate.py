"""Fits and checks the forecasts: random experiments, what was foretold, how they really went.

`--family N` generates the experiments from the seed N. With `--fit` the models' weights are fitted
to them and printed; without it the built-in models are judged: confusion matrices, and a figure of
how often what was foretold with a probability came true.
"""

import argparse
import functools
import hashlib
import io
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.optimize

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.device import compilation
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from jaxmlp.forecast import curvature
from jaxmlp.forecast import rehearsal as forecast
from jaxmlp.forecast.models import FAILS_FROM, Model, first_steps, run_features
from jaxmlp.law.words import counted
from jaxmlp.record import metrics, outcomes, sealed, sums
from jaxmlp.record.reliability import reliability
from jaxmlp.train.run import Run, prepare

CALM = 2  # epochs; what has not diverged by then is counted as stable
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
KEY = hashlib.sha256(b"scripts/calibrate.py").hexdigest()  # of the files that it writes
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
    results: list[metrics.EpochResult] = []
    found: dict[str, Any] = {}
    for result in Run(experiment, dataset).epochs():
        results.append(result)
        found = outcomes.course(experiment, results, len(dataset.test_labels), dataset.classes)
        if len(results) >= CALM and not (found["diverges"] and found["finite"]):
            break  # its course is known
    rehearsed = first_steps(results)
    known = run_features(experiment, sharpness, rehearsed, dataset.classes)
    return {"features": known, "ratio": sharpness.ratio, **found}


def rows(family: int, count: int, dataset: Dataset, out: Path) -> list[dict[str, Any]]:
    """The family's measurements; those that `out` already holds are not repeated.

    Raises:
        ValueError: `out` is somebody else's file.
    """
    needed = {feature for names in MODELS.values() for feature in names}
    lines, damaged = sealed.read_lines(out)
    if damaged:
        print(
            f"{out}: {counted(damaged, 'line')} cut off or damaged; what they held is not "
            "believed, but measured again",
            file=sys.stderr,
        )
    have: dict[str, dict[str, Any]] = {}
    for row in lines:
        features = row.get("features")
        known = isinstance(features, dict) and needed <= set(features)
        if known and row.get("data") == dataset.sha256 and {"course", "experiment"} <= set(row):
            have[row["experiment"]] = row
    experiments = [random_experiment(family, index) for index in range(count)]
    steps = Steps(count, done=sum(experiment.sha256 in have for experiment in experiments))
    found = []
    for index, experiment in enumerate(experiments):
        key = experiment.sha256
        if key not in have:
            steps.under_way(f"experiment {index}")
            have[key] = {"experiment": key, "data": dataset.sha256, **measure(experiment, dataset)}
            sealed.append_line(out, have[key], KEY)
            steps.done(f"experiment {index}: {have[key]['course']}")
            if index % 50 == 49:  # every program holds memory maps, and those are few
                jax.clear_caches()
        found.append(have[key])
    return found


def fit(found: list[dict[str, Any]], names: tuple[str, ...], outcome: str) -> Model:
    """Logistic regression by maximum likelihood, with a little ridge on standardised features."""
    values = np.array([[row["features"][name] for name in names] for row in found])
    truth = np.array([row[outcome] for row in found])
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


def fit_all(found: list[dict[str, Any]]) -> dict[str, Model]:
    diverging = [row for row in found if row["diverges"]]
    if len(diverging) < 10:
        raise ValueError(f"only {len(diverging)} experiments diverged; give more --experiments")
    return {
        "CURVATURE_ALONE": fit(found, MODELS["CURVATURE_ALONE"], "diverges"),
        "DIVERGES": fit(found, MODELS["DIVERGES"], "diverges"),
        "FAILS": fit(diverging, MODELS["FAILS"], "fails"),
    }


def probabilities(found: list[dict[str, Any]], models: dict[str, Model]):
    """By what was foretold: the probabilities and what came true."""
    of = {
        name: np.array([model.probability(row["features"]) for row in found])
        for name, model in models.items()
    }
    diverges, fails = (np.array([row[name] for row in found]) for name in ("diverges", "fails"))
    return {
        "diverges, from curvature alone": (of["CURVATURE_ALONE"], diverges),
        "diverges": (of["DIVERGES"], diverges),
        "fails": (of["DIVERGES"] * of["FAILS"], fails),
    }


def judge(found: list[dict[str, Any]], models: dict[str, Model]) -> str:
    """Confusion matrices, balanced accuracies, and how well the probabilities are calibrated."""
    ratio = np.array([math.inf if math.isnan(r["ratio"]) else r["ratio"] for r in found])
    diverges = np.array([row["diverges"] for row in found])
    lines = [confusion("diverges, by S / limit > 1", (ratio > 1).astype(float), diverges)]
    for name, (foretold, truth) in probabilities(found, models).items():
        brier = float(np.mean((foretold - truth) ** 2))
        bins = "; ".join(
            f"{mean:.2f} → {share:.2f} ({count})"
            for mean, share, _, count in reliability(foretold, truth)
        )
        threshold = FAILS_FROM if name == "fails" else 0.5
        lines.append(confusion(name, foretold, truth, threshold))
        lines.append(f"  Brier score {brier:.3f}; foretold → came true (experiments): {bins}")
    return "\n".join(lines)


def confusion(name: str, foretold: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> str:
    said = foretold >= threshold
    yes, no = int((said & truth).sum()), int((~said & ~truth).sum())
    missed, alarm = int((~said & truth).sum()), int((said & ~truth).sum())
    balanced = (yes / max(yes + missed, 1) + no / max(no + alarm, 1)) / 2
    return (
        f"{name}: {yes} foretold and true, {missed} missed, {alarm} false alarms, {no} rightly "
        f"not; balanced accuracy {balanced:.1%}, accuracy {(yes + no) / len(truth):.1%}"
    )


def draw(found: list[dict[str, Any]], models: dict[str, Model]) -> bytes:
    """The reliability figure as a PNG."""
    from matplotlib.figure import Figure

    shown = probabilities(found, models)
    figure = Figure(figsize=(4 * len(shown), 4.3), layout="constrained")
    figure.suptitle(
        f"What was foretold, and how often it came true ({len(found)} experiments; "
        "the numbers: how many)",
        fontsize=12,
    )
    for axes, (name, pair) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for i, (mean, share, (low, high), count) in enumerate(reliability(*pair)):
            axes.plot([mean, mean], [low, high], color="tab:blue")
            axes.plot(mean, share, "o", color="tab:blue")
            left = mean > 0.5  # or the number of the last one would leave the panel
            axes.annotate(
                f"{count}",
                (mean, share),
                (-6 if left else 6, 6 if i % 2 else -11),
                textcoords="offset points",
                fontsize=8,
                ha="right" if left else "left",
            )
        axes.set(
            title=name,
            xlabel="probability foretold",
            ylabel="share that came true, 95 % interval",
            xlim=(-0.05, 1.05),
            ylim=(-0.1, 1.1),
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument("--family", type=int, required=True, help="seed of the experiments")
    parser.add_argument(
        "--experiments",
        type=int,
        default=300,
        metavar="N",
        help="how many, 10 at least (default: 300)",
    )
    parser.add_argument("--fit", action="store_true", help="fit the models and print them")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/calibration"),
        metavar="DIR",
        help="measurements and figure (default: runs/calibration)",
    )
    values = parser.parse_args(arguments)
    if values.family < 0 or values.experiments < 10:
        exit_status.fail(
            "--family must be at least 0 and --experiments at least 10", exit_status.INPUT
        )
    with exit_status.one_line_errors(f"what was measured is kept in {values.out}"):
        run(values)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.commands import run_job as job

    compilation.use_compilation_cache()
    dataset = job.load(values, functools.partial(print, file=sys.stderr))
    atomic.make_directory(values.out)
    name, files = f"{values.family}.png", sums.Sums(values.out, r"\d+\.png", KEY)
    files.check([name])
    found = rows(values.family, values.experiments, dataset, values.out / f"{values.family}.jsonl")
    models = fit_all(found) if values.fit else {kind: getattr(forecast, kind) for kind in MODELS}
    files.put({name: draw(found, models)})
    if values.fit:
        for kind, model in models.items():
            rounded = {feature: round(weight, 3) for feature, weight in model.weights.items()}
            print(f"{kind} = Model({model.intercept:.3f}, {rounded})")
    fails, diverges = (sum(row[name] for row in found) for name in ("fails", "diverges"))
    print(
        f"{len(found)} experiments of family {values.family}, {dataset.source}: "
        f"{diverges} diverge, {fails} of them fail"
    )
    print(judge(found, models))
    print(f"written: {values.out / name}")
