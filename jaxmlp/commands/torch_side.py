"""The reference as the commands use it: torchref, wired from an Experiment and a Dataset.

torchref, and with it torch, is imported only when it is used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmlp.data import array_cache
from jaxmlp.data.dataset import Dataset
from jaxmlp.errors import DataError
from jaxmlp.experiment import OPTIMIZER_OPTIONS, Experiment
from jaxmlp.record import metrics
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights

if TYPE_CHECKING:
    from jaxmlp.training.certificate import Epoch
    from torchref.run import Settings, TorchRun

INSTALL = "install it with pip install -e '.[torch]'"


def check_installed() -> None:
    """Sees whether PyTorch loads.

    Raises:
        DataError: it does not.
    """
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise DataError(f"PyTorch does not load ({error}); {INSTALL}") from error


def torchvision_data(root: Path) -> Dataset:
    """CIFAR-10 as torchvision reads it under root.

    Raises:
        DataError: torchvision does not load, or the files are not there, or not the official ones.
    """
    from torchref import data

    try:
        sets = [data.cifar10(root, train) for train in (True, False)]
    except ImportError as error:
        raise DataError(f"torchvision does not load ({error}); {INSTALL}") from error
    except Exception as error:  # absent, damaged or unreadable files; pickle raises anything
        raise DataError(
            f"{root} holds no intact cifar-10-batches-py, as torchvision knows it; unpack the "
            "official cifar-10-python.tar.gz there, or give --data-dir DIR"
        ) from error
    arrays = {}
    for split, images in zip(("train", "test"), sets, strict=True):
        arrays[f"{split}_images"] = np.ascontiguousarray(np.moveaxis(images.data, 3, 1))
        arrays[f"{split}_labels"] = np.array(images.targets, np.int32)
    sha256 = array_cache.fingerprint(array_cache.describe(arrays))
    return Dataset("cifar10", "CIFAR-10 by torchvision", **arrays, sha256=sha256, classes=10)


def settings(experiment: Experiment, widths: tuple[int, ...]) -> Settings:
    """The experiment as torchref takes it: in plain values.

    Args:
        widths: of the inputs, every hidden layer, the classes.
    """
    from torchref.run import Settings

    # What the optimizer does not have is left out, so that torchref cannot hand it on.
    tensors = {
        name: experiment.per_tensor(name)
        for name in ("learning_rate", "weight_decay", "eps")
        if getattr(experiment, name) is not None
    }
    options = {name: getattr(experiment, name) for name in (*OPTIMIZER_OPTIONS, "nesterov")}
    schedules = {
        name: experiment.per_layer(name) for name in ("schedule", "warmup_epochs", "gamma")
    }
    return Settings(
        widths=widths,
        bias=experiment.bias,
        init_scale=experiment.per_tensor("init_scale"),
        preprocessing=experiment.preprocessing,
        input_scale=experiment.input_scale,
        train_size=experiment.train_size,
        optimizer=experiment.optimizer,
        options=options,
        tensors=tensors,
        schedules=schedules,
        milestones=experiment.milestones,
        batch_size=experiment.batch_size,
        epochs=experiment.epochs,
        seed=experiment.seed,
        precision=experiment.precision,
    )


def torch_run(
    experiment: Experiment,
    dataset: Dataset,
    torchvision_root: Path | None = None,
    device: str = "",
) -> TorchRun:
    """torchref's run of the experiment, ready to train.

    Args:
        torchvision_root: where torchvision's own pipeline reads the images of the dataset; None:
            they come from memory.
        device: torch's name of one; "": cuda where there is one, else cpu.

    Raises:
        ValueError: the batch size does not divide the training images, a channel that is to be
            standardised is constant, or the device cannot compute in the asked precision.
    """
    from torchref.run import Images, TorchRun

    experiment.steps_per_epoch(len(dataset.train_labels))  # or its error
    images = Images(
        dataset.name,
        dataset.train_images,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
    )
    asked = settings(experiment, dataset.widths(experiment.hidden))
    return TorchRun(asked, images, torchvision_root, device)


class TorchTrainer:
    """torchref's run as a command trains and records it; for arguments and errors see torch_run."""

    compile_seconds = 0.0

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        torchvision_root: Path | None = None,
        device: str = "",
    ) -> None:
        self.experiment, self.dataset = experiment, dataset
        self.train_size = len(dataset.train_labels)
        self.reference = torch_run(experiment, dataset, torchvision_root, device)
        self.setup_seconds = self.reference.setup_seconds

    def epochs(self) -> Iterator[metrics.EpochResult]:
        """Trains, yielding after each epoch."""
        for steps, test, params, seconds in self.reference.epochs():
            evaluation = metrics.Evaluation(
                test.loss, test.correct, np.array(test.dead), np.array(test.silent)
            )
            yield metrics.EpochResult(metrics.StepMetrics(**steps), evaluation, params, seconds)

    def row(self, epoch: int, result: metrics.EpochResult) -> dict[str, Any]:
        """The record's entry for one epoch."""
        hidden, test_size = np.array(self.experiment.hidden), len(self.dataset.test_labels)
        return metrics.epoch_row(
            epoch,
            # NumPy adds float32 up in chunks, so that the mean would depend on the type.
            result.steps.loss.astype(np.float64),
            result.steps.correct,
            self.train_size,
            result.test.loss,
            result.test.correct,
            test_size,
            (result.test.dead / hidden).tolist(),
            (result.test.silent / test_size).tolist(),
        )

    def steps(self, results: list[metrics.EpochResult]) -> dict[str, np.ndarray]:
        """The arrays of steps.npz."""
        return metrics.steps_arrays(self.experiment, [result.steps for result in results])


