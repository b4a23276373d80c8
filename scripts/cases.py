"""Runs the question's ten cases with several seeds and prints a table; JAX, PyTorch, or both.

With both, a second table holds, per case, the mean difference of the last test accuracies, seed by
seed, with its 95 % confidence interval (Student's t), and whether the outcomes agree.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from jaxmlp import data, question, record, verdict
from jaxmlp.experiment import Experiment

FRAMEWORKS = {"jax": ("jax",), "torch": ("torch",), "both": ("jax", "torch")}
Results = dict[str, dict]  # by framework, case, seed, length and data


def one(framework: str, experiment: Experiment, dataset: data.Dataset) -> dict:
    """Outcome, last epoch's numbers and fraction of dead hidden units of one run."""
    if framework == "jax":
        from jaxmlp.train import Run as Start
    else:
        from run_torch import TorchRun as Start
    run: Any = Start(experiment, dataset)
    results = list(run.epochs())
    rows = [run.row(i + 1, result) for i, result in enumerate(results)]
    final = record.flatten(results[-1].params).values()
    finite = all(bool(np.isfinite(array).all()) for array in final)
    ended = verdict.outcome(dataset.classes, run.steps(results), rows, finite)
    last = rows[-1]
    return {
        "outcome": ended["outcome"],
        "collapse_step": ended["collapse_step"][0],
        "test_accuracy": last["test_accuracy"],
        "train_loss": last["train_loss"],
        "dead": last["dead"][0],
    }


def of_case(results: Results, framework: str, case: str) -> list[dict]:
    return [run for key, run in results.items() if key.split()[:2] == [framework, case]]


def counted(runs: list[dict]) -> str:
    outcomes = [run["outcome"] for run in runs]
    return ", ".join(f"{name} {outcomes.count(name)}" for name in dict.fromkeys(outcomes))


def table(results: Results, framework: str) -> str:
    """One framework's results as Markdown, a line per case."""
    lines = [
        f"| {framework} | outcome | test accuracy | range | dead units | training loss |",
        "|---|---|---|---|---|---|",
    ]
    for case in question.CASES:
        runs = of_case(results, framework, case)
        accuracies = [run["test_accuracy"] for run in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        dead, loss = (statistics.mean(run[name] for run in runs) for name in ("dead", "train_loss"))
        lines.append(
            f"| {case} | {counted(runs)} | {statistics.mean(accuracies):.3f} ± {spread:.3f} "
            f"| {min(accuracies):.3f}–{max(accuracies):.3f} | {dead:.2f} | {loss:.3f} |"
        )
    return "\n".join(lines)


def comparison(results: Results) -> str:
    """JAX less PyTorch, as Markdown, a line per case."""
    lines = [
        "| case | JAX | PyTorch | JAX − PyTorch, 95 % interval | outcomes (JAX; PyTorch) |",
        "|---|---|---|---|---|",
    ]
    for case in question.CASES:
        sides = [of_case(results, framework, case) for framework in FRAMEWORKS["both"]]
        accuracies = np.array([[run["test_accuracy"] for run in runs] for runs in sides])
        differences, count = accuracies[0] - accuracies[1], accuracies.shape[1]
        interval = "–"
        if count > 1:
            error = differences.std(ddof=1) / np.sqrt(count)
            interval = f"{scipy.stats.t.ppf(0.975, count - 1) * error:.4f}"
        kinds = [[run["outcome"] for run in runs] for runs in sides]
        said = counted(sides[0]) if kinds[0] == kinds[1] else "; ".join(map(counted, sides))
        same = sum(a == b for a, b in zip(*kinds, strict=True))
        lines.append(
            f"| {case} | {accuracies[0].mean():.4f} | {accuracies[1].mean():.4f} "
            f"| {differences.mean():+.4f} ± {interval} | {said} ({same} of {count} the same) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="jax")
    parser.add_argument("--data", default="auto")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON of the single runs; continued if it exists")
    values = parser.parse_args()
    frameworks = FRAMEWORKS[values.framework]
    dataset = data.load(values.data, values.data_dir)
    if "jax" in frameworks:
        from jaxmlp import devices

        devices.use_compilation_cache()
    known: Results = {}
    if values.out and values.out.exists():
        known = json.loads(values.out.read_text())
    results: Results = {}
    runs = itertools.product(range(values.seeds), itertools.product(question.CASES, frameworks))
    for seed, (case, framework) in runs:
        key = (
            f"{framework} {case} seed {seed}, {values.epochs} epochs, "
            f"{dataset.name} {dataset.sha256[:8]}"
        )
        experiment = Experiment(**question.settings(case), epochs=values.epochs)
        experiment = dataclasses.replace(experiment, seed=seed)
        results[key] = known[key] if key in known else one(framework, experiment, dataset)
        print(key, results[key], flush=True)
        if values.out:
            values.out.parent.mkdir(parents=True, exist_ok=True)
            partial = values.out.with_suffix(".partial")
            partial.write_text(json.dumps({**known, **results}, indent=1))
            partial.replace(values.out)
    print(f"\n{dataset.source}; {values.seeds} seeds, {values.epochs} epochs")
    for framework in frameworks:
        print(table(results, framework) + "\n")
    if len(frameworks) == 2:
        print(comparison(results))


if __name__ == "__main__":
    main()
