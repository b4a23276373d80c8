"""Where a run's checkpoints lie: whether it is free, whose it is, and what may be removed from it.

A directory of the file system is kept by one process at a time, and nothing in it is removed but
what Orbax wrote. In a bucket there are no locks, and names are all that can be looked at.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jax
from etils import epath

from jaxmlp import atomic
from jaxmlp.record import run_directory

PROBE = ".jaxmlp-probe"  # in a bucket: written and removed at once, to see whether saving will work
EPOCH = r"\d+"  # a checkpoint's name
UNFINISHED = r"\.orbax-checkpoint-tmp(-\d+)?"  # what Orbax adds to a name until it is whole
GONE = ".orbax-checkpoint-tmp-gone"  # makes a whole one's name such a name, before it is removed
PARTIAL = rf"\d+({UNFINISHED}|{re.escape(GONE)})"
# Every name in a checkpoint, as Orbax and TensorStore give them.
INSIDE = re.compile(
    rf"(state|epochs|about)({UNFINISHED})?|(_\w+|\w*metadatas?|commit_success\.txt|process_\d+|"
    r"ocdbt\.process_\d+|manifest\.ocdbt|d|[0-9a-f]{32})(\.__lock)?"  # a lock: while it is written
)


def locate(directory: str) -> epath.Path:
    """The directory; a local one absolute, as Orbax needs it.

    Raises:
        ValueError: it is of a kind that this machine cannot reach.
    """
    if "://" not in directory:
        return epath.Path(os.path.realpath(Path(directory).expanduser()))
    try:
        path = epath.Path(directory)
        path.exists()
    except (ImportError, KeyError) as error:
        known = "a directory's name, gs://... or s3://..."
        why = f": {error}" if isinstance(error, ImportError) else f"; give {known}"
        raise ValueError(f"--checkpoint {directory} is out of reach{why}") from error
    return path


def is_local(path: epath.Path) -> bool:
    return "://" not in os.fspath(path)


def check(path: epath.Path, shown: str) -> None:
    """Sees whether all that stands there is a checkpoint; touches nothing.

    Raises:
        ValueError: something else stands there.
    """
    if not path.is_dir() and (path.exists() or os.path.lexists(path)):
        raise ValueError(
            f"{shown} is a file or a loop of links; --checkpoint needs a directory's name"
        )
    inside = list(path.iterdir()) if path.exists() else []
    ours = {each.name for each in inside if _is_checkpoint(each)}
    empty = {each.name for each in inside if each.is_dir() and not any(each.iterdir())}
    # An empty one may be what is left of one that Orbax was removing, beside a newer one.
    if all(re.fullmatch(PARTIAL, name) for name in ours - empty):
        ours -= {name for name in empty if re.fullmatch(EPOCH, name)}
    if others := sorted({each.name for each in inside} - ours - {PROBE}):
        raise ValueError(
            f"{shown} holds {others[0]}, which is no checkpoint; choose a directory of its own for "
            "--checkpoint"
        )


@contextlib.contextmanager
def claimed(path: epath.Path, shown: str, size: int, count: int) -> Iterator[None]:
    """Makes the directory and keeps it for this process; removes it at the end if it is empty.

    Args:
        size: bytes of a checkpoint.
        count: how many there will be at a time.

    Raises:
        ValueError: something else stands there, or another run is at work in it.
        OSError: the disk is full, or cannot be written.
    """
    check(path, shown)
    if jax.process_index() != 0:
        yield
        return
    local = is_local(path)
    with run_directory.locked(Path(path), shown) if local else contextlib.nullcontext():
        try:
            if local:  # Orbax's own cleaning would not look into what it removes
                _remove_partial(path)
                there = sum(bool(re.fullmatch(EPOCH, each.name)) for each in path.iterdir())
                atomic.reserve(Path(path), max(1, size * (count - there)))
            else:
                path.mkdir(parents=True, exist_ok=True)
                (path / PROBE).write_text("")
                (path / PROBE).unlink()
            yield
        finally:
            with contextlib.suppress(OSError):
                remove(path, partial_only=True)


def remove(path: epath.Path, partial_only: bool = False) -> None:
    """Removes the checkpoints, or those that never became whole; and the directory, if empty then.

    Raises:
        OSError: the disk cannot be written.
    """
    if jax.process_index() != 0 or not path.exists():
        return
    _remove_partial(path)
    for each in [] if partial_only else filter(_is_checkpoint, sorted(path.iterdir())):
        if is_local(path):  # so that a kill leaves nothing that looks like a damaged checkpoint
            each = each.rename(path / (each.name + GONE))
        each.rmtree()
    if not any(path.iterdir()):
        path.rmdir()


def _remove_partial(path: epath.Path) -> None:
    for each in filter(_is_checkpoint, list(path.iterdir())):
        if re.fullmatch(PARTIAL, each.name):
            each.rmtree()


def _is_checkpoint(path: epath.Path) -> bool:
    """Whether this is a checkpoint, or was about to be one, with nothing else in it."""
    if not re.fullmatch(f"{EPOCH}|{PARTIAL}", path.name) or not path.is_dir():
        return False
    if not is_local(path):
        return all(INSIDE.fullmatch(each.name) for each in path.iterdir())
    inside = list(Path(path).rglob("*"))
    links = any(each.is_symlink() for each in (Path(path), *inside))
    return not links and all(INSIDE.fullmatch(each.name) for each in inside)
