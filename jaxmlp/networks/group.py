"""The rescalings of a user's network: found by its derivatives, then checked in bits."""

import collections
import contextlib
import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxmlp.law.symmetry import Exponents, Rescalings, rescalings, settled
from jaxmlp.networks.protocol import Factors, Network

# Points that must add nothing before the group is believed, and how often that is asked: adapters
# share a draw of the tensors among eight points. With 8 to spare, chance made a thing of ResNet-18
# look nearly free that is not.
SPARE_POINTS, AT_ONCE = 16, 8
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
    in_training = _derivatives(network, tensors, np.empty((0, len(tensors))), training=True)
    training = joint = rescalings(in_training, tensors)
    if statistics:
        both = [*tensors, *statistics]
        without = np.zeros((len(in_training), len(statistics)))
        rows = _derivatives(network, both, np.hstack([in_training, without]), training=False)
        joint = rescalings(rows, both)
    fresh = CHECKS_BESIDE_INERT if joint.inert else CHECKS
    last = len(tensors) + len(statistics) + 2 * SPARE_POINTS
    check = _Check(network, range(last, last + fresh))
    check.all_agree(training.generators, training=True)
    check.all_agree(joint.generators, training=False)
    exact = list(joint.generators)
    if joint.inert:
        exact = [check.with_inert(generator, joint.inert) for generator in exact]
    rounded = []
    if not check.all_agree(exact, training=True):
        rounded = [row for row in exact if not check.agrees(row, training=True)]
    return Group(training, joint, tuple(exact), tuple(rounded))


def _derivatives(
    network: Network, tensors: Sequence[str], known: np.ndarray, *, training: bool
) -> Float[np.ndarray, "points tensors"]:
    """The rows that are known, and derivatives at as many points as add to them, and some more."""
    rows = known
    for point in range(len(tensors) + SPARE_POINTS):  # so many suffice whatever they add
        slopes = network.derivatives(point, training)
        rows = np.vstack([rows, [slopes[name] for name in tensors]])
        if (point + 1) % AT_ONCE == 0 and settled(rows, SPARE_POINTS):
            break
    return rows


def powers_of_two(generator: Exponents) -> dict[str, float]:
    """The smallest rescaling along a generator whose factors are all powers of two."""
    whole = math.lcm(*(exponent.denominator for exponent in generator.values()))
    return {name: 2.0 ** int(exponent * whole) for name, exponent in generator.items()}


class _Check:
    """Generators tried out, at points that no derivative was taken at."""

    def __init__(self, network: Network, points: Sequence[int]) -> None:
        self.network, self.points = network, points
        self.before = {mode: self._losses({}, mode) for mode in (True, False)}
        self.known: dict[tuple[frozenset, bool], bool] = {}

    def _losses(self, factors: Factors, training: bool) -> list[float]:
        return [self.network.loss(point, factors, training) for point in self.points]

    def all_agree(self, generators: Sequence[Exponents], *, training: bool) -> bool:
        """Whether the losses agree in every bit along all of them; False: to rounding.

        They are tried at once, each with an exponent of its own, and one by one if that is not
        exact: n trials of a network of n tensors would take longer than the derivatives.

        Raises:
            ValueError: along one, they do not agree.
        """
        draw = np.random.default_rng(len(generators))
        at_once: dict[str, Fraction] = collections.defaultdict(Fraction)
        for generator in generators:
            times = int(draw.choice([-2, -1, 1, 2]))
            for name, exponent in generator.items():
                at_once[name] += times * exponent
        with contextlib.suppress(ValueError):
            if self.agrees(at_once, training=training):
                return True
        one_by_one = [self.agrees(each, training=training) for each in generators]
        return all(one_by_one)

    def agrees(self, generator: Exponents, *, training: bool) -> bool:
        """Whether the losses agree in every bit along a generator; False: to rounding.

        Raises:
            ValueError: they do not agree.
        """
        key = frozenset(generator.items()), training
        if key not in self.known:
            self.known[key] = self._tried(generator, training)
        return self.known[key]

    def _tried(self, generator: Exponents, training: bool) -> bool:
        before = self.before[training]
        after = self._losses(powers_of_two(generator), training)
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
