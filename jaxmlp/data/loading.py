"""Loading: CIFAR-10 from wherever it can be had, a user's .npz, or the synthetic stand-in.

CIFAR-10 and the stand-in are decoded or generated once and then mapped from `array_cache`.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxmlp.data import array_cache, download
from jaxmlp.data import files as data_files
from jaxmlp.data import tfds as tfds_cifar10
from jaxmlp.data.array_cache import cache_directory, home
from jaxmlp.data.dataset import Dataset, first_images, from_entry
from jaxmlp.data.files import Arrays
from jaxmlp.errors import DataError

Warn = Callable[[str], None]
STAND_IN = "the synthetic stand-in for CIFAR-10 (NOT CIFAR-10)"
DATA_DIR = "a directory that holds cifar10/<version> as TFDS prepares it, or none"
PATHS = f"a directory prepared by TFDS, the archive {data_files.ARCHIVE}, or a .npz file"
ARCHIVE_SOURCE = "CIFAR-10 from its official binary archive"
REMEDY = f"get {download.URL}, then --data PATH"


class _NowhereError(Exception):
    """CIFAR-10 is in none of the places tried."""


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def load_data(
    data: str | Path = "auto",
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    warn: Warn = _to_stderr,
    train_size: int | None = None,
) -> Dataset:
    """The dataset that data names: auto, cifar10, synthetic, or the path of one.

    auto is CIFAR-10 from the cache, as prepared by TFDS under data_dir (TFDS_DATA_DIR,
    ~/tensorflow_datasets), or downloaded into the cache; failing all of these, the stand-in, with a
    warning of three lines. cifar10 never falls back. A path is a TFDS directory, the official
    binary archive, or a .npz; data_dir then has no part.

    Args:
        data_dir: where TFDS prepared its data.
        cache_dir: where arrays are kept; JAXMLP_CACHE, or the user's cache.
        warn: is told what a person should know.
        train_size: how many of the training images are kept, the first ones; all of them.

    Raises:
        ValueError: data or data_dir is none of this, or there are fewer training images.
        DataError: trouble with what they name.
    """
    prepared, cache = (path if path is None else Path(path) for path in (data_dir, cache_dir))
    if prepared is not None:
        _require_directory(prepared)
    dataset = _load(str(data), prepared, cache, warn)
    return dataset if train_size is None else first_images(dataset, train_size)


def _load(data: str, data_dir: Path | None, cache_dir: Path | None, warn: Warn) -> Dataset:
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
        description, source = array_cache.describe(arrays), f"the user's file {path.name}"
        return from_entry(path.stem, array_cache.Entry(arrays, description, source))
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
        cached = _any_cached(cache_dir, warn)
        if cached is not None:
            return from_entry("cifar10", cached)
    root = data_dir or Path(os.environ.get("TFDS_DATA_DIR") or home() / "tensorflow_datasets")
    version = tfds_cifar10.find(root)
    if version is not None:
        return _prepared(version, cache_dir, warn)
    if data_dir is not None:
        warn(f"{data_dir} holds no CIFAR-10 prepared by TFDS; looking elsewhere")
    return _downloaded(cache_directory(cache_dir), warn)


def _downloaded(cache: Path, warn: Warn) -> Dataset:
    """CIFAR-10 from the archive that its host gives, unless it has been cached before."""
    path = array_cache.entry_path(cache, "cifar10", [data_files.ARCHIVE_MD5])
    entry = _intact(path, warn)
    if entry is None:
        try:
            with download.alone(cache):  # whom this waited for may have cached it
                entry = _intact(path, warn) or _fetched(path, warn)
        except DataError as error:
            raise _NowhereError(str(error)) from error
    return from_entry("cifar10", entry)


def _fetched(path: Path, warn: Warn) -> array_cache.Entry:
    archive = download.fetch(path.parent)
    entry = _stored(path, data_files.read_archive(archive), ARCHIVE_SOURCE, warn)
    with contextlib.suppress(OSError):
        archive.unlink()  # not before the arrays are on the disk: a crash loses nothing
    return entry


def _any_cached(cache_dir: Path | None, warn: Warn) -> array_cache.Entry | None:
    for path in array_cache.newest_first(cache_directory(cache_dir), "cifar10"):
        if entry := _intact(path, warn):
            return entry
    return None


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
    path = array_cache.entry_path(cache_directory(cache_dir), name, key)
    return from_entry(name, _intact(path, warn) or _stored(path, read(), source, warn))


def _intact(path: Path, warn: Warn) -> array_cache.Entry | None:
    """The entry that is there, if it is as it was stored."""
    try:
        return array_cache.load(path)
    except array_cache.DamagedEntryError as damage:
        warn(f"the cached {path.name} is damaged and will not be used ({damage})")
    with contextlib.suppress(OSError):  # then `_stored` says that the cache cannot be written
        array_cache.discard(path)
    return None


def _stored(path: Path, arrays: Arrays, source: str, warn: Warn) -> array_cache.Entry:
    """The entry as another process would read it; the arrays in memory when it cannot be made."""
    try:
        array_cache.store(path, arrays, source)
        if entry := array_cache.load(path):
            return entry
    except (OSError, array_cache.DamagedEntryError) as error:
        warn(
            f"the cache {path.parent} cannot be written ({error}): this run goes on from memory, "
            "the next one reads everything again; make room there or set JAXMLP_CACHE"
        )
    return array_cache.Entry(arrays, array_cache.describe(arrays), source)
