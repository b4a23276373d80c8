"""PyTorch's CPU generator in NumPy: the same weights and batch order from the same seed.

The stream is MT19937's 32-bit words (Matsumoto & Nishimura 1998), which NumPy has. What torch makes
of them was read off its behaviour and is held to it, bit for bit, by tests/test_torch_rng.py.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt32

Layer = dict[str, Any]  # of float arrays


class TorchGenerator:
    """What `torch.Generator().manual_seed(seed)` draws, for the draws that this project needs."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed & 0xFFFFFFFF)

    def words(self, count: int) -> UInt32[np.ndarray, " count"]:
        """The next 32-bit words of the stream."""
        return self._words.randint(0, 2**32, size=count, dtype=np.uint32)

    def int64(self) -> int:
        """`torch.empty((), dtype=torch.int64).random_()`: two words, high first, no sign bit."""
        high, low = (int(word) for word in self.words(2))
        return (high << 32 | low) & (2**63 - 1)

    def uniform(
        self, count: int, bound: float, dtype: type[np.floating]
    ) -> Float[np.ndarray, " count"]:
        """`torch.empty(count, dtype).uniform_(-bound, bound)` for float32 or float64.

        torch computes u·2·bound - bound in double from 24 bits for float32 (with the bound rounded
        to float32 first), and with one rounding, a fused multiply-add, from 53 bits for float64.
        """
        if dtype is np.float32:
            bound = float(np.float32(bound))
            fraction = (self.words(count) & np.uint32(2**24 - 1)) * 2.0**-24
            return (fraction * (2 * bound) - bound).astype(np.float32)
        words = self.words(2 * count).astype(np.uint64)
        bits = (words[0::2] << np.uint64(32) | words[1::2]) & np.uint64(2**53 - 1)
        return _fused_multiply_add(bits * 2.0**-53, 2 * bound, -bound)

    def permutation(self, count: int) -> Int[np.ndarray, " count"]:
        """`torch.randperm(count)`: Fisher-Yates from the front, one word a swap."""
        steps = np.arange(count - 1, dtype=np.int64) if count else np.empty(0, np.int64)
        remaining = np.arange(count, 1, -1, dtype=np.uint32)
        return _swapped(steps + self.words(len(steps)) % remaining, count).astype(np.int32)


def _swapped(targets: Int[np.ndarray, " steps"], count: int) -> Int[np.ndarray, " count"]:
    """0 to count - 1 after step i, for each i in turn, has swapped places i and targets[i] >= i.

    No later step looks at place i, so what it keeps is what lay at its target: what the last
    earlier step with that target put there, or what lay there from the start. A step puts there
    what lay at its own place before, which is found in the same way: by a chain of steps, whose
    beginnings are found by pointer jumping. Without a loop over the steps.
    """
    steps = np.arange(len(targets))
    moves = steps < targets
    origin = np.arange(count)  # of what lies at a place when its step comes
    origin[targets[moves]] = steps[moves]  # of several, numpy keeps the last
    while not np.array_equal(further := origin[origin], origin):
        origin = further
    # The last earlier step with the same target: its neighbour, once they are sorted by it.
    by_target = np.argsort(targets.astype(np.min_scalar_type(count)), kind="stable")
    alike = targets[by_target[1:]] == targets[by_target[:-1]]
    order = np.append(targets, count - 1)[:count]
    order[by_target[1:][alike]] = origin[by_target[:-1][alike]]
    order[-1:] = origin[-1:]
    return order


def _fused_multiply_add(x: np.ndarray, factor: float, addend: float) -> np.ndarray:
    """x·factor + addend with the product's and the sum's rounding errors put back.

    Error-free transformations: Dekker 1971 (product), Knuth, TAOCP 2, 4.2.2 (sum).
    """

    def halves(value):
        shifted = (2.0**27 + 1) * value
        high = shifted - (shifted - value)
        return high, value - high

    product = x * factor
    (x_high, x_low), (f_high, f_low) = halves(x), halves(np.float64(factor))
    product_error = ((x_high * f_high - product) + x_high * f_low + x_low * f_high) + x_low * f_low
    total = product + addend
    part = total - product
    return total + (((product - (total - part)) + (addend - part)) + product_error)


def init_bound(fan_in: int) -> float:
    """`nn.Linear`'s bound, 1/sqrt(fan_in), in the operations and roundings torch uses.

    kaiming_uniform with a = sqrt(5): gain sqrt(2 / (1 + a²)), deviation gain / sqrt(fan_in).
    """
    return math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5.0) ** 2)) / math.sqrt(fan_in))


def initial_weights(
    generator: TorchGenerator,
    widths: tuple[int, ...],
    bias: bool,
    dtype: type[np.floating] = np.float32,
) -> list[Layer]:
    """The parameters that `nn.Linear(widths[i], widths[i + 1])` draws, layer after layer.

    Returns:
        For each layer `kernel` (fan_in, fan_out), the transpose of torch's weight, and with `bias`
        also `bias` (fan_out,).
    """
    params = []
    for fan_in, fan_out in itertools.pairwise(widths):
        weight = generator.uniform(fan_in * fan_out, init_bound(fan_in), dtype)
        layer = {"kernel": np.ascontiguousarray(weight.reshape(fan_out, fan_in).T)}
        if bias:
            layer["bias"] = generator.uniform(fan_out, 1 / math.sqrt(fan_in), dtype)
        params.append(layer)
    return params


def batch_order(
    generator: TorchGenerator, images: int, batch_size: int
) -> Iterator[Int[np.ndarray, "steps batch"]]:
    """The index arrays of a shuffling training DataLoader, epoch after epoch, without end.

    In each epoch the training iterator draws its workers' base seed, then the seed of its own
    shuffle; after the epoch the test iterator draws a base seed.

    Args:
        generator: the default generator, after it has drawn the initial weights.
        images: number of training images, a multiple of batch_size.
    """
    while True:
        generator.int64()
        order = TorchGenerator(generator.int64()).permutation(images)
        yield order.reshape(-1, batch_size)
        generator.int64()
