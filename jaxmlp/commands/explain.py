"""Says which run a run really is, what course it will take, what would repair it.

`python scripts/explain.py --input-scale 255`, or with a record's directory: `explain.py runs/NAME`.
The settings are those of run_jax.py.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmlp import question
from jaxmlp.commands import exit_status, flags, output
from jaxmlp.commands import run_job as job
from jaxmlp.data.dataset import Dataset, first_images
from jaxmlp.errors import DataError
from jaxmlp.experiment import NETWORK, Experiment
from jaxmlp.law import explanation
from jaxmlp.record import saved_record

WIDTH = 100


def of_record(directory: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a record, and what it says of its data.

    Raises:
        ValueError: the directory is no record.
    """
    result = saved_record.read(directory)
    return Experiment.from_json(result["experiment"]), result["data"]


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, str, Experiment, Experiment]:
    """The flags, with `recorded` beside them: the record's data, if one is explained."""
    parser = flags.parser(__doc__ or "")
    flags.add_data_flags(parser)
    own = parser.add_argument_group("explanation")
    own.add_argument(
        "record",
        nargs="?",
        type=Path,
        metavar="RECORD",
        help="explain this run instead of the one that the flags ask for",
    )
    own.add_argument(
        "--against",
        type=Path,
        metavar="RECORD",
        help="compare with this run (default: the same with unscaled\ninputs "
        "and default scales, rates and decays)",
    )
    own.add_argument(
        "--no-forecast",
        action="store_true",
        help="only what follows from the settings: no data, no JAX",
    )
    own.add_argument("--json", action="store_true", help="print the numbers as JSON")
    values = parser.parse_args(arguments)
    try:
        case, experiment = flags.experiment(values)
        values.recorded = None
        if values.record:
            if values.case or experiment != Experiment():
                raise ValueError(
                    f"{values.record} is one run and the flags ask for another; give one of the two"
                )
            experiment, values.recorded = of_record(values.record)
            case = question.name(experiment)
        against, values.other = explanation.baseline(experiment), explanation.BASELINE
        if values.against:
            against, other_data = of_record(values.against)
            values.other = named(values, other_data)
    except ValueError as error:
        exit_status.fail(error, exit_status.INPUT)
    return values, case, experiment, against


def named(values: argparse.Namespace, other: dict[str, Any]) -> str:
    """What the run compared with is called; its data, if they are known to be others.

    Raises:
        ValueError: its network has other inputs or outputs.
    """
    mine = values.recorded
    if mine is None or mine["sha256"] == other["sha256"]:
        return str(values.against)
    for what in ("shape", "classes"):
        if mine[what] != other[what]:
            raise ValueError(
                f"{values.record} has data of {what} {mine[what]}, {values.against} of "
                f"{other[what]}; compare runs of one network"
            )
    return f"{values.against}, on other data"


def data_words(values: argparse.Namespace) -> list[str]:
    """The words that name the data in a command to be pasted; PATH where nobody has said it."""
    if values.recorded is None or values.data != "auto":
        return flags.data_words(values)
    name = values.recorded["name"]
    users = values.recorded["source"].startswith("the user's file")
    data_dir = ["--data-dir", str(values.data_dir)] if values.data_dir else []
    return ["--data", "PATH" if users else name, *data_dir]


