"""Images and labels out of other people's files: .npz, and the official CIFAR-10 binary archive.

Each reader returns the four arrays by name, images uint8 (n, channels, height, width), labels
int32 (n,), in the original order; whatever is wrong with a file becomes one DataError of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmlp.errors import DataError

Arrays = dict[str, np.ndarray]
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")

# Published beside the archives, https://www.cs.toronto.edu/~kriz/cifar.html
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
PICKLE_ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
_FOLDER = "cifar-10-batches-bin"
TRAIN_MEMBERS = tuple(f"{_FOLDER}/data_batch_{i}.bin" for i in range(1, 6))
TEST_MEMBERS = (f"{_FOLDER}/test_batch.bin",)
CHANNELS = (1, 2, 3, 4)  # how many an image has: grey or colour, each with or without transparency
_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the image, channel by channel, row by row


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turns whatever a reader raises over a bad file into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # parsers of bad files raise nearly anything
        missing = isinstance(error, KeyError)
        why = f"it has no {error}" if missing else str(error) or type(error).__name__
        raise DataError(f"cannot read {path}: {why}; {remedy}") from error


def read_npz(path: Path) -> Arrays:
    """The arrays of a .npz, images (n, height, width[, channels]); raises DataError."""
    with reading(path, "write it with numpy.savez from plain uint8 and integer arrays"):
        _check_fits_in_memory(path)
        with np.load(path, allow_pickle=False) as archive:
            keys = _complete_keys(path, archive.files)
            members = [archive[key] for key in keys]
        if not all(isinstance(array, np.ndarray) for array in members):
            raise ValueError("it holds something else under the name of an array")
    return checked(path.name, *members)


def _check_fits_in_memory(path: Path) -> None:
    """Reads sizes only: a small file can unpack to more than any machine holds."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise DataError(
            f"{path} unpacks to {size} bytes, more than the {memory} of this machine's memory; "
            "save fewer or smaller images"
        )


def _complete_keys(path: Path, present: list[str]) -> tuple[str, ...]:
    for keys in (KEYS, KERAS_KEYS):
        if set(keys) <= set(present):
            return keys
    raise DataError(
        f"{path} holds the arrays {', '.join(sorted(present)) or 'none'}; it must hold "
        f"{', '.join(KEYS)} (or {', '.join(KERAS_KEYS)}); save it with those names"
    )


def checked(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
) -> Arrays:
    """The four arrays as this package has them, from images (n, height, width[, channels])."""
    arrays = {
        "train_images": _channels_first(name, "training", train_images),
        "train_labels": _labels(name, "training", train_labels, len(train_images)),
        "test_images": _channels_first(name, "test", test_images),
        "test_labels": _labels(name, "test", test_labels, len(test_images)),
    }
    train, test = arrays["train_images"].shape[1:], arrays["test_images"].shape[1:]
    if train != test:
        raise DataError(
            f"{name}: training images are {_size(train)}, test images {_size(test)}; "
            "both must have one size: resize one of them"
        )
    if max(arrays["train_labels"].max(), arrays["test_labels"].max()) < 1:
        raise DataError(f"{name}: every label is 0; there must be 2 classes at least: label them")
    return arrays


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]} with {shape[0]} channels"


def _channels_first(name: str, split: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        raise DataError(
            f"{name}: {split} images are {images.dtype}; they must be uint8, 0 to 255: convert them"
        )
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(
            f"{name}: {split} images have shape {images.shape}; it must be (n, height, width) or "
            "(n, height, width, channels), none of them 0: reshape them"
        )
    last = images if images.ndim == 4 else images[..., np.newaxis]
    if last.shape[3] not in CHANNELS and last.shape[1] in CHANNELS:
        raise DataError(
            f"{name}: {split} images have shape {images.shape}, which looks like channels first; "
            "it must be (n, height, width, channels): turn them by numpy.moveaxis(images, 1, -1)"
        )
    return np.ascontiguousarray(last.transpose(0, 3, 1, 2))


def _labels(name: str, split: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: {split} labels are {labels.dtype}; they must be integers: convert them"
        )
    if labels.shape != (count,):
        raise DataError(
            f"{name}: {split} labels have shape {labels.shape} for {count} images; "
            f"it must be ({count},): one label per image, flattened"
        )
    if labels.min() < 0 or labels.max() >= np.iinfo(np.int32).max:
        raise DataError(
            f"{name}: {split} labels run from {labels.min()} to {labels.max()}; "
            "they must count the classes from 0: renumber them"
        )
    return np.ascontiguousarray(labels, dtype=np.int32)


def require_stored(arrays: Arrays) -> None:
    """Sees whether these are arrays as `checked` returns them, whoever says so.

    Raises:
        ValueError: they are not.
    """
    if set(arrays) != set(KEYS):
        raise ValueError(f"it holds the arrays {', '.join(sorted(arrays))}")
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise ValueError(f"{split}_images are {images.dtype} of shape {images.shape}")
        if labels.dtype != np.int32 or labels.shape != (len(images),):
            raise ValueError(f"{split}_labels are {labels.dtype} of shape {labels.shape}")
        if labels.min() < 0:
            raise ValueError(f"{split}_labels are negative")
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise ValueError("training and test images differ in size")
    if max(arrays["train_labels"].max(), arrays["test_labels"].max()) < 1:
        raise ValueError("every label is 0")


def archive_md5(path: Path) -> str:
    """The MD5 of the file, once it is known to be the official archive; raises DataError."""
    get = f"get {ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html"
    with reading(path, get), path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 == PICKLE_ARCHIVE_MD5 or "cifar-10-python" in path.name:
        raise DataError(
            f"{path} is the archive of Python pickles, which can run code and are never loaded; "
            f"give the binary archive instead: {get}"
        )
    if md5 != ARCHIVE_MD5:
        raise DataError(f"{path} has MD5 {md5}, not the official {ARCHIVE_MD5}; {get}")
    return md5


def read_archive(path: Path) -> Arrays:
    """The arrays of an archive whose MD5 was verified; raises DataError."""
    with reading(path, f"bring {ARCHIVE} again"):
        # As a stream and by name: members are never extracted, and decompressed only once.
        with tarfile.open(path, "r|gz") as archive:
            wanted = TRAIN_MEMBERS + TEST_MEMBERS
            batches = {m.name: _batch(archive, m) for m in archive if m.name in wanted}
        train_images, train_labels = _joined([batches[name] for name in TRAIN_MEMBERS])
        test_images, test_labels = _joined([batches[name] for name in TEST_MEMBERS])
    return checked(path.name, train_images, train_labels, test_images, test_labels)


def _batch(archive: tarfile.TarFile, member: tarfile.TarInfo) -> np.ndarray:
    file = archive.extractfile(member)
    if file is None or member.size % _RECORD:
        raise ValueError(f"{member.name} is no file of whole {_RECORD}-byte records")
    return np.frombuffer(file.read(), np.uint8).reshape(-1, _RECORD)


def _joined(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, channels), as `checked` takes them, and labels."""
    records = np.concatenate(batches)
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    return images.transpose(0, 2, 3, 1), records[:, 0]
