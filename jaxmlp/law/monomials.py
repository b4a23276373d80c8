"""Products of rational powers of named things, and what solves equations between them: exact.

In logarithms a product of powers is a linear combination. So equations between such products are
a linear system over the rationals, and elimination needs no tolerance.
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
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


def solve(
    equations: Sequence[tuple[Sequence[Fraction], Mapping[Key, Fraction]]], unknowns: int
) -> tuple[list[dict[Key, Fraction]], list[list[Fraction]]]:
    """A solution of linear equations whose right-hand sides are logarithms of monomials.

    Those equations that contradict earlier ones are left out.

    Args:
        equations: coefficients of the unknowns, and the right-hand side.

    Returns:
        The solution in which free unknowns are 0, and a basis of what can be added to it.
    """
    rows = [([*coefficients], dict(right)) for coefficients, right in equations]
    pivots: list[int] = []
    for column in range(unknowns):
        done = len(pivots)
        place = next((i for i in range(done, len(rows)) if rows[i][0][column]), None)
        if place is None:
            continue
        coefficients, right = rows.pop(place)
        inverse = 1 / coefficients[column]
        pivot = [inverse * entry for entry in coefficients], product((right, inverse))
        rows = [_less(row, row[0][column], pivot) for row in rows]
        rows.insert(done, pivot)
        pivots.append(column)
    solution: list[dict[Key, Fraction]] = [{} for _ in range(unknowns)]
    for column, (_, right) in zip(pivots, rows, strict=False):
        solution[column] = right
    null = []
    for free in (column for column in range(unknowns) if column not in pivots):
        vector = [Fraction(int(column == free)) for column in range(unknowns)]
        for column, (coefficients, _) in zip(pivots, rows, strict=False):
            vector[column] = -coefficients[free]
        null.append(vector)
    return solution, null


def _less(row: tuple[list, dict], share: Fraction, pivot: tuple[list, dict]) -> tuple[list, dict]:
    if not share:
        return row
    coefficients = [a - share * b for a, b in zip(row[0], pivot[0], strict=True)]
    return coefficients, product((row[1], 1), (pivot[1], -share))


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


def sparse(
    rows: Sequence[Mapping[Any, Fraction]],
    names: Sequence[Hashable],
    cost: Mapping[Any, int] | None = None,
) -> list[dict[Any, Fraction]]:
    """Another basis of what the rows span, for reading: few names in a row, and near each other.

    Args:
        names: all, in order.
        cost: of a name in a row; 1 where it is not given.
    """
    place = {name: index for index, name in enumerate(names)}
    prices = cost or {}

    def price(row: Mapping[Any, Fraction]) -> tuple[int, int]:
        places = [place[name] for name in row]
        return sum(prices.get(name, 1) for name in row), max(places) - min(places)

    basis = [dict(row) for row in rows]
    improved = True
    while improved:
        improved = False
        for i, j in itertools.permutations(range(len(basis)), 2):
            cheapest = min(_sums(basis[i], basis[j]), key=price, default=basis[i])
            if price(cheapest) < price(basis[i]):
                basis[i], improved = cheapest, True
    return basis


def _sums(row: Mapping[Any, Fraction], other: Mapping[Any, Fraction]) -> list[dict[Any, Fraction]]:
    """The row with as much of the other as frees it from one name."""
    shares = {-row[name] / other[name] for name in row.keys() & other.keys()}
    return [product((row, 1), (other, share)) for share in sorted(shares)]
