"""Which units are off: every ReLU of a function that JAX can trace."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float

RELUS = ("relu", "relu6")


def dead_units(function: Callable[..., Any], *arguments: Any) -> dict[str, Float[Array, ""]]:
    """By ReLU (relu1, relu2, ..., as they run): the share of units that are off in all examples.

    A unit is a place of the last axis. Seen are jax.nn's, outside of loops and compiled parts.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    outputs = [each.outvars[0] for each in closed.jaxpr.eqns if _is_relu(each)]
    program = closed.jaxpr.replace(outvars=outputs, debug_info=None)
    activations = jaxpr_as_fun(closed.replace(jaxpr=program))(*jax.tree.leaves(arguments))
    return {f"relu{place + 1}": _dead_share(each) for place, each in enumerate(activations)}


def _is_relu(equation: Any) -> bool:
    """Whether it is one of jax.nn's: a function with its own derivative around a compiled one."""
    inner = equation.params.get("call_jaxpr")
    return inner is not None and any(each.params.get("name") in RELUS for each in inner.eqns)


def _dead_share(activations: Array) -> Float[Array, ""]:
    units = (activations > 0).reshape(-1, activations.shape[-1]).any(axis=0)
    return jnp.mean((~units).astype(jnp.float32))
