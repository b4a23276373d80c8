"""A data set in memory: uint8 images, int32 labels, and a fingerprint of both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxmlp.data import array_cache
from jaxmlp.data.files import KEYS

if TYPE_CHECKING:
    from jaxtyping import Int32, UInt8


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, channels first as torchvision's ToTensor lays them out, and labels; read-only.

    source is a phrase for a person, without any absolute path. sha256 covers contents, dtypes and
    shapes of the four arrays. classes is the largest label of all + 1.
    """

    name: str
    source: str
    train_images: UInt8[np.ndarray, "train channels height width"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test channels height width"]
    test_labels: Int32[np.ndarray, " test"]
    sha256: str
    classes: int

    def widths(self, hidden: tuple[int, ...]) -> tuple[int, ...]:
        """Of a network with these hidden layers: the input, every hidden layer, the classes."""
        return (self.train_images[0].size, *hidden, self.classes)


def from_entry(name: str, entry: array_cache.Entry) -> Dataset:
    """The dataset of an entry's arrays, which become read-only."""
    arrays = entry.arrays
    for array in arrays.values():
        array.setflags(write=False)  # as the cached ones are, so that no caller can come to write
    return Dataset(
        name=name,
        source=entry.source,
        **arrays,
        sha256=array_cache.fingerprint(entry.description),
        classes=1 + int(max(arrays["train_labels"].max(), arrays["test_labels"].max())),
    )


def first_images(dataset: Dataset, train_size: int) -> Dataset:
    """The dataset with its first train_size training images only; the classes stay.

    Raises ValueError when there are not that many, or for less than 1.
    """
    available = len(dataset.train_images)
    if not 1 <= train_size <= available:
        fault = "is below 1" if train_size < 1 else f"exceeds the {available} training images"
        raise ValueError(f"train size {train_size} {fault}; choose 1 to {available}")
    arrays = {key: getattr(dataset, key) for key in KEYS}
    for key in ("train_images", "train_labels"):
        arrays[key] = arrays[key][:train_size]
    sha256 = array_cache.fingerprint(array_cache.describe(arrays))
    return dataclasses.replace(dataset, **arrays, sha256=sha256)
