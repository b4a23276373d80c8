"""The cache of a data set's four arrays on disk: checksummed, memory-mapped, whole or not at all.

An entry is a directory with one .npy file per array and meta.json, which holds the dtype, shape and
SHA-256 of each array and, last, a checksum of itself. An entry is written beside its place, flushed
to the disk and renamed into it, so a writer killed at any moment leaves nothing a reader would use.
Writers take turns by a lock, so what lies half-written when the lock is had was abandoned.

Only files of these names are ever deleted, and directories only once they are empty: what a user
puts into the cache, or into an entry, stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp import atomic
from jaxmlp.data.files import KEYS, require_stored
from jaxmlp.errors import DataError

SCHEMA = 2  # of what an entry holds and how it was read; part of its name, so others stay unread
META = "meta.json"
FILES = (META, *(f"{key}.npy" for key in KEYS))
UNFINISHED, LOCK = ".unfinished", ".lock"
PATIENCE = 60.0  # seconds for another writer; assumed: writing takes a few
MOST_META_BYTES = 1 << 16  # ours has about 1000

Description = dict[str, dict[str, object]]


class DamagedEntryError(Exception):
    """The entry is there but is not what was stored; the message says what differs."""


@dataclass(frozen=True)
class Entry:
    """The arrays of an entry, read-only, with what is known of them."""

    arrays: dict[str, np.ndarray]
    description: Description
    source: str


def cache_directory(cache_dir: Path | None) -> Path:
    """The cache's directory: as given, JAXMLP_CACHE, or where XDG's rules put it."""
    chosen = cache_dir or os.environ.get("JAXMLP_CACHE")
    if chosen:
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # XDG's specification: a relative path is to be ignored.
    return (base if base.is_absolute() else home() / ".cache") / "jaxmlp"


def home() -> Path:
    """The user's home; raises DataError when there is none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise DataError(f"there is no home directory ({error}); set HOME") from error


def describe(arrays: Mapping[str, np.ndarray]) -> Description:
    """The dtype, shape and SHA-256 of the contents, in C order, of each array."""
    return {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
        }
        for name, array in arrays.items()
    }


def fingerprint(description: object) -> str:
    """One SHA-256 for all that a description (or any JSON value) says."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def entry_path(cache: Path, kind: str, key: list[str]) -> Path:
    """The place of the entry of this kind that was made from what key names."""
    return cache / f"{kind}-v{SCHEMA}-{fingerprint(key)[:16]}"


def newest_first(cache: Path, kind: str) -> list[Path]:
    """The places of all entries of this kind, the one made last first."""

    def made(entry: Path) -> int:
        try:
            return (entry / META).stat().st_mtime_ns
        except OSError:
            return 0  # damaged: `load` will say so

    name = re.compile(rf"{kind}-v{SCHEMA}-[0-9a-f]{{16}}")
    try:
        entries = [path for path in cache.iterdir() if name.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(entries, key=made, reverse=True)


def load(entry: Path) -> Entry | None:
    """The entry, every byte verified; None when there is none; raises DamagedEntryError."""
    if not os.path.lexists(entry):
        return None
    try:
        meta = _read_meta(entry / META)
        # The map itself is hashed below, so what was verified is what the caller reads.
        arrays = {key: _map(entry / f"{key}.npy", meta["headers"][key]) for key in KEYS}
        description = describe(arrays)
        for key in KEYS:
            if description[key] != meta["arrays"][key]:
                raise ValueError(f"{key}.npy does not match its checksum")
        require_stored(arrays)
    except Exception as error:  # a damaged file makes the parsers raise nearly anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise DamagedEntryError(why) from error
    return Entry(arrays, description, meta["source"])


def _read_meta(path: Path) -> dict[str, Any]:
    """What meta.json says, if it is to the byte what `_sealed` wrote; raises nearly anything."""
    _require_file(path)
    with path.open("rb") as file:
        content = file.read(MOST_META_BYTES + 1)
    if len(content) > MOST_META_BYTES:
        raise ValueError(f"{META} is longer than {MOST_META_BYTES} bytes")
    meta = json.loads(content)
    meta.pop("checksum")
    if content != _sealed(meta):
        raise ValueError(f"{META} does not match its own checksum")
    if not isinstance(meta["source"], str) or set(meta["arrays"]) != set(KEYS):
        raise ValueError(f"{META} does not describe the four arrays")
    return meta


def _sealed(meta: dict[str, Any]) -> bytes:
    return json.dumps({**meta, "checksum": fingerprint(meta)}, indent=1).encode()


def _map(path: Path, header: str) -> np.ndarray:
    """The array of the file, mapped; raises ValueError when its header is not the one written."""
    _require_file(path)
    array = np.lib.format.open_memmap(path, mode="r")  # refuses pickled objects
    length = path.stat().st_size - array.nbytes
    if _header(path, length) != header:
        raise ValueError(f"{path.name} does not match its checksum")
    return array


def _header(path: Path, length: int) -> str:
    """The SHA-256 of what stands before the contents of the array: some of it has no meaning."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(length)).hexdigest()


def _require_file(path: Path) -> None:
    """Raises ValueError; reading a named pipe, for one, would wait for ever."""
    if not path.is_file():
        raise ValueError(f"{path.name} is no file" if path.exists() else f"{path.name} is missing")


def store(entry: Path, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Makes the entry, unless another process has made it meanwhile; raises OSError."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    new = entry.parent / UNFINISHED
    with _lock(entry.parent):
        if _is_intact(entry):
            return
        _remove(new)  # of a writer that was killed
        new.mkdir()
        try:
            _write(new, arrays, source)
            _remove(entry)
            if os.path.lexists(entry):
                raise FileExistsError(errno.EEXIST, "move away what stands at", str(entry))
            new.rename(entry)
        finally:
            _remove(new)
        atomic.flush_directory(entry.parent)


def _write(new: Path, arrays: Mapping[str, np.ndarray], source: str) -> None:
    headers = {}
    for name, array in arrays.items():
        path = new / f"{name}.npy"
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            atomic.flush(file)
        headers[name] = _header(path, path.stat().st_size - array.nbytes)
    meta = {"schema": SCHEMA, "source": source, "arrays": describe(arrays), "headers": headers}
    with (new / META).open("wb") as file:
        file.write(_sealed(meta))
        atomic.flush(file)
    atomic.flush_directory(new)


def discard(entry: Path) -> None:
    """Removes a damaged entry, unless another process has mended it meanwhile; raises OSError."""
    with _lock(entry.parent):
        if not _is_intact(entry):
            _remove(entry)


def _is_intact(entry: Path) -> bool:
    try:
        return load(entry) is not None
    except DamagedEntryError:
        return False


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Keeps other writers out; raises OSError, a TimeoutError when one stays for long."""
    from filelock import FileLock

    with FileLock(cache / LOCK, timeout=PATIENCE):
        yield


def _remove(entry: Path) -> None:
    """Deletes an entry's files, and the directory if nothing else is in it; as far as it may."""
    if entry.is_symlink() or not entry.is_dir():
        return
    for name in FILES:  # meta.json first: without it no reader uses the others
        path = entry / name
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with contextlib.suppress(OSError):
        entry.rmdir()
