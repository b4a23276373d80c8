"""What two processes tell each other: a line of JSON, and arrays as they lie in memory.

No pickle: what is received is numbers, and names for them.
"""

import contextlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

Arrays = dict[str, np.ndarray]
KINDS = "biuf"  # of NumPy's types: booleans, whole numbers, floating point


class Message(dict[str, Any]):
    """What is told: JSON, with arrays beside it."""

    def __init__(self, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(told)
        self.arrays = dict(arrays)


def send(stream: BinaryIO, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a message whole."""
    kinds = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    stream.write(json.dumps({"told": told, "arrays": kinds}).encode() + b"\n")
    for array in arrays.values():
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> Message:
    """Reads a message.

    Raises:
        EOFError: the other side is gone.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header, arrays = json.loads(line), {}
    for name, (kind, shape) in header["arrays"].items():
        dtype = np.dtype(kind)
        if dtype.kind not in KINDS:
            raise ValueError(f"an array of {kind} is not passed on")
        size = dtype.itemsize * math.prod(shape)
        raw = stream.read(size)
        if len(raw) < size:
            raise EOFError
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return Message(header["told"], arrays)


def by_tensor(found: Mapping[str, np.ndarray], sort: str) -> Arrays:
    """Those arrays whose names begin with gradient, statistic, tensor or state.KIND, by tensor."""
    start = f"{sort}."
    return {n.removeprefix(start): a for n, a in found.items() if n.startswith(start)}


@contextlib.contextmanager
def channel() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """What is asked, and where answers go: the pipes whose numbers this process was given."""
    asked, answers = map(int, sys.argv[1:3])
    with os.fdopen(asked, "rb") as source, os.fdopen(answers, "wb") as sink:
        yield source, sink


def serve(calls: Mapping[str, Callable[..., Any]], source: BinaryIO, sink: BinaryIO) -> None:
    """Answers calls, one by one, until the other side is gone.

    A call's arguments are what is told and `arrays`; it returns what to tell, and arrays. What it
    refuses (ValueError) is told as one line; of anything else the traceback is printed, too.
    """
    while True:
        try:
            asked = receive(source)
        except EOFError:
            return
        told = dict(asked)
        try:
            answer, arrays = calls[told.pop("call")](**told, arrays=asked.arrays)
        except ValueError as error:
            answer, arrays = {"error": " ".join(str(error).split())}, {}
        except Exception as error:  # whatever a user's model may raise
            traceback.print_exc()
            line = (str(error).strip().splitlines() or [""])[0]
            answer, arrays = {"error": f"{type(error).__name__}: {line}"}, {}
        send(sink, answer, arrays)
