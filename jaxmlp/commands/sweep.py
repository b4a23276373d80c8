"""Trains many runs as one compiled program: `python scripts/sweep.py --init-scale log:0.1:10:9`.

Input scale, learning rates, decays, inits, eps and seeds take several values, all combinations of
which are run: `--input-scale 1 16 255`, `--seed 0..4`, `--learning-rate log:1e-4:1:25`. Settings
per layer take one value for all layers (`0.1`), one for each (`0.1,0.02`), or an axis of their own
for one layer (`--learning-rate.1 log:1e-4:1:9`). With --random, `log:1e-4:1` is drawn from.

It leaves a directory: runs.parquet (a row per run), curves.parquet (a row per run and epoch),
figures and sweep.json. Finished chunks are on disk at once; --resume goes on after a crash.
"""

import argparse
import contextlib
import datetime
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlp import grid
from jaxmlp.commands import exit_status, tensorboard
from jaxmlp.commands.signals import Signals
from jaxmlp.commands.sweep_flags import parse, plan
from jaxmlp.experiment import Experiment
from jaxmlp.law.words import counted

KEPT = "finished chunks are kept; --resume goes on"


class Request(NamedTuple):
    """What the flags ask for."""

    values: argparse.Namespace
    base: Experiment
    axes: list[grid.Axis]
    settings: list[Experiment]


def main(arguments: list[str] | None = None) -> None:
    """Parses the flags, trains what is not done, writes, prints how it ended."""
    values = parse(arguments, __doc__ or "")
    try:
        with exit_status.one_line_errors(KEPT, for_good=arguments is None) as signals:
            tensorboard.check(values)
            run(Request(values, *plan(values)), signals)
    except SystemExit as ended:
        # Without JAX there was no other process yet to be left.
        if (values.coordinator or values.distributed) and "jax" in sys.modules:
            from jaxmlp.device import processes

            processes.leave(int(ended.code or 0))
        raise


def run(request: Request, signals: Signals) -> None:
    """Loads, trains chunk by chunk, writes. Imports what is slow only now, the flags are good."""
    from jaxmlp.commands import output
    from jaxmlp.device import compilation, processes

    values = request.values
    with processes.together():
        processes.distribute(
            values.coordinator, values.processes, values.process_id, values.distributed
        )
        compilation.use_compilation_cache()
        console = output.console(soft_wrap=True, quiet=not processes.is_first())
        out = run_together(request, console, signals)
    if out:
        console.print(f"sweep: {out}")


def run_together(request: Request, console, signals: Signals) -> Path | None:
    """The sweep's directory, trained and written; None if it was finished before."""
    from jaxmlp.device import processes
    from jaxmlp.record import sweep_directory
    from jaxmlp.sweeps import job

    values = request.values
    dataset = load(request, console)
    description = job.description(
        request.base,
        request.axes,
        {"zip": values.zip, "random": values.random, "seed": values.sweep_seed},
        request.settings,
        values.seeds,
        dataset,
        not values.no_forecast,
    )
    processes.alike(description["identity"])
    out = values.out or Path("runs") / f"sweep-{description['identity'][:10]}"
    runs = len(request.settings) * len(values.seeds)
    # Only the first process writes; the others learn whether there is anything to do.
    directory = processes.by_first(
        lambda: sweep_directory.Directory(out, description, runs, values.resume, values.overwrite)
    )
    if processes.agree(directory is not None and directory.finished):
        if directory:
            finish_again(directory, console)
            draw_in_tensorboard(values, out, console)
        return None
    sweep = compiled(values, request.settings, dataset)
    processes.by_first(lambda: directory.begin() if directory else None)
    try:
        train(sweep, directory, description, request.axes, console, signals)
    finally:
        if directory:
            directory.close()
    if directory:
        draw_in_tensorboard(values, out, console)
    return out


def draw_in_tensorboard(values: argparse.Namespace, out: Path, console) -> None:
    """Writes the event files that --tensorboard asks for, from the tables that are safe now."""
    from jaxmlp.record.tensorboard import write_sweep

    tensorboard.write(values, write_sweep, out, console)


def load(request: Request, console) -> Any:
    """The data set, once all that it has to fit is seen to fit."""
    from jaxmlp.commands import run_job
    from jaxmlp.device.mesh import device_mesh

    base, warn = request.base, functools.partial(run_job.warn, console)
    dataset = run_job.load(request.values, warn, base.train_size or None)
    run_job.check_memory(base, dataset)
    device_mesh(request.values.data_parallel, base.batch_size)
    base.steps_per_epoch(len(dataset.train_labels))
    return dataset


