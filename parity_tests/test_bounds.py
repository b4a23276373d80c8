"""The bounds hold for real float32 arithmetic, and are no looser than they say."""

import jax
import numpy as np
import pytest
import torch

from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from parity_tests.bounds import EXPM1, LIBRARY, SQRT, UNIT, Bounded, exact, gamma

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
    "exp": (np.exp, jax.numpy.exp, torch.exp, (-80, 0), LIBRARY),
    "log": (np.log, jax.numpy.log, torch.log, (1 + 1e-6, 10), LIBRARY),
    "cos": (np.cos, jax.numpy.cos, torch.cos, (0, np.pi), LIBRARY),
    "expm1": (np.expm1, jax.numpy.expm1, torch.expm1, (-9, -1e-4), EXPM1),
    "sqrt": (np.sqrt, jax.numpy.sqrt, torch.sqrt, (0.001, 100), SQRT),
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
