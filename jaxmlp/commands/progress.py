"""What commands of many steps show while they work: how far they are, and how long it takes."""

import time

from jaxmlp.commands import output


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Steps:
    """Steps of a long work on standard error: a line each, and on a terminal what is under way.

    Args:
        total: of all steps.
        work: of all that is to be done, in any unit; by default a unit a step.
        done: steps that were done before.
    """

    def __init__(self, total: int, work: float | None = None, done: int = 0) -> None:
        self.total, self.count = total, done
        self.work, self.worked = work if work is not None else total - done, 0.0
        self.began = time.perf_counter()
        self.out = output.console(stderr=True, soft_wrap=True)

    def under_way(self, text: str) -> None:
        """What is being done, on a terminal; the next line takes its place."""
        if self.out.is_terminal:
            self._line(f"[{self.count + 1}/{self.total}] {text} ...", end="\r")

    def done(self, text: str, work: float = 1.0) -> None:
        """A step is done; says how long the others will take at this pace."""
        self.count += 1
        self.worked += work
        left = (time.perf_counter() - self.began) / self.worked * (self.work - self.worked)
        after = f", {duration(left)} left" if self.count < self.total else ""
        self._line(f"[{self.count}/{self.total}] {text}{after}")

    def _line(self, text: str, end: str = "\n") -> None:
        if self.out.is_terminal:  # over what was under way
            width = max(self.out.width - 1, 1)
            text = text if end == "\n" else text[:width]
            text = text.ljust(width)
        self.out.print(text, end=end)
