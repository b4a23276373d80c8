"""The rescalings of a user's network: found by its derivatives, then checked in bits."""

import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmlp.law.symmetry import Exponents, Rescalings, rescalings
from jaxmlp.networks.protocol import Factors, Network

SPARE_POINTS = 8  # beyond one for each tensor, so that no symmetry of a few points is believed
# Fresh points at which each generator is tried; more where an inert tensor may round the others:
# the last bits of a loss agree by luck (seen at two points, in float64; in training they part).
CHECKS, CHECKS_BESIDE_INERT = 2, 24
COMPANIONS = tuple(map(Fraction, (1, -1, 2, -2)))  # exponents of an inert tensor that are tried
ROUNDING = 1e-11  # relative, of a loss in float64; a broken symmetry moves it by far more


class Group(NamedTuple):
    """What may be rescaled while training stays as it is, and while evaluation does, too."""

    training: Rescalings
    joint: Rescalings  # with the running statistics among the tensors
    exact: tuple[Exponents, ...]  # a basis of the joint group, in every bit where there is one
    rounded: tuple[Exponents, ...]  # those of them that hold to rounding only


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
    if statistics:
        # What is free in training, and the statistics, are the unknowns that evaluation decides.
        unknowns = len(training.generators) + len(statistics)
        in_evaluation = derivatives(network, range(unknowns + SPARE_POINTS), training=False)
        without = np.zeros((len(points), len(statistics)))
        rows = np.vstack([np.hstack([in_training, without]), in_evaluation])
        joint = rescalings(rows, [*tensors, *statistics])
    fresh = CHECKS_BESIDE_INERT if joint.inert else CHECKS
    check = _Check(network, range(len(points), len(points) + fresh))
    for generator in training.generators:
        check.agrees(generator, training=True)
    exact = []
    for generator in joint.generators:
        check.agrees(generator, training=False)
        exact.append(check.with_inert(generator, joint.inert))
    rounded = [row for row in exact if not check.agrees(row, training=True)]
    return Group(training, joint, tuple(exact), tuple(rounded))


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


class _Check:
    """Generators tried out, at points that no derivative was taken at."""

    def __init__(self, network: Network, points: Sequence[int]) -> None:
        self.network, self.points = network, points
        self.before = {mode: self._losses({}, mode) for mode in (True, False)}

    def _losses(self, factors: Factors, training: bool) -> list[float]:
        return [self.network.loss(point, factors, training) for point in self.points]

    def agrees(self, generator: Exponents, *, training: bool) -> bool:
        """Whether the losses agree in every bit; False: to rounding.

        Raises:
            ValueError: they do not agree.
        """
        before, after = (
            self.before[training],
            self._losses(powers_of_two(generator), training),
        )
        for a, b in zip(before, after, strict=True):
            if not abs(b - a) <= ROUNDING * abs(a):
                row = ", ".join(f"{name}^{exponent}" for name, exponent in generator.items())
                raise ValueError(
                    f"the derivatives promise that {row} leaves the loss as it is, but multiplying "
                    f"by powers of two along it changes {a!r} to {b!r}; the network is no smooth "
                    "function of its tensors"
                )
        return after == before

    def with_inert(self, generator: Exponents, inert: Sequence[str]) -> Exponents:
        """The generator, with an inert tensor moved along if only then all bits stay.

        Attention's key bias has no effect, but what it is added to rounds with it.
        """
        if self.agrees(generator, training=True) or generator.keys() & set(inert):
            return generator
        for name, exponent in itertools.product(inert, COMPANIONS):
            along = {**generator, name: exponent}
            if self.agrees(along, training=True):
                return along
        return generator
