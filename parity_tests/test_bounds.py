"""The bounds hold for real float32 arithmetic, and are no looser than they say."""

import jax
import numpy as np
import pytest
import torch
from scipy import special

from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from parity_tests.bounds import (
    ERF,
    ERFC,
    EXPM1,
    LIBRARY,
    RSQRT,
    SQRT,
    TANH,
    UNIT,
    Bounded,
    bilinear,
    exact,
    gamma,
    where,
)

OPERATIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "chain": lambda a, b: (a * b - a) / (b * b) + a,
}


def numbers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    sizes = 10.0 ** draw.uniform(-4, 4, (2, 1000))
    first, second = (sizes * draw.choice([-1, 1], (2, 1000))).astype(np.float32)
    return first, second


@pytest.mark.parametrize("name", OPERATIONS)
def test_elementwise_float32_stays_within_the_bound_and_comes_near_it(name):
    a, b = numbers(1)
    computed = OPERATIONS[name](a, b)
    assert computed.dtype == np.float32
    bound = OPERATIONS[name](exact(a, UNIT["float32"]), exact(b, UNIT["float32"]))
    share = np.abs(computed - bound.value) / bound.error
    assert 0.4 < share.max() <= 1


def test_square_roots_stay_within_the_bound():
    a = np.abs(numbers(2)[0])
    once = exact(a, UNIT["float32"]).sqrt()
    assert (np.abs(np.sqrt(a) - once.value) <= once.error).all()
    moved = Bounded(a.astype(np.float64), 0.5 * a, UNIT["float32"]).sqrt()
    assert (np.abs(np.sqrt(np.float32(0.5) * a) - moved.value) <= moved.error).all()


@pytest.mark.parametrize("order", ["forward", "backward", "sorted", "pairwise"])
def test_inner_products_in_any_order_stay_within_the_bound(order):
    a, b = numbers(3)
    products = a * b
    if order == "pairwise":
        total = np.float32(products.sum())
    else:
        rearranged = {"forward": products, "backward": products[::-1], "sorted": np.sort(products)}
        total = np.float32(0)
        for product in rearranged[order]:
            total += product
    bound = exact(a[None], UNIT["float32"]) @ exact(b[:, None], UNIT["float32"])
    assert np.abs(total - bound.value[0, 0]) <= bound.error[0, 0]
    # Higham's gamma, and not more than it by more than the slack.
    size = np.abs(a.astype(np.float64)) @ np.abs(b)
    assert bound.error[0, 0] < 1.01 * gamma(1000, UNIT["float32"]) * size


def test_a_sign_is_certain_only_where_the_error_cannot_turn_it():
    value = Bounded(np.array([1.0, -1.0, 1e-9, 0.0]), np.array([0.1, 0.1, 1e-8, 0.0]), 2.0**-24)
    assert value.sign().error.tolist() == [0, 0, 2, 0]


def test_a_divisor_that_may_be_zero_has_no_bound():
    quotient = exact([1.0], 2.0**-24) / Bounded(np.array([1e-9]), np.array([1e-8]), 2.0**-24)
    assert np.isinf(quotient.error)


FUNCTIONS = {  # where they are used
    "exp": (np.exp, jax.numpy.exp, torch.exp, (-80, 30), LIBRARY),
    "log": (np.log, jax.numpy.log, torch.log, (1 + 1e-6, 10), LIBRARY),
    "log of many": (np.log, jax.numpy.log, torch.log, (10, 1e5), LIBRARY),
    "log1p": (np.log1p, jax.numpy.log1p, torch.log1p, (0, 1), LIBRARY),
    "log1p of large": (np.log1p, jax.numpy.log1p, torch.log1p, (1, 5e8), LIBRARY),
    "cos": (np.cos, jax.numpy.cos, torch.cos, (0, np.pi), LIBRARY),
    "expm1": (np.expm1, jax.numpy.expm1, torch.expm1, (-20, -1e-4), EXPM1),
    "expm1 near 0": (np.expm1, jax.numpy.expm1, torch.expm1, (-0.1, 0), EXPM1),
    "sqrt": (np.sqrt, jax.numpy.sqrt, torch.sqrt, (0.001, 100), SQRT),
    "rsqrt": (lambda x: 1 / np.sqrt(x), jax.lax.rsqrt, torch.rsqrt, (1e-6, 100), RSQRT),
    "tanh": (np.tanh, jax.numpy.tanh, torch.tanh, (-20, 20), TANH),
    "tanh near 0": (np.tanh, jax.numpy.tanh, torch.tanh, (-0.1, 0.1), TANH),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), jax.nn.sigmoid, torch.sigmoid, (-80, 80), LIBRARY),
}
# NumPy has no longer double of these: SciPy's, itself a unit off in float64.
ERROR_FUNCTIONS = {
    "erf": (special.erf, jax.scipy.special.erf, torch.erf, (-6, 6)),
    "erf near 0": (special.erf, jax.scipy.special.erf, torch.erf, (-0.1, 0.1)),
    "erfc": (special.erfc, jax.scipy.special.erfc, torch.erfc, (-6, 9)),
}


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18), reason="needs a truth more precise than float64"
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_library_functions_are_within_the_assumed_units_in_the_last_place(name, dtype):
    true, in_jax, in_torch, (low, high), limit = FUNCTIONS[name]
    x = np.linspace(low, high, 100_000, dtype=dtype)
    value = true(x.astype(np.longdouble))
    with precision(Experiment(precision=dtype)):
        sides = np.asarray(jax.jit(in_jax)(x)), in_torch(torch.from_numpy(x)).numpy()
    for computed in sides:
        assert computed.dtype == dtype
        # cos near its zero, which the schedule adds 1 to: units of the sum.
        size = np.maximum(np.abs(value), 1) if name == "cos" else np.abs(value)
        ulps = np.abs(computed - value) / np.spacing(size.astype(dtype))
        assert ulps.max() <= limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ERROR_FUNCTIONS)
