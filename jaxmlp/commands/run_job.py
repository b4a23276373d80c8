"""The job of run_jax.py and run_torch.py: from flags to a written record, whoever trains."""

import argparse
import contextlib
import datetime
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np

from jaxmlp.commands import exit_status, flags, invocation, output
from jaxmlp.commands import signals as stopping
from jaxmlp.data.dataset import Dataset
from jaxmlp.errors import TerminatedError
from jaxmlp.experiment import Experiment
from jaxmlp.record import run_directory

# What a command's --framework takes, and whom it lets train.
FRAMEWORKS = {"jax": ("jax",), "torch": ("torch",), "both": ("jax", "torch")}


class Trainer(Protocol):
    """A run, ready to train: jaxmlp.train.Run, or run_torch.py's."""

    setup_seconds: float
    compile_seconds: float
    train_size: int

    def epochs(self) -> Iterator[Any]: ...

    def row(self, epoch: int, result: Any) -> dict[str, Any]: ...

    def steps(self, results: list[Any]) -> dict[str, np.ndarray]: ...


class Checkpoints(Protocol):
    """A run's checkpoints: jaxmlp.checkpoint.Checkpoints."""

    def resume(self, run: Any) -> list[Any]: ...

    def save(self, run: Any, finished: list[Any], last: bool) -> None: ...

    def discard(self) -> None: ...


Warn = Callable[[str], None]


class Framework(NamedTuple):
    """What trains; its functions import what is slow only when they are called."""

    name: str  # as in the record
    command: str  # that trains with it
    packages: tuple[str, ...]  # whose versions the record holds
    device: Callable[[argparse.Namespace], str]
    trainer: Callable[[argparse.Namespace, Experiment, Dataset], Trainer]
    load: Callable[[argparse.Namespace, Warn], Dataset]
    forecast: Callable[[Experiment, Dataset], dict[str, Any]] | None = None
    checkpoints: (
        Callable[
            [argparse.Namespace, Experiment, Dataset, Warn], AbstractContextManager[Checkpoints]
        ]
        | None
    ) = None
    add_flags: Callable[[flags.Parser], None] = lambda parser: None  # its own


def load(values: argparse.Namespace, warn: Warn) -> Dataset:
    """The data set that --data and --data-dir name."""
    from jaxmlp.data.loading import load_data

    return load_data(values.data, values.data_dir, warn=warn)


def main(description: str, framework: Framework, arguments: list[str] | None = None) -> None:
    """Parses the flags, trains, writes the record, prints how it ended."""
    parser = flags.parser(description)
    flags.add_run_flags(parser)
    framework.add_flags(parser)
    values = parser.parse_args(arguments)
    try:
        case, experiment = flags.experiment(values)
        if framework.checkpoints:
            flags.check_checkpoint_every(values)
    except ValueError as error:
        exit_status.fail(error, exit_status.INPUT)
    with exit_status.one_line_errors(), stopping.Signals() as signals:
        try:
            run(framework, values, case, experiment, signals)
        except KeyboardInterrupt:
            exit_status.fail(f"interrupted; {signals.kept}", exit_status.INTERRUPTED)


def run(
    framework: Framework,
    values: argparse.Namespace,
    case: str,
    experiment: Experiment,
    signals: stopping.Signals,
) -> None:
    """Loads, trains, writes and prints. Imports what is slow only now, after the flags are good."""
    from jaxmlp.commands import terminal
    from jaxmlp.data.dataset import first_images
    from jaxmlp.record import run_record as record

    console = output.console(stderr=values.json)
    resumes = framework.checkpoints is not None and values.checkpoint is not None
    if values.out and not resumes:
        run_directory.check(
            values.out,
            values.overwrite,
            lambda there: record.differing(there, framework.name, experiment, None),
        )
    dataset = framework.load(values, lambda text: warn(console, text))
    signals.end_if_asked()
    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    out = values.out or record.default_directory(
        framework.name, case, experiment, dataset.name, dataset.sha256
    )
    check_memory(experiment, dataset)
    size = record.params_size(experiment, dataset)
    asked = framework.name, experiment, dataset.sha256
    if resumes and not values.overwrite and (result := record.finished(out, *asked)):
        run_directory.settle(out)
        with checkpoints(framework, console, values, experiment, dataset, out) as checkpoint:
            if checkpoint:  # stopped between its record and this
                checkpoint.discard()
        console.print(f"{out} holds this run's record; nothing is left to do", soft_wrap=True)
        if values.json:
            print(record.encode(result), end="")
        return
    with (
        run_directory.claimed(
            out, values.overwrite, size, lambda there: record.differing(there, *asked)
        ),
        checkpoints(framework, console, values, experiment, dataset, out) as checkpoint,
    ):
        result, files = train(
            framework, console, values, case, experiment, dataset, checkpoint, signals
        )
        with signals.held():
            run_directory.save(out, files)
            signals.kept = f"the record is in {out}"
        if checkpoint and result["finished"]:
            checkpoint.discard()
    again = [*invocation.words(framework.command), *flags.data_words(values)]
    terminal.conclude(console, result, out, list(files), again)
    if checkpoint and not result["finished"]:
        console.print(f"checkpoint: {values.checkpoint}; the same command goes on", soft_wrap=True)
    if values.json:
        print(record.encode(result), end="")
    if not result["finished"]:
        end(signals, result, out)


