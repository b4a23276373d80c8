"""Which point of the port is which of the original, and how the arrays there lie."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.ports.layouts import Layout, activations
from parity_tests.ports.matching import WHOLE, Unit

Arrays = Mapping[str, np.ndarray]
Told = Sequence[Mapping[str, Any]]  # points as a side tells them


class Slot(NamedTuple):
    """An array at a point: what goes in or comes out."""

    torch: str  # keys, such as 3.in.0
    jax: str
    layout: Layout

    def arrays(self, torch: Any, jax: Any) -> tuple[np.ndarray, np.ndarray]:
        """What two passes have there, as torch has it."""
        ours = jax.arrays[f"point.{self.jax}"]
        return torch.arrays[f"point.{self.torch}"], self.layout.to_torch(ours)

    def gradients(self, torch: Any, jax: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """The gradients of the loss there; None if one of the passes has none."""
        theirs = torch.arrays.get(f"point.{self.torch}.gradient")
        ours = jax.arrays.get(f"point.{self.jax}.gradient")
        if theirs is None or ours is None:
            return None
        return theirs, self.layout.to_torch(ours)


class Point(NamedTuple):
    """A call of a layer, or of a function between layers, on both sides."""

    label: str
    kind: str  # torch's
    config: Mapping[str, Any]
    inputs: list[Slot]
    outputs: list[Slot]
    unit: Unit | None  # None: a function
    place: int  # among torch's points
    jax_place: int


def pair(
    units: Sequence[Unit], torch: tuple[Told, Arrays], jax: tuple[Told, Arrays]
) -> list[Point]:
    """The points that both sides have, in the original's order.

    Args:
        torch, jax: points and arrays of the same pass, nothing put in its way.
    """
    known = {unit.torch: unit for unit in units}
    ours = _segments(torch[0], {unit.torch: unit.torch for unit in units})
    theirs = _segments(jax[0], {unit.jax: unit.torch for unit in units})
    found = []
    for (name, call), (layer, functions) in ours.items():
        if (name, call) not in theirs:
            continue
        other, others = theirs[name, call]
        both = [] if layer is None or other is None else [(layer, other)]
        both += _functions(torch[0], jax[0], functions, others)
        for place, partner in both:
            a, b = torch[0][place], jax[0][partner]
            slots = [_slots(side, place, partner, torch[1], jax[1]) for side in ("in", "out")]
            other_kind = a["path"] is None and a["kind"] != b["kind"]
            if other_kind and not (all(slots) and _alike(slots[0], torch[1], jax[1])):
                continue  # one side has written the function out, in terms of this one
            label = _words(name, call, a)
            unit = None if a["path"] is None else known.get(a["path"])
            own = a["kind"], a["config"]
            found.append(Point(label, *own, slots[0], slots[1], unit, place, partner))
    return sorted(found, key=lambda point: point.place)


Call = tuple[str, int]  # a layer, in torch's name, and which call of it
Segment = tuple[int | None, list[int]]  # the place of the call, and of the functions after it


def _segments(points: Told, names: Mapping[str, str]) -> dict[Call, Segment]:
    calls: dict[str, int] = {}
    segments: dict[Call, Segment] = {("", 0): (None, [])}
    last = ("", 0)
    for place, point in enumerate(points):
        if point["path"] is not None:
            name = names[point["path"]]
            calls[name] = calls.get(name, 0) + 1
            last = (name, calls[name])
            segments[last] = place, []
        else:
            segments[last][1].append(place)
    return segments


def _functions(
    torch: Told, jax: Told, ours: Sequence[int], theirs: Sequence[int]
) -> list[tuple[int, int]]:
    """Functions after the same layer. As many on both sides are paired as they come.

    One in the place of another is what has to be seen. Where there are more on one side (the other
    has written them out), only those of the same kind are paired.
    """
    if len(ours) == len(theirs):
        return list(zip(ours, theirs, strict=True))
    kinds = [[side[place]["kind"] for place in own] for side, own in ((torch, ours), (jax, theirs))]
    blocks = difflib.SequenceMatcher(None, *kinds, autojunk=False).get_matching_blocks()
    return [(ours[a + i], theirs[b + i]) for a, b, size in blocks for i in range(size)]


def _words(name: str, call: int, point: Mapping[str, Any]) -> str:
    again = f" (call {call})" if call > 1 else ""
    if point["path"] is not None:
        return f"{name or WHOLE}{again}"
    return f"{point['kind']} after {name}{again}" if name else point["kind"]


def _alike(slots: Sequence[Slot], torch: Arrays, jax: Arrays) -> bool:
    """Whether both sides put in the same, to single precision."""
    return all(
        np.allclose(slot.layout.to_jax(torch[f"point.{slot.torch}"]), jax[f"point.{slot.jax}"])
        for slot in slots
    )


def _slots(side: str, place: int, other: int, torch: Arrays, jax: Arrays) -> list[Slot]:
    found = []
    for number in range(100):
        keys = f"{place}.{side}.{number}", f"{other}.{side}.{number}"
        a, b = torch.get(f"point.{keys[0]}"), jax.get(f"point.{keys[1]}")
        if a is None or b is None:
            break
        if (layout := likeliest(a, b)) is not None:
            found.append(Slot(*keys, layout))
    return found


def likeliest(torch: np.ndarray, jax: np.ndarray) -> Layout | None:
    """The layout in which the numbers are nearest; None if no layout has these shapes."""
    candidates = activations(torch.shape, jax.shape)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    distances = [_distance(each.to_jax(torch), jax) for each in candidates]
    return candidates[int(np.argmin(distances))]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        apart = np.median(np.abs(a.astype(float) - b.astype(float)))
    return float(apart) if np.isfinite(apart) else np.inf
