"""A run of any network: named tensors, the rescalings that leave it as it is, and its settings.

A rescaling multiplies tensor i by c_i > 0. Along the group that leaves every loss as it is the
gradients obey g'_i = g_i / c_i, so each setting of a tensor moves by its power of c_i (rules.py)
and the run is the same run. What is said here of tensors holds for the project's own network, whose
group is known in closed form, as for a user's, whose group symmetry.py finds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.law.monomials import product, solve, sparse
from jaxmlp.law.rules import power
from jaxmlp.law.surd import Surd, rounded, surd

INPUT = "input"  # the inputs' name among the tensors; their scale is their init_scale

Tensor = Any  # names a tensor: a user's by a string; anything hashable


class Setting(NamedTuple):
    """One number that a run asks for."""

    name: str  # init_scale, learning_rate, weight_decay, eps or clip
    tensor: Tensor


Monomial = dict[Setting, Fraction]  # a product of powers of settings: their exponents


class Tensors(NamedTuple):
    """What the law knows of a run."""

    optimizer: str
    generators: Sequence[Mapping[Tensor, Fraction]]  # a basis of the group, by exponents
    settings: Mapping[Setting, float]  # of frozen tensors and of the inputs: init_scale alone
    weights: Sequence[Tensor]  # whose learning rates the canonical run makes as equal as it can

    @property
    def names(self) -> tuple[Tensor, ...]:
        """The tensors, the inputs among them, in the order of their settings."""
        return tuple(dict.fromkeys(setting.tensor for setting in self.settings))

    def of(self, tensor: Tensor) -> dict[str, float]:
        """A tensor's settings, by their names."""
        return {
            setting.name: value
            for setting, value in self.settings.items()
            if setting.tensor == tensor
        }


# ---- canonical form


def canonical_factors(run: Tensors) -> dict[Tensor, Monomial]:
    """c_i of the rescaling that leads to the canonical run, as products of the run's settings.

    The canonical run has input scale 1 where the group can reach that; among those the weights'
    learning rates are as equal as possible (least squares of their logarithms), then those of all
    trained tensors, then the initial scales of what is still free. Each step is linear over the
    rationals in the logarithms, so exponents stay rational.
    """
    degree = power(run.optimizer, "learning_rate")
    free = _Free.start(run.generators)
    if any(INPUT in row for row in run.generators):
        free = free.fixed([(free.along(INPUT), {Setting("init_scale", INPUT): Fraction(-1)})])
    trained = [name for name in run.names if Setting("learning_rate", name) in run.settings]
    for tensors in (run.weights, trained):
        rates = {name: {Setting("learning_rate", name): Fraction(1)} for name in tensors}
        free = free.balanced(rates, degree, centred=True)
    scales = {name: {Setting("init_scale", name): Fraction(1)} for name in run.names}
    free = free.balanced(scales, 1, centred=False)
    return {name: free.value(name) for name in run.names}


class _Free(NamedTuple):
    """An affine family of rescalings: log c = base + Σ over directions of unknown · direction."""

    base: Mapping[Tensor, Monomial]
    directions: Sequence[Mapping[Tensor, Fraction]]

    @classmethod
    def start(cls, generators: Sequence[Mapping[Tensor, Fraction]]) -> "_Free":
        return cls({}, generators)

    def along(self, tensor: Tensor) -> list[Fraction]:
        """How much each direction moves the logarithm of the tensor's factor."""
        return [row.get(tensor, Fraction(0)) for row in self.directions]

    def value(self, tensor: Tensor) -> Monomial:
        return dict(self.base.get(tensor, {}))

    def fixed(self, equations: Iterable[tuple[list[Fraction], Monomial]]) -> "_Free":
        """Those members of the family for which Σ coefficient · unknown is the right-hand side."""
        particular, null = solve(list(equations), len(self.directions))
        base = {
            tensor: product(
                (self.base.get(tensor, {}), 1),
                *zip(particular, self.along(tensor), strict=True),
            )
            for tensor in {*self.base, *(name for row in self.directions for name in row)}
        }
        directions = [
            product(*zip(self.directions, combination, strict=True)) for combination in null
        ]
        return _Free(base, directions)

    def balanced(self, values: Mapping[Tensor, Monomial], degree: int, *, centred: bool) -> "_Free":
        """Those members for which the moved values' logarithms have the least squares.

        Args:
            values: each moves by its tensor's factor to the power `degree`.
            centred: of their distances from their mean, else of themselves.
        """
        if not self.directions or not values or not degree:
            return self
        slopes = [[degree * entry for entry in self.along(tensor)] for tensor in values]
        starts = [
            product((value, 1), (self.base.get(tensor, {}), degree))
            for tensor, value in values.items()
        ]
        if centred:
            slopes = _less_their_mean(slopes)
            share = Fraction(1, len(starts))
            mean = product(*((start, share) for start in starts))
            starts = [product((start, 1), (mean, -1)) for start in starts]
        # Normal equations: Σ slope_j · (start + Σ slope_k · unknown_k) = 0 for each j.
        equations = []
        for j in range(len(self.directions)):
            column = [row[j] for row in slopes]
            coefficients = [
                sum((a * row[k] for a, row in zip(column, slopes, strict=True)), Fraction(0))
                for k in range(len(self.directions))
            ]
            right = product(*((start, -a) for start, a in zip(starts, column, strict=True)))
            equations.append((coefficients, right))
        return self.fixed(equations)


