"""How often what was foretold with a probability came true."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

EDGES = np.array([0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0])  # of the bins of probability
NORMAL_95 = 1.96  # standard deviations on each side that hold 95 %


def reliability(
    foretold: Float[np.ndarray, " runs"], truth: Bool[np.ndarray, " runs"]
) -> Iterator[tuple[float, float, tuple[float, float], int]]:
    """Per bin of probability: mean, share that came true, its 95 % interval (Wilson), count."""
    bins = np.clip(np.digitize(foretold, EDGES) - 1, 0, len(EDGES) - 2)
    for index in range(len(EDGES) - 1):
        inside = bins == index
        if inside.any():
            share, count = float(truth[inside].mean()), int(inside.sum())
            yield float(foretold[inside].mean()), share, _wilson(share, count), count


def _wilson(share: float, count: int) -> tuple[float, float]:
    """The interval of a share of `count` (Wilson 1927)."""
    z = NORMAL_95
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    variance = share * (1 - share) / count + z**2 / (4 * count**2)
    half = z / (1 + z**2 / count) * math.sqrt(variance)
    return max(0.0, centre - half), min(1.0, centre + half)
