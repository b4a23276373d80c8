"""A sequence classifier with an LSTM: Hochreiter and Schmidhuber, Long short-term memory, 1997.

With the forget gate of Gers et al., Learning to forget, 2000.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp


class LSTM(nnx.Module):
    """Sequences (N, T, inputs) to the states after each place (N, T, width).

    As cuDNN's and torch's, it has two biases that are added up, and both are trained: with one
    alone an adaptive step would be half as long. The gates are input, forget, cell and output.
    """

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs) -> None:
        uniform = jax.nn.initializers.uniform(2 * width**-0.5)

        def draw(*shape: int) -> nnx.Param:
            return nnx.Param(uniform(rngs.params(), shape) - width**-0.5)

        self.kernel = draw(inputs, 4 * width)
        self.recurrent_kernel = draw(width, 4 * width)
        self.bias = draw(4 * width)
        self.recurrent_bias = draw(4 * width)
        self.width = width

    def __call__(self, x: Array) -> Array:
        kernel, bias = self.recurrent_kernel[...], self.recurrent_bias[...]
        from_inputs = x @ self.kernel[...] + self.bias[...]

        def step(carry: tuple[Array, Array], at_place: Array) -> tuple[tuple[Array, Array], Array]:
            state, cell = carry
            i, f, g, o = jnp.split(at_place + state @ kernel + bias, 4, axis=-1)
            cell = nnx.sigmoid(f) * cell + nnx.sigmoid(i) * nnx.tanh(g)
            state = nnx.sigmoid(o) * nnx.tanh(cell)
            return (state, cell), state

        zeros = jnp.zeros((len(x), self.width), from_inputs.dtype)
        _, states = jax.lax.scan(step, (zeros, zeros), from_inputs.swapaxes(0, 1))
        return states.swapaxes(0, 1)


class Classifier(nnx.Module):
    """Sequences (N, T, 7) to scores (N, 5), from the state after the last place."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.lstm = LSTM(7, 6, rngs)
        self.head = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(self.lstm(x)[:, -1])


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, Adam, and four batches of five sequences of nine places."""
    optimizer = jaxmlp.Optimizer("adam", learning_rate=0.01)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(4):
        sequences = draw.standard_normal((5, 9, 7), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((sequences, labels))
    return Classifier(nnx.Rngs(seed)), optimizer, batches
