"""The job of run_jax.py and run_torch.py: from flags to a written record, whoever trains."""

import argparse
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import numpy as np

from jaxmlp.commands import exit_status, flags, invocation, output, tensorboard
from jaxmlp.commands.signals import NUMBERS, Signals
from jaxmlp.data.dataset import Dataset
from jaxmlp.errors import TerminatedError
from jaxmlp.experiment import Experiment
from jaxmlp.record import run_directory

if TYPE_CHECKING:
    from jaxmlp.record.result import Result

# What a command's --framework takes, and whom it lets train.
FRAMEWORKS = {"jax": ("jax",), "torch": ("torch",), "both": ("jax", "torch")}
COMMANDS = {"jax": "run", "torch": "run-torch"}  # by framework


class Trainer(Protocol):
    """A run, ready to train: jaxmlp.training.run.Run, or torch_side.TorchTrainer."""

    experiment: Experiment
    setup_seconds: float
    compile_seconds: float
    train_size: int

    def epochs(self) -> Iterator[Any]: ...

    def row(self, epoch: int, result: Any) -> dict[str, Any]: ...

    def steps(self, results: list[Any]) -> dict[str, np.ndarray]: ...


class Checkpoints(Protocol):
    """A run's checkpoints: jaxmlp.training.checkpoint.Checkpoints."""

    def resume(self, run: Any) -> list[Any]: ...

    def save(self, run: Any, finished: list[Any], last: bool) -> None: ...

    def discard(self) -> None: ...


Warn = Callable[[str], None]


class Framework(NamedTuple):
    """What trains; its functions import what is slow only when they are called."""

    name: str  # as in the record
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


class Job(NamedTuple):
    """What one command was asked to do, and where it speaks."""

    framework: Framework
    values: argparse.Namespace
    case: str
    experiment: Experiment
    console: Any
    signals: Signals

    @property
    def resumes(self) -> bool:
        """Whether it goes on from checkpoints, if there are any."""
        return self.framework.checkpoints is not None and self.values.checkpoint is not None

    def warn(self, text: str) -> None:
        warn(self.console, text)


def main(description: str, framework: Framework, arguments: list[str] | None = None) -> None:
    """Parses the flags, trains, writes the record, prints how it ended."""
    parser = flags.parser(description)
    flags.add_run_flags(parser)
    framework.add_flags(parser)
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors(for_good=arguments is None) as signals:
        case, experiment = flags.experiment(values)
        if framework.checkpoints:
            flags.check_checkpoint_every(values)
        tensorboard.check(values)
        console = output.console(stderr=values.json)
        run(Job(framework, values, case, experiment, console, signals))


def run(job: Job) -> None:
    """Loads, trains, writes and prints. Imports what is slow only now, after the flags are good."""
    from jaxmlp.record import run_record as record

    values, name, experiment = job.values, job.framework.name, job.experiment
    if values.out and not job.resumes:  # before the data, which may take minutes
        run_directory.check(
            values.out,
            values.overwrite,
            lambda there: record.differing(there, name, experiment, None),
        )
    dataset = load_for(job)
    out = values.out or record.default_directory(
        name, job.case, experiment, dataset.name, dataset.sha256
    )
    check_memory(experiment, dataset)
    if job.resumes and not values.overwrite:
        result = record.finished(out, name, experiment, dataset.sha256)
        if result:
            settle(job, dataset, result, out)
            draw_in_tensorboard(job, out)
            return
    result, files = train_into(job, dataset, out)
    tell(job, result, out, files)
    draw_in_tensorboard(job, out)
    if not result["finished"]:
        end(job.signals, result, out)


def load(values: argparse.Namespace, warn: Warn, train_size: int | None = None) -> Dataset:
    """The data set that --data and --data-dir name; its first training images, if so many."""
    from jaxmlp.data.loading import load_data

    return load_data(values.data, values.data_dir, warn=warn, train_size=train_size)


def load_for(job: Job) -> Dataset:
    """The data set that the framework trains on."""
    from jaxmlp.data.dataset import first_images

    dataset = job.framework.load(job.values, job.warn)
    job.signals.end_if_asked()
    if job.experiment.train_size:
        dataset = first_images(dataset, job.experiment.train_size)
    return dataset


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


def settle(job: Job, dataset: Dataset, result: dict[str, Any], out: Path) -> None:
    """Ends a job whose record is there: what a crash may have left undone after it."""
    from jaxmlp.record import run_record as record

    run_directory.settle(out)
    with checkpoints(job, dataset, out) as checkpoint:
        if checkpoint:  # stopped between its record and this
            checkpoint.discard()
    job.console.print(f"{out} holds this run's record; nothing is left to do", soft_wrap=True)
    if job.values.json:
        print(record.encode(result), end="")


