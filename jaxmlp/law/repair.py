"""The exact repair of a run, given only the settings that may be moved; or the proof of none.

A run's invariants are products of powers of its settings. In logarithms that is a linear system
over the rationals, which is solved exactly.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.experiment import PER_TENSOR, Experiment, full_name
from jaxmlp.law.difference import SAME_WITHIN, Difference, difference
from jaxmlp.law.invariants import (
    Invariant,
    Monomial,
    Setting,
    exact_invariants,
    invariants,
    value_of,
)
from jaxmlp.law.monomials import eliminate, product
from jaxmlp.law.surd import Surd, rounded, surd
from jaxmlp.law.words import times

# Of so many knobs or fewer, all triples are tried (some thousand; assumed: a second at most).
KNOBS_TO_TRY_TRIPLES_OF = 20

Combination = dict[Invariant, Fraction]  # a product of powers of invariants: their exponents


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

    Of several solutions the knobs named first are used and those named last are left alone.

    Args:
        allow: names as `knobs` lists them: "learning_rate" moves all layers by one factor,
            "learning_rate:1" the first layer's. Biases follow their layer's weights unless the
            experiment gives them settings of their own.

    Raises:
        ValueError: a knob is not known; the two differ in what no knob moves; a layer has learning
            rate 0; or the repaired settings leave float32's range.
    """
    every_knob = knobs(experiment)
    for knob in allow:
        if knob not in every_knob:
            raise ValueError(f"knob {knob!r} is not known; choose from {', '.join(every_knob)}")
    between = difference(experiment, to)
    if between.settings:
        name, (ours, theirs) = next(iter(between.settings.items()))
        raise ValueError(f"{name} is {ours} and should be {theirs}; no rescaling alters that")
    if zero := _zero_in_one(between):
        return Repair(None, {}, zero, ())
    system = _system(experiment, to)
    solved, unaltered = _solve(experiment, system, allow)
    stuck = [combination for combination in unaltered if not _satisfied(system, combination)]
    if stuck:
        obstacles = tuple(_obstacle(system, combination) for combination in stuck)
        return Repair(None, {}, obstacles, _missing(experiment, system, allow))
    exact = {knob: _change(system, combination) for knob, combination in solved.items()}
    factors = {knob: factor for knob, factor in exact.items() if factor != 1}
    return Repair(_turned(experiment, factors), factors, (), ())


# ---- the system


class System(NamedTuple):
    """∏ over settings of change^power, for each invariant, is by what the invariant has to change.

    Those that are 0 in both runs are no part of it.
    """

    rows: dict[Invariant, Monomial]
    change: dict[Setting, Surd]  # of each setting that differs: the target's over ours


def _system(experiment: Experiment, to: Experiment) -> System:
    rows = invariants(experiment)
    change: dict[Setting, Surd] = {}
    for setting in {setting for row in rows.values() for setting in row}:
        ours, theirs = value_of(experiment, setting), value_of(to, setting)
        if ours and theirs and ours != theirs:
            change[setting] = surd(theirs) / ours
    values = exact_invariants(experiment)
    # Earlier rows are solved first, so that what is left over speaks of them.
    order = sorted(rows, key=lambda invariant: invariant.rank)
    return System({invariant: rows[invariant] for invariant in order if values[invariant]}, change)


def _solve(
    experiment: Experiment, system: System, allow: Sequence[str]
) -> tuple[dict[str, Combination], list[Combination]]:
    """For each knob that is used the combination of invariants whose change is its factor.

    And the combinations that no allowed knob alters.
    """
    settings = {knob: _settings_of(experiment, knob) for knob in allow}
    equations = {
        invariant: _powers_of_knobs(row, settings) for invariant, row in system.rows.items()
    }
    return eliminate(equations, allow)


def _settings_of(experiment: Experiment, knob: str) -> set[Setting]:
    """The settings that a knob multiplies."""
    name, _, number = knob.partition(":")
    if name == "input_scale":
        return {Setting(name, 0)}
    names = [name]
    if experiment.bias and name in PER_TENSOR and getattr(experiment, f"bias_{name}") is None:
        names.append(f"bias_{name}")  # it follows
    layers = [int(number) - 1] if number else range(experiment.layers)
    return {Setting(name, layer) for name in names for layer in layers}


