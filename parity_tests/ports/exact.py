"""A pass in float64, held point by point: forward, loss, statistics, and backward."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from parity_tests.ports import judge
from parity_tests.ports.judge import Held, largest
from parity_tests.ports.pairing import Point
from parity_tests.ports.wire import Arrays, by_tensor

if TYPE_CHECKING:
    from parity_tests.ports.port import Pass, Port


def check(port: "Port", run: "Pass", mode: str) -> Iterator[Held]:
    """All of a pass.

    Args:
        mode: training or evaluation, for the phases' names.
    """
    yield from _forward(port, run, f"forward, {mode}")
    yield from _statistics(port, run)
    yield from _backward(port, run, f"backward, {mode}")


def outputs(point: Point, truth: Any, ours: Any, phase: str) -> Iterator[Held]:
    """What comes out of one point."""
    if not point.outputs:
        yield from _shapes(point, "out", point.label, phase, truth, ours)
    for slot in point.outputs:
        yield judge.same(point.label, "output", phase, *slot.arrays(truth, ours))


def _forward(port: "Port", run: "Pass", phase: str) -> Iterator[Held]:
    points, truth, ours, _ = run
    before = "the inputs"
    for point in points:
        place = _between(before, point.label)
        if not point.inputs:
            yield from _shapes(point, "in", place, phase, truth, ours)
        for slot in point.inputs:
            yield judge.same(place, "input", phase, *slot.arrays(truth, ours))
        yield from outputs(point, truth, ours, phase)
        before = point.label
    if port.output is not None:
        place, own = _between(before, "the outputs"), port.output.to_torch(ours.arrays["outputs"])
        yield judge.same(place, "outputs", phase, truth.arrays["outputs"], own)
    yield judge.same("loss", "loss", phase, truth.arrays["loss"], ours.arrays["loss"])


def _statistics(port: "Port", run: "Pass") -> Iterator[Held]:
    ours = port.matching.to_torch(by_tensor(run.port.arrays, "statistic"))
    owners = port.owners()
    for name, array in by_tensor(run.truth.arrays, "statistic").items():
        if name in ours:
            yield judge.same(owners.get(name, name), name, "statistics", array, ours[name])


def _backward(port: "Port", run: "Pass", phase: str) -> Iterator[Held]:
    points, truth, ours, _ = run
    if port.output is not None and "outputs.gradient" in truth.arrays:
        own = port.output.to_torch(ours.arrays["outputs.gradient"])
        what = "gradient of the outputs"
        yield judge.same("loss", what, phase, truth.arrays["outputs.gradient"], own)
    after = "the outputs"
    for point in reversed(points):
        arriving = 0.0
        for slot in point.outputs:
            if (both := slot.gradients(truth, ours)) is not None:
                arriving = max(arriving, largest(both[0]))
                place = _between(point.label, after)
                yield judge.same(place, "gradient of the output", phase, *both)
        for slot in point.inputs:
            if (both := slot.gradients(truth, ours)) is not None:
                what = "gradient of the input"
                yield judge.same(point.label, what, phase, *both, size=arriving)
        for name in point.unit.tensors if point.unit else ():
            port.sizes[name] = max(port.sizes.get(name, 0.0), arriving)
        after = point.label
    theirs = by_tensor(truth.arrays, "gradient")
    # Of a layer that is not seen (inside of a scan) the terms of its sums are not known.
    most = max(map(largest, theirs.values()), default=0.0)
    for name in theirs:
        port.sizes.setdefault(name, most)
    yield from gradients(port, truth.arrays, ours.arrays, phase)


def gradients(port: "Port", truth: Arrays, ours: Arrays, phase: str) -> Iterator[Held]:
    """Of the tensors, by gradient.NAME."""
    mine, owners = port.matching.to_torch(by_tensor(ours, "gradient")), port.owners()
    for name, array in by_tensor(truth, "gradient").items():
        if name in mine:
            what, size = f"gradient of {name}", port.sizes.get(name, 0.0)
            yield judge.same(owners.get(name, name), what, phase, array, mine[name], size)


def _between(before: str, after: str) -> str:
    return f"between {before} and {after}"


def _shapes(
    point: Point, side: str, place: str, phase: str, truth: Any, ours: Any
) -> Iterator[Held]:
    """What has other shapes on the two sides, in whatever layout; nothing is noted of no array."""
    theirs = truth.arrays.get(f"point.{point.place}.{side}.0")
    own = ours.arrays.get(f"point.{point.jax_place}.{side}.0")
    if theirs is not None and own is not None:
        what = "output" if side == "out" else "input"
        yield Held(place, what, phase, "float64", np.inf, theirs, own)


def fits(points: Sequence[Point], truth: Any, ours: Any) -> bool:
    """Whether what comes out of these points is the same."""
    return all(held.passed for point in points for held in outputs(point, truth, ours, ""))
