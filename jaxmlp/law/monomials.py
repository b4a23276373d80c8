"""Products of rational powers of named things, and what solves equations between them: exact.

In logarithms a product of powers is a linear combination. So equations between such products are
a linear system over the rationals, and elimination needs no tolerance.
"""

from collections.abc import Hashable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


def product(*terms: tuple[Mapping[Key, Fraction], Fraction | int]) -> dict[Key, Fraction]:
    """The product of monomials, each to a power; what cancels is left out."""
    total: dict[Key, Fraction] = {}
    for monomial, power in terms:
        for key, exponent in monomial.items():
            total[key] = total.get(key, Fraction(0)) + exponent * power
    return {key: exponent for key, exponent in total.items() if exponent}


class Row(NamedTuple):
    """A combination of equations under elimination."""

    powers: dict[Any, Fraction]  # of the unknowns
    combination: dict[Any, Fraction]  # of the equations that were given, by name


def eliminate(
    equations: Mapping[Any, dict[Any, Fraction]], unknowns: Iterable[Any]
) -> tuple[dict[Any, dict[Any, Fraction]], list[dict[Any, Fraction]]]:
    """Gauss-Jordan elimination of the unknowns, in their order; those that come late may be free.

    Args:
        equations: by name, each with the powers of the unknowns that its product has.

    Returns:
        For each unknown that is used the combination of equations that it is; and the
        combinations that no unknown alters.
    """
    pending = [Row(powers, {name: Fraction(1)}) for name, powers in equations.items()]
    solved: dict[Any, Row] = {}
    for unknown in unknowns:
        pivot = next((row for row in pending if unknown in row.powers), None)
        if pivot is None:
            continue
        pending.remove(pivot)
        # To the power that leaves the unknown itself; then out of all other rows.
        inverse = 1 / pivot.powers[unknown]
        pivot = Row(product((pivot.powers, inverse)), product((pivot.combination, inverse)))
        pending = [_without(row, unknown, pivot) for row in pending]
        solved = {other: _without(row, unknown, pivot) for other, row in solved.items()}
        solved[unknown] = pivot
    combinations = {unknown: row.combination for unknown, row in solved.items()}
    return combinations, [row.combination for row in pending]


def _without(row: Row, unknown: Any, pivot: Row) -> Row:
    """The row less as much of the pivot as frees it from the unknown."""
    if unknown not in row.powers:
        return row
    share = -row.powers[unknown]
    return Row(
        product((row.powers, 1), (pivot.powers, share)),
        product((row.combination, 1), (pivot.combination, share)),
    )
