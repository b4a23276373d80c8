"""CIFAR-10 as TensorFlow Datasets prepared it: found and read.

Reading array_record needs no TensorFlow; reading TFRecord does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxmlp.data.files import Arrays, checked, reading
from jaxmlp.errors import DataError

INSTALL = "pip install -e '.[prepare]'"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(root: Path) -> Path | None:
    """The newest version directory of CIFAR-10 under root (or root itself), if there is one.

    A directory named as a version counts even when it is damaged, so that reading it says so.
    """
    with reading(root, "give a directory you may read"):
        if (root / "dataset_info.json").exists():
            return root
        for parent in (root / "cifar10", root):
            if versions := _versions(parent):
                return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    return root if _VERSION.fullmatch(root.name) else None


def _versions(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if _VERSION.fullmatch(path.name)]


def signature(version: Path) -> list[str]:
    """What tells one copy from another without reading it: place, names, sizes, times."""
    with reading(version, "give a directory you may read"):
        files = sorted(path for path in version.iterdir() if path.is_file())
        stats = [(path.name, path.stat()) for path in files]
        return [str(version.resolve()), *(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats)]


def read(version: Path) -> Arrays:
    """The arrays of CIFAR-10 as TFDS prepared it, in the archive's order; raises DataError."""
    remedy = "prepare it again, or give another copy"
    with reading(version, remedy), quiet():
        import tensorflow_datasets as tfds

        info = tfds.builder_from_directory(version).info
        if info.name != "cifar10":
            raise DataError(
                f"{version} holds {info.name}; only cifar10 is read from TFDS directories: "
                "give other data as .npz"
            )
        train = _in_order(info, "train")
        test = _in_order(info, "test")
    return checked(str(version), *train, *test)


def _in_order(info, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels sorted by id: `train_16399` is image 16399 of the archive."""
    examples = list(_examples(info, split))
    numbers = [int(example["id"].removeprefix(f"{split}_".encode())) for example in examples]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"ids of the {split} split repeat")
    order = np.argsort(numbers)
    images = np.stack([examples[i]["image"] for i in order])
    return images, np.array([examples[i]["label"] for i in order])


def _examples(info, split: str) -> Iterator[dict]:
    shards = zip(info.splits[split].filepaths, info.splits[split].shard_lengths, strict=True)
    for file, length in shards:
        path = Path(file)
        with reading(path, "the file is damaged or missing: prepare it again"):
            records = _records(path, info.file_format.value)
            if len(records) != length:
                raise ValueError(f"holds {len(records)} examples of {length}")
            yield from [info.features.deserialize_example_np(record) for record in records]


def _records(path: Path, file_format: str) -> Sequence:
    """The serialised examples of one file."""
    if file_format == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        source = ArrayRecordDataSource(os.fspath(path))
        return source.__getitems__(range(len(source)))
    if file_format != "tfrecord":
        raise DataError(f"{path} is {file_format}; array_record can be read: prepare it as that")
    try:
        dataset = tensorflow().data.TFRecordDataset(os.fspath(path))
    except DataError as error:
        raise DataError(f"{path} is TFRecord: {error}, or give a copy in array_record") from error
    return [record.numpy() for record in dataset]


def tensorflow():
    """The TensorFlow module, kept off the GPU, which is JAX's; raises DataError without it."""
    try:
        with quiet():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
    except Exception as error:
        why = "is not installed" if isinstance(error, ImportError) else f"does not start ({error})"
        raise DataError(f"TensorFlow, which this takes, {why}: {INSTALL}") from error
    return tf


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the chatter of absl, TFDS and TensorFlow off stdout and drops their warnings."""
    from absl import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when TensorFlow is imported
    before = logging.get_verbosity()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            logging.set_verbosity(before)
