"""Lanczos inside a program: the largest eigenvalue, an honest error, and what is no matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlp.forecasting import lanczos

TOLERANCE = 1e-7


def found(matrix: np.ndarray, start: np.ndarray | None = None) -> tuple[float, float]:
    """Value and estimated error of a matrix, in its own precision."""
    size, dtype = len(matrix), matrix.dtype
    if start is None:
        start = np.random.default_rng(9).normal(size=size).astype(dtype)
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        held = jnp.asarray(matrix)
        value, error = jax.jit(lambda v: lanczos.largest(lambda x: held @ x, v, TOLERANCE))(start)
    return float(value), float(error)


def symmetric(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with these eigenvalues."""
    size = len(values)
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return (turned * values) @ turned.T


SPECTRA = {
    "one": np.array([3.0]),
    "two": np.array([-2.0, 5.0]),
    "fewer than a stride": np.array([1.0, 2.0, 4.0]),
    "even": np.linspace(-1, 1, 70),
    "one far above": np.append(np.linspace(-1, 1, 200), 30.0),
    "one far below": np.append(np.append(np.linspace(-1, 1, 200), 1.5), -30.0),
    "the largest twice": np.append(np.linspace(0, 1, 50), [2.0, 2.0]),
    "all alike": np.full(20, 0.25),
    "none above 0": np.linspace(-9, -2, 40),
    "zeros but for one": np.append(np.zeros(30), 1e-3),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_it_is_the_largest_eigenvalue(name):
    values = SPECTRA[name]
    value, error = found(symmetric(values))
    assert value == pytest.approx(values.max(), rel=1e-6)
    assert error <= TOLERANCE * abs(value)


@pytest.mark.parametrize("exponent", [-100, -60, 0, 60, 100])
def test_no_square_over_or_underflows(exponent):
    matrix = symmetric(np.linspace(-0.5, 1, 60)).astype(np.float32)
    value, _ = found(matrix * np.float32(2.0**exponent))
    assert value == pytest.approx(found(matrix)[0] * 2.0**exponent, rel=1e-6)


def test_what_its_steps_do_not_settle_has_an_error_that_says_so():
    # The closer to 1, the closer to each other: no polynomial of degree 63 tells them apart.
    value, error = found(symmetric(1 - np.linspace(0, 1, 400) ** 2))
    assert TOLERANCE < 1 - value < error


def test_a_matrix_of_zeros_has_the_eigenvalue_0():
    assert found(np.zeros((7, 7))) == (0, 0)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_product_that_is_not_finite_has_no_eigenvalue(broken):
    matrix = np.diag([1.0, 2.0, broken])
    assert np.isnan(found(matrix)[0])


def test_many_at_once_are_each_what_they_are_alone():
    matrices = np.stack([symmetric(np.linspace(-1, top, 30), 4) for top in (0.5, 1.0, 20.0)])
    start = np.random.default_rng(9).normal(size=30)
    with jax.enable_x64(True):
        together = jax.vmap(
            lambda matrix: lanczos.largest(lambda x: matrix @ x, jnp.asarray(start), TOLERANCE)
        )(jnp.asarray(matrices))
    alone = [found(matrix, start)[0] for matrix in matrices]
    np.testing.assert_allclose(np.asarray(together.value), alone, rtol=1e-12)
