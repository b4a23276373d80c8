"""A small Vision Transformer: Dosovitskiy et al., An image is worth 16 × 16 words, 2021."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp

WIDTH, PATCHES = 10, 12


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(WIDTH, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


class EncoderBlock(nnx.Module):
    """Attention by two heads and two linear layers, each behind a norm; (N, T, WIDTH)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = layer_norm(rngs)
        self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.norm2 = layer_norm(rngs)
        self.mlp1 = nnx.Linear(WIDTH, 18, rngs=rngs)
        self.mlp2 = nnx.Linear(18, WIDTH, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.norm1(x))
        y = self.mlp1(self.norm2(x))
        return x + self.mlp2(nnx.gelu(y, approximate=False))


class VisionTransformer(nnx.Module):
    """Patches of 4 × 4, a class token, two blocks; images (N, 12, 16, 3) to scores (N, 5)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, WIDTH, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros((1, 1, WIDTH)))
        positions = 0.02 * jax.random.normal(rngs.params(), (1, 1 + PATCHES, WIDTH))
        self.positions = nnx.Param(positions)
        self.blocks = nnx.List([EncoderBlock(rngs) for _ in range(2)])
        self.norm = layer_norm(rngs)
        self.head = nnx.Linear(WIDTH, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.patches(x).reshape(len(x), -1, WIDTH)
        token = jnp.broadcast_to(self.class_token[...], (len(x), 1, WIDTH))
        x = jnp.concatenate([token, x], axis=1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, AdamW, and two batches of five images."""
    optimizer = jaxmlp.Optimizer("adamw", learning_rate=0.001, weight_decay=0.05)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((5, 3, 12, 16), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((images.transpose(0, 2, 3, 1), labels))
    return VisionTransformer(nnx.Rngs(seed)), optimizer, batches
