"""The question's runs: what is kept of one, in a file that is added to as they finish."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.experiment import Experiment
from jaxmlp.law.words import counted
from jaxmlp.record import outcomes, run_record, sealed
from jaxmlp.record.question_experiments import Wanted, seeded

STEPS_KEPT = 200  # of every run, for the figure of the first steps
KEY = hashlib.sha256(b"scripts/reproduce.py").hexdigest()  # of the files that reproduce writes
Run = dict[str, Any]


def summary(
    trainer: Any, classes: int, progress: Callable[[int], None] = lambda epoch: None
) -> Run:
    """Trains, and returns what is kept: outcome, accuracies, loss, dead units, first steps.

    Args:
        trainer: train.run.Run, or the reference's.
        progress: called after each epoch, counted from 1.
    """
    results = []
    for result in trainer.epochs():
        results.append(result)
        progress(len(results))
    rows = [trainer.row(epoch, result) for epoch, result in enumerate(results, 1)]
    steps = trainer.steps(results)
    final = run_record.flatten(results[-1].params).values()
    finite = all(bool(np.isfinite(array).all()) for array in final)
    return {
        "outcome": outcomes.outcome(classes, steps, rows, finite),
        "test_accuracy": [row["test_accuracy"] for row in rows],
        "train_loss": rows[-1]["train_loss"],
        "dead": max(rows[-1]["dead"], default=0.0),
        "loss": [float(value) for value in steps["loss"][:STEPS_KEPT]],
    }


def read(path: Path, warn: Callable[[str], None]) -> dict[str, Run]:
    """The finished runs of a file by their keys: each is a sealed line, nothing else is believed.

    Args:
        warn: is told what was damaged.

    Raises:
        ValueError: the file is somebody else's.
    """
    lines, damaged = sealed.read_lines(path)
    if damaged:
        warn(
            f"{path}: {counted(damaged, 'line')} cut off or damaged; what they held is not "
            "believed, but trained again"
        )
    return {line["key"]: line["run"] for line in lines if {"key", "run"} <= set(line)}


class Runs:
    """Runs by framework, name and experiment; what is not kept is trained, and kept at once.

    Args:
        path: of the file that keeps them.
        kept: what `read` found there.
        data: the data's SHA-256.
        train: a run that is not kept.
    """

    def __init__(
        self,
        path: Path,
        kept: dict[str, Run],
        data: str,
        train: Callable[[str, str, Experiment], Run],
    ) -> None:
        self.path, self.kept, self.data, self.train = path, kept, data, train

    def get(self, framework: str, name: str, experiment: Experiment) -> Run:
        """One run."""
        key = key_of((framework, name, experiment), self.data)
        if key not in self.kept:
            run = self.train(framework, name, experiment)
            sealed.append_line(self.path, {"key": key, "run": run}, KEY)
            self.kept[key] = run
        return self.kept[key]

    def seeds(self, framework: str, name: str, experiment: Experiment, count: int) -> list[Run]:
        """The runs with the seeds 0 to count - 1."""
        return [self.get(framework, name, each) for each in seeded(experiment, count)]


def key_of(wanted: Wanted, data: str) -> str:
    """A run by framework, name, seed, settings and data."""
    framework, name, experiment = wanted
    return f"{framework} {name} {experiment.sha256} {data}"
