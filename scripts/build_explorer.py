"""Makes docs/explorer.html from a sweep: `python scripts/build_explorer.py DIR`.

The sweep has to be of the question's network, over init_scale and learning_rate.
"""

import argparse
from pathlib import Path

from jaxmlp.commands import exit_status, flags, output

OUT = Path(__file__).parent.parent / "docs" / "explorer.html"


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a finished sweep's")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FILE", help="(default: docs/explorer.html)"
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("no page was written", for_good=arguments is None):
        build(values)


def build(values: argparse.Namespace) -> None:
    from jaxmlp.pages import explorer, report
    from jaxmlp.record import sweep_files

    content = explorer.explorer_page(*sweep_files.load(values.directory))
    report.write(values.out, content)
    output.console().print(f"page: {values.out} ({len(content) / 1e6:.1f} MB)", soft_wrap=True)


if __name__ == "__main__":
    main()