def check_memory(experiment: Experiment, dataset: Dataset) -> None:
    """Sees whether the parameters could ever lie in this machine's memory.

    Raises:
        MemoryError: they could not, in float32 either.
    """
    from jaxmlp.record import run_record as record

    params = record.params_size(experiment, dataset)  # bytes, in float64
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if params // 2 > memory:
        raise MemoryError(
            f"the parameters take {params / 2e9:,.0f} GB, and this machine has {memory / 1e9:,.0f}"
        )


def end(signals: stopping.Signals, result: dict[str, Any], out: Path) -> NoReturn:
    """Ends a command whose record is of an unfinished run."""
    if signals.number != signal.SIGTERM:
        raise SystemExit(exit_status.INTERRUPTED)
    done, asked = len(result["epochs"]), result["experiment"]["epochs"]
    raise TerminatedError(f"terminated after epoch {done} of {asked}; {out} keeps them")


def warn(console, text: str) -> None:
    line = text if text.startswith("WARNING") else f"warning: {text}"
    console.print(line, style="bold yellow", soft_wrap=True, markup=False)


def checkpoints(
    framework: Framework,
    console,
    values: argparse.Namespace,
    experiment: Experiment,
    dataset: Dataset,
    out: Path,
) -> AbstractContextManager[Checkpoints | None]:
    """The checkpoints that --checkpoint asks for, if it does.

    Raises:
        ValueError: the name is empty, or one of the two directories lies in the other.
    """
    if not framework.checkpoints or values.checkpoint is None:
        return contextlib.nullcontext()
    if not values.checkpoint:
        raise ValueError("--checkpoint has an empty name; give a directory's")
    directory, out = (Path(os.path.realpath(path)) for path in (values.checkpoint, out))
    apart = not (directory.is_relative_to(out) or out.is_relative_to(directory))
    if not apart and "://" not in values.checkpoint:
        raise ValueError(
            f"--checkpoint {values.checkpoint} and the record's {out} must lie apart; choose "
            "another directory for one of them"
        )
    return framework.checkpoints(values, experiment, dataset, lambda text: warn(console, text))


def train(
    framework: Framework,
    console,
    values: argparse.Namespace,
    case: str,
    experiment: Experiment,
    dataset: Dataset,
    checkpoint: Checkpoints | None,
    signals: stopping.Signals,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The finished record, and the files of its directory."""
    from jaxmlp.commands import terminal
    from jaxmlp.law import words
    from jaxmlp.record import run_record as record
    from jaxmlp.record.result import Result

    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    device = framework.device(values)
    images = f"{len(dataset.train_labels):,} training images"
    console.print(f"{case}: {dataset.source}, {images}", soft_wrap=True)
    forecast = None
    if framework.forecast and not values.no_forecast:
        forecast = framework.forecast(experiment, dataset)
        console.print(f"forecast: {words.forecast(forecast)}")
    trainer = framework.trainer(values, experiment, dataset)
    ready = f"compiled for {device} in {trainer.compile_seconds:.1f} s"
    console.print(ready if trainer.compile_seconds else f"{framework.name} on {device}")
    results = checkpoint.resume(trainer) if checkpoint else []
    rows = [trainer.row(epoch, result) for epoch, result in enumerate(results, 1)]
    if rows:
        console.print(f"resumed after epoch {len(rows)} of {experiment.epochs}")
    # With checkpoints, SIGTERM is theirs: nothing but the last of them has to be kept.
    signals.after_epoch(console.print, (signal.SIGINT,) if checkpoint else stopping.NUMBERS)
    with terminal.progress(console, experiment.epochs, trainer.train_size, rows) as show:
        for result in trainer.epochs():
            results.append(result)
            rows.append(trainer.row(len(results), result))
            show(rows[-1], result.seconds)
            last = signals.number is not None
            if checkpoint:
                checkpoint.save(trainer, results, last)
            if last:
                break
    seconds = [result.seconds for result in results]
    times = record.timings(
        started, trainer.setup_seconds, trainer.compile_seconds, seconds, trainer.train_size
    )
    record_and_arrays = record.build(
        framework=framework.name,
        case=case,
        experiment=experiment,
        dataset=dataset,
        environment=record.environment(device, framework.packages),
        rows=rows,
        steps=trainer.steps(results),
        params=results[-1].params,
        forecast=forecast,
        timings=times,
    )
    result = Result(*record_and_arrays)
    return result.record, result.files()
