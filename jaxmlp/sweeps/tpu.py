"""The programs, compiled for TPUs that are not there, and what they will take and cost."""

import dataclasses
import functools
import itertools
import os
import re
import time
from typing import Any, NamedTuple

from jaxmlp.experiment import Experiment

# libtpu asks for these when it loads, and complains of a machine without TPU if they are missing.
LIBTPU_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Chip(NamedTuple):
    """A generation of TPU; what is documented, and what its compiler assumes."""

    flops: float  # bfloat16, per second
    bandwidth: float  # bytes per second
    memory: float  # bytes
    dollars: float  # per chip and hour
    flops_per_cycle: int  # of one device
    devices: int = 1  # that JAX sees per chip

    @property
    def hertz(self) -> float:
        return self.flops / self.devices / self.flops_per_cycle


# Peaks: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}. Prices: USD in the US, on demand, as
# skypilot-org/skypilot-catalog (catalogs/v8/gcp/vms.csv, commit 8427bbff) has them from Google.
# Per cycle: the power of two above what a compiled 4096³ bfloat16 product reaches.
CHIPS = {
    "v4": Chip(275e12, 1200e9, 32 * 2**30, 3.22, 2**17, 2),
    "v5e": Chip(197e12, 819e9, 16e9, 1.20, 2**17),
    "v5p": Chip(459e12, 2765e9, 95e9, 4.20, 2**18),
    "v6e": Chip(918e12, 1638e9, 32e9, 2.70, 2**19),
}
TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:8x8", "v5e:16x16")
PASSES = {"float32": 6, "bfloat16": 1}  # of the bfloat16 unit for one product
PROGRAMS = ("run", "data-parallel", "sweep")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
RUNS = 1000  # that the price is for


class Shape(NamedTuple):
    """The data's sizes; the default is CIFAR-10's."""

    train: int = 50_000
    test: int = 10_000
    features: int = 3072
    classes: int = 10


# ---- the programs


def images(shape: Shape, dtype: Any) -> Any:
    """A data set's shapes."""
    import jax
    import jax.numpy as jnp

    from jaxmlp.training.preprocessing import Images

    of: Any = jax.ShapeDtypeStruct
    return Images(
        of((shape.train, shape.features), jnp.uint8),
        of((shape.train,), jnp.int32),
        of((shape.test, shape.features), jnp.uint8),
        of((shape.test,), jnp.int32),
        of((shape.features,), dtype),
        of((shape.features,), dtype),
    )


def compiled(
    name: str, experiment: Experiment, shape: Shape, there: list[Any], runs: int, share: int
) -> Any:
    """One of PROGRAMS, compiled for these devices.

    Args:
        runs: side by side on a device, of the sweep.
        share: devices that share a batch, of the data-parallel program.
    """
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh

    from jaxmlp.device.precision import float_dtype, precision
    from jaxmlp.sweeps.program import Program
    from jaxmlp.training.run import compile_epoch
    from jaxmlp.training.step import hyperparameters, static_part

    grid = (len(there) // share, share) if name == "data-parallel" else (len(there), 1)
    mesh = Mesh(np.array(there).reshape(grid), ("runs", "batch"), axis_types=(AxisType.Auto,) * 2)
    steps = experiment.steps_per_epoch(shape.train)
    widths = (shape.features, *experiment.hidden, shape.classes)
    with precision(experiment, "tpu"):
        data = images(shape, float_dtype(experiment))
        program = Program(static_part(experiment), widths, steps, mesh, True, True)
        if name == "sweep":
            return program.compile(program.shapes(1, runs, data))
        if name == "data-parallel":
            return program.compile(program.shapes(1, 1, data))
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[3:], leaf.dtype),
            program.shapes(1, 1, data)[0],
        )
        hyper = jax.eval_shape(functools.partial(hyperparameters, experiment))
        first = Mesh(np.array(there[:1]).reshape(1, 1), mesh.axis_names, axis_types=mesh.axis_types)
        return compile_epoch(experiment, widths, state, hyper, data, steps, first)


# ---- reading them


class Part(NamedTuple):
    """The instructions of the whole program outside its loops, or of a loop's body."""

    trips: int
    cycles: int
    collectives: int


def parts(text: str) -> list[Part]:
    """What is outside the loops, and each loop's body, out of a compiled program's text.

    Raises:
        ValueError: a loop does not say how often it runs.
    """
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if opening := re.match(r"(ENTRY )?%([\w.-]+) \(.*\{$", line):
            lines = computations["ENTRY" if opening[1] else opening[2]] = []
        else:
            lines.append(line)
    visited = []

    def visit(lines: list[str], trips: int) -> None:
        body = "\n".join(lines)
        cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', body)))
        exchanges = re.findall(rf" (?:{'|'.join(COLLECTIVES)})(?:-start)?\(", body)
        visited.append(Part(trips, cycles, len(exchanges)))
        loops = re.findall(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)", body)
        for condition, inner in loops:
            limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(computations[condition]))
            if len(limits) != 1:
                raise ValueError(f"the loop {inner} does not say how often it runs")
            visit(computations[inner], trips * int(limits[0]))

    visit(computations["ENTRY"], 1)
    return visited


