"""The device's arithmetic: what the experiment's precision means to the compiler."""

import contextlib
import hashlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxmlp.data import dataset as data
from jaxmlp.experiment import Experiment

MATMUL = {"float32": "highest", "float64": "highest", "tf32": "tensorfloat32",
          "bfloat16": "bfloat16"}  # fmt: skip
PATIENCE = 60  # seconds for all processes to come
HEARTBEAT = 20  # seconds after which a silent process counts as gone
Result = TypeVar("Result")


def dtype(experiment: Experiment):
    """The floating-point type of every array of the run."""
    return jnp.float64 if experiment.precision == "float64" else jnp.float32


@contextlib.contextmanager
def precision(experiment: Experiment, platform: str | None = None) -> Iterator[None]:
    """Matrix products at the experiment's precision, inside this context.

    Args:
        platform: that is compiled for, if not this machine's.

    Raises:
        ValueError: the device has no such products, so that asking for them would do nothing.
    """
    platform = platform or jax.default_backend()
    has = {"tf32": ("gpu",), "bfloat16": ("gpu", "tpu"), "float64": ("cpu", "gpu")}
    if platform not in has.get(experiment.precision, (platform,)):
        raise ValueError(
            f"precision {experiment.precision} does not exist on {platform}; choose float32"
        )
    with (
        jax.enable_x64(experiment.precision == "float64"),
        jax.default_matmul_precision(MATMUL[experiment.precision]),
    ):
        yield


def mesh(data_parallel: int, batch_size: int, only: bool = False) -> Mesh:
    """Devices as an axis `runs` by an axis `batch`.

    Args:
        data_parallel: devices along `batch`.
        only: take so many and no more; else all devices of all processes.

    Raises:
        ValueError: that does not divide the devices, or the batch.
    """
    there = jax.devices()
    count = data_parallel if only and 1 <= data_parallel <= len(there) else len(there)
    for what, size in ((f"{count} devices", count), (f"batch size {batch_size}", batch_size)):
        if not 1 <= data_parallel <= size or size % data_parallel:
            good = [str(n) for n in range(1, len(there) + 1)
                    if batch_size % n == 0 and (only or len(there) % n == 0)]  # fmt: skip
            raise ValueError(
                f"data parallel {data_parallel} does not divide the {what}; "
                f"choose {' or '.join(good)}"
            )
    return jax.make_mesh(
        (count // data_parallel, data_parallel), ("runs", "batch"), (AxisType.Auto,) * 2,
        devices=there[:count],
    )  # fmt: skip


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays that every process holds whole, on the devices of all processes."""

    def spread(array):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(spread, tree)


def free_memory() -> int:
    """Bytes that this process's first device has free; of the machine's memory, its share."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


# ---- many processes


class JobError(Exception):
    """A job's processes do not all come, or do not all stay."""


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
    if process_id:
        _come(host, int(port), process_id)
    else:
        _await(host, int(port), processes)
    jax.distributed.initialize(
        coordinator, processes, process_id, initialization_timeout=PATIENCE,
        heartbeat_timeout_seconds=HEARTBEAT,
    )  # fmt: skip


# JAX ends a process that waits in vain for the others with a stack trace. So they meet before.


def _await(host: str, port: int, processes: int) -> None:
    """Process 0 waits for the others at the coordinator's address, and sends them on."""
    until, come = time.monotonic() + PATIENCE, {}
    try:
        with socket.create_server((host, port)) as server:
            while len(come) < processes - 1:
                server.settimeout(max(until - time.monotonic(), 1e-3))
                connection, _ = server.accept()
                connection.settimeout(5)
                come[int.from_bytes(connection.recv(4))] = connection
    except TimeoutError:
        missing = sorted(set(range(1, processes)) - set(come))
        raise JobError(
            f"process {missing[0]} did not come to {host}:{port} within {PATIENCE} s; "
            f"start all {processes}, with the same --coordinator"
        ) from None
    except OSError as error:
        raise ValueError(f"--coordinator {host}:{port} cannot be used: {error.strerror}") from None
    for connection in come.values():
        connection.sendall(b"!")
        connection.close()


def _come(host: str, port: int, process_id: int) -> None:
    """Another process tells process 0 that it is there, and waits for the rest."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                connection.sendall(process_id.to_bytes(4))
                connection.settimeout(2 * PATIENCE)
                if connection.recv(1):
                    return
            raise JobError(f"process 0 at {host}:{port} gave up: its own output says why")
        except OSError:
            if time.monotonic() > until:
                raise JobError(
                    f"coordinator {host}:{port} does not answer within {PATIENCE} s; "
                    "start process 0 too, or look at the address"
                ) from None
            time.sleep(0.5)


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
        raise ValueError("the processes were started with different flags or data; give all the "
                         "same")  # fmt: skip


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


def describe(count: int = 1) -> str:
    """The devices a run takes: how many if several, platform, and kind where that says more."""
    device = jax.devices()[0]
    kind = device.device_kind
    name = device.platform if kind == device.platform else f"{device.platform} ({kind})"
    return name if count == 1 else f"{count} × {name}"


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk between processes, unless the user has said where or not.

    JAX verifies what it reads back and compiles anew what does not fit this machine.

    Raises:
        ValueError: there is no such device as JAX_PLATFORMS asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: JAX finds no such device "
            f"({str(error).partition('(')[0].strip() or 'none'}); unset it, or choose cpu"
        ) from error
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = data.cache_directory(None) / "xla"
    with contextlib.suppress(OSError):  # no place to keep them: every process compiles
        directory.mkdir(parents=True, exist_ok=True)
        warnings.filterwarnings("ignore", "Error .* persistent compilation cache", UserWarning)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