def compiled(values: argparse.Namespace, settings: list[Experiment], dataset: Any) -> Any:
    """The sweep, ready to train, on the devices that the flags ask for."""
    from jaxmlp.sweeps.sweep import Sweep

    return Sweep(
        settings,
        values.seeds,
        dataset,
        values.data_parallel,
        values.runs_per_device,
        None if values.batching is None else values.batching == "vmap",
    )


def finish_again(directory: Any, console) -> None:
    """A sweep that was finished before: what a crash may have left undone at its end."""
    from jaxmlp.record import sweep_files

    directory.begin()
    try:
        draw(directory, *sweep_files.load(directory.out), console)
    finally:
        directory.close()
    console.print(f"{directory.out} is finished; nothing is left to do")


def draw(directory: Any, description: dict[str, Any], runs: Any, curves: Any, console) -> None:
    """The figures and the page of a sweep whose tables are written."""
    from jaxmlp.commands import run_job
    from jaxmlp.pages import report
    from jaxmlp.pages.sweep import sweep_page
    from jaxmlp.record import sweep_figures, sweep_files

    figures = sweep_figures.draw(description, runs)
    sweep_files.save_figures(directory.out, figures, description["identity"])
    warn = functools.partial(run_job.warn, console)
    report.beside(directory.out, lambda: sweep_page(description, runs, curves), warn)


def train(
    sweep: Any,
    directory: Any,
    description: dict[str, Any],
    axes: list[grid.Axis],
    console,
    signals: Signals,
) -> None:
    """Trains what is not done; the first process, which has the directory, keeps it."""
    from jaxmlp.device import processes
    from jaxmlp.sweeps import job

    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    runs = len(sweep.settings) * len(sweep.seeds)
    done = processes.agree_on(directory.done() if directory else set(), runs)
    console.print(job.describe(sweep, axes, len(done)))
    for path in directory.damaged() if directory else ():
        console.print(f"{path} is damaged, or not this sweep's: it is not used, and left there")
    train_chunks(sweep, directory, description["forecast"], done, console, signals)
    if directory:
        timings = {
            "started": started,
            "setup_seconds": sweep.setup_seconds,
            "train_seconds": time.perf_counter() - began,
        }
        finish(directory, description, timings, console)


def train_chunks(
    sweep: Any, directory: Any, forecast: bool, done: set[int], console, signals: Signals
) -> None:
    """Each chunk's rows are on disk before the next is trained."""
    from jaxmlp.sweeps import job

    trained, left = 0, len(sweep.settings) * len(sweep.seeds) - len(done)
    with bar(console, left) as show:

        def after_epoch(so_far: float) -> None:
            signals.end_if_asked()
            show(so_far)

        for rows in job.train(sweep, done, forecast, after_epoch):
            signals.end_if_asked()
            if directory:
                directory.add(rows)
            trained += len(rows)
            show(trained)


def finish(directory: Any, description: dict[str, Any], timings: dict[str, Any], console) -> None:
    """The tables and figures of a sweep that is trained, and how it ended."""
    from jaxmlp.record import sweep_figures
    from jaxmlp.sweeps import job

    runs, curves = directory.tables()
    directory.finish(runs, curves, timings)
    draw(directory, description, runs, curves, console)
    if strange := directory.strange():
        files = counted(strange, "file")
        console.print(f"{directory.parts} stays: {files} in it not the sweep's")
    console.print(job.summary(runs, sweep_figures.swept(runs)))


@contextlib.contextmanager
def bar(console, total: int) -> Iterator[Callable[[float], None]]:
    """A bar over the whole sweep on a terminal, a line after each chunk elsewhere.

    Yields:
        A function of the runs that are trained, parts of runs included.
    """
    from rich import progress as rich

    began = time.perf_counter()
    columns = (
        rich.TextColumn("runs"),
        rich.BarColumn(bar_width=30),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(compact=True),
    )
    with rich.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=total)

        def show(trained: float) -> None:
            shown.update(task, completed=int(trained))
            if not console.is_terminal and isinstance(trained, int):
                left = (time.perf_counter() - began) / trained * (total - trained)
                console.print(f"{trained:,} of {counted(total, 'run')}, {left:.0f} s left")

        yield show
