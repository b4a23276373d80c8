"""Whole runs from their seeds on: every tensor after every step, and what the commands report."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmlp.commands import torch_side
from jaxmlp.training.run import Run
from parity_tests import problems, sides
from parity_tests.comparison import Comparison, bitwise, compare

STEPS = {"float64": 1000, "float32": 300}  # beyond 300, chaos has its way in float32
ALIVE = ("baseline", "repair-first-layer", "repair-uniform")  # stable to the end
CLOSED_LOOP = 200  # steps of each optimizer with everything at once
FLOAT64 = 1e-9  # relative, at every step at which the dynamics are stable
STABLE = 1e-10  # torch's own runs stay this close when the initial weights move by one last place
SPREADS = 3  # float32: as many times the spread of torch's own runs
LAST_PLACE = 2.0**-23
MEANING = 1e-2  # relative
TWINS = 4  # torch runs whose initial weights differ by one unit in the last place
Series = dict[str, np.ndarray]  # per tensor: (steps,)


def trajectories(quick: bool = False) -> Iterator[Comparison]:
    """Loss, gradient norms, parameters and buffers at every step, in both float widths."""
    for precision, check in (("float64", _stable), ("float32", _spread)):
        steps = 40 if quick else STEPS[precision]
        for problem in problems.cases(precision, steps):
            if not quick or problem.name == "baseline":
                yield from check(problem, steps)
    for problem in [] if quick else problems.closed_loops(CLOSED_LOOP):
        yield from _stable(problem, CLOSED_LOOP)


def _distances(ours: Iterator[sides.Trace], reference: list[sides.Trace]) -> Series:
    """Per tensor and step, the distance from the reference relative to the reference's norm."""
    rows: dict[str, list[np.ndarray]] = {}
    for mine, theirs in zip(ours, reference, strict=True):
        ours_now, other_now = _followed(mine), _followed(theirs)
        assert ours_now.keys() == other_now.keys()
        for name, other in other_now.items():
            rows.setdefault(name, []).append(_relative(ours_now[name], other))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _followed(trace: sides.Trace) -> Series:
    return {name: trace.metrics[name] for name in ("loss", "grad_norm")} | trace.tensors


def _relative(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        mine, other = (a.reshape(len(a), -1).astype(np.float64) for a in (mine, other))
        distance = np.linalg.norm(mine - other, axis=1)
        relative = distance / np.linalg.norm(other, axis=1)
    return np.where(distance == 0, 0.0, relative)


def _stable(problem: problems.Problem, steps: int) -> Iterator[Comparison]:
    """float64: within 1e-9 for as long as a change in the last place stays below 1e-10."""
    arguments = (problem.experiment, problem.dataset, problem.experiment.epochs)
    reference = list(sides.torch_trajectory(*arguments))
    twin = _distances(sides.torch_trajectory(*arguments, nudge=0), reference)
    found = _distances(sides.jax_trajectory(*arguments), reference)
    moved = np.max(list(twin.values()), axis=0)
    unstable = ~(moved < STABLE)
    stable = int(np.argmax(unstable)) if unstable.any() else steps
    check = f"{problem.name}, float64, {stable} stable steps of {steps}"
    for name, distance in found.items():
        yield _within(check, name, distance[:stable], FLOAT64, "relative 1e-9")
    least = steps if problem.name in ALIVE else min(steps, 100)
    enough = np.array(stable >= least)
    yield bitwise(("trajectories", check, f"stable for {least} steps"), enough, np.array(True))


def _spread(problem: problems.Problem, steps: int) -> Iterator[Comparison]:
    """float32: no farther from torch than three times what a change in the last place moves it.

    For as long as that is less than a hundredth: beyond, the bound says nothing.

    The spread at a step is the largest over the twins and over the steps up to it; it is not
    below one unit in the last place, since a single number cannot differ by less.
    """
    arguments = (problem.experiment, problem.dataset, problem.experiment.epochs)
    reference = list(sides.torch_trajectory(*arguments))
    twins = [
        _distances(sides.torch_trajectory(*arguments, nudge=seed), reference)
        for seed in range(TWINS)
    ]
    found = _distances(sides.jax_trajectory(*arguments), reference)
    for name, distance in found.items():
        largest = np.max([twin[name] for twin in twins], axis=0)
        bound = SPREADS * np.maximum(np.maximum.accumulate(largest), LAST_PLACE)
        told = bound < MEANING
        last = steps if told.all() else int(np.argmin(told))
        check = f"{problem.name}, float32, {steps} steps"
        yield _within(
            check, f"{name} ({last} steps)", distance[:last], bound[:last], "3 × torch's own spread"
        )


def _within(check: str, name: str, distance, bound, tolerance: str) -> Comparison:
    """The tensor's distances, a step each (from 0), within the bound."""
    where = ("trajectories", check, f"{name}, step ")
    zero = np.zeros_like(distance)
    found = compare(where, distance, zero, bound, tolerance, difference=distance)
    return dataclasses.replace(found, ulps=float("nan"))


def runs(quick: bool = False) -> Iterator[Comparison]:
    """What the two commands report, in float64: rows and steps of the record, the parameters."""
    cases = [] if quick else problems.cases("float64", 60)
    for problem in (*problems.commands(), *cases):
        arguments = (problem.experiment, problem.dataset)
        torch_run = torch_side.TorchTrainer(*arguments, device=sides.torch_device)
        jax, torch = _report(Run(*arguments)), _report(torch_run)
        check = f"{problem.name}, float64"
        yield bitwise(("runs", check, "names"), *(np.array(sorted(r)) for r in (jax, torch)))
        for name in jax.keys() & torch.keys():
            mine, other = (np.asarray(report[name], np.float64) for report in (jax, torch))
            size = np.max(np.abs(other)) if "layer" in name else np.abs(other)
            bound = 0 if name.split()[-1] in COUNTED else FLOAT64 * size
            yield compare(("runs", check, name), mine, other, bound, "relative 1e-9")


COUNTED = ("epoch", "train_accuracy", "test_accuracy", "dead", "silent")  # equal in every bit


def _report(run: Any) -> dict[str, Any]:
    """Everything that a run hands over: steps.npz, and per epoch the record's row, parameters."""
    report, results = {}, []
    for i, result in enumerate(run.epochs()):
        results.append(result)
        row = {f"epoch {i + 1} {name}": value for name, value in run.row(i + 1, result).items()}
        weights = {
            f"epoch {i + 1} layer{j + 1} {name}": np.array(value)
            for j, layer in enumerate(result.params)
            for name, value in layer.items()
        }
        report |= row | weights
    return report | {f"steps' {name}": value for name, value in run.steps(results).items()}
