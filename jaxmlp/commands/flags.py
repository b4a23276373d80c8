"""The command line of an Experiment: its settings as flags, over a case's, with one-line errors."""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxmlp import question
from jaxmlp.commands import invocation, output, tensorboard
from jaxmlp.commands.exit_status import INPUT, fail
from jaxmlp.experiment import Experiment, parse_number


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line, flags spelled out, and defaults in the help."""

    def __init__(self, description: str, epilog: str = "") -> None:
        output.forgive()  # every command comes by here before it prints
        super().__init__(
            prog=sys.argv[0] if invocation.package else None,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawTextHelpFormatter(
                prog, max_help_position=26, width=100
            ),
        )

    def format_help(self) -> str:
        """The help, which calls commands as this user does."""
        return invocation.in_text(super().format_help())

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; --help lists the flags", INPUT)


def parser(
    description: str, swept: tuple[str, ...] = (), layer_flags: Sequence[str] = ()
) -> Parser:
    """A parser with --case and every setting of Experiment, in sections.

    Args:
        swept: settings that take words for several values (grid.py).
        layer_flags: such as `--learning-rate.1`, that take them too.
    """
    cases = "\n".join(f"  {name:20} {change}" for name, change in question.CASES.items())
    flags = Parser(
        description,
        f"cases (s = 255, or --input-scale; any other flag overrides the case's value):\n{cases}",
    )
    flags.add_argument("--case", metavar="NAME", help="one of the question's cases, listed below")
    sections: dict[str, Any] = {}
    for setting in dataclasses.fields(Experiment):
        section = setting.metadata["section"]
        if section not in sections:
            sections[section] = flags.add_argument_group(section)
        options = _argument(setting)
        if setting.name in swept:
            options |= {
                "type": str,
                "nargs": "+",
                "metavar": "V",
                "help": options["help"] + "\n(several values)",
            }
        sections[section].add_argument(
            "--" + setting.name.replace("_", "-"), dest=setting.name, **options
        )
    for flag in layer_flags:
        flags.add_argument(flag, dest=flag.removeprefix("--"), nargs="+", metavar="V")
    return flags


def _argument(setting: dataclasses.Field) -> dict[str, Any]:
    """argparse's options for one setting; no default, so that a case's value can stand."""
    rules, text = setting.metadata, setting.metadata["help"]
    if isinstance(setting.default, bool):
        return {"action": "store_true", "default": None, "help": text}
    kind = {int: "N", float: "X", str: "NAME"}[rules["kind"]]
    default = setting.default
    if default not in (None, ()):
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += f" (default: {shown})"
    if choices := rules.get("choices"):
        text = f"{', '.join(choices)}: {text}"
    several = {"nargs": "*"} if "tuple" in str(setting.type) else {}
    if rules.get("per_layer"):
        text += "; one value, or one per layer"
    text = textwrap.fill(text, 70)
    reader = _number if rules["kind"] is float else rules["kind"]
    return {"type": reader, "metavar": kind, "help": text, **several}


def _number(word: str) -> float:
    try:
        return parse_number(word)
    except ValueError as error:
        too_small = str(error) if "too small" in str(error) else f"invalid float value: {word!r}"
        raise argparse.ArgumentTypeError(too_small) from None


def experiment(values: argparse.Namespace) -> tuple[str, Experiment]:
    """The case's name and the experiment that the parsed flags ask for.

    Raises:
        ValueError: a value breaks its rule.
    """
    names = [setting.name for setting in dataclasses.fields(Experiment)]
    given: dict[str, Any] = {
        name: getattr(values, name) for name in names if getattr(values, name) is not None
    }
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    if values.case is None:
        chosen = Experiment(**given)
        return question.name(chosen), chosen
    settings = question.settings(values.case, given.get("input_scale"))
    chosen, case = Experiment(**{**settings, **given}), Experiment(**settings)
    overridden = any(getattr(chosen, name) != getattr(case, name) for name in settings)
    if overridden or (values.case == "baseline") != (chosen.input_scale == 1):
        return question.name(chosen), chosen  # it is no longer what the case changed
    return values.case, chosen


def add_data_flags(flags: Parser) -> None:
    """Where a run's data come from."""
    data = flags.add_argument_group(
        "data",
        "CIFAR-10 is looked for in the cache (JAXMLP_CACHE; default: ~/.cache/jaxmlp), then as\n"
        "TFDS prepared it under --data-dir, then downloaded into the cache, once, from its\n"
        "official address or JAXMLP_CIFAR10_URL; what breaks goes on with the next command.",
    )
    data.add_argument(
        "--data",
        metavar="NAME|PATH",
        default="auto",
        help="auto: CIFAR-10, or else the synthetic stand-in, with a warning;\n"
        "cifar10: CIFAR-10 or an error; synthetic; or the path of a TFDS directory,\n"
        "of cifar-10-binary.tar.gz, or of an .npz with train_images, train_labels,\n"
        "test_images, test_labels (or x_train, y_train, x_test, y_test, as in\n"
        "Keras): uint8 images (n, height, width, channels), or (n, height, width)\n"
        "if grey; integer labels (n,), counted from 0 (default: auto)",
    )
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="where TFDS keeps its data (default: TFDS_DATA_DIR, or TFDS's own)",
    )


