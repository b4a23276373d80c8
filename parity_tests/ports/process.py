"""A side in a process of its own, as the one who compares sees it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np

from parity_tests.ports import wire


class Side:
    """A framework's process; methods of it are calls by name.

    Args:
        module: what the process runs, such as parity_tests.ports.torch_side.
        setup: the user's FILE:FUNCTION.

    Raises:
        ValueError: what a call refuses, in one line.
    """

    def __init__(self, module: str, setup: str) -> None:
        self.setup = setup
        # The protocol has a pipe of its own: what the user's code prints is no message.
        theirs, self.answers = _pipe()
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=2,
            pass_fds=[theirs],
            env=os.environ | {"PYTHONPATH": paths},
        )
        os.close(theirs)

    def ask(self, call: str, told: Any = None, **arrays: Mapping[str, np.ndarray]) -> wire.Message:
        """Sends a call and waits for its answer."""
        self.begin(call, told, **arrays)
        return self.answer()

    def begin(self, call: str, told: Any = None, arrays: Any = None) -> None:
        """Sends a call; the other side may work meanwhile."""
        assert self.process.stdin is not None
        try:
            wire.send(
                cast(BinaryIO, self.process.stdin), {"call": call, **(told or {})}, arrays or {}
            )
        except BrokenPipeError:
            raise self._gone() from None

    def answer(self) -> wire.Message:
        """Of the call begun last."""
        try:
            answer = wire.receive(self.answers)
        except EOFError:
            raise self._gone() from None
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def _gone(self) -> ValueError:
        return ValueError(
            f"the process of {self.setup} ended (status {self.process.wait()}); what it printed "
            "stands above"
        )

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
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.answers.close()


def _pipe() -> tuple[int, Any]:
    """The end that a process inherits, and a stream of what it writes there."""
    source, sink = os.pipe()
    return sink, os.fdopen(source, "rb")
