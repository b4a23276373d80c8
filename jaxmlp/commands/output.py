"""What a command prints: whatever reads it, and whatever it can show, the command goes on."""

import codecs
import contextlib
import os
import sys
from typing import Any

STAND_INS = str.maketrans(
    {
        "×": "x",
        "÷": "/",
        "·": "*",
        "−": "-",
        "–": "-",
        "—": "-",
        "±": "+-",
        "²": "^2",
        "√": "sqrt",
        "κ": "kappa",
        "δ": "delta",
        "η": "eta",
        "λ": "lambda",
        "→": "->",
        "≤": "<=",
        "≥": ">=",
        "…": "...",
        "\N{NO-BREAK SPACE}": " ",
        "─": "-",
        "━": "-",
    }
)


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    """Readable letters for a character that the encoding lacks; `?` for those without any.

    The bytes of a file's name that are no text go out as they are.
    """
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = character.translate(STAND_INS)
    return plain if plain.isascii() else "?", error.start + 1


codecs.register_error("jaxmlp.stand_in", _stand_in)


class Stream:
    """A text stream whose end does not end the work.

    What is written once its reader has gone, as under `| head`, is dropped. So is what does not
    fit a full disk; `lost` then says why.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self.stream.flush()

    @contextlib.contextmanager
    def _dropping(self):
        try:
            yield
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.lost = OSError(error.errno, error.strerror, self.stream.name)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def forgive() -> None:
    """From here on nothing that is printed raises for want of a letter or of a reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, Stream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="jaxmlp.stand_in")
        setattr(sys, name, Stream(stream))


def check() -> None:
    """Sees whether all that was printed has arrived, or has nobody to arrive at.

    Raises:
        OSError: it has not: the disk is full.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.flush()
            if stream.lost:
                raise stream.lost


def to_stderr(text: str) -> None:
    """Says what a person should know beside what is printed."""
    print(text, file=sys.stderr)


def console(**options: Any) -> Any:
    """rich's Console, which shows text as it is: a path's brackets and colons are no markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)
