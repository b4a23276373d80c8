"""Whether two arrays are the same: in float64 to 1e-9, in float32 within a derived bound."""

from typing import NamedTuple

import numpy as np

from parity_tests.bounds import UNIT, Bounded, gamma

SAME = 1e-9  # in float64, of a tensor's size: another formula differs by more, rounding by less
# Elementary functions are computed to half a unit in the last place at best, and the bounds allow
# four: where no bound is derived, no side may be more than eight times as far as the other.
TIMES = 8.0


class Held(NamedTuple):
    """One array on both sides, held together."""

    place: str  # the layer or function, or what lies before it
    what: str  # output, input, gradient of ..., tensor ...
    phase: str  # forward, backward, statistics, ...
    kind: str  # float64, derived, or compared
    share: float  # of what is allowed; at most 1 passes
    torch: np.ndarray | None = None  # kept where it does not pass
    jax: np.ndarray | None = None

    @property
    def passed(self) -> bool:
        return self.share <= 1


def _held(
    place: str, what: str, phase: str, kind: str, share: float, torch: np.ndarray, jax: np.ndarray
) -> Held:
    share = np.inf if np.isnan(share) else share
    kept = (torch, jax) if share > 1 else ()
    return Held(place, what, phase, kind, share, *kept)


def same(
    place: str, what: str, phase: str, torch: np.ndarray, jax: np.ndarray, size: float = 0.0
) -> Held:
    """In float64.

    Args:
        size: of the terms that are summed, if the array may cancel to less.
    """
    if torch.shape != jax.shape:
        return _held(place, what, phase, "float64", np.inf, torch, jax)
    scale = max(largest(torch), size)
    return _held(
        place, what, phase, "float64", _share(_apart(torch, jax), SAME * scale), torch, jax
    )


def within(
    place: str, what: str, phase: str, torch: np.ndarray, jax: np.ndarray, truth: Bounded
) -> Held:
    """Both sides within the rounding-error bound of the exact value, element by element."""
    shares = []
    for side in (torch, jax):
        if side.shape != truth.value.shape:
            return _held(place, what, phase, "derived", np.inf, torch, jax)
        apart = _apart(truth.value, side)
        with np.errstate(all="ignore"):
            share = np.where(apart == 0, 0.0, apart / truth.error)
        shares.append(_worst(share))
    return _held(place, what, phase, "derived", max(shares), torch, jax)


def covers(bounded: Bounded, exact: np.ndarray) -> bool:
    """Whether a formula is that of the layer: a mask, or a second use of a weight, it knows not."""
    if bounded.value.shape != exact.shape:
        return False
    return bool((_apart(bounded.value, exact) <= bounded.error).all())


def rounded(
    place: str,
    what: str,
    phase: str,
    torch: np.ndarray,
    jax: np.ndarray,
    truth: np.ndarray,
    bounded: Bounded | None,
    size: float = 0.0,
    terms: int = 0,
) -> Held:
    """In float32: within the bound of a formula, if there is one that fits; else compared.

    Args:
        truth: in float64.
        size, terms: as `compared` takes them.
    """
    if bounded is not None and covers(bounded, truth):
        return within(place, what, phase, torch, jax, bounded)
    return compared(place, what, phase, torch, jax, truth, size, terms)


def compared(
    place: str,
    what: str,
    phase: str,
    torch: np.ndarray,
    jax: np.ndarray,
    truth: np.ndarray,
    size: float = 0.0,
    terms: int = 0,
) -> Held:
    """Neither side more than eight times as far from float64 as the other.

    No error is too far that is no larger than the rounding of the largest element.

    Args:
        size: of the terms that are summed, if the array may cancel to less.
        terms: of one sign, of which the array is a sum or a mean: in whatever order they are
            summed, it is off by no more than γ of so many (Higham 2002, (3.5)).
    """
    if not torch.shape == jax.shape == truth.shape:
        return _held(place, what, phase, "compared", np.inf, torch, jax)
    unit = UNIT["float32"]
    errors = [_worst(_apart(truth, side)) for side in (torch, jax)]
    scale = max(largest(truth), size)
    allowed = max(TIMES * max(min(errors), unit * scale), gamma(terms, unit) * scale)
    return _held(place, what, phase, "compared", _share(np.array(max(errors)), allowed), torch, jax)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute differences; infinite where only one is finite, 0 where both are alike otherwise."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(a - b)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(alike, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _share(apart: np.ndarray, allowed: float) -> float:
    worst = _worst(apart)
    return 0.0 if worst == 0 else worst / allowed if allowed else np.inf


def _worst(values: np.ndarray) -> float:
    return float(np.max(values, initial=0.0))


def largest(array: np.ndarray) -> float:
    """The largest absolute value of those that are finite."""
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0.0))
