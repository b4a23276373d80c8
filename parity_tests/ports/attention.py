"""Attention, written out or fused.

Covered: the scale on the queries, on queries and keys (its root), or on the scores; division by
the sum of exponentials before or after the product with the values; and the fused kernels'
backward pass, which recomputes the probabilities from the log-sum-exp and takes Σ p·dp from the
output. A fused kernel that rescales its sums block by block is covered up to a few blocks.
"""

from typing import NamedTuple

import numpy as np

from parity_tests.bounds import Bounded, bilinear, exact, where
from parity_tests.ports.convolutions import linear
from parity_tests.ports.layer import Inputs, Pass, Tensors, floating
from parity_tests.ports.softmax import probabilities, softmax_gradient

FUSED = 4  # terms more than a product of matrices has: scale, quotient, rescaling


class Attended(NamedTuple):
    output: Bounded
    gradients: tuple[Bounded, ...]  # of queries, keys, values


def _product(a: Bounded, b: Bounded) -> Bounded:
    return bilinear(np.matmul, a, b, a.shape[-1] + FUSED)


def attend(
    queries: Bounded,
    keys: Bounded,
    values: Bounded,
    scale: float,
    added: Bounded | None,
    blocked: np.ndarray,
    cotangent: Bounded | None,
) -> Attended:
    """softmax(scale·q·kᵀ + added)·v for (..., T, D), nothing from what is blocked."""
    scores = _product(queries, keys.swapaxes(-1, -2)) * scale
    scores = scores if added is None else scores + added
    impossible = exact(np.full_like(scores.value, -np.inf), scores.unit)
    weights, _ = probabilities(where(blocked, impossible, scores), -1)
    weights = where(blocked, exact(np.zeros_like(weights.value), weights.unit), weights)
    output = _product(weights, values)
    if cotangent is None:
        return Attended(output, ())
    towards = _product(cotangent, values.swapaxes(-1, -2))
    inner = (cotangent * output).sum(-1, keepdims=True)  # equals Σ p·dp
    of_scores = softmax_gradient(weights, towards, -1).also(weights * (towards - inner)) * scale
    of_queries = _product(of_scores, keys)
    of_keys = _product(of_scores.swapaxes(-1, -2), queries)
    of_values = _product(weights.swapaxes(-1, -2), cotangent)
    return Attended(output, (of_queries, of_keys, of_values))


def _mask(
    mask: Bounded | np.ndarray | None, causal: bool, shape: tuple[int, int], blocks: bool
) -> tuple[Bounded | None, np.ndarray]:
    """What is added to the scores, and where attention is blocked.

    Args:
        blocks: True in a boolean mask blocks, as in nn.MultiheadAttention; else it admits.
    """
    blocked = np.triu(np.ones(shape, bool), 1) if causal else np.zeros(shape, bool)
    if mask is None:
        return None, blocked
    if not isinstance(mask, Bounded):
        return None, blocked | (mask if blocks else ~mask)
    out = np.isneginf(mask.value)
    zero = exact(np.zeros_like(mask.value), mask.unit)
    return where(out, zero, mask), blocked | out


def scaled_dot_product(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Pass:
    """Queries, keys and values (N, H, T, D), perhaps a mask: added, or boolean with True admitted.

    A mask has no gradient.
    """
    queries, keys, values = (floating(array) for array in inputs[:3])
    mask = inputs[3] if len(inputs) > 3 else None
    added, blocked = _mask(mask, causal, (queries.shape[-2], keys.shape[-2]), blocks=False)
    factor = queries.shape[-1] ** -0.5 if scale is None else scale
    done = attend(queries, keys, values, factor, added, blocked, cotangent)
    if cotangent is None:
        return Pass(done.output)
    return Pass(done.output, [*done.gradients, *[None] * (len(inputs) - 3)])


def attention(
    tensors: Tensors,
    inputs: Inputs,
    cotangent: Bounded | None,
    *,
    heads: int,
    causal: bool = False,
) -> Pass:
    """nn.MultiheadAttention on itself: (N, T, E), perhaps a mask (True: blocked; no gradient).

    A mask per head, (N·heads, T, T), as torch has it.
    """
    x = floating(inputs[0])
    count, length, width = x.shape
    entering = {"weight": tensors["in_proj_weight"]}
    leaving = {"weight": tensors["out_proj.weight"]}
    if "in_proj_bias" in tensors:
        entering["bias"] = tensors["in_proj_bias"]
        leaving["bias"] = tensors["out_proj.bias"]
    split = (count, length, 3, heads, width // heads)

    def by_head(array: np.ndarray) -> np.ndarray:
        return array.reshape(split).transpose(2, 0, 3, 1, 4)

    def attended(delta: Bounded | None) -> Attended:
        return attend(projected[0], projected[1], projected[2], scale, added, blocked, delta)

    projected = linear(entering, [x], None).output.arranged(by_head)
    mask = inputs[1] if len(inputs) > 1 else None
    if mask is not None and len(mask.shape) == 3:
        mask = mask.reshape(count, heads, length, length)
    added, blocked = _mask(mask, causal, (length, length), blocks=True)
    scale = (width // heads) ** -0.5
    together = attended(None).output.swapaxes(1, 2).reshape(count, length, width)
    if cotangent is None:
        return Pass(linear(leaving, [together], None).output)
    left = linear(leaving, [together], cotangent)
    (delta,) = left.input_gradients
    assert delta is not None
    delta = delta.reshape(count, length, heads, width // heads).swapaxes(1, 2)
    back = _joined(attended(delta).gradients).arranged(
        lambda array: array.transpose(1, 3, 0, 2, 4).reshape(count, length, 3 * width)
    )
    entered = linear(entering, [x], back)
    gradients = {f"in_proj_{name}": g for name, g in entered.gradients.items()}
    gradients |= {f"out_proj.{name}": g for name, g in left.gradients.items()}
    return Pass(left.output, [*entered.input_gradients, *[None] * (len(inputs) - 1)], gradients)


def _joined(parts: tuple[Bounded, ...]) -> Bounded:
    """Along a new first axis."""
    value, error = (np.stack([getattr(p, name) for p in parts]) for name in ("value", "error"))
    return Bounded(value, error, parts[0].unit)
