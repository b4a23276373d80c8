"""Is each run of a sweep what it is alone? Runs by themselves, beside those of a sweep."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import grid
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.record import metrics
from jaxmlp.sweeps.blocks import seeded
from jaxmlp.sweeps.sweep import Finished, Sweep
from jaxmlp.training.run import Run

FOLLOWED = 1e-3  # relative difference of losses up to which two runs count as together
NEAR = 0.05  # difference of test accuracies up to which two runs end alike


class Compared(NamedTuple):
    """One run of a sweep beside itself alone."""

    same: bool  # in every bit of every loss
    ends_alike: bool
    first_difference: float  # of the first step's losses, relative
    parting_step: int | None  # the first, from 1, whose losses differ by more than FOLLOWED


def compare(sweep: Sweep, run: Finished) -> Compared:
    """Trains a sweep's run by itself, and compares."""
    experiment = sweep.experiment_of(run)
    alone = list(Run(experiment, sweep.dataset).epochs())
    losses, expected = (
        np.concatenate([epoch.steps.loss for epoch in epochs]).astype(float)
        for epochs in (run.epochs, alone)
    )
    same = losses.tobytes() == expected.tobytes()
    with np.errstate(all="ignore"):  # losses that are not finite compare as false
        differences = np.abs(losses - expected) / np.abs(expected)
    parted = differences > FOLLOWED
    test_size = len(sweep.dataset.test_labels)
    ended = [
        metrics.result_row(experiment, len(epochs), epochs[-1], test_size)
        for epochs in (run.epochs, alone)
    ]
    parting_step = None if same or not parted.any() else int(np.argmax(parted)) + 1
    return Compared(same, near(*ended), differences[0], parting_step)


def compare_rows(
    experiment: Experiment, rows: list[dict[str, Any]], dataset: Dataset
) -> tuple[bool, bool]:
    """Whether a run alone has a table's rows in every bit; whether it ends as they do.

    Args:
        rows: of its epochs, as curves.parquet has them, without the run's number.
    """
    run = Run(experiment, dataset)
    alone = [run.row(epoch, result) for epoch, result in enumerate(run.epochs(), 1)]
    return repr(alone) == repr(rows), near(alone[-1], rows[-1])  # NaN is NaN in a repr


def near(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two last epochs tell the same."""
    finite = [bool(np.isfinite(row["test_loss"])) for row in (a, b)]
    return finite[0] == finite[1] and abs(a["test_accuracy"] - b["test_accuracy"]) < NEAR


def experiments_of(
    description: dict[str, Any], fingerprints: list[str], out: Path
) -> list[Experiment]:
    """The experiments of a sweep's table, out of its sweep.json.

    Args:
        description: sweep.json.
        fingerprints: of the table's experiments.
        out: the sweep's directory, for what is told.

    Raises:
        ValueError: they are not those of the table.
    """
    axes = [
        grid.axis(axis["flag"].removeprefix("--"), axis["values"]) for axis in description["axes"]
    ]
    way, base = description["way"], Experiment.from_json(description["experiment"])
    kind = "zip" if way["zip"] else "random" if way["random"] is not None else "grid"
    settings = grid.experiments(base, axes, kind, way["random"], way["seed"] or 0)
    experiments = [seeded(setting, seed) for setting in settings for seed in description["seeds"]]
    if [experiment.sha256 for experiment in experiments] != fingerprints:
        raise ValueError(
            f"{out}: sweep.json and runs.parquet tell of different runs; another "
            "version of the program may have made them"
        )
    return experiments
