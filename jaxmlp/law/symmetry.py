"""The rescalings that leave a network's losses as they are, from derivatives of the losses.

A rescaling multiplies each tensor p_i by e^(t·v_i). By the chain rule it leaves every loss as it is
iff Σ v_i · dℓ/dt_i = 0 everywhere, where dℓ/dt_i is the derivative with p_i alone multiplied by
e^t. So the rescalings are the nullspace of a matrix of such derivatives: a column for each tensor,
a row for each of so many random points that further ones add nothing to their span. In float64 a
gap of several orders of magnitude separates the singular values that are rounding from those that
are not, and the echelon form of the nullspace has small rational entries.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Exponents = Mapping[Any, Fraction]  # by tensor: v_i; those that are 0 are not listed

# Relative to the largest column. Measured on sixteen architectures: the mean that a normalisation
# subtracts leaves 1e-17 to 1e-15 of a tensor, and no tensor with an effect is below 1e-6.
INERT = 1e-12
# Relative to the largest singular value. Measured there: rounding is below 1e-12, and all else
# above 1e-5; what lies between is refused.
NULL = 1e-9
LEAST_GAP = 1e3
LARGEST_DENOMINATOR = 24  # assumed: exponents are powers of layers that share, such as 1/3
MISFIT = 1e-5  # of an entry from its rational; measured: 1e-9 where there is one
# Of a symmetry that something breaks: its singular value, and its exponents, which are blurred.
NEAR, NEAR_DENOMINATOR, NEAR_MISFIT = 1e-3, 2, 0.05


class Near(NamedTuple):
    """A rescaling that something breaks, such as an eps that does not move along."""

    exponents: Exponents  # approximately
    strength: float  # singular value, relative to the largest: how strongly it is broken


class Rescalings(NamedTuple):
    """The group: all products of its generators."""

    generators: tuple[Exponents, ...]  # reduced echelon form, in the tensors' order
    inert: tuple[str, ...]  # tensors whose size has no effect, each a generator by itself
    near: tuple[Near, ...]
    gap: float  # the smallest singular value that counts, over the largest that is rounding


def rescalings(
    derivatives: Float[np.ndarray, "points tensors"], tensors: Sequence[str]
) -> Rescalings:
    """The group of rescalings that leave all losses as they are.

    Args:
        derivatives: of each point's loss, along each tensor; as many points as `settled` asks for.

    Raises:
        ValueError: there is no clear gap, or an exponent is no small rational.
    """
    sizes = np.linalg.norm(derivatives, axis=0)
    if not np.isfinite(sizes).all():
        worst = tensors[int(np.argmin(np.isfinite(sizes)))]
        raise ValueError(f"the losses have no finite derivative along {worst}")
    # A column of rounding errors, scaled up, would put its noise into the others' exponents.
    active = _active(sizes)
    inert = tuple(name for name, acts in zip(tensors, active, strict=True) if not acts)
    names = [name for name, acts in zip(tensors, active, strict=True) if acts]
    scaled = derivatives[:, active] / sizes[active]
    values, vectors = _decomposed(scaled)
    null = values <= NULL
    gap = _gap(values, null)
    if gap < LEAST_GAP:
        raise ValueError(
            f"no clear gap between what leaves the losses as they are and what does not: singular "
            f"values {values[null].max():.1e} and {values[~null].min():.1e}, where a factor of "
            f"{LEAST_GAP:g} is needed; a part of the network may compute in less than float64"
        )
    rows = _exponents(vectors[null] / sizes[active], names, LARGEST_DENOMINATOR, MISFIT)
    if rows is None:
        raise ValueError(
            "the losses stay as they are along a direction whose exponents are no small rationals; "
            "no rescaling of this network can be relied on"
        )
    generators = [*rows, *({name: Fraction(1)} for name in inert)]
    order = {name: place for place, name in enumerate(tensors)}
    generators.sort(key=lambda row: min(order[name] for name in row))
    near = _near(values, vectors, null, sizes[active], names, rows)
    return Rescalings(tuple(generators), inert, near, gap)


def settled(derivatives: Float[np.ndarray, "points tensors"], spare: int) -> bool:
    """Whether the last `spare` points added nothing to the span of those before them.

    A random point adds to it unless it lies within, and if several do, then all do: the losses are
    analytic in the tensors but for kinks.
    """
    if not np.isfinite(derivatives).all():
        return True  # what is wrong is said by `rescalings`
    before = derivatives[: len(derivatives) - spare]
    return len(before) > 0 and _rank(before) == _rank(derivatives)


def _rank(derivatives: np.ndarray) -> int:
    sizes = np.linalg.norm(derivatives, axis=0)
    active = _active(sizes)
    values = np.linalg.svd(derivatives[:, active] / sizes[active], compute_uv=False)
    return int((values > NULL * values.max(initial=0.0)).sum())


def _active(sizes: np.ndarray) -> np.ndarray:
    return sizes > INERT * sizes.max(initial=0.0)


def _decomposed(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values relative to the largest, and right singular vectors, one for each column."""
    points, tensors = matrix.shape
    if not matrix.size:
        return np.zeros(0), np.zeros((0, 0))
    _, values, vectors = np.linalg.svd(matrix, full_matrices=points < tensors)
    values = np.concatenate([values / values[0], np.zeros(tensors - len(values))])
    if points < tensors and values[points - 1] > NULL:
        raise ValueError(f"{points} points are too few for {tensors} tensors: each adds something")
    return values, vectors


