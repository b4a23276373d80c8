"""Files that appear whole or not at all, room for them, and directories kept by one process.

At the ground, for the cache of data sets needs it as the records do.
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MOST_LOCK_ATTEMPTS = 10  # should the directory be removed and made again in between


# ---- directories


def check_kind(out: Path, may_dangle: bool = False) -> None:
    """Sees whether --out names a directory, or nothing yet.

    Args:
        may_dangle: a link that leads nowhere will do, since what it names is going to be made.

    Raises:
        ValueError: a file stands there, or a link that leads nowhere or in a circle.
        OSError: it cannot be looked at: its name is too long, or a file stands on the way to it.
    """
    try:
        if stat.S_ISDIR(out.stat().st_mode):
            return
        kind = "a file"
    except FileNotFoundError:
        if may_dangle or not out.is_symlink():
            return
        kind = "a link that leads nowhere"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        kind = "a loop of links"
    raise ValueError(f"{out} is {kind}; --out needs a directory's name")


def make_directory(out: Path) -> None:
    """Makes --out's directory.

    Raises:
        ValueError: something else stands there.
        OSError: it cannot be made.
    """
    check_kind(out)
    out.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def locked(directory: Path, refusal: str) -> Iterator[None]:
    """Makes a directory and keeps it for this process, with whom the lock ends.

    The lock is on the directory itself, so nothing is left in it (filelock would leave a file).
    Where the file system has no locks, there is none.

    Args:
        refusal: what a person is told while another process has it.

    Raises:
        ValueError: another process has it.
        OSError: it cannot be made.
    """
    for _ in range(MOST_LOCK_ATTEMPTS):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            break
        except OSError:
            pass
        if directory.exists() and os.path.samestat(os.fstat(descriptor), directory.stat()):
            try:
                yield
            finally:
                os.close(descriptor)
            return
        os.close(descriptor)  # it was removed by the process that had it
    raise ValueError(refusal)


def reserve(out: Path, size: int) -> None:
    """Sees whether a disk takes `size` bytes in a directory that is there or is going to be made.

    Raises:
        OSError: it is full, or cannot be written.
    """
    place = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    try:  # a file without a name: nothing stays, even on kill -9
        with tempfile.TemporaryFile(dir=place) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a bucket's mount has no room to reserve
            raise OSError(error.errno, error.strerror, str(place)) from error


# ---- files


def read_file(path: Path) -> bytes:
    """The content of what is a file, and nothing else.

    Raises:
        FileNotFoundError: there is none, or something that a reader might wait for for ever.
        OSError: it cannot be read.
    """
    with contextlib.suppress(NotADirectoryError):
        if stat.S_ISREG(path.stat().st_mode):
            return path.read_bytes()
    raise FileNotFoundError(f"{path} is no file")


def replace(path: Path, content: bytes, key: str | None = None) -> None:
    """Writes a single file that appears whole or not at all.

    Args:
        key: a digest of whose file it is, where what a killed process left is looked for later.

    Raises:
        OSError: the disk is full or cannot be written; nothing of it stays.
    """
    unready = partial(path, key) if key else path.with_name(f".jaxmlp-{os.getpid()}")
    try:
        unready.unlink(missing_ok=True)
        write_new(unready, content)
        unready.replace(path)
    except OSError as error:  # with the file's name, not the partial's
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unready.unlink(missing_ok=True)


def partial(path: Path, key: str) -> Path:
    """Where a file is while it is written: a name that nobody else gives."""
    return path.with_name(f".{path.name}.{key[:16]}.partial")


def write_new(path: Path, content: bytes) -> None:
    """Writes a file where none is, down to the disk.

    Raises:
        OSError: something stands there, or the disk is full or cannot be written.
    """
    with path.open("xb") as file:
        file.write(content)
        flush(file)


def flush(file: IO) -> None:
    """Has an open file's content reach the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Has the names in a directory reach the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
