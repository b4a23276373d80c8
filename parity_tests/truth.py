"""The mathematics once more, from the formulas: float64 with rounding-error bounds, the judge.

Imports neither side. Gradients follow the chain rule by hand, optimizers the papers and torch's
documentation. The two libraries round in different places (x·(1/c) for x/c, m + (1-β)(g - m) for
β·m + (1-β)·g, √v/√c for √(v/c)), each with at most two roundings where the formula here has one:
optimizers, and the mean of the loss, are therefore computed with a doubled unit roundoff.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.bounds import EXPM1, LIBRARY, UNIT, Bounded, constant, exact

Layers = list[dict[str, np.ndarray]]
BoundedLayers = list[dict[str, Bounded]]


class Forward(NamedTuple):
    preactivations: list[Bounded]  # of the hidden layers
    hidden: list[Bounded]
    logits: Bounded


def forward(
    weights: Layers, inputs: np.ndarray, unit: float, hidden: Sequence[np.ndarray] = ()
) -> Forward:
    """The MLP. With a bias an inner product has one term more.

    Args:
        hidden: a side's own activations of every hidden layer. With them each layer is judged by
            what that side put into it, and the bounds of the layers below do not pile up; without,
            the network is judged as a whole.
    """
    activations, preactivations, activated = exact(inputs, unit), [], []
    for i, layer in enumerate(weights):
        kernel = exact(layer["kernel"], unit)
        if "bias" in layer:
            ones = exact(np.ones((len(inputs), 1)), unit)
            kernel = _stack(kernel, exact(layer["bias"][None], unit), axis=0)
            activations = _stack(activations, ones, axis=1)
        outputs = activations @ kernel
        if i == len(weights) - 1:
            return Forward(preactivations, activated, outputs)
        preactivations.append(outputs)
        activated.append(outputs.relu())
        activations = exact(hidden[i], unit) if hidden else activated[-1]
    raise AssertionError("no layers")


def _stack(a: Bounded, b: Bounded, axis: int) -> Bounded:
    return Bounded(
        np.concatenate([a.value, b.value], axis), np.concatenate([a.error, b.error], axis), a.unit
    )


def cross_entropy(logits: Bounded, labels: np.ndarray) -> tuple[Bounded, Bounded]:
    """The mean loss, and its gradient with respect to the logits, softmax less one-hot over B."""
    batch, classes = logits.value.shape
    shifted = logits - logits.max(axis=1)
    exponentials = exact(shifted.value, logits.unit).exp()
    total = exponentials.sum(axis=1, keepdims=True)
    # Log-sum-exp moves no more than the largest of its arguments, whatever their errors.
    normalizer = total.log().wider(shifted.error.max(axis=1, keepdims=True))
    log_probabilities = shifted - normalizer
    losses = -log_probabilities[np.arange(batch), labels]
    loss = losses.sum() * constant(1 / batch, 2 * logits.unit)
    quotient = exponentials / total
    brought = quotient.value * np.expm1(np.minimum(log_probabilities.error, 700))
    probabilities = quotient.wider(brought).also(log_probabilities.exp()).within_unit_interval()
    one_hot = exact(np.eye(classes)[labels], logits.unit)
    return loss, (probabilities - one_hot) * constant(1 / batch, 2 * logits.unit)


def backward(
    weights: Layers,
    below: Sequence[Bounded],
    delta: Bounded,
    masks: Sequence[np.ndarray],
) -> BoundedLayers:
    """Gradients of every tensor by the chain rule.

    Args:
        below: what enters each layer: the inputs, and each hidden layer's activations.
        delta: gradient with respect to the logits.
        masks: which hidden units of which image pass a gradient. A side's own, since where a
            pre-activation is smaller than its rounding error either answer is right.
    """
    unit = delta.unit
    grads: BoundedLayers = []
    for i in reversed(range(len(weights))):
        layer = {"kernel": below[i].T @ delta}
        if "bias" in weights[i]:
            layer["bias"] = delta.sum(axis=0)
        grads.insert(0, layer)
        if i:
            delta = (delta @ exact(weights[i]["kernel"], unit).T).masked(masks[i - 1])
    return grads


class Settings(NamedTuple):
    """One tensor's optimizer; options are those of the optimizer."""

    optimizer: str
    weight_decay: float
    eps: float
    options: dict[str, Any]  # momentum, dampening, nesterov, beta1, beta2, alpha
    corrected_in_type: bool = False  # Adam's 1 - beta^t is taken in the working precision


