"""Labels beside the points of a figure, where they cross no line, no marker and no other label."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.path import Path
from matplotlib.transforms import Bbox

DISTANCES = (7, 12, 18, 26, 36, 50)  # in points, from the place to the label
SIDES = (  # how much of it to the right, and how much up, in the order of preference
    *((1, 0), (-1, 0)),
    *((1, 1), (1, -1), (-1, 1), (-1, -1)),
    *((0, 1), (0, -1)),
    *((0.3, 1), (0.3, -1), (-0.3, 1), (-0.3, -1)),
)
Position = tuple[float, float]  # of a label from its place, right and up, in points
POSITIONS = [(d * right, d * up) for d, (right, up) in itertools.product(DISTANCES, SIDES)]
CLEARANCE = 2  # in points, around a label
START = {-1: 1.0, 0: 0.5, 1: 0.0}  # by side: how much of a label lies before its position


class Label(NamedTuple):
    """What is written beside a place."""

    text: str
    place: tuple[float, float]  # in the axes' units
    style: dict[str, Any]  # of matplotlib's text


class Choice(NamedTuple):
    """What a label can choose from, in the order of POSITIONS."""

    boxes: list[Bbox]  # what it would cover, in pixels
    crossed: list[int]  # of what is drawn


def put(axis: Any, labels: Sequence[Label]) -> None:
    """Writes labels beside their places, once all else of a figure is drawn.

    Each in turn takes the nearest position that is free, or the one where it crosses least: in
    several orders, of which the one that leaves them nearest counts.
    """
    axis.figure.draw_without_rendering()  # lays the axes out
    lines, boxes = _lines(axis), [*_markers(axis), *_legend(axis)]
    texts = [_write(axis, label) for label in labels]
    choices = [_choice(text, axis, lines, boxes) for text in texts]
    taken = min((_in_turn(choices, order) for order in _orders(choices)), key=_cost, default={})
    for i, (position, _) in taken.items():
        _move(texts[i], POSITIONS[position])


def _orders(choices: list[Choice]) -> Iterator[list[int]]:
    """Who has the least choice first; and the same with each in front of all."""
    scarce = sorted(range(len(choices)), key=lambda i: choices[i].crossed.count(0))
    for first in scarce:
        yield [first, *(i for i in scarce if i != first)]


def _in_turn(choices: list[Choice], order: list[int]) -> dict[int, tuple[int, int]]:
    """By label the position that it takes, and how much it crosses there."""
    taken: dict[int, tuple[int, int]] = {}
    for i in order:
        others = [choices[other].boxes[position] for other, (position, _) in taken.items()]
        crossed = [
            before + _overlaps(box, others)
            for box, before in zip(choices[i].boxes, choices[i].crossed, strict=True)
        ]
        taken[i] = crossed.index(min(crossed)), min(crossed)
    return taken


def _cost(taken: dict[int, tuple[int, int]]) -> tuple[int, float]:
    """What is crossed; and where that is equal, how far the labels are from their places."""
    away = sum(math.hypot(*POSITIONS[position]) for position, _ in taken.values())
    return sum(crossed for _, crossed in taken.values()), away


# ---- a label


def _write(axis: Any, label: Label) -> Any:
    return axis.annotate(
        label.text, label.place, (0, 0), textcoords="offset points", parse_math=False, **label.style
    )


def _move(text: Any, position: Position) -> None:
    """Puts a text on one side of its place."""
    right, up = map(_sign, position)
    text.xyann = position
    text.set_ha({1: "left", 0: "center", -1: "right"}[right])
    text.set_va({1: "bottom", 0: "center", -1: "top"}[up])


def _choice(text: Any, axis: Any, lines: list[Path], boxes: list[Bbox]) -> Choice:
    """What a text would cover and cross in each of POSITIONS."""
    size, pixels = text.get_window_extent(), axis.figure.dpi / 72
    x, y = axis.transData.transform(text.xy)
    covered = []
    for right, up in POSITIONS:
        left = x + right * pixels - START[_sign(right)] * size.width
        bottom = y + up * pixels - START[_sign(up)] * size.height
        box = Bbox.from_bounds(left, bottom, size.width, size.height)
        covered.append(box.padded(CLEARANCE * pixels))
    return Choice(covered, [_crossings(box, axis.bbox, lines, boxes) for box in covered])


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


# ---- what it must not cross


def _crossings(box: Bbox, inside: Bbox, lines: list[Path], boxes: list[Bbox]) -> int:
    """How many lines and boxes it would cross; more than all of them if it left the axes."""
    crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
    crossed += _overlaps(box, boxes)
    whole = inside.x0 <= box.x0 and inside.y0 <= box.y0
    whole = whole and box.x1 <= inside.x1 and box.y1 <= inside.y1
    return crossed if whole else crossed + len(lines) + len(boxes) + 1


def _overlaps(box: Bbox, others: Sequence[Bbox]) -> int:
    return sum(box.overlaps(other) for other in others)


def _lines(axis: Any) -> list[Path]:
    """The drawn lines, in pixels."""
    drawn = [line for line in axis.lines if line.get_linestyle() not in ("None", "", " ")]
    paths = (line.get_transform().transform_path(line.get_path()) for line in drawn)
    return [path.cleaned(remove_nans=True) for path in paths if len(path.vertices)]


def _markers(axis: Any) -> Iterator[Bbox]:
    """The boxes of the lines' markers, in pixels."""
    for line in axis.lines:
        if line.get_marker() in ("None", "", " ", None):
            continue
        points = (line.get_markersize() + line.get_markeredgewidth()) / 2
        half = points * axis.figure.dpi / 72
        for x, y in line.get_transform().transform(line.get_xydata()):
            yield Bbox.from_extents(x - half, y - half, x + half, y + half)


def _legend(axis: Any) -> Iterator[Bbox]:
    legend = axis.get_legend()
    if legend is not None:
        yield legend.get_window_extent()
