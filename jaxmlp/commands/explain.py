"""Says which run a run really is, what course it will take, what would repair it.

`python scripts/explain.py --input-scale 255`, or with a record's directory: `explain.py runs/NAME`.
The settings are those of run_jax.py.

For your own network, in torch or Flax: --model FILE:FUNCTION (with it --help lists its flags).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmlp import question
from jaxmlp.commands import exit_status, flags, invocation, output, user_network
from jaxmlp.commands import run_job as job
from jaxmlp.data.dataset import Dataset, first_images
from jaxmlp.errors import DataError
from jaxmlp.experiment import Experiment
from jaxmlp.law import screen
from jaxmlp.law.canonical import canonical_section
from jaxmlp.law.explanation import BASELINE, Explanation, baseline, explain, which_run
from jaxmlp.record import saved_record

if TYPE_CHECKING:
    from jaxmlp.networks.explanation import NetworkExplanation


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
    group = parser.add_argument_group("explanation")
    group.add_argument(
        "record",
        nargs="?",
        type=Path,
        metavar="RECORD",
        help="explain this run instead of the one that the flags ask for",
    )
    group.add_argument(
        "--against",
        type=Path,
        metavar="RECORD",
        help="compare with this run (default: the same with unscaled\ninputs "
        "and default scales, rates and decays)",
    )
    group.add_argument(
        "--no-forecast",
        action="store_true",
        help="only what follows from the settings: no data, no JAX",
    )
    group.add_argument("--json", action="store_true", help="print the numbers as JSON")
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
        against, values.other = baseline(experiment), BASELINE
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
    from jaxmlp.record.run_record import data_word

    data_dir = ["--data-dir", str(values.data_dir)] if values.data_dir else []
    return ["--data", data_word(values.recorded), *data_dir]


def forecast(
    values: argparse.Namespace, experiment: Experiment, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The record's section `forecast`; None where the record's data cannot be found again."""
    from jaxmlp.device import compilation
    from jaxmlp.forecasting.rehearsal import forecast

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


def show(console, explanation: "Explanation | NetworkExplanation") -> None:
    """Which run it is, its forecast, its repairs, the question's attempts."""
    console.print(explanation.title, style="bold")
    for section in explanation.sections:
        console.print(f"\n{section.heading}", style="bold", markup=False)
        for part in section.parts:
            show_part(console, part)


def show_part(console, part: screen.Part) -> None:
    from rich.padding import Padding
    from rich.table import Table

    indent = (0, 0, 0, len(screen.INDENT))
    if isinstance(part, screen.Paragraph):
        console.print(Padding(part.text, indent), markup=False)
    elif isinstance(part, screen.Table):
        table = Table(*part.headings, box=None, padding=(0, 2))
        for row in part.rows:
            table.add_row(*row)
        console.print(table, markup=False)
    elif isinstance(part, screen.Labelled):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        for row in part.rows:
            grid.add_row(*row)
        console.print(Padding(grid, indent), markup=False)
    else:
        for label, command in part.rows:
            console.print(f"{screen.INDENT}{label}:", style="bold", markup=False)
            console.print(command, soft_wrap=True, markup=False)


def json_text(
    case: str, experiment: Experiment, against: Experiment, other: str, foretold: Any
) -> str:
    """The numbers, and which run it is."""
    from jaxmlp.record import run_record

    return run_record.encode(
        {
            "case": case,
            "experiment": experiment.to_json(),
            "canonical": canonical_section(experiment),
            "explanation": which_run(experiment, against, other),
            "forecast": foretold,
            "against": against.to_json(),
        }
    )


def main(arguments: list[str] | None = None) -> None:
    if user_network.asked(arguments):
        user_network.explain(arguments)
        return
    values, case, experiment, against = parse(arguments)
    with exit_status.one_line_errors("nothing was explained", for_good=arguments is None):
        console, errors = output.console(width=screen.WIDTH), output.console(stderr=True)

        def warn(text: str) -> None:
            errors.print(text, style="bold yellow", soft_wrap=True, markup=False)

        words = data_words(values)
        foretold = None if values.no_forecast else forecast(values, experiment, warn)
        if values.json:
            print(json_text(case, experiment, against, values.other, foretold), end="")
            return
        again = [*invocation.words("run"), *(words if values.data else ["--data", "PATH"])]
        explanation = explain(
            experiment, against, foretold, case=case, other=values.other, again=again
        )
        show(console, explanation)
