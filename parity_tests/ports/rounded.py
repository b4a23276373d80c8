"""A pass in float32: by the bound of each layer's formula, else both sides beside float64."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from parity_tests.bounds import UNIT
from parity_tests.ports import formulas, judge
from parity_tests.ports.judge import Held, largest
from parity_tests.ports.pairing import Point
from parity_tests.ports.suspects import local_tensors
from parity_tests.ports.wire import by_tensor

if TYPE_CHECKING:
    from parity_tests.ports.port import Port

FORWARD, BACKWARD = "forward, float32", "backward, float32"


class Three(NamedTuple):
    """One pass in float32 on both sides, and the port's in float64 beside it.

    At every point all three saw what the original saw.
    """

    torch: Any
    jax: Any
    exact: Any


def check(port: "Port") -> Iterator[Held]:
    """All of a pass in training mode."""
    points = port.passes["training"].points
    torch = port.original("float32", True)
    jax, exact = (port.port(dtype, True, points, torch) for dtype in ("float32", "float64"))
    three = Three(torch, jax, exact)
    for point in points:
        yield from _forward(point, three, _formula(port, point, torch))
    for point in reversed(points):
        yield from _backward(port, point, three, _formula(port, point, torch))
    yield from _loss(port, three)


def _formula(port: "Port", point: Point, torch: Any) -> formulas.Pass | None:
    """The layer's pass with its bounds, if there is a formula."""
    inputs = [torch.arrays.get(f"point.{slot.torch}") for slot in point.inputs]
    if not inputs or not point.outputs:
        return None
    tensors = {
        name: tensor.astype(np.float32) for name, tensor in local_tensors(port, point).items()
    }
    cotangent = torch.arrays.get(f"point.{point.outputs[0].torch}.gradient")
    return formulas.run(point.kind, point.config, tensors, inputs, cotangent, UNIT["float32"])


def _forward(point: Point, three: Three, formula: formulas.Pass | None) -> Iterator[Held]:
    torch, jax, exact = three
    for slot in point.inputs:
        place, true = f"before {point.label}", slot.arrays(torch, exact)[1]
        yield judge.compared(place, "input", FORWARD, *slot.arrays(torch, jax), true)
    for number, slot in enumerate(point.outputs):
        bound = formula.output if formula and number == 0 else None
        both, true = slot.arrays(torch, jax), slot.arrays(torch, exact)[1]
        yield judge.rounded(point.label, "output", FORWARD, *both, true, bound)


def _backward(
    port: "Port", point: Point, three: Three, formula: formulas.Pass | None
) -> Iterator[Held]:
    torch, jax, exact = three
    arriving, total = 0.0, 0.0
    for slot in point.outputs:
        both, true = slot.gradients(torch, jax), slot.gradients(torch, exact)
        if both is not None and true is not None:
            arriving = max(arriving, largest(both[0]))
            total += float(np.abs(both[0]).sum())
            place = f"after {point.label}"
            yield judge.compared(place, "gradient of the output", BACKWARD, *both, true[1])
    bounds = formula.input_gradients if formula else ()
    for number, slot in enumerate(point.inputs):
        both, true = slot.gradients(torch, jax), slot.gradients(torch, exact)
        if both is not None and true is not None:
            bound = bounds[number] if number < len(bounds) else None
            what = "gradient of the input"
            yield judge.rounded(point.label, what, BACKWARD, *both, true[1], bound, arriving)
    if point.unit is None:
        return
    ours, true = (port.matching.to_torch(by_tensor(s.arrays, "gradient")) for s in (jax, exact))
    for name in point.unit.tensors:
        own = torch.arrays.get(f"gradient.{name}")
        if own is not None and name in ours:
            bound = formula.gradients.get(point.unit.local(name)) if formula else None
            what, summed = f"gradient of {name}", total / max(own.size, 1)  # for each number
            both = own, ours[name]
            yield judge.rounded(point.label, what, BACKWARD, *both, true[name], bound, summed)


def _loss(port: "Port", three: Three) -> Iterator[Held]:
    """The loss and its gradient; by the formula of cross-entropy, if none was given."""
    outputs, targets = three.torch.arrays["outputs"], port.tensors[0]["targets.0"]
    formula = None
    if port.told[0]["default_loss"]:
        one, unit = np.ones((), np.float32), UNIT["float32"]
        formula = formulas.run("cross_entropy", {}, {}, [outputs, targets], one, unit)
    theirs, ours, true = (side.arrays["loss"] for side in three)
    bound, terms = formula and formula.output, outputs.size
    yield judge.rounded("loss", "loss", FORWARD, theirs, ours, true, bound, terms=terms)
    if port.output is not None and "outputs.gradient" in three.torch.arrays:
        theirs = three.torch.arrays["outputs.gradient"]
        ours, true = (port.output.to_torch(side.arrays["outputs.gradient"]) for side in three[1:])
        what, bound = "gradient of the outputs", formula and formula.input_gradients[0]
        yield judge.rounded("loss", what, BACKWARD, theirs, ours, true, bound)
