"""What a sweep leaves behind; sweep_directory.py puts it there, sweep_files.py reads it.

    sweep.json      what was asked: schema, `finished`, identity (a hash of every run and the data),
                    experiment (the settings of all), axes, seeds, forecast, data, environments
                    (all that had a part in it), timings; and sha256, its own seal (sealed.py)
    runs.parquet    a row per run, columns below
    curves.parquet  a row per run and epoch: run, and the entries of a record's `epochs`
    *.png           figures, made by sweep_figures.py from runs.parquet
    SHA256SUMS      of a finished sweep's files, for `sha256sum -c`: what differs is not believed
    parts/          finished chunks, FIRST-LAST.DIGEST.parquet, until `finished` is true; the digest
                    is of the sweep's identity, the runs' numbers and the content

Files that are not the sweep's are left as they are, wherever they lie; one that has the name of a
file to be written is an error before the first step.

runs.parquet: run (from 0), experiment (sha256), seed, input_scale; init_scale_1, learning_rate_1,
... per layer, as asked; canonical_learning_rate (R), canonical_init_scale_1 (κ1), ...,
canonical_decay_1 (δ1), ... (law/canonical.py; null with a learning rate of 0); sharpness,
sharpness_limit, foretold_diverges, foretold_fails (probabilities) and foretold_course
(forecast/models.py; null without forecasts); outcome, spike, first_nonfinite_step, and course, the
one it took: stable, recovers, fails (outcomes.py); train_loss, train_accuracy, test_loss,
test_accuracy of the last epoch; best_test_accuracy and best_epoch (the first that reached it);
dead_1, ... per hidden layer.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.law.canonical import canonical_section
from jaxmlp.record import outcomes
from jaxmlp.record.metrics import EpochResult, result_row, steps_arrays

SCHEMA = 2
INTEGERS = ("run", "epoch", "best_epoch", "first_nonfinite_step")
EPOCH = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "dead", "silent")
LAST = EPOCH[1:5]  # of the last epoch, in a run's row
TEXTS = ("experiment", "foretold_course", "outcome", "course")


def identity(
    experiments: Iterable[Experiment], seeds: Sequence[int], dataset: Dataset, forecast: bool
) -> str:
    """A fingerprint of every run and the data: equal sweeps, equal fingerprints."""
    digest = hashlib.sha256(dataset.sha256.encode())
    for experiment in experiments:
        digest.update(experiment.sha256.encode())
    digest.update(json.dumps([list(seeds), forecast]).encode())
    return digest.hexdigest()


# ---- rows


def settings(experiment: Experiment) -> dict[str, float]:
    """The traced settings by column, per layer from 1."""
    values = {"input_scale": experiment.input_scale}
    for prefix in ("", "bias_")[: len(experiment.tensors)]:
        for name in PER_TENSOR:
            if getattr(experiment, name) is None:
                continue
            for layer, value in enumerate(experiment.per_layer(prefix + name), 1):
                values[f"{prefix}{name}_{layer}"] = value
    return values


def canonical(experiment: Experiment) -> dict[str, Any]:
    """R, κ and δ by column."""
    form = canonical_section(experiment)
    layers = range(experiment.layers)
    return {
        "canonical_learning_rate": form and form["learning_rate"],
        **{f"canonical_init_scale_{i + 1}": form and form["init_scale"][i] for i in layers},
        **{f"canonical_decay_{i + 1}": form and form["decay"][i] for i in layers},
    }


def run_row(
    run: int,
    experiment: Experiment,
    epochs: list[EpochResult],
    finite: bool,
    foretold: dict[str, Any] | None,
    dataset: Dataset,
) -> dict[str, Any]:
    """A run's row of runs.parquet, and beside it `epochs`, its rows of curves.parquet.

    Args:
        finite: whether every final parameter is.
        foretold: forecast.Forecast.to_json().
    """
    rows = [
        result_row(experiment, number + 1, result, len(dataset.test_labels))
        for number, result in enumerate(epochs)
    ]
    steps = steps_arrays(experiment, [result.steps for result in epochs])
    diagnostics, last = outcomes.diagnostics(steps, rows), rows[-1]
    went = outcomes.course(experiment, epochs, len(dataset.test_labels), dataset.classes)
    best = max(rows, key=lambda row: (row["test_accuracy"], -row["epoch"]))
    foretold = foretold or {}
    return {
        "run": run,
        "experiment": experiment.sha256,
        "seed": experiment.seed,
        **settings(experiment),
        **canonical(experiment),
        "sharpness": foretold.get("sharpness"),
        "sharpness_limit": foretold.get("limit"),
        **{f"foretold_{name}": foretold.get(name) for name in ("diverges", "fails", "course")},
        "outcome": outcomes.outcome(dataset.classes, steps, rows, finite),
        **{name: diagnostics[name] for name in ("spike", "first_nonfinite_step")},
        "course": went["course"],
        **{name: last[name] for name in last if name not in ("epoch", "dead", "silent")},
        "best_test_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        **{f"dead_{i + 1}": dead for i, dead in enumerate(last["dead"])},
        "epochs": rows,
    }


def columns(experiment: Experiment) -> pa.Schema:
    """The columns of `run_row` and their types, which no value changes: `epochs` is the last."""
    layers = range(experiment.layers)
    names = [
        "run",
        "experiment",
        "seed",
        *settings(experiment),
        *canonical(experiment),
        "sharpness",
        "sharpness_limit",
        "foretold_diverges",
        "foretold_fails",
        "foretold_course",
        "outcome",
        "spike",
        "first_nonfinite_step",
        "course",
        *LAST,
        "best_test_accuracy",
        "best_epoch",
        *(f"dead_{i + 1}" for i in layers[:-1]),
    ]
    return _schema([*names, "epochs"])


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, _kind(name)) for name in names])


def _kind(name: str) -> pa.DataType:
    if name == "seed":
        return pa.uint64()
    if name in INTEGERS:
        return pa.int64()
    if name in TEXTS:
        return pa.string()
    if name in ("dead", "silent"):
        return pa.list_(pa.float64())
    if name == "epochs":
        return pa.list_(pa.struct([(key, _kind(key)) for key in EPOCH]))
    return pa.float64()


def tables(rows: Sequence[dict[str, Any]], experiment: Experiment) -> tuple[pa.Table, pa.Table]:
    """runs.parquet and curves.parquet of the runs' rows."""
    kept = columns(experiment)
    runs = pa.Table.from_pylist(
        [{name: row[name] for name in kept.names[:-1]} for row in rows],
        schema=kept.remove(len(kept) - 1),
    )
    curves = [{"run": row["run"], **epoch} for row in rows for epoch in row["epochs"]]
    return runs, pa.Table.from_pylist(curves, schema=_schema(["run", *EPOCH]))
