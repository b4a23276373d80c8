"""Runs the parity checks outside pytest and prints one table: `python scripts/parity.py`.

JAX on its default device (CPU, GPU or TPU) is held against PyTorch. The exit status is 0 only if
all holds. Your own port: `python scripts/parity.py --torch original.py:setup --jax port.py:setup`
(docs/your-own-port.md).
"""

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags
from jaxmlp.errors import DataError
from jaxmlp.record import run_record as record
from parity_tests.ports import command as port

EPILOG = """\
levels: seeds, preprocessing, exact, forward, gradients, schedules, optimizers, trajectories, runs

ulps: the worst distance between the two sides, in units in the last place of the tensor's largest
element. share: the worst error over its bound; at most 1 passes. tolerances: bitwise (bound 0);
derived (rounding-error bounds, element by element); adjudicated (neither side, on average, more
than twice as far from float64 as the other); others as their names say.

--random N trains N random experiments on both sides instead, in float64, and holds every step to
1e-9 for as long as a change in the last place of its initial weights moves torch's own run by less
than 1e-10. Experiment I of family K is the same everywhere.
"""


def main(arguments: list[str] | None = None) -> None:
    if port.asked(arguments):
        port.main(arguments)
        return
    parser = flags.Parser(__doc__ or "", EPILOG)
    parser.add_argument(
        "levels", nargs="*", metavar="LEVEL", help="default: all, from the ground up"
    )
    parser.add_argument("--quick", action="store_true", help="a few small problems of each kind")
    parser.add_argument(
        "--faults", action="store_true", help="plant faults instead: all are noticed?"
    )
    parser.add_argument(
        "--random", type=int, metavar="N", help="N random experiments instead of the levels"
    )
    parser.add_argument("--family", type=int, metavar="K", help="which ones (default: 0)")
    parser.add_argument("--first", type=int, metavar="I", help="from this one on (default: 0)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of either side (default: all CPUs)"
    )
    parser.add_argument("--torch-device", metavar="NAME", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("runs/parity"),
        help="for parity.json and parity.md (default: runs/parity)",
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors(for_good=arguments is None):
        raise SystemExit(0 if run(values) else exit_status.TROUBLE)


def run(values: argparse.Namespace) -> bool:
    """Whether everything holds."""
    try:
        import torch

        from torchref import data

        data.import_torchvision()
    except ImportError as error:
        raise DataError(
            f"PyTorch or torchvision does not load ({error}); "
            "install them with pip install -e '.[torch]'"
        ) from error
    from parity_tests import environment, sides
    from parity_tests.levels import LEVELS

    if unknown := [name for name in values.levels if name not in LEVELS]:
        raise ValueError(f"level {unknown[0]!r} is not known; choose from {', '.join(LEVELS)}")
    if values.threads is not None and values.threads < 1:
        raise ValueError(f"threads {values.threads} must be at least 1")
    check_random(values)
    if values.torch_device not in ("cpu", "cuda"):
        raise ValueError(f"torch device {values.torch_device!r} is not known; choose cpu or cuda")
    if values.torch_device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch device cuda is not there; choose cpu")
    if values.out.exists() and not (values.out / "parity.json").is_file():
        raise ValueError(f"{values.out} holds something else; choose another --out")
    if values.threads:
        environment.limit_threads(values.threads)
    sides.torch_device = values.torch_device
    environment.settle()
    header = environment.describe()
    for name, value in header.items():
        print(f"{name}: {value}")
    print(flush=True)
    if values.random is not None:
        return draw(values, header)
    names = values.levels or list(LEVELS)
    return plant(values, header) if values.faults else check(values, header, names)


def check_random(values: argparse.Namespace) -> None:
    """Sees whether --random and what belongs to it mean something.

    Raises:
        ValueError: a number is out of its range, or asks for something else at the same time.
    """
    for name, least in (("random", 1), ("family", 0), ("first", 0)):
        value = getattr(values, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} {value} must be at least {least}")
        if value is not None and values.random is None:
            raise ValueError(f"--{name} {value} needs --random N")
    if values.random is not None and (values.levels or values.faults or values.quick):
        raise ValueError(
            "--random goes with neither levels nor --faults nor --quick; leave one out"
        )


def draw(values: argparse.Namespace, header: dict[str, str]) -> bool:
    """Random experiments, a row each as it is done."""
    from parity_tests import random_experiments

    family, first = values.family or 0, values.first or 0
    rows, failures, again = [], [], f"python {sys.argv[0]} --random 1 --family {family} --first"
    for checked in random_experiments.family(family, first, values.random):
        result = "FAIL" if checked.failures else "pass"
        rows.append(
            {
                "experiment": checked.drawn.name,
                "steps": checked.steps,
                "compared": checked.stable,
                "share": checked.share,
                "result": result,
            }
        )
        print(
            f"{checked.drawn.name:72}{checked.stable:>6} of{checked.steps:>5} steps   "
            f"share {checked.share:<8.2g}{result}",
            flush=True,
        )
        for failure in checked.failures[:3]:
            print(f"FAILED {failure.failure}\n  {again} {checked.drawn.index}", flush=True)
        failures += [failure.failure for failure in checked.failures]
    good = sum(row["result"] == "pass" for row in rows)
    steps, compared = (sum(row[name] for row in rows) for name in ("steps", "compared"))
    count = f"{good} of {len(rows)} experiments pass; {compared:,} of {steps:,} steps compared"
    print(f"\n{count}\none of them again: {again} {rows[-1]['experiment'].split()[0]}")
    write(
        values.out,
        {"environment": header, "family": family, "experiments": rows, "failures": failures},
        f"{count}\n",
    )
    return good == len(rows)


def check(values: argparse.Namespace, header: dict[str, str], names: list[str]) -> bool:
    """The levels, a row or more each as it is done."""
    from parity_tests.levels import LEVELS

    comparisons, rows = [], []
    for name in names:
        start = time.perf_counter()
        of_level = list(LEVELS[name](values.quick))
        seconds = time.perf_counter() - start
        comparisons += of_level
        level_rows = summary(of_level)
        rows += level_rows
        print("\n".join(line(row) for row in level_rows) + f"   ({seconds:.0f} s)", flush=True)
    failed = [comparison for comparison in comparisons if not comparison.passed]
    for comparison in failed[:20]:
        print(f"FAILED {comparison.failure}")
    count = f"{len(comparisons) - len(failed)} of {len(comparisons)} tensors pass"
    print(f"\n{count}")
    checks = summary(comparisons, by_check=True)
    write(
        values.out,
        {
            "environment": header,
            "summary": rows,
            "checks": checks,
            "failures": [c.failure for c in failed],
        },
        f"{markdown(rows)}\n\n{count}\n",
    )
    return not failed and bool(comparisons)


def summary(comparisons: list[Any], by_check: bool = False) -> list[dict[str, Any]]:
    """A row per level, tolerance and float width; or per check."""

    groups: dict[tuple[str, str, str], list[Any]] = {}  # in the order of their first members
    for comparison in comparisons:
        width = "float64" if "float64" in comparison.check else "float32"
        what = comparison.check if by_check else width
        groups.setdefault((comparison.level, what, comparison.tolerance), []).append(comparison)
    rows = []
    for (level, what, tolerance), members in groups.items():
        ulps = [member.ulps for member in members if not math.isnan(member.ulps)]
        rows.append(
            {
                "check": f"{level}, {what}",
                "tolerance": tolerance,
                "tensors": len(members),
                "ulps": max(ulps) if ulps else None,
                "share": max(member.share for member in members),
                "result": "pass" if all(member.passed for member in members) else "FAIL",
            }
        )
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    """A row's numbers as they are shown."""
    ulps = "–" if row["ulps"] is None else f"{row['ulps']:.3g}"
    share = f"{row['share']:.2g}" if row["share"] else "0"
    return [row["check"], row["tolerance"], f"{row['tensors']:,}", ulps, share, row["result"]]


def line(row: dict[str, Any]) -> str:
    check, tolerance, tensors, ulps, share, result = cells(row)
    return f"{check:24}{tolerance:26}{tensors:>8}{ulps:>9} ulps   share {share:8}{result}"


def markdown(rows: list[dict[str, Any]]) -> str:
    head = "| check | tolerance | tensors | worst ulps | share of the bound | result |"
    return "\n".join([head, "|---" * 6 + "|", *(f"| {' | '.join(cells(row))} |" for row in rows)])


def plant(values: argparse.Namespace, header: dict[str, str]) -> bool:
    """Every fault, one at a time: the level that notices it, and how far past its bound it goes."""
    from parity_tests import faults, random_faults

    caught = []
    planted = itertools.chain.from_iterable(faults.FAULTS.values())
    for fault in itertools.chain(map(faults.notice, planted), random_faults.all_caught()):
        caught.append(fault)
        print(faults.row(fault), flush=True)
    print(f"\n{faults.count(caught)}")
    write(
        values.out,
        {
            "environment": header,
            "faults": [
                {"fault": c.fault._asdict(), "level": c.level, "margin": c.margin} for c in caught
            ],
        },
        faults.table(caught) + "\n",
    )
    return all(fault.level and fault.margin >= faults.MARGIN for fault in caught)


def write(out: Path, result: dict[str, Any], text: str) -> None:
    """parity.json and parity.md, each whole or not at all."""
    plain = json.loads(record.encode(result))
    atomic.make_directory(out)
    atomic.replace(out / "parity.md", text.encode())
    atomic.replace(out / "parity.json", json.dumps(plain, indent=1).encode())
    print(f"written: {out}/parity.json, parity.md")
