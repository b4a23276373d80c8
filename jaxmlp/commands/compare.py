"""Lays two runs side by side: `python scripts/compare.py runs/A runs/B`."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags, output
from jaxmlp.law.words import counted
from jaxmlp.record import run_files

APART = 1e-3  # relative: where two loss curves are told as parted


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(
        "Say where two recorded runs first differ, by how much, and how each ended; draw both."
    )
    parser.add_argument("a", metavar="A", type=Path, help="a run's directory")
    parser.add_argument("b", metavar="B", type=Path, help="another's")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("runs/compare.png"),
        help="the figure (default: runs/compare.png)",
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors(for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.record import run_figures, saved_record

    console = output.console()
    (first, steps, params), (second, other_steps, other_params) = (
        saved_record.load(directory) for directory in (values.a, values.b)
    )
    check(values, first, second)
    console.print(f"A: {values.a}: {describe(first)}", soft_wrap=True)
    console.print(f"B: {values.b}: {describe(second)}", soft_wrap=True)
    for text in differences(first, second):
        console.print(text, soft_wrap=True)
    console.print(losses(steps["loss"], other_steps["loss"]), soft_wrap=True)
    console.print(parameters(params, other_params), soft_wrap=True)
    console.print(outcomes(first, second), soft_wrap=True)
    console.print(f"A: {first['verdict']}", soft_wrap=True)
    console.print(f"B: {second['verdict']}", soft_wrap=True)
    names = (f"A, {first['framework']}", f"B, {second['framework']}")
    figure = run_figures.comparison(names, [first, second], [steps["loss"], other_steps["loss"]])
    values.out.parent.mkdir(parents=True, exist_ok=True)
    atomic.replace(values.out, figure)
    console.print(f"figure: {values.out}", soft_wrap=True)


def check(values: argparse.Namespace, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two runs can be laid side by side if their networks are of one shape.

    Raises:
        ValueError: they are not, or the figure's name is that of something else.
    """
    shapes = [
        [result["layers"][0]["fan_in"], *(layer["fan_out"] for layer in result["layers"])]
        for result in (first, second)
    ]
    if shapes[0] != shapes[1]:
        a, b = ("-".join(map(str, shape)) for shape in shapes)
        raise ValueError(
            f"{values.a} has widths {a}, {values.b} has {b}; compare runs of one shape"
        )
    if first["experiment"]["bias"] != second["experiment"]["bias"]:
        raise ValueError("one run has biases and the other has none; compare runs of one shape")
    if values.out.is_dir():
        raise ValueError(f"{values.out} is a directory; --out needs a file's name")
    if os.path.lexists(values.out) and not is_figure(values.out):
        raise ValueError(f"{values.out} is no figure of ours; choose another --out")
    beside = (values.out.parent, values.out.parent / run_files.READY)
    if any(values.out.name in run_files.listed(directory) for directory in beside):
        raise ValueError(
            f"{values.out} is of a record ({run_files.SUMS} lists it); choose another --out"
        )


def is_figure(path: Path) -> bool:
    """Whether a file is one of our figures, which may be replaced."""
    from jaxmlp.record import run_figures

    try:
        return (
            path.is_file() and not path.is_symlink() and run_figures.SOFTWARE in path.read_bytes()
        )
    except OSError:
        return False


def describe(result: dict[str, Any]) -> str:
    seconds = result["timings"]["train_seconds"]
    return (
        f"{result['framework']} on {result['environment']['device']}, {result['case']}, "
        f"{result['data']['name']}, {counted(len(result['epochs']), 'epoch')} in {seconds:.1f} s"
    )


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """What was asked for differently."""
    asked = [result["experiment"] for result in (first, second)]
    told = [
        f"{name}: A {asked[0][name]}, B {asked[1][name]}"
        for name in asked[0]
        if asked[0][name] != asked[1].get(name)
    ]
    if first["data"]["sha256"] != second["data"]["sha256"]:
        told.append(f"data: A {first['data']['source']}, B {second['data']['source']}")
    return told or ["the same experiment on the same data"]


def losses(a: np.ndarray, b: np.ndarray) -> str:
    """Where the losses first differ, and where they have parted."""
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return f"losses: equal in every bit over {count} steps"
    step = int(np.argmin(same))
    with np.errstate(all="ignore"):
        relative = np.where(same, 0.0, np.abs(a.astype(np.float64) - b) / np.abs(b))
    text = (
        f"losses: first differ at step {step + 1} of {count}: A {a[step]!s}, B {b[step]!s} "
        f"(relative difference {relative[step]:.2g})"
    )
    parted = ~(relative < APART)
    if not parted.any():
        return f"{text}; never more than {np.max(relative):.2g} apart"
    return f"{text}; more than {APART:g} apart from step {int(np.argmax(parted)) + 1} on"


def parameters(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> str:
    """How far the final parameters are apart, relative to their norms."""
    told = []
    for name in a:
        with np.errstate(all="ignore"):
            distance = np.linalg.norm(a[name].astype(np.float64) - b[name])
            norm = np.linalg.norm(b[name].astype(np.float64))
        told.append(f"{name} {distance / norm if norm else distance:.2g}")
    return f"final parameters, relative distance: {', '.join(told)}"


def outcomes(first: dict[str, Any], second: dict[str, Any]) -> str:
    kinds = [result["outcome"] for result in (first, second)]
    accuracies = [f"{result['epochs'][-1]['test_accuracy']:.2%}" for result in (first, second)]
    same = f"the same, {kinds[0]}" if kinds[0] == kinds[1] else f"A {kinds[0]}, B {kinds[1]}"
    return f"outcome: {same}; test accuracy: A {accuracies[0]}, B {accuracies[1]}"
