"""Prints the settings that make a run with scaled inputs train as the unscaled one does.

The flags describe the run as it is with unscaled inputs; --input-scale is what the inputs will be
multiplied by. `--emit optax` and `--emit torch` print code for any model of yours (a CNN, a
transformer): its first layer alone makes up for the scale. It has to be a linear map (a dense
layer, a convolution, a patch embedding) that meets the scaled inputs directly; its bias stays.
"""

import argparse
import json
import math
import sys
from typing import Any, NamedTuple

from jaxmlp import flags, rescaling
from jaxmlp.experiment import (
    FLOAT32_MAX,
    FLOAT32_MIN,
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_OPTIONS,
    PER_TENSOR,
    Experiment,
)
from jaxmlp.surd import surd

IGNORED = ("hidden", "bias", "preprocessing", "train_size", "bias_init_scale", "bias_learning_rate",
           "bias_weight_decay", "bias_eps", "schedule", "warmup_epochs", "milestones", "gamma",
           "batch_size", "epochs", "seed", "precision")  # fmt: skip
EMIT = ("flags", "json", "torch", "optax")
OPTIONS: dict[str, dict[str, Any]] = {  # of optimizers that an Experiment has not: usual defaults
    "amsgrad": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adabelief": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-16},
    "yogi": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-3},
    "signsgd": {},
    "lars": {"momentum": 0.9, "eps": 1e-9},
    "lamb": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-6},
    "muon": {"beta1": 0.95, "eps": 1e-8},
    "novograd": {"beta1": 0.9, "beta2": 0.25, "eps": 1e-6},
}
DIRECTIONS = {  # what optax makes of a gradient, before decay (if decoupled) and learning rate
    "sgd": "optax.trace({momentum}, nesterov={nesterov})",
    "adam": "optax.scale_by_adam({beta1}, {beta2}, {eps})",
    "adamw": "optax.scale_by_adam({beta1}, {beta2}, {eps})",
    "rmsprop": "optax.scale_by_rms({alpha}, {eps}, eps_in_sqrt=False), optax.trace({momentum})",
    "adagrad": "optax.scale_by_rss(0.0, {eps})",
    "lion": "optax.scale_by_lion({beta1}, {beta2})",
    "amsgrad": "optax.scale_by_amsgrad({beta1}, {beta2}, {eps})",
    "adabelief": "optax.scale_by_belief({beta1}, {beta2}, {eps}, eps_root=0.0)",
    "yogi": "optax.scale_by_yogi({beta1}, {beta2}, {eps}, initial_accumulator_value=0.0)",
    "signsgd": "optax.scale_by_sign()",
    "lars": "optax.scale_by_trust_ratio(eps={eps})",
    "lamb": "optax.scale_by_adam({beta1}, {beta2}, {eps})",
    "novograd": "optax.scale_by_novograd({beta1}, {beta2}, {eps}, weight_decay={weight_decay})",
}
AFTER = {"lamb": "optax.scale_by_trust_ratio()"}  # between decoupled decay and learning rate
LAST = {"lars": "optax.trace({momentum})"}
EPS_IN_ROOT = ("adagrad",)  # in optax, where eps adds to a squared gradient: it moves twice as far
TORCH = {
    "sgd": "torch.optim.SGD(groups, momentum={momentum}, dampening={dampening}, "
    "nesterov={nesterov})",
    "adam": "torch.optim.Adam(groups, betas=({beta1}, {beta2}))",
    "amsgrad": "torch.optim.Adam(groups, betas=({beta1}, {beta2}), amsgrad=True)",
    "adamw": "torch.optim.AdamW(groups, betas=({beta1}, {beta2}))",
    "rmsprop": "torch.optim.RMSprop(groups, alpha={alpha}, momentum={momentum})",
    "adagrad": "torch.optim.Adagrad(groups)",
}


class Group(NamedTuple):
    """The settings of some of a model's tensors."""

    init_scale: float  # what to multiply the initial values by
    learning_rate: float
    weight_decay: float
    eps: float | None
    clip: float | None


