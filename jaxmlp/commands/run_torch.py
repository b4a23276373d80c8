"""The same run in PyTorch, with the same flags and record: `python scripts/run_torch.py`."""

import argparse
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlp.commands import run_job as job
from jaxmlp.data import array_cache
from jaxmlp.data.dataset import Dataset
from jaxmlp.errors import DataError
from jaxmlp.experiment import OPTIMIZER_OPTIONS, PER_TENSOR, Experiment
from jaxmlp.record import metrics

DESCRIPTION = (
    "Train the question's MLP in PyTorch, the reference, and leave the record that run_jax.py "
    "leaves.\n--data torchvision takes CIFAR-10 and the batches from torchvision's own "
    "pipeline\n(--data-dir DIR: its root, default data)."
)
EVALUATION_BATCH = 500  # test images at a time
INSTALL = "install it with pip install -e '.[torch]'"


class EpochResult(NamedTuple):
    steps: list[Any]  # torchref.train.StepMetrics
    test: Any  # torchref.train.Evaluation
    params: list[dict[str, np.ndarray]]
    seconds: float


class TorchRun:
    """torchref, set up as an Experiment asks.

    Raises:
        ValueError: the batch size does not divide the training images, a channel that is to be
            standardised is constant, or the device cannot compute in the asked precision.
    """

    compile_seconds = 0.0

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        torchvision_root: Path | None = None,
        device: str = "",
    ) -> None:
        import torch

        from torchref import data, model, train

        start = time.perf_counter()
        self.experiment, self.dataset = experiment, dataset
        self.train_size = len(dataset.train_labels)
        steps_per_epoch = experiment.steps_per_epoch(self.train_size)
        dtype = set_precision(experiment)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        normalization = data.statistics(dataset.train_images, experiment.preprocessing)
        if normalization and 0 in normalization[1]:
            raise ValueError(
                "preprocessing standardize needs channels that vary; channel "
                f"{normalization[1].index(0)} of {dataset.name} is constant: choose center"
            )
        torch.manual_seed(experiment.seed)
        widths = dataset.widths(experiment.hidden)
        self.model = model.MLP(widths, experiment.bias, dtype)
        model.scale_weights(self.model, experiment.per_tensor("init_scale"))
        self.model.to(self.device)
        self.optimizers, self.schedulers = optimizers(experiment, self.model, steps_per_epoch)
        if torchvision_root:
            self.loaders = torchvision_loaders(experiment, torchvision_root, normalization)
        else:

            def array_images(images, labels) -> data.ArrayImages:
                return data.ArrayImages(
                    images, labels, normalization, experiment.input_scale, dtype, self.device
                )

            images = array_images(dataset.train_images, dataset.train_labels)
            test_images = array_images(dataset.test_images, dataset.test_labels)
            self.loaders = (
                data.array_loader(images, experiment.batch_size, shuffle=True),
                data.array_loader(test_images, EVALUATION_BATCH, shuffle=False),
            )
        self._train, self._weights = train.train, model.get_weights
        self.setup_seconds = time.perf_counter() - start

    def epochs(self) -> Iterator[EpochResult]:
        """Trains, yielding after each epoch."""
        start = time.perf_counter()
        train_batches, test_batches = self.loaders
        for steps, test in self._train(
            self.model,
            self.optimizers,
            self.schedulers,
            train_batches,
            test_batches,
            self.experiment.epochs,
        ):
            seconds = time.perf_counter() - start
            yield EpochResult(steps, test, self._weights(self.model), seconds)
            start = time.perf_counter()

    def row(self, epoch: int, result: EpochResult) -> dict[str, Any]:
        """The record's entry for one epoch."""
        hidden, test_size = np.array(self.experiment.hidden), len(self.dataset.test_labels)
        return metrics.epoch_row(
            epoch,
            np.array([float(step.loss) for step in result.steps]),
            np.array([int(step.correct) for step in result.steps]),
            self.train_size,
            result.test.loss,
            result.test.correct,
            test_size,
            (np.array(result.test.dead) / hidden).tolist(),
            (np.array(result.test.silent) / test_size).tolist(),
        )

    def steps(self, results: list[EpochResult]) -> dict[str, np.ndarray]:
        """The arrays of steps.npz."""
        steps = [step for result in results for step in result.steps]
        columns = {
            name: np.stack([getattr(step, name).numpy(force=True) for step in steps])
            for name in ("loss", "grad_norm", "dead")
        }
        return {**columns, "dead": columns["dead"] / np.array(self.experiment.hidden)}


