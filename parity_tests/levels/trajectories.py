"""Whole runs from their seeds on: every tensor after every step, and what the commands report."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import run_torch

from jaxmlp import train
from parity_tests import problems, sides
from parity_tests.comparison import Comparison, bitwise, compare

STEPS = {"float64": 1000, "float32": 300}  # beyond 300, chaos has its way in float32
CLOSED_LOOP = 200  # steps of each optimizer with everything at once
FLOAT64 = 1e-9  # relative, at every step at which the dynamics are stable
STABLE = 1e-10  # torch's own runs stay this close when the initial weights move by one last place
SPREADS = 3  # float32: as many times the spread of torch's own runs
LAST_PLACE = 2.0**-23
TWINS = 4  # torch runs whose initial weights differ by one unit in the last place
Series = dict[str, np.ndarray]  # per tensor: (steps,)


def trajectories(quick: bool = False) -> Iterator[Comparison]:
    """Loss, gradient norms, parameters and buffers at every step, in both float widths."""
    for precision, check in (("float64", _stable), ("float32", _spread)):
        steps = 40 if quick else STEPS[precision]
        for problem in problems.cases(precision, steps):
            if not quick or problem.name in ("baseline", "scaled-lr-init"):
                yield from check(problem, steps)
    for problem in [] if quick else problems.closed_loops(CLOSED_LOOP):
        yield from _stable(problem, CLOSED_LOOP)


def _distances(ours: Iterator[sides.Trace], reference: list[sides.Trace]) -> Series:
    """Per tensor and step, the distance from the reference relative to the reference's norm."""
    rows: dict[str, list[np.ndarray]] = {}
    for mine, theirs in zip(ours, reference, strict=True):
        for name, other in _followed(theirs).items():
            rows.setdefault(name, []).append(_relative(_followed(mine)[name], other))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _followed(trace: sides.Trace) -> Series:
    return {name: trace.metrics[name] for name in ("loss", "grad_norm")} | trace.tensors


def _relative(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        mine, other = (a.reshape(len(a), -1).astype(np.float64) for a in (mine, other))
        distance = np.linalg.norm(mine - other, axis=1)
        relative = distance / np.linalg.norm(other, axis=1)
    return np.where(np.array_equal(mine, other, equal_nan=True) | (distance == 0), 0.0, relative)


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
    if problem.name in ("baseline", "repair-first-layer", "repair-uniform"):
        yield bitwise(("trajectories", check, "stable to the end"), stable, steps)


def _spread(problem: problems.Problem, steps: int) -> Iterator[Comparison]:
    """float32: no farther from torch than three times what a change in the last place moves it.

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
        check = f"{problem.name}, float32, {steps} steps"
        yield _within(check, name, distance, bound, "3 × torch's own spread")


def _within(check: str, name: str, distance, bound, tolerance: str) -> Comparison:
    """The tensor's distances, a step each (from 0), within the bound.

    Where the bound is infinite (the reference is 0, a twin is not), torch itself does not decide.
    """
    distance = np.where(np.isinf(bound), 0.0, distance)
    where = ("trajectories", check, f"{name}, step ")
    zero = np.zeros_like(distance)
    found = compare(where, distance, zero, bound, tolerance, difference=distance)
    return dataclasses.replace(found, ulps=float("nan"))


def runs(quick: bool = False) -> Iterator[Comparison]:
    """What the two commands report: the rows and steps of their records, in float64."""
    for problem in problems.cases("float64", 60):
        if quick and problem.name not in ("baseline", "scaled"):
            continue
        arguments = (problem.experiment, problem.dataset)
        reports = []
        torch_run = run_torch.TorchRun(*arguments, device=sides.torch_device)
        for run in (train.Run(*arguments), torch_run):
            results = list(run.epochs())  # pyright: ignore[reportArgumentType]
            rows = [run.row(i + 1, result) for i, result in enumerate(results)]  # pyright: ignore
            reports.append((rows, run.steps(results)))  # pyright: ignore[reportArgumentType]
        (jax_rows, jax_steps), (torch_rows, torch_steps) = reports
        stable = problem.name in ("baseline", "repair-first-layer", "repair-uniform")
        last = 60 if stable else 3  # steps; the others may part at their own pace
        for name in jax_steps:
            jax, torch = jax_steps[name][:last], torch_steps[name][:last].astype(np.float64)
            where = ("runs", f"{problem.name}, float64, {last} steps", name)
            bound = 0 if name == "dead" else FLOAT64 * np.abs(torch)
            yield compare(where, jax, torch, bound, "relative 1e-9")
        for i, row in enumerate(torch_rows if stable else []):
            for name, value in row.items():
                where = ("runs", f"{problem.name}, float64, record", f"epoch {i + 1} {name}")
                bound = FLOAT64 * np.abs(value) if "loss" in name else 0
                yield compare(where, np.asarray(jax_rows[i][name]), np.asarray(value), bound,
                              "relative 1e-9")  # fmt: skip
