"""Settings to paste: code for any model whose first layer makes up for scaled inputs.

The templates name optax's and PyTorch's own optimizers; the powers are rescaling.py's.
"""

import dataclasses
import json
from typing import Any, NamedTuple

from jaxmlp.experiment import FLOAT32_MAX, FLOAT32_MIN, Experiment
from jaxmlp.law.rules import rule_of
from jaxmlp.law.surd import surd

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
# What a setting is that nobody gave: not this project's own default, but that of the library that
# the code is for. PyTorch's signatures; optax's of adamw and lion, whose others decay nothing.
USUAL: dict[str, dict[str, dict[str, Any]]] = {
    "torch": {
        "sgd": {"learning_rate": 1e-3, "momentum": 0.0},
        "adamw": {"weight_decay": 1e-2},
        "amsgrad": {"learning_rate": 1e-3},
    },
    "optax": {
        "sgd": {"momentum": 0.0},
        "adamw": {"weight_decay": 1e-4},
        "lion": {"weight_decay": 1e-3},
    },
}
DIRECTIONS = {  # what optax makes of a gradient, before decay (if decoupled) and learning rate
    "sgd": "",
    "adam": "optax.scale_by_adam({beta1}, {beta2}, {eps})",
    "adamw": "optax.scale_by_adam({beta1}, {beta2}, {eps})",
    "rmsprop": "optax.scale_by_rms({alpha}, {eps}, eps_in_sqrt=False)",
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
DECAY_INSIDE = ("novograd",)  # the direction holds it
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


def usual(target: str, optimizer: str) -> dict[str, Any]:
    """The library's own defaults, where they are not an Experiment's.

    Args:
        target: torch, optax, or json, which is taken for torch's.
    """
    library = "optax" if target == "optax" else "torch"
    return {"weight_decay": 0.0, **USUAL[library].get(optimizer, {})}


def said_of(assumed: dict[str, Any]) -> str:
    """A line of the emitted code: what was not given and is assumed; empty if nothing is."""
    if not assumed:
        return ""
    values = ", ".join(f"{name} {value}" for name, value in assumed.items())
    flags = " ".join(f"--{name.replace('_', '-')}" for name in assumed)
    return f"# Not given, and so assumed: {values}.\n# Where yours differ, give: {flags}\n"


def groups(
    optimizer: str, settings: Group, scale: float, *, eps_in_root: bool = False
) -> tuple[Group, Group]:
    """The first layer's weight, whose inputs are multiplied by `scale`, and everything else.

    Raises:
        ValueError: the optimizer cannot be moved, or a number leaves float32's range.
    """
    rule = rule_of(optimizer)
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
    direction = DIRECTIONS[optimizer].format(**options, **group._asdict())
    decay = (
        "" if optimizer in DECAY_INSIDE else f"optax.add_decayed_weights({group.weight_decay!r})"
    )
    momentum, nesterov = options.get("momentum"), options.get("nesterov", False)
    trace = f"optax.trace({momentum}, nesterov={nesterov})" if momentum else ""
    directed = [direction, trace]
    links = [
        f"optax.clip_by_block_rms({group.clip!r})" if group.clip else "",
        *([*directed, decay] if rule_of(optimizer).decoupled else [decay, *directed]),
        AFTER.get(optimizer, ""),
        f"optax.scale(-{group.learning_rate!r})",
    ]
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


def json_text(optimizer: str, settings: Group, scale: float, assumed: dict[str, Any]) -> str:
    """The numbers, the powers of the input scale that they are, and which of them are assumed."""
    first, other = groups(optimizer, settings, scale)
    rule = rule_of(optimizer)
    return json.dumps(
        {
            "optimizer": optimizer,
            "input_scale": scale,
            "first_weight": first._asdict(),
            "everything_else": other._asdict(),
            "not_given": assumed,
            "powers_of_the_input_scale": {
                "init_scale": -1,
                **{
                    name: value and -value
                    for name, value in rule._asdict().items()
                    if name != "decoupled"
                },
            },
        },
        indent=2,
    )


def as_flags(experiment: Experiment) -> list[str]:
    """The flags that ask for `experiment`: what differs from the defaults, exactly."""
    default = Experiment(optimizer=experiment.optimizer)
    words = []
    for setting in dataclasses.fields(Experiment):
        value = getattr(experiment, setting.name)
        usual = "sgd" if setting.name == "optimizer" else getattr(default, setting.name)
        if value in (usual, None):
            continue
        words += as_flag(setting.name, value)
    return words


def as_flag(name: str, value: Any) -> list[str]:
    """One setting as the words of the command line."""
    word = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [word]
    return [word, *map(_word, value if isinstance(value, tuple) else (value,))]


def _word(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e6
    return str(int(value) if whole else value)
