"""What would have been foretold of a sweep's runs, of which their own first steps are known."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting.curvature import Found
from jaxmlp.forecasting.models import Forecast, Sharpness, first_steps, judge
from jaxmlp.sweeps.blocks import Block, seeded
from jaxmlp.sweeps.sweep import Finished, Sweep
from jaxmlp.training.run import prepare

Computed = dict[tuple[Experiment, int], float]  # by setting at unit rate, and seed


def compute_sharpness(
    sweep: Sweep, chunk: Sequence[Block], finished: Sequence[Finished], computed: Computed
) -> None:
    """The sharpness of a chunk's runs that is still missing, in every process; one program.

    Args:
        finished: the chunk's runs that are asked for.
        computed: filled here. Runs that differ only in a common factor on their learning rates, or
            in their decay, share one computation.
    """
    asked = {(run.setting, run.seed) for run in finished}
    units = {run.setting: _at_unit_rate(sweep.settings[run.setting])[0] for run in finished}
    wanted = np.zeros((len(chunk), sweep.height, sweep.width), bool)
    missing: dict[tuple[Experiment, int], tuple[int, ...]] = {}
    for place in np.ndindex(wanted.shape):
        block, (_, j, i) = chunk[place[0]], place
        setting, seed = block.settings[i], block.seeds[j]
        if (setting, seed) not in asked:
            continue
        if (key := (units[setting], seed)) not in computed and key not in missing:
            missing[key] = place
            wanted[place] = True
    if not missing:
        return
    settings = [units.get(i, setting) for i, setting in enumerate(sweep.settings)]
    found = sweep.curvature(chunk, settings, wanted)
    for (unit, seed), place in missing.items():
        own: Found = jax.tree.map(lambda leaf, at=place: leaf[at], found)
        value = own.value() if own.settled() else _with_restarts(sweep, unit, seed)
        computed[unit, seed] = value


def forecasts(sweep: Sweep, finished: Iterable[Finished], computed: Computed) -> Iterator[Forecast]:
    """What the forecast of each run would have been; its own first steps are the rehearsal.

    Args:
        computed: by `compute_sharpness`.
    """
    limit = curvature.stability_limit(sweep.experiment)
    epoch = np.empty((sweep.program.steps_per_epoch, sweep.experiment.batch_size), np.int8)
    images = curvature.sample(epoch).size
    for run in finished:
        setting = sweep.settings[run.setting]
        unit, rate = _at_unit_rate(setting)
        sharpness = Sharpness(rate * computed[unit, run.seed], limit, images)
        yield judge(setting, sharpness, first_steps(run.epochs), sweep.dataset.classes)


@functools.lru_cache(maxsize=1 << 14)  # runs of a chunk, on the largest of meshes
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


def _with_restarts(sweep: Sweep, setting: Experiment, seed: int) -> float:
    """Of one run at its start, on its own first batches."""
    experiment = seeded(setting, sweep.seeds[seed])
    ready = prepare(experiment, sweep.dataset, sweep.local_images)
    return curvature.with_restarts(experiment, ready, curvature.sample(next(ready.order)))
