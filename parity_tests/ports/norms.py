"""Normalizations: one formula, the axes and the parameters' shape make the difference.

What implementations differ in, and the bounds cover:

- the variance as E[(x - m)²], or as E[x²] - m² clipped at 0 (Flax's default), which loses all
  digits where the mean is large;
- (x - m)·r·w + b, or x·(r·w) + (b - m·r·w), or any association of the products;
- the gradient from the closed form, or from sums of g·x that are centred afterwards, or composed
  by the chain rule through E[x²] and m; and where a clipped variance came out as 0 or less, none
  passes through it.
"""

from collections.abc import Sequence

import numpy as np

from parity_tests.bounds import Bounded, gamma
from parity_tests.ports.layer import Inputs, Pass, Tensors, floating

FOLDED = 4  # roundings of x·s and m·s where another forms (x - m)·s


def _statistics(x: Bounded, axes: tuple[int, ...]) -> tuple[Bounded, Bounded]:
    """Mean and biased variance, keeping the axes."""
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    two_passes = (centred * centred).mean(axes, keepdims=True)
    one_pass = (x * x).mean(axes, keepdims=True) - mean * mean
    return mean, two_passes.also(one_pass)


def _normalize(
    x: Bounded,
    axes: tuple[int, ...],
    shape: Sequence[int],
    eps: float,
    tensors: Tensors,
    cotangent: Bounded | None,
    statistics: tuple[Bounded, Bounded] | None = None,
) -> Pass:
    """(x - m)/√(v + eps)·weight + bias.

    Args:
        axes: those of the statistics.
        shape: of weight and bias, to broadcast.
        statistics: m and v given from outside, constants; otherwise the array's own.
    """
    unit = x.unit
    mean, variance = statistics or _statistics(x, axes)
    size = np.abs(x.value) + np.abs(mean.value)
    centred = (x - mean).wider(FOLDED * unit * size)
    # Nobody's variance is below 0: one that is computed so is clipped.
    root = (variance + eps).rsqrt(floor=eps * (1 - 4 * unit))
    weight, bias = (
        tensors[name].reshape(*shape) if name in tensors else None for name in ("weight", "bias")
    )
    output = centred * root if weight is None else centred * root * weight
    if bias is not None:
        output = (output + bias).wider(FOLDED * unit * np.abs(bias.value))
    if cotangent is None:
        return Pass(output)
    terms = int(np.prod([x.shape[a] for a in axes], dtype=int))
    # Σ g·(x - m) as Σ g·x - m·Σ g.
    uncentred = centred.wider(gamma(terms + FOLDED, unit) * size)
    gradients = {}
    if weight is not None:
        gradients["weight"] = _sum_to((cotangent * uncentred * root).rounded(FOLDED), shape)
    if bias is not None:
        gradients["bias"] = _sum_to(cotangent, shape)
    gradients = {name: g.reshape(*tensors[name].shape) for name, g in gradients.items()}
    inner = cotangent if weight is None else cotangent * weight
    if statistics is None:
        projection = (inner * uncentred).mean(axes, keepdims=True)
        through_variance = (centred * (root * root * projection)).rounded(FOLDED)
        clipped = variance.value <= variance.error
        dropped = np.where(clipped, np.abs(through_variance.value), 0)
        inner = inner - inner.mean(axes, keepdims=True) - through_variance.wider(dropped)
    return Pass(output, [(inner * root).rounded(FOLDED)], gradients)


def _sum_to(array: Bounded, shape: Sequence[int]) -> Bounded:
    """Over the axes along which the shape is 1."""
    axes = tuple(a for a, n in enumerate(shape) if n == 1 and array.shape[a] != 1)
    return array.sum(axes, keepdims=True) if axes else array


def _channels(x: Bounded) -> tuple[int, ...]:
    return (1, x.shape[1], *[1] * (x.value.ndim - 2))


def batch_norm(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, eps: float, training: bool
) -> Pass:
    """(N, C, ...): by the batch's statistics, or by running_mean and running_var."""
    x = floating(inputs[0])
    shape = _channels(x)
    statistics = None
    if not training:
        running = tensors["running_mean"], tensors["running_var"]
        statistics = running[0].reshape(*shape), running[1].reshape(*shape)
    axes = (0, *range(2, x.value.ndim))
    return _normalize(x, axes, shape, eps, tensors, cotangent, statistics)


def running_statistics(tensors: Tensors, x: Bounded, momentum: float) -> dict[str, Bounded]:
    """After a batch, as torch has it: (1 - momentum)·old + momentum·new, the variance unbiased."""
    axes = (0, *range(2, x.value.ndim))
    mean, variance = _statistics(x, axes)
    count = x.value.size // x.shape[1]
    new = {"running_mean": mean, "running_var": variance * (count / (count - 1))}
    return {
        name: (tensors[name] * (1 - momentum) + batch.reshape(-1) * momentum).rounded()
        for name, batch in new.items()
    }


def layer_norm(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, dims: int, eps: float
) -> Pass:
    """Over so many of the last axes."""
    x, axes, shape = _trailing(inputs, dims)
    return _normalize(x, axes, shape, eps, tensors, cotangent)


def rms_norm(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, dims: int, eps: float
) -> Pass:
    """x/√(mean square + eps)·weight over so many of the last axes: nothing cancels."""
    x, axes, shape = _trailing(inputs, dims)
    root = ((x * x).mean(axes, keepdims=True) + eps).rsqrt()
    weight = tensors["weight"].reshape(*shape) if "weight" in tensors else None
    output = (x * root if weight is None else x * root * weight).rounded(FOLDED)
    if cotangent is None:
        return Pass(output)
    gradients, inner = {}, cotangent
    if weight is not None:
        total = _sum_to((cotangent * x * root).rounded(FOLDED), shape)
        gradients["weight"] = total.reshape(*tensors["weight"].shape)
        inner = cotangent * weight
    projection = (inner * x).mean(axes, keepdims=True)
    through_square = (x * (root * root * projection)).rounded(FOLDED)
    gradient = ((inner - through_square) * root).rounded(FOLDED)
    return Pass(output, [gradient], gradients)


def _trailing(inputs: Inputs, dims: int) -> tuple[Bounded, tuple[int, ...], tuple[int, ...]]:
    x = floating(inputs[0])
    leading = x.value.ndim - dims
    axes = tuple(range(leading, x.value.ndim))
    return x, axes, (*[1] * leading, *x.shape[leading:])


def group_norm(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, groups: int, eps: float
) -> Pass:
    """(N, C, ...): over each group of channels of each image."""
    x = floating(inputs[0])
    count, channels, *spatial = x.shape
    split = (count, groups, channels // groups, *spatial)
    shape = (1, groups, channels // groups, *[1] * len(spatial))
    axes = tuple(range(2, len(split)))
    delta = None if cotangent is None else cotangent.reshape(*split)
    done = _normalize(x.reshape(*split), axes, shape, eps, tensors, delta)
    gradients = [g.reshape(*x.shape) for g in done.input_gradients if g is not None]
    return Pass(done.output.reshape(*x.shape), gradients, done.gradients)


def instance_norm(
    tensors: Tensors, inputs: Inputs, cotangent: Bounded | None, *, eps: float
) -> Pass:
    """(N, C, ...): over each channel of each image."""
    x = floating(inputs[0])
    axes = tuple(range(2, x.value.ndim))
    return _normalize(x, axes, _channels(x), eps, tensors, cotangent)
