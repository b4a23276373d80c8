"""CIFAR-10's official archive from its host: resumed after a break, bounded in time, verified.

What has arrived lies in the cache as one file, `<archive>-<checksum>.partial`, until the whole of
it has been verified, read and cached; a later command goes on from there, whatever ended this one.
The lock beside it lets one command download while the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from jaxmlp.data import exchange
from jaxmlp.data.exchange import RANGE_NOT_SATISFIABLE, Answer, Pace, host, shortened
from jaxmlp.data.files import ARCHIVE
from jaxmlp.errors import DataError

# TFDS 4.9.10, url_checksums/cifar10.txt
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SIZE = 170_052_171  # bytes
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARRAYS_SIZE = 184_560_000  # bytes of the arrays, which are cached before the archive is deleted

# All below: assumed.
MOST_CONNECTIONS = 5  # of one command; each must bring something
PAUSE = 1.0  # seconds between two of them
STANDSTILL = 60.0  # seconds without a byte, after which another command is not waited for
LINE_EVERY = 10.0  # seconds between two lines where there is no terminal

Show = Callable[[int], None]


def address() -> str:
    """Where the archive is asked for: JAXMLP_CIFAR10_URL, or its official place.

    Raises:
        ValueError: the variable holds no http(s) address.
    """
    url = os.environ.get("JAXMLP_CIFAR10_URL") or URL
    with contextlib.suppress(ValueError):  # of a malformed port or IPv6 address
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return url
    raise ValueError(
        f"JAXMLP_CIFAR10_URL {url!r} is no address of a file; choose http://... or https://..., "
        "or unset it"
    )


def partial(cache: Path) -> Path:
    """The file that holds what has arrived."""
    return cache / f"{ARCHIVE}-{SHA256[:16]}.partial"


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Waits until no other command downloads into this cache, and keeps others waiting.

    Raises:
        DataError: the cache cannot be written, or the other command stands still.
    """
    from filelock import FileLock, Timeout

    path = partial(cache)
    with _disk_trouble(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _say("another command is downloading CIFAR-10; waiting for what it brings")
            while not _acquired_while_growing(lock, path):
                pass
    try:
        yield
    finally:
        lock.release()


def _acquired_while_growing(lock, path: Path) -> bool:
    """Whether the lock was had; False: not yet, but what the other downloads has grown."""
    from filelock import Timeout

    before = _size(path)
    try:
        lock.acquire(timeout=STANDSTILL)
    except Timeout:
        if _size(path) != before:
            return False
        raise DataError(
            f"another command holds the download and brought nothing for {STANDSTILL:g} seconds; "
            "end it"
        ) from None
    return True


def fetch(cache: Path) -> Path:
    """The archive, verified, as the file `partial`. The caller holds `alone` and deletes it.

    Raises:
        DataError: it cannot be had; what has arrived stays for the next call, unless it is wrong.
        ValueError: JAXMLP_CIFAR10_URL holds no http(s) address.
    """
    url, path, sha256 = address(), partial(cache), ""
    with _disk_trouble(cache):
        for _ in range(2):
            resumed = _size(path) > 0
            if _size(path) != SIZE:
                _download(url, path)
            sha256 = _sha256(path)
            if sha256 == SHA256:
                return path
            path.unlink()
            if not resumed:  # else what came earlier may be to blame: once more from the start
                break
    raise DataError(
        f"{host(url)} gave another file (SHA-256 {sha256[:8]}..., not {SHA256[:8]}...), now deleted"
    )


def _download(url: str, path: Path) -> None:
    """Brings the file to SIZE bytes, by several connections where one breaks."""
    _check_room(path.parent, SIZE - _size(path))
    try:
        with _opened(path) as file, _progress(host(url), _size(path)) as show:
            _connect_until_whole(url, file, show)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the rest of the run needs the room
            path.unlink(missing_ok=True)
        raise
    except DataError as error:
        if _megabytes(_size(path)) == 0:
            raise
        stays = f"{_megabytes(_size(path))} MB stay, the next command goes on"
        raise DataError(f"{error}; {stays}") from error
    finally:
        if _size(path) == 0:
            path.unlink(missing_ok=True)


def _connect_until_whole(url: str, file: BinaryIO, show: Show) -> None:
    pace, etag = Pace(), None
    for attempt in range(MOST_CONNECTIONS):
        before = file.seek(0, os.SEEK_END)
        if before == SIZE:
            return
        if attempt:
            time.sleep(PAUSE)
        etag = _connect(url, file, etag, pace, show)
        if file.seek(0, os.SEEK_END) == before:
            break
    if file.tell() < SIZE:
        raise DataError(f"{host(url)} broke off")


def _connect(url: str, file: BinaryIO, etag: str | None, pace: Pace, show: Show) -> str | None:
    """Appends what one connection gives, whole or not; the file's version (ETag), if it has one."""
    offset = file.seek(0, os.SEEK_END)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and etag:
        headers["If-Range"] = etag
    with exchange.ask(url, headers, pace) as answer:
        if not _placed(answer, file, offset, host(url)):
            file.truncate(0)  # the next connection starts over
            return None
        for chunk in answer.chunks:
            file.write(chunk[: SIZE - file.tell()])
            show(file.tell())
            if file.tell() == SIZE:  # more is not waited for: the checksum judges what has come
                break
    version = answer.headers.get("ETag", "")
    return version if version.startswith('"') else None  # a weak one, W/"...", fits no range


def _placed(answer: Answer, file: BinaryIO, offset: int, name: str) -> bool:
    """Whether what follows belongs at the file's end, which a host that starts over resets.

    Raises:
        DataError: what follows is not the archive.
    """
    status, headers = answer.status, answer.headers
    if status not in (200, 206, RANGE_NOT_SATISFIABLE):
        raise DataError(f"{name} answered {status}")
    start, length = offset, headers.get("Content-Length", "*")
    if status != 200:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        start, length = (int(given[1]), given[2]) if given else (-1, "*")
    if length not in ("*", str(SIZE)):
        raise DataError(f"{name} gives {shortened(length)} bytes, not the archive's {SIZE}")
    if status == 200:
        file.truncate(0)
        file.seek(0)
    return start == offset


# ---- the disk


@contextlib.contextmanager
def _disk_trouble(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"the cache {cache} cannot be written ({why}); set JAXMLP_CACHE") from error


def _opened(path: Path) -> BinaryIO:
    """The file, for reading and writing; never through a link to a file that is not ours."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
    if file.seek(0, os.SEEK_END) > SIZE:
        file.truncate(0)
    return file


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(errno.EEXIST, f"{path.name} is not a file of ours: move it away")
    return status.st_size


def _check_room(cache: Path, missing: int) -> None:
    """Before the first byte: a disk is not filled only to find out that it was too small."""
    needed, free = missing + ARRAYS_SIZE, shutil.disk_usage(cache).free
    if free < needed:
        raise DataError(
            f"the cache {cache} has {_megabytes(free)} MB free, {_megabytes(needed)} are needed; "
            "set JAXMLP_CACHE"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- what a person sees


@contextlib.contextmanager
def _progress(name: str, start: int) -> Iterator[Show]:
    """A bar on a terminal, a line now and then elsewhere; always on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        here = f"{_megabytes(start)} of {_megabytes(SIZE)} MB are here"
        _say(f"downloading CIFAR-10 from {name}, once: {here}")
        yield _lines(start)
        return
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    text = TextColumn("downloading CIFAR-10")
    with Progress(text, BarColumn(16), *columns, console=console) as bar:
        task = bar.add_task("", total=SIZE, completed=start)
        yield lambda size: bar.update(task, completed=size)


def _lines(start: int) -> Show:
    began = last = time.monotonic()

    def show(size: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY:
            return
        last, pace = now, (size - start) / (now - began)
        _say(f"CIFAR-10: {_megabytes(size)} of {_megabytes(SIZE)} MB, {pace / 1e6:.1f} MB/s")

    return show


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, soft_wrap=True, markup=False)


def _megabytes(size: int) -> int:
    return size // 1_000_000
