"""The rescalings of a user's network: found by its derivatives, then checked in bits."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmlp.law.symmetry import Exponents, Rescalings, rescalings
from jaxmlp.networks.protocol import Network

SPARE_POINTS = 8  # beyond one for each tensor, so that no symmetry of a few points is believed
CHECKS = 2  # fresh points at which each generator is tried
ROUNDING = 1e-11  # relative, of a loss in float64; a broken symmetry moves it by far more


class Group(NamedTuple):
    """What may be rescaled while training stays as it is, and while evaluation does, too."""

    training: Rescalings
    joint: Rescalings  # with the running statistics among the tensors
    rounded: tuple[Exponents, ...]  # generators that hold to rounding only

    @property
    def of_training_alone(self) -> int:
        """Free rescalings that leave training, but not the running statistics' evaluation."""
        return len(self.training.generators) - len(self.joint.generators)


@functools.lru_cache(maxsize=4)
def find(network: Network) -> Group:
    """The network's group.

    Raises:
        ValueError: there is no clear gap, an exponent is no small rational, or a rescaling that the
            derivatives promise alters a loss.
    """
    tensors, statistics = [*network.tensors], [*network.statistics]
    points = range(len(tensors) + SPARE_POINTS)
    in_training = derivatives(network, points, training=True)
    training = joint = rescalings(in_training, tensors)
    fresh = range(len(points), len(points) + CHECKS)
    rounded = _inexact(network, training.generators, fresh, training=True)
    if statistics:
        # What is free in training, and the statistics, are the unknowns that evaluation decides.
        unknowns = len(training.generators) + len(statistics)
        in_evaluation = derivatives(network, range(unknowns + SPARE_POINTS), training=False)
        without = np.zeros((len(points), len(statistics)))
        rows = np.vstack([np.hstack([in_training, without]), in_evaluation])
        joint = rescalings(rows, [*tensors, *statistics])
        _inexact(network, joint.generators, fresh, training=False)
    return Group(training, joint, rounded)


def derivatives(
    network: Network, points: Sequence[int], *, training: bool
) -> Float[np.ndarray, "points tensors"]:
    """Each point's derivatives of the loss along the tensors; statistics last, in evaluation."""
    names = [*network.tensors, *([] if training else network.statistics)]
    rows = [network.derivatives(point, training) for point in points]
    return np.array([[row[name] for name in names] for row in rows], np.float64)


def powers_of_two(generator: Exponents) -> dict[str, float]:
    """The smallest rescaling along a generator whose factors are all powers of two."""
    whole = math.lcm(*(exponent.denominator for exponent in generator.values()))
    return {name: 2.0 ** int(exponent * whole) for name, exponent in generator.items()}


def _inexact(
    network: Network, generators: Sequence[Exponents], points: Sequence[int], *, training: bool
) -> tuple[Exponents, ...]:
    """The generators along which the losses agree to rounding, not in every bit.

    Raises:
        ValueError: along one they do not agree.
    """
    before = {point: network.loss(point, {}, training) for point in points}
    inexact = []
    for generator in generators:
        factors = powers_of_two(generator)
        after = {point: network.loss(point, factors, training) for point in points}
        for point in points:
            if not abs(after[point] - before[point]) <= ROUNDING * abs(before[point]):
                row = ", ".join(f"{name}^{exponent}" for name, exponent in generator.items())
                raise ValueError(
                    f"the derivatives promise that {row} leaves the loss as it is, but multiplying "
                    f"by powers of two along it changes {before[point]!r} to {after[point]!r}; the "
                    "network is no smooth function of its tensors"
                )
        if after != before:
            inexact.append(generator)
    return tuple(inexact)
