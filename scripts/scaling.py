"""Times one sweep on 1 to 8 virtual CPU devices and 1 to 4 processes; prints a Markdown table.

The devices share this machine's cores: a column that stays level says that dividing a sweep costs
nothing, not that more devices are faster. It also sees whether all tables are the same. For that
all have as many threads: XLA takes one per core but at least one per device, and how it divides a
large product among them decides the order of its sums.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jaxmlp.commands import exit_status, flags

SPLITS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (4, 1), (4, 2))  # processes, devices each
THREADS = str(max(devices for _, devices in SPLITS))
RATES = "log:1e-4:0.1:"


def sweep(processes: int, devices: int, out: Path, arguments: list[str]) -> dict[str, Any]:
    """One sweep, divided so; its sweep.json.

    Raises:
        ValueError: it failed.
    """
    script = Path(__file__).with_name("sweep.py")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PJRT_NPROC": THREADS,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    jobs = []
    for index in range(processes):
        together = (
            ["--coordinator", address, "--processes", str(processes), "--process-id", str(index)]
            if processes > 1
            else []
        )
        jobs.append(
            subprocess.Popen(
                [sys.executable, str(script), "--out", str(out), *arguments, *together],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [job.communicate()[0] for job in jobs]
    if any(job.returncode for job in jobs):
        raise ValueError(f"{processes} processes by {devices} devices failed: {said[0][-300:]}")
    return json.loads((out / "sweep.json").read_text())


def split(text: str) -> tuple[int, int]:
    """Such as `2x1`.

    Raises:
        ArgumentTypeError: it is not of this form.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 2x1: processes by devices")
    return int(found[1]), int(found[2])


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument(
        "--splits",
        type=split,
        nargs="+",
        default=SPLITS,
        metavar="PxD",
        help="processes by devices each, as 2x1 (default: eight of them)",
    )
    parser.add_argument("--runs", type=int, nargs="+", default=[64], help="(default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default: 3)")
    parser.add_argument("--train-size", type=int, default=2500, help="images (default: 2500)")
    parser.add_argument("--epochs", type=int, default=2, help="(default: 2)")
    values = parser.parse_args(arguments)
    if values.rounds < 1:
        exit_status.fail(f"--rounds {values.rounds} must be at least 1", exit_status.INPUT)
    with exit_status.one_line_errors("nothing more is timed"):
        run(values)


def run(values: argparse.Namespace) -> None:
    common = [
        "--data",
        values.data,
        "--train-size",
        str(values.train_size),
        "--epochs",
        str(values.epochs),
        "--no-forecast",
    ]
    if values.data_dir:
        common += ["--data-dir", str(values.data_dir)]
    print(
        "| processes | devices each | "
        + " | ".join(f"{runs} runs: s per run | start, s" for runs in values.runs)
        + " |"
    )
    print("|---|---|" + "---|---|" * len(values.runs))
    times: dict[tuple[int, int, int], list[dict[str, float]]] = {}
    first: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for round_ in range(values.rounds):
            for processes, devices in values.splits:
                for runs in values.runs:
                    out = Path(scratch) / f"{round_}-{processes}-{devices}-{runs}"
                    asked = [*common, "--learning-rate", f"{RATES}{runs}"]
                    found = sweep(processes, devices, out, asked)["timings"]
                    times.setdefault((processes, devices, runs), []).append(found)
                    table = pq.read_table(out / "runs.parquet")
                    if not table.equals(first.setdefault(runs, table)):
                        raise ValueError(
                            f"{processes} × {devices} gives another table than the first"
                        )
    for processes, devices in values.splits:
        cells = []
        for runs in values.runs:
            own = times[processes, devices, runs]
            cells += [
                f"{statistics.median(one['train_seconds'] for one in own) / runs:.3f}",
                f"{statistics.median(one['setup_seconds'] for one in own):.1f}",
            ]
        print(f"| {processes} | {devices} | " + " | ".join(cells) + " |")
    print("\nAll tables are equal.")


if __name__ == "__main__":
    sys.exit(main())
