"""A tiny data set, whose sizes are all distinct."""

from typing import Any

import numpy as np

TRAIN, TEST, CHANNELS, HEIGHT, WIDTH, CLASSES = 24, 10, 3, 5, 4, 7


def arrays(seed: int = 0) -> dict[str, Any]:
    """Random images, channels last, and labels that use every class."""
    draw = np.random.default_rng(seed)
    sizes = {"train": TRAIN, "test": TEST}
    made = {
        f"{split}_images": draw.integers(0, 256, (size, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
        for split, size in sizes.items()
    }
    labels = {f"{split}_labels": np.arange(size) % CLASSES for split, size in sizes.items()}
    return made | labels
