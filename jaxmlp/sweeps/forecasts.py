"""What would have been foretold of a sweep's runs, of which their own first steps are known."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting.models import Forecast, Sharpness, first_steps, judge
from jaxmlp.sweeps.blocks import Block, seeded
from jaxmlp.sweeps.sweep import Finished, Sweep
from jaxmlp.training.run import prepare


def forecasts(
    sweep: Sweep, chunk: Sequence[Block], finished: Sequence[Finished], computed: dict[str, float]
) -> Iterator[Forecast]:
    """What the forecast of each run would have been; its own first steps are the rehearsal.

    Args:
        chunk: whose runs are finished.
        computed: sharpness by what it depends on, filled here: runs that differ only in a common
            factor on their learning rates, or in their decay, share one computation.
    """
    limit = curvature.stability_limit(sweep.experiment)
    epoch = np.empty((sweep.program.steps_per_epoch, sweep.experiment.batch_size), np.int8)
    images = curvature.sample(epoch).size
    settings = {run.setting: sweep.settings[run.setting] for run in finished}
    at_unit_rate = {number: _at_unit_rate(setting) for number, setting in settings.items()}
    units = {
        (run.setting, run.seed): seeded(at_unit_rate[run.setting][0], sweep.seeds[run.seed])
        for run in finished
    }
    _compute(sweep, chunk, units, computed)
    for run in finished:
        rate, unit = at_unit_rate[run.setting][1], units[run.setting, run.seed]
        sharpness = Sharpness(rate * computed[unit.sha256], limit, images)
        setting = sweep.settings[run.setting]
        yield judge(setting, sharpness, first_steps(run.epochs), sweep.dataset.classes)


def _compute(
    sweep: Sweep,
    chunk: Sequence[Block],
    units: dict[tuple[int, int], Experiment],
    computed: dict[str, float],
) -> None:
    """The sharpness that is still missing, of all runs as one program."""
    missing: dict[str, tuple[tuple[int, int, int], Experiment]] = {}
    wanted = np.zeros((len(chunk), sweep.height, sweep.width), bool)
    for place in np.ndindex(wanted.shape):
        block = chunk[place[0]]
        unit = units.get((block.settings[place[2]], block.seeds[place[1]]))
        if unit is not None and unit.sha256 not in computed.keys() | missing.keys():
            missing[unit.sha256] = place, unit
            wanted[place] = True
    if not missing:
        return
    settings = list(sweep.settings)
    for (number, _), unit in units.items():
        settings[number] = unit
    found = sweep.curvature(chunk, settings, wanted)
    for key, (place, unit) in missing.items():
        own: curvature.Found = jax.tree.map(lambda leaf, at=place: leaf[at], found)
        computed[key] = own.value() if own.settled() else _with_restarts(sweep, unit)


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


def _with_restarts(sweep: Sweep, experiment: Experiment) -> float:
    """Of one run at its start, on its own first batches."""
    ready = prepare(experiment, sweep.dataset, sweep.local_images)
    return curvature.with_restarts(experiment, ready, curvature.sample(next(ready.order)))