def test_error_functions_are_within_the_assumed_units_in_the_last_place(name, dtype):
    true, in_jax, in_torch, (low, high) = ERROR_FUNCTIONS[name]
    x = np.linspace(low, high, 100_000, dtype=dtype)
    value = true(x.astype(np.float64))
    limit = ERFC * (1 + np.maximum(x, 0.0) ** 2) if name == "erfc" else ERF
    with precision(Experiment(precision=dtype)):
        sides = np.asarray(jax.jit(in_jax)(x)), in_torch(torch.from_numpy(x)).numpy()
    for computed in sides:
        assert computed.dtype == dtype
        ulps = np.abs(computed - value) / np.spacing(np.abs(value).astype(dtype))
        assert (ulps <= limit).all()


MOVED = {  # where arguments are, and how steep the slope's logarithm is
    "exp": (np.exp, Bounded.exp, (-5, 5), 1),
    "expm1": (np.expm1, Bounded.expm1, (-5, 5), 1),
    "log": (np.log, Bounded.log, (1, 9), 1.5),
    "log1p": (np.log1p, Bounded.log1p, (0, 9), 1.5),
    "sqrt": (np.sqrt, Bounded.sqrt, (1, 9), 1),
    "rsqrt": (lambda x: 1 / np.sqrt(x), Bounded.rsqrt, (1, 9), 2),
    "tanh": (np.tanh, Bounded.tanh, (-5, 5), 2),
    "erf": (special.erf, Bounded.erf, (-5, 5), 10),
    "logistic": (special.expit, Bounded.logistic, (-9, 9), 1),
}


@pytest.mark.parametrize("size", [1e-6, 0.01, 0.3])
@pytest.mark.parametrize("name", MOVED)
def test_an_argument_s_error_is_passed_on_whole_and_not_much_more(name, size):
    function, operation, (low, high), steep = MOVED[name]
    x = np.linspace(low, high, 1001)
    bound = operation(Bounded(x, np.full_like(x, size), UNIT["float64"]))
    moved = np.maximum(*(np.abs(function(x + by) - function(x)) for by in (-size, size)))
    assert (moved <= bound.error).all()
    assert (bound.error <= moved * np.exp(steep * size) * 1.001 + 1e-14 * (1 + np.exp(x))).all()


def test_a_root_s_argument_is_not_below_its_floor():
    square = Bounded(np.array([0.0, 1.0]), np.array([1.0, 1.0]), UNIT["float64"])
    assert np.isinf(square.rsqrt().error).all()
    error = Bounded(square.value + 0.01, square.error, square.unit).rsqrt(floor=0.01).error
    np.testing.assert_allclose(error[1], 10 - 1 / np.sqrt(1.01), rtol=1e-5)


def test_only_what_may_be_the_largest_moves_a_maximum():
    values = Bounded(np.array([[3.0, 2.5, -1e9]]), np.array([[0.1, 0.7, 60.0]]), 2.0**-24)
    assert values.max(1).error.tolist() == [[0.7]]
    assert values[:, ::2].max(1).error.tolist() == [[0.1]]


def test_sums_and_means_over_several_axes_count_all_their_terms():
    x = exact(np.ones((2, 3, 4)), 2.0**-24)
    np.testing.assert_allclose(x.sum((0, 2)).error, 8 * gamma(8, x.unit), rtol=1e-5)
    np.testing.assert_allclose(x.sum().error, 24 * gamma(24, x.unit), rtol=1e-5)
    assert x.mean((1, -1)).value.tolist() == pytest.approx([1, 1])


def test_a_product_passes_on_what_either_factor_brought():
    draw = np.random.default_rng(4)
    a, b = draw.normal(size=(2, 3, 4)), draw.normal(size=(2, 4, 5))
    moved_a, moved_b = (draw.uniform(-0.1, 0.1, x.shape) for x in (a, b))
    bounded = [Bounded(x, np.abs(by), UNIT["float64"]) for x, by in ((a, moved_a), (b, moved_b))]
    bound = bilinear(np.matmul, *bounded, terms=4)
    assert (np.abs((a + moved_a) @ (b + moved_b) - a @ b) <= bound.error).all()
    assert (bound.error < 4 * 0.1 * (np.abs(a).max() + np.abs(b).max() + 0.2)).all()
    assert bound.error.tolist() == (bounded[0] @ bounded[1]).error.tolist()


def test_each_element_keeps_the_error_of_the_side_it_is_taken_from():
    yes, no = (Bounded(np.full(2, v), np.full(2, v / 10), 2.0**-24) for v in (1.0, 2.0))
    taken = where(np.array([True, False]), yes, no)
    assert (taken.value.tolist(), taken.error.tolist()) == ([1, 2], [0.1, 0.2])
