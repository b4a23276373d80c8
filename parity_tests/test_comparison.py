"""The judge itself: what it must never let pass, and what it says."""

import numpy as np
import pytest

from parity_tests.bounds import Bounded
from parity_tests.comparison import Judged, ParityError, adjudicated, bitwise, derived, require

WHERE = ("level", "check", "tensor")
UNIT = 2.0**-24


def bounded(value, error) -> Bounded:
    return Bounded(np.asarray(value, np.float64), np.asarray(error, np.float64), UNIT)


def test_a_failure_names_tensor_index_values_bound_and_share():
    jax = np.array([[1.0, 2.0], [3.0, 4.5]], np.float32)
    torch = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    found = derived(WHERE, jax, torch, bounded(torch, np.full((2, 2), 0.25)))
    assert found.share == 2
    for word in ("level: check: tensor[1, 1]", "4.5", "4.0", "bound 0.25", "share 2"):
        assert word in found.failure
    with pytest.raises(ParityError, match="tensor"):
        require([found])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_on_one_side_never_passes(bad):
    jax, torch = np.array([1, bad], np.float32), np.array([1, 2], np.float32)
    truth = bounded(torch, [1e-6, 1e30])
    for a, b in ((jax, torch), (torch, jax)):
        assert not bitwise(WHERE, a, b).passed
        assert not derived(WHERE, a, b, truth).passed
        assert not adjudicated(WHERE, [Judged(a, b, truth, truth)]).passed


def test_an_infinite_or_nan_bound_lets_no_nan_pass():
    jax, torch = np.array([np.nan], np.float32), np.array([2], np.float32)
    for error in (np.inf, np.nan):
        assert not derived(WHERE, jax, torch, bounded([2], [error])).passed


def test_shapes_and_types_must_agree():
    jax = np.zeros(3, np.float32)
    assert not bitwise(WHERE, jax, jax.astype(np.float64)).passed
    assert not bitwise(WHERE, jax, jax[:2]).passed
    assert not derived(WHERE, jax, jax[:2], bounded(jax, jax)).passed


def test_one_bit_is_seen_and_the_sign_of_zero_is_not():
    one = np.float32(1)
    assert not bitwise(WHERE, one, np.nextafter(one, np.float32(2))).passed
    assert bitwise(WHERE, np.float32(0.0), np.float32(-0.0)).passed


def test_float64_sides_may_be_twice_as_far_from_a_truth_in_float64():
    truth = bounded([1.0], [1e-15])
    assert derived(WHERE, np.array([1.0]), np.array([1.0 + 1e-15]), truth).passed
    assert not derived(WHERE, np.array([1.0]), np.array([1.0 + 3e-15]), truth).passed


def test_the_worse_side_is_judged_by_the_better_one():
    value = np.linspace(1, 2, 50)
    truth = bounded(value, np.full(50, 1e-5))
    near, far = value.astype(np.float32), (value * (1 + 1e-6)).astype(np.float32)
    assert adjudicated(WHERE, [Judged(near, near, truth, truth)]).passed
    found = adjudicated(WHERE, [Judged(near, far, truth, truth)])
    assert not found.passed
    assert "torch" in found.failure
    assert "jax" in adjudicated(WHERE, [Judged(far, near, truth, truth)]).failure


def test_nothing_compared_is_an_error():
    with pytest.raises(AssertionError, match="nothing was compared"):
        require([])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_where_the_bound_is_zero_either_side_can_fail(bad):
    truth = bounded([0.0], [0.0])
    good, other = np.array([0], np.float32), np.array([bad], np.float32)
    assert derived(WHERE, good, good, truth).passed
    assert not derived(WHERE, good, other, truth).passed
    assert not derived(WHERE, other, good, truth).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_sides_that_fail_alike_fail(bad, dtype):
    both = np.array([bad], dtype)
    assert not derived(WHERE, both, both, bounded([2.0], [1e-6])).passed


def test_a_tensor_missing_on_both_sides_or_of_another_shape_fails():
    truth = bounded([2.0], [1.0])
    assert not derived(WHERE, (), (), truth).passed
    assert not derived(
        WHERE, np.array([2, 2], np.float32), np.array([2, 2], np.float32), truth
    ).passed
