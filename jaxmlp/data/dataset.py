"""Datasets as uint8 arrays: CIFAR-10 from wherever it can be had, a user's .npz, a stand-in.

CIFAR-10 and the stand-in are decoded or generated once and then mapped from `array_cache`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmlp.data import array_cache, download
from jaxmlp.data import files as data_files
from jaxmlp.data import tfds as tfds_cifar10
from jaxmlp.data.files import Arrays
from jaxmlp.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Int32, UInt8

__all__ = ["DataError", "Dataset", "cache_directory", "first_images", "load_data"]

Warn = Callable[[str], None]
STAND_IN = "the synthetic stand-in for CIFAR-10 (NOT CIFAR-10)"
DATA_DIR = "a directory that holds cifar10/<version> as TFDS prepares it, or none"
PATHS = f"a directory prepared by TFDS, the archive {data_files.ARCHIVE}, or a .npz file"
ARCHIVE_SOURCE = "CIFAR-10 from its official binary archive"
REMEDY = f"get {download.URL}, then --data PATH"


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


class _NowhereError(Exception):
    """CIFAR-10 is in none of the places tried."""


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def load_data(
    data: str = "auto",
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    warn: Warn = _to_stderr,
) -> Dataset:
    """The dataset that data names: auto, cifar10, synthetic, or the path of one.

    auto is CIFAR-10 from the cache, as prepared by TFDS under data_dir (TFDS_DATA_DIR,
    ~/tensorflow_datasets), or downloaded into the cache; failing all of these, the stand-in, with a
    warning of three lines. cifar10 never falls back. A path is a TFDS directory, the official
    binary archive, or a .npz; data_dir then has no part.
    Raises ValueError for a data or data_dir that is none of this, DataError for trouble with what
    it names.
    """
    if data_dir is not None:
        _require_directory(data_dir)
    if data == "synthetic":
        return _synthetic(cache_dir, warn)
    if data not in ("auto", "cifar10"):
        return _from_path(data, cache_dir, warn)
    try:
        return _cifar10(data_dir, cache_dir, warn)
    except _NowhereError as nowhere:
        if data == "cifar10":
            raise DataError(f"no CIFAR-10 here, and {nowhere}; {REMEDY}") from nowhere
        warn(
            f"WARNING: this runs on {STAND_IN}; its accuracies are not CIFAR-10's\n"
            f"why: {nowhere}\n"
            f"to bring CIFAR-10: {REMEDY}"
        )
        return _synthetic(cache_dir, warn)


def first_images(dataset: Dataset, train_size: int) -> Dataset:
    """The dataset with its first train_size training images only; the classes stay.

    Raises ValueError when there are not that many, or for less than 1.
    """
    available = len(dataset.train_images)
    if not 1 <= train_size <= available:
        fault = "is below 1" if train_size < 1 else f"exceeds the {available} training images"
        raise ValueError(f"train size {train_size} {fault}; choose 1 to {available}")
    arrays = {key: getattr(dataset, key) for key in data_files.KEYS}
    for key in ("train_images", "train_labels"):
        arrays[key] = arrays[key][:train_size]
    sha256 = array_cache.fingerprint(array_cache.describe(arrays))
    return dataclasses.replace(dataset, **arrays, sha256=sha256)


def _dataset(name: str, entry: array_cache.Entry) -> Dataset:
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


def _from_path(data: str, cache_dir: Path | None, warn: Warn) -> Dataset:
    path = Path(data or "\0")  # Path("") would be the current directory
    if _is_directory(path, f"data {data!r}", f"auto, cifar10, synthetic, or {PATHS}"):
        version = tfds_cifar10.find(path)
        if version is None:
            raise DataError(
                f"{path} holds no CIFAR-10 prepared by TFDS, which lies in cifar10/<version>; "
                f"give {PATHS}"
            )
        return _prepared(version, cache_dir, warn)
    if path.suffix == ".npz":
        arrays = data_files.read_npz(path)
        about = array_cache.describe(arrays)
        return _dataset(path.stem, array_cache.Entry(arrays, about, f"the user's file {path.name}"))
    if path.suffix not in (".gz", ".tgz"):
        raise ValueError(f"data {data!r} is no kind of file that can be read; give {PATHS}")
    key = [data_files.archive_md5(path)]

    def read() -> Arrays:
        return data_files.read_archive(path)

    return _cached("cifar10", key, ARCHIVE_SOURCE, read, cache_dir, warn)


def _is_directory(path: Path, value: str, choice: str) -> bool:
    """Raises ValueError, about the value that gave the path, when nothing readable is there."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{value} cannot be used ({why}); choose {choice}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise ValueError(f"{value} is neither a file nor a directory; choose {choice}")
    return stat.S_ISDIR(mode)


