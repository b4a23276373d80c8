"""One exchange with a web host, given up when the host does not answer in time or is too slow.

It runs in a thread of its own: looking up a name has no timeout, and a host that gives a byte now
and then never runs into a socket's.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from email.message import Message
from typing import NamedTuple
from urllib.parse import urlsplit

from jaxmlp.errors import DataError

# Assumed: what a person at a terminal puts up with.
PATIENCE = 5.0  # seconds to an answer: name look-up, redirects and headers together
SLOWEST = 100_000  # bytes per second, below which WINDOW seconds are the end
WINDOW = 30.0
MOST_REDIRECTS = 5
CHUNK = 1 << 18  # bytes
RANGE_NOT_SATISFIABLE = 416


class Answer(NamedTuple):
    """What a host answers."""

    status: int
    headers: Message
    chunks: Iterator[bytes]  # none any more at the end, or where the connection broke


class Pace:
    """How much arrived in the last WINDOW seconds, of one connection or of several."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._arrivals: deque[tuple[float, int]] = deque()
        self._total = 0

    def begin(self) -> None:
        """Counts from now on, unless it does already."""
        if self._started is None:
            self._started = time.monotonic()

    def add(self, size: int) -> None:
        self._arrivals.append((time.monotonic(), size))
        self._total += size

    def is_too_slow(self) -> bool:
        past = time.monotonic() - WINDOW
        while self._arrivals and self._arrivals[0][0] < past:
            self._total -= self._arrivals.popleft()[1]
        whole = self._started is not None and self._started <= past
        return whole and self._total < SLOWEST * WINDOW


@contextlib.contextmanager
def ask(url: str, headers: dict[str, str], pace: Pace) -> Iterator[Answer]:
    """What the host answers: a status of success, or 416.

    Raises:
        DataError: there is no such answer in time; from its chunks: the host is too slow.
    """
    items: queue.Queue = queue.Queue(maxsize=8)
    given_up = threading.Event()
    request = urllib.request.Request(url, headers={"User-Agent": "jaxmlp", **headers})
    threading.Thread(target=_serve, args=(request, items, given_up), daemon=True).start()
    try:
        status, heading = _first(items, host(url))
        pace.begin()
        yield Answer(status, heading, _chunks(items, pace, host(url)))
    finally:
        given_up.set()
        with contextlib.suppress(queue.Empty):  # lets a thread that waits for room go on, and end
            while True:
                items.get_nowait()


def host(url: str) -> str:
    """Its name and port; never the user and password that an address can hold."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def shortened(text: object) -> str:
    """A host's words, fit for the middle of a line."""
    words = "".join(c if c.isprintable() else " " for c in str(text)).split()
    line = " ".join(words)
    return line if len(line) <= 60 else line[:57] + "..."


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()  # else all that comes with the redirection would be read
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError("it redirects to something else than http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _serve(request: urllib.request.Request, items: queue.Queue, given_up: threading.Event) -> None:
    """Puts status and headers, then bytes, then b"" or the error that ended it."""
    try:
        # Proxies as the environment names them; certificates are verified.
        opener = urllib.request.build_opener(_Redirects)
        # Of each wait of the socket; who reads the queue gives up sooner.
        with opener.open(request, timeout=PATIENCE + WINDOW) as response:
            items.put((response.status, response.headers))
            while not given_up.is_set():
                chunk = response.read1(CHUNK)
                items.put(chunk)
                if not chunk:
                    return
    except urllib.error.HTTPError as error:
        error.close()
        items.put(error)
    except Exception as error:  # of sockets, TLS, HTTP: whatever it is, the exchange is over
        items.put(error)


def _first(items: queue.Queue, name: str) -> tuple[int, Message]:
    try:
        item = items.get(timeout=PATIENCE)
    except queue.Empty:
        raise DataError(f"{name} did not answer within {PATIENCE:g} seconds") from None
    if isinstance(item, urllib.error.HTTPError):
        if item.code == RANGE_NOT_SATISFIABLE:
            return item.code, item.headers
        raise DataError(f"{name} answered {item.code} {shortened(item.reason)}") from item
    if isinstance(item, Exception):
        why = getattr(item, "reason", None) or item
        raise DataError(f"{name} does not answer ({shortened(why)})") from item
    return item


def _chunks(items: queue.Queue, pace: Pace, name: str) -> Iterator[bytes]:
    while True:
        try:
            item = items.get(timeout=WINDOW / 30)
        except queue.Empty:
            item = None
        if isinstance(item, bytes):
            pace.add(len(item))
        if pace.is_too_slow():
            raise DataError(f"{name} gave less than {SLOWEST // 1000} kB/s for {WINDOW:g} seconds")
        if item:
            if not isinstance(item, bytes):
                return
            yield item
        elif item is not None:
            return
