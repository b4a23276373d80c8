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


@jax.custom_vjp
def product(
    inputs: Float[Array, "batch fan_in"], kernel: Float[Array, "fan_in fan_out"]
) -> Float[Array, "batch fan_out"]:
    """inputs · kernel, with a gradient that is quick on a CPU.

    XLA makes the kernel's gradient, inputsᵀ · g, of both as they lie; with the small gᵀ laid out
    before, the large product takes 0.8 times as long (AMD Zen 4; docs/speed.md).
    """
    return inputs @ kernel


def _forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(inputs, kernel), (inputs, kernel)


def _backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    return grad @ kernel.T, (jax.lax.optimization_barrier(grad.T) @ inputs).T


product.defvjp(_forward, _backward)


def quick(inputs: Array, kernel: Array, *dimensions: Any, **options: Any) -> Array:
    """The product as nnx.Linear calls it. It has no second derivative."""
    return product(inputs, kernel)


class MLP(nnx.Module):
    """Linear layers with ReLUs between them."""

    def __init__(
        self,
        widths: tuple[int, ...],
        use_bias: bool,
        dtype,
        rngs: nnx.Rngs,
        dot_general: Callable[..., Array] = jax.lax.dot_general,
    ) -> None:
        self.layers = nnx.List(
            nnx.Linear(
                fan_in,
                fan_out,
                use_bias=use_bias,
                dtype=dtype,
                param_dtype=dtype,
                dot_general=dot_general,
                rngs=rngs,
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


def mlp(
    widths: tuple[int, ...],
    use_bias: bool,
    dtype,
    dot_general: Callable[..., Array] = jax.lax.dot_general,
) -> Apply:
    """The MLP as a pure function of its parameters and a batch.

    Args:
        widths: of the input, every hidden layer, and the output.
        dot_general: the layers' product, such as `quick`.
    """
    abstract = nnx.eval_shape(lambda: MLP(widths, use_bias, dtype, nnx.Rngs(0), dot_general))
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
