"""One run of the reference: what was asked in plain values, trained an epoch at a time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from torchref import data, model, train

EVALUATION_BATCH = 500  # test images at a time
Statistics = tuple[list[float], list[float]] | None  # see data.statistics
Loaders = tuple[DataLoader, DataLoader]  # of training batches, and of test batches


@dataclass(frozen=True)
class Settings:
    """What a run asks. Per layer: a tuple, first layer first; by tensor: kernel, perhaps bias."""

    widths: tuple[int, ...]  # of the inputs, every hidden layer, the classes
    bias: bool
    init_scale: dict[str, tuple[float, ...]]  # by tensor, per layer
    preprocessing: str  # unit, center or standardize
    input_scale: float
    train_size: int | None  # of torchvision's images, the first so many; None: all
    optimizer: str  # as in train.layer_optimizer, and so are its options
    options: dict[str, Any]
    tensors: dict[str, dict[str, tuple[float, ...]]]  # train.TensorSettings: by tensor, per layer
    schedules: dict[str, tuple[Any, ...]]  # schedule, warmup_epochs, gamma: per layer
    milestones: tuple[int, ...]  # epochs
    batch_size: int  # divides the number of training images
    epochs: int
    seed: int
    precision: str  # float32, tf32, bfloat16 or float64


class Images(NamedTuple):
    """A data set in memory: uint8 images (N, C, H, W), integer labels (N,)."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class EpochResult(NamedTuple):
    """One finished epoch."""

    steps: dict[str, np.ndarray]  # train.StepMetrics by name, each with a leading axis of steps
    test: train.Evaluation
    params: model.Layers
    seconds: float


class TorchRun:
    """A model, its optimizers and its batches, ready to train.

    Args:
        torchvision_root: of the files that torchvision's own pipeline reads, which have to hold
            the same images; None: the batches come from memory.
        device: torch's name of one; "": cuda where there is one, else cpu.

    Raises:
        ValueError: a channel that is to be standardised is constant, or there are no products of
            the asked precision.
    """

    def __init__(
        self,
        settings: Settings,
        images: Images,
        torchvision_root: Path | None = None,
        device: str = "",
    ) -> None:
        start = time.perf_counter()
        self.settings = settings
        steps_per_epoch = len(images.train_labels) // settings.batch_size
        dtype = set_precision(settings.precision)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        normalization = statistics(settings, images)
        torch.manual_seed(settings.seed)  # the weights are drawn first, then the batches
        self.model = model.MLP(settings.widths, settings.bias, dtype)
        model.scale_weights(self.model, settings.init_scale)
        self.model.to(self.device)
        self.optimizers, self.schedulers = optimizers(settings, self.model, steps_per_epoch)
        if torchvision_root:
            self.loaders = torchvision_loaders(settings, torchvision_root, normalization)
        else:
            self.loaders = array_loaders(settings, images, normalization, dtype, self.device)
        self.setup_seconds = time.perf_counter() - start

    def epochs(self) -> Iterator[EpochResult]:
        """Trains, yielding after each epoch."""
        start = time.perf_counter()
        for steps, test in train.train(
            self.model, self.optimizers, self.schedulers, *self.loaders, self.settings.epochs
        ):
            params, seconds = model.get_weights(self.model), time.perf_counter() - start
            yield EpochResult(columns(steps), test, params, seconds)
            start = time.perf_counter()

    def step(self, indices: np.ndarray) -> train.StepMetrics:
        """Trains on the images of these numbers; only where the batches come from memory."""
        images, labels = self.loaders[0].dataset[indices]
        return train.train_step(self.model, self.optimizers, self.schedulers, images, labels)

    def evaluate(self) -> train.Evaluation:
        """What the test set says of the model as it is now."""
        return train.evaluate(self.model, self.loaders[1])

    def tensors(self) -> list[tuple[int, str, np.ndarray]]:
        """The parameters as they are now: layer (from 0), kernel or bias, values as torch has them.

        A kernel is (fan_out, fan_in). On a CPU the values are the model's own memory.
        """
        return [
            (i, name, parameter.numpy(force=True))
            for i, layer in enumerate(self.model.layers)
            for name, parameter in model.named(layer)
        ]


def device_name() -> str:
    """The device that a run takes by default, in words."""
    return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"


def set_precision(kind: str) -> torch.dtype:
    """The dtype of a run; sets what float32 products may lose on a GPU.

    Args:
        kind: float32, tf32, bfloat16 or float64.

    Raises:
        ValueError: the device has no such products, so that asking for them would do nothing.
    """
    if kind in ("tf32", "bfloat16") and not torch.cuda.is_available():
        raise ValueError(f"precision {kind} does not exist on cpu; choose float32")
    products = {"tf32": "high", "bfloat16": "medium"}
    torch.set_float32_matmul_precision(products.get(kind, "highest"))
    return torch.float64 if kind == "float64" else torch.float32


def statistics(settings: Settings, images: Images) -> Statistics:
    """data.statistics of the training images.

    Raises:
        ValueError: a channel that is to be standardised is constant.
    """
    normalization = data.statistics(images.train_images, settings.preprocessing)
    if normalization and 0 in normalization[1]:
        raise ValueError(
            "preprocessing standardize needs channels that vary; channel "
            f"{normalization[1].index(0)} of {images.name} is constant: choose center"
        )
    return normalization


def optimizers(settings: Settings, mlp: model.MLP, steps_per_epoch: int) -> tuple[list, list]:
    """The optimizer and the scheduler of each layer."""
    made, schedulers = [], []
    for i, layer in enumerate(mlp.layers):
        tensors = {
            tensor: train.TensorSettings(
                **{name: values[tensor][i] for name, values in settings.tensors.items()}
            )
            for tensor in settings.tensors["learning_rate"]
        }
        schedule = train.LayerSettings(
            tensors, **{name: values[i] for name, values in settings.schedules.items()}
        )
        made.append(train.layer_optimizer(settings.optimizer, layer, tensors, settings.options))
        schedulers.append(
            train.layer_scheduler(
                made[-1], schedule, settings.milestones, settings.epochs, steps_per_epoch
            )
        )
    return made, schedulers


def array_loaders(
    settings: Settings, images: Images, normalization: Statistics, dtype: torch.dtype, device: str
) -> Loaders:
    """The batches from memory."""

    def array_images(images: np.ndarray, labels: np.ndarray) -> data.ArrayImages:
        return data.ArrayImages(images, labels, normalization, settings.input_scale, dtype, device)

    train_images = array_images(images.train_images, images.train_labels)
    test_images = array_images(images.test_images, images.test_labels)
    return (
        data.array_loader(train_images, settings.batch_size, shuffle=True),
        data.array_loader(test_images, EVALUATION_BATCH, shuffle=False),
    )


def torchvision_loaders(settings: Settings, root: Path, normalization: Statistics) -> Loaders:
    """The batches as torchvision's own pipeline gives them, from PIL images."""
    transform = data.transform(normalization, settings.input_scale)
    train_images, test_images = (data.cifar10(root, train) for train in (True, False))
    train_images.transform = test_images.transform = transform
    if settings.train_size:
        train_images = Subset(train_images, range(settings.train_size))
    return (
        DataLoader(train_images, settings.batch_size, shuffle=True),
        DataLoader(test_images, EVALUATION_BATCH),
    )


def columns(steps: list[train.StepMetrics]) -> dict[str, np.ndarray]:
    """The metrics of all steps by name, each with a leading axis of steps."""
    return {
        name: np.stack([getattr(step, name).numpy(force=True) for step in steps])
        for name in train.StepMetrics._fields
    }
