"""What a layer's formulas are given and what they give."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity_tests.bounds import Bounded, gamma

Tensors = Mapping[str, Bounded]
Inputs = Sequence[Bounded | np.ndarray]  # arrays: whole numbers and masks, which have no errors


class Pass(NamedTuple):
    """A layer's value and, if there was a cotangent, its gradients with respect to everything."""

    output: Bounded
    input_gradients: Sequence[Bounded | None] = ()  # one for each input; None for whole numbers
    gradients: Mapping[str, Bounded] = {}  # by the tensor's local name: weight, bias, ...


Formula = Callable[..., Pass]  # (tensors, inputs, cotangent, **config)


class NoFormula(ValueError):  # noqa: N818
    """A configuration that is not written down here."""


def floating(array: Bounded | np.ndarray) -> Bounded:
    """An input that has to consist of floating-point numbers.

    Raises:
        TypeError: they are whole numbers.
    """
    if not isinstance(array, Bounded):
        raise TypeError(f"whole numbers where floating-point numbers belong: {array.dtype}")
    return array


def with_bias(product: Bounded, bias: Bounded | None, terms: int) -> Bounded:
    """One term more in a sum of so many, wherever in the order: it passes every addition.

    Args:
        bias: broadcasts to the product.
    """
    if bias is None:
        return product
    return (product + bias).wider(gamma(terms + 1, product.unit) * np.abs(bias.value))
