"""The reference's data: torchvision's CIFAR-10, or arrays in memory, in shuffled batches."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler


def import_torchvision():
    """The torchvision module, also beside a torch without CUDA.

    torchvision's Linux wheels are built for CUDA. Beside a CPU-only torch their operators do not
    load, and the import stops because these two are missing; datasets and transforms need neither.

    Raises:
        ImportError: torchvision is not installed, or does not load all the same.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
    try:
        import torchvision
    except Exception as error:  # what a broken wheel raises is of many kinds
        raise ImportError(f"{error}") from error
    return torchvision


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), pixels in [0, 1].

    The sums are exact, in 64-bit integers, a thousand images at a time.
    """
    chunks = torch.from_numpy(np.array(images)).split(1000)
    count = images[:, 0].size
    means, deviations = [], []
    for channel in range(images.shape[1]):
        total = sum(int(chunk[:, channel].long().sum()) for chunk in chunks)
        squares = sum(int(chunk[:, channel].long().square().sum()) for chunk in chunks)
        means.append(total / (255 * count))
        deviations.append(math.sqrt((count * squares - total**2) / (255 * count) ** 2))
    return means, deviations


def statistics(images: np.ndarray, preprocessing: str) -> tuple[list[float], list[float]] | None:
    """What to subtract from each channel, and what to divide it by; None: neither.

    Args:
        images: the training images, uint8 (N, C, H, W).
        preprocessing: unit (pixels in [0, 1]), center, or standardize.
    """
    if preprocessing == "unit":
        return None
    mean, deviation = channel_statistics(images)
    return mean, deviation if preprocessing == "standardize" else [1.0] * len(mean)


def transform(normalization: tuple[list[float], list[float]] | None, input_scale: float):
    """torchvision's own way from a PIL image to the network's input; see `statistics`."""
    transforms = import_torchvision().transforms
    normalize = [transforms.Normalize(*normalization)] if normalization else []
    return transforms.Compose(
        [transforms.ToTensor(), *normalize, lambda image: image * input_scale]
    )


def cifar10(root: Path, train: bool):
    """torchvision's CIFAR-10 under root; PIL images.

    Raises:
        ImportError: torchvision does not load.
        RuntimeError: the files are not there, or not the official ones.
    """
    return import_torchvision().datasets.CIFAR10(root, train=train)


class ArrayImages(Dataset):
    """uint8 images (N, C, H, W) and labels (N,) in memory, handed out a batch at a time."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        normalization: tuple[list[float], list[float]] | None,
        input_scale: float,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.images = torch.from_numpy(np.array(images)).to(device)
        self.labels = torch.from_numpy(np.array(labels)).long().to(device)
        self.input_scale, self.dtype = input_scale, dtype
        self.normalization = normalization and [
            torch.tensor(values, dtype=dtype, device=device)[:, None, None]
            for values in normalization
        ]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices, device=self.images.device)
        images = self.images[chosen].to(self.dtype).div(255)
        if self.normalization:
            mean, deviation = self.normalization
            images = (images - mean) / deviation
        return images * self.input_scale, self.labels[chosen]


def array_loader(dataset: ArrayImages, batch_size: int, shuffle: bool) -> DataLoader:
    """A DataLoader that fetches whole batches; it shuffles as DataLoader(shuffle=True) does."""
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(sampler, batch_size, drop_last=False)
    return DataLoader(dataset, sampler=batches, batch_size=None)
