"""What a run is: its canonical form, the numbers that no rescaling alters."""

import itertools
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.experiment import Experiment
from jaxmlp.law.rules import full_name, power
from jaxmlp.law.surd import Surd, rounded, surd

Monomial = dict[tuple[str, int], Fraction]  # (setting's full name, layer from 0): exponent


def product(*terms: tuple[dict[Any, Fraction], Fraction | int]) -> dict[Any, Fraction]:
    """The product of monomials, each to a power."""
    total: dict[Any, Fraction] = {}
    for monomial, exponent in terms:
        for key, own in monomial.items():
            total[key] = total.get(key, Fraction(0)) + own * exponent
    return {key: exponent for key, exponent in total.items() if exponent}


def invariants(experiment: Experiment) -> dict[str, Monomial]:
    """Each canonical number as a product of powers of the experiment's settings.

    The canonical run has input scale 1 and one learning rate R for the weights of all layers.
    With SGD that asks for c_l = sqrt(R / rate_l), with all others for c_l = R / rate_l, and
    ∏c_l = s fixes R.
    """
    degree = power(experiment.optimizer, "learning_rate")
    assert degree > 0, "a rate that does not move (LARS, LAMB) cannot be made common"
    layers, share = range(experiment.layers), Fraction(1, experiment.layers)

    def setting(name: str, layer: int = 0) -> Monomial:
        return {(name, layer): Fraction(1)}

    scale = setting("input_scale")
    rates = [setting("learning_rate", layer) for layer in layers]
    rate = product((scale, degree * share), *((each, share) for each in rates))
    factors = [product((rate, Fraction(1, degree)), (each, Fraction(-1, degree))) for each in rates]
    outputs = itertools.accumulate(factors, lambda a, b: product((a, 1), (b, 1)))
    scales = {"kernel": factors, "bias": [product((scale, -1), (each, 1)) for each in outputs]}
    found = {"R": rate}
    for tensor, layer in itertools.product(experiment.tensors, layers):
        mark, by = "" if tensor == "kernel" else "b", scales[tensor][layer]

        def moved(name: str, tensor=tensor, layer=layer, by=by) -> Monomial:
            exponent = power(experiment.optimizer, name)
            return product((setting(full_name(tensor, name), layer), 1), (by, exponent))

        if tensor == "bias":
            found[f"R{mark}{layer + 1}"] = moved("learning_rate")
        found[f"κ{mark}{layer + 1}"] = moved("init_scale")
        own = rate if tensor == "kernel" else moved("learning_rate")
        found[f"δ{mark}{layer + 1}"] = product((own, 1), (moved("weight_decay"), 1))
        if experiment.eps is not None:
            found[f"ε{mark}{layer + 1}"] = moved("eps")
    return found


class Canonical(NamedTuple):
    """What a run is, whatever its input scale. One value per layer, first layer first."""

    learning_rate: float  # R, of the weights of every layer
    init_scale: tuple[float, ...]  # κ, factors on the default initialisation
    decay: tuple[float, ...]  # δ, R times weight decay: with SGD the weights' shrinkage per step
    eps: tuple[float, ...] | None
    bias: "Biases | None"


class Biases(NamedTuple):
    """The biases' own canonical numbers."""

    learning_rate: tuple[float, ...]
    init_scale: tuple[float, ...]
    decay: tuple[float, ...]
    eps: tuple[float, ...] | None


def exact_invariants(experiment: Experiment) -> dict[str, Surd | int]:
    """The value of every invariant by name: R, κ1, ..., δ1, ..., with biases κb1, ...; exact.

    Raises:
        ValueError: a layer's weights do not learn.
    """
    rates = experiment.per_layer("learning_rate")
    if 0 in rates:
        raise ValueError(
            f"layer {rates.index(0) + 1} has learning rate 0: a network with a frozen layer has "
            "no effective learning rate; give every layer one above 0"
        )
    values: dict[str, Surd | int] = {}
    for name, monomial in invariants(experiment).items():
        value: Surd | int = surd(1)
        for (setting, layer), exponent in monomial.items():
            factor = value_of(experiment, setting, layer)
            value = value * surd(factor) ** exponent if value and factor else 0
        values[name] = value
    return values


def value_of(experiment: Experiment, setting: str, layer: int) -> float:
    if setting == "input_scale":
        return experiment.input_scale
    return experiment.per_layer(setting)[layer]


def canonical(experiment: Experiment) -> Canonical:
    """Which run this is: the one with input scale 1 and one learning rate that trains identically.

    Two experiments are the same run if these numbers agree and everything else that they ask
    (`difference` lists it) is the same; and, but for settings without effect, only then.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    values = {name: rounded(name, value) for name, value in exact_invariants(experiment).items()}
    layers = range(1, experiment.layers + 1)

    def row(mark: str) -> tuple[float, ...] | None:
        return tuple(values[f"{mark}{layer}"] for layer in layers) if f"{mark}1" in values else None

    own: Any = (row("κ"), row("δ"), row("ε"))
    of_biases: Any = (row("Rb"), row("κb"), row("δb"), row("εb"))
    return Canonical(values["R"], *own, bias=Biases(*of_biases) if experiment.bias else None)
