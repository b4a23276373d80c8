"""Depthwise-separable convolutions: Howard et al., MobileNets, 2017, section 3.

ReLU6 as in Sandler et al., MobileNetV2, 2018, section 4.
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


class Separable(nnx.Module):
    """A convolution of each channel by itself, then one across channels."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.depthwise = nnx.Conv(
            inputs,
            inputs,
            (3, 3),
            stride,
            padding=1,
            feature_group_count=inputs,
            use_bias=False,
            rngs=rngs,
        )
        self.depthwise_bn = BatchNorm(inputs, rngs)
        self.pointwise = nnx.Conv(inputs, width, (1, 1), use_bias=False, rngs=rngs)
        self.pointwise_bn = BatchNorm(width, rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu6(self.depthwise_bn(self.depthwise(x)))
        return nnx.relu6(self.pointwise_bn(self.pointwise(x)))


class MobileNet(nnx.Module):
    """A stem and three separable convolutions; images (N, 16, 12, 3) to scores (N, 5)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 5, (3, 3), 2, padding=1, use_bias=False, rngs=rngs)
        self.stem_bn = BatchNorm(5, rngs)
        self.block1 = Separable(5, 8, 1, rngs)
        self.block2 = Separable(8, 8, 2, rngs)
        self.block3 = Separable(8, 11, 1, rngs)
        self.classifier = nnx.Linear(11, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu6(self.stem_bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.classifier(x.mean((1, 2)))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, RMSprop, and three batches of eight images."""
    optimizer = jaxmlp.Optimizer(
        "rmsprop", learning_rate=0.003, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=4e-5
    )
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        images = draw.uniform(size=(8, 3, 16, 12)).astype(np.float32)
        labels = draw.integers(5, size=8)
        batches.append((images.transpose(0, 2, 3, 1), labels))
    return MobileNet(nnx.Rngs(seed)), optimizer, batches