def data_words(values: argparse.Namespace) -> list[str]:
    """The words that name the same data on another command line."""
    named = [] if values.data == "auto" else ["--data", values.data]
    return [*named, *(["--data-dir", str(values.data_dir)] if values.data_dir else [])]


def add_run_flags(flags: Parser) -> None:
    """Where a run's data come from and where its record goes."""
    add_data_flags(flags)
    output = flags.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run's directory (default: runs/CASE-DATA-FRAMEWORK-HASH)",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a finished run, or another's, that stands there",
    )
    output.add_argument(
        "--json",
        action="store_true",
        help="print the record to standard output, all else to standard error",
    )
    tensorboard.add_flag(output)


def add_forecast_flag(flags: Parser) -> None:
    flags.add_argument(
        "--no-forecast",
        action="store_true",
        help="start at once: no look at the curvature, no rehearsal of the first steps",
    )


def add_data_parallel_flag(flags: Any) -> None:
    flags.add_argument(
        "--data-parallel",
        type=int,
        default=1,
        metavar="N",
        help="devices that share each batch (default: 1)",
    )


def add_distributed_flags(group: Any) -> None:
    """How several processes find each other."""
    group.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes, as TPU pods, SLURM or MPI start them",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0, where nothing else says so"
    )
    group.add_argument("--processes", type=int, metavar="N", help="with --coordinator: how many")
    group.add_argument("--process-id", type=int, metavar="I", help="and which: 0 to N - 1")


def add_checkpoint_flags(flags: Parser) -> None:
    checkpoint = flags.add_argument_group("checkpoints")
    checkpoint.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the last two epochs' state in DIR (or gs://..., s3://...) until the\n"
        "record is written; after a crash, Ctrl-C or SIGTERM (exit status 75) the\n"
        "same command goes on from there",
    )
    checkpoint.add_argument(
        "--checkpoint-every",
        metavar="N",
        type=int,
        help="epochs from one checkpoint to the next (default: 1)",
    )


def check_checkpoint_every(values: argparse.Namespace) -> None:
    """Sees whether --checkpoint-every means something.

    Raises:
        ValueError: the number is not positive, or there are no checkpoints.
    """
    if values.checkpoint_every is None:
        return
    if values.checkpoint is None:
        raise ValueError("--checkpoint-every needs --checkpoint DIR")
    if values.checkpoint_every < 1:
        raise ValueError(f"--checkpoint-every {values.checkpoint_every} must be at least 1")