def _require_directory(data_dir: Path) -> None:
    value = f"data dir {str(data_dir)!r}"
    if not _is_directory(data_dir, value, DATA_DIR):
        raise ValueError(f"{value} is a file; choose {DATA_DIR}")


def _cifar10(data_dir: Path | None, cache_dir: Path | None, warn: Warn) -> Dataset:
    """CIFAR-10 from the first place that has it; raises _NowhereError with what failed last."""
    if data_dir is None:
        found = _any_cached(cache_dir, warn)
        if found is not None:
            return _dataset("cifar10", found)
    root = data_dir or Path(os.environ.get("TFDS_DATA_DIR") or _home() / "tensorflow_datasets")
    version = tfds_cifar10.find(root)
    if version is not None:
        return _prepared(version, cache_dir, warn)
    if data_dir is not None:
        warn(f"{data_dir} holds no CIFAR-10 prepared by TFDS; looking elsewhere")
    return _downloaded(cache_directory(cache_dir), warn)


def _downloaded(cache: Path, warn: Warn) -> Dataset:
    """CIFAR-10 from the archive that its host gives, unless it has been cached before."""
    entry = array_cache.entry_path(cache, "cifar10", [data_files.ARCHIVE_MD5])
    found = _intact(entry, warn)
    if found is None:
        try:
            with download.alone(cache):  # whom this waited for may have cached it
                found = _intact(entry, warn) or _fetched(entry, warn)
        except DataError as error:
            raise _NowhereError(str(error)) from error
    return _dataset("cifar10", found)


def _fetched(entry: Path, warn: Warn) -> array_cache.Entry:
    archive = download.fetch(entry.parent)
    found = _stored(entry, data_files.read_archive(archive), ARCHIVE_SOURCE, warn)
    with contextlib.suppress(OSError):
        archive.unlink()  # not before the arrays are on the disk: a crash loses nothing
    return found


def _any_cached(cache_dir: Path | None, warn: Warn) -> array_cache.Entry | None:
    entries = array_cache.newest_first(cache_directory(cache_dir), "cifar10")
    return next(filter(None, (_intact(entry, warn) for entry in entries)), None)


def _prepared(version: Path, cache_dir: Path | None, warn: Warn) -> Dataset:
    def read() -> Arrays:
        warn(f"decoding the images of {version}, once: later runs read them from the cache")
        return tfds_cifar10.read(version)

    key = tfds_cifar10.signature(version)
    return _cached("cifar10", key, "CIFAR-10 prepared by TFDS", read, cache_dir, warn)


def _synthetic(cache_dir: Path | None, warn: Warn) -> Dataset:
    from jaxmlp.data import synthetic

    def generate() -> Arrays:
        return dict(zip(data_files.KEYS, synthetic.synthetic_cifar10(), strict=True))

    # A changed generator, or a NumPy that may draw otherwise, makes an entry of its own.
    key = [inspect.getsource(synthetic), np.__version__]
    return _cached("synthetic", key, STAND_IN, generate, cache_dir, warn)


def _cached(
    name: str,
    key: list[str],
    source: str,
    read: Callable[[], Arrays],
    cache_dir: Path | None,
    warn: Warn,
) -> Dataset:
    """The dataset from its cache entry, which is made when there is no intact one."""
    entry = array_cache.entry_path(cache_directory(cache_dir), name, key)
    found = _intact(entry, warn) or _stored(entry, read(), source, warn)
    return _dataset(name, found)


def _intact(entry: Path, warn: Warn) -> array_cache.Entry | None:
    try:
        return array_cache.load(entry)
    except array_cache.DamagedEntryError as damage:
        warn(f"the cached {entry.name} is damaged and will not be used ({damage})")
    with contextlib.suppress(OSError):  # then `_stored` says that the cache cannot be written
        array_cache.discard(entry)
    return None


def _stored(entry: Path, arrays: Arrays, source: str, warn: Warn) -> array_cache.Entry:
    """The entry as another process would read it; the arrays in memory when it cannot be made."""
    try:
        array_cache.store(entry, arrays, source)
        found = array_cache.load(entry)
    except (OSError, array_cache.DamagedEntryError) as error:
        warn(
            f"the cache {entry.parent} cannot be written ({error}): this run goes on from memory, "
            "the next one reads everything again; make room there or set JAXMLP_CACHE"
        )
        found = None
    return found or array_cache.Entry(arrays, array_cache.describe(arrays), source)


def cache_directory(cache_dir: Path | None) -> Path:
    """The cache's directory: as given, JAXMLP_CACHE, or where XDG's rules put it."""
    chosen = cache_dir or os.environ.get("JAXMLP_CACHE")
    if chosen:
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # XDG's specification: a relative path is to be ignored.
    return (base if base.is_absolute() else _home() / ".cache") / "jaxmlp"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise DataError(f"there is no home directory ({error}); set HOME") from error
