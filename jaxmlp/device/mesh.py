"""The devices of a run or a sweep: their mesh, what lies on them, their memory."""

import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding


def device_mesh(data_parallel: int, batch_size: int, only: bool = False) -> Mesh:
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
            good = [
                str(n)
                for n in range(1, len(there) + 1)
                if batch_size % n == 0 and (only or len(there) % n == 0)
            ]
            raise ValueError(
                f"data parallel {data_parallel} does not divide the {what}; "
                f"choose {' or '.join(good)}"
            )
    return jax.make_mesh(
        (count // data_parallel, data_parallel),
        ("runs", "batch"),
        (AxisType.Auto,) * 2,
        devices=there[:count],
    )


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


def describe_devices(count: int = 1) -> str:
    """The devices a run takes: how many if several, platform, and kind where that says more."""
    device = jax.devices()[0]
    kind = device.device_kind
    name = device.platform if kind == device.platform else f"{device.platform} ({kind})"
    return name if count == 1 else f"{count} × {name}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name and cores; on Linux with its family, as makes may share a name."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    told = {name.strip(): value.strip() for name, _, value in lines}
    name = platform.processor() or platform.machine()
    if {"model name", "cpu family", "model"} <= set(told):
        name = f"{told['model name']} (family {told['cpu family']}, model {told['model']})"
    return f"{name}, {os.cpu_count()} cores"
