"""The exact repair of a run, given only the settings that may be moved; or the proof of none.

The canonical numbers of a run (rescaling.py) are products of powers of its settings. In logarithms
that is a linear system over the rationals, which is solved exactly.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.law.canonical import Monomial, exact_invariants, invariants, product, value_of
from jaxmlp.law.difference import NAMES, SAME, difference, times
from jaxmlp.law.rules import full_name
from jaxmlp.law.surd import Surd, rounded, surd

FEW_KNOBS = 20  # whose triples are tried, some thousand; assumed: a second at most


class Repair(NamedTuple):
    """The exact repair, or the proof that the allowed knobs cannot do it."""

    experiment: Experiment | None  # repaired; None if impossible
    factors: dict[str, Surd]  # by knob: what to multiply it by; knobs left alone are not listed
    obstacles: tuple[str, ...]  # each: what stays wrong whatever the allowed knobs do
    missing: tuple[str, ...]  # further knobs, all needed, that would make it possible


def knobs(experiment: Experiment) -> tuple[str, ...]:
    """All names that `repair` knows for this experiment: whole settings and single layers'."""
    names = ["input_scale"]
    for tensor, name in itertools.product(experiment.tensors, PER_TENSOR):
        if getattr(experiment, name) is not None:
            full = full_name(tensor, name)
            names += [full, *(f"{full}:{layer + 1}" for layer in range(experiment.layers))]
    return tuple(names)


def repair(experiment: Experiment, to: Experiment, allow: Sequence[str]) -> Repair:
    """What to multiply the allowed knobs by so that `experiment` becomes the run that `to` is.

    The canonical numbers are products of powers of the settings: in logarithms, a linear system
    over the rationals. It is solved exactly. Of several solutions the knobs named first are used
    and those named last are left alone.

    Args:
        allow: names as `knobs` lists them: "learning_rate" moves all layers by one factor,
            "learning_rate:1" the first layer's. Biases follow their layer's weights unless the
            experiment gives them settings of their own.

    Raises:
        ValueError: a knob is not known; the two differ in what no knob moves; a layer has learning
            rate 0; or the repaired settings leave float32's range.
    """
    known = knobs(experiment)
    for knob in allow:
        if knob not in known:
            raise ValueError(f"knob {knob!r} is not known; choose from {', '.join(known)}")
    found = difference(experiment, to)
    if found.settings:
        name, (mine, other) = next(iter(found.settings.items()))
        raise ValueError(f"{name} is {mine} and should be {other}; no rescaling alters that")
    zero = [name for name, ratio in found.ratios.items() if ratio in (0, math.inf)]
    if zero:
        obstacles = (
            f"{_long(name)} is 0 in one of the two, and no factor alters that" for name in zero
        )
        return Repair(None, {}, tuple(obstacles), ())
    system = _system(experiment, to)
    solved, left = _eliminate(system, {knob: _effect(experiment, knob) for knob in allow})
    stuck = [row for row in left if not _satisfied(system, row)]
    if stuck:
        obstacles = (
            f"{_product(row)} is {times(math.exp(-_logarithm(system, row)))}, "
            "and no allowed knob alters it"
            for row in stuck
        )
        return Repair(None, {}, tuple(obstacles), _missing(experiment, system, allow))
    exact = {knob: _value_of(system, row) for knob, row in solved.items()}
    factors = {knob: factor for knob, factor in exact.items() if factor != 1}
    return Repair(_turned(experiment, factors), factors, (), ())


class System(NamedTuple):
    """∏ over settings of change^power, for each canonical number, is by what it has to change."""

    rows: dict[str, Monomial]
    change: dict[tuple[str, int], Surd]  # of each setting that differs: the target's over ours


def _system(experiment: Experiment, to: Experiment) -> System:
    rows = invariants(experiment)
    settings = {key for row in rows.values() for key in row}
    change = {}
    for name, layer in settings:
        mine, other = (value_of(each, name, layer) for each in (experiment, to))
        if mine and other and mine != other:
            change[name, layer] = surd(other) / mine
    # Earlier rows are solved first, so that what is left over speaks of them.
    marks = list(NAMES)
    zero = {name for name, value in exact_invariants(experiment).items() if not value}
    order = sorted(rows, key=lambda name: marks.index(name.rstrip("0123456789")))
    return System({name: rows[name] for name in order if name not in zero}, change)


def _effect(experiment: Experiment, knob: str) -> set[tuple[str, int]]:
    """The settings that a knob multiplies."""
    name, _, layer = knob.partition(":")
    if name == "input_scale":
        return {(name, 0)}
    layers = [int(layer) - 1] if layer else range(experiment.layers)
    follows = experiment.bias and name in PER_TENSOR and getattr(experiment, f"bias_{name}") is None
    return {(each, i) for each in (name, *[f"bias_{name}"] * follows) for i in layers}


Combination = dict[str, Fraction]  # of rows: by name, exponents