def _less_their_mean(rows: list[list[Fraction]]) -> list[list[Fraction]]:
    means = [sum(column, Fraction(0)) / len(rows) for column in zip(*rows, strict=True)]
    return [[entry - mean for entry, mean in zip(row, means, strict=True)] for row in rows]


def canonical_settings(run: Tensors) -> dict[Setting, Monomial]:
    """The settings of the canonical run, as products of this run's.

    `weight_decay` there is learning rate times weight decay, which with SGD is the weights'
    shrinkage per step.
    """
    factors = canonical_factors(run)
    moved = {}
    for setting in run.settings:
        exponent = power(run.optimizer, setting.name)
        moved[setting] = product(({setting: Fraction(1)}, 1), (factors[setting.tensor], exponent))
    for setting in run.settings:
        if setting.name == "weight_decay":
            rate = moved[Setting("learning_rate", setting.tensor)]
            moved[setting] = product((moved[setting], 1), (rate, 1))
    return moved


def value(monomial: Monomial, settings: Mapping[Setting, float]) -> Surd | int:
    """The product, exactly; 0 where a setting in it is 0."""
    result = surd(1)
    for setting, exponent in monomial.items():
        if not settings[setting]:
            return 0
        result = result * surd(settings[setting]) ** exponent
    return result


# ---- transport


def in_words(setting: Setting) -> str:
    """Such as `learning_rate of conv1.weight`."""
    return f"{setting.name} of {setting.tensor}"


def moved(
    run: Tensors,
    factors: Mapping[Tensor, Surd],
    called: Callable[[Setting], str] = in_words,
) -> dict[Setting, float]:
    """The settings of the same run with its tensors multiplied by the factors; each rounded once.

    Args:
        factors: a rescaling of the group; tensors that are not named stay.
        called: what a setting is called in a message.

    Raises:
        ValueError: a setting is larger than every float.
    """
    settings = {}
    for setting, before in run.settings.items():
        factor = factors.get(setting.tensor)
        if factor is None or not before:
            settings[setting] = before
            continue
        exact = factor ** power(run.optimizer, setting.name) * before
        settings[setting] = rounded(called(setting), exact)
    return settings


def fewest(run: Tensors, cost: Mapping[Tensor, int]) -> dict[Tensor, Fraction] | None:
    """The exponents of the rescaling that multiplies the inputs by e and costs least.

    None if no rescaling multiplies the inputs.

    Args:
        cost: of moving a tensor; 1 where it is not named.
    """
    rows = [row for row in sparse(run.generators, run.names, cost) if INPUT in row]
    if not rows:
        return None
    chosen = min(rows, key=lambda row: sum(cost.get(name, 1) for name in row if name != INPUT))
    return product((chosen, 1 / chosen[INPUT]))


def alike(run: Tensors) -> dict[Tensor, Fraction] | None:
    """The exponents of the rescaling that multiplies the inputs by e and the weights by little.

    Little: least squares of the logarithms. A network of linear layers and ReLUs then shares the
    change equally. None if no rescaling multiplies the inputs.
    """
    free = _Free.start(run.generators)
    if not any(free.along(INPUT)):
        return None
    unit = Setting("init_scale", INPUT)
    free = free.fixed([(free.along(INPUT), {unit: Fraction(1)})])
    for tensors in (run.weights, run.names):
        free = free.balanced({name: {} for name in tensors if name != INPUT}, 1, centred=False)
    exponents = {name: free.value(name).get(unit, Fraction(0)) for name in run.names}
    return {name: exponent for name, exponent in exponents.items() if exponent}


def raised(exponents: Mapping[Tensor, Fraction], change: Surd) -> dict[Tensor, Surd]:
    """The factors of a rescaling: change^exponent of each tensor."""
    return {name: change**exponent for name, exponent in exponents.items()}