def set_precision(experiment: Experiment):
    """The torch dtype of the run; sets what float32 products may lose on a GPU.

    Raises:
        ValueError: the device has no such products, so that asking for them would do nothing.
    """
    import torch

    kind = experiment.precision
    if kind in ("tf32", "bfloat16") and not torch.cuda.is_available():
        raise ValueError(f"precision {kind} does not exist on cpu; choose float32")
    products = {"tf32": "high", "bfloat16": "medium"}
    torch.set_float32_matmul_precision(products.get(kind, "highest"))
    return torch.float64 if kind == "float64" else torch.float32


def optimizers(experiment: Experiment, model, steps_per_epoch: int) -> tuple[list, list]:
    """torchref's optimizer and scheduler of each layer."""
    from torchref import train

    options = {name: getattr(experiment, name) for name in OPTIMIZER_OPTIONS}
    options["nesterov"] = experiment.nesterov
    own = {
        name: experiment.per_tensor(name)
        for name in PER_TENSOR[1:]
        if getattr(experiment, name) is not None
    }
    made, schedulers = [], []
    for i, layer in enumerate(model.layers):
        tensors = {
            tensor: train.TensorSettings(
                **{name: values[tensor][i] for name, values in own.items()}
            )
            for tensor in own["learning_rate"]
        }
        settings = train.LayerSettings(
            tensors,
            **{
                name: experiment.per_layer(name)[i]
                for name in ("schedule", "warmup_epochs", "gamma")
            },
        )
        made.append(train.layer_optimizer(experiment.optimizer, layer, tensors, options))
        schedulers.append(
            train.layer_scheduler(
                made[-1], settings, experiment.milestones, experiment.epochs, steps_per_epoch
            )
        )
    return made, schedulers


def torchvision_loaders(experiment: Experiment, root: Path, normalization) -> tuple:
    """The batches as torchvision's own pipeline gives them, from PIL images."""
    from torch.utils.data import DataLoader, Subset

    from torchref import data

    transform = data.transform(normalization, experiment.input_scale)
    train_images, test_images = (data.cifar10(root, train) for train in (True, False))
    train_images.transform = test_images.transform = transform
    if experiment.train_size:
        train_images = Subset(train_images, range(experiment.train_size))
    return (
        DataLoader(train_images, experiment.batch_size, shuffle=True),
        DataLoader(test_images, EVALUATION_BATCH),
    )


def load(values: argparse.Namespace, warn: Callable[[str], None]) -> Dataset:
    """The data set that the flags name; torchvision's CIFAR-10 under --data-dir included.

    Raises:
        DataError: PyTorch or torchvision does not load, or the files are not there.
    """
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise DataError(f"PyTorch does not load ({error}); {INSTALL}") from error
    if values.data != "torchvision":
        return job.load(values, warn)
    from torchref import data

    if values.precision not in (None, "float32"):
        raise ValueError(f"torchvision gives float32, not {values.precision}; leave one of the two")
    root = values.data_dir or Path("data")
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


def device(values: argparse.Namespace) -> str:
    import torch

    return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"


def trainer(values: argparse.Namespace, experiment: Experiment, dataset: Dataset) -> job.Trainer:
    root = values.data_dir or Path("data")
    return TorchRun(experiment, dataset, root if values.data == "torchvision" else None)


TORCH = job.Framework("torch", ("torch", "numpy"), device, trainer, load)


def main(arguments: list[str] | None = None) -> None:
    job.main(DESCRIPTION, TORCH, arguments)
