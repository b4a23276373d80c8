"""Trains one network and leaves a record: `python scripts/run_jax.py --input-scale 255`."""

import argparse
import sys
from typing import Any

from jaxmlp import job
from jaxmlp.data import Dataset
from jaxmlp.experiment import Experiment

DESCRIPTION = (
    "Train the question's MLP on CIFAR-10, as one compiled JAX program, and say what happened."
)


def device() -> str:
    from jaxmlp import devices

    devices.use_compilation_cache()
    return devices.describe()


def trainer(values: argparse.Namespace, experiment: Experiment, dataset: Dataset) -> job.Trainer:
    from jaxmlp.train import Run

    return Run(experiment, dataset)


def forecast(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    from jaxmlp.forecast import forecast

    return forecast(experiment, dataset).to_json()


JAX = job.Framework(
    "jax", ("jax", "jaxlib", "flax", "optax", "numpy"), device, trainer, job.load, forecast
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    job.main(DESCRIPTION, JAX, arguments)


if __name__ == "__main__":
    sys.exit(main())