def _gap(values: np.ndarray, null: np.ndarray) -> float:
    smallest = values[~null].min(initial=1.0)
    rounding = max(values[null].max(initial=0.0), np.finfo(np.float64).eps)
    return float(smallest / rounding)


def _near(
    values: np.ndarray,
    vectors: np.ndarray,
    null: np.ndarray,
    sizes: np.ndarray,
    names: Sequence[str],
    exact: Sequence[Exponents],
) -> tuple[Near, ...]:
    """What would be in the group but for something small, the least broken first."""
    near = []
    for index in np.flatnonzero(~null & (values < NEAR))[::-1]:
        rows = _exponents(vectors[index:] / sizes, names, NEAR_DENOMINATOR, NEAR_MISFIT)
        if rows is None:
            break
        known = [*exact, *(each.exponents for each in near)]
        new = [row for row in rows if row not in known]
        near += [Near(row, float(values[index])) for row in new[:1]]
    return tuple(near)


# ---- from a basis of floats to rationals


def _exponents(
    basis: np.ndarray, names: Sequence[str], largest: int, misfit: float
) -> list[dict[str, Fraction]] | None:
    """The reduced echelon form of the rows, as rationals; None if an entry is not near a small one.

    Args:
        basis: rows, overwritten.
    """
    rows = []
    for row in _echelon(basis, misfit):
        entries = [Fraction(value).limit_denominator(largest) for value in row]
        misfits = np.abs(row - np.array(entries, float)) / np.maximum(1, np.abs(row))
        if misfits.max() > misfit:
            return None
        rows.append({name: entry for name, entry in zip(names, entries, strict=True) if entry})
    return rows


def _echelon(basis: np.ndarray, zero: float) -> np.ndarray:
    """Gauss-Jordan elimination, the first columns first; each row's first entry is 1."""
    rows = basis / np.abs(basis).max(axis=1, keepdims=True) if basis.size else basis
    done = 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        pivot = done + int(np.argmax(np.abs(rows[done:, column])))
        if abs(rows[pivot, column]) <= zero * np.abs(rows[done:]).max():
            continue
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] /= rows[done, column]
        others = np.arange(len(rows)) != done
        rows[others] -= np.outer(rows[others, column], rows[done])
        done += 1
    return rows
