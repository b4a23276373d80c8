"""A small residual network of basic blocks.

He et al., Deep residual learning for image recognition, 2016, section 3; shortcuts that change the
shape are projections (option B).
"""

from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp


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


class BasicBlock(nnx.Module):
    """Two 3 × 3 convolutions and a shortcut; (N, H, W, inputs) to (N, H/s, W/s, width)."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(inputs, width, (3, 3), stride, padding=1, use_bias=False, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn2 = BatchNorm(width, rngs)
        self.projects = stride != 1 or inputs != width
        if self.projects:
            self.projection = nnx.Conv(inputs, width, (1, 1), stride, use_bias=False, rngs=rngs)
            self.projection_bn = BatchNorm(width, rngs)

    def __call__(self, x: Array) -> Array:
        shortcut = self.projection_bn(self.projection(x)) if self.projects else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nnx.Module):
    """A stem and two blocks; images (N, 16, 12, 3) to scores (N, 5)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 6, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.stem_bn = BatchNorm(6, rngs)
        self.blocks = nnx.List([BasicBlock(6, 6, 1, rngs), BasicBlock(6, 9, 2, rngs)])
        self.head = nnx.Linear(9, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.stem_bn(self.stem(x)))
        padding: Any = ((1, 1), (1, 1))  # Flax' signature has str alone
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, SGD, and three batches of eight images."""
    optimizer = jaxmlp.Optimizer(
        "sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        images = draw.standard_normal((8, 3, 16, 12), dtype=np.float32)
        labels = draw.integers(5, size=8)
        batches.append((images.transpose(0, 2, 3, 1), labels))
    return ResNet(nnx.Rngs(seed)), optimizer, batches