def pair_epochs(experiment: Experiment, moved: Experiment, dataset: Dataset) -> Iterator[Epoch]:
    """What jaxmlp.training.certificate.pair_epochs does, with torchref.

    The reference steps one run, then the other, on the batches that both would shuffle to.

    Raises:
        ValueError: the two can never be the same run, or a run cannot start.
    """
    from jaxmlp.training.certificate import Epoch, factors, ulps

    scales = factors(experiment, moved)
    runs = torch_run(experiment, dataset), torch_run(moved, dataset)
    # Both runs need one order of batches, so it comes from outside either.
    generator = TorchGenerator(experiment.seed)
    initial_weights(generator, dataset.widths(experiment.hidden), experiment.bias)
    order = batch_order(generator, len(dataset.train_labels), experiment.batch_size)
    for _ in range(experiment.epochs):
        losses, distances = [], []
        for indices in next(order):
            losses.append([run.step(indices).loss.numpy(force=True) for run in runs])
            distances.append(_apart(*runs, scales))
        loss_pair = np.array(losses).T
        weight, distance, lost = map(np.array, zip(*distances, strict=True))
        first, second = (run.evaluate().correct / len(dataset.test_labels) for run in runs)
        yield Epoch(loss_pair, ulps(*loss_pair), weight, distance, lost, (first, second))


def _apart(
    run: TorchRun, moved: TorchRun, scales: dict[str, list[float]]
) -> tuple[int, float, int]:
    """How far the parameters of two runs are apart, those that underflow aside.

    Returns:
        The largest distance in units in the last place; the largest of a tensor relative to itself,
        in the L2 norm; how many parameters underflow.
    """
    from jaxmlp.training.certificate import ulps, underflows
    from torchref.model import relative_distance

    largest, distance, underflowed = 0, 0.0, 0
    pairs = zip(run.tensors(), moved.tensors(), strict=True)
    for (layer, name, before), (_, _, after) in pairs:
        factor = scales[name][layer]
        with np.errstate(all="ignore"):  # an overflow is a distance like any other
            expected = before * before.dtype.type(factor)
        if np.array_equal(expected, after):
            continue
        lost = underflows(expected, after, factor)
        underflowed += int(lost.sum())
        after = np.where(lost, expected, after)
        if not np.array_equal(expected, after):
            largest = max(largest, int(ulps(expected, after).max()))
            relative = relative_distance(expected, after)
            distance = max(distance, math.inf if math.isnan(relative) else relative)
    return largest, distance, underflowed
