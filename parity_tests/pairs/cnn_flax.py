"""A small LeNet with rectifiers.

LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.
"""

from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array

import jaxmlp


class LeNet(nnx.Module):
    """Two convolutions and three linear layers; images (N, 14, 13, 3) to scores (N, 5)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 6, (5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 7, (3, 3), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(7 * 3 * 2, 15, rngs=rngs)
        self.fc2 = nnx.Linear(15, 15, rngs=rngs)
        self.fc3 = nnx.Linear(15, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        padding: Any = ((1, 1), (1, 1))  # Flax' signature has str alone
        x = nnx.avg_pool(x, (3, 3), strides=(2, 2), padding=padding)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels first, as in the original
        x = nnx.relu(self.fc1(x))
        return self.fc3(nnx.leaky_relu(self.fc2(x), 0.2))


def setup(
    seed: int = 0,
) -> tuple[nnx.Module, jaxmlp.Optimizer, list[tuple[np.ndarray, np.ndarray]]]:
    """The model, SGD, and three batches of six images."""
    optimizer = jaxmlp.Optimizer("sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-3)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        images = draw.standard_normal((6, 3, 14, 13), dtype=np.float32)
        labels = draw.integers(5, size=6)
        batches.append((images.transpose(0, 2, 3, 1), labels))
    return LeNet(nnx.Rngs(seed)), optimizer, batches