def train_into(job: Job, dataset: Dataset, out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Trains and writes: the record, and the files of its directory, which is claimed before."""
    from jaxmlp.pages import report
    from jaxmlp.pages.run import run_page
    from jaxmlp.record import run_record as record

    name, experiment = job.framework.name, job.experiment
    size = record.params_size(experiment, dataset)
    claim = run_directory.claimed(
        out,
        job.values.overwrite,
        size,
        lambda there: record.differing(there, name, experiment, dataset.sha256),
    )
    with claim, checkpoints(job, dataset, out) as checkpoint:
        result = train(job, dataset, checkpoint)
        files = result.files()
        with job.signals.held():
            run_directory.save(out, files)
            job.signals.kept = f"the record is in {out}"
            files |= report.beside(out, lambda: run_page(result), job.warn)
        if checkpoint and result.record["finished"]:
            checkpoint.discard()
    return result.record, files


def tell(job: Job, result: dict[str, Any], out: Path, files: dict[str, bytes]) -> None:
    """Prints how it ended and where it lies; the record itself for --json."""
    from jaxmlp.commands import terminal
    from jaxmlp.record import run_record as record

    again = [*invocation.words(COMMANDS[job.framework.name]), *flags.data_words(job.values)]
    terminal.conclude(job.console, result, out, list(files), again)
    if job.resumes and not result["finished"]:
        checkpoint = f"checkpoint: {job.values.checkpoint}; the same command goes on"
        job.console.print(checkpoint, soft_wrap=True)
    if job.values.json:
        print(record.encode(result), end="")


def draw_in_tensorboard(job: Job, out: Path) -> None:
    """Writes the event files that --tensorboard asks for, from the record that is safe now."""
    from jaxmlp.record.tensorboard import write_run

    tensorboard.write(job.values, write_run, out, job.console)


def end(signals: Signals, result: dict[str, Any], out: Path) -> NoReturn:
    """Ends a command whose record is of an unfinished run."""
    if signals.number != signal.SIGTERM:
        raise SystemExit(exit_status.INTERRUPTED)
    done, asked = len(result["epochs"]), result["experiment"]["epochs"]
    raise TerminatedError(f"terminated after epoch {done} of {asked}; {out} keeps them")


def warn(console, text: str) -> None:
    line = text if text.startswith("WARNING") else f"warning: {text}"
    console.print(line, style="bold yellow", soft_wrap=True, markup=False)


def checkpoints(
    job: Job, dataset: Dataset, out: Path
) -> AbstractContextManager[Checkpoints | None]:
    """The checkpoints that --checkpoint asks for, if it does.

    Raises:
        ValueError: the name is empty, or one of the two directories lies in the other.
    """
    named = job.values.checkpoint if job.resumes else None
    if job.framework.checkpoints is None or named is None:
        return contextlib.nullcontext()
    if not named:
        raise ValueError("--checkpoint has an empty name; give a directory's")
    directory, real_out = (Path(os.path.realpath(path)) for path in (named, out))
    apart = not (directory.is_relative_to(real_out) or real_out.is_relative_to(directory))
    if not apart and "://" not in named:
        raise ValueError(
            f"--checkpoint {named} and the record's {real_out} must lie apart; choose "
            "another directory for one of them"
        )
    return job.framework.checkpoints(job.values, job.experiment, dataset, job.warn)


# ---- the training


def train(job: Job, dataset: Dataset, checkpoint: Checkpoints | None) -> "Result":
    """What the run leaves."""
    from jaxmlp.record import run_record as record
    from jaxmlp.record.result import conclude, now

    framework, experiment = job.framework, job.experiment
    started = now()
    device = framework.device(job.values)
    images = f"{len(dataset.train_labels):,} training images"
    job.console.print(f"{job.case}: {dataset.source}, {images}", soft_wrap=True)
    forecast = foretell(job, dataset)
    trainer = framework.trainer(job.values, experiment, dataset)
    ready = f"compiled for {device} in {trainer.compile_seconds:.1f} s"
    job.console.print(ready if trainer.compile_seconds else f"{framework.name} on {device}")
    results, rows = train_epochs(job, trainer, checkpoint)
    return conclude(
        trainer,
        results,
        rows,
        framework=framework.name,
        case=job.case,
        dataset=dataset,
        environment=record.environment(device, framework.packages),
        forecast=forecast,
        started=started,
    )


def foretell(job: Job, dataset: Dataset) -> dict[str, Any] | None:
    """The record's section `forecast`, said before the run; None where none is asked for."""
    from jaxmlp.law import words

    if job.framework.forecast is None or job.values.no_forecast:
        return None
    forecast = job.framework.forecast(job.experiment, dataset)
    job.console.print(f"forecast: {words.forecast(forecast)}")
    return forecast


def train_epochs(
    job: Job, trainer: Trainer, checkpoint: Checkpoints | None
) -> tuple[list[Any], list[dict[str, Any]]]:
    """What each epoch left and its row of the record; fewer than asked after a signal."""
    from jaxmlp.commands import terminal

    epochs = job.experiment.epochs
    results = checkpoint.resume(trainer) if checkpoint else []
    rows = [trainer.row(epoch, result) for epoch, result in enumerate(results, 1)]
    if rows:
        job.console.print(f"resumed after epoch {len(rows)} of {epochs}")
    # With checkpoints, SIGTERM is theirs: nothing but the last of them has to be kept.
    job.signals.after_epoch(job.console.print, (signal.SIGINT,) if checkpoint else NUMBERS)
    with terminal.progress(job.console, epochs, trainer.train_size, rows) as show:
        for result in trainer.epochs():
            results.append(result)
            rows.append(trainer.row(len(results), result))
            show(rows[-1], result.seconds)
            last = job.signals.number is not None
            if checkpoint:
                checkpoint.save(trainer, results, last)
            if last:
                break
    return results, rows
