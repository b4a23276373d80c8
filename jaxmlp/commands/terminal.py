"""What a person sees of a run: progress while it trains, then how it ended, why, and what to do."""

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxmlp.commands import invocation
from jaxmlp.experiment import Experiment
from jaxmlp.law import advice, explanation
from jaxmlp.law.words import counted
from jaxmlp.record import outcomes

ROWS_SHOWN = 8


def describe(row: dict[str, Any]) -> str:
    """One epoch in one line."""
    dead = ", ".join(f"{share:.1%}" for share in row["dead"])
    return (
        f"loss {row['train_loss']:.4g}  train {row['train_accuracy']:.1%}  "
        f"test {row['test_accuracy']:.1%}" + (f"  dead on test {dead}" if dead else "")
    )


@contextlib.contextmanager
def progress(
    console: Console, epochs: int, images: int, done: list[dict[str, Any]]
) -> Iterator[Callable[[dict[str, Any], float], None]]:
    """Shows each finished epoch: a bar on a terminal, a line each elsewhere.

    Args:
        done: the record's rows of epochs finished before the start, by the run that is resumed.

    Yields:
        A function of the epoch's row of the record and its seconds.
    """
    shown = _bar if console.is_terminal else _lines
    with shown(console, epochs, images, list(done)) as show:
        yield show


@contextlib.contextmanager
def _lines(console: Console, epochs: int, images: int, rows: list[dict[str, Any]]):
    """A line each; of a dead network one, until that should change."""
    start, before = time.perf_counter(), len(rows)

    def line(row: dict[str, Any], seconds: float) -> None:
        rows.append(row)
        pace = (time.perf_counter() - start) / (row["epoch"] - before)
        left = pace * (epochs - row["epoch"])
        over = outcomes.over_since(rows)
        if over and over[1] < row["epoch"]:
            if over[1] == row["epoch"] - 1:
                console.print(
                    f"{over[0]} since epoch {over[1]}; further epochs are not listed while it "
                    f"stays so ({left:.0f} s left; Ctrl-C keeps what there is)",
                    soft_wrap=True,
                )
            return
        console.print(
            f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}  {describe(row)}  "
            f"{images / seconds:,.0f} images/s  {left:.0f} s left",
            soft_wrap=True,
        )

    yield line


@contextlib.contextmanager
def _bar(console: Console, epochs: int, images: int, rows: list[dict[str, Any]]):
    columns = (
        TextColumn("epoch {task.completed}/{task.total}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=epochs, completed=len(rows), status="first epoch ...")

        def advance(row: dict[str, Any], seconds: float) -> None:
            bar.update(task, advance=1, status=describe(row).replace("dead on test", "dead"))

        yield advance


def table(result: dict[str, Any]) -> Table:
    """The first, some, and the last epochs; of a dead network, those until it was dead."""
    rows = result["epochs"]
    over = outcomes.over_since(rows)
    living = rows[: over[1]] if over else rows
    stride = max(1, math.ceil(len(living) / ROWS_SHOWN))
    chosen = [row for i, row in enumerate(living) if i == 0 or (i + 1) % stride == 0]
    if chosen[-1] is not living[-1]:
        chosen.append(living[-1])
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = [layer["name"] for layer in result["layers"][:-1]]
    headings = ["epoch", "train loss", "train acc.", "test loss", "test acc."]
    for heading in headings + [f"dead on test, {name}" for name in names]:
        shown.add_column(heading, justify="right")
    for row in chosen:
        shown.add_row(
            str(row["epoch"]),
            f"{row['train_loss']:.4g}",
            f"{row['train_accuracy']:.1%}",
            f"{row['test_loss']:.4g}",
            f"{row['test_accuracy']:.1%}",
            *(f"{share:.1%}" for share in row["dead"]),
        )
    if over and over[1] < rows[-1]["epoch"]:
        shown.caption = f"{over[0]} from epoch {over[1]} to {rows[-1]['epoch']}"
    return shown


def conclude(
    console: Console, result: dict[str, Any], out: Path, files: list[str], again: list[str]
) -> None:
    """Table and times; then how it ended, why, what to do, and where all of it lies.

    Args:
        files: names in the run's directory.
        again: the words that start such a run, and name its data: what is to be pasted.
    """
    times = result["timings"]
    console.print(table(result))
    console.print(
        f"set-up {times['setup_seconds']:.1f} s, compilation {times['compile_seconds']:.1f} s, "
        f"training {times['train_seconds']:.1f} s ({times['images_per_second']:,.0f} images/s)"
    )
    if not result["finished"]:
        done, asked = len(result["epochs"]), result["experiment"]["epochs"]
        console.print(f"\nInterrupted after {done} of {counted(asked, 'epoch')}; these are kept.")
    console.print(f"\n{result['verdict']}", style="bold", markup=False)
    experiment = Experiment.from_json(result["experiment"])
    for paragraph in explanation.why(experiment):
        console.print(f"\n{paragraph}", markup=False)
    if result["outcome"] != "trained" or experiment.input_scale != 1:
        advise(console, experiment, again)
    console.print()
    for name in files:
        if name.endswith(".png"):
            console.print(f"figure: {out / name}", soft_wrap=True, markup=False)
    for name in files:
        if name.endswith(".html"):
            console.print(f"page:   {out / name}", soft_wrap=True, markup=False)
    console.print(f"record: {out}", soft_wrap=True, markup=False)
    further = shlex.join([*invocation.words("explain"), str(out)])
    console.print(f"more:   {further}", soft_wrap=True, markup=False)


def advise(console: Console, experiment: Experiment, again: list[str]) -> None:
    """The exact repairs as commands, each on a line of its own, to be pasted."""
    repairs = advice.exact_repairs(experiment, explanation.baseline(experiment), again)
    if not repairs:
        return
    if experiment.input_scale != 1:
        console.print(
            f"\nWhat to do: divide the inputs by {experiment.input_scale:g} where they were "
            "multiplied. Where they have to stay (a pipeline that is not yours, pretrained first "
            "layers), each of these is the baseline, step for step:"
        )
    else:
        console.print("\nWhat to do: this is the baseline, step for step:")
    for label, text in repairs:
        console.print(f"  {label}:")
        console.print(text, soft_wrap=True, markup=False)
