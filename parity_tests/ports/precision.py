"""Whether an array was computed in fewer bits than its type has."""

from collections.abc import Iterator

import numpy as np

FORMATS = {"bfloat16": 8, "float16 or TF32": 11}  # bits of the significand
LEAST_SHARE = 0.99  # of the numbers that a format has to hold


def of_precision(exact: np.ndarray, found: np.ndarray | None) -> Iterator[tuple[str, str]]:
    """Says it where the numbers, or their errors, are those of a shorter format."""
    if found is None or exact.shape != found.shape or not found.size:
        return
    values = found.astype(np.float64)
    if not (np.isfinite(values).all() and np.isfinite(exact).all()):
        return
    error = np.abs(values - exact).max() / (np.abs(exact).max() or 1.0)
    for name, bits in FORMATS.items():
        held = _rounded(values, bits) == values
        if held[values != 0].mean() > LEAST_SHARE and error < 2.0 ** (2 - bits):
            yield "precision", f"every number is one of {name}"
            return
    for name, bits in FORMATS.items():
        if 2.0 ** -(bits + 3) < error < 2.0 ** -(bits - 3):
            yield "precision", f"an error of {error:.1g} is that of {name} inside"
            return


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """To so many bits of significand."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 2.0**bits), exponent - bits)
