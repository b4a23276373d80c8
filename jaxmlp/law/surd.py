"""Exact roots of rational numbers: what the law multiplies, divides and takes roots of."""

import math
from dataclasses import dataclass
from fractions import Fraction

Number = int | float | Fraction


@dataclass(frozen=True, eq=False)
class Surd:
    """The positive number radicand^(1/index). Products, quotients and rational powers are exact."""

    radicand: Fraction
    index: int = 1

    def __mul__(self, other: "Surd | Number") -> "Surd":
        other = surd(other)
        index = math.lcm(self.index, other.index)
        return Surd(
            self.radicand ** (index // self.index) * other.radicand ** (index // other.index), index
        )

    def __pow__(self, exponent: int | Fraction) -> "Surd":
        exponent = Fraction(exponent)
        shared = math.gcd(exponent.numerator, self.index)
        return Surd(
            self.radicand ** (exponent.numerator // shared),
            self.index // shared * exponent.denominator,
        )

    def __truediv__(self, other: "Surd | Number") -> "Surd":
        return self * surd(other) ** -1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Surd | int | float | Fraction):
            return NotImplemented
        if not isinstance(other, Surd) and not 0 < other < math.inf:
            return False
        return (self / other).radicand == 1

    __hash__ = None  # equal numbers are written in several ways  # pyright: ignore

    def logarithm(self) -> float:
        """The natural logarithm, to a few units in the last place."""
        return (
            math.log(self.radicand.numerator) - math.log(self.radicand.denominator)
        ) / self.index

    def __float__(self) -> float:
        """The nearest float.

        Raises:
            OverflowError: it is larger than every float.
        """
        size = self.radicand.numerator.bit_length() - self.radicand.denominator.bit_length()
        shift = 64 - size // self.index  # so that the root has at least 63 bits
        scaled = self.radicand * Fraction(2) ** (shift * self.index)
        root = _integer_root(int(scaled), self.index)
        exact = Fraction(root) ** self.index == scaled
        # An inexact root lies between two integers; half-way stands for all that is between them.
        return float((root if exact else root + Fraction(1, 2)) / Fraction(2) ** shift)


def surd(value: "Surd | Number") -> Surd:
    """`value` exactly; a float is the binary fraction that it holds.

    Raises:
        ValueError: it is not a positive number.
    """
    if isinstance(value, Surd):
        return value
    if not 0 < value < math.inf:
        raise ValueError(f"{value} must be a positive number")
    return Surd(Fraction(value))


def _integer_root(value: int, index: int) -> int:
    """The largest integer whose index-th power is not above value; Newton from just above."""
    if index == 1:
        return value
    # Of a high index, each step from far away would take off one part in the index only.
    root = math.ceil(2.0 ** (math.log2(value) / index) * (1 + 1e-9))
    while True:
        lower = ((index - 1) * root + value // root ** (index - 1)) // index
        if lower >= root:
            return root
        root = lower


def rounded(name: str, value: Surd | int) -> float:
    """The nearest float.

    Args:
        name: what the value is, for the message.

    Raises:
        ValueError: it is larger than every float.
    """
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} would be too large for a float; choose milder factors") from None
