"""Trains many runs as one compiled program: `python scripts/sweep.py --init-scale log:0.1:10:9`.

Input scale, learning rates, decays, inits, eps and seeds take several values, all combinations of
which are run: `--input-scale 1 16 255`, `--seed 0..4`, `--learning-rate log:1e-4:1:25`. Settings
per layer take one value for all layers (`0.1`), one for each (`0.1,0.02`), or an axis of their own
for one layer (`--learning-rate.1 log:1e-4:1:9`). With --random, `log:1e-4:1` is drawn from.

It leaves a directory: runs.parquet (a row per run), curves.parquet (a row per run and epoch),
figures and sweep.json. Finished chunks are on disk at once; --resume goes on after a crash.
"""

import argparse
import datetime
import functools
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jaxmlp import flags, grid
from jaxmlp.experiment import Experiment

DESCRIPTION = __doc__ or ""
KEPT = "finished chunks are kept; --resume goes on"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The flags; `axes` are those of settings, `layer_axes` of single layers."""
    parser = flags.parser(DESCRIPTION, grid.SWEPT)
    flags.add_data_flags(parser)
    how = parser.add_argument_group("sweep")
    ways = how.add_mutually_exclusive_group()
    ways.add_argument("--zip", action="store_true",
                      help="the axes' values side by side (default: all combinations)")  # fmt: skip
    ways.add_argument("--random", type=int, metavar="N", help="N draws from the axes")
    how.add_argument("--sweep-seed", type=int, default=0, metavar="K",
                     help="of the draws (default: 0)")  # fmt: skip
    how.add_argument("--no-forecast", action="store_true",
                     help="leave out sharpness and what was foretold")  # fmt: skip
    where = parser.add_argument_group("devices")
    where.add_argument("--runs-per-device", type=int, metavar="N",
                       help="trained at a time (default: by its memory; 16 on CPU)")  # fmt: skip
    where.add_argument("--batching", choices=("vmap", "map"),
                       help="a device's runs side by side, or one after the other\n"
                       "(default: map on CPU, vmap elsewhere)")  # fmt: skip
    flags.add_data_parallel_flag(where)
    flags.add_distributed_flags(where)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", type=Path,
                        help="the sweep's directory (default: runs/sweep-HASH)")  # fmt: skip
    keep = output.add_mutually_exclusive_group()
    keep.add_argument("--resume", action="store_true",
                      help="go on with an unfinished sweep, or start it")  # fmt: skip
    keep.add_argument("--overwrite", action="store_true", help="replace a sweep that stands there")
    arguments = sys.argv[1:] if arguments is None else arguments
    values, rest = parser.parse_known_args(arguments)
    values.layer_axes = layer_axes(rest, arguments)
    return values


def layer_axes(words: list[str], arguments: list[str]) -> dict[str, list[str]]:
    """`--learning-rate.1 0.1 0.2` and the like: the words that argparse did not know."""
    names = "|".join(name.replace("_", "-") for name in grid.SWEPT)
    found: dict[str, list[str]] = {}
    own: list[str] | None = None
    for word in words:
        if match := re.fullmatch(rf"--((?:{names})\.\d+)", word):
            own = found.setdefault(match.group(1), [])
        elif word.startswith("--"):
            flags.fail(f"unrecognized arguments: {word}; --help lists the flags", flags.INPUT)
        elif own is None:
            before = arguments[: arguments.index(word)]
            flag = next((other for other in reversed(before) if other.startswith("--")), "here")
            flags.fail(f"{word}: {flag} takes one value, and a sweep does not vary it; "
                       "run a sweep for each", flags.INPUT)  # fmt: skip
        else:
            own.append(word)
    return found


def plan(values: argparse.Namespace) -> tuple[Experiment, list[grid.Axis], list[Experiment]]:
    """The base experiment, the axes, and the settings that they span.

    Raises:
        ValueError: a value breaks its rule.
    """
    words = {name: getattr(values, name) for name in grid.SWEPT if getattr(values, name)}
    words_of_seed = words.pop("seed", None) or ["0"]
    values.seeds = grid.seeds(words_of_seed)
    for name in grid.SWEPT:
        setattr(values, name, None)
    scales = words.get("input_scale", [])
    if values.case and len(scales) == 1 and re.fullmatch(r"[\d.e+-]+", scales[0]):
        values.input_scale = float(scales[0])  # the case's settings depend on it
    _, base = flags.experiment(values)
    axes = [grid.axis(name, own) for name, own in {**words, **values.layer_axes}.items()]
    way = "zip" if values.zip else "random" if values.random is not None else "grid"
    if values.random is not None and values.random < 1:
        raise ValueError(f"--random {values.random} must be at least 1")
    for name in ("runs_per_device", "data_parallel"):
        if getattr(values, name) is not None and getattr(values, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} {getattr(values, name)} must be at least 1")
    return base, axes, grid.experiments(base, axes, way, values.random, values.sweep_seed)


def main(arguments: list[str] | None = None) -> None:
    values = parse(arguments)
    try:
        base, axes, settings = plan(values)
    except ValueError as error:
        flags.fail(error, flags.INPUT)
    signal.signal(signal.SIGTERM, terminate)
    try:
        with flags.one_line_errors(KEPT):
            run(values, base, axes, settings)
    except SystemExit as ended:
        if values.coordinator or values.distributed:
            from jaxmlp import devices

            devices.leave(int(ended.code or 0))
        raise


def terminate(number, frame) -> None:
    """A machine is taken away: what is finished is on disk."""
    raise flags.TerminatedError(f"terminated; {KEPT}")


def run(
    values: argparse.Namespace,
    base: Experiment,
    axes: list[grid.Axis],
    settings: list[Experiment],
) -> None:
    """Loads, trains chunk by chunk, writes. Imports what is slow only now, the flags are good."""
    import jax
    from rich.console import Console

    from jaxmlp import data, devices, job, record, sweep, sweep_record

    console = Console(highlight=False)
    devices.distribute(values.coordinator, values.processes, values.process_id, values.distributed)
    devices.use_compilation_cache()
    writes = devices.is_first()
    if not writes:
        console.quiet = True
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    dataset = job.load(values, functools.partial(job.warn, console))
    if base.train_size:
        dataset = data.first(dataset, base.train_size)
    devices.mesh(values.data_parallel, base.batch_size)
    base.steps_per_epoch(len(dataset.train_labels))
    identity = sweep_record.identity(settings, values.seeds, dataset)
    asked = {
        "schema": sweep_record.SCHEMA,
        "identity": identity,
        "experiment": base.to_json(),
        "axes": [{"flag": axis.flag, "values": list(axis.words)} for axis in axes],
        "way": {"zip": values.zip, "random": values.random, "seed": values.sweep_seed},
        "seeds": values.seeds,
        "data": record.data_section(dataset),
        "environment": record.environment(
            devices.describe(jax.device_count()), ("jax", "jaxlib", "flax", "optax", "numpy")
        ),
    }
    out = values.out or Path("runs") / f"sweep-{identity[:10]}"
    directory = devices.by_first(
        lambda: sweep_record.Directory(out, asked, values.resume, values.overwrite)
    )
    done = devices.agree_on(
        directory.done() if directory else set(), len(settings) * len(values.seeds)
    )
    finished = devices.agree_on({0} if directory and directory.finished else set(), 1)
    if finished:
        console.print(f"{out} is finished; nothing is left to do", soft_wrap=True)
        return
    began = time.perf_counter()
    many = sweep.Sweep(
        settings, values.seeds, dataset, values.data_parallel, values.runs_per_device,
        None if values.batching is None else values.batching == "vmap",
    )  # fmt: skip
    setup = time.perf_counter() - began
    console.print(describe(many, axes, done), soft_wrap=True)
    began = time.perf_counter()
    with devices.together():
        train(values, many, directory, done, console)
    if directory:
        import sweep_figures

        timings = {
            "started": started,
            "setup_seconds": setup,
            "train_seconds": time.perf_counter() - began,
        }
        runs, curves = directory.tables()
        directory.finish(runs, curves, sweep_figures.draw(asked, runs), timings)
        console.print(summary(runs, sweep_figures.swept(runs)), soft_wrap=True)
        console.print(f"sweep: {out}", soft_wrap=True)


def describe(many: Any, axes: list[grid.Axis], done: set[int]) -> str:
    import jax

    runs, seeds = len(many.settings) * len(many.seeds), len(many.seeds)
    what = ", ".join(f"{axis.flag[2:]} {' '.join(axis.words)}" for axis in axes) or "one setting"
    how = "side by side" if many.program.side_by_side else "one after the other"
    shape = many.mesh.shape
    shared = f", each batch on {shape['batch']}" if shape["batch"] > 1 else ""
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return (
        f"{runs:,} runs: {what}; {seeds} seed{'s' * (seeds > 1)}; "
        f"{many.experiment.epochs} epochs of {many.dataset.source}\n"
        f"{jax.device_count()} {jax.devices()[0].platform} "
        f"device{'s' * (jax.device_count() > 1)}{processes}{shared}; on each "
        f"{many.height * many.width} runs at a time, {how}"
        + (f"; {len(done):,} are done already" if done else "")
    )


def train(values: argparse.Namespace, many: Any, directory: Any, done: set[int], console) -> None:
    """Trains what is not done, and keeps each chunk as it finishes."""
    from rich import progress

    from jaxmlp import sweep_record

    seeds, epochs = len(many.seeds), many.experiment.epochs
    chunks = []
    for chunk in many.chunks():
        left = [pair for pair in many.runs(chunk) if pair[0] * seeds + pair[1] not in done]
        if left:
            chunks.append((chunk, left))
    known: dict[str, float] = {}
    total = sum(len(left) for _, left in chunks)
    columns = (
        progress.TextColumn("runs"), progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(), progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(compact=True),
    )  # fmt: skip
    trained, began = 0, time.perf_counter()
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for chunk, left in chunks:

            def show(epoch: int, before: int = trained, size: int = len(left)) -> None:
                bar.update(task, completed=before + size * epoch // epochs)

            finished = [
                one for one in many.train(chunk, show) if (one.setting, one.seed) in set(left)
            ]
            foretold = [None] * len(finished)
            if not values.no_forecast:
                foretold = [one.to_json() for one in many.forecasts(finished, known)]
            if directory:
                rows = [
                    sweep_record.run_row(
                        one.setting * seeds + one.seed, many.experiment_of(one), one.epochs,
                        one.finite, before, many.dataset,
                    )
                    for one, before in zip(finished, foretold, strict=True)
                ]  # fmt: skip
                directory.add(sorted(rows, key=lambda row: row["run"]))
            trained += len(left)
            if not console.is_terminal:
                seconds = time.perf_counter() - began
                rest = seconds / trained * (total - trained)
                console.print(f"{trained:,} of {total:,} runs, {rest:.0f} s left")


def summary(runs: Any, swept: list[str]) -> str:
    """How the runs ended, which was the best, and how right the forecasts were."""
    rows = runs.to_pylist()
    kinds = [row["outcome"] for row in rows]
    counts = ", ".join(f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(sorted(kinds)))
    best = max(rows, key=lambda row: row["test_accuracy"])
    what = ", ".join(f"{name} {best[name]:.4g}" for name in swept)
    lines = [
        f"outcomes: {counts}",
        f"best: run {best['run']} (seed {best['seed']}), test accuracy "
        f"{best['test_accuracy']:.1%}" + f": {what}" * bool(what),
    ]
    if best["verdict"]:
        pairs = (("diverges", lambda row: row["diverges"] >= 0.5, "diverged"),
                 ("dies", lambda row: row["verdict"] == "fatal", "died"))  # fmt: skip
        for name, said, went in pairs:
            right = sum(said(row) == row[went] for row in rows) / len(rows)
            lines.append(f"{name}: {sum(row[went] for row in rows):,} runs; "
                         f"{right:.1%} of the forecasts came true")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
