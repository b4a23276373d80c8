"""What a command prints: whatever reads it, and whatever it can show, the command goes on."""

import codecs
import contextlib
import os
import sys
from typing import Any

STAND_INS = str.maketrans({
    "×": "x", "÷": "/", "·": "*", "−": "-", "–": "-", "—": "-", "±": "+-", "²": "^2", "√": "sqrt",
    "κ": "kappa", "δ": "delta", "η": "eta", "λ": "lambda", "→": "->", "≤": "<=", "≥": ">=",
    "…": "...", "─": "-", "━": "-",
})  # fmt: skip


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
    """A text stream that drops what is written once its reader has gone, as under `| head`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

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
        except BrokenPipeError:
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


def console(**options: Any) -> Any:
    """rich's Console, which shows text as it is: a path's brackets and colons are no markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)
