"""A small GPT-2: Radford et al., Language models are unsupervised multitask learners, 2019.

The unembedding is tied to the embedding: Press and Wolf, Using the output embedding to improve
language models, 2017.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp

TOKENS, PLACES, WIDTH, HEADS = 17, 8, 12, 2


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(WIDTH, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class CausalAttention(nnx.Module):
    """Each place attends to itself and to those before it; (N, T, WIDTH)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        heads = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (part.reshape(heads) for part in jnp.split(self.qkv(x), 3, axis=-1))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / (WIDTH // HEADS) ** 0.5
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        weights = nnx.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return self.out(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(x.shape))


class Block(nnx.Module):
    """Attention and two linear layers, each behind a norm and added to what goes in."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention_norm = layer_norm(rngs)
        self.attention = CausalAttention(rngs)
        self.mlp_norm = layer_norm(rngs)
        self.mlp_in = nnx.Linear(WIDTH, 20, rngs=rngs)
        self.mlp_out = nnx.Linear(20, WIDTH, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.attention_norm(x))
        y = self.mlp_in(self.mlp_norm(x))
        return x + self.mlp_out(nnx.gelu(y, approximate=True))


class GPT(nnx.Module):
    """Two blocks; tokens (N, T) to scores of each place's next token (N, T, TOKENS)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.tokens = nnx.Embed(TOKENS, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(PLACES, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = layer_norm(rngs)

    def __call__(self, tokens: Array) -> Array:
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.tokens.attend(self.norm(x))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, AdamW, three batches of four sequences with the token that follows each place."""
    optimizer = jaxmlp.Optimizer(
        "adamw", learning_rate=0.001, beta1=0.9, beta2=0.95, weight_decay=0.1
    )
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        tokens = draw.integers(TOKENS, size=(4, PLACES + 1))
        batches.append((tokens[:, :-1], tokens[:, 1:]))
    return GPT(nnx.Rngs(seed)), optimizer, batches
