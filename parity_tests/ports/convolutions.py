"""Layers that are linear in their inputs, and pooling, in torch's layouts.

Convolutions are sums over the kernel's positions (taps): at each of them a strided slice of the
padded images meets a matrix. The sums' order is free; Winograd's and Fourier's algorithms, which
subtract what the direct one never forms, are not covered.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from parity_tests.bounds import Bounded, bilinear, exact, gamma
from parity_tests.ports.layer import Inputs, Pass, Tensors, floating, with_bias


class Geometry(NamedTuple):
    """Per spatial axis; padding as (below, above)."""

    stride: Sequence[int]
    padding: Sequence[Sequence[int]]
    dilation: Sequence[int]
    groups: int

    def outputs(self, spatial: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        axes = zip(spatial, kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + lo + hi - d * (k - 1) - 1) // s + 1 for n, k, s, (lo, hi), d in axes)

    def taps(self, kernel: Sequence[int], outputs: Sequence[int]) -> Iterator[tuple]:
        """Every position in the kernel, and the slices of the padded images that it meets."""
        for tap in np.ndindex(*kernel):
            axes = zip(tap, outputs, self.stride, self.dilation, strict=True)
            yield tap, (..., *(slice(t * d, t * d + s * (n - 1) + 1, s) for t, n, s, d in axes))


def _pad(images: np.ndarray, geometry: Geometry, fill: float = 0.0) -> np.ndarray:
    return np.pad(images, [(0, 0), (0, 0), *geometry.padding], constant_values=fill)


def _crop(padded: np.ndarray, geometry: Geometry, spatial: Sequence[int]) -> np.ndarray:
    pairs = zip(geometry.padding, spatial, strict=True)
    return padded[(..., *(slice(below, below + n) for (below, _), n in pairs))]


def _grouped(channels: np.ndarray, groups: int) -> np.ndarray:
    """(C, N, ...) to (G, C/G, images' positions), which one matrix product takes at once."""
    return channels.reshape(groups, len(channels) // groups, -1)


def _matrix(kernel: np.ndarray, tap: tuple[int, ...], groups: int) -> np.ndarray:
    """(O, I/G, ...) to (G, O/G, I/G) at a tap."""
    return np.ascontiguousarray(kernel[(..., *tap)]).reshape(groups, -1, kernel.shape[1])


def convolve(images: np.ndarray, kernel: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, I, ...) and (O, I/G, ...) to (N, O, ...)."""
    groups, padded = geometry.groups, _pad(images, geometry).swapaxes(0, 1)
    outputs = geometry.outputs(images.shape[2:], kernel.shape[2:])
    positions = len(images) * int(np.prod(outputs))
    total = np.zeros((groups, len(kernel) // groups, positions))
    for tap, slices in geometry.taps(kernel.shape[2:], outputs):
        total += _matrix(kernel, tap, groups) @ _grouped(padded[slices], groups)
    return total.reshape(len(kernel), len(images), *outputs).swapaxes(0, 1)


def images_gradient(
    delta: np.ndarray, kernel: np.ndarray, geometry: Geometry, spatial: Sequence[int]
) -> np.ndarray:
    """The transposed convolution: (N, O, ...) and (O, I/G, ...) to (N, I, *spatial)."""
    groups, channels = geometry.groups, kernel.shape[1] * geometry.groups
    enlarged = [n + sum(pair) for n, pair in zip(spatial, geometry.padding, strict=True)]
    padded = np.zeros((channels, len(delta), *enlarged))
    grouped = _grouped(delta.swapaxes(0, 1), groups)
    for tap, slices in geometry.taps(kernel.shape[2:], delta.shape[2:]):
        part = _matrix(kernel, tap, groups).swapaxes(1, 2) @ grouped
        padded[slices] += part.reshape(channels, len(delta), *delta.shape[2:])
    return _crop(padded.swapaxes(0, 1), geometry, spatial)


def kernel_gradient(
    images: np.ndarray, delta: np.ndarray, geometry: Geometry, kernel: Sequence[int]
) -> np.ndarray:
    """(N, I, ...) and (N, O, ...) to (O, I/G, *kernel)."""
    groups, padded = geometry.groups, _pad(images, geometry).swapaxes(0, 1)
    gradient = np.zeros((delta.shape[1], images.shape[1] // groups, *kernel))
    grouped = _grouped(delta.swapaxes(0, 1), groups)
    for tap, slices in geometry.taps(kernel, delta.shape[2:]):
        part = grouped @ _grouped(padded[slices], groups).swapaxes(1, 2)
        gradient[(..., *tap)] = part.reshape(gradient.shape[:2])
    return gradient


def _convolve(images: Bounded, kernel: Bounded, geometry: Geometry) -> Bounded:
    terms = int(np.prod(kernel.shape[1:]))
    return bilinear(lambda x, w: convolve(x, w, geometry), images, kernel, terms)


def _images_gradient(
    delta: Bounded, kernel: Bounded, geometry: Geometry, spatial: Sequence[int]
) -> Bounded:
    terms = kernel.value.size // (kernel.shape[1] * geometry.groups)
    return bilinear(lambda g, w: images_gradient(g, w, geometry, spatial), delta, kernel, terms)


def _kernel_gradient(
    images: Bounded, delta: Bounded, geometry: Geometry, kernel: Sequence[int]
) -> Bounded:
    terms = delta.value.size // delta.shape[1]
    return bilinear(lambda x, g: kernel_gradient(x, g, geometry, kernel), images, delta, terms)


def _channel_bias(tensors: Tensors, axes: int) -> Bounded | None:
    return tensors["bias"].reshape(1, -1, *[1] * axes) if "bias" in tensors else None


def _bias_gradient(tensors: Tensors, delta: Bounded) -> dict[str, Bounded]:
    if "bias" not in tensors:
        return {}
    return {"bias": delta.sum(axis=(0, *range(2, delta.value.ndim)))}


def conv(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    stride: Sequence[int],
    padding: Sequence[Sequence[int]],
    dilation: Sequence[int],
    groups: int = 1,
) -> Pass:
    """Images (N, I, ...), weight (O, I/G, ...)."""
    images, kernel = floating(inputs[0]), tensors["weight"]
    geometry = Geometry(stride, padding, dilation, groups)
    product = _convolve(images, kernel, geometry)
    terms = int(np.prod(kernel.shape[1:]))
    output = with_bias(product, _channel_bias(tensors, len(stride)), terms)
    if cotangent is None:
        return Pass(output)
    gradient = _images_gradient(cotangent, kernel, geometry, images.shape[2:])
    weight = _kernel_gradient(images, cotangent, geometry, kernel.shape[2:])
    return Pass(output, [gradient], {"weight": weight, **_bias_gradient(tensors, cotangent)})


def conv_transposed(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Pass:
    """Images (N, I, ...), weight (I, O/G, ...): the images' gradient of the convolution O to I.

    padding as torch means it: what that convolution pads on both sides.
    """
    images, kernel = floating(inputs[0]), tensors["weight"]
    geometry = Geometry(stride, [(p, p) for p in padding], dilation, groups)
    sizes = zip(
        images.shape[2:], kernel.shape[2:], stride, padding, output_padding, dilation, strict=True
    )
    spatial = [(n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, extra, d in sizes]
    product = _images_gradient(images, kernel, geometry, spatial)
    terms = kernel.value.size // (kernel.shape[1] * groups)
    output = with_bias(product, _channel_bias(tensors, len(stride)), terms)
    if cotangent is None:
        return Pass(output)
    gradient = _convolve(cotangent, kernel, geometry)
    weight = _kernel_gradient(cotangent, images, geometry, kernel.shape[2:])
    return Pass(output, [gradient], {"weight": weight, **_bias_gradient(tensors, cotangent)})


def linear(tensors: Tensors, inputs: Inputs, cotangent: Bounded | None) -> Pass:
    """Inputs (..., I), weight (O, I)."""
    arrays, weight, bias = floating(inputs[0]), tensors["weight"], tensors.get("bias")
    rows = arrays.reshape(-1, weight.shape[1])
    output = with_bias(rows @ weight.T, bias, weight.shape[1])
    output = output.reshape(*arrays.shape[:-1], weight.shape[0])
    if cotangent is None:
        return Pass(output)
    delta = cotangent.reshape(-1, weight.shape[0])
    gradients = {"weight": delta.T @ rows} | ({} if bias is None else {"bias": delta.sum(0)})
    return Pass(output, [(delta @ weight).reshape(*arrays.shape)], gradients)


def embedding(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    padding_idx: int | None = None,
) -> Pass:
    """Rows of the weight (V, C) by whole numbers (...); padding_idx: the row without gradient."""
    weight, rows = tensors["weight"], inputs[0]
    assert not isinstance(rows, Bounded)
    output = weight[rows]
    if cotangent is None:
        return Pass(output)
    used = np.eye(weight.shape[0])[rows.ravel()]  # (positions, V)
    if padding_idx is not None:
        used[:, padding_idx] = 0
    most = int(used.sum(0).max(initial=1))
    delta = cotangent.reshape(-1, weight.shape[1])
    gradient = bilinear(lambda u, g: u.T @ g, exact(used, weight.unit), delta, most)
    return Pass(output, [None], {"weight": gradient})


def max_pool(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence,
    dilation: Sequence[int] | None = None,
) -> Pass:
    """Windows of (N, C, ...). The first of equal maxima has the gradient, or any of them: where
    there are several, the bound is the whole of it for each.
    """
    images = floating(inputs[0])
    geometry = Geometry(stride, _pairs(padding), dilation or [1] * len(size), 1)
    outputs = geometry.outputs(images.shape[2:], size)
    taps = list(geometry.taps(size, outputs))

    def windows(array: np.ndarray, fill: float) -> np.ndarray:
        padded = _pad(array, geometry, fill)
        return np.stack([padded[slices] for _, slices in taps])

    met = Bounded(windows(images.value, -np.inf), windows(images.error, 0.0), images.unit)
    largest = met.max(0)
    if cotangent is None:
        return Pass(largest[0])
    candidate = met.value + met.error >= (met.value - met.error).max(0)
    undecided = candidate & (candidate.sum(0) > 1)
    first = met.value.argmax(0)
    value, error = np.zeros_like(_pad(images.value, geometry)), _pad(0 * images.value, geometry)
    size_of_sum = np.zeros_like(value)
    for i, (_, slices) in enumerate(taps):
        value[slices] += np.where(first == i, cotangent.value, 0)
        error[slices] += np.where(undecided[i], np.abs(cotangent.value), 0)
        error[slices] += np.where(candidate[i], cotangent.error, 0)
        size_of_sum[slices] += np.where(candidate[i], np.abs(cotangent.value), 0)
    error += gamma(len(taps), images.unit) * (size_of_sum + error)
    gradient = Bounded(value, error, images.unit)
    cropped = gradient.arranged(lambda array: _crop(array, geometry, images.shape[2:]))
    return Pass(largest[0], [cropped])


def avg_pool(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence,
    count_include_pad: bool = True,
) -> Pass:
    """Windows of (N, C, ...): a convolution of each channel with ones, divided by the count."""
    images = floating(inputs[0])
    count, channels, *spatial = images.shape
    geometry = Geometry(stride, _pairs(padding), [1] * len(size), 1)
    ones = exact(np.ones((1, 1, *size)), images.unit)
    inside = np.full((1, 1, *spatial), 1.0)
    counts = convolve(inside, ones.value, geometry)
    if count_include_pad:
        counts = np.full_like(counts, np.prod(size))
    alone = images.reshape(count * channels, 1, *spatial)
    output = _convolve(alone, ones, geometry) * (1 / counts)
    outputs = output.shape[2:]
    output = output.reshape(count, channels, *outputs)
    if cotangent is None:
        return Pass(output)
    delta = cotangent.reshape(count * channels, 1, *outputs) * (1 / counts)
    gradient = _images_gradient(delta, ones, geometry, spatial)
    return Pass(output, [gradient.reshape(*images.shape)])


def mean(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    axes: Sequence[int],
    keepdims: bool = False,
) -> Pass:
    """Over axes; adaptive average pooling to 1 is one that keeps them."""
    arrays = floating(inputs[0])
    ndim = arrays.value.ndim
    axes = tuple(a % ndim for a in axes)
    output = arrays.mean(axes, keepdims)
    if cotangent is None:
        return Pass(output)
    kept = [1 if a in axes else n for a, n in enumerate(arrays.shape)]
    terms = int(np.prod([arrays.shape[a] for a in axes], dtype=int))
    delta = cotangent.reshape(*kept) * (1 / terms)
    return Pass(output, [delta.arranged(lambda part: np.broadcast_to(part, arrays.shape))])


def _pairs(padding: Sequence) -> list[tuple[int, int]]:
    """Per axis: the same below and above, or a pair."""
    return [(p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding]
