"""Settings to paste: flags of a run, or code for any model with scaled inputs.

The templates name optax's and PyTorch's own optimizers; the powers are those of rules.py.
"""

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from jaxmlp.law.groups import Group, assumed, groups, whole_model
from jaxmlp.law.rules import scaling_rule
from jaxmlp.law.transport import transport

SCRIPT = ("python", "scripts/run_jax.py")  # a command to be pasted starts so
TARGETS = ("flags", "json", "torch", "optax")
# Settings of a run that mean something for this project's network only.
OF_THE_NETWORK = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if field.metadata["section"] != "optimizer" and field.name not in ("init_scale", "input_scale")
)

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


OPTAX_PROGRAM = '''import jax
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
    lambda path, leaf: leaf * {init_scale!r} if is_first(path) else leaf, params
)
optimizer = optax.multi_transform(
    {{
{chains}
    }},
    labels,
)
'''
TORCH_PROGRAM = """import torch

FIRST = {weight}
# FIRST names the weight that multiplies the inputs, now × {scale:g}; its bias stays.
first = dict(model.named_parameters())[FIRST]
with torch.no_grad():  # once, after the initialisation
    first.mul_({init_scale!r})
others = [parameter for parameter in model.parameters() if parameter is not first]
groups = [
    {{"params": [first], {of_first}}},
    {{"params": others, {of_others}}},
]
{optimizer}
"""


def emit(
    target: str,
    input_scale: float,
    optimizer: str = "sgd",
    *,
    scheme: str = "first-layer",
    weight: str = "",
    clip: float | None = None,
    again: Sequence[str] = SCRIPT,
    **settings: Any,
) -> str:
    """Settings with which a run trains on scaled inputs as it does on unscaled ones, to paste.

    For any model (all targets but flags) the first weight alone makes up for the scale. It has to
    be a linear map that meets the scaled inputs directly; its bias stays.

    Args:
        target: flags, of this project's run; json, the numbers; torch or optax, code.
        input_scale: what the inputs will be multiplied by.
        optimizer: one of RULES, all of which can be moved.
        scheme: which layers make up for the scale; uniform is for flags.
        weight: torch, optax: name of the first weight, such as conv1.weight, or conv1/kernel.
        clip: optax, json: threshold on each tensor's own gradient (its root mean square).
        again: flags: the command's words before the settings.
        settings: of the unscaled run, by their names in an Experiment. What is not given is the
            library's own default, and told.

    Raises:
        ValueError: it does not exist; the message says why.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    if target not in TARGETS:
        raise ValueError(f"target {target!r} is not known; choose from {', '.join(TARGETS)}")
    if clip is not None and not 0 < clip < math.inf:
        raise ValueError(f"--clip {clip} must be a positive number")
    Experiment(input_scale=input_scale)  # is it one?
    scaling_rule(optimizer)  # can it be moved?
    if target == "flags" or scheme == "uniform":
        _check_flags(target, optimizer, clip, again)
        experiment = Experiment.from_json({"optimizer": optimizer, **settings})
        moved = transport(experiment, input_scale, scheme=scheme)
        return shlex.join([*again, *as_flags(moved)]) + "\n"
    _check_any_model(settings, again)
    guesses = assumed("optax" if target == "optax" else "torch", optimizer, settings)
    group, options = whole_model(optimizer, {**settings, **guesses}, clip)
    if group.init_scale != 1:
        raise _of_the_network("init_scale", again)
    if target == "json":
        return json_text(optimizer, group, input_scale, guesses) + "\n"
    code = torch_code if target == "torch" else optax_code
    return _note(guesses) + code(optimizer, group, options, input_scale, weight)


def _check_flags(target: str, optimizer: str, clip: float | None, again: Sequence[str]) -> None:
    """Sees that a run of this project is meant.

    Raises:
        ValueError: it has no such optimizer, or something is asked that it has not.
    """
    if optimizer not in OPTIMIZER_DEFAULTS:
        raise ValueError(
            f"{optimizer} is no optimizer of {_command(again)}; --emit torch, optax or json has it"
        )
    if target != "flags" or clip:
        raise ValueError("scheme uniform is for --emit flags, and --clip for optax and json")


def _check_any_model(settings: Mapping[str, Any], again: Sequence[str]) -> None:
    """Sees that the settings mean something for any model.

    Raises:
        ValueError: one does not.
    """
    names = {field.name for field in dataclasses.fields(Experiment)}
    if unknown := sorted(settings.keys() - names):
        raise ValueError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(names))}")
    for name in OF_THE_NETWORK:
        if name in settings:
            raise _of_the_network("--" + name.replace("_", "-"), again)


def _of_the_network(what: str, again: Sequence[str]) -> ValueError:
    return ValueError(f"{what} belongs to {_command(again)}'s network; leave it out, or emit flags")


def _command(again: Sequence[str]) -> str:
    """What a command is called, such as run_jax.py, or jaxmlp run."""
    return again[-1].rpartition("/")[2] if again[0] == "python" else " ".join(again)


def _note(guesses: Mapping[str, Any]) -> str:
    """The code's first lines: what was not given and is assumed; empty if nothing is."""
    if not guesses:
        return ""
    values = ", ".join(f"{name} {value}" for name, value in guesses.items())
    flags = " ".join(f"--{name.replace('_', '-')}" for name in guesses)
    return f"# Not given, and so assumed: {values}.\n# Where yours differ, give: {flags}\n"


