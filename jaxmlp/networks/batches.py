"""A user's batches: read when they are needed, kept, and the same at every look."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

MOST_BATCHES = 100  # that are kept: more would fill the memory, and no check trains for longer


class Batches(Sequence[tuple[Array, Array]]):
    """The first batches of an iterable. What was read is kept, since loaders shuffle.

    Raises:
        ValueError: there is none, or one that is read is no pair of arrays.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        try:
            self._source = itertools.islice(source, MOST_BATCHES)
        except TypeError:
            raise ValueError(
                f"batches is a {type(source).__name__}; give a list or a loader of "
                "(inputs, targets)"
            ) from None
        self._kept: list[tuple[Array, Array]] = []
        self._read(1)
        if not self._kept:
            raise ValueError("there are no batches; give at least one pair of inputs and targets")

    def __getitem__(self, place: Any) -> Any:
        end = place.stop if isinstance(place, slice) else place + 1
        self._read(MOST_BATCHES if end is None or end <= 0 else end)
        return self._kept[place]

    def __len__(self) -> int:
        self._read(MOST_BATCHES)
        return len(self._kept)

    def _read(self, count: int) -> None:
        for batch in itertools.islice(self._source, max(count - len(self._kept), 0)):
            self._kept.append(_pair(batch))


def _pair(batch: Any) -> tuple[Array, Array]:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(hasattr(each, "shape") for each in batch):
        raise ValueError(
            f"a batch is a {type(batch).__name__}; give pairs of arrays (inputs, targets)"
        )
    return jnp.asarray(batch[0]), jnp.asarray(batch[1])
