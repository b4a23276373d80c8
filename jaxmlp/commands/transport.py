"""Prints the settings that make a run with scaled inputs train as the unscaled one does.

The flags describe the run as it is with unscaled inputs; --input-scale is what the inputs will be
multiplied by. `--emit optax` and `--emit torch` print code for any model of yours (a CNN, a
transformer): its first layer alone makes up for the scale. It has to be a linear map (a dense
layer, a convolution, a patch embedding) that meets the scaled inputs directly; its bias stays.

For your own network, in torch or Flax: --model FILE:FUNCTION (with it --help lists its flags).
"""

import argparse
import dataclasses

from jaxmlp.commands import exit_status, flags, invocation, user_network
from jaxmlp.experiment import Experiment
from jaxmlp.law import emission
from jaxmlp.law.groups import OPTIONS
from jaxmlp.law.transport import SCHEMES


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__ or "")
    group = parser.add_argument_group("transport")
    group.add_argument(
        "--emit", choices=emission.TARGETS, default="flags", help="(default: flags, of run_jax.py)"
    )
    group.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="first-layer",
        help="which layers make up for the scale; uniform is for this\n"
        "project's network (--emit flags) (default: first-layer)",
    )
    group.add_argument(
        "--weight",
        metavar="NAME",
        default="",
        help="torch, optax: name of the first "
        "layer's weight, such as\nconv1.weight, or conv1/kernel",
    )
    group.add_argument(
        "--clip",
        type=float,
        metavar="X",
        help="optax, json: threshold on each tensor's own gradient (its root\nmean "
        "square). Clipping by the global norm mixes layers and cannot be "
        "moved",
    )
    parser.epilog = f"further optimizers, for torch, optax and json:\n{', '.join(OPTIONS)}"
    return parser.parse_args(arguments)


def answer(values: argparse.Namespace) -> str:
    """What is asked for.

    Raises:
        ValueError: it does not exist; the message says why.
    """
    if values.input_scale is None:
        raise ValueError("--input-scale is missing; give what the inputs will be multiplied by")
    if values.case:
        raise ValueError("--case asks for a run with scaled inputs; describe the unscaled one")
    settings = {field.name: getattr(values, field.name) for field in dataclasses.fields(Experiment)}
    return emission.emit(
        values.emit,
        settings.pop("input_scale"),
        settings.pop("optimizer") or Experiment().optimizer,
        scheme=values.scheme,
        weight=values.weight,
        clip=values.clip,
        again=invocation.words("run"),
        **settings,
    )


def main(arguments: list[str] | None = None) -> None:
    if user_network.asked(arguments):
        user_network.transport(arguments)
        return
    values = parse(arguments)
    with exit_status.one_line_errors("nothing was printed", for_good=arguments is None):
        print(answer(values), end="")
