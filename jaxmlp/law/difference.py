"""How two runs differ, in numbers and in words."""

import dataclasses
from typing import Any, NamedTuple

from jaxmlp.experiment import NETWORK, SCALED, Experiment
from jaxmlp.law.canonical import exact_invariants
from jaxmlp.law.surd import Surd, rounded, surd

# Settings are floats, each rounded once: a canonical number is a product of at most a few dozen
# of them and their roots. 2^-53 each; this is 4000 such roundings, and far below any difference
# that training could show.
SAME = 2.0**-41
NAMES = {
    "R": "effective learning rate",
    "κ": "initial weights",
    "δ": "decay",
    "ε": "eps",
    "Rb": "effective learning rate of the biases",
    "κb": "initial biases",
    "δb": "decay of the biases",
    "εb": "eps of the biases",
}


class Difference(NamedTuple):
    """How run a differs from run b."""

    ratios: dict[str, float]  # a's canonical number over b's, by name; only those that differ
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
    mine, other = exact_invariants(a), exact_invariants(b)
    ratios = {name: _ratio(mine[name], other[name]) for name in mine}
    return Difference({n: r for n, r in ratios.items() if not abs(r - 1) <= SAME}, settings)


def _ratio(a: Surd | int, b: Surd | int) -> float:
    if not a or not b:
        return 1.0 if not a and not b else float("inf") if a else 0.0
    return rounded("a ratio of canonical numbers", surd(a) / surd(b))


def in_words(found: Difference, layers: int) -> str:
    """The difference as one sentence: what is the same, what is how many times too large."""
    if found.same:
        return "the same run"
    parts = []
    for mark, name in NAMES.items():
        own = {n: times(ratio) for n, ratio in found.ratios.items() if _is(mark, n)}
        if not own:
            alike = {"R": f"same {name}", "κ": f"{name} the same"}
            parts += [alike[mark]] if mark in alike else []
        elif len(set(own.values())) == 1 and (mark == "R" or len(own) == layers):
            parts.append(f"{name} {next(iter(own.values()))}")
        else:
            each = (f"layer {each[len(mark) :]} {text}" for each, text in own.items())
            parts.append(f"{name}: " + ", ".join(each))
    if not found.comparable:
        parts = []  # nothing was compared
    parts += [f"{name} {a} instead of {b}" for name, (a, b) in found.settings.items()]
    return "; ".join(parts)


def _is(mark: str, name: str) -> bool:
    return name.rstrip("0123456789") == mark


def times(ratio: float) -> str:
    """A ratio in words."""
    if ratio in (0, float("inf")):
        return "absent" if ratio == 0 else "present where the other has none"
    if abs(ratio - 1) < 0.005:
        return f"{abs(ratio - 1):.1g} of itself too {'large' if ratio > 1 else 'small'}"
    size = max(ratio, 1 / ratio)
    shown = f"{size:,.0f}" if 1000 <= size < 1e7 else f"{size:.3g}"
    return f"{shown} times too {'large' if ratio > 1 else 'small'}"
