"""Prints the settings that make a run with scaled inputs train as the unscaled one does.

The flags describe the run as it is with unscaled inputs; --input-scale is what the inputs will be
multiplied by. `--emit optax` and `--emit torch` print code for any model of yours (a CNN, a
transformer): its first layer alone makes up for the scale. It has to be a linear map (a dense
layer, a convolution, a patch embedding) that meets the scaled inputs directly; its bias stays.
"""

import argparse
import math
import sys
from typing import Any

from jaxmlp.commands import exit_status, flags
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, OPTIMIZER_OPTIONS, PER_TENSOR, Experiment
from jaxmlp.law import emission
from jaxmlp.law.emission import OPTIONS, Group
from jaxmlp.law.rules import rule_of
from jaxmlp.law.transport import SCHEMES, transport

IGNORED = (
    "hidden",
    "bias",
    "preprocessing",
    "train_size",
    "bias_init_scale",
    "bias_learning_rate",
    "bias_weight_decay",
    "bias_eps",
    "schedule",
    "warmup_epochs",
    "milestones",
    "gamma",
    "batch_size",
    "epochs",
    "seed",
    "precision",
)
MOMENTA = tuple(name for name in OPTIMIZER_OPTIONS if name != "eps")  # the same in every group
EMIT = ("flags", "json", "torch", "optax")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__ or "")
    own = parser.add_argument_group("transport")
    own.add_argument(
        "--emit", choices=EMIT, default="flags", help="(default: flags, of run_jax.py)"
    )
    own.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="first-layer",
        help="which layers make up for the scale; uniform is for this\n"
        "project's network (--emit flags) (default: first-layer)",
    )
    own.add_argument(
        "--weight",
        metavar="NAME",
        default="",
        help="torch, optax: name of the first "
        "layer's weight, such as\nconv1.weight, or conv1/kernel",
    )
    own.add_argument(
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
    if values.clip is not None and not 0 < values.clip < math.inf:
        raise ValueError(f"--clip {values.clip} must be a positive number")
    Experiment(input_scale=values.input_scale)
    scale, values.input_scale = values.input_scale, None
    optimizer = values.optimizer or "sgd"
    rule_of(optimizer)
    if values.emit == "flags" or values.scheme == "uniform":
        if optimizer not in OPTIMIZER_DEFAULTS:
            raise ValueError(
                f"{optimizer} is no optimizer of run_jax.py; --emit torch, optax or json has it"
            )
        if values.emit != "flags" or values.clip:
            raise ValueError("scheme uniform is for --emit flags, and --clip for optax and json")
        _, experiment = flags.experiment(values)
        moved = transport(experiment, scale, scheme=values.scheme)
        return " ".join(["python scripts/run_jax.py", *emission.as_flags(moved)]) + "\n"
    unused = [name for name in IGNORED if getattr(values, name) is not None]
    if unused:
        word = unused[0].replace("_", "-")
        raise ValueError(f"--{word} belongs to run_jax.py's network; leave it out, or emit flags")
    assumed = assume(values, optimizer)
    settings, options = asked(values, optimizer)
    if values.emit == "json":
        return emission.json_text(optimizer, settings, scale, assumed) + "\n"
    code = emission.torch_code if values.emit == "torch" else emission.optax_code
    said = emission.said_of(assumed)
    return said + code(optimizer, settings, options, scale, values.weight)


def assume(values: argparse.Namespace, optimizer: str) -> dict[str, Any]:
    """Gives `values` what was not said, as the library has it; returns these settings by name."""
    known = {**OPTIMIZER_DEFAULTS, **OPTIONS}[optimizer]
    defaults = {"weight_decay": 0.0, **known, **emission.usual(values.emit, optimizer)}
    assumed = {}
    for name, default in defaults.items():
        if getattr(values, name) is None:
            several = isinstance(default, tuple) or name in PER_TENSOR
            first = default[0] if isinstance(default, tuple) else default
            setattr(values, name, (first,) if several else first)
            assumed[name] = first
    return assumed


def asked(values: argparse.Namespace, optimizer: str) -> tuple[Group, dict[str, Any]]:
    """The unscaled run's settings, one value for the whole model, and the optimizer's options."""
    if optimizer in OPTIMIZER_DEFAULTS:
        _, experiment = flags.experiment(values)
        numbers = {name: getattr(experiment, name) for name in PER_TENSOR}
        options = {name: getattr(experiment, name) for name in (*MOMENTA, "nesterov")}
    else:
        known = OPTIONS[optimizer]
        for name in (*OPTIMIZER_OPTIONS, "nesterov"):
            if name not in known and getattr(values, name) is not None:
                raise ValueError(f"--{name} does not apply to {optimizer}; leave it out")
        given: dict[str, Any] = {
            name: getattr(values, name)
            for name in ("beta1", "beta2", "eps", "learning_rate", "weight_decay")
            if getattr(values, name) is not None
        }
        Experiment(optimizer="adam", **given)  # checks the numbers
        options = {
            name: default if getattr(values, name) is None else getattr(values, name)
            for name, default in known.items()
            if name != "eps"
        }
        if not values.learning_rate:
            raise ValueError(f"--learning-rate is missing; {optimizer} has no usual one")
        eps = values.eps or ((known["eps"],) if "eps" in known else None)
        numbers = {
            "learning_rate": values.learning_rate,
            "eps": eps,
            "weight_decay": values.weight_decay or (0.0,),
            "init_scale": (1.0,),
        }
    for name, several in numbers.items():
        if several is not None and len(several) != 1:
            raise ValueError(f"{name} has {len(several)} values; give one, as for any model")
    if numbers["init_scale"][0] != 1:
        raise ValueError("init_scale belongs to run_jax.py's network; leave it out, or emit flags")
    eps = numbers["eps"]
    rate, decay = numbers["learning_rate"][0], numbers["weight_decay"][0]
    return Group(1.0, rate, decay, eps[0] if eps else None, values.clip), options


def main(arguments: list[str] | None = None) -> None:
    values = parse(arguments)
    with exit_status.one_line_errors("nothing was printed"):
        try:
            text = answer(values)
        except OverflowError as error:
            raise ValueError(str(error)) from None
        print(text, end="")


if __name__ == "__main__":
    sys.exit(main())
