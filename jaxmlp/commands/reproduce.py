"""The whole question in one command: every case with several seeds, the tables and the figures.

The cases of the question, the claims of its answers (more epochs, centred and standardised inputs,
wider and deeper networks), and learning rates at several input scales. All runs of one network are
one compiled program. Finished runs are kept in --out (runs.jsonl) and not repeated.

--cnn asks a small convolutional network instead (with it --help lists its flags).
"""

import argparse
import functools
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags, output, reproduce_cnn
from jaxmlp.commands.progress import Steps
from jaxmlp.commands.run_job import FRAMEWORKS
from jaxmlp.experiment import Experiment
from jaxmlp.law.words import counted

NAMES = r"tables\.md|[a-z_]+\.png"
WRITTEN = ("tables.md", "accuracy.png", "first_steps.png", "collapse.png", "plane.png")
PLANE_SCALES = (1 / 40, 200, 25)  # initial scales κ of both layers: from, to, how many


def main(arguments: list[str] | None = None) -> None:
    if reproduce_cnn.asked(arguments):
        reproduce_cnn.main(arguments)
        return
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
    kept = f"finished runs are kept in {values.out}"
    with exit_status.one_line_errors(kept, for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    """Trains what is not kept, and writes tables and figures."""
    from jaxmlp.commands import run_job
    from jaxmlp.device import compilation
    from jaxmlp.pages import question, report
    from jaxmlp.record import question_experiments, question_runs, sums

    frameworks = FRAMEWORKS[values.framework]
    dataset = run_job.load(values, output.to_stderr)
    atomic.make_directory(values.out)
    files = sums.Sums(values.out, NAMES, question_runs.KEY)
    files.check(WRITTEN)
    path = values.out / "runs.jsonl"
    kept = question_runs.read(path, output.to_stderr)
    wanted = question_experiments.wanted(frameworks, values.epochs, values.seeds, values.cases_only)
    steps = announce(wanted, kept, dataset.sha256)
    compilation.use_compilation_cache()
    runs = question_runs.Runs(path, kept, dataset.sha256, functools.partial(train, dataset, steps))
    text, figures = answer(values, frameworks, dataset, runs)
    files.put({"tables.md": text.encode(), **figures})
    page = report.beside(
        values.out, lambda: question.question_page(runs.kept, values.out), output.to_stderr
    )
    names = ", ".join([*figures, *page])
    print(f"\n{text}\nwritten: {values.out}/tables.md, {names}")


def announce(wanted: list[Any], kept: dict[str, Any], data: str) -> Steps:
    """Says how many runs there are, before the first; their steps."""
    from jaxmlp.record.question_runs import key_of

    left = [run for run in wanted if key_of(run, data) not in kept]
    epochs = sum(experiment.epochs for _, _, experiment in left)
    longest = max(experiment.epochs for _, _, experiment in wanted)
    done = len(wanted) - len(left)
    output.to_stderr(
        f"{counted(len(wanted), 'run')}, {done} of them done before; "
        f"{counted(epochs, 'epoch')} to train, up to {longest} a run"
    )
    return Steps(len(wanted), epochs, done)


def train(
    dataset: Any, steps: Steps, framework: str, name: str, experiment: Experiment
) -> dict[str, Any]:
    """What is kept of one run, and with JAX what was foretold of it."""
    from jaxmlp.record import question_runs

    words = f"{framework} {name}, seed {experiment.seed}"
    steps.under_way(words)
    if framework == "jax":
        from jaxmlp.forecasting.rehearsal import forecast
        from jaxmlp.training.run import Run as Start

        foretold = {"foretold": forecast(experiment, dataset).to_json()}
    else:
        from jaxmlp.commands.torch_side import TorchTrainer as Start

        foretold = {}

    def show(epoch: int) -> None:
        steps.under_way(f"{words}: epoch {epoch} of {experiment.epochs}")

    result = question_runs.summary(Start(experiment, dataset), dataset.classes, show)
    ended = f"{result['outcome']}, {result['test_accuracy'][-1]:.3f}"
    steps.done(f"{words}: {ended}", experiment.epochs)
    return {**result, **foretold}


def answer(
    values: argparse.Namespace, frameworks: tuple[str, ...], dataset: Any, runs: Any
) -> tuple[str, dict[str, bytes]]:
    """The text of tables.md, and the figures by name."""
    from jaxmlp.record import question_experiments, question_figures, question_tables

    experiments = question_experiments.cases(values.epochs)
    cases: dict[str, dict[str, Any]] = {}
    for framework in frameworks:
        cases[framework] = {
            case: runs.seeds(framework, case, experiment, values.seeds)
            for case, experiment in experiments.items()
        }
    counts = f"{counted(values.seeds, 'seed')}, {counted(values.epochs, 'epoch')}"
    pages = [f"{dataset.source}; {counts}."]
    for framework in frameworks:
        table = question_tables.case_table(experiments, cases[framework])
        pages.append(f"{framework}:\n\n{table}")
    if len(frameworks) == 2:
        pages.append(question_tables.comparison(cases["jax"], cases["torch"]))
    first = cases[frameworks[0]]
    figures = question_figures.of_cases(first, dataset.name)
    if "jax" in frameworks and not values.cases_only:
        pages += claim_pages(values, runs, first["baseline"])
        figures |= more_figures(experiments, first, dataset, runs)
    return "\n\n".join(pages) + "\n", figures


def claim_pages(values: argparse.Namespace, runs: Any, baseline: list[Any]) -> list[str]:
    """What became of the answers' claims."""
    from jaxmlp.record import question_experiments, question_tables

    seeds = min(values.seeds, question_experiments.MOST_CLAIM_SEEDS)
    claims = {
        name: runs.seeds("jax", name, experiment, seeds)
        for name, experiment in question_experiments.claims(values.epochs).items()
    }
    heading = f"Other claims, {counted(seeds, 'seed')} (the baseline: {values.seeds}):"
    return [heading, question_tables.claim_table({"baseline": baseline, **claims})]


def more_figures(
    experiments: dict[str, Experiment], cases: dict[str, Any], dataset: Any, runs: Any
) -> dict[str, bytes]:
    """The learning rates at several input scales, and the plane in which the cases lie."""
    from jaxmlp.law.canonical import canonical
    from jaxmlp.record import question_experiments, question_figures

    rates = [
        (experiment, runs.get("jax", name, experiment))
        for name, experiment in question_experiments.collapse().items()
    ]
    figures = question_figures.of_rates(rates, dataset.name)
    points = {case: (canonical(experiments[case]), seeds) for case, seeds in cases.items()}
    return figures | question_figures.of_plane(*plane(dataset), points, dataset.name)


def plane(dataset: Any) -> tuple[Any, Any]:
    """Initial scales κ of both layers, and the learning rate at which each meets its limit."""
    import numpy as np

    from jaxmlp.forecasting.curvature import critical_rate

    scales = np.geomspace(*PLANE_SCALES)
    critical, steps = [], Steps(len(scales))
    for scale in scales:
        critical.append(critical_rate(Experiment(init_scale=(float(scale),)), dataset))
        steps.done(f"sharpness at initial scales × {scale:.3g}")
    return scales, np.array(critical)
