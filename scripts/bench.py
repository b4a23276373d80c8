"""Times the compiled run beside the bare matrix products of its shapes, and beside PyTorch's ways.

A training step of the question needs three products: inputs by weights, activations by weights, and
their transposes for the gradients. The two with the 3072 inputs are nearly all of the work. The
products' contenders do these two, with data ready; PyTorch's train (bench_torch.py, a process of
its own); the run does everything, metrics and evaluation included. Rounds alternate, so that what
else the machine does hits all alike; and each contender's turn is its second of two in a row, but
for the sweep's, which takes a minute. Medians and their ratios are printed.
"""

import argparse
import atexit
import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp import grid
from jaxmlp.commands import exit_status, flags
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.data.loading import load_data
from jaxmlp.device.mesh import describe_devices, processor
from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from jaxmlp.sweeps import sweep
from jaxmlp.sweeps.program import bytes_per_device
from jaxmlp.training.run import Run

CALLS = 100  # products a round: about half a second on two cores
Contender = Callable[[], float]  # runs once, returns its milliseconds per step
OURS = "the run, evaluation included"
SWEEP = "a run in a sweep of 64, all included"
BLOCKS = (1, 4, 16, 64)
QUESTION = "torch, the question's way: PIL, 4 workers"
TORCH = {
    QUESTION: "question",
    "torch, in memory, eager": "eager",
    "torch, in memory, fused SGD": "fused",
    "torch, in memory, torch.compile": "compiled",
}


def timed(work: Callable[[], object], steps: int) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start) / steps


def operands(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    batch, (features, width, *_) = run.experiment.batch_size, run.start.widths
    shapes = ((batch, features), (features, width), (batch, width))
    inputs, kernel, grads = (draw.standard_normal(shape, np.float32) for shape in shapes)
    return inputs, kernel, grads


def xla_products(run: Run) -> Contender:
    arrays = [jnp.asarray(array) for array in operands(run)]
    forward = jax.jit(lambda x, w: jnp.dot(x, w, precision="highest"))
    backward = jax.jit(lambda x, g: jnp.dot(x.T, g, precision="highest"))

    def work() -> None:
        x, w, g = arrays
        for _ in range(CALLS):
            jax.block_until_ready((forward(x, w), backward(x, g)))

    return lambda: timed(work, CALLS)


def numpy_products(run: Run) -> Contender:
    x, w, g = operands(run)
    outputs = np.empty((len(x), w.shape[1]), np.float32), np.empty(w.shape, np.float32)

    def work() -> None:
        for _ in range(CALLS):
            np.matmul(x, w, out=outputs[0])
            np.matmul(x.T, g, out=outputs[1])

    return lambda: timed(work, CALLS)


def torch_products(run: Run) -> Contender | None:
    try:
        import torch
    except ImportError:
        return None
    x, w, g = (torch.from_numpy(array) for array in operands(run))
    outputs = torch.empty(len(x), w.shape[1]), torch.empty(w.shape)

    def work() -> None:
        for _ in range(CALLS):
            torch.matmul(x, w, out=outputs[0])
            torch.matmul(x.T, g, out=outputs[1])

    return lambda: timed(work, CALLS)


def torch_ways(arguments: list[str]) -> dict[str, Contender]:
    """PyTorch's contenders, each an epoch of training a call; none without torch."""
    if importlib.util.find_spec("torch") is None:
        return {}
    script = Path(__file__).with_name("bench_torch.py")
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends that one and its workers
    )
    atexit.register(os.killpg, process.pid, signal.SIGTERM)

    def ask(way: str) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print(way, file=process.stdin, flush=True)
        answer = process.stdout.readline().strip()
        return float(answer) if answer not in ("", "-") else math.nan

    return {name: functools.partial(ask, way) for name, way in TORCH.items()}


def whole_run(run: Run) -> Contender:
    """An epoch of the run, its evaluation on the test set included, per training step."""
    results = run.epochs()
    return lambda: timed(lambda: next(results), run.start.steps_per_epoch)


def sweep_of_64(run: Run, dataset: Dataset) -> tuple[sweep.Sweep, Contender]:
    """A sweep and its contender: a chunk for one epoch, per training step of each of its runs."""
    rates = grid.axis("learning-rate", ["log:1e-4:0.1:64"])
    settings = grid.experiments(dataclasses.replace(run.experiment, epochs=1), [rates])
    many = sweep.Sweep(settings, [0], dataset)
    chunk = many.chunks()[0]
    steps = run.start.steps_per_epoch * len(many.runs(chunk))
    return many, lambda: timed(lambda: many.train(chunk), steps)


def memory_by_block(many: sweep.Sweep) -> dict[int, float]:
    """Megabytes on a device by the number of runs side by side, as the compiler says."""
    program = many.program._replace(side_by_side=True)
    with precision(many.experiment):
        return {
            runs: bytes_per_device(program.compile(program.shapes(1, runs, many.images))) / 1e6
            for runs in BLOCKS
        }


def matrix_rate(size: int = 4096) -> float:
    """FLOP per second of a large float32 product, the best of three."""
    square = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))

    def work() -> None:
        jax.block_until_ready(product(square))

    work()
    return 2 * size**3 / min(timed(work, 1) / 1000 for _ in range(3))


def first_epoch(arguments: list[str]) -> tuple[float, float]:
    """Seconds from a command to its first finished epoch, and the command's peak memory in GB."""
    script = Path(__file__).with_name("run_jax.py")
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(script), *arguments, "--epochs", "2", "--out", out + "/run"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            seconds = next(
                time.perf_counter() - start for line in process.stdout if line.startswith("epoch")
            )
            process.stdout.read()
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return seconds, kilobytes * 1024 / 1e9


