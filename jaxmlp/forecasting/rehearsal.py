"""What course a run will take, told before its first step, with calibrated probabilities.

Two things are looked at: the sharpness at initialisation (curvature.py), and a rehearsal: the run's
first steps, trained on a copy and thrown away. Two logistic models turn them into probabilities.
Their weights were fitted by `scripts/calibrate.py` on one family of random experiments; it prints
how well they do on another.

    diverges   the loss becomes non-finite or passes 1.5 times its first value + 0.5, or a hidden
               layer ends without an active unit on most test images
    fails      it diverges and does not recover: after six epochs it is non-finite or the loss
               still rises, or the network has lost so many units that its test accuracy is below
               twice that of guessing

The course: `stable` (it does not diverge), `recovers` (it diverges, and does not fail), `fails`.
"""

import functools

import jax
import numpy as np
from jaxtyping import Array, Int

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting.curvature import sample, sharpness
from jaxmlp.forecasting.models import REHEARSAL, Forecast, judge
from jaxmlp.record.metrics import StepMetrics
from jaxmlp.training.preprocessing import Images
from jaxmlp.training.run import prepare
from jaxmlp.training.step import Hyperparameters, State, batch_step, flipped, static_part


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def rehearse(
    experiment: Experiment,
    widths: tuple[int, ...],
    state: State,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
    steps_per_epoch: int,
) -> StepMetrics:
    """The metrics of a run's first steps."""
    step = batch_step(experiment, widths, hyper, images, steps_per_epoch)
    return jax.lax.scan(step, flipped(state), batches)[1]


def forecast(experiment: Experiment, dataset: Dataset) -> Forecast:
    """The forecast of a run, before its first step.

    Raises:
        ValueError: the run cannot start (`training.run.prepare`).
    """
    ready, static = prepare(experiment, dataset), static_part(experiment)
    batches = next(ready.order)
    length = min(REHEARSAL, experiment.epochs * ready.steps_per_epoch)
    repeats = -(-length // len(batches))  # of an epoch that is shorter than the rehearsal
    first = np.concatenate([batches, *(next(ready.order) for _ in range(repeats - 1))])[:length]
    found = sharpness(experiment, ready, sample(batches))
    with precision(experiment):
        metrics = rehearse(
            static,
            ready.widths,
            ready.state,
            ready.hyper,
            first,
            ready.images,
            ready.steps_per_epoch,
        )
        metrics = jax.device_get(metrics)
    return judge(experiment, found, metrics, dataset.classes)
