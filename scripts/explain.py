"""Says which run a run really is, what course it will take, what would repair it.

`python scripts/explain.py --input-scale 255`, or with a record's directory: `explain.py runs/NAME`.
The settings are those of run_jax.py.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmlp import explanation, flags, job, output, question, rescaling, saved_record
from jaxmlp.experiment import NETWORK, Experiment

WIDTH = 100


def of_record(directory: Path) -> Experiment:
    """The experiment of a record.

    Raises:
        ValueError: the directory is no record.
    """
    return Experiment.from_json(saved_record.read(directory)["experiment"])


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, str, Experiment, Experiment]:
    parser = flags.parser(__doc__ or "")
    flags.add_data_flags(parser)
    own = parser.add_argument_group("explanation")
    own.add_argument("record", nargs="?", type=Path, metavar="RECORD",
                     help="explain this run instead of the one that the flags ask for")  # fmt: skip
    own.add_argument("--against", type=Path, metavar="RECORD",
                     help="compare with this run (default: the same with unscaled inputs and "
                     "default scales,\nrates and decays)")  # fmt: skip
    own.add_argument("--no-forecast", action="store_true",
                     help="only what follows from the settings: no data, no JAX")  # fmt: skip
    own.add_argument("--json", action="store_true", help="print the numbers as JSON")
    values = parser.parse_args(arguments)
    try:
        case, experiment = flags.experiment(values)
        if values.record:
            if values.case or experiment != Experiment():
                raise ValueError(f"{values.record} is one run and the flags ask for another; "
                                 "give one of the two")  # fmt: skip
            experiment = of_record(values.record)
            case = question.name(experiment)
        against = explanation.baseline(experiment)
        if values.against:
            against = of_record(values.against)
    except ValueError as error:
        flags.fail(error, flags.INPUT)
    return values, case, experiment, against


def forecast(
    values: argparse.Namespace, experiment: Experiment, warn: Callable[[str], None]
) -> dict[str, Any]:
    """The record's section `forecast`."""
    from jaxmlp import data, devices
    from jaxmlp.forecast import forecast

    devices.use_compilation_cache()
    dataset = job.load(values, warn)
    if experiment.train_size:
        dataset = data.first(dataset, experiment.train_size)
    return {"data": dataset.source, **forecast(experiment, dataset).to_json()}


def show(
    console, case: str, experiment: Experiment, against: Experiment, known: dict[str, Any] | None,
    other: str,
) -> None:  # fmt: skip
    """One screen."""
    from rich.padding import Padding
    from rich.table import Table

    def head(text: str) -> None:
        console.print(f"\n{text}", style="bold")

    def paragraph(text: str, indent: int = 2) -> None:
        console.print(Padding(text, (0, 0, 0, indent)), markup=False)

    def pairs(rows: list[tuple[str, str]]) -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        for row in rows:
            grid.add_row(*row)
        console.print(Padding(grid, (0, 0, 0, 2)), markup=False)

    depth = f"{experiment.layers} layer{'s' * (experiment.layers > 1)}"
    console.print(
        f"{case}: {depth}, {experiment.optimizer}, inputs × {experiment.input_scale:g}",
        style="bold",
    )
    comparable = all(getattr(experiment, name) == getattr(against, name) for name in NETWORK)
    head(f"Which run this is, beside {other}")
    paragraph(explanation.identity(experiment, against))
    if rows := explanation.table(experiment, against) if comparable else []:
        grid = Table("", "this run", "the other", "ratio", box=None, padding=(0, 2))
        for row in rows:
            grid.add_row(*row)
        console.print(grid, markup=False)
    if known:
        head(f"Forecast ({known['data']})")
        paragraph(explanation.forecast(known))
    if comparable:
        head(f"What makes it {other}")
        to = explanation.target(experiment, against)
        try:
            rows = explanation.repairs(experiment, to)
            others = rescaling.difference(experiment, against).settings
            words = [
                word for name in others for word in flags.as_flag(name, getattr(against, name))
            ]
            pairs([*rows, ("also set", " ".join(words))] if words else rows)
        except ValueError as error:
            paragraph(f"Nothing exact: {error}.")
    if tried := explanation.attempts(experiment):
        head("The question's attempts at inputs × 255")
        paragraph(explanation.SAME_AS)
        pairs(tried)
        paragraph(explanation.BOTH_LAYERS)


def main(arguments: list[str] | None = None) -> None:
    values, case, experiment, against = parse(arguments)
    with flags.one_line_errors("nothing was explained"):
        console, warn = output.console(width=WIDTH), output.console(stderr=True)

        def say(text: str) -> None:
            warn.print(text, style="bold yellow", soft_wrap=True, markup=False)

        known = None if values.no_forecast else forecast(values, experiment, say)
        if values.json:
            from jaxmlp import record

            print(record.encode({
                "case": case, "experiment": experiment.to_json(),
                "canonical": explanation.canonical_section(experiment),
                "identity": explanation.identity(experiment, against), "forecast": known,
                "against": against.to_json(),
            }), end="")  # fmt: skip
            return
        other = str(values.against) if values.against else "the baseline"
        show(console, case, experiment, against, known, other)


if __name__ == "__main__":
    sys.exit(main())
