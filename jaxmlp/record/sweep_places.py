"""Where a sweep's runs lie in a figure: cells where they form a grid, points elsewhere."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

DECADE = 10  # a ratio of the ends from which on an axis is logarithmic
DIGITS = 7  # of a place: less is rounding
SMALLEST_POINT, LARGEST_POINT, POINTS_AREA = 8.0, 60.0, 16_000  # square points; by eye

Values = Float[np.ndarray, " runs"]


def draw(axis, across: Values, up: Values, values: Values, merge: Any, **options) -> Any:
    """Colours the places by their values; what a colour bar is made of.

    Args:
        merge: makes one value of those at one place.
    """
    grid = gridded(across, up, values, merge)
    if grid and min(grid[2].shape) > 1:
        columns, rows, merged = grid
        return axis.pcolormesh(edges(columns), edges(rows), merged, **options)
    size = max(SMALLEST_POINT, min(LARGEST_POINT, POINTS_AREA / len(values)))
    return axis.scatter(across, up, c=values, s=size, marker="s", linewidths=0, **options)


def gridded(
    across: Values, up: Values, values: Values, merge: Any
) -> (
    tuple[
        Float[np.ndarray, " columns"], Float[np.ndarray, " rows"], Float[np.ndarray, "rows columns"]
    ]
    | None
):
    """Columns, rows and values if the places form a full grid; else None.

    Args:
        merge: makes one value of those at one place.
    """
    columns, which_column = _distinct(across)
    rows, which_row = _distinct(up)
    cells: dict[tuple[int, int], list[float]] = {}
    for x, y, value in zip(which_column.tolist(), which_row.tolist(), values, strict=True):
        cells.setdefault((y, x), []).append(value)
    if len(cells) < len(columns) * len(rows):
        return None
    merged = np.empty((len(rows), len(columns)))
    for place, together in cells.items():
        merged[place] = merge(together)
    return columns, rows, merged


def _distinct(values: Values) -> tuple[Float[np.ndarray, " distinct"], Int[np.ndarray, " runs"]]:
    """The different values, but for rounding, and which of them each is."""
    with np.errstate(divide="ignore"):
        decimals = DIGITS - 1 - np.floor(np.log10(np.abs(values)))
    rounded = []
    for value, places in zip(values, decimals, strict=True):
        rounded.append(round(value, int(places)) if np.isfinite(places) else value)
    return np.unique(rounded, return_inverse=True)


def set_scales(axis, across: Values, up: Values) -> None:
    """Makes logarithmic the axes whose values ask for it."""
    for name, values in (("x", across), ("y", up)):
        if logarithmic(values):
            axis.set(**{f"{name}scale": "log"})


def logarithmic(values: Float[np.ndarray, " places"]) -> bool:
    return bool(values.min() > 0 and values.max() > DECADE * values.min())


def ends(values: Values) -> tuple[float, float]:
    """A little beyond the cells, or the points."""
    if len(places := _distinct(values)[0]) > 1:
        borders = edges(places)
        return float(borders[0]), float(borders[-1])
    return float(values.min()) / 1.1, float(values.max()) * 1.1


def edges(places: Float[np.ndarray, " places"]) -> Float[np.ndarray, " edges"]:
    """The borders of cells around the places, half-way on the axis that they get."""
    if logarithmic(places):
        return np.exp(_edges_between(np.log(places)))
    return _edges_between(places)


def _edges_between(places: Float[np.ndarray, " places"]) -> Float[np.ndarray, " edges"]:
    middle = (places[1:] + places[:-1]) / 2
    return np.array([2 * places[0] - middle[0], *middle, 2 * places[-1] - middle[-1]])
