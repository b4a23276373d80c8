"""The verbs that join rooms: a run from its forecast to its record, and a sweep to its tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from jaxmlp import grid, question
from jaxmlp.data.dataset import Dataset, first_images
from jaxmlp.device.mesh import describe_devices
from jaxmlp.experiment import Experiment
from jaxmlp.record import sweep_tables
from jaxmlp.record.result import Result, conclude, now
from jaxmlp.record.run_record import JAX_PACKAGES, environment
from jaxmlp.training.run import Run

Value = float | str | tuple[float, ...]  # of an axis: a number, one per layer, or words for several


def train(
    experiment: Experiment,
    dataset: Dataset,
    *,
    forecast: bool = True,
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Result:
    """Trains one network and returns what `jaxmlp run` would leave: record, steps, parameters.

    Args:
        dataset: of which the experiment's `train_size` first images are taken, if it asks for that.
        forecast: foretell the course before the first step, for the record's section `forecast`.
        progress: called after each epoch with its row of the record.

    Raises:
        ValueError: the batch size does not divide the training images, or the device cannot
            compute in the experiment's precision.
    """
    started = now()
    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    foretold = None
    if forecast:
        from jaxmlp.forecasting import rehearsal

        foretold = rehearsal.forecast(experiment, dataset).to_json()
    run = Run(experiment, dataset)
    results, rows = [], []
    for result in run.epochs():
        results.append(result)
        rows.append(run.row(len(results), result))
        progress(rows[-1])
    return conclude(
        run,
        results,
        rows,
        framework="jax",
        case=question.name(experiment),
        dataset=dataset,
        environment=environment(describe_devices(), JAX_PACKAGES),
        forecast=foretold,
        started=started,
    )


class SweepResult(NamedTuple):
    """A sweep's two tables; their columns are told in jaxmlp/record/sweep_tables.py."""

    runs: pa.Table  # a row per run
    curves: pa.Table  # a row per run and epoch


def sweep(
    experiment: Experiment,
    dataset: Dataset,
    axes: Mapping[str, Value | Sequence[Value]],
    *,
    seeds: Sequence[int] = (0,),
    way: str = "grid",
    count: int | None = None,
    draw: int = 0,
    forecast: bool = True,
    progress: Callable[[float], None] = lambda trained: None,
) -> SweepResult:
    """Trains many runs as one compiled program; each is what it would be alone.

    Args:
        experiment: what all runs share.
        axes: values by setting: `{"learning_rate": "log:1e-4:1:9", "input_scale": [1, 255]}`.
            `"learning_rate.1"` is the first layer's. A tuple is one number per layer.
        seeds: each is run with all settings.
        way: grid (every combination), zip (the axes' values side by side) or random (`count` draws
            from the axes with the seed `draw`).
        forecast: foretell every run's course, from its own first steps.
        progress: called after each epoch with the number of runs trained, parts of runs included.

    Raises:
        ValueError: a setting is not one that varies within a program, a value breaks its rule, or
            the batch size does not divide the training images.
    """
    from jaxmlp.sweeps import job
    from jaxmlp.sweeps.sweep import Sweep

    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    spanned = [_axis(name, values) for name, values in axes.items()]
    if way not in grid.WAYS or (way == "random") != (count is not None):
        raise ValueError(f"way {way!r}, count {count}: give grid, zip, or random with a count")
    checked_seeds = grid.seeds([str(seed) for seed in seeds])
    settings = grid.experiments(experiment, spanned, way, count, draw, len(checked_seeds))
    prepared = Sweep(settings, checked_seeds, dataset)
    chunks = job.train(prepared, forecast=forecast, progress=progress)
    rows = sorted((row for chunk in chunks for row in chunk), key=lambda row: row["run"])
    return SweepResult(*sweep_tables.tables(rows, experiment))


def _axis(name: str, values: Value | Sequence[Value]) -> grid.Axis:
    """An axis from values as Python has them."""
    setting = name.replace("-", "_").partition(".")[0]
    if setting not in grid.SWEPT or setting == "seed":
        known = ", ".join(each for each in grid.SWEPT if each != "seed")
        raise ValueError(f"axis {name!r} does not vary within a sweep; choose from {known}")
    listed = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    return grid.axis(name, [_word(value) for value in listed])


def _word(value: Value) -> str:
    """A value as the command line has it."""
    if isinstance(value, str):
        return value
    return ",".join(map(repr, map(float, value if isinstance(value, tuple) else (value,))))
