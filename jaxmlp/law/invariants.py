"""A run's invariants: the numbers that no rescaling alters, as exact products of its settings."""

import dataclasses
import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.experiment import PER_TENSOR, Experiment, full_name
from jaxmlp.law.rules import power
from jaxmlp.law.surd import Surd
from jaxmlp.law.tensors import INPUT, Monomial, Setting, Tensors, canonical_settings, value


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


QUANTITIES = {  # what a setting of the canonical run is called
    "learning_rate": "learning_rate",
    "init_scale": "init_scale",
    "weight_decay": "decay",
    "eps": "eps",
}
RATE = Invariant("learning_rate", "kernel", None)


class Parameter(NamedTuple):
    """A tensor of the project's own network."""

    kind: str  # kernel or bias
    layer: int  # counted from 0


def as_tensors(experiment: Experiment) -> Tensors:
    """The experiment as the law sees any network, with its group in closed form.

    Of a network of ReLUs each layer's weights are free, and the inputs undo what they do: the
    outputs of a layer, and its bias with them, are multiplied by the input's factor and those of
    all weights up to it.
    """
    layers = range(experiment.layers)
    settings = {Setting("init_scale", INPUT): experiment.input_scale}
    for layer, kind in itertools.product(layers, experiment.tensors):
        for name in PER_TENSOR:
            if getattr(experiment, name) is not None:
                value = experiment.per_layer(full_name(kind, name))[layer]
                settings[Setting(name, Parameter(kind, layer))] = value
    generators = []
    for free in layers:
        row = {INPUT: Fraction(-1), Parameter("kernel", free): Fraction(1)}
        biases = range(free if experiment.bias else 0)  # below the layer: what the inputs undo
        generators.append(row | {Parameter("bias", layer): Fraction(-1) for layer in biases})
    kernels = [Parameter("kernel", layer) for layer in layers]
    return Tensors(experiment.optimizer, generators, settings, kernels)


def full_setting(setting: Setting) -> str:
    """The field of Experiment that holds it."""
    if setting.tensor == INPUT:
        return "input_scale"
    assert isinstance(setting.tensor, Parameter)
    return full_name(setting.tensor.kind, setting.name)


def with_settings(experiment: Experiment, settings: Mapping[Setting, float]) -> Experiment:
    """The experiment with these settings of its tensors.

    Raises:
        ValueError: a setting leaves its range.
    """
    changed: dict[str, Any] = {}
    for setting, number in settings.items():
        full = full_setting(setting)
        if setting.tensor == INPUT:
            changed[full] = number
            continue
        assert isinstance(setting.tensor, Parameter)
        values = list(changed.get(full, experiment.per_layer(full)))
        values[setting.tensor.layer] = number
        changed[full] = tuple(values)
    return dataclasses.replace(experiment, **changed)


def invariants(experiment: Experiment) -> dict[Invariant, Monomial]:
    """Each invariant as a product of powers of the experiment's settings.

    The canonical run has input scale 1 and one learning rate R for the weights of all layers.
    With SGD that asks for c_l = sqrt(R / rate_l), with all others for c_l = R / rate_l, and
    ∏c_l = s fixes R. LARS and LAMB, whose rates do not move, have no such run.
    """
    degree = power(experiment.optimizer, "learning_rate")
    assert degree > 0, "a rate that does not move (LARS, LAMB) cannot be made common"
    canonical = canonical_settings(as_tensors(experiment))
    first = Setting("learning_rate", Parameter("kernel", 0))
    numbers = {RATE: canonical[first]}  # which is every kernel's
    for kind, layer in itertools.product(experiment.tensors, range(experiment.layers)):
        for name, quantity in QUANTITIES.items():
            monomial = canonical.get(Setting(name, Parameter(kind, layer)))
            if monomial is not None and (quantity, kind) != RATE.kind:
                numbers[Invariant(quantity, kind, layer)] = monomial
    return numbers


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
    settings = as_tensors(experiment).settings
    return {
        invariant: value(monomial, settings)
        for invariant, monomial in invariants(experiment).items()
    }