def measure(
    name: str,
    experiment: Experiment,
    shape: Shape,
    chip: Chip,
    there: list[Any],
    runs: int,
    share: int,
) -> dict[str, Any]:
    """A row of the table; arguments as `compiled`."""
    from jaxmlp.sweeps.program import bytes_per_device

    began = time.perf_counter()
    program = compiled(name, experiment, shape, there, runs, share)
    seconds = time.perf_counter() - began
    runs_per_device = runs if name == "sweep" else 1
    sharing = share if name == "data-parallel" else 1
    gflop, gigabytes = work(experiment, shape, runs_per_device, sharing)
    outside, *loops = parts(program.as_text())
    cycles = sum(part.trips * part.cycles for part in (outside, *loops))
    steps = experiment.steps_per_epoch(shape.train)
    # What moves through the memory, and what is multiplied, at the documented peaks.
    waiting = 1e9 * gigabytes / chip.bandwidth * chip.devices
    computing = PASSES[experiment.precision] * 1e9 * gflop / chip.flops * chip.devices
    estimate = max(cycles / chip.hertz, waiting)
    devices = 1 if name == "run" else len(there)
    side_by_side, chips = runs_per_device * devices // sharing, devices / chip.devices
    total = estimate * experiment.epochs * RUNS / side_by_side
    memory = bytes_per_device(program)
    in_steps = [part.collectives for part in (outside, *loops) if part.trips >= steps > 1]
    return {
        "program": name,
        "chips": chips,
        "runs_per_device": runs_per_device,
        "compile_seconds": seconds,
        "memory_bytes": memory,
        "share_of_memory": memory / chip.memory * chip.devices,
        "gflop": gflop,
        "gigabytes": gigabytes,
        "cycles": cycles,
        "collectives_per_step": sum(in_steps),
        "collectives_outside": outside.collectives,
        "milliseconds": 1000 * estimate,
        "roofline_milliseconds": 1000 * max(computing, waiting),
        "seconds_per_1000_runs": total,
        "dollars_per_1000_runs": total / 3600 * chips * chip.dollars,
    }


def work(experiment: Experiment, shape: Shape, runs: int, share: int) -> tuple[float, float]:
    """An epoch's GFLOP of matrix products on one device, and the GB that it moves at least.

    Args:
        share: devices that share a batch.
    """
    widths = (shape.features, *experiment.hidden, shape.classes)
    layers = [2 * a * b for a, b in itertools.pairwise(widths)]
    training = 3 * sum(layers) - layers[0]  # forward, two gradients; none of the inputs
    flop = runs * (shape.train * training / share + shape.test * sum(layers))
    weights = 4 * sum(a * b for a, b in itertools.pairwise(widths))
    state = {"sgd": 1 + bool(experiment.momentum), "adam": 3, "adamw": 3}.get(
        experiment.optimizer, 2
    )
    steps = experiment.steps_per_epoch(shape.train)
    pixels = shape.features * (shape.train / share + shape.test)
    return flop / 1e9, (2 * state * weights * runs * steps + pixels) / 1e9


# ---- the devices


def topology(name: str) -> tuple[Chip, list[Any]]:
    """A topology's chip and its devices.

    Raises:
        ValueError: there is no such, or no compiler for it.
    """
    kind = name.split(":")[0]
    if kind not in CHIPS:
        raise ValueError(f"{name}: known are {', '.join(CHIPS)}, such as {TOPOLOGIES[0]}")
    for variable, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("libtpu is missing; pip install -e '.[tpu]' brings it") from None
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # libtpu's own kinds
        what = " ".join(str(error).split())[:160]
        raise ValueError(f"{name} is no topology ({what}); give one such as v5e:4x4") from None
    return CHIPS[kind], list(described.devices)


def shared(experiment: Experiment, train_size: int, count: int) -> tuple[Experiment, int]:
    """How many of the devices can share a batch, and the experiment with the nearest such batch."""
    for share in range(count, 0, -1):
        sizes = [n for n in range(share, train_size + 1, share) if train_size % n == 0]
        if sizes and count % share == 0:
            size = min(sizes, key=lambda n: abs(n - experiment.batch_size))
            return dataclasses.replace(experiment, batch_size=size), share
    raise AssertionError("one device shares every batch")
