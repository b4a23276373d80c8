"""A sweep as a job: what is asked, what is left to train, its rows, how they ended, in words."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import pyarrow as pa

from jaxmlp.data.dataset import Dataset
from jaxmlp.device import processes
from jaxmlp.device.mesh import describe_devices
from jaxmlp.experiment import Experiment
from jaxmlp.grid import Axis
from jaxmlp.law.words import counted
from jaxmlp.record import run_record, sweep_tables
from jaxmlp.record.outcomes import COURSES
from jaxmlp.sweeps.blocks import Block
from jaxmlp.sweeps.forecasts import Computed, compute_sharpness, forecasts
from jaxmlp.sweeps.sweep import Finished, Sweep


def description(
    base: Experiment,
    axes: Sequence[Axis],
    way: dict[str, Any],
    settings: Sequence[Experiment],
    seeds: list[int],
    dataset: Dataset,
    forecast: bool,
) -> dict[str, Any]:
    """What sweep.json says before the first run.

    Args:
        way: how the axes span the settings: `zip`, `random` and `seed`, as the flags have them.
        forecast: whether each run's course is foretold.
    """
    environment = run_record.environment(
        describe_devices(jax.device_count()), run_record.JAX_PACKAGES
    )
    return {
        "schema": sweep_tables.SCHEMA,
        "identity": sweep_tables.identity(settings, seeds, dataset, forecast),
        "experiment": base.to_json(),
        "axes": [{"flag": axis.flag, "values": list(axis.words)} for axis in axes],
        "way": way,
        "seeds": seeds,
        "forecast": forecast,
        "data": run_record.data_section(dataset),
        "environments": [environment],
    }


# ---- its runs


def unfinished(
    sweep: Sweep, done: Collection[int]
) -> list[tuple[list[Block], set[tuple[int, int]]]]:
    """The chunks in which a run is not done, each with these runs, as (setting, seed)."""
    chunks = []
    for chunk in sweep.chunks():
        left = {
            (setting, seed)
            for setting, seed in sweep.runs(chunk)
            if setting * len(sweep.seeds) + seed not in done
        }
        if left:
            chunks.append((chunk, left))
    return chunks


def train(
    sweep: Sweep,
    done: Collection[int] = (),
    forecast: bool = True,
    progress: Callable[[float], None] = lambda trained: None,
) -> Iterator[list[dict[str, Any]]]:
    """Trains what is not done: each chunk's rows of the table, in the order of the table.

    Args:
        done: positions of runs in the table.
        progress: told after each epoch how many runs are trained, parts of runs included.
    """
    epochs = sweep.experiment.epochs
    sharpness: Computed = {}
    trained = 0
    for chunk, left in unfinished(sweep, done):

        def after(epoch: int, before: int = trained, size: int = len(left)) -> None:
            progress(before + size * epoch / epochs)

        finished = [run for run in sweep.train(chunk, after) if (run.setting, run.seed) in left]
        if forecast:
            compute_sharpness(sweep, chunk, finished, sharpness)
        own = processes.share(finished)
        said = forecasts(sweep, own, sharpness) if forecast else ()
        made = processes.collect(rows(sweep, own, [each.to_json() for each in said]))
        yield sorted(made, key=lambda row: row["run"])
        trained += len(left)


def rows(
    sweep: Sweep, finished: Sequence[Finished], forecasts: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of finished runs.

    Args:
        forecasts: of each run, or none at all.
    """
    made = []
    for i, run in enumerate(finished):
        row = sweep_tables.run_row(
            run.setting * len(sweep.seeds) + run.seed,
            sweep.experiment_of(run),
            run.epochs,
            run.finite,
            forecasts[i] if forecasts else None,
            sweep.dataset,
        )
        made.append(row)
    return made


# ---- in words


def describe(sweep: Sweep, axes: Sequence[Axis], done: int) -> str:
    """What is trained, and how, in two lines.

    Args:
        done: runs that were trained before.
    """
    runs, seeds = len(sweep.settings) * len(sweep.seeds), len(sweep.seeds)
    varied = ", ".join(f"{axis.flag[2:]} {' '.join(axis.words)}" for axis in axes)
    epochs = counted(sweep.experiment.epochs, "epoch")
    devices = counted(jax.device_count(), f"{jax.devices()[0].platform} device")
    if jax.process_count() > 1:
        devices += f" of {jax.process_count()} processes"
    shared = sweep.mesh.shape["batch"]
    if shared > 1:
        devices += f", each batch on {shared}"
    how = "side by side" if sweep.program.side_by_side else "one run after the other"
    blocks = f"in blocks of {sweep.height * sweep.width}, {how}"
    if done:
        blocks += f"; {done:,} {'are' if done > 1 else 'is'} done already"
    return (
        f"{counted(runs, 'run')}: {varied or 'one setting'}; {counted(seeds, 'seed')}; "
        f"{epochs} of {sweep.dataset.source}\n{devices}; {blocks}"
    )


def summary(runs: pa.Table, swept: Sequence[str]) -> str:
    """How the runs ended, which was the best, and how right the forecasts were.

    Args:
        runs: as runs.parquet has them.
        swept: columns of what was varied.
    """
    table = runs.to_pylist()
    outcomes = [row["outcome"] for row in table]
    best = max(table, key=lambda row: (row["outcome"] != "nonfinite", row["test_accuracy"]))
    where = ", ".join(f"{name} {best[name]:.4g}" for name in swept)
    courses = [row["course"] for row in table]
    lines = [
        f"outcomes: {_by_kind(outcomes, sorted(set(outcomes)))}",
        f"best: run {best['run']} (seed {best['seed']}, {best['outcome']}), test accuracy "
        f"{best['test_accuracy']:.1%}" + (f": {where}" if where else ""),
        f"courses: {_by_kind(courses, COURSES)}",
    ]
    if best["foretold_course"]:
        lines.append(f"foretold correctly: {_foretold(table)}")
    return "\n".join(lines)


def _by_kind(kinds: Sequence[str], order: Sequence[str]) -> str:
    counts = {kind: kinds.count(kind) for kind in order}
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)


def _foretold(table: list[dict[str, Any]]) -> str:
    """Of each course how many were foretold: the commonest alone would hide the others."""
    told = []
    for course in COURSES:
        right = [row["foretold_course"] == course for row in table if row["course"] == course]
        if right:
            told.append(f"{course} {sum(right):,} of {len(right):,}")
    return ", ".join(told)
