"""Surd: exact products and powers of roots, one rounding at the end."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp.law.surd import Surd, surd

POSITIVE = st.fractions(min_value=Fraction(1, 10**9), max_value=10**9)
EXPONENTS = st.fractions(-3, 3, max_denominator=4).filter(bool)


@given(POSITIVE, EXPONENTS)
def test_a_power_is_undone_by_its_inverse(value, exponent):
    assert (surd(value) ** exponent) ** (1 / exponent) == value


@given(POSITIVE, POSITIVE, EXPONENTS)
def test_powers_distribute_over_products_and_quotients(a, b, exponent):
    assert (surd(a) * b) ** exponent == surd(a) ** exponent * surd(b) ** exponent
    assert surd(a) / b * b == a


@given(POSITIVE, st.integers(1, 6))
def test_the_float_is_the_nearest_one(value, index):
    root = Surd(value, index)
    nearest = float(root)
    below = Fraction(nearest) / 2 + Fraction(math.nextafter(nearest, 0)) / 2
    above = Fraction(nearest) / 2 + Fraction(math.nextafter(nearest, math.inf)) / 2
    assert below**index <= value <= above**index


@given(st.floats(1e-300, 1e300))
def test_a_float_comes_back(value):
    assert float(surd(value)) == value
    assert float(surd(value) ** Fraction(1, 2) * surd(value) ** Fraction(1, 2)) == value


@pytest.mark.smoke
def test_perfect_powers_are_exact():
    assert float(Surd(Fraction(256), 8)) == 2.0
    assert Surd(Fraction(4), 2) == 2
    assert surd(1) not in (0, -1.0, math.inf, "1")
    assert Surd(Fraction(1, 10**400), 3).logarithm() == pytest.approx(-400 / 3 * math.log(10))


def test_what_lies_just_above_a_half_way_point_is_rounded_up():
    half_way = 1 + Fraction(1, 2**53)
    assert float(Surd(half_way**2, 2)) == 1.0  # to even
    assert float(Surd(half_way**2 + Fraction(1, 2**300), 2)) == math.nextafter(1, 2)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_what_is_not_a_positive_number_is_refused(value):
    with pytest.raises(ValueError, match="must be a positive number"):
        surd(value)


def test_what_no_float_holds_overflows():
    with pytest.raises(OverflowError):
        float(surd(1e300) ** 2)
