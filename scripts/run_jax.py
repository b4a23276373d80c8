"""Trains one network and leaves a record: `python scripts/run_jax.py --input-scale 255`."""

import argparse
import contextlib
import datetime
import signal
import sys
from collections.abc import Callable, Iterator

from jaxmlp import flags
from jaxmlp.experiment import Experiment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def main(arguments: list[str] | None = None) -> None:
    parser = flags.parser(
        "Train the question's MLP on CIFAR-10, as one compiled JAX program, and say what happened."
    )
    flags.add_run_flags(parser)
    values = parser.parse_args(arguments)
    try:
        case, experiment = flags.experiment(values)
    except ValueError as error:
        flags.fail(error, flags.INPUT)
    with flags.one_line_errors():
        run(values, case, experiment)


def run(values: argparse.Namespace, case: str, experiment: Experiment) -> None:
    """Loads, trains, writes and prints. Imports what is slow only now, after the flags are good."""
    from rich.console import Console

    from jaxmlp import data, devices, record, terminal

    console = Console(stderr=values.json, highlight=False)
    if values.out:
        record.check(values.out, values.overwrite, size=0)
    dataset = data.load(values.data, values.data_dir, warn=lambda text: warn(console, text))
    if experiment.train_size:
        dataset = data.first(dataset, experiment.train_size)
    out = values.out or record.default_directory(case, experiment, dataset.name, dataset.sha256)
    record.check(out, values.overwrite, record.params_size(experiment, dataset))
    devices.use_compilation_cache()
    result, files = train(console, case, experiment, dataset)
    record.save(out, files)
    terminal.conclude(console, result, out)
    if values.json:
        print(record.encode(result), end="")
    if not result["finished"]:
        raise SystemExit(flags.INTERRUPTED)


def warn(console, text: str) -> None:
    line = text if text.startswith("WARNING") else f"warning: {text}"
    console.print(line, style="bold yellow", soft_wrap=True, markup=False)


def train(console, case: str, experiment: Experiment, dataset) -> tuple[dict, dict[str, bytes]]:
    """The finished record, and the files of its directory."""
    from jaxmlp import devices, record, terminal
    from jaxmlp.train import Run

    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    device = devices.describe()
    images = f"{len(dataset.train_labels):,} training images"
    console.print(f"{case}: {dataset.source}, {images}", soft_wrap=True)
    compiled = Run(experiment, dataset)
    console.print(f"compiled for {device} in {compiled.compile_seconds:.1f} s")
    results = []
    with (
        finishing_epochs(console) as stop,
        terminal.progress(console, experiment.epochs, compiled.train_size) as show,
    ):
        for epoch in compiled.epochs():
            results.append((compiled.row(len(results) + 1, epoch), epoch))
            show(results[-1][0], epoch.seconds)
            if stop():
                break
    seconds = [epoch.seconds for _, epoch in results]
    times = record.timings(
        started, compiled.setup_seconds, compiled.compile_seconds, seconds, compiled.train_size
    )
    return record.build(
        framework="jax",
        case=case,
        experiment=experiment,
        dataset=dataset,
        environment=record.environment(device, PACKAGES),
        rows=[row for row, _ in results],
        steps=compiled.steps([epoch for _, epoch in results]),
        params=results[-1][1].params,
        timings=times,
    )


@contextlib.contextmanager
def finishing_epochs(console) -> Iterator[Callable[[], bool]]:
    """Ctrl-C lets the epoch under way finish; a second one stops at once.

    Yields:
        A function that says whether to stop.
    """
    asked = []

    def handle(number, frame) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        console.print("\nfinishing this epoch, then keeping what there is; Ctrl-C again: stop now")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
