"""Draws a finished sweep: `python scripts/sweep_figures.py DIR --axes init_scale_1 input_scale`.

sweep.py draws the same when it ends. Runs that share a place in a figure are averaged.
"""

import argparse
from pathlib import Path

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags

VALUE = "test_accuracy"


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a finished sweep's")
    parser.add_argument("--axes", nargs=2, metavar=("X", "Y"), help="columns of runs.parquet")
    parser.add_argument("--value", default=VALUE, metavar="COLUMN", help=f"(default: {VALUE})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: the sweep's)")
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("no figure was written", for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.record import sweep_figures, sweep_files

    plan, runs, _ = sweep_files.load(values.directory)
    figures = sweep_figures.draw(plan, runs, values.axes, values.value)
    out = values.out or values.directory
    atomic.make_directory(out)
    sweep_files.save_figures(out, figures, plan["identity"])
    for name in figures:
        print(f"written: {out / name}")