def groups(
    optimizer: str, settings: Group, scale: float, *, eps_in_root: bool = False
) -> tuple[Group, Group]:
    """The first layer's weight, whose inputs are multiplied by `scale`, and everything else.

    Raises:
        ValueError: the optimizer cannot be moved, or a number leaves float32's range.
    """
    rule = rescaling.rule(optimizer)
    factor = surd(scale) ** -1

    def moved(value: float | None, exponent: int) -> float | None:
        return value and float(factor**exponent * value)

    first = Group(
        float(factor),
        moved(settings.learning_rate, rule.learning_rate) or 0.0,
        moved(settings.weight_decay, rule.weight_decay) or 0.0,
        moved(settings.eps, (1 + eps_in_root) * (rule.eps or 0)),
        moved(settings.clip, rule.clip),
    )
    for name, value in first._asdict().items():
        if value is not None and value != 0 and not FLOAT32_MIN <= abs(value) <= FLOAT32_MAX:
            raise ValueError(f"{name} would be {value:.3g}, which float32 cannot hold")
    return first, settings


def optax_code(optimizer: str, settings: Group, options: dict[str, Any], scale: float, name: str):
    """A program that scales the first weight and makes `optimizer`."""
    if optimizer not in DIRECTIONS:
        raise ValueError(
            f"optax's {optimizer} sorts the tensors itself and takes no group of them; emit json"
        )
    if options.get("dampening"):
        raise ValueError("optax has no dampening; leave it out, or emit torch")
    first, other = groups(optimizer, settings, scale, eps_in_root=optimizer in EPS_IN_ROOT)
    chains = "\n".join(
        f'        "{label}": optax.chain(\n{_chain(optimizer, group, options)}\n        ),'
        for label, group in (("first", first), ("other", other))
    )
    weight = name or "path/of/the/first/weight"
    return f'''import jax
import optax

FIRST = {weight!r}  # of the weight that meets the inputs, now × {scale:g}


def is_first(path):
    return jax.tree_util.keystr(path, simple=True, separator="/") == FIRST


def labels(params):
    """Of each tensor: which settings it gets."""
    found = jax.tree_util.tree_map_with_path(
        lambda path, _: "first" if is_first(path) else "other", params
    )
    assert jax.tree.leaves(found).count("first") == 1, f"{{FIRST}} is no tensor of the parameters"
    return found


# once, after the initialisation:
params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * {first.init_scale!r} if is_first(path) else leaf, params
)
optimizer = optax.multi_transform(
    {{
{chains}
    }},
    labels,
)
'''


def _chain(optimizer: str, group: Group, options: dict[str, Any]) -> str:
    known = {**options, **group._asdict()}
    decay = f"optax.add_decayed_weights({group.weight_decay!r})"
    direction = DIRECTIONS[optimizer].format(**known)
    if not options.get("momentum"):
        direction = direction.removesuffix(f", optax.trace({options.get('momentum')})")
    if optimizer == "sgd" and not options["momentum"]:
        direction = ""
    clip = f"optax.clip_by_block_rms({group.clip!r})" if group.clip else ""
    coupled = not rescaling.rule(optimizer).decoupled
    links = [clip, *([decay, direction] if coupled else [direction, decay])]
    if optimizer == "novograd":
        links.remove(decay)  # its direction holds it
    links += [AFTER.get(optimizer, ""), f"optax.scale(-{group.learning_rate!r})",
              LAST.get(optimizer, "").format(**known)]  # fmt: skip
    return "\n".join(f"            {link}," for link in links if link)


def torch_code(optimizer: str, settings: Group, options: dict[str, Any], scale: float, name: str):
    """A program that scales the first weight and makes `groups` and `optimizer`."""
    if settings.clip:
        raise ValueError(
            "PyTorch's clip_grad_norm_ adds 1e-6 to the norm and so cannot be moved exactly; "
            "leave --clip out, or emit optax"
        )
    first, other = groups(optimizer, settings, scale)
    rows = [_torch_group(group) for group in (first, other)]
    chosen = repr(name) if name else "next(iter(dict(model.named_parameters())))  # check it"
    made = TORCH.get(optimizer, "").format(**options)
    last = f"optimizer = {made}" if made else f"# Give `groups` to your {optimizer}."
    return f"""import torch

FIRST = {chosen}
# FIRST names the weight that multiplies the inputs, now × {scale:g}; its bias stays.
first = dict(model.named_parameters())[FIRST]
with torch.no_grad():  # once, after the initialisation
    first.mul_({first.init_scale!r})
others = [parameter for parameter in model.parameters() if parameter is not first]
groups = [
    {{"params": [first], {rows[0]}}},
    {{"params": others, {rows[1]}}},
]
{last}
"""


