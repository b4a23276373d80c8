"""How an array of one framework lies in the other: axes reordered, merged, split or reversed."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MOST_AXES = 6  # whose orders are all tried


class Layout(NamedTuple):
    """From torch's array to the port's: axes in this order, some reversed, then reshaped."""

    torch: tuple[int, ...]  # shapes
    jax: tuple[int, ...]
    order: tuple[int, ...]  # of torch's axes
    reversed: tuple[int, ...] = ()  # torch's axes

    def to_jax(self, array: np.ndarray) -> np.ndarray:
        """torch's array as the port has it."""
        return np.flip(array, self.reversed).transpose(self.order).reshape(self.jax)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The port's array as torch has it."""
        moved = array.reshape([self.torch[axis] for axis in self.order])
        return np.flip(moved.transpose(np.argsort(self.order)), self.reversed)

    @property
    def words(self) -> str:
        """Such as `axes 2, 3, 1, 0`; empty where nothing changes."""
        if self.order == tuple(range(len(self.order))):
            told = "" if self.torch == self.jax else "reshaped"
        else:
            told = f"axes {', '.join(map(str, self.order))}"
        return f"{told}, kernel reversed" if self.reversed else told


def layouts(
    torch: Sequence[int], jax: Sequence[int], reversible: Sequence[int] = ()
) -> list[Layout]:
    """All that lead from one shape to the other; first those that change least.

    Args:
        reversible: torch's axes that may all be reversed, such as a kernel's in space.
    """
    torch, jax = tuple(torch), tuple(jax)
    if math.prod(torch) != math.prod(jax) or len(torch) > MOST_AXES:
        return []
    found = []
    for order in _orders(len(torch)):
        if _regroups([torch[axis] for axis in order], jax):
            found.append(Layout(torch, jax, order))
            if reversible:
                found.append(Layout(torch, jax, order, tuple(reversible)))
    return found


def activations(torch: Sequence[int], jax: Sequence[int]) -> list[Layout]:
    """Of a batch of activations: examples stay first; torch's channels come second, Flax' last."""
    found = [each for each in layouts(torch, jax) if not each.order or each.order[0] == 0]
    dims = len(torch)
    last = (0, *range(2, dims), 1)
    return sorted(found, key=lambda each: each.order != last) if dims > 3 else found


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    return itertools.permutations(range(count))


def _regroups(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether adjacent axes are only merged, or one is split."""
    ends = [set(itertools.accumulate(shape, lambda a, b: a * b)) for shape in (given, wanted)]
    return ends[0] <= ends[1] or ends[1] <= ends[0]