def _powers_of_knobs(row: Monomial, settings: Mapping[str, set[Setting]]) -> dict[str, Fraction]:
    """By which power of each knob an invariant moves; knobs that leave it alone are left out."""
    powers = {}
    for knob, multiplied in settings.items():
        total = sum((row.get(setting, Fraction(0)) for setting in multiplied), Fraction(0))
        if total:
            powers[knob] = total
    return powers


def _powers(system: System, combination: Combination) -> Monomial:
    """The product of invariants as one of those settings that have to change."""
    powers = product(*((system.rows[invariant], power) for invariant, power in combination.items()))
    return {setting: power for setting, power in powers.items() if setting in system.change}


def _change(system: System, combination: Combination) -> Surd:
    """By what a product of invariants has to change, exactly."""
    powers = _powers(system, combination).items()
    return math.prod((system.change[setting] ** power for setting, power in powers), start=surd(1))


def _logarithm(system: System, combination: Combination) -> float:
    """The logarithm of `_change`; large numbers are not multiplied out for it."""
    powers = _powers(system, combination).items()
    return math.fsum(float(power) * system.change[key].logarithm() for key, power in powers)


def _satisfied(system: System, combination: Combination) -> bool:
    return abs(_logarithm(system, combination)) <= SAME_WITHIN


# ---- what stands in the way


def _zero_in_one(between: Difference) -> tuple[str, ...]:
    """The obstacles that no factor removes: invariants that are 0 in one run alone."""
    return tuple(
        f"{invariant.in_full} is 0 in one of the two, and no factor alters that"
        for invariant, ratio in between.ratios.items()
        if ratio in (0, math.inf)
    )


def _obstacle(system: System, combination: Combination) -> str:
    wrong_by = math.exp(-_logarithm(system, combination))
    return f"{_formula(combination)} is {times(wrong_by)}, and no allowed knob alters it"


def _formula(combination: Combination) -> str:
    """Such as κ1·κ2, or Rb1 ÷ R."""
    if len(combination) == 1:
        return next(iter(combination)).in_full
    above, below = [], []
    for invariant, power in combination.items():
        size = abs(power)
        raised = {Fraction(1): "", Fraction(2): "²"}.get(size, f"^({size})")
        (above if power > 0 else below).append(invariant.symbol + raised)
    numerator, denominator = "·".join(sorted(above)) or "1", "·".join(sorted(below))
    return f"{numerator} ÷ {denominator}" if below else numerator


def _missing(experiment: Experiment, system: System, allow: Sequence[str]) -> tuple[str, ...]:
    """The fewest further knobs with which there is a repair; whole settings before layers'.

    Of many knobs, or where more than three are needed, a set of which each is needed.
    """

    def enough(further: Sequence[str]) -> bool:
        _, unaltered = _solve(experiment, system, [*allow, *further])
        return all(_satisfied(system, combination) for combination in unaltered)

    others = [knob for knob in knobs(experiment) if knob not in (*allow, "input_scale")]
    others.sort(key=lambda knob: ":" in knob)
    largest = 3 if len(others) <= KNOBS_TO_TRY_TRIPLES_OF else 2
    for count in range(1, largest + 1):
        for chosen in itertools.combinations(others, count):
            if enough(chosen):
                return chosen
    # The shortest beginning of the list that is enough; then without each that can be spared.
    shortest = bisect.bisect_left(range(len(others)), True, key=lambda n: enough(others[:n]))
    needed = others[:shortest]
    for knob in reversed(needed):
        fewer = [each for each in needed if each != knob]
        if enough(fewer):
            needed = fewer
    return tuple(needed)


# ---- the repaired run


def _turned(experiment: Experiment, factors: Mapping[str, Surd]) -> Experiment:
    """The experiment with each knob's settings multiplied by its factor."""
    exact: dict[Setting, Surd] = {}
    for knob, factor in factors.items():
        for setting in _settings_of(experiment, knob):
            exact[setting] = exact.get(setting, surd(1)) * factor
    changed: dict[str, Any] = {}
    for name in {setting.name for setting in exact}:
        if name == "input_scale":
            changed[name] = rounded(name, exact[Setting(name, 0)] * experiment.input_scale)
            continue
        changed[name] = tuple(
            rounded(name, exact.get(Setting(name, layer), surd(1)) * value) if value else 0.0
            for layer, value in enumerate(experiment.per_layer(name))
        )
    return dataclasses.replace(experiment, **changed)
