"""SIGTERM and Ctrl-C of a command that trains."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

from jaxmlp.errors import TerminatedError

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """As a context: either signal ends the work where it arrives; `after_epoch` softens that."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came last
        self.kept = "no record was written"

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._end) for number in NUMBERS}
        self._report, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if sys.unraisablehook == self._swallowed:  # else another is on top, and needs this one
            sys.unraisablehook = self._report

    def _swallowed(self, unraisable: Any) -> None:
        """Says nothing of our exceptions in JAX's callbacks; `end_if_asked` raises them again."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | TerminatedError):
            self._report(unraisable)

    def _end(self, number: int, frame) -> None:
        self.number = number
        self.end_if_asked()

    def end_if_asked(self) -> None:
        """Raises again what a signal raised, should JAX's callbacks have swallowed it.

        Raises:
            KeyboardInterrupt, TerminatedError: a signal has come.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise TerminatedError(f"terminated; {self.kept}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What takes a moment, and is not to be left half way: signals do nothing meanwhile."""
        before = {number: signal.signal(number, lambda *_: None) for number in NUMBERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def after_epoch(self, say: Callable[[str], None], numbers: tuple[int, ...] = NUMBERS) -> None:
        """From here on the first signal is only noted, in `number`; a second ends the work.

        Args:
            say: takes the line that a person at a terminal needs.
            numbers: of the signals meant.

        Raises:
            KeyboardInterrupt, TerminatedError: a signal has come before.
        """
        self.end_if_asked()

        def note(number: int, frame) -> None:
            self.number = number
            for each in numbers:
                signal.signal(each, self._end)
            with contextlib.suppress(RuntimeError):  # it came in the middle of another line
                say("\nfinishing this epoch, then keeping what there is; once more: stop now")

        for number in numbers:
            signal.signal(number, note)
