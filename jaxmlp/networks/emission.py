"""A network's moved settings, to paste: torch's parameter groups, optax' chains, or numbers."""

import json
from collections.abc import Mapping
from typing import Any

from jaxmlp.law.groups import Group
from jaxmlp.law.templates import DIRECTIONS, EPS_IN_ROOT, TORCH, chain_code
from jaxmlp.networks.protocol import INPUT, Network
from jaxmlp.networks.run import Change

TORCH_CODE = """import torch

# For inputs × {scale:g}. Of each tensor: factor on its initial values, and its settings.
FACTORS = {{
{factors}}}
SETTINGS = {{
{settings}}}

tensors = dict(model.named_parameters()) | dict(model.named_buffers())
with torch.no_grad():  # once, after the initialisation
    for name, factor in FACTORS.items():
        if name.endswith(".eps") and name not in tensors:
            model.get_submodule(name.removesuffix(".eps")).eps *= factor
        else:
            tensors[name].mul_(factor)
groups = [{{"params": [tensors[name]], **settings}} for name, settings in SETTINGS.items()]
{optimizer}
"""
OPTAX_CODE = """import jax
import optax
from flax import nnx

# For inputs × {scale:g}. Of each tensor: factor on its initial values, and its own chain.
FACTORS = {{
{factors}}}
CHAINS = {{
{chains}}}


def name_of(path):
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def scaled(path, leaf):
    return leaf * FACTORS[name_of(path)] if name_of(path) in FACTORS else leaf


# once, after the initialisation:
nnx.update(model, jax.tree_util.tree_map_with_path(scaled, nnx.state(model)))
for name in FACTORS:  # the eps of normalisations
    if name.endswith(".eps"):
        norm = model
        for part in name.split(".")[:-1]:
            norm = norm[int(part)] if part.isdigit() else getattr(norm, part)
        norm.epsilon *= FACTORS[name]
optimizer = optax.multi_transform(
    CHAINS, lambda params: jax.tree_util.tree_map_with_path(lambda path, _: name_of(path), params)
)
"""


def as_json(network: Network, change: Change) -> str:
    """All numbers."""
    numbers = {
        "input_scale": change.scale,
        "optimizer": network.optimizer,
        "factors": _factors(change),
        "exponents": {name: str(e) for name, e in change.exponents.items() if name != INPUT},
        "settings": change.settings,
    }
    return json.dumps(numbers, indent=2) + "\n"


def as_torch(network: Network, change: Change) -> str:
    """A program that scales a module's tensors and makes parameter groups and optimizer."""
    names = {"learning_rate": "lr", "weight_decay": "weight_decay", "eps": "eps"}
    settings = "".join(
        f"    {tensor!r}: { ({names[key]: value for key, value in of_tensor.items()})!r},\n"
        for tensor, of_tensor in change.settings.items()
    )
    call = TORCH.get(network.optimizer, "").format(**_options(network))
    return TORCH_CODE.format(
        scale=change.scale,
        factors=_lines(_factors(change)),
        settings=settings,
        optimizer=f"optimizer = {call}" if call else f"# Give groups to your {network.optimizer}.",
    )


def as_optax(network: Network, change: Change) -> str:
    """A program that scales a Flax module's tensors and makes a chain for each.

    Raises:
        ValueError: optax has no such optimizer.
    """
    if network.optimizer not in DIRECTIONS or network.optimizer in EPS_IN_ROOT:
        raise ValueError(
            f"optax has no {network.optimizer} like the run's; take apply(), or emit json"
        )
    chains = "".join(
        f"    {tensor!r}: optax.chain(\n"
        f"{chain_code(network.optimizer, _group(of_tensor), _options(network))}\n    ),\n"
        for tensor, of_tensor in change.settings.items()
    )
    return OPTAX_CODE.format(scale=change.scale, factors=_lines(_factors(change)), chains=chains)


def _factors(change: Change) -> dict[str, float]:
    return {name: factor for name, factor in change.factors.items() if name != INPUT}


def _lines(values: Mapping[str, float]) -> str:
    return "".join(f"    {name!r}: {value!r},\n" for name, value in values.items())


def _group(settings: Mapping[str, float]) -> Group:
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    return Group(1.0, rate, decay, settings.get("eps"), None)


def _options(network: Network) -> dict[str, Any]:
    """Those of the optimizer, and torch's defaults where it does not say."""
    defaults = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "alpha": 0.99}
    return {**defaults, **network.options}
