"""In which way two arrays differ: at a border, in some channels, by a factor, by a shift."""

import numpy as np

NEAR = 1e-6  # relative: what a hypothesis has to fit to
SMALL = 1e-5  # relative: of less the place says little
FEW = 0.5  # of the places along an axis: fewer are named


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """To single precision, of the arrays' size."""
    if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
        return False
    return bool(np.abs(a - b).max(initial=0.0) <= NEAR * np.abs(a).max(initial=0.0))


def words(torch: np.ndarray, jax: np.ndarray, weights: bool = False) -> str:
    """How the port's array differs from the original's.

    Args:
        weights: the arrays are of a layer's weights, and not of examples.
    """
    a, b = torch.astype(np.float64), jax.astype(np.float64)
    if a.shape != b.shape:
        return f"its shape is {b.shape}, the original's {a.shape}"
    finite = np.isfinite(a) == np.isfinite(b)
    if not finite.all():
        return f"{int((~finite).sum())} of {a.size} numbers are not finite"
    apart = np.abs(a - b).max() / (np.abs(a).max() or 1.0)
    if apart < SMALL:
        return f"by {apart:.2g} of the largest number, at most"
    if a.size > 1 and close(np.sort(a, axis=None), np.sort(b, axis=None)):
        return "the same numbers in another order"
    factor = ratio(a, b)
    if factor is not None:
        return f"by a constant factor, {factor:.6g}"
    if a.size > 1 and np.ptp(b - a) <= NEAR * np.abs(a).max():
        return f"by a constant shift, {float((b - a).mean()):.6g}"
    return where(a, b, weights)


def ratio(a: np.ndarray, b: np.ndarray) -> float | None:
    """b over a, if that is one number."""
    square = float((a * a).sum())
    factor = float((a * b).sum()) / square if square else 0.0
    if not factor or not close(factor * a, b):
        return None
    return factor


def where(a: np.ndarray, b: np.ndarray, weights: bool = False) -> str:
    """Which elements differ."""
    differs = np.abs(a - b) > NEAR * np.abs(a).max(initial=0.0)
    share = differs.mean()
    if not a.ndim:
        return f"by {float(b - a):.3g}, of {float(a):.6g}"
    if a.ndim >= 4 and (found := border(differs)):
        return f"{found} ({share:.0%} of the elements)"
    for axis, name in enumerate(_axes(a.ndim, weights)):
        others = tuple(each for each in range(a.ndim) if each != axis)
        places = np.flatnonzero(differs.any(axis=others))
        if 0 < len(places) <= FEW * a.shape[axis] and a.shape[axis] > 1:
            shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
            return f"only in {name} {shown} of {a.shape[axis]}"
    if a.ndim >= 2 and (found := _by_channel(a, b)):
        return found
    return "in all elements" if share > 0.9 else f"in {share:.0%} of the elements"


def border(differs: np.ndarray) -> str:
    """Says that only what lies at the edge of an image differs, which is padding's."""
    sides = []
    for axis in range(2, differs.ndim):
        size = differs.shape[axis]
        if size < 3:
            return ""
        inner = [slice(None)] * differs.ndim
        inner[axis] = slice(1, size - 1)
        sides.append(tuple(inner))
    middle = differs
    for side in sides:
        middle = middle[side]
    return "at the border alone: padding" if differs.any() and not middle.any() else ""


def _by_channel(a: np.ndarray, b: np.ndarray) -> str:
    """Says that each channel (axis 1 of images, else the last) is shifted or multiplied."""
    axis = 1 if a.ndim == 4 else a.ndim - 1
    first, second = (np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (a, b))
    if first.shape[1] < 2:
        return ""
    size = NEAR * np.abs(a).max()
    if (np.ptp(second - first, axis=1) <= size).all():
        return "by a shift of each channel: a bias"
    squares = (first * first).sum(axis=1)
    if (squares > 0).all():
        factors = (first * second).sum(axis=1) / squares
        if (np.abs(factors[:, None] * first - second) <= size).all():
            return "by a factor of each channel: a scale"
    return ""


def _axes(dims: int, weights: bool) -> list[str]:
    if dims == 1:
        return ["place"]
    if weights:
        return ["row", *(f"place (axis {axis})" for axis in range(1, dims))]
    names = {2: ["example", "feature"], 3: ["example", "place", "feature"]}
    images = ["example", "channel", *(["row", "column"] if dims == 4 else [])]
    found = names.get(dims, images)
    return [*found, *(f"place along axis {axis}" for axis in range(len(found), dims))]
