"""A small U-Net: Ronneberger et al., U-Net, 2015.

GroupNorm (Wu and He, 2018) and SiLU as in Ho et al., Denoising diffusion probabilistic models,
2020, appendix B.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

import jaxmlp


class ConvBlock(nnx.Module):
    """Convolution, GroupNorm, SiLU; (N, H, W, inputs) to (N, H, W, width)."""

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(inputs, width, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.GroupNorm(
            width, num_groups=2, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, x: Array) -> Array:
        return nnx.silu(self.norm(self.conv(x)))


class Upsample(nnx.Module):
    """A transposed convolution of stride 2; (N, H, W, inputs) to (N, 2 H, 2 W, width).

    torch's padding=1 and output_padding=1 are, of the inputs spread out, 1 before and 2 behind.
    """

    def __init__(self, inputs: int, width: int, rngs: nnx.Rngs) -> None:
        padding = ((1, 2), (1, 2))
        self.conv = nnx.ConvTranspose(
            inputs, width, (3, 3), strides=(2, 2), padding=padding, rngs=rngs
        )

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class UNet(nnx.Module):
    """Two levels down and up; images (N, 12, 16, 3) to scores of pixels (N, 12, 16, 4)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.encoder1 = ConvBlock(3, 6, rngs)
        self.encoder2 = ConvBlock(6, 10, rngs)
        self.bottleneck = ConvBlock(10, 10, rngs)
        self.upsample2 = Upsample(10, 10, rngs)
        self.decoder2 = ConvBlock(20, 10, rngs)
        self.upsample1 = Upsample(10, 6, rngs)
        self.decoder1 = ConvBlock(12, 6, rngs)
        self.head = nnx.Conv(6, 4, (1, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        skip1 = self.encoder1(x)
        skip2 = self.encoder2(nnx.max_pool(skip1, (2, 2), strides=(2, 2)))
        x = self.bottleneck(nnx.max_pool(skip2, (2, 2), strides=(2, 2)))
        x = self.decoder2(jnp.concatenate([self.upsample2(x), skip2], axis=-1))
        x = self.decoder1(jnp.concatenate([self.upsample1(x), skip1], axis=-1))
        return self.head(x)


def loss(outputs: Array, targets: Array) -> Array:
    """Cross-entropy with smoothed labels, the mean over all pixels.

    Args:
        outputs: scores (N, H, W, C).
        targets: classes (N, H, W).
    """
    classes = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    return optax.softmax_cross_entropy(outputs, optax.smooth_labels(classes, 0.1)).mean()


def setup(seed: int = 0):
    """The model, Adam, two batches of four images with a class for each pixel, and the loss."""
    optimizer = jaxmlp.Optimizer("adam", learning_rate=0.002, weight_decay=1e-4)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((4, 3, 12, 16), dtype=np.float32)
        classes = draw.integers(4, size=(4, 12, 16))
        batches.append((images.transpose(0, 2, 3, 1), classes))
    return UNet(nnx.Rngs(seed)), optimizer, batches, loss
