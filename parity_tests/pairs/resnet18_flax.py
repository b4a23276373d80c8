"""ResNet-18 as torchvision has it, at 32 × 32 pixels.

He et al., Deep residual learning for image recognition, 2016, table 1.
"""

from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp

WIDTHS = (64, 128, 256, 512)


class BatchNorm(nnx.BatchNorm):
    """Over all axes but the last; the running variance is the unbiased one, as torch keeps it."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        super().__init__(features, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: Array, *args: Any, **options: Any) -> Array:
        before = self.var[...]
        outputs = super().__call__(x, *args, **options)
        if not self.use_running_average:
            unbiased = x.var(tuple(range(x.ndim - 1)), ddof=1)
            self.var[...] = self.momentum * before + (1 - self.momentum) * unbiased
        return outputs


def conv(inputs: int, width: int, size: int, stride: int, padding: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, width, (size, size), stride, padding=padding, use_bias=False, rngs=rngs)


class BasicBlock(nnx.Module):
    """Two 3 × 3 convolutions and a shortcut; (N, H, W, inputs) to (N, H/s, W/s, width)."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1, self.norm1 = conv(inputs, width, 3, stride, 1, rngs), BatchNorm(width, rngs)
        self.conv2, self.norm2 = conv(width, width, 3, 1, 1, rngs), BatchNorm(width, rngs)
        self.projects = stride != 1 or inputs != width
        if self.projects:
            self.projection = conv(inputs, width, 1, stride, 0, rngs)
            self.projection_norm = BatchNorm(width, rngs)

    def __call__(self, x: Array) -> Array:
        shortcut = self.projection_norm(self.projection(x)) if self.projects else x
        x = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet18(nnx.Module):
    """A stem, four stages of two blocks, a linear head; images (N, H, W, 3) to scores (N, 10)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem, self.stem_norm = conv(3, 64, 7, 2, 3, rngs), BatchNorm(64, rngs)
        blocks = []
        for inputs, width in zip((64, *WIDTHS), WIDTHS, strict=False):
            stride = 1 if inputs == width else 2
            blocks += [BasicBlock(inputs, width, stride, rngs), BasicBlock(width, width, 1, rngs)]
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.stem_norm(self.stem(x)))
        padding: Any = ((1, 1), (1, 1))  # Flax' signature has str alone
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, SGD, and two batches of eight images (8, 32, 32, 3) of ten classes."""
    optimizer = jaxmlp.Optimizer("sgd", learning_rate=0.01, momentum=0.9, weight_decay=5e-4)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((8, 3, 32, 32), dtype=np.float32)
        labels = draw.integers(10, size=8)
        batches.append((images.transpose(0, 2, 3, 1), labels))
    return ResNet18(nnx.Rngs(seed)), optimizer, batches
