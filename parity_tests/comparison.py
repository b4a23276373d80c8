"""What a check of one tensor says: how far apart, how much of the bound, where first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from parity_tests.bounds import Bounded

TWICE = 2.0  # adjudicated: neither side may be more than this much farther from the truth


@dataclass(frozen=True)
class Comparison:
    """One tensor on both sides.

    ulps are units in the last place of the tensor's largest element. share is error / bound:
    at most 1 passes; with a bound of 0 it is 0 or infinite.
    """

    level: str
    check: str
    tensor: str
    tolerance: str  # bitwise, derived, adjudicated, or what the level says
    ulps: float
    share: float
    failure: str = ""  # tensor, first index, both values, bound, share

    @property
    def passed(self) -> bool:
        return not self.failure


class ParityError(AssertionError):
    """The two sides differ by more than they may."""


def require(comparisons: Iterable[Comparison]) -> int:
    """The number of tensors compared, at least one.

    Raises:
        ParityError: a comparison failed; the first one is told.
    """
    count = 0
    for comparison in comparisons:
        if not comparison.passed:
            raise ParityError(comparison.failure)
        count += 1
    assert count, "nothing was compared"
    return count


def _ulps(a: np.ndarray, b: np.ndarray) -> float:
    if not a.size or a.dtype.kind != "f":
        return 0.0
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(np.concatenate([a.ravel(), b.ravel()])))
        return float(np.max(np.abs(a.astype(np.float64) - b)) / np.spacing(largest))


def compare(
    where: tuple[str, str, str], jax, torch, bound, tolerance: str, difference=None
) -> Comparison:
    """Each element within its bound; two equal infinities or two NaNs count as equal.

    Args:
        where: level, check, tensor.
        bound: on the difference, broadcast to the arrays.
        difference: what is held against the bound, unless |jax - torch|.
    """
    level, check, tensor = where
    jax, torch = np.asarray(jax), np.asarray(torch)
    name = f"{level}: {check}: {tensor}"
    if (jax.shape, jax.dtype) != (torch.shape, torch.dtype):
        sides = f"jax {jax.dtype} {jax.shape}, torch {torch.dtype} {torch.shape}"
        return Comparison(*where, tolerance, np.inf, np.inf, f"{name}: {sides}")
    with np.errstate(all="ignore"):
        unjudged = difference is None
        if difference is None:
            difference = np.abs(jax.astype(np.float64) - torch.astype(np.float64))
        bound = np.broadcast_to(np.asarray(bound, np.float64), jax.shape)
        same = (jax == torch) | ((jax != jax) & (torch != torch))
        share = np.where(difference == 0, 0.0, difference / bound)
        share = np.where(same & unjudged & ~np.isfinite(difference), 0.0, share)
        share = np.where(np.isnan(share), np.inf, share)
    worst = float(share.max(initial=0.0))
    failure = ""
    if worst > 1:
        index = tuple(int(i) for i in np.argwhere(share > 1)[0])
        failure = (
            f"{name}{list(index)}: jax {jax[index]!r}, torch {torch[index]!r}, "
            f"bound {bound[index]:.3g} ({tolerance}), share {share[index]:.3g}, "
            f"worst share {worst:.3g}"
        )
    return Comparison(*where, tolerance, _ulps(jax, torch), worst, failure)


def bitwise(where: tuple[str, str, str], jax, torch) -> Comparison:
    """Equal in every bit, but for the sign of zero."""
    jax, torch = np.asarray(jax), np.asarray(torch)
    unequal = None
    if jax.shape == torch.shape:
        unequal = np.where((jax == torch) | ((jax != jax) & (torch != torch)), 0.0, 1.0)
    return compare(where, jax, torch, 0.0, "bitwise", unequal)


def derived(
    where: tuple[str, str, str], jax, torch, jax_truth: Bounded, torch_truth: Bounded | None = None
) -> Comparison:
    """Both within their rounding-error bounds of the truth.

    The truth is computed in float64. For float64 sides it is itself rounded, within the same
    bound: each may then be twice as far from it.
    """
    torch_truth = torch_truth or jax_truth
    jax, torch = np.asarray(jax), np.asarray(torch)
    if not jax.shape == torch.shape == jax_truth.value.shape:
        sides = f"jax {jax.shape}, torch {torch.shape}, truth {jax_truth.value.shape}"
        return Comparison(*where, "derived", np.inf, np.inf, f"{': '.join(where)}: {sides}")
    with np.errstate(all="ignore"):
        widening = 2 if jax.dtype == np.float64 else 1
        shares, differences, bounds = [], [], []
        for side, truth in ((jax, jax_truth), (torch, torch_truth)):
            differences.append(np.abs(side.astype(np.float64) - truth.value))
            bounds.append(widening * truth.error)
            share = np.where(differences[-1] == 0, 0.0, differences[-1] / bounds[-1])
            shares.append(np.where(np.isnan(share), np.inf, share))
        # One bound and one difference for the message: those of the worse side.
        worse = shares[0] >= shares[1]
        difference, bound = np.where(worse, *differences), np.where(worse, *bounds)
        lost = np.isfinite(jax_truth.value) & ~(np.isfinite(jax) & np.isfinite(torch))
    return compare(where, jax, torch, bound, "derived", np.where(lost, np.nan, difference))


class Judged(NamedTuple):
    """One tensor on both sides, and what it ought to be for each."""

    jax: np.ndarray
    torch: np.ndarray
    jax_truth: Bounded
    torch_truth: Bounded


def adjudicated(where: tuple[str, str, str], samples: Sequence[Judged]) -> Comparison:
    """Neither side more than twice as far from float64 as the other, on average.

    Over all elements of all samples, each error in units of its own rounding-error bound, so that
    no few elements decide: one small tensor alone can be twice as far by chance. An error no
    larger than that of rounding the true value itself, u·|value|, is never too far.
    """
    errors = []
    for side, true in (("jax", "jax_truth"), ("torch", "torch_truth")):
        pairs = [(np.asarray(getattr(s, side), np.float64), getattr(s, true)) for s in samples]
        errors.append(_mean([(array - t.value, t) for array, t in pairs]))
    rounding = _mean([(s.jax_truth.unit * s.jax_truth.value, s.jax_truth) for s in samples])
    worse, bound = max(errors), TWICE * max(min(errors), rounding)
    share = 0.0 if worse == 0 else worse / bound if worse < np.inf else np.inf
    failure = ""
    if not share <= 1:
        level, check, tensor = where
        which = "jax" if not errors[0] <= errors[1] else "torch"
        failure = (
            f"{level}: {check}: {tensor}: mean distance from float64, in rounding-error bounds: "
            f"{which} {worse:.3g}, the other {min(errors):.3g}, bound {bound:.3g} (adjudicated), "
            f"share {share:.3g}"
        )
    ulps = max(_ulps(np.asarray(s.jax), np.asarray(s.torch)) for s in samples)
    return Comparison(*where, "adjudicated", ulps, share, failure)


def _mean(errors: list[tuple[np.ndarray, Bounded]]) -> float:
    """The mean of absolute errors in units of their bounds; infinite where one is NaN."""
    with np.errstate(all="ignore"):
        shares = [np.ravel(np.where(e == 0, 0.0, np.abs(e) / true.error)) for e, true in errors]
    mean = float(np.mean(np.concatenate(shares)))
    return mean if mean == mean else np.inf
