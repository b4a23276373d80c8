"""Code for any model: what optax and PyTorch call things, and programs to fill in.

The templates name optax's and PyTorch's own optimizers; the powers are those of rules.py.
"""

from typing import Any

from jaxmlp.law.groups import Group, groups
from jaxmlp.law.rules import scaling_rule

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
        f'        "{label}": optax.chain(\n{chain_code(optimizer, group, options)}\n        ),'
        for label, group in (("first", first), ("other", other))
    )
    return OPTAX_PROGRAM.format(
        weight=weight or "path/of/the/first/weight",
        scale=scale,
        init_scale=first.init_scale,
        chains=chains,
    )


def chain_code(optimizer: str, group: Group, options: dict[str, Any]) -> str:
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
