"""How two runs differ, in numbers and in words."""

import dataclasses
import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from jaxmlp.experiment import NETWORK, SCALED, Experiment
from jaxmlp.law.invariants import RATE, TERMS, Invariant, exact_invariants
from jaxmlp.law.knobs import SAME_WITHIN
from jaxmlp.law.surd import Surd, rounded, surd
from jaxmlp.law.words import times

Key = TypeVar("Key", bound=Hashable)
# What is said of the two that matter most where they agree; of the others, nothing.
AGREEMENT = {
    ("learning_rate", "kernel"): "same effective learning rate",
    ("init_scale", "kernel"): "initial weights the same",
}


class Difference(NamedTuple):
    """How run a differs from run b."""

    ratios: dict[Invariant, float]  # a's over b's; only of those that differ
    settings: dict[str, tuple[Any, Any]]  # a's and b's, of what no rescaling touches

    @property
    def same(self) -> bool:
        return not self.ratios and not self.settings

    @property
    def comparable(self) -> bool:
        """Whether network and optimizer are the same, so that the ratios mean something."""
        return not self.settings.keys() & NETWORK


def difference(a: Experiment, b: Experiment) -> Difference:
    """Which canonical numbers and which other settings differ.

    Of networks or optimizers that differ there are no ratios: their numbers cannot be compared.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    settings = {
        field.name: (getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(Experiment)
        if field.name not in SCALED and getattr(a, field.name) != getattr(b, field.name)
    }
    if settings.keys() & NETWORK:
        return Difference({}, settings)
    of_a, of_b = exact_invariants(a), exact_invariants(b)
    return Difference(differing_ratios(of_a, of_b), settings)


def differing_ratios(a: Mapping[Key, Surd | int], b: Mapping[Key, Surd | int]) -> dict[Key, float]:
    """a's canonical numbers over b's, of those that differ."""
    ratios = {name: _ratio(value, b[name]) for name, value in a.items()}
    return {name: ratio for name, ratio in ratios.items() if not abs(ratio - 1) <= SAME_WITHIN}


def _ratio(a: Surd | int, b: Surd | int) -> float:
    if not a and not b:
        return 1.0
    if not a or not b:
        return math.inf if a else 0.0
    return rounded("a ratio of canonical numbers", surd(a) / surd(b))


def same(a: Experiment, b: Experiment) -> bool:
    """Whether the two are one run; False also where a frozen layer leaves nothing to compare."""
    try:
        return difference(a, b).same
    except ValueError:
        return False


def in_words(difference: Difference, layers: int) -> str:
    """The difference as one sentence: what is the same, what is how many times too large."""
    if difference.same:
        return "the same run"
    parts = _ratios_in_words(difference.ratios, layers) if difference.comparable else []
    for name, (a, b) in difference.settings.items():
        parts.append(f"{name} {a} instead of {b}")
    return "; ".join(parts)


def _ratios_in_words(ratios: Mapping[Invariant, float], layers: int) -> list[str]:
    """A part of the sentence for each kind of invariant."""
    parts = []
    for kind, terms in TERMS.items():
        wrong = {each: times(ratio) for each, ratio in ratios.items() if each.kind == kind}
        everywhere = len(wrong) == (1 if kind == RATE.kind else layers)
        if not wrong:
            parts += [AGREEMENT[kind]] if kind in AGREEMENT else []
        elif everywhere and len(set(wrong.values())) == 1:
            parts.append(f"{terms.phrase} {next(iter(wrong.values()))}")
        else:
            each_layer = (f"{invariant.where} {text}" for invariant, text in wrong.items())
            parts.append(f"{terms.phrase}: {', '.join(each_layer)}")
    return parts
