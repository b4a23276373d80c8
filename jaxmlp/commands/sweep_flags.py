"""The command line of a sweep: settings that take several values, and what they span."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from jaxmlp import grid, question
from jaxmlp.commands import exit_status, flags, tensorboard
from jaxmlp.experiment import Experiment

LAYER_FLAG = re.compile(
    rf"--(?:{'|'.join(name.replace('_', '-') for name in grid.SWEPT)})\.[1-9]\d*(?==|$)"
)


def add_flags(parser: flags.Parser) -> None:
    """What is swept, and on which devices."""
    flags.add_data_flags(parser)
    how = parser.add_argument_group("sweep")
    ways = how.add_mutually_exclusive_group()
    ways.add_argument(
        "--zip",
        action="store_true",
        help="the axes' values side by side (default: all combinations)",
    )
    ways.add_argument("--random", type=int, metavar="N", help="N draws from the axes")
    how.add_argument("--sweep-seed", type=int, metavar="K", help="of the draws (default: 0)")
    where = parser.add_argument_group("devices")
    where.add_argument(
        "--runs-per-device",
        type=int,
        metavar="N",
        help="trained at a time (default: by its memory; 16 on CPU)",
    )
    where.add_argument(
        "--batching",
        choices=("vmap", "map"),
        help="a device's runs side by side, or one after the other\n"
        "(default: map on CPU, vmap elsewhere)",
    )
    flags.add_data_parallel_flag(where)


def add_output_flags(parser: flags.Parser) -> None:
    """How the processes of a sweep find each other, and what it leaves where."""
    flags.add_distributed_flags(parser.add_argument_group("several processes"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="DIR", type=Path, help="the sweep's directory (default: runs/sweep-HASH)"
    )
    output.add_argument(
        "--no-forecast", action="store_true", help="leave out sharpness and what was foretold"
    )
    tensorboard.add_flag(output)
    keep = output.add_mutually_exclusive_group()
    keep.add_argument(
        "--resume", action="store_true", help="go on with an unfinished sweep, or start it"
    )
    keep.add_argument("--overwrite", action="store_true", help="replace a sweep that stands there")


def parse(
    arguments: list[str] | None,
    description: str,
    more: Callable[[flags.Parser], None] = add_output_flags,
) -> argparse.Namespace:
    """The flags; those of single layers in `layer_axes`.

    Args:
        more: adds the flags beyond what is swept and on which devices.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    matches = [LAYER_FLAG.match(word) for word in arguments]
    layer_flags = list(dict.fromkeys(match[0] for match in matches if match))
    parser = flags.parser(description, grid.SWEPT, layer_flags)
    add_flags(parser)
    more(parser)
    values, rest = parser.parse_known_args(arguments)
    for word in rest:
        if not word.startswith("-"):
            exit_status.fail(
                f"{word} is one value too many: a sweep does not vary what it follows; run a sweep "
                "for each",
                exit_status.INPUT,
            )
        parser.error(f"unrecognized arguments: {word}")
    names = [flag.removeprefix("--") for flag in layer_flags]
    values.layer_axes = {name: getattr(values, name) for name in names}
    return values


def plan(values: argparse.Namespace) -> tuple[Experiment, list[grid.Axis], list[Experiment]]:
    """The base experiment, the axes, and the settings that they span; `values.seeds` beside them.

    Raises:
        ValueError: a value breaks its rule.
    """
    words = {name: getattr(values, name) for name in grid.SWEPT if getattr(values, name)}
    values.seeds = grid.seeds(words.pop("seed", None) or ["0"])
    for name in grid.SWEPT:
        setattr(values, name, None)
    axes = [grid.axis(name, each) for name, each in {**words, **values.layer_axes}.items()]
    if values.case:
        values.input_scale = scale_of_case(values.case, axes)
    _, base = flags.experiment(values)
    for name in ("random", "runs_per_device", "data_parallel"):
        if getattr(values, name) is not None and getattr(values, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} {getattr(values, name)} must be at least 1")
    if values.sweep_seed is not None and values.random is None:
        raise ValueError("--sweep-seed is of the draws; give --random N, or leave it out")
    way = "zip" if values.zip else "random" if values.random is not None else "grid"
    settings = grid.experiments(
        base, axes, way, values.random, values.sweep_seed or 0, len(values.seeds)
    )
    return base, axes, settings


def scale_of_case(case: str, axes: list[grid.Axis]) -> float | None:
    """The input scale for which a case's settings are taken.

    Raises:
        ValueError: there are several.
    """
    scale_axes = [axis for axis in axes if axis.setting == "input_scale"]
    if not scale_axes:
        return None
    experiments = grid.experiments(Experiment(), scale_axes)
    scales = {experiment.input_scale for experiment in experiments}
    if len(scales) > 1 and question.settings(case, 2.0) != {"input_scale": 2.0}:
        raise ValueError(
            f"--case {case}: its settings depend on the input scale; give one --input-scale, or "
            "the settings themselves"
        )
    return scales.pop() if len(scales) == 1 else None
