"""Numbers that carry a bound on their own rounding errors, computed in float64.

A `Bounded` array holds what exact arithmetic gives (`value`, in float64) and, element by element,
how far a computation in the working precision can be from it (`error`), whatever the order of its
sums and with or without fused multiply-adds. Every operation adds to what its operands bring along:

- elementwise (Higham 2002, ch. 2, the standard model): fl(x op y) = (x op y)(1 + δ), |δ| ≤ u;
- inner products of n terms (ch. 3, (3.5)): |fl(xᵀy) − xᵀy| ≤ γₙ |x|ᵀ|y|, γₙ = n·u / (1 − n·u);
- roots `SQRT`, exp, log, cos `LIBRARY` units in the last place (of which u is half a one), and so
  on: assumptions about the mathematical libraries that test_bounds.py measures on both sides;
- what underflows is lost altogether: `TINY` is added to every elementwise operation and product.

`unit` is the u of the working precision. The float64 evaluation of the bounds is itself rounded;
for float32 that is 2⁻²⁹ of them, for float64 `SLACK` pays for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
TINY = {"float32": 2.0**-126, "float64": 2.0**-1022}  # XLA's CPU code flushes subnormals to zero
SQRT = 1  # the same of the root, which XLA does not round correctly; measured: 0.75
RSQRT = 2  # the same of 1/√x; measured: 1.6 in XLA, 1.5 in torch
EXPM1 = 6  # the same of expm1; measured: 5.2 in XLA
TANH = 8  # the same of tanh; measured: 4.7 in XLA in float32, 7.3 in float64
ERF = 6  # the same of erf; measured: 5.3 in XLA
ERFC = 8  # the same of erfc, times 1 + x² where x > 0; measured: 7.2 in XLA, 6.0 in torch
LIBRARY = 4  # units in the last place; measured: at most 2.5 for each function used, on CPU
SLACK = 1 + 2.0**-20


@dataclass(frozen=True)
class Bounded:
    """Exact values, and how far computed ones may lie from them."""

    value: np.ndarray
    error: np.ndarray
    unit: float

    def rounded(self, roundings: float = 1) -> "Bounded":
        """After an operation: its own rounding on top of what the operands brought."""
        size = np.abs(self.value) + self.error
        error = SLACK * (self.error + roundings * self.unit * size) + self._tiny
        return Bounded(self.value, error, self.unit)

    @property
    def _tiny(self) -> float:
        return TINY["float32" if self.unit > 2.0**-40 else "float64"]

    def _with(self, other) -> "Bounded":
        return other if isinstance(other, Bounded) else constant(other, self.unit)

    def __add__(self, other) -> "Bounded":
        other = self._with(other)
        return Bounded(self.value + other.value, self.error + other.error, self.unit).rounded()

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error, self.unit)

    def __sub__(self, other) -> "Bounded":
        return self + -self._with(other)

    def __mul__(self, other) -> "Bounded":
        other = self._with(other)
        error = (
            self.error * np.abs(other.value)
            + np.abs(self.value) * other.error
            + self.error * other.error
        )
        return Bounded(self.value * other.value, error, self.unit).rounded()

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other) -> "Bounded":
        other = self._with(other)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.value / other.value
            certain = np.abs(other.value) > other.error
            least = np.where(certain, np.abs(other.value) - other.error, np.nan)
            error = (self.error + np.abs(value) * other.error) / least
        return Bounded(value, np.where(certain, error, np.inf), self.unit).rounded()

    def sqrt(self) -> "Bounded":
        root = np.sqrt(self.value)
        below = root - np.sqrt(np.maximum(self.value - self.error, 0))
        above = np.sqrt(self.value + self.error) - root
        return Bounded(root, np.maximum(below, above), self.unit).rounded(2 * SQRT)

    def exp(self) -> "Bounded":
        value = np.exp(self.value)
        error = value * np.expm1(np.minimum(self.error, 700))
        return Bounded(value, error, self.unit).rounded(2 * LIBRARY)

    def log(self) -> "Bounded":
        """Where the value is certainly positive."""
        value = np.log(self.value)
        return Bounded(value, -np.log1p(-self.error / self.value), self.unit).rounded(2 * LIBRARY)

    def log1p(self) -> "Bounded":
        """Where the value is certainly above -1."""
        value = np.log1p(self.value)
        error = -np.log1p(-self.error / (1 + self.value))
        return Bounded(value, error, self.unit).rounded(2 * LIBRARY)

    def expm1(self) -> "Bounded":
        value = np.expm1(self.value)
        error = np.exp(self.value) * np.expm1(np.minimum(self.error, 700))
        return Bounded(value, error, self.unit).rounded(2 * EXPM1)

    def rsqrt(self, floor: float = 0.0) -> "Bounded":
        """1/√x: one operation, or a root and a quotient.

        Args:
            floor: what is computed is not below it, whatever the error says.
        """
        root, most = np.sqrt(self.value), np.sqrt(self.value + self.error)
        lowest = np.maximum(self.value - self.error, floor)
        least = np.sqrt(lowest)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (self.value - lowest) / (root * least * (root + least))
            below = self.error / (root * most * (root + most))
            error = np.where(least > 0, np.maximum(above, below), np.inf)
            return Bounded(1 / root, error, self.unit).rounded(2 * (SQRT + RSQRT))

    def tanh(self) -> "Bounded":
        return self._sigmoidal(np.tanh, lambda x: 1 / np.cosh(np.minimum(x, 300)) ** 2, TANH)

    def erf(self) -> "Bounded":
        return self._sigmoidal(
            special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(np.minimum(x, 26) ** 2)), ERF
        )

    def logistic(self) -> "Bounded":
        def slope(x: np.ndarray) -> np.ndarray:
            return special.expit(x) * special.expit(-x)

        return self._sigmoidal(special.expit, slope, LIBRARY)

    def _sigmoidal(self, function: Callable, slope: Callable, ulps: int) -> "Bounded":
        """A function whose slope is even and falls with |x|: no steeper than at the nearest."""
        nearest = np.maximum(np.abs(self.value) - self.error, 0)
        error = self.error * slope(nearest)
        return Bounded(function(self.value), error, self.unit).rounded(2 * ulps)

    def cos(self) -> "Bounded":
        """Where something of size 1 is added to it: in units of 1."""
        error = self.error + 2 * LIBRARY * self.unit
        return Bounded(np.cos(self.value), error, self.unit)

    def sign(self) -> "Bounded":
        """Certain where the value is, or where it is exactly 0 without error."""
        certain = (np.abs(self.value) > self.error) | (self.error == 0)
        return Bounded(np.sign(self.value), np.where(certain, 0.0, 2.0), self.unit)

    def relu(self) -> "Bounded":
        """No step in the function, so errors pass as they are; where surely off, there is none."""
        off = self.value + self.error <= 0
        return Bounded(np.maximum(self.value, 0), np.where(off, 0, self.error), self.unit)

    def masked(self, mask: np.ndarray) -> "Bounded":
        return Bounded(self.value * mask, self.error * mask, self.unit)

    def max(self, axis: int) -> "Bounded":
        """Keeps the axis. Only what may be the largest can move it."""
        surely = (self.value - self.error).max(axis, keepdims=True)
        error = np.where(self.value + self.error >= surely, self.error, 0)
        return Bounded(
            self.value.max(axis, keepdims=True), error.max(axis, keepdims=True), self.unit
        )

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Bounded":
        terms = self._terms(axis)
        size = (np.abs(self.value) + self.error).sum(axis, keepdims=keepdims)
        error = self.error.sum(axis, keepdims=keepdims) + gamma(terms, self.unit) * size
        return Bounded(self.value.sum(axis, keepdims=keepdims), SLACK * error, self.unit)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Bounded":
        """The sum times 1/n, a rounded constant, or divided by n, which rounds less."""
        return self.sum(axis, keepdims) * (1 / self._terms(axis))

    def _terms(self, axis: int | tuple[int, ...] | None) -> int:
        if axis is None:
            return self.value.size
        axes = (axis,) if isinstance(axis, int) else axis
        return int(np.prod([self.value.shape[a] for a in axes], dtype=int))

    def __matmul__(self, other: "Bounded") -> "Bounded":
        return bilinear(np.matmul, self, other, terms=self.value.shape[-1])

    def also(self, other: "Bounded") -> "Bounded":
        """The same values computed in either of two ways."""
        return Bounded(self.value, np.maximum(self.error, other.error), self.unit)

    def wider(self, error: np.ndarray) -> "Bounded":
        return Bounded(self.value, self.error + error, self.unit)

    def within_unit_interval(self) -> "Bounded":
        """The computed value, too, lies in [0, 1] but for a few roundings."""
        farthest = np.maximum(self.value, 1 - self.value) + 8 * self.unit
        return Bounded(self.value, np.minimum(self.error, farthest), self.unit)

    @property
    def T(self) -> "Bounded":  # noqa: N802
        return self.arranged(np.transpose)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def reshape(self, *shape: int) -> "Bounded":
        return self.arranged(lambda array: array.reshape(shape))

    def swapaxes(self, one: int, other: int) -> "Bounded":
        return self.arranged(lambda array: array.swapaxes(one, other))

    def arranged(self, rearrange: Callable[[np.ndarray], np.ndarray]) -> "Bounded":
        """Elements moved, repeated or left out, none computed."""
        return Bounded(rearrange(self.value), rearrange(self.error), self.unit)

    def __getitem__(self, index) -> "Bounded":
        return self.arranged(lambda array: array[index])


def where(condition: np.ndarray, yes: Bounded, no: Bounded) -> Bounded:
    """Each element of one or the other, as a condition without error has it."""
    value = np.where(condition, yes.value, no.value)
    return Bounded(value, np.where(condition, yes.error, no.error), yes.unit)


def bilinear(product: Callable, a: Bounded, b: Bounded, terms: int) -> Bounded:
    """Sums of so many products of an element of a and one of b (matrix product, convolution).

    Args:
        product: the values from the values, in float64; with no negative arrays it is monotone.
        terms: of the longest sum.
    """
    size, other_size = np.abs(a.value), np.abs(b.value)
    # |x| e_y + e_x (|y| + e_y) from the operands, gamma times (|x| + e_x)(|y| + e_y) on top.
    error = gamma(terms, a.unit) * product(size + a.error, other_size + b.error)
    if a.error.any():
        error = error + product(a.error, other_size + b.error)
    if b.error.any():
        error = error + product(size, b.error)
    error = error + 2 * terms * a._tiny
    return Bounded(product(a.value, b.value), SLACK * error, a.unit)


def gamma(n: int, unit: float) -> float:
    """Higham 2002, (3.1)."""
    return n * unit / (1 - n * unit)


def exact(array, unit: float) -> Bounded:
    """An array that both sides hold as it is."""
    value = np.asarray(array, np.float64)
    return Bounded(value, np.zeros_like(value), unit)


def constant(number, unit: float) -> Bounded:
    """A number that each side rounds to the working precision."""
    value = np.asarray(number, np.float64)
    return Bounded(value, unit * np.abs(value), unit)
