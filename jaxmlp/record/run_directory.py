"""A run's directory: claimed before the work, replaced as one; only what is ours is touched.

    .jaxmlp-incoming/   files that are being written: worth nothing
    .jaxmlp-ready/      a whole record, flushed to the disk: it stands, and only has to be moved

A record is written into the first, which then becomes the second in one step; from there its files
move into place one by one, SHA256SUMS last. Whoever reads a file looks in the second first, and
whoever claims the directory moves what is left. So the record is the old one or the new one, whole,
at any moment, and the directory itself, which may hold a user's files or be a shell's own, stays.
"""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.record import run_files
from jaxmlp.record.run_files import KNOWN, READY, SUMS

INCOMING = ".jaxmlp-incoming"
RESERVE = 4 << 20  # bytes for figures, result.json and steps.npz of a usual run; measured: 1 MB

Differing = Callable[[dict[str, Any]], list[str]]  # of a result.json


# ---- before the work


@contextlib.contextmanager
def claimed(out: Path, overwrite: bool, size: int, differing: Differing) -> Iterator[None]:
    """Makes `out` and keeps it for this process; removes it again if nothing was saved in it.

    Args:
        size: bytes of params.npz, which its disk must have free beside the rest of a record.
        differing: as `check` takes it.

    Raises:
        ValueError: something stands there that must not be replaced, or another run is at work.
        OSError: the disk is full, or cannot be written.
    """
    check(out, overwrite, differing)
    path = _real(out)
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        with locked(path, out):
            try:
                move_ready(path)
                check(out, overwrite, differing)
                atomic.reserve(path, size + RESERVE)
                yield
            finally:
                _remove_empty(made[:1])  # under the lock: another process may want it next
    finally:
        _remove_empty(made[1:])


def _remove_empty(directories: list[Path]) -> None:
    for directory in directories:  # the deepest first
        with contextlib.suppress(OSError):
            directory.rmdir()


def settle(out: Path) -> None:
    """Moves what a killed run left to be moved, unless another process is at it."""
    path = _real(out)
    if (path / READY).is_dir():
        with contextlib.suppress(ValueError), locked(path, out):
            move_ready(path)


def check(out: Path, overwrite: bool, differing: Differing) -> None:
    """Sees whether a run may be saved in `out`; touches nothing.

    Args:
        differing: names what makes a record another run's, whose epochs nothing replaces unasked.

    Raises:
        ValueError: something stands there that must not be replaced.
        OSError: it cannot be read, or its name is too long.
    """
    atomic.check_kind(out, may_dangle=True)
    path = _real(out)
    for name in (INCOMING, READY):
        if (path / name).is_symlink() or not set(_names(path / name)) <= set(KNOWN):
            raise ValueError(f"{out / name} holds files that are not ours; move it away")
    names = set(_names(path)) - {INCOMING, READY}
    if not names and not _names(path / READY):
        return
    if not (run_files.is_record(path) or run_files.is_record(path / READY)):
        first = min(names.intersection(KNOWN) or names)
        raise ValueError(f"{out} holds files that are not a run's ({first}); choose another --out")
    for name in sorted(names.intersection(KNOWN)):
        if not _is_plain(path / name):
            raise ValueError(f"{out / name} is no file of a run; move it away, or choose another")
    if not overwrite:
        _check_unfinished(out, differing)


def _check_unfinished(out: Path, differing: Differing) -> None:
    keep = "--overwrite replaces it, --out DIR keeps both"
    try:
        if run_files.is_sealed(out):
            text = run_files.read(out)["result.json"]
        else:
            text = run_files.content(out, "result.json")
        result = json.loads(text)
        finished = result["finished"] is not False
        others = [] if finished else differing(result)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{out} holds a damaged run ({error}); {keep}") from None
    if finished:
        raise ValueError(f"{out} holds a finished run; {keep}")
    if others:
        raise ValueError(f"{out} holds an unfinished run with another {', '.join(others)}; {keep}")


def locked(path: Path, shown: Path | str) -> contextlib.AbstractContextManager[None]:
    """Makes a directory and keeps it for this process, with whom the lock ends.

    Args:
        shown: the directory's name as it was given.

    Raises:
        ValueError: another run is at work in it.
        OSError: it cannot be made.
    """
    return atomic.locked(
        path, f"another run is at work in {shown}; wait for it, or choose another directory"
    )


def _real(out: Path) -> Path:
    return Path(os.path.realpath(out))  # a symbolic link stays, what it points to is filled


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        return [directory.name]


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


# ---- the record


def save(out: Path, files: Mapping[str, bytes]) -> None:
    """Replaces the record in a claimed directory; what is no file of a record stays as it is.

    Raises:
        OSError: the disk is full or cannot be written; the old record stands.
        ValueError: something that is not ours has come into the way meanwhile; nothing is lost.
    """
    assert set(files) <= set(KNOWN), sorted(files)
    out = _real(out)
    incoming = out / INCOMING
    try:
        _remove(incoming)
        incoming.mkdir()
        for name, content in {**files, SUMS: run_files.sums(files)}.items():
            atomic.write_new(incoming / name, content)
        atomic.flush_directory(incoming)
        incoming.rename(out / READY)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(incoming)
        raise
    move_ready(out)


def move_ready(out: Path) -> None:
    """Moves the files of a whole record into place, and removes those of one that is not whole.

    Raises:
        ValueError: something that is not ours stands in the way; nothing is lost.
        OSError: the disk cannot be written; nothing is lost.
    """
    _remove(out / INCOMING)
    ready = out / READY
    if not ready.is_dir():
        return
    names = sorted(_names(ready), key=lambda name: (name == SUMS, name == "result.json", name))
    ours = run_files.is_record(out)
    for name in names:
        if os.path.lexists(out / name) and not (ours and _is_plain(out / name)):
            raise ValueError(
                f"{out / name} is not ours, and the record in {ready} has a file of that name; "
                "move it away, and the same command goes on"
            )
    if SUMS in names:
        _remove_left_out(out, run_files.listed(ready))
    for name in names:
        if name == SUMS:
            atomic.flush_directory(out)
        (ready / name).replace(out / name)
    ready.rmdir()
    atomic.flush_directory(out)


def _remove_left_out(out: Path, new: Mapping[str, str]) -> None:
    """Removes what the old record has and the new one has not."""
    for name, digest in run_files.listed(out).items():
        path = out / name
        obsolete = name in KNOWN and name not in new and os.path.lexists(path) and _is_plain(path)
        if obsolete and run_files.digest(path.read_bytes()) == digest:
            path.unlink()


def _remove(directory: Path) -> None:
    """Removes a directory of ours, if what is in it has the names of a record's files."""
    if not directory.is_dir():
        return
    for name in set(_names(directory)).intersection(KNOWN):
        (directory / name).unlink()
    directory.rmdir()
