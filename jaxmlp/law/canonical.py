"""Canonical form: the run with unscaled inputs and one learning rate that a run really is."""

from typing import Any, NamedTuple

from jaxmlp.experiment import Experiment
from jaxmlp.law.invariants import RATE, Invariant, exact_invariants
from jaxmlp.law.surd import rounded


class Biases(NamedTuple):
    """The biases' own canonical numbers, one value per layer."""

    learning_rate: tuple[float, ...]
    init_scale: tuple[float, ...]
    decay: tuple[float, ...]
    eps: tuple[float, ...] | None


class Canonical(NamedTuple):
    """What a run is, whatever its input scale. One value per layer, first layer first."""

    learning_rate: float  # R, of the weights of every layer
    init_scale: tuple[float, ...]  # κ, factors on the default initialisation
    decay: tuple[float, ...]  # δ, R times weight decay: with SGD the weights' shrinkage per step
    eps: tuple[float, ...] | None
    bias: Biases | None

    def to_json(self) -> dict[str, Any]:
        """The record's section `canonical`."""
        biases = None if self.bias is None else _with_lists(self.bias._asdict())
        return {**_with_lists(self._asdict()), "bias": biases}


def _with_lists(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON reads them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def canonical(experiment: Experiment) -> Canonical:
    """Which run this is: the one with input scale 1 and one learning rate that trains identically.

    Two experiments are the same run if these numbers agree and everything else that they ask
    (`difference` lists it) is the same; and, but for settings without effect, only then.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    values = {
        invariant: rounded(invariant.symbol, value)
        for invariant, value in exact_invariants(experiment).items()
    }

    def per_layer(quantity: str, tensor: str = "kernel") -> Any:
        invariants = [Invariant(quantity, tensor, layer) for layer in range(experiment.layers)]
        return tuple(values[invariant] for invariant in invariants)

    has_eps = experiment.eps is not None
    biases = None
    if experiment.bias:
        biases = Biases(
            per_layer("learning_rate", "bias"),
            per_layer("init_scale", "bias"),
            per_layer("decay", "bias"),
            per_layer("eps", "bias") if has_eps else None,
        )
    return Canonical(
        values[RATE],
        per_layer("init_scale"),
        per_layer("decay"),
        per_layer("eps") if has_eps else None,
        biases,
    )


def canonical_if_any(experiment: Experiment) -> Canonical | None:
    """The canonical form; None for a network with a frozen layer, which has none."""
    try:
        return canonical(experiment)
    except ValueError:
        return None


def canonical_section(experiment: Experiment) -> dict[str, Any] | None:
    """The record's section `canonical`; None for a network with a frozen layer."""
    form = canonical_if_any(experiment)
    return form and form.to_json()