def optax_code(
    optimizer: str, settings: Group, options: dict[str, Any], scale: float, weight: str
) -> str:
    """A program that scales the first weight and makes `optimizer`.

    Raises:
        ValueError: optax has no such optimizer for groups, or no such option.
    """
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
    return OPTAX_PROGRAM.format(
        weight=weight or "path/of/the/first/weight",
        scale=scale,
        init_scale=first.init_scale,
        chains=chains,
    )


def _chain(optimizer: str, group: Group, options: dict[str, Any]) -> str:
    """The links of one group's chain, a line each."""
    direction = DIRECTIONS[optimizer].format(**options, **group._asdict())
    decay = (
        "" if optimizer in DECAY_INSIDE else f"optax.add_decayed_weights({group.weight_decay!r})"
    )
    momentum, nesterov = options.get("momentum"), options.get("nesterov", False)
    trace = f"optax.trace({momentum}, nesterov={nesterov})" if momentum else ""
    directed = [direction, trace]
    links = [
        f"optax.clip_by_block_rms({group.clip!r})" if group.clip else "",
        *([*directed, decay] if scaling_rule(optimizer).decoupled else [decay, *directed]),
        AFTER.get(optimizer, ""),
        f"optax.scale(-{group.learning_rate!r})",
    ]
    return "\n".join(f"            {link}," for link in links if link)


def torch_code(
    optimizer: str, settings: Group, options: dict[str, Any], scale: float, weight: str
) -> str:
    """A program that scales the first weight and makes `groups` and `optimizer`.

    Raises:
        ValueError: gradients are to be clipped.
    """
    if settings.clip:
        raise ValueError(
            "PyTorch's clip_grad_norm_ adds 1e-6 to the norm and so cannot be moved exactly; "
            "leave --clip out, or emit optax"
        )
    first, other = groups(optimizer, settings, scale)
    made = TORCH.get(optimizer, "").format(**options)
    return TORCH_PROGRAM.format(
        weight=repr(weight) if weight else "next(iter(dict(model.named_parameters())))  # check it",
        scale=scale,
        init_scale=first.init_scale,
        of_first=_torch_group(first),
        of_others=_torch_group(other),
        optimizer=f"optimizer = {made}" if made else f"# Give `groups` to your {optimizer}.",
    )


def _torch_group(group: Group) -> str:
    entries = {"lr": group.learning_rate, "weight_decay": group.weight_decay}
    if group.eps is not None:
        entries["eps"] = group.eps
    return ", ".join(f'"{name}": {value!r}' for name, value in entries.items())


def json_text(optimizer: str, settings: Group, scale: float, guesses: dict[str, Any]) -> str:
    """The numbers, the powers of the input scale that they are, and which of them are assumed."""
    first, other = groups(optimizer, settings, scale)
    of_factor = scaling_rule(optimizer)._asdict()  # which is 1 / scale
    of_factor.pop("decoupled")
    of_scale = {name: power and -power for name, power in of_factor.items()}
    return json.dumps(
        {
            "optimizer": optimizer,
            "input_scale": scale,
            "first_weight": first._asdict(),
            "everything_else": other._asdict(),
            "not_given": guesses,
            "powers_of_the_input_scale": {"init_scale": -1, **of_scale},
        },
        indent=2,
    )


def as_flags(experiment: Experiment) -> list[str]:
    """The flags that ask for `experiment`: what differs from the defaults, exactly."""
    defaults = Experiment(optimizer=experiment.optimizer).to_json()
    defaults["optimizer"] = Experiment().optimizer
    words = []
    for name, value in experiment.to_json().items():
        if value is not None and value != defaults[name]:
            words += as_flag(name, value)
    return words


def as_flag(name: str, value: Any) -> list[str]:
    """One setting as the words of the command line."""
    word = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [word]
    return [word, *map(_word, value if isinstance(value, list | tuple) else (value,))]


def _word(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e6
    return str(int(value) if whole else value)
