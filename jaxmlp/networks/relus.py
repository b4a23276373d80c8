"""Which units are off: every ReLU of a function that JAX can trace, found in its jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, Float

# Equations that only wrap a part of the function, and their parameter which holds that part.
WRAPPERS = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def with_relus(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Array]]:
    """The function's outputs, and those of its ReLUs in the order in which they run.

    Seen are jax.nn's and max(x, 0), outside of loops. Not max(0, x), in which order normalisations
    keep their variance from being negative. Not to be differentiated: derivatives of its own that a
    part of the function has (a ReLU's at 0) are lost.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    relus: list[Array] = []
    outputs = _evaluate(closed, jax.tree.leaves(arguments), relus)
    return jax.tree.unflatten(jax.tree.structure(shape), outputs), relus


def dead_units(function: Callable[..., Any], *arguments: Any) -> dict[str, Float[Array, ""]]:
    """By ReLU (relu1, relu2, ..., as they run): the share of units that are off in all examples.

    A unit is a place of the last axis.
    """
    _, relus = with_relus(function, *arguments)
    return {f"relu{place + 1}": _dead_share(each) for place, each in enumerate(relus)}


def _evaluate(closed: Any, arguments: Sequence[Any], relus: list[Array]) -> list[Any]:
    """The outputs of a jaxpr, equation by equation; what its ReLUs make is added to `relus`."""
    jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if inner := WRAPPERS.get(equation.primitive.name):
            results = _evaluate(equation.params[inner], operands, relus)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        if _is_relu(equation):
            relus.append(results[0])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_relu(equation: Any) -> bool:
    if equation.primitive.name != "max":
        return False
    second: Any = equation.invars[1]
    return isinstance(second, Literal) and not np.any(second.val)


def _dead_share(activations: Array) -> Float[Array, ""]:
    units = (activations > 0).reshape(-1, activations.shape[-1]).any(axis=0)
    return jnp.mean((~units).astype(jnp.float32))
