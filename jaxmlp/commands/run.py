"""Trains one network and leaves a record: `python scripts/run_jax.py --input-scale 255`."""

import argparse
from contextlib import AbstractContextManager
from typing import Any

from jaxmlp.commands import flags
from jaxmlp.commands import run_job as job
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
    from jaxmlp.train.run import Run

    return Run(experiment, dataset, values.data_parallel)


def forecast(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    from jaxmlp.forecast.rehearsal import forecast

    return forecast(experiment, dataset).to_json()


def checkpoints(
    values: argparse.Namespace, experiment: Experiment, dataset: Dataset, warn: job.Warn
) -> AbstractContextManager[job.Checkpoints]:
    from jaxmlp.record import run_record as record
    from jaxmlp.train.checkpoint import Checkpoints, provenance, state_size

    run = provenance(experiment, dataset, record.environment(device(values), JAX_PACKAGES))
    size = state_size(experiment, dataset)
    return Checkpoints(values.checkpoint, values.checkpoint_every or 1, run, warn, size)


JAX = job.Framework(
    "jax", JAX_PACKAGES, device, trainer, job.load, forecast, checkpoints, add_flags
)


def main(arguments: list[str] | None = None) -> None:
    job.main(DESCRIPTION, JAX, arguments)