def _eliminate(
    system: System, columns: Mapping[str, set[tuple[str, int]]]
) -> tuple[dict[str, Combination], list[Combination]]:
    """Gauss-Jordan elimination of the knobs from the rows, over the rationals.

    Returns:
        For each knob that is used the combination of rows that its factor is; and the combinations
        that no knob alters.
    """
    pending: list[Row] = []
    for name, row in system.rows.items():
        powers = {
            knob: total
            for knob, settings in columns.items()
            if (total := sum((row.get(key, Fraction(0)) for key in settings), Fraction(0)))
        }
        pending.append(Row(powers, {name: Fraction(1)}))
    solved: dict[str, Row] = {}
    for knob in columns:
        pivot = next((row for row in pending if knob in row.powers), None)
        if pivot is None:
            continue
        pending.remove(pivot)
        pivot = Row(*(product((part, 1 / pivot.powers[knob])) for part in pivot))
        pending = [_without(row, knob, pivot) for row in pending]
        solved = {other: _without(row, knob, pivot) for other, row in solved.items()}
        solved[knob] = pivot
    return {knob: row.rows for knob, row in solved.items()}, [row.rows for row in pending]


class Row(NamedTuple):
    """A combination of canonical numbers under elimination."""

    powers: dict[str, Fraction]  # of the knobs
    rows: Combination


def _without(row: Row, knob: str, pivot: Row) -> Row:
    """The row less as much of the pivot as frees it from the knob."""
    if knob not in row.powers:
        return row
    share = -row.powers[knob]
    return Row(
        *(product((mine, 1), (other, share)) for mine, other in zip(row, pivot, strict=True))
    )


def _powers(system: System, combination: Combination) -> Monomial:
    powers = product(*((system.rows[name], power) for name, power in combination.items()))
    return {key: power for key, power in powers.items() if key in system.change}


def _value_of(system: System, combination: Combination) -> Surd:
    powers = _powers(system, combination).items()
    return math.prod((system.change[key] ** power for key, power in powers), start=surd(1))


def _logarithm(system: System, combination: Combination) -> float:
    powers = _powers(system, combination).items()
    return math.fsum(float(power) * system.change[key].logarithm() for key, power in powers)


def _satisfied(system: System, combination: Combination) -> bool:
    return abs(_logarithm(system, combination)) <= SAME


def _product(combination: Combination) -> str:
    """Such as κ1·κ2, or Rb1 ÷ R."""
    if len(combination) == 1:
        return _long(next(iter(combination)))
    signs = {True: [], False: []}
    for name, power in combination.items():
        size = abs(power)
        raised = {Fraction(1): "", Fraction(2): "²"}.get(size, f"^({size})")
        signs[power > 0].append(name + raised)
    above, below = ("·".join(sorted(names)) for names in (signs[True], signs[False]))
    return f"{above or 1} ÷ {below}" if below else above


def _long(name: str) -> str:
    mark = name.rstrip("0123456789")
    layer = name[len(mark) :]
    return f"{name} ({NAMES[mark]}{', layer ' + layer if layer else ''})"


def _missing(experiment: Experiment, system: System, allow: Sequence[str]) -> tuple[str, ...]:
    """The fewest further knobs with which there is a repair; whole settings before layers'.

    Of many knobs, or where more than three are needed, a set of which each is needed.
    """

    def enough(further: Sequence[str]) -> bool:
        columns = {knob: _effect(experiment, knob) for knob in (*allow, *further)}
        return all(_satisfied(system, row) for row in _eliminate(system, columns)[1])

    others = [knob for knob in knobs(experiment) if knob not in (*allow, "input_scale")]
    others.sort(key=lambda knob: ":" in knob)
    for count in range(1, 4 if len(others) <= FEW_KNOBS else 3):
        for chosen in itertools.combinations(others, count):
            if enough(chosen):
                return chosen
    needed = others[
        : bisect.bisect_left(range(len(others)), True, key=lambda n: enough(others[:n]))
    ]
    for knob in reversed(needed):
        fewer = [each for each in needed if each != knob]
        if enough(fewer):
            needed = fewer
    return tuple(needed)


def _turned(experiment: Experiment, factors: Mapping[str, Surd]) -> Experiment:
    """The experiment with each knob's settings multiplied by its factor."""
    exact: dict[tuple[str, int], Surd] = {}
    for knob, factor in factors.items():
        for key in _effect(experiment, knob):
            exact[key] = exact.get(key, surd(1)) * factor
    changed: dict[str, Any] = {}
    for name in {name for name, _ in exact}:
        if name == "input_scale":
            changed[name] = rounded(name, exact[name, 0] * experiment.input_scale)
            continue
        changed[name] = tuple(
            rounded(name, exact.get((name, i), surd(1)) * value) if value else 0.0
            for i, value in enumerate(experiment.per_layer(name))
        )
    return dataclasses.replace(experiment, **changed)
