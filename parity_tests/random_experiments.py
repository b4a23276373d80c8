"""Random experiments through both commands' runs: every step, every epoch, every tensor.

float64, so that all differences but mistakes are tiny. A run is compared for as long as torch's own
run stays within 1e-10 when its initial weights move by one unit in the last place: floats within
1e-9, counts exactly.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from jaxmlp.commands import torch_side
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.record import outcomes
from jaxmlp.training.run import Run
from parity_tests import drawing, more_paths, sides
from parity_tests.comparison import Comparison, bitwise, compare
from parity_tests.drawing import Drawn

LEVEL = "random"
FLOAT64, STABLE = 1e-9, 1e-10  # relative; see levels/trajectories.py
TWINS = 2  # torch runs whose initial weights differ by one unit in the last place
COUNTS = ("epoch", "train_accuracy", "test_accuracy", "dead", "silent", "correct")
ENOUGH = 10  # steps of every run that are compared at least, where there are as many
PROGRAMS = 50  # experiments after which compiled programs are forgotten: they fill the memory maps
Arrays = dict[str, np.ndarray]


class Course(NamedTuple):
    """All that a run hands over."""

    steps: Arrays  # leading axis of steps: loss, grad_norm, dead (as in steps.npz), correct
    epochs: list[Arrays]  # the record's row, and every parameter after the epoch
    outcome: dict[str, Any]  # the record's, and its diagnostics


class Checked(NamedTuple):
    """A random experiment, compared."""

    drawn: Drawn
    steps: int  # of the run
    stable: int  # of these, compared
    comparisons: list[Comparison]

    @property
    def failures(self) -> list[Comparison]:
        return [one for one in self.comparisons if not one.passed]

    @property
    def share(self) -> float:
        return max(one.share for one in self.comparisons)


def check(drawn: Drawn) -> Checked:
    """Trains the experiment on both sides, and holds one against the other."""
    with one_thread(), np.errstate(all="ignore"), more_paths.loaded(drawn) as dataset:
        mine, reference, *twins = courses(drawn.experiment, dataset)
        steps, epochs = stable(reference, twins)
        found = list(compared(drawn.name, mine, reference, steps, epochs))
        found += more_paths.compared(drawn, dataset)
    return Checked(drawn, len(reference.steps["loss"]), steps, found)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch's: such small products only wait for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def courses(experiment: Experiment, dataset: Dataset) -> Iterator[Course]:
    """jaxmlp's run, torch's, and torch's from weights a unit in the last place away."""
    yield course(Run(experiment, dataset), dataset)
    for nudge in (None, *range(TWINS)):
        run = torch_side.TorchTrainer(experiment, dataset, device=sides.torch_device)
        if nudge is not None:
            sides.nudge_weights(run.reference.model, nudge)
        yield course(run, dataset)


def course(run: Any, dataset: Dataset) -> Course:
    results, rows, epochs = [], [], []
    params: dict[str, np.ndarray] = {}
    for i, result in enumerate(run.epochs()):
        results.append(result)
        rows.append(run.row(i + 1, result))
        params = {
            f"layer{j + 1}.{name}": np.array(value)
            for j, layer in enumerate(result.params)
            for name, value in layer.items()
        }
        epochs.append({name: np.asarray(value) for name, value in rows[-1].items()} | params)
    steps = run.steps(results)
    finite = all(np.isfinite(value).all() for value in params.values())
    outcome = outcomes.outcome(dataset.classes, steps, rows, finite)
    ended = {"outcome": outcome, **outcomes.diagnostics(steps, rows)}
    return Course({**steps, "correct": _correct(results)}, epochs, ended)


def _correct(results: list[Any]) -> np.ndarray:
    """Right answers of each batch."""
    return np.concatenate([np.asarray(result.steps.correct, np.int64) for result in results])


# ---- how far a run can be compared