def optimizer_step(
    settings: Settings,
    weight: Bounded,
    grad: np.ndarray,
    buffers: dict[str, Bounded],
    rate: Bounded,
    step: int,
) -> tuple[Bounded, dict[str, Bounded]]:
    """The weight and every buffer after a step.

    Args:
        buffers: empty before the first step.
        step: counted from 1.
    """
    name, decay, eps, options, in_type = settings
    unit = weight.unit
    g = exact(grad, unit)
    beta1, beta2 = (options.get(beta) or 0.0 for beta in ("beta1", "beta2"))
    if name not in ("adamw", "lion"):
        g = g + weight * decay
    if name == "sgd":
        direction, kept = _momentum(g, buffers, options, step)
    elif name in ("adam", "adamw"):
        mean = _average(buffers.get("exp_avg"), g, beta1)
        square = _average(buffers.get("exp_avg_sq"), g * g, beta2)
        corrected = mean / _correction(beta1, step, unit, in_type)
        root = (square / _correction(beta2, step, unit, in_type)).sqrt()
        direction, kept = corrected / (root + eps), {"exp_avg": mean, "exp_avg_sq": square}
    elif name == "rmsprop":
        square = _average(buffers.get("square_avg"), g * g, options["alpha"])
        direction, kept = g / (square.sqrt() + eps), {"square_avg": square}
        if options["momentum"]:
            undampened = {**options, "dampening": 0.0, "nesterov": False}
            direction, momentum = _momentum(direction, buffers, undampened, step)
            kept |= momentum
    elif name == "adagrad":
        squares = buffers["sum"] + g * g if buffers else g * g
        direction, kept = g / (squares.sqrt() + eps), {"sum": squares}
    elif name == "lion":
        average = buffers.get("exp_avg")
        direction = _average(average, g, beta1).sign()
        kept = {"exp_avg": _average(average, g, beta2)}
    else:
        raise AssertionError(name)
    stepped = weight - rate * direction
    if name in ("adamw", "lion") and decay:
        # torch multiplies the weight by 1 - rate·decay, itself rounded, and then takes the step:
        # three roundings of the weight where the formula has one, and the unit is doubled.
        stepped = weight - rate * (direction + weight * decay)
        stepped = stepped.wider(unit / 2 * np.abs(weight.value))
    return stepped, kept


def _momentum(g: Bounded, buffers, options, step: int) -> tuple[Bounded, dict[str, Bounded]]:
    """torch.optim.SGD: the first step keeps the whole gradient, without dampening."""
    momentum = options["momentum"]
    if not momentum:
        return g, {}
    buffer = g
    if step > 1:
        buffer = buffers["momentum_buffer"] * momentum + g * (1 - options["dampening"])
    return (g + buffer * momentum if options["nesterov"] else buffer), {"momentum_buffer": buffer}


def _average(average: Bounded | None, new: Bounded, beta: float) -> Bounded:
    """beta·average + (1 - beta)·new, from 0."""
    return new * (1 - beta) if average is None else average * beta + new * (1 - beta)


def _correction(beta: float, step: int, unit: float, in_type: bool) -> Bounded:
    """1 - beta^step; unit is doubled.

    As -expm1(step·log beta), a constant, a product and expm1; or, as torch (and this line) has it,
    as a difference in double, which loses what beta^step's two roundings are.
    """
    value = np.asarray(1 - beta**step)
    error = (EXPM1 + 1) * unit * value + 2 * UNIT["float64"] * beta**step
    if in_type:  # as optax has it: of a beta that is rounded, and a power of it
        error = error + (step + LIBRARY) * unit * beta**step
    return Bounded(value, error, unit)


def rate_factor(
    schedule: str,
    step: int,
    warmup: int,
    total: int,
    per_epoch: int,
    milestones: Sequence[int],
    gamma: float,
    dtype: str,
) -> Bounded:
    """The factor on the learning rate at a step, counted from 0; see Experiment for the meaning.

    The formulas are optax's; jaxmlp's for warm-up (a quotient) and cosine (a squared sine) round
    less. torch computes each factor from the last one, in double precision: after t steps its error
    is at most 4·t roundings of a double.
    """
    unit = 2 * UNIT[dtype]

    def fixed(value) -> Bounded:
        return constant(value, unit)

    def power(exponent: int) -> Bounded:
        value = np.asarray(gamma) ** exponent
        return Bounded(value, (exponent + LIBRARY) * unit * value, unit)

    if step < warmup:
        gone = exact(step, unit) / exact(max(warmup - 1, 1), unit)
        factor = (fixed(1 / warmup) - 1.0) * (exact(1.0, unit) - gone) + 1.0
    elif schedule == "cosine":
        angle = fixed(np.pi) * (exact(step - warmup, unit) / exact(max(total - warmup, 1), unit))
        factor = (angle.cos() + 1.0) * 0.5
    elif schedule == "exponential":
        factor = power((step - warmup) // per_epoch)
    elif schedule == "step":
        factor = power(sum(step >= epoch * per_epoch for epoch in milestones))
    else:
        factor = exact(1.0, unit)
    recursion = 4 * (step + 1) * UNIT["float64"] * (1 + np.abs(factor.value))
    return Bounded(factor.value, factor.error + recursion, unit)
