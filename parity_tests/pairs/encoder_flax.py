"""A Transformer encoder: Vaswani et al., Attention is all you need, 2017, section 3.1.

The norms come first, as in Xiong et al., On layer normalization in the Transformer architecture,
2020; GELU is Hendrycks and Gimpel's, Gaussian error linear units, 2016.
"""

import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(12, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class EncoderBlock(nnx.Module):
    """Attention by three heads and two linear layers, each added to what goes in; (N, T, 12)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention_norm = layer_norm(rngs)
        self.attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)
        self.mlp_norm = layer_norm(rngs)
        self.up = nnx.Linear(12, 20, rngs=rngs)
        self.down = nnx.Linear(20, 12, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.attention_norm(x))
        y = self.up(self.mlp_norm(x))
        return x + self.down(nnx.gelu(y, approximate=False))


class Encoder(nnx.Module):
    """Two blocks and the mean over places; sequences (N, T, 7) to scores (N, 5)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(7, 12, rngs=rngs)
        self.blocks = nnx.List([EncoderBlock(rngs) for _ in range(2)])
        self.norm = layer_norm(rngs)
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, AdamW, and three batches of five sequences of nine places."""
    optimizer = jaxmlp.Optimizer("adamw", learning_rate=0.002, weight_decay=0.01)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        sequences = draw.standard_normal((5, 9, 7), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((sequences, labels))
    return Encoder(nnx.Rngs(seed)), optimizer, batches