def stable(reference: Course, twins: list[Course]) -> tuple[int, int]:
    """For how many steps, and whole epochs, every twin stays close and counts the same."""
    good = np.ones(len(reference.steps["loss"]), bool)
    for twin in twins:
        for name, value in reference.steps.items():
            good &= _close(name, twin.steps[name], value).reshape(len(value), -1).all(axis=1)
    steps = len(good) if good.all() else int(np.argmin(good))
    per_epoch = len(good) // len(reference.epochs)
    epochs = 0
    for i, values in enumerate(reference.epochs[: steps // per_epoch]):
        if not all(
            _close(name, twin.epochs[i][name], value).all()
            for twin in twins
            for name, value in values.items()
        ):
            break
        epochs = i + 1
    return steps if epochs == steps // per_epoch else epochs * per_epoch, epochs


def _close(name: str, twin: np.ndarray, value: np.ndarray) -> np.ndarray:
    same = (twin == value) | (np.isnan(twin) & np.isnan(value))
    if name in COUNTS:
        return same
    with np.errstate(all="ignore"):
        return same | (np.abs(twin - value) < STABLE * _size(name, value))


def _size(name: str, value: np.ndarray) -> np.ndarray:
    """What an error is relative to: a parameter's to its tensor's largest."""
    return np.max(np.abs(value)) if name.startswith("layer") else np.abs(value)


# ---- the comparison


def compared(
    check: str, mine: Course, other: Course, steps: int, epochs: int
) -> Iterator[Comparison]:
    """Everything of these first steps and epochs, and that there is as much on both sides."""
    for what, a, b in (
        ("step", mine.steps, other.steps),
        ("epoch", mine.epochs[0], other.epochs[0]),
    ):
        shapes = [np.array(str({n: v.shape for n, v in sorted(side.items())})) for side in (a, b)]
        yield bitwise((LEVEL, check, f"names and shapes of {what}s"), *shapes)
    for name in mine.steps.keys() & other.steps.keys():
        yield _within(
            (LEVEL, check, f"{name}, step "),
            name,
            mine.steps[name][:steps],
            other.steps[name][:steps],
        )
    for i in range(epochs):
        for name in mine.epochs[i].keys() & other.epochs[i].keys():
            where = (LEVEL, check, f"epoch {i + 1} {name}")
            yield _within(where, name, mine.epochs[i][name], other.epochs[i][name])
    whole = len(other.steps["loss"])
    if epochs == len(other.epochs):
        yield from _outcomes(check, mine.outcome, other.outcome)
    enough = np.array(min(steps, ENOUGH, whole))
    yield bitwise(
        (LEVEL, check, "steps that can be compared"), enough, np.array(min(ENOUGH, whole))
    )


def _within(where: tuple[str, str, str], name: str, mine: Any, other: Any) -> Comparison:
    if name in COUNTS:
        return bitwise(where, np.asarray(mine, np.float64), np.asarray(other, np.float64))
    bound = FLOAT64 * _size(name, other) if np.size(other) else 0.0
    mine, other = (np.asarray(side, np.float64) for side in (mine, other))
    return compare(where, mine, other, bound, "relative 1e-9")


def _outcomes(check: str, mine: dict[str, Any], other: dict[str, Any]) -> Iterator[Comparison]:
    spikes = [np.array(side["spike"]) for side in (mine, other)]
    yield _within((LEVEL, check, "outcome: spike"), "spike", *spikes)
    rest = [np.array(str({**side, "spike": None})) for side in (mine, other)]
    yield bitwise((LEVEL, check, "outcome"), *rest)


# ---- families


def family(number: int, first: int, count: int) -> Iterator[Checked]:
    """The experiments of a family from an index on; one that breaks a side is a failure."""
    for index in range(first, first + count):
        if index % PROGRAMS == PROGRAMS - 1:
            jax.clear_caches()
        drawn = drawing.draw(number, index)
        try:
            checked = check(drawn)
        except Exception as error:
            said = f"{drawn.name}: {type(error).__name__}: {error}"
            crash = Comparison(LEVEL, drawn.name, "", "crash", np.nan, np.inf, said)
            checked = Checked(drawn, 0, 0, [crash])
        yield checked
