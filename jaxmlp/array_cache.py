"""The cache of arrays on disk: checksummed, memory-mapped, there whole or not at all.

An entry is a directory with one .npy file per array and meta.json, which holds the dtype, shape and
SHA-256 of each array and, last, a checksum of itself. An entry is written beside its place, flushed
to the disk and renamed into it, so a writer killed at any moment leaves nothing a reader would use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

SCHEMA = 1  # of what an entry holds and how it was read; part of its name, so others stay unread
ABANDONED_AFTER = 86_400  # seconds; assumed: no write takes a day. For writers on other hosts.

Description = dict[str, dict[str, object]]


class DamagedEntryError(Exception):
    """The entry is there but is not what was stored; the message says what differs."""


@dataclass(frozen=True)
class Entry:
    """The arrays of an entry, read-only, with what is known of them."""

    arrays: dict[str, np.ndarray]
    description: Description
    source: str


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
            return (entry / "meta.json").stat().st_mtime_ns
        except OSError:
            return 0  # damaged: `load` will say so

    try:
        entries = [path for path in cache.iterdir() if path.name.startswith(f"{kind}-v{SCHEMA}-")]
    except OSError:
        return []
    return sorted(entries, key=made, reverse=True)


def load(entry: Path) -> Entry | None:
    """The entry, every byte verified; None when there is none; raises DamagedEntryError."""
    if not os.path.lexists(entry):
        return None
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        checksum = meta.pop("checksum")
        if fingerprint(meta) != checksum:
            raise ValueError("meta.json does not match its own checksum")
        # The map itself is hashed below, so what was verified is what the caller reads.
        arrays = {
            name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in meta["arrays"]
        }
        for name, found in describe(arrays).items():
            if found != meta["arrays"][name]:
                raise ValueError(f"{name}.npy does not match its checksum")
    except Exception as error:  # a damaged file makes the parsers raise nearly anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise DamagedEntryError(why) from error
    return Entry(arrays, meta["arrays"], meta["source"])


def store(entry: Path, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Makes the entry, unless another process has made it meanwhile; raises OSError."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(entry.parent)
    with _temporary_directory(entry.parent) as temporary:
        new = temporary / entry.name
        new.mkdir()
        for name, array in arrays.items():
            with (new / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                _flush(file)
        meta = {"schema": SCHEMA, "source": source, "arrays": describe(arrays)}
        with (new / "meta.json").open("w") as file:
            json.dump({**meta, "checksum": fingerprint(meta)}, file, indent=1)
            _flush(file)
        _flush_directory(new)
        _rename_unless_there(new, entry)
        _flush_directory(entry.parent)


def discard(entry: Path) -> None:
    """Removes a damaged entry, at once for every reader; raises OSError."""
    with _temporary_directory(entry.parent) as temporary, contextlib.suppress(FileNotFoundError):
        entry.rename(temporary / entry.name)


@contextlib.contextmanager
def _temporary_directory(cache: Path) -> Iterator[Path]:
    """A directory named after this process, gone afterwards whatever happens inside."""
    prefix = f".tmp-{os.getpid()}-{socket.gethostname()}-"
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    """Removes the temporary directories of processes that were killed."""
    mine = re.compile(rf"\.tmp-(\d+)-{re.escape(socket.gethostname())}-[^-]+")
    for path in cache.glob(".tmp-*"):
        ours = mine.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process may have removed it meanwhile
            old = time.time() - path.stat().st_mtime > ABANDONED_AFTER
            if old or (ours and not _is_running(int(ours[1]))):
                _remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's process
    return True


def _rename_unless_there(new: Path, entry: Path) -> None:
    """Gives new the entry's name; an entry that another process has put there stays."""
    try:
        new.rename(entry)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _flush(file: IO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
