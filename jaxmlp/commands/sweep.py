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
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxmlp import grid, question
from jaxmlp.commands import exit_status, flags
from jaxmlp.commands.progress import number
from jaxmlp.errors import TerminatedError
from jaxmlp.experiment import Experiment

KEPT = "finished chunks are kept; --resume goes on"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
LAYER_FLAG = re.compile(
    rf"--(?:{'|'.join(name.replace('_', '-') for name in grid.SWEPT)})\.[1-9]\d*(?==|$)"
)


# ---- what is asked


def add_flags(parser: flags.Parser) -> None:
    flags.add_data_flags(parser)
    how = parser.add_argument_group("sweep")
    ways = how.add_mutually_exclusive_group()
    ways.add_argument(
        "--zip",
        action="store_true",
        help="the axes' values side by side (default: all combinations)",
    )
    ways.add_argument("--random", type=int, metavar="N", help="N draws from the axes")
    how.add_argument("--sweep-seed", type=int, metavar="K", help="of the draws (default: 0)")
    where = parser.add_argument_group("devices")
    where.add_argument(
        "--runs-per-device",
        type=int,
        metavar="N",
        help="trained at a time (default: by its memory; 16 on CPU)",
    )
    where.add_argument(
        "--batching",
        choices=("vmap", "map"),
        help="a device's runs side by side, or one after the other\n"
        "(default: map on CPU, vmap elsewhere)",
    )
    flags.add_data_parallel_flag(where)


