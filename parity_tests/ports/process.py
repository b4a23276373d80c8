"""A side in a process of its own, as the one who compares sees it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from jaxmlp.errors import JobError
from parity_tests.ports import wire

# glibc's: large arrays are given back as soon as they are dropped, and not kept for later ones.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


class Side:
    """A framework's process; methods of it are calls by name.

    Args:
        module: what the process runs, such as parity_tests.ports.torch_side.
        setup: the user's FILE:FUNCTION.
        name: what messages call it.

    Raises:
        ValueError: what a call refuses, in one line.
        JobError: the process ended.
    """

    def __init__(self, module: str, setup: str, name: str) -> None:
        self.setup, self.name = setup, f"{name} ({setup})"
        # The protocol has pipes of its own: what the user's code prints or reads is no message.
        theirs, ours = os.pipe(), os.pipe()
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs[0]), str(ours[1])],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=[theirs[0], ours[1]],
            env=os.environ | {"PYTHONPATH": paths} | MEMORY,
            process_group=0,  # Ctrl-C is for the one who compares
        )
        os.close(theirs[0])
        os.close(ours[1])
        self.asked, self.answers = os.fdopen(theirs[1], "wb"), os.fdopen(ours[0], "rb")

    def ask(self, call: str, told: Any = None, **arrays: Mapping[str, np.ndarray]) -> wire.Message:
        """Sends a call and waits for its answer."""
        self.begin(call, told, **arrays)
        return self.answer()

    def read(self, sort: str) -> wire.Arrays:
        """What the last step left, of one sort: gradient, tensor or state; by SORT.NAME."""
        return self.ask("read", {"sort": sort}).arrays

    def begin(self, call: str, told: Any = None, arrays: Any = None) -> None:
        """Sends a call; the other side may work meanwhile."""
        try:
            wire.send(self.asked, {"call": call, **(told or {})}, arrays or {})
        except BrokenPipeError:
            raise self._gone() from None

    def answer(self) -> wire.Message:
        """Of the call begun last."""
        try:
            answer = wire.receive(self.answers)
        except EOFError:
            raise self._gone() from None
        if "error" in answer:
            raise ValueError(f"{self.name}: {answer['error']}")
        return answer

    def _gone(self) -> JobError:
        status = self.process.wait()
        how = f"status {status}" if status >= 0 else signal.strsignal(-status)
        return JobError(f"the process of {self.name} ended ({how})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.asked.close()
        self.process.wait()
        self.answers.close()
