"""The same run in PyTorch, with the same flags and record: `python scripts/run_torch.py`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from jaxmlp.commands import run_job as job
from jaxmlp.commands import torch_side
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment

DESCRIPTION = (
    "Train the question's MLP in PyTorch, the reference, and leave the record that run_jax.py "
    "leaves.\n--data torchvision takes CIFAR-10 and the batches from torchvision's own "
    "pipeline\n(--data-dir DIR: its root, default data)."
)


def root(values: argparse.Namespace) -> Path | None:
    """The directory that torchvision reads, where --data names it."""
    return (values.data_dir or Path("data")) if values.data == "torchvision" else None


def load(values: argparse.Namespace, warn: Callable[[str], None]) -> Dataset:
    """The data set that the flags name; torchvision's CIFAR-10 under --data-dir included.

    Raises:
        DataError: PyTorch or torchvision does not load, or the files are not there.
        ValueError: torchvision is asked for another precision than its own.
    """
    torch_side.check_installed()
    torchvision_root = root(values)
    if torchvision_root is None:
        return job.load(values, warn)
    if values.precision not in (None, "float32"):
        raise ValueError(f"torchvision gives float32, not {values.precision}; leave one of the two")
    return torch_side.torchvision_data(torchvision_root)


def device(values: argparse.Namespace) -> str:
    from torchref.run import device_name

    return device_name()


def trainer(values: argparse.Namespace, experiment: Experiment, dataset: Dataset) -> job.Trainer:
    return torch_side.TorchTrainer(experiment, dataset, root(values))


TORCH = job.Framework("torch", ("torch", "numpy"), device, trainer, load)


def main(arguments: list[str] | None = None) -> None:
    job.main(DESCRIPTION, TORCH, arguments)
