"""SIGTERM and Ctrl-C while a command works: it ends where all is whole, and says what is kept."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

from jaxmlp.errors import TerminatedError

NUMBERS = (signal.SIGINT, signal.SIGTERM)
ENDS = (KeyboardInterrupt, TerminatedError)  # what the two raise


class Signals:
    """As a context: a signal ends the work where it arrives; `after_epoch` and others soften that.

    More signals change nothing while the work is being given up: locks are released then, and what
    is half done is removed. SIGKILL and SIGQUIT end that, too.

    Args:
        kept: what is left of the work if it ends now; a clause.
        for_good: the process ends with this context, and nothing is to disturb its last moments.
    """

    def __init__(self, kept: str, for_good: bool = False) -> None:
        self.kept, self.for_good = kept, for_good
        self.number: int | None = None  # of the signal that came last

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._end) for number in NUMBERS}
        self._report, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, kind, error, traceback) -> None:
        ignored = self.for_good and self.number is not None
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if ignored else handler)
        if sys.unraisablehook == self._swallowed:  # else another is on top, and needs this one
            sys.unraisablehook = self._report

    def _swallowed(self, unraisable: Any) -> None:
        """Says nothing of our exceptions in JAX's callbacks; `end_if_asked` raises them again."""
        if not isinstance(unraisable.exc_value, ENDS):
            self._report(unraisable)

    def _end(self, number: int, frame) -> None:
        if not _giving_up():
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
        with _handling(NUMBERS, lambda number, frame: None):
            yield

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


@contextlib.contextmanager
def noted(number: int) -> Iterator[Callable[[], bool]]:
    """A signal that only says when to stop meanwhile; gives whether it has come."""
    came: list[int] = []
    with _handling((number,), lambda number, frame: came.append(number)):
        yield lambda: bool(came)


@contextlib.contextmanager
def _handling(numbers: tuple[int, ...], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _giving_up() -> bool:
    """Whether what a signal raised is on its way out: something cleans up after it just now."""
    error = sys.exception()
    while error is not None and not isinstance(error, ENDS):
        error = error.__context__  # it was turned into another error
    return error is not None
