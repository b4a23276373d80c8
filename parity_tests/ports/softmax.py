"""Softmax, its logarithm, and the losses."""

import numpy as np

from parity_tests.bounds import Bounded, constant, exact, gamma
from parity_tests.ports.layer import Inputs, NoFormula, Pass, Tensors, floating

ASSOCIATED = 4  # roundings of products in another order, and of a mean taken before or after


def probabilities(x: Bounded, axis: int) -> tuple[Bounded, Bounded]:
    """Softmax and its logarithm.

    The largest is taken out. The logarithm is (x - max) - log Σ or x - (max + log Σ), and softmax
    the quotient or the logarithm's exponential.
    """
    largest = x.max(axis)
    shifted = x - largest
    exponentials = exact(shifted.value, x.unit).exp()
    total = exponentials.sum(axis, keepdims=True)
    quotient = exponentials / total
    # What log-sum-exp moves by when its arguments do.
    spread = quotient.value * np.expm1(np.minimum(shifted.error, 700))
    log_total = total.log().wider(np.log1p(spread.sum(axis, keepdims=True)))
    logarithm = (shifted - log_total).also(x - (largest + log_total))
    brought = quotient.value * np.expm1(np.minimum(logarithm.error, 700))
    softmax_ = quotient.wider(brought).also(logarithm.exp()).within_unit_interval()
    return softmax_, logarithm


def softmax_gradient(softmax_: Bounded, cotangent: Bounded, axis: int) -> Bounded:
    """p·(g - Σ p·g), or p·g - p·Σ p·g."""
    weighted = softmax_ * cotangent
    inner = weighted.sum(axis, keepdims=True)
    return (softmax_ * (cotangent - inner)).also(weighted - softmax_ * inner)


def softmax(tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, axis: int) -> Pass:
    output, _ = probabilities(floating(inputs[0]), axis)
    if cotangent is None:
        return Pass(output)
    return Pass(output, [softmax_gradient(output, cotangent, axis)])


def log_softmax(tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, axis: int) -> Pass:
    softmax_, output = probabilities(floating(inputs[0]), axis)
    if cotangent is None:
        return Pass(output)
    return Pass(output, [cotangent - softmax_ * cotangent.sum(axis, keepdims=True)])


def cross_entropy(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Pass:
    """Logits (..., C), targets (...).

    Raises:
        NoFormula: targets other than whole numbers, all of them classes.
    """
    logits = floating(inputs[0])
    unit, classes = logits.unit, logits.shape[-1]
    if isinstance(inputs[1], Bounded):
        raise NoFormula("targets that are probabilities")
    targets = inputs[1].ravel()
    if not ((targets >= 0) & (targets < classes)).all():
        raise NoFormula("targets that are left out")
    rows = logits.reshape(-1, classes)
    softmax_, logarithm = probabilities(rows, 1)
    wanted = exact(np.eye(classes)[targets], unit)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / classes
        # Σ q·log p, or Σ q·x less the normalizer.
        size = gamma(classes, unit) * np.abs(rows.value)
        losses = -(wanted * logarithm.wider(size)).sum(1)
    else:
        losses = -logarithm[np.arange(len(targets)), targets]
    output, share = _reduced(losses, reduction)
    if cotangent is None:
        return Pass(output)
    gradient = ((softmax_ - wanted) * (share * cotangent)).rounded(ASSOCIATED)
    return Pass(output, [gradient.reshape(*logits.shape), None])


def mse(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, reduction: str = "mean"
) -> Pass:
    """Σ (x - y)² or its mean; both have gradients."""
    difference = floating(inputs[0]) - floating(inputs[1])
    output, share = _reduced(difference * difference, reduction)
    if cotangent is None:
        return Pass(output)
    gradient = (difference * (share * cotangent * 2.0)).rounded(ASSOCIATED)
    return Pass(output, [gradient, -gradient])


def _reduced(losses: Bounded, reduction: str) -> tuple[Bounded, Bounded]:
    """The losses' sum or mean, and each one's share in it.

    Raises:
        NoFormula: another reduction.
    """
    if reduction not in ("sum", "mean"):
        raise NoFormula(f"reduction {reduction}")
    share = constant(1 / losses.value.size if reduction == "mean" else 1.0, losses.unit)
    return losses.sum() * share, share
