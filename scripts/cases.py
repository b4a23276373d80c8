"""Runs the question's ten cases with several seeds on one compiled program and prints a table."""

import argparse
import dataclasses
import itertools
import json
import statistics
from pathlib import Path

import numpy as np

from jaxmlp import data, devices, question, record, verdict
from jaxmlp.experiment import Experiment
from jaxmlp.train import Run


def one(experiment: Experiment, dataset: data.Dataset) -> dict:
    """Outcome, last epoch's numbers and fraction of dead hidden units of one run."""
    run = Run(experiment, dataset)
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


def table(results: dict[str, dict]) -> str:
    """The results as Markdown, a line per case."""
    lines = [
        "| case | outcome | test accuracy | range | dead units | training loss |",
        "|---|---|---|---|---|---|",
    ]
    for case in question.CASES:
        if not (runs := [run for key, run in results.items() if key.split()[0] == case]):
            continue
        outcomes = [run["outcome"] for run in runs]
        counted = ", ".join(f"{name} {outcomes.count(name)}" for name in dict.fromkeys(outcomes))
        accuracies = [run["test_accuracy"] for run in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        dead, loss = (statistics.mean(run[name] for run in runs) for name in ("dead", "train_loss"))
        lines.append(
            f"| {case} | {counted} | {statistics.mean(accuracies):.3f} ± {spread:.3f} "
            f"| {min(accuracies):.3f}–{max(accuracies):.3f} | {dead:.2f} | {loss:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="auto")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON of the single runs; continued if it exists")
    values = parser.parse_args()
    dataset = data.load(values.data, values.data_dir)
    devices.use_compilation_cache()
    results: dict[str, dict] = {}
    if values.out and values.out.exists():
        results = json.loads(values.out.read_text())
    for seed, case in itertools.product(range(values.seeds), question.CASES):
        key = f"{case} seed {seed}, {values.epochs} epochs, {dataset.name} {dataset.sha256[:8]}"
        if key in results:
            continue
        experiment = Experiment(**question.settings(case), epochs=values.epochs)
        results[key] = one(dataclasses.replace(experiment, seed=seed), dataset)
        print(key, results[key], flush=True)
        if values.out:
            values.out.parent.mkdir(parents=True, exist_ok=True)
            partial = values.out.with_suffix(".partial")
            partial.write_text(json.dumps(results, indent=1))
            partial.replace(values.out)
    print(f"\n{dataset.source}; {devices.describe()}; {values.seeds} seeds, {values.epochs} epochs")
    print(table(results))


if __name__ == "__main__":
    main()
