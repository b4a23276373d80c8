"""What would have been foretold of a sweep's runs, of which their own first steps are known."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp.device import processes
from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting.models import Forecast, Sharpness, first_steps, judge
from jaxmlp.sweeps.sweep import Finished, Sweep
from jaxmlp.training.run import prepare


def forecasts(
    sweep: Sweep, finished: Sequence[Finished], computed: dict[str, float]
) -> Iterator[Forecast]:
    """What the forecast of each run would have been; its own first steps are the rehearsal.

    Args:
        computed: sharpness by what it depends on, filled here: runs that differ only in a common
            factor on their learning rates, or in their decay, share one computation.
    """
    limit = curvature.stability_limit(sweep.experiment)
    epoch = np.empty((sweep.program.steps_per_epoch, sweep.experiment.batch_size), np.int8)
    images = curvature.sample(epoch).size
    _compute(sweep, finished, computed)
    for run in finished:
        unit, rate = _at_unit_rate(sweep.experiment_of(run))
        sharpness = Sharpness(rate * computed[unit.sha256], limit, images)
        setting = sweep.settings[run.setting]
        yield judge(setting, sharpness, first_steps(run.epochs), sweep.dataset.classes)


def _compute(sweep: Sweep, finished: Sequence[Finished], computed: dict[str, float]) -> None:
    """The sharpness that is still missing: every process takes its share, and gets all."""
    missing: dict[str, Experiment] = {}
    for run in finished:
        unit, _ = _at_unit_rate(sweep.experiment_of(run))
        if unit.sha256 not in computed:
            missing[unit.sha256] = unit
    count = jax.process_count()
    values = np.full(len(missing), np.nan)
    for position, experiment in enumerate(missing.values()):
        if position % count == jax.process_index():
            values[position] = _sharpness(sweep, experiment)
    with precision(sweep.experiment):
        by_process = processes.gather(values)
    for position, key in enumerate(missing):
        computed[key] = float(by_process[position % count, position])


def _at_unit_rate(experiment: Experiment) -> tuple[Experiment, float]:
    """The run with its first learning rate 1 and no decay, and the rate."""
    rate = experiment.per_layer("learning_rate")[0]
    if rate == 0:
        return experiment, 1.0
    changed: dict[str, Any] = {"weight_decay": (0.0,), "bias_weight_decay": None}
    for name in ("learning_rate", "bias_learning_rate"):
        if (rates := getattr(experiment, name)) is not None:
            changed[name] = tuple(each / rate for each in rates)
    try:
        return dataclasses.replace(experiment, **changed), rate
    except ValueError:  # another rate over this one is no float32: its sharpness is its own
        return experiment, 1.0


def _sharpness(sweep: Sweep, experiment: Experiment) -> float:
    """Of one run at its start, on its own first batches."""
    ready = prepare(experiment, sweep.dataset, sweep.local_images)
    return curvature.sharpness(experiment, ready, curvature.sample(next(ready.order))).value
