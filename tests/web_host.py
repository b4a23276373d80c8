"""A web host on this machine that behaves as a test wants it to."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request, handed to the behaviour whose turn it is; the last one serves all others."""

    protocol_version = "HTTP/1.1"
    server: "Host"  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.close_connection = True
        behaviours = self.server.behaviours
        self.server.requests.append({"path": self.path, **self.headers})
        turn = min(len(self.server.requests), len(behaviours)) - 1
        with contextlib.suppress(OSError):  # who asked has gone
            behaviours[turn](self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the base class's
        pass

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def wait(self, seconds: float = 60) -> bool:
        """Whether the test is over."""
        return self.server.over.wait(seconds)


class Host(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.behaviours = behaviours
        self.requests: list[dict[str, str]] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/archive"


@contextlib.contextmanager
def hosting(*behaviours: Behaviour) -> Iterator[Host]:
    with Host(*behaviours) as host:
        threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield host
        finally:
            host.over.set()
            host.shutdown()


def serves(
    content: bytes, stop_after: int | None = None, ranges: bool = True, etag: str | None = None
) -> Behaviour:
    """Gives the content, or its asked range; breaks off after so many bytes."""

    def behave(exchange: Exchange) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("Range", ""))
        start = int(asked[1]) if asked and ranges else 0
        condition = exchange.headers.get("If-Range")
        if condition and condition != etag:
            start = 0
        body = content[start:]
        headers: dict[str, object] = {"Content-Length": len(body)}
        if etag:
            headers["ETag"] = etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        exchange.head(206 if start else 200, **headers)
        exchange.wfile.write(body[:stop_after])

    return behave


def answers(status: int, body: bytes = b"", **headers: object) -> Behaviour:
    """Gives just this."""

    def behave(exchange: Exchange) -> None:
        exchange.head(status, **headers)
        exchange.wfile.write(body)

    return behave


def dribbles(head: bytes, body: bytes = b"x", every: float = 0.02) -> Behaviour:
    """Sends the head at once, then this body over and over, slowly, until the test is over."""

    def behave(exchange: Exchange) -> None:
        exchange.wfile.write(head)
        while not exchange.wait(every):
            exchange.wfile.write(body)

    return behave


def floods(head: bytes) -> Behaviour:
    """Sends zeros without end."""

    def behave(exchange: Exchange) -> None:
        exchange.wfile.write(head)
        while not exchange.wait(0):
            exchange.wfile.write(bytes(10_000))

    return behave
