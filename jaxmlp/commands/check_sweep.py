"""Is each run of a sweep what it is alone? Trains the runs one by one and compares.

`python scripts/check_sweep.py --seed 0..63`: with sweep.py's flags of what is swept; trains the
sweep, which leaves nothing behind, and every run by itself, and compares them step by step.

`python scripts/check_sweep.py DIR`: a finished sweep's directory, on the same data; compares with
its tables what every run, or --sample of them, gives by itself (`check_sweep.py DIR --help`).
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmlp.commands import exit_status, flags, output
from jaxmlp.commands import sweep as command
from jaxmlp.commands.progress import Steps
from jaxmlp.commands.sweep_flags import parse, plan
from jaxmlp.experiment import Experiment
from jaxmlp.law.words import counted


def main(arguments: list[str] | None = None) -> None:
    words = sys.argv[1:] if arguments is None else arguments
    directory = bool(words) and not words[0].startswith("-")
    with exit_status.one_line_errors("nothing more is compared", for_good=arguments is None):
        check = of_directory(words) if directory else of_flags(words)
        if not check():
            raise SystemExit(exit_status.TROUBLE)


def of_flags(arguments: list[str]) -> Callable[[], bool]:
    """The comparison that sweep.py's flags ask for, not yet begun."""
    values = parse(arguments, __doc__ or "", lambda parser: None)
    base, _, settings = plan(values)
    return functools.partial(check_runs, values, base, settings)


def of_directory(arguments: list[str]) -> Callable[[], bool]:
    """The comparison with a finished sweep, not yet begun."""
    parser = flags.Parser(__doc__ or "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a finished sweep's")
    flags.add_data_flags(parser)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="compare N runs, evenly spread (default: all)"
    )
    values = parser.parse_args(arguments)
    if values.sample is not None and values.sample < 1:
        exit_status.fail(f"--sample {values.sample} must be at least 1", exit_status.INPUT)
    return functools.partial(check_tables, values)


def load(values: argparse.Namespace, experiment: Experiment) -> Any:
    """The data set, on a device that knows what it compiled before."""
    from jaxmlp.commands import run_job
    from jaxmlp.device import compilation

    compilation.use_compilation_cache()
    return run_job.load(values, output.to_stderr, experiment.train_size or None)


def check_runs(values: argparse.Namespace, base: Experiment, settings: list[Experiment]) -> bool:
    """Whether all runs of a sweep that is trained for it end as they do alone."""
    from jaxmlp.sweeps import alone

    sweep = command.compiled(values, settings, load(values, base))
    how = "side by side" if sweep.program.side_by_side else "one after the other"
    runs = counted(len(settings) * len(values.seeds), "run")
    print(
        f"{runs}, {sweep.height * sweep.width} at a time, {how}; "
        f"{counted(base.epochs, 'epoch')} of {sweep.dataset.source}"
    )
    steps, compared = Steps(len(settings) * len(values.seeds)), []
    for chunk in sweep.chunks():
        for run in sweep.train(chunk):
            compared.append(alone.compare(sweep, run))
            steps.done(f"compared, {in_words(compared[-1].same)}")
    same = sum(run.same for run in compared)
    print(f"{same} of {runs}: every loss the same in every bit")
    farthest = max(run.first_difference for run in compared)
    print(f"first step: at most {farthest:.1e} apart, relative")
    parted = [run.parting_step for run in compared if run.parting_step is not None]
    if parted:
        how_far = f"more than {alone.FOLLOWED:g} at some step"
        print(f"{len(parted)} part by {how_far}, the first at {min(parted)}")
    return tell_ends([run.ends_alike for run in compared])


def check_tables(values: argparse.Namespace) -> bool:
    """Whether the runs of a finished sweep's tables end as they do alone."""
    import numpy as np

    from jaxmlp.record import sweep_files
    from jaxmlp.sweeps import alone

    description, runs, curves = sweep_files.load(values.directory)
    fingerprints = runs["experiment"].to_pylist()
    experiments = alone.experiments_of(description, fingerprints, values.directory)
    dataset = load(values, experiments[0])
    if dataset.sha256 != description["data"].get("sha256"):
        raise ValueError(
            f"{values.directory} was trained on {description['data'].get('source')}, and "
            f"this is {dataset.source}; give its --data"
        )
    epochs: dict[int, list[dict[str, Any]]] = {}
    for row in curves.to_pylist():
        epochs.setdefault(row.pop("run"), []).append(row)
    count = min(values.sample or len(experiments), len(experiments))
    sample = np.linspace(0, len(experiments) - 1, count).round().astype(int).tolist()
    print(
        f"{count} of {counted(len(experiments), 'run')}, each by itself; "
        f"{counted(experiments[0].epochs, 'epoch')} of {dataset.source}"
    )
    steps, same, alike = Steps(count), [], []
    for index in sample:
        bits, ends = alone.compare_rows(experiments[index], epochs[index], dataset)
        same.append(bits)
        alike.append(ends)
        steps.done(f"run {index}: {in_words(bits)}")
    print(f"{sum(same)} of {counted(count, 'run')}: every epoch the same in every bit")
    return tell_ends(alike)


def in_words(same: bool) -> str:
    return f"{'the same' if same else 'not the same'} in every bit"


def tell_ends(alike: list[bool]) -> bool:
    """Says how many runs end as they do alone; whether all do."""
    count = f"{sum(alike)} of {len(alike)}"
    print(f"{count} end alike: test accuracy within 0.05, or both not finite")
    return all(alike)
