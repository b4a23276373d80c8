"""Makes the page of a record: `python scripts/report.py DIR`, or of several runs side by side."""

import argparse
from pathlib import Path

from jaxmlp.commands import exit_status, flags, output
from jaxmlp.law.words import counted


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(
        "Make report.html, one file to look at, of what a run, a sweep or reproduce.py left; or of "
        "several runs, one that lays them side by side. From the records alone: nothing is trained."
    )
    parser.add_argument("directories", metavar="DIR", nargs="+", help="a record's directory")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="(default: report.html in DIR, or of several in this directory)",
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("no page was written", for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.pages.report import report

    out = report(*values.directories, to=values.out)
    size = out.stat().st_size / 1e6
    of = counted(len(values.directories), "record")
    output.console().print(f"page: {out} ({of}, {size:.1f} MB)", soft_wrap=True)