def rounds(contenders: dict[str, Contender], count: int) -> dict[str, list[float]]:
    """Milliseconds per step of each contender in each round, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    steps = Steps((count + 1) * len(contenders))
    for index in range(count + 1):
        which = f"round {index} of {count}" if index else "warming up"
        for name, contender in contenders.items():
            steps.under_way(f"{which}: {name}")
            if name != SWEEP:
                contender()  # what has lain idle is slower at first
            milliseconds = contender()
            steps.done(f"{which}: {name}, {milliseconds:.2f} ms per step")
            if index:
                times[name].append(milliseconds)
    return times


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="(default: 9)")
    parser.add_argument(
        "--data",
        default="synthetic",
        metavar="NAME|PATH",
        help="as run_jax.py takes it (default: synthetic)",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where TFDS keeps its data")
    parser.add_argument("--json", action="store_true", help="all numbers, as JSON")
    values = parser.parse_args(arguments)
    if values.rounds < 1:
        exit_status.fail(f"--rounds {values.rounds} must be at least 1", exit_status.INPUT)
    with exit_status.one_line_errors("nothing is timed"):
        run_all(values)


def run_all(values: argparse.Namespace) -> None:
    say("loading the data and compiling")
    dataset = load_data(values.data, values.data_dir)
    run = Run(Experiment(epochs=2 * (values.rounds + 1)), dataset)
    makers = {
        OURS: whole_run,
        "two products, XLA": xla_products,
        "two products, NumPy": numpy_products,
        "two products, torch": torch_products,
    }
    arguments = ["--data", values.data]
    if values.data_dir:
        arguments += ["--data-dir", str(values.data_dir)]
    many, of_sweep = sweep_of_64(run, dataset)
    contenders = {name: made for name, make in makers.items() if (made := make(run))}
    contenders |= {SWEEP: of_sweep} | torch_ways(arguments)
    times = rounds(contenders, values.rounds)
    medians = {name: statistics.median(rounds) for name, rounds in times.items()}
    best = min(value for name, value in medians.items() if name.startswith("two"))
    widths = run.start.widths
    flop = (
        2
        * run.experiment.batch_size
        * sum((3 - (layer == 0)) * a * b for layer, (a, b) in enumerate(itertools.pairwise(widths)))
    )
    say("two runs as commands, for the time to the first epoch")
    first_epoch(arguments)  # warms the caches
    seconds, memory = first_epoch(arguments)
    say("the device's rate for a large product, and the memory of blocks")
    rate = matrix_rate()
    limit = 1000 * flop / rate
    result = {
        "device": describe_devices(),
        "processor": processor(),
        "large_product_gigaflops": rate / 1e9,
        "limit_milliseconds_per_step": limit,
        "ratio_to_limit": medians[OURS] / limit,
        "milliseconds_per_step": medians,
        "ratio_to_best_products": medians[OURS] / best,
        "times_faster_than": {
            name: medians[name] / medians[OURS] for name in TORCH if name in medians
        },
        "seconds_to_first_epoch": seconds,
        "peak_gigabytes": memory,
        "sweep": {
            "cost_of_a_run": medians[SWEEP] / medians[OURS],
            "seconds_for_1000_runs_of_20_epochs": medians[SWEEP]
            / 1000
            * 1000
            * 20
            * run.start.steps_per_epoch,
            "share_of_matrix_rate": limit / medians[SWEEP],
            "megabytes_by_runs": memory_by_block(many),
        },
    }
    print(json.dumps(result, indent=2) if values.json else table(result, times))


def table(result: dict, times: dict[str, list[float]]) -> str:
    first_epoch = result["seconds_to_first_epoch"]
    device = f"{result['device']} ({result['processor']})"
    lines = [f"{device}; median of {len(next(iter(times.values())))} alternating rounds"]
    lines += [
        f"  {name:42} {median:6.2f} ms per step  ({min(times[name]):.2f} to {max(times[name]):.2f})"
        for name, median in result["milliseconds_per_step"].items()
    ]
    return "\n".join(
        [
            *lines,
            *faster(result["times_faster_than"]),
            f"run / best bare products: {result['ratio_to_best_products']:.2f}",
            f"run / the products at the device's rate for a large one ("
            f"{result['large_product_gigaflops']:.0f} GFLOP/s, so "
            f"{result['limit_milliseconds_per_step']:.2f} ms): {result['ratio_to_limit']:.2f}",
            f"command to first finished epoch, warm caches: {first_epoch:.1f} s",
            f"peak memory of a run: {result['peak_gigabytes']:.2f} GB",
            *of_many(result["sweep"]),
        ]
    )


def of_many(found: dict) -> list[str]:
    memory = ", ".join(f"{runs}: {size:.0f}" for runs, size in found["megabytes_by_runs"].items())
    return [
        f"cost of a run in a sweep of 64 / alone: {found['cost_of_a_run']:.2f}",
        f"1000 runs of 20 epochs: {found['seconds_for_1000_runs_of_20_epochs']:,.0f} s, at "
        f"{found['share_of_matrix_rate']:.0%} of the device's rate for a large float32 product",
        f"MB by runs side by side, as the compiler says: {memory}",
    ]


def faster(ratios: dict[str, float]) -> list[str]:
    """The run against the question's way, and against the best other way of PyTorch."""
    others = {k: v for k, v in ratios.items() if k != QUESTION and not math.isnan(v)}
    if not others:
        return []
    best = min(others, key=lambda name: others[name])
    return [
        f"times as fast as {QUESTION}: {ratios[QUESTION]:.1f}",
        f"times as fast as the best of torch's others ({best}): {others[best]:.2f}",
    ]


if __name__ == "__main__":
    main()
