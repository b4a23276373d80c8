"""The whole question in one command: every case with several seeds, the tables and the figures.

The cases of the question, the claims of its answers (more epochs, centred and standardised inputs,
wider and deeper networks), and learning rates at several input scales. All runs of one network are
one compiled program. Finished runs are kept in --out (runs.jsonl) and not repeated.
"""

import argparse
import dataclasses
import hashlib
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from jaxmlp import atomic, question
from jaxmlp.commands import exit_status, flags
from jaxmlp.commands import run_job as job
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.law import words
from jaxmlp.law.canonical import canonical
from jaxmlp.law.transport import transport
from jaxmlp.law.words import counted
from jaxmlp.record import outcomes, question_figures, sealed, sums
from jaxmlp.record import run_record as record

FRAMEWORKS = job.FRAMEWORKS
CLAIM_SEEDS = 3  # at most: three times the epochs, or wider networks, take as many times as long
STEPS_KEPT = 200  # of every run, for the figure of the first steps
SCALES, RATES = (1.0, 16.0, 255.0), np.geomspace(0.02 / 64, 0.02 * 8, 10)  # of the collapse
COLLAPSE_EPOCHS = 2
KEY = hashlib.sha256(b"scripts/reproduce.py").hexdigest()  # of the files that it writes
NAMES = r"tables\.md|[a-z_]+\.png"
WRITTEN = ("tables.md", "accuracy.png", "first_steps.png", "collapse.png", "plane.png")
Wanted = tuple[str, str, Experiment]  # framework, name, and with its seed


def cases(epochs: int) -> dict[str, Experiment]:
    return {case: Experiment(**question.settings(case), epochs=epochs) for case in question.CASES}


def claims(epochs: int) -> dict[str, Experiment]:
    """What the question's answers say, as experiments."""
    s = question.SCALE
    scaled_lr = question.settings("scaled-lr")
    changes: dict[str, dict[str, Any]] = {
        "scaled-lr, 3 × the epochs": {**scaled_lr, "epochs": 3 * epochs},
        "baseline, 3 × the epochs": {"epochs": 3 * epochs},
        "baseline, inputs centred": {"preprocessing": "center"},
        "baseline, inputs standardised": {"preprocessing": "standardize"},
        "scaled, inputs centred": {"preprocessing": "center", "input_scale": s},
        "scaled-lr, inputs centred": {**scaled_lr, "preprocessing": "center"},
        "baseline, 1000 units": {"hidden": (1000,)},
        "baseline, 300-300-300 units": {"hidden": (300, 300, 300)},
        "standardised, 1000-1000 units": {"hidden": (1000, 1000), "preprocessing": "standardize"},
    }
    return {
        name: Experiment(**{"epochs": epochs, **settings}) for name, settings in changes.items()
    }


def collapse() -> dict[str, Experiment]:
    """Learning rates at several input scales, each started as the baseline is (κ = 1)."""
    found = {}
    for scale, rate in itertools.product(SCALES, RATES):
        same_start = transport(Experiment(epochs=COLLAPSE_EPOCHS), scale)
        change = rate / question.RATE
        experiment = dataclasses.replace(
            same_start, learning_rate=(same_start.per_layer("learning_rate")[0] * change,)
        )
        found[f"rate {rate:.3g} at × {scale:g}"] = experiment
    return found


def one(
    framework: str, experiment: Experiment, dataset: Dataset, show: Callable[[str], None]
) -> dict[str, Any]:
    """What is kept of one run.

    Args:
        show: is told what is under way.
    """
    if framework == "jax":
        from jaxmlp.train.run import Run as Start
    else:
        from jaxmlp.commands.run_torch import TorchRun as Start
    run: Any = Start(experiment, dataset)
    results = []
    for result in run.epochs():
        results.append(result)
        show(f"epoch {len(results)} of {experiment.epochs}")
    rows, steps = [run.row(i + 1, result) for i, result in enumerate(results)], run.steps(results)
    final = record.flatten(results[-1].params).values()
    finite = all(bool(np.isfinite(array).all()) for array in final)
    return {
        "outcome": outcomes.outcome(dataset.classes, steps, rows, finite),
        "test_accuracy": [row["test_accuracy"] for row in rows],
        "train_loss": rows[-1]["train_loss"],
        "dead": max(rows[-1]["dead"], default=0.0),
        "loss": [float(value) for value in steps["loss"][:STEPS_KEPT]],
    }


