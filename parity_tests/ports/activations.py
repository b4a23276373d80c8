"""Elementwise layers: value and derivative of each.

Inputs are exact, so which branch a kink takes is certain; on the kink itself the derivative is
torch's, and the bound covers any between the two slopes. Only ReLU's, 0 at 0, is the same
everywhere. A derivative without cancellation is bounded by its own formula; where a library's has
some (1 - tanh², exp(x - log(1 + exp x))), that formula is bounded, too.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

from parity_tests.bounds import ERFC, Bounded, constant, exact, where
from parity_tests.ports.layer import Formula, Inputs, NoFormula, Pass, Tensors, floating

ASSOCIATED = 2  # roundings of cotangent·(a + b) where another has cotangent·a + cotangent·b
THRESHOLD = 20  # beyond it torch's softplus is the identity
Activation = Callable[..., tuple[Bounded, Bounded]]  # (x, **config): value, derivative


def elementwise(activation: Activation) -> Formula:
    def formula(tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, **config) -> Pass:
        value, derivative = activation(floating(inputs[0]), **config)
        if cotangent is None:
            return Pass(value)
        return Pass(value, [(cotangent * derivative).rounded(ASSOCIATED)])

    return formula


def _one(x: Bounded) -> Bounded:
    return exact(np.ones_like(x.value), x.unit)


def _slopes(x: Bounded, kink: float, below: Bounded, above: Bounded, at: float) -> Bounded:
    """A derivative that jumps at the kink, where it is `at` or anything between."""
    jump = np.where(x.value == kink, np.abs(above.value - below.value), 0)
    on_kink = exact(np.full_like(x.value, at), x.unit)
    sides = where(x.value < kink, below, above)
    return where(x.value == kink, on_kink, sides).wider(jump)


def relu(x: Bounded) -> tuple[Bounded, Bounded]:
    return x.relu(), exact(x.value > 0, x.unit)


def relu6(x: Bounded) -> tuple[Bounded, Bounded]:
    value = x.arranged(lambda array: np.clip(array, 0, 6))
    zero = _one(x).masked(np.zeros_like(x.value))
    return value, _slopes(x, 6, _slopes(x, 0, zero, _one(x), 0), zero, 0)


def leaky_relu(x: Bounded, *, slope: float) -> tuple[Bounded, Bounded]:
    steep = constant(np.full_like(x.value, slope), x.unit)
    return where(x.value > 0, x, x * slope), _slopes(x, 0, steep, _one(x), slope)


def elu(x: Bounded, *, alpha: float = 1.0) -> tuple[Bounded, Bounded]:
    negative = x.arranged(lambda array: np.minimum(array, 0))
    falling = negative.expm1()
    below = (negative.exp() * alpha).also((falling + _one(x)) * alpha)
    return where(x.value > 0, x, falling * alpha), _slopes(x, 0, below, _one(x), alpha)


def gelu(x: Bounded, *, approximate: str = "none") -> tuple[Bounded, Bounded]:
    """x·Φ(x).

    Raises:
        NoFormula: an approximation other than none and tanh.
    """
    if approximate == "tanh":
        return _gelu_tanh(x)
    if approximate != "none":
        raise NoFormula(f"gelu by {approximate}")
    argument = x * np.sqrt(0.5)
    by_erf = (argument.erf() + 1.0) * 0.5
    # By erfc: its relative error grows with the square of a positive argument.
    grown = 1 + np.minimum(x.value, 0) ** 2 / 2
    phi = special.ndtr(x.value)
    by_erfc = Bounded(phi, 2 * ERFC * x.unit * grown * phi, x.unit).rounded()
    cumulative = Bounded(phi, by_erf.error, x.unit).also(by_erfc)
    density = (x * x * -0.5).exp() * np.sqrt(0.5 / np.pi)
    return x * cumulative, cumulative + x * density


def _gelu_tanh(x: Bounded) -> tuple[Bounded, Bounded]:
    factor, cubic = np.sqrt(2 / np.pi), 0.044715
    square = x * x
    inner = (x + square * x * cubic) * factor
    tanh = inner.tanh()
    half = (tanh + 1.0) * 0.5
    slope = (square * (3 * cubic) + 1.0) * factor
    return x * half, half + x * 0.5 * (_one(x) - tanh * tanh) * slope


def sigmoid(x: Bounded) -> tuple[Bounded, Bounded]:
    value = x.logistic()
    return value, value * (_one(x) - value)


def silu(x: Bounded) -> tuple[Bounded, Bounded]:
    """x·σ(x), its derivative as σ + x·σ·(1 - σ) or σ·(1 + x·(1 - σ))."""
    logistic = x.logistic()
    rest = _one(x) - logistic
    derivative = logistic + x * logistic * rest
    return x * logistic, derivative.also(logistic * (_one(x) + x * rest))


def tanh(x: Bounded) -> tuple[Bounded, Bounded]:
    value = x.tanh()
    return value, _one(x) - value * value


def softplus(x: Bounded) -> tuple[Bounded, Bounded]:
    """log(1 + exp x), with or without the larger of x and 0 taken out."""
    true = np.logaddexp(x.value, 0)
    size = x.arranged(np.abs)
    taken_out = x.relu() + (-size).exp().log1p()
    direct = x.arranged(lambda array: np.minimum(array, THRESHOLD)).exp().log1p()
    left_out = np.where(x.value > THRESHOLD, np.exp(-size.value), 0)
    stable = Bounded(true, taken_out.error, x.unit)
    value = stable.also(direct.masked(x.value <= THRESHOLD)).wider(left_out)
    derivative = x.logistic().wider(left_out)
    composed = (x - value).exp()  # XLA's logaddexp: exp(x - value)
    return value, derivative.also(composed)


def hardswish(x: Bounded) -> tuple[Bounded, Bounded]:
    """x·min(max(x + 3, 0), 6)/6."""
    gate = (x + exact(3.0, x.unit)).relu()
    full = exact(np.full_like(x.value, 6), x.unit) * (1 / 6)
    open_ = where(x.value < 3, gate * (1 / 6), full)
    rising = (x * (1 / 3) + 0.5).also(gate * (1 / 6) + x * (1 / 6))
    zero = _one(x).masked(np.zeros_like(x.value))
    derivative = _slopes(x, 3, _slopes(x, -3, zero, rising, 0), full, 1)
    # So near to the upper kink x + 3 may be rounded to 6.
    near = (x.value != 3) & (np.abs(x.value - 3) <= 6 * x.unit)
    return x * open_, derivative.wider(np.where(near, 0.5, 0))


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "hardswish": hardswish,
}