def _torch_group(group: Group) -> str:
    entries = {"lr": group.learning_rate, "weight_decay": group.weight_decay}
    if group.eps is not None:
        entries["eps"] = group.eps
    return ", ".join(f'"{name}": {value!r}' for name, value in entries.items())


def json_text(optimizer: str, settings: Group, scale: float) -> str:
    first, other = groups(optimizer, settings, scale)
    rule = rescaling.rule(optimizer)
    return json.dumps(
        {"optimizer": optimizer, "input_scale": scale, "first_weight": first._asdict(),
         "everything_else": other._asdict(), "powers_of_the_input_scale": {
             "init_scale": -1, **{name: value and -value for name, value in rule._asdict().items()
                                  if name != "decoupled"}}}, indent=2)  # fmt: skip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__ or "")
    own = parser.add_argument_group("transport")
    own.add_argument(
        "--emit", choices=EMIT, default="flags", help="(default: flags, of run_jax.py)"
    )
    own.add_argument("--scheme", choices=rescaling.SCHEMES, default="first-layer",
                     help="which layers make up for the scale; uniform is for this project's "
                     "network (--emit flags)\n(default: first-layer)")  # fmt: skip
    own.add_argument("--weight", metavar="NAME", default="", help="torch, optax: name of the first "
                     "layer's weight, such as conv1.weight, or conv1/kernel")  # fmt: skip
    own.add_argument("--clip", type=float, metavar="X",
                     help="optax, json: threshold on each tensor's own gradient (its root mean "
                     "square).\nClipping by the global norm mixes layers and cannot be "
                     "moved")  # fmt: skip
    parser.epilog = f"further optimizers, for torch, optax and json: {', '.join(OPTIONS)}"
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
    rescaling.rule(optimizer)
    if values.emit == "flags" or values.scheme == "uniform":
        if optimizer not in OPTIMIZER_DEFAULTS:
            raise ValueError(
                f"{optimizer} is no optimizer of run_jax.py; --emit torch, optax or json has it"
            )
        if values.emit != "flags" or values.clip:
            raise ValueError("scheme uniform is for --emit flags, and --clip for optax and json")
        _, experiment = flags.experiment(values)
        moved = rescaling.transport(experiment, scale, scheme=values.scheme)
        return " ".join(["python scripts/run_jax.py", *flags.as_flags(moved)]) + "\n"
    unused = [name for name in IGNORED if getattr(values, name) is not None]
    if unused:
        word = unused[0].replace("_", "-")
        raise ValueError(f"--{word} belongs to run_jax.py's network; leave it out, or emit flags")
    settings, options = asked(values, optimizer)
    if values.emit == "json":
        return json_text(optimizer, settings, scale) + "\n"
    code = torch_code if values.emit == "torch" else optax_code
    return code(optimizer, settings, options, scale, values.weight)


def asked(values: argparse.Namespace, optimizer: str) -> tuple[Group, dict[str, Any]]:
    """The unscaled run's settings, one value for the whole model, and the optimizer's options."""
    if optimizer in OPTIMIZER_DEFAULTS:
        _, experiment = flags.experiment(values)
        numbers = {name: getattr(experiment, name) for name in PER_TENSOR}
        options = {name: getattr(experiment, name) for name in
                   ("momentum", "dampening", "nesterov", "beta1", "beta2", "alpha")}  # fmt: skip
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
        }
        if not values.learning_rate:
            raise ValueError(f"--learning-rate is missing; {optimizer} has no usual one")
        eps = values.eps or ((options["eps"],) if "eps" in options else None)
        numbers = {"learning_rate": values.learning_rate, "eps": eps,
                   "weight_decay": values.weight_decay or (0.0,), "init_scale": (1.0,)}  # fmt: skip
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
    try:
        text = answer(values)
    except (ValueError, OverflowError) as error:
        flags.fail(error, flags.INPUT)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(main())
