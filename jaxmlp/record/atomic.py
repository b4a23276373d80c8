"""Files that appear whole or not at all, and room for them."""

import os
import tempfile
from pathlib import Path


def make_directory(out: Path) -> None:
    """Makes --out's directory.

    Raises:
        ValueError: a file stands there, or a link that leads nowhere.
    """
    if os.path.lexists(out) and not out.is_dir():
        kind = "a file" if out.exists() else "a link that leads nowhere"
        raise ValueError(f"{out} is {kind}; --out needs a directory's name")
    out.mkdir(parents=True, exist_ok=True)


def reserve(directory: Path, size: int) -> None:
    """Sees whether a disk takes `size` bytes.

    Raises:
        OSError: it is full, or cannot be written.
    """
    try:  # a file without a name: nothing stays, even on kill -9
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(directory)) from error


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Writes a single file that appears whole or not at all.

    Raises:
        OSError: the disk is full or cannot be written; nothing of it stays.
    """
    partial = path.with_name(f".jaxmlp-{os.getpid()}")
    try:
        _write(partial, content)
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
