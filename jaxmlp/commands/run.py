"""Trains one network and leaves a record: `python scripts/run_jax.py --input-scale 255`."""

import argparse
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from jaxmlp.commands import flags
from jaxmlp.commands import run_job as job
from jaxmlp.commands.signals import noted
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.record.run_record import JAX_PACKAGES

DESCRIPTION = (
    "Train the question's MLP on CIFAR-10, as one compiled JAX program, and say what happened."
)


def add_flags(parser: flags.Parser) -> None:
    flags.add_forecast_flag(parser)
    flags.add_checkpoint_flags(parser)
    flags.add_data_parallel_flag(parser)


def device(values: argparse.Namespace) -> str:
    from jaxmlp.device import compilation
    from jaxmlp.device.mesh import describe_devices

    compilation.use_compilation_cache()
    return describe_devices(values.data_parallel)


def trainer(values: argparse.Namespace, experiment: Experiment, dataset: Dataset) -> job.Trainer:
    from jaxmlp.training.run import Run

    return Run(experiment, dataset, values.data_parallel)


def forecast(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    from jaxmlp.forecasting.rehearsal import forecast

    return forecast(experiment, dataset).to_json()


@contextlib.contextmanager
def checkpoints(
    values: argparse.Namespace, experiment: Experiment, dataset: Dataset, warn: job.Warn
) -> Iterator[job.Checkpoints]:
    """The checkpoints; meanwhile SIGTERM is only noted, and stops the run in a good place."""
    from jaxmlp.record import run_record as record
    from jaxmlp.training.checkpoint import Checkpoints, provenance, state_size

    with noted(signal.SIGTERM) as stop_asked:
        run = provenance(experiment, dataset, record.environment(device(values), JAX_PACKAGES))
        every, size = values.checkpoint_every or 1, state_size(experiment, dataset)
        with Checkpoints(values.checkpoint, every, run, warn, size, stop_asked) as kept:
            yield kept


JAX = job.Framework(
    "jax", JAX_PACKAGES, device, trainer, job.load, forecast, checkpoints, add_flags
)


def main(arguments: list[str] | None = None) -> None:
    job.main(DESCRIPTION, JAX, arguments)
