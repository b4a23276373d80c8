"""Bitwise: inputs built so that every product and every sum is exact in float32.

All numbers are small whole multiples of powers of two. Each operation's result, and every partial
sum on the way in whatever order, is then a whole multiple of a known power of two and at most of a
known size; while size / multiple ≤ 2²⁴ nothing is ever rounded. `Grid` keeps these books, and a
check that would exceed them is an error of the suite itself. Both sides must give exact numbers.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxmlp.experiment import Experiment
from parity_tests import sides
from parity_tests.comparison import Comparison, bitwise

BITS = 24  # of float32's significand
BATCH = 4  # a power of two: the mean is exact
SHAPES = ((7, 3), (7, 5, 3), (6, 5, 4, 3))
OPTIMIZERS = {
    "heavy ball": {"momentum": 0.75},
    "no momentum": {"momentum": 0.0},
    "nesterov": {"momentum": 0.5, "nesterov": True},
    "dampening": {"momentum": 0.5, "dampening": 0.25},
    "lion": {"optimizer": "lion", "beta1": 0.5, "beta2": 0.75},
}
EXAMPLES = 30  # of each optimizer, with and without bias, spread over the shapes: 300 in all


@dataclass(frozen=True)
class Grid:
    """Exact numbers: whole multiples of `step`; partial sums on the way were at most `size`."""

    value: np.ndarray
    step: float
    size: float

    def __post_init__(self) -> None:
        assert self.size / self.step <= 2**BITS, f"{np.log2(self.size / self.step)} bits"
        assert (self.value / self.step % 1 == 0).all(), "off the grid"

    def __matmul__(self, other: "Grid") -> "Grid":
        size = (np.abs(self.value) @ np.abs(other.value)).max()
        return Grid(self.value @ other.value, self.step * other.step, max(float(size), 1e-30))

    def __add__(self, other: "Grid") -> "Grid":
        size = (np.abs(self.value) + np.abs(other.value)).max()
        return Grid(self.value + other.value, min(self.step, other.step), float(size))

    def scaled(self, factor: float) -> "Grid":
        """Times a number of few bits."""
        unit = abs(factor)
        while unit % 1:
            unit *= 2
        unit = abs(factor) / unit if unit else 1.0
        value = self.value * factor
        return Grid(value, self.step * unit, float(np.abs(value).max()))

    def total(self) -> "Grid":
        return Grid(np.asarray(self.value.sum()), self.step, float(np.abs(self.value).sum()))

    def columns(self) -> "Grid":
        return Grid(self.value.sum(0), self.step, float(np.abs(self.value).sum(0).max()))

    def where(self, mask: np.ndarray) -> "Grid":
        return dataclasses.replace(self, value=self.value * mask)

    @property
    def T(self) -> "Grid":  # noqa: N802
        return dataclasses.replace(self, value=self.value.T)


def whole(draw: np.random.Generator, shape: tuple[int, ...], largest: int, step: float) -> Grid:
    value = draw.integers(-largest, largest, shape, endpoint=True) * step
    return Grid(value, step, largest * step)


Layers = list[dict[str, Grid]]


@dataclass(frozen=True)
class Example:
    """Weights, and two batches with their targets."""

    weights: Layers
    batches: list[tuple[Grid, Grid]]


def example(seed: int, shape: tuple[int, ...], bias: bool) -> Example:
    draw = np.random.default_rng(seed)
    steps = [2.0 ** int(power) for power in draw.integers(-2, 3, len(shape))]
    weights: Layers = []
    reach = steps[0]  # the grid of a layer's outputs
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(shape)):
        reach *= steps[i + 1]
        layer = {"kernel": whole(draw, (fan_in, fan_out), 1, steps[i + 1])}
        if bias:
            layer["bias"] = whole(draw, (fan_out,), 2, reach)
        weights.append(layer)
    first, *_, last = shape
    batches = [
        (
            whole(draw, (BATCH, first), 2 if len(shape) < 4 else 1, steps[0]),
            whole(draw, (BATCH, last), 3, reach),
        )
        for _ in range(2)
    ]
    return Example(weights, batches)


def network(weights: Layers, inputs: Grid, targets: Grid) -> tuple[Grid, list[Grid], Layers]:
    """Half the squared error over the batch, the hidden activations, and all gradients."""
    below = [inputs]
    for i, layer in enumerate(weights):
        outputs = below[-1] @ layer["kernel"]
        if "bias" in layer:
            outputs = outputs + layer["bias"]
        below.append(outputs if i == len(weights) - 1 else outputs.where(outputs.value > 0))
    residual = below[-1] + targets.scaled(-1)
    squares = Grid(
        residual.value**2, residual.step**2, float((residual.value**2).max(initial=1e-30))
    )
    loss, delta = squares.total().scaled(0.5).scaled(1 / BATCH), residual.scaled(1 / BATCH)
    grads: Layers = []
    for i in reversed(range(len(weights))):
        layer = {"kernel": below[i].T @ delta}
        if "bias" in weights[i]:
            layer["bias"] = delta.columns()
        grads.insert(0, layer)
        if i:
            delta = (delta @ weights[i]["kernel"].T).where(below[i].value > 0)
    return loss, below[1:-1], grads


def optimizer(
    experiment: Experiment, layer: int, weight: Grid, grads: list[Grid]
) -> list[tuple[Grid, Grid | None]]:
    """The weight and its buffer after each step."""
    rate = experiment.per_layer("learning_rate")[layer]
    decay = experiment.per_layer("weight_decay")[layer]
    momentum, buffer, states = experiment.momentum or 0.0, None, []
    for gradient in grads:
        if experiment.optimizer == "lion":
            assert experiment.beta1 is not None
            assert experiment.beta2 is not None
            mixed = gradient.scaled(1 - experiment.beta1)
            mixed = mixed if buffer is None else buffer.scaled(experiment.beta1) + mixed
            update = Grid(np.sign(mixed.value), 1.0, 1.0) + weight.scaled(decay)
            fresh = gradient.scaled(1 - experiment.beta2)
            buffer = fresh if buffer is None else buffer.scaled(experiment.beta2) + fresh
        else:
            coupled = gradient + weight.scaled(decay)
            if buffer is None:
                buffer = coupled
            else:
                fresh = coupled.scaled(1 - (experiment.dampening or 0.0))
                buffer = buffer.scaled(momentum) + fresh
            update = coupled + buffer.scaled(momentum) if experiment.nesterov else buffer
            buffer, update = (buffer, update) if momentum else (None, coupled)
        weight = weight + update.scaled(-rate)
        states.append((weight, buffer))
    return states


def plain(layers: Layers) -> sides.Layers:
    return [
        {name: grid.value.astype(np.float32) for name, grid in layer.items()} for layer in layers
    ]


def exact(quick: bool = False) -> Iterator[Comparison]:
    """Forward, loss, gradients, momentum and update: the exact numbers on both sides."""
    for row, (name, settings) in enumerate(OPTIMIZERS.items()):
        for bias in (row % 2 == 0,) if quick else (False, True):
            for number in range(3 if quick else EXAMPLES):
                shape = SHAPES[row % 3 if quick else number % 3]
                yield from _example(name, settings, bias, number, shape)


def _example(name: str, settings: dict, bias: bool, number: int, shape) -> Iterator[Comparison]:
    layers = len(shape) - 1
    experiment = Experiment(
        hidden=shape[1:-1],
        bias=bias,
        learning_rate=(0.25, 0.5, 0.125)[:layers],
        weight_decay=(0.5, 0.25, 0.125)[:layers],
        **settings,
    )
    made = example(number, shape, bias)
    weights, grads = plain(made.weights), []
    check = f"{name}, {'bias' if bias else 'no bias'}"
    prefix = f"example {number}"
    for batch, (inputs, targets) in enumerate(made.batches):
        loss, hidden, true = network(made.weights, inputs, targets)
        grads.append(true)
        arrays = weights, inputs.value.astype(np.float32), targets.value.astype(np.float32)
        for side in (sides.jax_gradients, sides.torch_gradients):
            found = side(experiment, *arrays)
            who = f"{prefix} batch {batch} {side.__name__.split('_')[0]} "
            yield _is(check, f"{who}loss", found.loss, loss)
            for i, layer in enumerate(hidden):
                yield _is(check, f"{who}hidden{i + 1}", found.hidden[i], layer)
            for i, tensor in ((i, tensor) for i, layer in enumerate(true) for tensor in layer):
                where = f"{who}gradient of layer{i + 1}.{tensor}"
                yield _is(check, where, found.grads[i][tensor], true[i][tensor])
    never = sides.Change(step=2, factor=1.0)
    for side in (sides.jax_optimizer, sides.torch_optimizer):
        states = list(side(experiment, weights, [plain(g) for g in grads], 1, never))
        who = f"{prefix} {side.__name__.split('_')[0]} "
        for i, tensor in ((i, tensor) for i, layer in enumerate(weights) for tensor in layer):
            given = [layer[i][tensor] for layer in grads]
            stepped = optimizer(experiment, i, made.weights[i][tensor], given)
            for step, (weight, buffer) in enumerate(stepped):
                where = f"{who}step {step + 1} layer{i + 1}.{tensor}"
                yield _is(check, where, states[step].params[i][tensor], weight)
                if buffer is not None:
                    kept = [v for k, v in states[step].buffers[i].items() if k.startswith(tensor)]
                    yield _is(check, f"{where}'s buffer", kept[0], buffer)


def _is(check: str, tensor: str, found: np.ndarray, true: Grid) -> Comparison:
    """jax or torch (the name says which) against the exact numbers."""
    return bitwise(("exact", check, tensor), found, true.value.astype(np.float32))