def forecast(
    values: argparse.Namespace, experiment: Experiment, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The record's section `forecast`; None where the record's data cannot be found again."""
    from jaxmlp.device import compilation
    from jaxmlp.forecast.rehearsal import forecast

    compilation.use_compilation_cache()
    dataset = of_recorded_data(values, warn) if values.recorded else job.load(values, warn)
    if dataset is None:
        return None
    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    job.check_memory(experiment, dataset)
    if values.recorded and dataset.sha256 != values.recorded["sha256"]:
        warn(
            f"no forecast: {values.record} was trained on other data ({values.recorded['source']}, "
            f"sha256 {values.recorded['sha256'][:10]}) than these ({dataset.source}, "
            f"{dataset.sha256[:10]}); name them with --data"
        )
        values.data = None  # it is not what the run was trained on
        return None
    return {"data": dataset.source, **forecast(experiment, dataset).to_json()}


def of_recorded_data(values: argparse.Namespace, warn: Callable[[str], None]) -> Dataset | None:
    """The data set of a record, by its name if --data names none; None if it is not found."""
    if values.data == "auto":
        values.data = values.recorded["name"]
        if values.data not in ("cifar10", "synthetic"):
            warn(
                f"no forecast: {values.record} was trained on {values.recorded['source']}; "
                "name that with --data PATH"
            )
            return None
    try:
        return job.load(values, warn)
    except DataError as error:
        warn(f"no forecast: the data of {values.record} are not here: {error}")
        return None


# ---- one screen


def head(console, text: str) -> None:
    console.print(f"\n{text}", style="bold", markup=False)


def paragraph(console, text: str) -> None:
    from rich.padding import Padding

    console.print(Padding(text, (0, 0, 0, 2)), markup=False)


def pairs(console, rows: list[tuple[str, str]]) -> None:
    from rich.padding import Padding
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for row in rows:
        grid.add_row(*row)
    console.print(Padding(grid, (0, 0, 0, 2)), markup=False)


def show(
    console,
    case: str,
    experiment: Experiment,
    against: Experiment,
    other: str,
    foretold: dict[str, Any] | None,
    again: list[str],
) -> None:
    """Which run it is, its forecast, its repairs, the question's attempts.

    Args:
        other: what `against` is called.
        again: the words that a command to be pasted starts with.
    """
    depth = f"{experiment.layers} layer{'s' * (experiment.layers > 1)}"
    console.print(
        f"{case}: {depth}, {experiment.optimizer}, inputs × {experiment.input_scale:g}",
        style="bold",
    )
    comparable = all(getattr(experiment, name) == getattr(against, name) for name in NETWORK)
    show_identity(console, experiment, against, other, comparable)
    if foretold:
        head(console, f"Forecast ({foretold['data']})")
        paragraph(console, explanation.forecast(foretold))
    if comparable:
        show_repairs(console, experiment, against, other, again)
    baseline = explanation.baseline(experiment)
    if against != baseline or explanation.same(experiment, baseline):
        return
    if tried := question.attempts(experiment):
        head(console, "The question's attempts at inputs × 255 (CIFAR-10, 20 epochs)")
        paragraph(console, explanation.same_as(experiment))
        pairs(console, tried)
        paragraph(console, question.BOTH_LAYERS)


def show_identity(
    console, experiment: Experiment, against: Experiment, other: str, comparable: bool
) -> None:
    from rich.table import Table

    head(console, f"Which run this is, beside {other.partition(':')[0]}")
    paragraph(console, explanation.which_run(experiment, against, other))
    if rows := explanation.table(experiment, against) if comparable else []:
        grid = Table("", "this run", "the other", "ratio", box=None, padding=(0, 2))
        for row in rows:
            grid.add_row(*row)
        console.print(grid, markup=False)


def show_repairs(
    console, experiment: Experiment, against: Experiment, other: str, again: list[str]
) -> None:
    """Each command on a line of its own, however long, so that it can be pasted."""
    if explanation.same(experiment, against):
        return
    try:
        head(console, f"What turns it into {other.partition(':')[0]}")
        if experiment.input_scale != against.input_scale:
            change = experiment.input_scale / against.input_scale
            paragraph(
                console,
                f"Divide the inputs by {change:g} where they were multiplied. Where "
                "they have to stay as they are:",
            )
        for label, command in explanation.exact_repairs(experiment, against, again):
            console.print(f"  {label}:", style="bold", markup=False)
            console.print(command, soft_wrap=True, markup=False)
        to = explanation.target(experiment, against)
        if not explanation.same(experiment, to):
            pairs(console, explanation.single_knobs(experiment, to))
    except ValueError as error:
        paragraph(console, f"Nothing exact: {error}.")


def main(arguments: list[str] | None = None) -> None:
    values, case, experiment, against = parse(arguments)
    with exit_status.one_line_errors("nothing was explained"):
        console, warn = output.console(width=WIDTH), output.console(stderr=True)

        def say(text: str) -> None:
            warn.print(text, style="bold yellow", soft_wrap=True, markup=False)

        words = data_words(values)
        foretold = None if values.no_forecast else forecast(values, experiment, say)
        other = values.other
        if values.json:
            from jaxmlp.record import run_record as record

            print(
                record.encode(
                    {
                        "case": case,
                        "experiment": experiment.to_json(),
                        "canonical": explanation.canonical_section(experiment),
                        "identity": explanation.which_run(experiment, against, other),
                        "forecast": foretold,
                        "against": against.to_json(),
                    }
                ),
                end="",
            )
            return
        again = [*explanation.SCRIPT, *(words if values.data else ["--data", "PATH"])]
        show(console, case, experiment, against, other, foretold, again)


if __name__ == "__main__":
    sys.exit(main())
