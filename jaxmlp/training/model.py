"""The Flax NNX MLP, and its parameters as plain arrays."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

Params = list[dict[str, Any]]  # a layer each: kernel (fan_in, fan_out), with bias also (fan_out,)
Apply = Callable[
    [Params, Float[Array, "batch features"]],
    tuple[Float[Array, "batch classes"], list[Float[Array, "batch width"]]],
]


class MLP(nnx.Module):
    """Linear layers with ReLUs between them."""

    def __init__(self, widths: tuple[int, ...], use_bias: bool, dtype, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List(
            nnx.Linear(
                fan_in, fan_out, use_bias=use_bias, dtype=dtype, param_dtype=dtype, rngs=rngs
            )
            for fan_in, fan_out in itertools.pairwise(widths)
        )

    def __call__(
        self, inputs: Float[Array, "batch features"]
    ) -> tuple[Float[Array, "batch classes"], list[Float[Array, "batch width"]]]:
        """The logits, and the activations of each hidden layer."""
        activations, hidden = inputs, []
        for layer in list(self.layers)[:-1]:
            activations = nnx.relu(layer(activations))  # gradient 0 at 0, as in torch
            hidden.append(activations)
        return self.layers[-1](activations), hidden


def mlp(widths: tuple[int, ...], use_bias: bool, dtype) -> Apply:
    """The MLP as a pure function of its parameters and a batch.

    Args:
        widths: of the input, every hidden layer, and the output.
    """
    abstract = nnx.eval_shape(lambda: MLP(widths, use_bias, dtype, nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    shapes, _ = jax.tree.flatten(to_params(nnx.to_pure_dict(state)))

    def apply(params: Params, inputs: Float[Array, "batch features"]):
        given = [leaf.shape for leaf in jax.tree.leaves(params)]
        if given != [leaf.shape for leaf in shapes]:
            raise ValueError(f"parameters of shapes {given} do not fit widths {widths}")
        pure = {"layers": dict(enumerate(params))}
        filled = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(pure))
        return nnx.merge(graphdef, filled)(inputs)

    return apply


def to_params(pure: dict) -> Params:
    """The plain list of layers out of `nnx.to_pure_dict`."""
    return [dict(pure["layers"][i]) for i in range(len(pure["layers"]))]
