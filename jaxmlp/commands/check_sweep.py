"""Is each run of a sweep what it is alone? Trains the runs one by one and compares.

`python scripts/check_sweep.py --seed 0..63`: with sweep.py's flags of what is swept; trains the
sweep, which leaves nothing behind, and every run by itself, and compares them step by step.

`python scripts/check_sweep.py DIR`: a finished sweep's directory, on the same data; compares with
its tables what every run, or --sample of them, gives by itself (`check_sweep.py DIR --help`).
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.commands import exit_status, flags
from jaxmlp.commands import sweep as command
from jaxmlp.commands.progress import Steps
from jaxmlp.experiment import Experiment
from jaxmlp.law.words import counted

CALM = 1e-3  # relative difference of losses up to which two runs are followed


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    directory = bool(arguments) and not arguments[0].startswith("-")
    check = of_directory(arguments) if directory else of_flags(arguments)
    with exit_status.one_line_errors("nothing more is compared"):
        if not check():
            raise SystemExit(exit_status.TROUBLE)


def of_flags(arguments: list[str]) -> Any:
    """The comparison that sweep.py's flags ask for, not yet begun."""
    values = command.parse(arguments, __doc__ or "", lambda parser: None)
    try:
        base, _, settings = command.plan(values)
    except ValueError as error:
        exit_status.fail(error, exit_status.INPUT)
    return functools.partial(run, values, base, settings)


def of_directory(arguments: list[str]) -> Any:
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
    from jaxmlp.commands import run_job as job
    from jaxmlp.data.dataset import first_images

    dataset = job.load(values, lambda text: print(text, file=sys.stderr))
    return first_images(dataset, experiment.train_size) if experiment.train_size else dataset


# ---- a sweep that is trained for it


def run(values: argparse.Namespace, base: Experiment, settings: list[Experiment]) -> bool:
    """Whether all outcomes are the same."""
    from jaxmlp.device import compilation
    from jaxmlp.record import metrics
    from jaxmlp.sweep import sweep
    from jaxmlp.train.run import Run

    compilation.use_compilation_cache()
    dataset = load(values, base)
    many = sweep.Sweep(
        settings,
        values.seeds,
        dataset,
        values.data_parallel,
        values.runs_per_device,
        None if values.batching is None else values.batching == "vmap",
    )
    how = "side by side" if many.program.side_by_side else "one after the other"
    runs = len(settings) * len(values.seeds)
    print(
        f"{counted(runs, 'run')}, {many.height * many.width} at a time, {how}; "
        f"{counted(base.epochs, 'epoch')} of {dataset.source}"
    )
    alike, outcomes, first, parted = 0, 0, [], []
    steps = Steps(runs)
    for chunk in many.chunks():
        for one in many.train(chunk):
            asked = many.experiment_of(one)
            results = list(Run(asked, dataset).epochs())
            mine, expected = (
                np.concatenate([epoch.steps.loss for epoch in epochs]).astype(float)
                for epochs in (one.epochs, results)
            )
            with np.errstate(all="ignore"):
                apart = np.abs(mine - expected) / np.abs(expected)
            same = mine.tobytes() == expected.tobytes()
            alike += same
            first.append(apart[0])
            if not same and (apart > CALM).any():
                parted.append(int(np.argmax(apart > CALM)) + 1)
            ended = [
                metrics.result_row(asked, len(epochs), epochs[-1], len(dataset.test_labels))
                for epochs in (one.epochs, results)
            ]
            outcomes += near(*ended)
            steps.done(f"compared, {'the same' if same else 'not the same'} in every bit")
    print(f"{alike} of {counted(runs, 'run')}: every loss the same in every bit")
    print(f"first step: at most {max(first):.1e} apart, relative")
    if parted:
        print(f"{len(parted)} part by more than {CALM:g} at some step, the first at {min(parted)}")
    print(f"{outcomes} of {runs} end alike: test accuracy within 0.05, or both not finite")
    return outcomes == runs


def near(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two last epochs tell the same."""
    finite = [bool(np.isfinite(row["test_loss"])) for row in (a, b)]
    return finite[0] == finite[1] and abs(a["test_accuracy"] - b["test_accuracy"]) < 0.05


# ---- a sweep that is there


def check_tables(values: argparse.Namespace) -> bool:
    """Whether the runs of a sweep's tables are what they are alone."""
    from jaxmlp.device import compilation
    from jaxmlp.record import sweep_files
    from jaxmlp.train.run import Run

    asked, runs, curves = sweep_files.load(values.directory)
    experiments = asked_for(asked, runs["experiment"].to_pylist(), values.directory)
    compilation.use_compilation_cache()
    dataset = load(values, experiments[0])
    if dataset.sha256 != asked["data"].get("sha256"):
        raise ValueError(
            f"{values.directory} was trained on {asked['data'].get('source')}, and "
            f"this is {dataset.source}; give its --data"
        )
    epochs: dict[int, list[dict[str, Any]]] = {}
    for row in curves.to_pylist():
        epochs.setdefault(row.pop("run"), []).append(row)
    count = min(values.sample or len(experiments), len(experiments))
    chosen = np.linspace(0, len(experiments) - 1, count).round().astype(int).tolist()
    print(
        f"{count} of {counted(len(experiments), 'run')}, each by itself; "
        f"{counted(experiments[0].epochs, 'epoch')} of {dataset.source}"
    )
    steps, alike, ended = Steps(count), 0, 0
    for index in chosen:
        alone = Run(experiments[index], dataset)
        rows = [alone.row(i + 1, result) for i, result in enumerate(alone.epochs())]
        same = repr(rows) == repr(epochs[index])  # NaN is NaN here
        alike += same
        ended += near(rows[-1], epochs[index][-1])
        steps.done(f"run {index}: {'the same' if same else 'not the same'} in every bit")
    print(f"{alike} of {counted(count, 'run')}: every epoch the same in every bit")
    print(f"{ended} of {count} end alike: test accuracy within 0.05, or both not finite")
    return ended == count


def asked_for(asked: dict[str, Any], fingerprints: list[str], out: Path) -> list[Experiment]:
    """The experiments of a sweep's table, out of its sweep.json.

    Raises:
        ValueError: they are not those of the table.
    """
    from jaxmlp import grid
    from jaxmlp.sweep.blocks import seeded

    axes = [grid.axis(axis["flag"].removeprefix("--"), axis["values"]) for axis in asked["axes"]]
    way, base = asked["way"], Experiment.from_json(asked["experiment"])
    kind = "zip" if way["zip"] else "random" if way["random"] is not None else "grid"
    settings = grid.experiments(base, axes, kind, way["random"], way["seed"] or 0)
    found = [seeded(one, seed) for one in settings for seed in asked["seeds"]]
    if [one.sha256 for one in found] != fingerprints:
        raise ValueError(
            f"{out}: sweep.json and runs.parquet tell of different runs; another "
            "version of the program may have made them"
        )
    return found
