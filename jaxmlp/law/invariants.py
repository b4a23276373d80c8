"""A run's invariants: the numbers that no rescaling alters, as exact products of its settings."""

import itertools
from fractions import Fraction
from typing import NamedTuple

from jaxmlp.experiment import PER_TENSOR, Experiment, full_name
from jaxmlp.law.monomials import product
from jaxmlp.law.rules import power
from jaxmlp.law.surd import Surd, surd


class Terms(NamedTuple):
    """What an invariant is called."""

    mark: str  # before the layer's number
    phrase: str  # in a sentence
    label: str  # in a table


TERMS = {  # by quantity and tensor, in the order in which they are told
    ("learning_rate", "kernel"): Terms("R", "effective learning rate", "effective learning rate"),
    ("init_scale", "kernel"): Terms("κ", "initial weights", "effective initial scale"),
    ("decay", "kernel"): Terms("δ", "decay", "effective decay, R × weight decay"),
    ("eps", "kernel"): Terms("ε", "eps", "effective eps"),
    ("learning_rate", "bias"): Terms(
        "Rb", "effective learning rate of the biases", "effective learning rate of biases"
    ),
    ("init_scale", "bias"): Terms("κb", "initial biases", "effective initial scale of biases"),
    ("decay", "bias"): Terms("δb", "decay of the biases", "effective decay of biases"),
    ("eps", "bias"): Terms("εb", "eps of the biases", "effective eps of biases"),
}
RANKS = {kind: rank for rank, kind in enumerate(TERMS)}


class Invariant(NamedTuple):
    """One of a run's canonical numbers: which quantity it is in the canonical run, and whose."""

    quantity: str  # learning_rate, init_scale, decay (learning rate times weight decay) or eps
    tensor: str  # kernel or bias
    layer: int | None  # counted from 0; None: of all layers, as the kernels' learning rate is

    @property
    def kind(self) -> tuple[str, str]:
        return self.quantity, self.tensor

    @property
    def terms(self) -> Terms:
        return TERMS[self.kind]

    @property
    def rank(self) -> int:
        """Its kind's place in the order in which invariants are told."""
        return RANKS[self.kind]

    @property
    def symbol(self) -> str:
        """For display: R, or with the layer counted from 1, such as κ1 or δb2."""
        return self.terms.mark + ("" if self.layer is None else str(self.layer + 1))

    @property
    def where(self) -> str:
        """For display: such as layer 1; empty if it is of all layers."""
        return "" if self.layer is None else f"layer {self.layer + 1}"

    @property
    def in_full(self) -> str:
        """For display: such as κ1 (initial weights, layer 1)."""
        return f"{self.symbol} ({', '.join(filter(None, (self.terms.phrase, self.where)))})"


RATE = Invariant("learning_rate", "kernel", None)


class Setting(NamedTuple):
    """One number that an experiment asks for."""

    name: str  # in full: bias_learning_rate for a bias's
    layer: int  # counted from 0; 0 for the input scale, which has none


Monomial = dict[Setting, Fraction]  # a product of powers of settings: their exponents


def invariants(experiment: Experiment) -> dict[Invariant, Monomial]:
    """Each invariant as a product of powers of the experiment's settings.

    The canonical run has input scale 1 and one learning rate R for the weights of all layers.
    With SGD that asks for c_l = sqrt(R / rate_l), with all others for c_l = R / rate_l, and
    ∏c_l = s fixes R. LARS and LAMB, whose rates do not move, have no such run.
    """
    degree = power(experiment.optimizer, "learning_rate")
    assert degree > 0, "a rate that does not move (LARS, LAMB) cannot be made common"
    layers, share = range(experiment.layers), Fraction(1, experiment.layers)
    scale = _itself("input_scale")
    rates = [_itself("learning_rate", layer) for layer in layers]
    effective_rate = product((scale, degree * share), *((rate, share) for rate in rates))
    # c_l on the weights of each layer; on its biases, what its outputs are multiplied by.
    factors = [
        product((effective_rate, Fraction(1, degree)), (rate, Fraction(-1, degree)))
        for rate in rates
    ]
    up_to_each = itertools.accumulate(factors, lambda before, this: product((before, 1), (this, 1)))
    of_biases = [product((scale, -1), (factor, 1)) for factor in up_to_each]
    numbers = {RATE: effective_rate}
    for tensor, layer in itertools.product(experiment.tensors, layers):
        factor = (factors if tensor == "kernel" else of_biases)[layer]
        for quantity, monomial in _of_tensor(experiment, tensor, layer, factor).items():
            if (quantity, tensor) != RATE.kind:  # which is every kernel's
                numbers[Invariant(quantity, tensor, layer)] = monomial
    return numbers


def _itself(name: str, layer: int = 0) -> Monomial:
    return {Setting(name, layer): Fraction(1)}


def _of_tensor(
    experiment: Experiment, tensor: str, layer: int, factor: Monomial
) -> dict[str, Monomial]:
    """The quantities of one tensor of the canonical run, whose values are `factor` times ours."""

    def moved(name: str) -> Monomial:
        setting = _itself(full_name(tensor, name), layer)
        return product((setting, 1), (factor, power(experiment.optimizer, name)))

    settings = {name: moved(name) for name in PER_TENSOR if getattr(experiment, name) is not None}
    rate = settings["learning_rate"]
    quantities = {
        "learning_rate": rate,
        "init_scale": settings["init_scale"],
        "decay": product((rate, 1), (settings["weight_decay"], 1)),
    }
    return quantities | ({"eps": settings["eps"]} if "eps" in settings else {})


def exact_invariants(experiment: Experiment) -> dict[Invariant, Surd | int]:
    """The value of every invariant, exactly; 0 where a setting in it is 0.

    Raises:
        ValueError: a layer's weights do not learn.
    """
    rates = experiment.per_layer("learning_rate")
    if 0 in rates:
        raise ValueError(
            f"layer {rates.index(0) + 1} has learning rate 0: a network with a frozen layer has "
            "no effective learning rate; give every layer one above 0"
        )
    return {
        invariant: _value(experiment, monomial)
        for invariant, monomial in invariants(experiment).items()
    }


def _value(experiment: Experiment, monomial: Monomial) -> Surd | int:
    value = surd(1)
    for setting, exponent in monomial.items():
        factor = value_of(experiment, setting)
        if not factor:
            return 0
        value = value * surd(factor) ** exponent
    return value


def value_of(experiment: Experiment, setting: Setting) -> float:
    """What the experiment asks for."""
    if setting.name == "input_scale":
        return experiment.input_scale
    return experiment.per_layer(setting.name)[setting.layer]