def foretold(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    from jaxmlp.forecast.rehearsal import forecast

    return forecast(experiment, dataset).to_json()


class Runs:
    """All runs, kept in a file as they finish: a sealed line each, nothing else is believed.

    Raises:
        ValueError: the file is somebody else's.
    """

    def __init__(self, dataset: Dataset, path: Path, wanted: Iterable[Wanted] = ()) -> None:
        self.dataset, self.path = dataset, path
        lines, damaged = sealed.read_lines(path)
        if damaged:
            print(
                f"{path}: {counted(damaged, 'line')} cut off or damaged; what they held is not "
                "believed, but trained again",
                file=sys.stderr,
            )
        self.kept = {line["key"]: line["run"] for line in lines if {"key", "run"} <= set(line)}
        self.steps = self._steps(list(wanted))

    def _steps(self, wanted: list[Wanted]) -> Steps:
        """How many runs there are, said before the first."""
        left = [each for each in wanted if self.key(*each) not in self.kept]
        epochs = sum(experiment.epochs for _, _, experiment in left)
        done = len(wanted) - len(left)
        if wanted:
            longest = max(experiment.epochs for _, _, experiment in wanted)
            print(
                f"{counted(len(wanted), 'run')}, {done} of them done before; "
                f"{counted(epochs, 'epoch')} to train, up to {longest} a run",
                file=sys.stderr,
            )
        return Steps(len(wanted), epochs, done)

    def key(self, framework: str, name: str, experiment: Experiment) -> str:
        """A run by framework, name, seed, settings and data."""
        return f"{framework} {name} {experiment.sha256} {self.dataset.sha256}"

    def get(self, framework: str, name: str, experiment: Experiment) -> dict[str, Any]:
        """The run, and with JAX what was foretold of it; from the file if it is there."""
        key, words = self.key(framework, name, experiment), f"{framework} {name}"
        words += f", seed {experiment.seed}"
        if key not in self.kept:
            self.steps.under_way(words)
            before = {}
            if framework == "jax":
                before = {"foretold": foretold(experiment, self.dataset)}

            def show(text: str) -> None:
                self.steps.under_way(f"{words}: {text}")

            result = {**one(framework, experiment, self.dataset, show), **before}
            sealed.append_line(self.path, {"key": key, "run": result}, KEY)
            self.kept[key] = result
            ended = f"{result['outcome']}, {result['test_accuracy'][-1]:.3f}"
            self.steps.done(f"{words}: {ended}", experiment.epochs)
        return self.kept[key]

    def seeds(
        self, framework: str, name: str, experiment: Experiment, count: int
    ) -> list[dict[str, Any]]:
        return [self.get(framework, name, each) for each in seeded(experiment, count)]


def seeded(experiment: Experiment, count: int) -> list[Experiment]:
    return [dataclasses.replace(experiment, seed=seed) for seed in range(count)]


def all_runs(values: argparse.Namespace) -> list[Wanted]:
    """What the flags ask for, in the order in which it is trained."""
    frameworks = FRAMEWORKS[values.framework]
    found = [
        (framework, name, each)
        for framework in frameworks
        for name, experiment in cases(values.epochs).items()
        for each in seeded(experiment, values.seeds)
    ]
    if "jax" in frameworks and not values.cases_only:
        claimed = claims(values.epochs).items()
        for name, experiment in claimed:
            own = seeded(experiment, min(values.seeds, CLAIM_SEEDS))
            found += [("jax", name, each) for each in own]
        found += [("jax", name, experiment) for name, experiment in collapse().items()]
    return found


# ---- tables


def by_kind(kinds: list[str]) -> str:
    names = {name: kinds.count(name) for name in dict.fromkeys(kinds)} or {"–": 0}
    return next(iter(names)) if len(names) == 1 else ", ".join(f"{n} {c}" for n, c in names.items())


def last(runs: list[dict[str, Any]]) -> np.ndarray:
    return np.array([run["test_accuracy"][-1] for run in runs])


def spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def case_table(experiments: dict[str, Experiment], runs: dict[str, list[dict[str, Any]]]) -> str:
    """The question's cases as Markdown: what each is, what was foretold, what happened."""
    base = canonical(experiments["baseline"])
    lines = [
        "| case | what was changed | R | κ₁ | κ₂ | S ÷ limit | foretold | outcome | test accuracy "
        "| dead units |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, own in runs.items():
        form = canonical(experiments[case])
        numbers = [form.learning_rate / base.learning_rate, *form.init_scale]
        before = [run["foretold"] for run in own if "foretold" in run]
        ratio = statistics.median(float(f["ratio"]) for f in before) if before else math.nan
        lines.append(
            f"| {case} | {question.CASES[case]} | {' | '.join(f'{n:.3g}' for n in numbers)} "
            f"| {words.number(ratio)} | {by_kind([f['course'] for f in before])} "
            f"| {by_kind([run['outcome'] for run in own])} | {spread(last(own))} "
            f"| {statistics.mean(run['dead'] for run in own):.2f} |"
        )
    return "\n".join(lines)


def claim_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| what was tried | outcome | test accuracy | best epoch's | dead units |",
        "|---|---|---|---|---|",
    ]
    for name, own in runs.items():
        best = np.array([max(run["test_accuracy"]) for run in own])
        lines.append(
            f"| {name} | {by_kind([run['outcome'] for run in own])} | {spread(last(own))} "
            f"| {spread(best)} | {statistics.mean(run['dead'] for run in own):.2f} |"
        )
    return "\n".join(lines)


def comparison(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """JAX less PyTorch, seed by seed, with the 95 % interval of the mean (Student's t)."""
    lines = [
        "| case | JAX | PyTorch | JAX − PyTorch, 95 % interval | outcomes alike |",
        "|---|---|---|---|---|",
    ]
    for case in runs["jax"]:
        sides = [runs[framework][case] for framework in FRAMEWORKS["both"]]
        differences, count = last(sides[0]) - last(sides[1]), len(sides[0])
        interval = "–"
        if count > 1:
            error = differences.std(ddof=1) / np.sqrt(count)
            interval = f"{scipy.stats.t.ppf(0.975, count - 1) * error:.4f}"
        same = sum(a["outcome"] == b["outcome"] for a, b in zip(*sides, strict=True))
        lines.append(
            f"| {case} | {last(sides[0]).mean():.4f} | {last(sides[1]).mean():.4f} "
            f"| {differences.mean():+.4f} ± {interval} | {same} of {count} |"
        )
    return "\n".join(lines)


# ---- the command


def plane(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Initial scales κ of both layers, and the R at which S reaches its limit: S = R · λmax."""
    from jaxmlp.forecast import curvature
    from jaxmlp.train.run import prepare

    scales = np.geomspace(1 / 40, 200, 25)
    critical, steps = [], Steps(len(scales))
    for scale in scales:
        experiment = Experiment(init_scale=(float(scale),))
        ready = prepare(experiment, dataset)
        found = curvature.sharpness(experiment, ready, curvature.sample(next(ready.order)))
        critical.append(question.RATE / found.ratio)
        steps.done(f"sharpness at initial scales × {scale:.3g}")
    return scales, np.array(critical)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.device import compilation

    frameworks = FRAMEWORKS[values.framework]
    dataset = job.load(values, lambda text: print(text, file=sys.stderr))
    atomic.make_directory(values.out)
    files = sums.Sums(values.out, NAMES, KEY)
    files.check(WRITTEN)
    runs = Runs(dataset, values.out / "runs.jsonl", all_runs(values))
    compilation.use_compilation_cache()
    experiments = cases(values.epochs)
    found = {
        framework: {
            case: runs.seeds(framework, case, experiment, values.seeds)
            for case, experiment in experiments.items()
        }
        for framework in frameworks
    }
    pages = [
        f"{dataset.source}; {counted(values.seeds, 'seed')}, {counted(values.epochs, 'epoch')}."
    ]
    pages += [f"{name}:\n\n{case_table(experiments, own)}" for name, own in found.items()]
    if len(frameworks) == 2:
        pages.append(comparison(found))
    first = found[frameworks[0]]
    figures = question_figures.of_cases(first, dataset.name)
    if "jax" in frameworks and not values.cases_only:
        asked = claims(values.epochs)
        seeds = min(values.seeds, CLAIM_SEEDS)
        tried = {name: runs.seeds("jax", name, e, seeds) for name, e in asked.items()}
        pages.append(f"Other claims, {counted(seeds, 'seed')} (the baseline: {values.seeds}):")
        pages.append(claim_table({"baseline": first["baseline"], **tried}))
        rates = {name: (e, runs.get("jax", name, e)) for name, e in collapse().items()}
        figures |= question_figures.of_rates(list(rates.values()), dataset.name)
        points = {case: (canonical(experiments[case]), first[case]) for case in first}
        figures |= question_figures.of_plane(*plane(dataset), points, dataset.name)
    text = "\n\n".join(pages) + "\n"
    files.put({"tables.md": text.encode(), **figures})
    print(f"\n{text}\nwritten: {values.out}/tables.md, {', '.join(figures)}")


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="jax", help="(default: jax)")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="how many, from 0 on (default: 5)"
    )
    parser.add_argument("--epochs", type=int, default=20, help="of a case (default: 20)")
    parser.add_argument(
        "--cases-only", action="store_true", help="not the claims, the rates and the plane"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/reproduce"),
        metavar="DIR",
        help="runs, tables and figures (default: runs/reproduce)",
    )
    values = parser.parse_args(arguments)
    if values.seeds < 1 or values.epochs < 1:
        exit_status.fail("--seeds and --epochs must be at least 1", exit_status.INPUT)
    with exit_status.one_line_errors(f"finished runs are kept in {values.out}"):
        run(values)
