"""Compiles the programs for TPUs that are not there: `python scripts/compile_tpu.py v5e:2x2`.

libtpu (the extra `tpu`) brings the compiler, a topology's name its devices. Three programs, as
run_jax.py and sweep.py compile them: `run`, one run on one chip; `data-parallel`, runs whose
batches as many chips share as can; `sweep`, runs side by side on every chip. For each, per chip and
epoch:

    memory        at a time, by the compiler's account
    GFLOP, GB     of the matrix products, once each; to and from the chip's memory, at least:
                  weights and optimizer state read and written in every step, and the pixels once
    cycles        as the compiler estimates them, all loops' bodies times their trips; they contain
                  the passes of a float32 product (XLA's own cost analysis counts a loop once and a
                  product as one pass), and no waiting for memory or for other chips
    collectives   in a step, and outside the loops
    ms            the estimate: cycles at the chip's clock, or the memory's time if that is longer
    roofline      ms at the documented peaks: the passes of the products, or the memory
    $             of 1000 runs of `--epochs` at list prices on demand, on all chips, start-up not
                  counted
"""

import argparse
import json
import math
import re
from typing import Any

from jaxmlp.commands import exit_status, flags
from jaxmlp.experiment import Experiment
from jaxmlp.sweeps import tpu


def main(arguments: list[str] | None = None) -> None:
    """Parses the flags, compiles, prints."""
    parser = flags.Parser(__doc__ or "")
    parser.add_argument(
        "topologies",
        nargs="*",
        default=tpu.TOPOLOGIES,
        metavar="NAME",
        help=f"generation:AxB (default: {' '.join(tpu.TOPOLOGIES)})",
    )
    parser.add_argument("--programs", nargs="+", choices=tpu.PROGRAMS, default=tpu.PROGRAMS)
    parser.add_argument(
        "--runs-per-device", type=int, default=16, metavar="N", help="of the sweep (default: 16)"
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=[300],
        metavar="N",
        help="widths of the hidden layers (default: 300)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=250,
        metavar="N",
        help="(default: 250, or the nearest that chips can share)",
    )
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="(default: 20)")
    parser.add_argument("--optimizer", default="sgd", metavar="NAME", help="(default: sgd)")
    parser.add_argument(
        "--precision", choices=tuple(tpu.PASSES), default="float32", help="(default: float32)"
    )
    parser.add_argument(
        "--dollars", type=float, metavar="X", help="per chip and hour (default: the list price)"
    )
    parser.add_argument(
        "--train-size",
        type=int,
        default=tpu.Shape().train,
        metavar="N",
        help=f"images (default: {tpu.Shape().train:,})",
    )
    parser.add_argument("--json", action="store_true", help="all numbers, as JSON")
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing more is compiled", for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    """Compiles, and prints a row for each program as it is done."""
    experiment = Experiment(
        hidden=tuple(values.hidden),
        batch_size=values.batch_size,
        epochs=values.epochs,
        optimizer=values.optimizer,
        precision=values.precision,
        train_size=values.train_size,
    )
    shape = tpu.Shape(train=values.train_size)
    experiment.steps_per_epoch(shape.train)
    if values.runs_per_device < 1:
        raise ValueError(f"--runs-per-device {values.runs_per_device} must be at least 1")
    if values.dollars is not None and not 0 <= values.dollars < math.inf:
        raise ValueError(f"--dollars {values.dollars:g} must be 0 or more")
    chosen = [(name, *tpu.topology(name)) for name in values.topologies]
    everything = []
    for name, chip, there in chosen:
        if values.dollars is not None:
            chip = chip._replace(dollars=values.dollars)
        for program in values.programs:
            compiles, share = experiment, 1
            if program == "data-parallel":
                compiles, share = tpu.shared(experiment, shape.train, len(there))
            row = tpu.measure(program, compiles, shape, chip, there, values.runs_per_device, share)
            row = {"topology": name, "batch_size": compiles.batch_size, **row}
            everything.append(row)
            if not values.json:
                print(line(row) if len(everything) > 1 else heading() + line(row), flush=True)
    if values.json:
        print(json.dumps(everything, indent=2))


COLUMNS = (
    ("topology", "{topology:10}"),
    ("program", "{program:13}"),
    ("chips", "{chips:5.0f}"),
    ("batch", "{batch_size:6}"),
    ("runs", "{runs_per_device:4}"),
    ("compiled", "{compile_seconds:6.0f} s"),
    ("memory/chip", "{memory_bytes_mb:7.0f} MB"),
    ("GFLOP", "{gflop:8.0f}"),
    ("GB", "{gigabytes:6.1f}"),
    ("Mcycles", "{mcycles:7.1f}"),
    ("collectives", "{collectives_per_step:4} + {collectives_outside:<4}"),
    ("ms", "{milliseconds:7.1f}"),
    ("roofline", "{roofline_milliseconds:7.1f}"),
    ("1000 runs", "{seconds_per_1000_runs:7.1f} s"),
    ("$", "{dollars_per_1000_runs:7.2f}"),
)


def line(row: dict[str, Any]) -> str:
    """A row of the table, of what `tpu.measure` gives."""
    more = {"memory_bytes_mb": row["memory_bytes"] / 1e6, "mcycles": row["cycles"] / 1e6}
    return "  ".join(form.format(**row, **more) for _, form in COLUMNS)


def heading() -> str:
    """The names of the columns, over them."""
    empty = dict.fromkeys(re.findall(r"\{(\w+)", "".join(form for _, form in COLUMNS)), 0)
    widths = [len(form.format(**empty)) for _, form in COLUMNS]
    names = zip((name for name, _ in COLUMNS), widths, strict=True)
    return (
        "  ".join(f"{name:{'<' if i < 2 else '>'}{width}}" for i, (name, width) in enumerate(names))
        + "\n"
    )
