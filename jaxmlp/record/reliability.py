"""How often what was foretold with a probability came true."""

import io
import math
from collections.abc import Iterator, Mapping

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


def figure(
    shown: Mapping[str, tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]]], count: int
) -> bytes:
    """The bins as a PNG, a panel for each thing foretold.

    Args:
        shown: probabilities, and what came true.
        count: of the experiments.
    """
    from matplotlib.figure import Figure  # only here, for it is slow to load

    from jaxmlp.record.labels import Label, put  # likewise

    figure = Figure(figsize=(4 * len(shown), 4.3), layout="constrained")
    figure.suptitle(
        f"What was foretold, and how often it came true ({count} experiments; "
        "the numbers: how many)",
        fontsize=12,
    )
    for axes, (name, pair) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        numbers = []
        for mean, share, (low, high), inside in reliability(*pair):
            axes.plot([mean, mean], [low, high], color="tab:blue")
            axes.plot(mean, share, "o", color="tab:blue")
            numbers.append(Label(f"{inside}", (mean, share), {"fontsize": 9}))
        axes.set(
            title=name,
            xlabel="probability foretold",
            ylabel="share that came true, 95 % interval",
            xlim=(-0.05, 1.05),
            ylim=(-0.1, 1.1),
        )
        put(axes, numbers)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