def add_output_flags(parser: flags.Parser) -> None:
    flags.add_distributed_flags(parser.add_argument_group("several processes"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="DIR", type=Path, help="the sweep's directory (default: runs/sweep-HASH)"
    )
    output.add_argument(
        "--no-forecast", action="store_true", help="leave out sharpness and what was foretold"
    )
    keep = output.add_mutually_exclusive_group()
    keep.add_argument(
        "--resume", action="store_true", help="go on with an unfinished sweep, or start it"
    )
    keep.add_argument("--overwrite", action="store_true", help="replace a sweep that stands there")


def parse(
    arguments: list[str] | None,
    description: str = __doc__ or "",
    more: Callable[[flags.Parser], None] = add_output_flags,
) -> argparse.Namespace:
    """The flags; those of single layers in `layer_axes`.

    Args:
        more: adds the flags beyond what is swept and on which devices.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    matches = [LAYER_FLAG.match(word) for word in arguments]
    layer_flags = list(dict.fromkeys(match[0] for match in matches if match))
    parser = flags.parser(description, grid.SWEPT, layer_flags)
    add_flags(parser)
    more(parser)
    values, rest = parser.parse_known_args(arguments)
    for word in rest:
        if not word.startswith("-"):
            exit_status.fail(
                f"{word} is one value too many: a sweep does not vary what it follows; run a sweep "
                "for each",
                exit_status.INPUT,
            )
        parser.error(f"unrecognized arguments: {word}")
    names = [flag.removeprefix("--") for flag in layer_flags]
    values.layer_axes = {name: getattr(values, name) for name in names}
    return values


def plan(values: argparse.Namespace) -> tuple[Experiment, list[grid.Axis], list[Experiment]]:
    """The base experiment, the axes, and the settings that they span; `values.seeds` beside them.

    Raises:
        ValueError: a value breaks its rule.
    """
    words = {name: getattr(values, name) for name in grid.SWEPT if getattr(values, name)}
    values.seeds = grid.seeds(words.pop("seed", None) or ["0"])
    for name in grid.SWEPT:
        setattr(values, name, None)
    axes = [grid.axis(name, own) for name, own in {**words, **values.layer_axes}.items()]
    if values.case:
        values.input_scale = scale_of_case(values.case, axes)
    _, base = flags.experiment(values)
    for name in ("random", "runs_per_device", "data_parallel"):
        if getattr(values, name) is not None and getattr(values, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} {getattr(values, name)} must be at least 1")
    if values.sweep_seed is not None and values.random is None:
        raise ValueError("--sweep-seed is of the draws; give --random N, or leave it out")
    way = "zip" if values.zip else "random" if values.random is not None else "grid"
    settings = grid.experiments(
        base, axes, way, values.random, values.sweep_seed or 0, len(values.seeds)
    )
    return base, axes, settings


def scale_of_case(case: str, axes: list[grid.Axis]) -> float | None:
    """The input scale for which a case's settings are taken.

    Raises:
        ValueError: there are several.
    """
    own = [axis for axis in axes if axis.setting == "input_scale"]
    if not own:
        return None
    scales = {experiment.input_scale for experiment in grid.experiments(Experiment(), own)}
    if len(scales) > 1 and question.settings(case, 2.0) != {"input_scale": 2.0}:
        raise ValueError(
            f"--case {case}: its settings depend on the input scale; give one --input-scale, or "
            "the settings themselves"
        )
    return scales.pop() if len(scales) == 1 else None


# ---- the command


def main(arguments: list[str] | None = None) -> None:
    values = parse(arguments)
    try:
        base, axes, settings = plan(values)
    except ValueError as error:
        exit_status.fail(error, exit_status.INPUT)
    with stopping(for_good=arguments is None) as check:
        try:
            with exit_status.one_line_errors(KEPT):
                run(values, base, axes, settings, check)
        except SystemExit as ended:
            if values.coordinator or values.distributed:
                from jaxmlp.device import processes as devices

                devices.leave(int(ended.code or 0))
            raise


@contextlib.contextmanager
def stopping(for_good: bool) -> Iterator[Callable[[], None]]:
    """The first SIGTERM or Ctrl-C ends the work where it arrives; more of them change nothing.

    What is under way when it comes is only giving up: files are whole at any moment. SIGKILL and
    SIGQUIT end that, too.

    Args:
        for_good: the process ends after this, and nothing is to disturb its last moments.

    Yields:
        To be called now and then: raises again what was swallowed, as JAX's callbacks do.
    """
    asked: list[BaseException] = []

    def handle(number, frame) -> None:
        if asked:
            return
        asked.append(
            KeyboardInterrupt()
            if number == signal.SIGINT
            else TerminatedError(f"terminated; {KEPT}")
        )
        raise asked[0]

    def check() -> None:
        if asked:
            raise asked[0]

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if asked and for_good else handler)


def run(
    values: argparse.Namespace,
    base: Experiment,
    axes: list[grid.Axis],
    settings: list[Experiment],
    check: Callable[[], None],
) -> None:
    """Loads, trains chunk by chunk, writes. Imports what is slow only now, the flags are good."""
    from jaxmlp.commands import output
    from jaxmlp.commands import run_job as job
    from jaxmlp.data.dataset import first_images
    from jaxmlp.device import compilation
    from jaxmlp.device import processes as devices
    from jaxmlp.device.mesh import device_mesh
    from jaxmlp.record import sweep_directory
    from jaxmlp.sweep import sweep

    with devices.together():
        devices.distribute(
            values.coordinator, values.processes, values.process_id, values.distributed
        )
        compilation.use_compilation_cache()
        console = output.console(soft_wrap=True, quiet=not devices.is_first())
        dataset = job.load(values, functools.partial(job.warn, console))
        if base.train_size:
            dataset = first_images(dataset, base.train_size)
        job.check_memory(base, dataset)
        device_mesh(values.data_parallel, base.batch_size)
        base.steps_per_epoch(len(dataset.train_labels))
        asked = description(values, base, axes, settings, dataset)
        devices.alike(asked["identity"])
        out = values.out or Path("runs") / f"sweep-{asked['identity'][:10]}"
        runs = len(settings) * len(values.seeds)
        directory = devices.by_first(
            lambda: sweep_directory.Directory(out, asked, runs, values.resume, values.overwrite)
        )
        if devices.agree(directory is not None and directory.finished):
            if directory:
                finished(console, directory)
            return
        many = sweep.Sweep(
            settings,
            values.seeds,
            dataset,
            values.data_parallel,
            values.runs_per_device,
            None if values.batching is None else values.batching == "vmap",
        )
        devices.by_first(lambda: directory.begin() if directory else None)
        try:
            train(many, directory, asked, not values.no_forecast, console, axes, check)
        finally:
            if directory:
                directory.close()
    console.print(f"sweep: {out}")


def description(
    values: argparse.Namespace, base: Experiment, axes: list[grid.Axis], settings, dataset
) -> dict[str, Any]:
    """What sweep.json says before the first run."""
    import jax

    from jaxmlp.device.mesh import describe_devices
    from jaxmlp.record import run_record as record
    from jaxmlp.record import sweep_tables

    forecast = not values.no_forecast
    return {
        "schema": sweep_tables.SCHEMA,
        "identity": sweep_tables.identity(settings, values.seeds, dataset, forecast),
        "experiment": base.to_json(),
        "axes": [{"flag": axis.flag, "values": list(axis.words)} for axis in axes],
        "way": {"zip": values.zip, "random": values.random, "seed": values.sweep_seed},
        "seeds": values.seeds,
        "forecast": forecast,
        "data": record.data_section(dataset),
        "environments": [record.environment(describe_devices(jax.device_count()), PACKAGES)],
    }


def finished(console, directory: Any) -> None:
    """A sweep that was finished before: what a crash may have left undone at its end."""
    from jaxmlp.record import sweep_files

    directory.begin()
    try:
        asked, runs, _ = sweep_files.load(directory.out)
        draw(directory, asked, runs)
    finally:
        directory.close()
    console.print(f"{directory.out} is finished; nothing is left to do")


def draw(directory: Any, asked: dict[str, Any], runs: Any) -> None:
    from jaxmlp.record import sweep_figures, sweep_files

    drawn = sweep_figures.draw(asked, runs)
    sweep_files.save_figures(directory.out, drawn, asked["identity"])


def train(
    many: Any,
    directory: Any,
    asked: dict[str, Any],
    forecast: bool,
    console,
    axes: list[grid.Axis],
    check: Callable[[], None],
) -> None:
    """Trains what is not done; the first process keeps each chunk, and at the end all."""
    from jaxmlp.device import processes as devices
    from jaxmlp.record import sweep_figures

    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    runs = len(many.settings) * len(many.seeds)
    done = devices.agree_on(directory.done() if directory else set(), runs)
    console.print(describe(many, axes, len(done)))
    for path in directory.damaged() if directory else ():
        console.print(f"{path} is damaged, or not this sweep's: it is not used, and left there")
    train_chunks(many, directory, forecast, console, done, check)
    if directory:
        timings = {
            "started": started,
            "setup_seconds": many.setup_seconds,
            "train_seconds": time.perf_counter() - began,
        }
        table, curves = directory.tables()
        directory.finish(table, curves, timings)
        draw(directory, asked, table)
        if kept := directory.strange():
            console.print(f"{directory.parts} stays: {number(kept, 'file')} in it not the sweep's")
        console.print(summary(table, sweep_figures.swept(table)))


def describe(many: Any, axes: list[grid.Axis], done: int) -> str:
    import jax

    runs, seeds = len(many.settings) * len(many.seeds), len(many.seeds)
    what = ", ".join(f"{axis.flag[2:]} {' '.join(axis.words)}" for axis in axes) or "one setting"
    how = "side by side" if many.program.side_by_side else "one run after the other"
    count, shared = jax.device_count(), many.mesh.shape["batch"]
    return (
        f"{number(runs, 'run')}: {what}; {number(seeds, 'seed')}; "
        f"{number(many.experiment.epochs, 'epoch')} of {many.dataset.source}\n"
        f"{number(count, f'{jax.devices()[0].platform} device')}"
        + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")
        + (f", each batch on {shared}" if shared > 1 else "")
        + f"; in blocks of {many.height * many.width}, {how}"
        + (f"; {done:,} {'are' if done > 1 else 'is'} done already" if done else "")
    )


def train_chunks(
    many: Any, directory: Any, forecast: bool, console, done: set[int], check: Callable[[], None]
) -> None:
    """Trains the chunks in which a run is not done."""
    seeds, epochs = len(many.seeds), many.experiment.epochs
    chunks = []
    for chunk in many.chunks():
        left = [pair for pair in many.runs(chunk) if pair[0] * seeds + pair[1] not in done]
        if left:
            chunks.append((chunk, left))
    known: dict[str, float] = {}
    trained = 0
    with bar(console, sum(len(left) for _, left in chunks)) as show:
        for chunk, left in chunks:

            def after(epoch: int, before: int = trained, size: int = len(left)) -> None:
                check()
                show(before + size * epoch / epochs)

            wanted = set(left)
            runs = [one for one in many.train(chunk, after) if (one.setting, one.seed) in wanted]
            foretold = list(many.forecasts(runs, known)) if forecast else [None] * len(runs)
            check()
            if directory:
                directory.add(rows(many, runs, foretold))
            trained += len(left)
            show(trained)


def rows(many: Any, runs: list[Any], foretold: list[Any]) -> list[dict[str, Any]]:
    """A chunk's rows, in the order of the table."""
    from jaxmlp.record import sweep_tables

    found = [
        sweep_tables.run_row(
            one.setting * len(many.seeds) + one.seed,
            many.experiment_of(one),
            one.epochs,
            one.finite,
            said and said.to_json(),
            many.dataset,
        )
        for one, said in zip(runs, foretold, strict=True)
    ]
    return sorted(found, key=lambda row: row["run"])


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
                console.print(f"{trained:,} of {number(total, 'run')}, {left:.0f} s left")

        yield show


def summary(runs: Any, swept: list[str]) -> str:
    """How the runs ended, which was the best, and how right the forecasts were."""
    found = runs.to_pylist()
    kinds = [row["outcome"] for row in found]
    counts = ", ".join(f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(sorted(kinds)))
    best = max(found, key=lambda row: (row["outcome"] != "nonfinite", row["test_accuracy"]))
    what = ", ".join(f"{name} {best[name]:.4g}" for name in swept)
    lines = [
        f"outcomes: {counts}",
        f"best: run {best['run']} (seed {best['seed']}, {best['outcome']}), test accuracy "
        f"{best['test_accuracy']:.1%}" + f": {what}" * bool(what),
    ]
    from jaxmlp.record.outcomes import COURSES

    courses = [row["course"] for row in found]
    taken = ", ".join(f"{courses.count(kind):,} {kind}" for kind in COURSES if kind in courses)
    lines.append(f"courses: {taken}")
    if best["foretold_course"]:
        right = []
        for kind in COURSES:  # of each, or the commonest would hide the others
            said = [row["foretold_course"] == kind for row in found if row["course"] == kind]
            if said:
                right.append(f"{kind} {sum(said):,} of {len(said):,}")
        lines.append(f"foretold correctly: {', '.join(right)}")
    return "\n".join(lines)
