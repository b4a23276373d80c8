"""The largest eigenvalue of a symmetric matrix known by its products, inside a compiled program."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Products at most; measured: 6 to 58 give six digits of random experiments. The eigenvalues of a
# larger matrix LAPACK finds in threads of its own, which XLA's on a CPU then wait for: 100 ms.
STEPS = 64
STRIDE = 4  # products between two looks at what is known

Vector = Float[Array, " size"]


class Ritz(NamedTuple):
    """The largest eigenvalue as it is known after some products."""

    value: Float[Array, ""]  # NaN if a product was not finite
    error: Float[Array, ""]  # an estimate


class Tridiagonal(NamedTuple):
    """What Lanczos makes of the matrix."""

    diagonal: Float[Array, " steps"]
    beside: Float[Array, " steps"]  # [i] couples i and i + 1; 0 where nothing is left


def largest(product: Callable[[Vector], Vector], start: Vector, tolerance: float) -> Ritz:
    """Of a symmetric matrix: Lanczos until the estimated error is below `tolerance`, relative.

    The vectors are not made orthogonal again: of the largest eigenvalue, rounding then makes
    copies, and takes nothing from it (Paige 1980, doi 10.1016/0024-3795(80)90167-6). So nothing but
    the last two of them is kept.

    Args:
        start: where the iteration begins, with a share in every eigenvector.
    """
    size = jnp.zeros(STEPS, start.dtype)
    unit = start / _norm(start)
    unknown = Ritz(jnp.ones_like(size[0]), jnp.full_like(size[0], jnp.inf))

    def step(i, state):
        before, vector, (diagonal, beside) = state
        coupling = jnp.where(i > 0, beside[i - 1], 0)
        image = product(vector) - coupling * before
        along = jnp.vdot(image, vector)
        image = image - along * vector
        length = _norm(image)
        after = image / jnp.where(length > 0, length, 1)
        return vector, after, Tridiagonal(diagonal.at[i].set(along), beside.at[i].set(length))

    def stride(state):
        count, vectors, _ = state
        vectors = jax.lax.fori_loop(count, count + STRIDE, step, vectors)
        return count + STRIDE, vectors, ritz(vectors[2], count + STRIDE)

    def unfinished(state):
        count, _, (value, error) = state
        return (count < STEPS) & (error > tolerance * jnp.abs(value))  # false for NaN

    begin = (jnp.int32(0), (jnp.zeros_like(unit), unit, Tridiagonal(size, size)), unknown)
    return jax.lax.while_loop(unfinished, stride, begin)[2]


def ritz(made: Tridiagonal, count: Int[Array, ""]) -> Ritz:
    """The largest eigenvalue of the first `count` rows, and how far the matrix's may be from it.

    The error is that of a Rayleigh quotient, residual² / distance to the next, or the residual if
    that is smaller.
    """
    diagonal, beside = made
    index = jnp.arange(STEPS)
    left = jnp.cumprod(beside > 0)  # a NaN counts as an end
    there = (index < count) & ((index == 0) | (jnp.roll(left, 1) > 0))
    own, coupled = jnp.where(there, diagonal, 0), jnp.where(there[1:], beside[:-1], 0)
    scale = jnp.maximum(jnp.max(jnp.abs(own)), jnp.max(coupled))
    unit = jnp.where(scale > 0, scale, 1)
    # Rows that are not there lie below all others: the largest eigenvalue is not below own[0].
    full, coupled = jnp.where(there, own / unit, -2), coupled / unit
    matrix = jnp.diag(full) + jnp.diag(coupled, 1) + jnp.diag(coupled, -1)
    values, vectors = jnp.linalg.eigh(matrix)
    last = jnp.sum(there) - 1
    residual = beside[last] / unit * jnp.abs(vectors[last, -1])
    tiny = jnp.finfo(residual.dtype).tiny
    distance = jnp.maximum(jnp.maximum(values[-1] - values[-2], residual), tiny)
    finite = jnp.all(jnp.isfinite(diagonal)) & jnp.all(jnp.isfinite(beside))
    value = jnp.where(finite, unit * values[-1], jnp.nan)
    return Ritz(value, unit * residual * (residual / distance))


def _norm(vector: Vector) -> Float[Array, ""]:
    """The length, where the squares of the entries would over- or underflow, too."""
    largest = jnp.max(jnp.abs(vector))
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.linalg.norm(vector / unit)
