"""Which factors on the knobs that may be moved change a run's invariants as asked; or that none do.

A run's invariants are products of powers of its settings. In logarithms that is a linear system
over the rationals, which is solved exactly. An invariant is anything with a `symbol` for formulas
and a name `in_full`.
"""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.law.monomials import eliminate, product
from jaxmlp.law.surd import Surd, surd
from jaxmlp.law.tensors import Monomial, Setting
from jaxmlp.law.words import times

# Settings are floats, each rounded once: a canonical number is a product of at most a few dozen
# of them and their roots. 2^-53 each; this is 4000 such roundings, and far below any difference
# that training could show.
SAME_WITHIN = 2.0**-41
# Of so many knobs or fewer, all triples are tried (some thousand; assumed: a second at most).
KNOBS_TO_TRY_TRIPLES_OF = 20
KNOBS_TO_TRY_PAIRS_OF = 100  # likewise; the project's own network of eight layers has 76

Combination = dict[Any, Fraction]  # a product of powers of invariants: their exponents


class System(NamedTuple):
    """∏ over settings of change^power, for each invariant, is by what the invariant has to change.

    Those that are 0 in both runs are no part of it.
    """

    rows: Mapping[Any, Monomial]  # by invariant; earlier ones are solved first
    change: Mapping[Setting, Surd]  # of each setting that differs: the target's over ours
    knobs: Mapping[str, set[Setting]]  # all there are: the settings that each multiplies


class Solved(NamedTuple):
    """What the allowed knobs have to be multiplied by; or what stands in the way."""

    factors: dict[str, Surd]  # knobs that stay as they are are not listed
    obstacles: tuple[str, ...]  # each: what stays wrong whatever the allowed knobs do
    missing: tuple[str, ...]  # further knobs, all needed, that would make it possible


def solve(system: System, allow: Sequence[str], further: Sequence[str]) -> Solved:
    """The factors on the allowed knobs that change all invariants as asked.

    Of several solutions the knobs named first are used and those named last are left alone.

    Args:
        further: knobs that might be asked for, the most welcome first.
    """
    solved, unaltered = _eliminated(system, allow)
    stuck = [combination for combination in unaltered if not _satisfied(system, combination)]
    if stuck:
        obstacles = tuple(_obstacle(system, combination) for combination in stuck)
        others = [knob for knob in further if knob not in allow]
        return Solved({}, obstacles, _missing(system, allow, others))
    exact = {knob: _change(system, combination) for knob, combination in solved.items()}
    return Solved({knob: factor for knob, factor in exact.items() if factor != 1}, (), ())


def _eliminated(
    system: System, allow: Sequence[str]
) -> tuple[dict[str, Combination], list[Combination]]:
    """For each knob that is used the combination of invariants whose change is its factor.

    And the combinations that no allowed knob alters.
    """
    settings = {knob: system.knobs[knob] for knob in allow}
    equations = {
        invariant: _powers_of_knobs(row, settings) for invariant, row in system.rows.items()
    }
    return eliminate(equations, allow)


def _powers_of_knobs(row: Monomial, settings: Mapping[str, set[Setting]]) -> dict[str, Fraction]:
    """By which power of each knob an invariant moves; knobs that leave it alone are left out."""
    powers = {}
    for knob, multiplied in settings.items():
        total = sum((power for setting, power in row.items() if setting in multiplied), Fraction(0))
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


def _missing(system: System, allow: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The fewest further knobs with which there is a repair.

    Of many knobs, or where more than three are needed, a set of which each is needed.
    """

    def enough(further: Sequence[str]) -> bool:
        _, unaltered = _eliminated(system, [*allow, *further])
        return all(_satisfied(system, combination) for combination in unaltered)

    largest = 3 if len(others) <= KNOBS_TO_TRY_TRIPLES_OF else 2
    if len(others) > KNOBS_TO_TRY_PAIRS_OF:
        largest = 1
    for count in range(1, largest + 1):
        for chosen in itertools.combinations(others, count):
            if enough(chosen):
                return chosen
    # The shortest beginning of the list that is enough; then without each that can be spared.
    shortest = bisect.bisect_left(range(len(others)), True, key=lambda n: enough(others[:n]))
    needed = list(others[:shortest])
    for knob in reversed(needed):
        fewer = [each for each in needed if each != knob]
        if enough(fewer):
            needed = fewer
    return tuple(needed)
