"""Several processes as one: they start together, agree, and end together."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from jaxmlp.device.rendezvous import PATIENCE, meet
from jaxmlp.errors import JobError

HEARTBEAT = 20  # seconds after which a silent process counts as gone
Result = TypeVar("Result")
Item = TypeVar("Item")


def distribute(
    coordinator: str | None, processes: int | None, process_id: int | None, by_environment: bool
) -> None:
    """Joins the other processes, before anything else touches a device; does nothing if not asked.

    Args:
        coordinator: HOST:PORT of the first process; with the two counts that belong to it.
        by_environment: JAX finds all that out itself (TPU pods, SLURM, MPI, ...).

    Raises:
        ValueError: the three do not fit together, or there is no such environment.
        JobError: the others do not come.
    """
    if by_environment and coordinator is None:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed: no cluster is found ({str(error).splitlines()[0]}); give "
                "--coordinator, --processes and --process-id"
            ) from None
        return
    if (coordinator, processes, process_id) == (None, None, None):
        return
    if coordinator is None or processes is None or process_id is None:
        raise ValueError("--coordinator, --processes and --process-id belong together; give all")
    if not 0 <= process_id < processes:
        raise ValueError(f"--process-id {process_id} must lie in [0, {processes})")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator {coordinator} must be HOST:PORT")
    meet(host, int(port), processes, process_id)
    jax.distributed.initialize(
        coordinator,
        processes,
        process_id,
        initialization_timeout=PATIENCE,
        heartbeat_timeout_seconds=HEARTBEAT,
    )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What the processes of a job do together.

    Raises:
        JobError: one of them has gone, so that what they compute together failed.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise JobError(
            f"another of the {jax.process_count()} processes has gone: its own output says why "
            f"({str(error).splitlines()[0][:200]})"
        ) from None


def leave(status: int) -> None:
    """Ends this process at once if it is one of several: it failed, and the others are to notice.

    Python's own end would first wait for them, minutes, and then print a stack trace.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def by_first(work: Callable[[], Result]) -> Result | None:
    """`work()` in the first process, None in the others; what it raises ends all.

    Raises:
        ValueError: work's, in every process.
        OSError: work's; in the other processes a JobError.
    """
    result, failure = None, None
    if is_first():
        try:
            result = work()
        except (ValueError, OSError) as error:
            failure = error
    kind = "" if failure is None else "V" if isinstance(failure, ValueError) else "O"
    text = np.frombuffer(f"{kind}{failure or ''}".encode()[:4096].ljust(4096), np.uint8)
    said = broadcast(text).tobytes().decode(errors="replace").strip()
    if failure is not None:
        raise failure
    if said:
        raise (ValueError if said[0] == "V" else JobError)(f"the first process: {said[1:]}")
    return result


def alike(text: str) -> None:
    """Sees that every process says the same.

    Raises:
        ValueError: one does not.
    """
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if not (gather(digest) == digest).all():
        raise ValueError(
            "the processes were started with different flags or data; give all the same"
        )


def agree_on(numbers: set[int], below: int) -> set[int]:
    """The first process's numbers, in every process."""
    flags = np.zeros(below, bool)
    flags[list(numbers)] = True
    return set(np.flatnonzero(broadcast(flags)).tolist())


def agree(answer: bool) -> bool:
    """The first process's answer, in every process."""
    return bool(broadcast(np.array(answer)))


def broadcast(array: np.ndarray) -> np.ndarray:
    """The first process's array; all have the same shape."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def gather(array: np.ndarray) -> np.ndarray:
    """The processes' arrays, stacked: (processes, ...)."""
    if jax.process_count() == 1:
        return array[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of what all have: each item is one process's."""
    return items[jax.process_index() :: jax.process_count()]


def collect(items: list[Item]) -> list[Item]:
    """The items of all processes, in every process; they are what JSON can hold."""
    if jax.process_count() == 1:
        return items
    text = np.frombuffer(json.dumps(items).encode(), np.uint8)
    sizes = gather(np.array(len(text), np.int32))
    padded = gather(np.pad(text, (0, int(sizes.max()) - len(text))))
    return [
        item
        for row, size in zip(padded, sizes, strict=True)
        for item in json.loads(row[:size].tobytes())
    ]
