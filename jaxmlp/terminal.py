"""What a person sees of a run: progress while it trains, then verdict, table and place."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

ROWS_SHOWN = 8


def describe(row: dict[str, Any]) -> str:
    """One epoch in one line."""
    dead = ", ".join(f"{share:.1%}" for share in row["dead"])
    return (
        f"loss {row['train_loss']:.4g}  train {row['train_accuracy']:.1%}  "
        f"test {row['test_accuracy']:.1%}" + (f"  dead {dead}" if dead else "")
    )


@contextlib.contextmanager
def progress(
    console: Console, epochs: int, images: int, done: int = 0
) -> Iterator[Callable[[dict[str, Any], float], None]]:
    """Shows each finished epoch: a bar on a terminal, a line each elsewhere.

    Args:
        done: epochs finished before the start, by the run that is resumed.

    Yields:
        A function of the epoch's row of the record and its seconds.
    """
    start = time.perf_counter()
    if not console.is_terminal:

        def line(row: dict[str, Any], seconds: float) -> None:
            pace = (time.perf_counter() - start) / (row["epoch"] - done)
            left = pace * (epochs - row["epoch"])
            console.print(
                f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}  {describe(row)}  "
                f"{images / seconds:,.0f} images/s  {left:.0f} s left",
                soft_wrap=True,
            )

        yield line
        return
    columns = (
        TextColumn("epoch {task.completed}/{task.total}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=epochs, completed=done, status="first epoch ...")

        def advance(row: dict[str, Any], seconds: float) -> None:
            bar.update(task, advance=1, status=f"{describe(row)}  {images / seconds:,.0f} img/s")

        yield advance


def table(result: dict[str, Any]) -> Table:
    """The first, some, and the last epochs."""
    rows = result["epochs"]
    stride = max(1, math.ceil(len(rows) / ROWS_SHOWN))
    chosen = [row for i, row in enumerate(rows) if i == 0 or (i + 1) % stride == 0]
    if chosen[-1] is not rows[-1]:
        chosen.append(rows[-1])
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = [layer["name"] for layer in result["layers"][:-1]]
    headings = ["epoch", "train loss", "train acc.", "test loss", "test acc."]
    for heading in headings + [f"dead {name}" for name in names]:
        shown.add_column(heading, justify="right")
    for row in chosen:
        shown.add_row(
            str(row["epoch"]),
            f"{row['train_loss']:.4g}", f"{row['train_accuracy']:.1%}",
            f"{row['test_loss']:.4g}", f"{row['test_accuracy']:.1%}",
            *(f"{share:.1%}" for share in row["dead"]),
        )  # fmt: skip
    return shown


def conclude(console: Console, result: dict[str, Any], out: Path) -> None:
    """Verdict, table, times, and where the record lies."""
    times = result["timings"]
    if not result["finished"]:
        done, asked = len(result["epochs"]), result["experiment"]["epochs"]
        console.print(f"\nInterrupted after {done} of {asked} epochs; these are kept.")
    console.print(f"\n{result['verdict']}", style="bold", highlight=False)
    console.print(result["explanation"], highlight=False, markup=False)
    console.print(table(result))
    console.print(
        f"set-up {times['setup_seconds']:.1f} s, compilation {times['compile_seconds']:.1f} s, "
        f"training {times['train_seconds']:.1f} s ({times['images_per_second']:,.0f} images/s)"
    )
    console.print(f"record: {out}", soft_wrap=True, highlight=False)
