"""The user's batches, read when they are needed and kept."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from torchref.network_tensors import forked

MOST_KEPT = 100  # loaders shuffle, and a run has to see again what another saw


class Batches:
    """The first batches of an iterable, by number; after the last comes the first again.

    Raises:
        ValueError: a batch is no pair of tensors, or there is none.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        if not isinstance(batches, Iterable):
            raise ValueError(
                f"batches is a {type(batches).__name__}; give an iterable of (inputs, targets)"
            )
        # Loaders draw as they go. Each read goes on from the last one's generator, lest all draw
        # the same; the user's is left alone.
        self.generator = torch.get_rng_state()
        self.rest, self.kept, self.ended = None, [], False
        self.source = batches
        if self._read() is None:
            raise ValueError("batches yields nothing; give at least one pair (inputs, targets)")

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        while number >= len(self.kept) and not self.ended:
            self._read()
        return self.kept[number % len(self.kept)]

    def __len__(self) -> int:
        return len(self.first(MOST_KEPT))

    def first(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """So many batches, or as many as there are."""
        self[count - 1]
        return self.kept[:count]

    def _read(self) -> tuple[Tensor, Tensor] | None:
        """The next batch, which is kept; None after the last."""
        with forked():
            torch.set_rng_state(self.generator)
            self.rest = iter(self.source) if self.rest is None else self.rest
            batch = next(self.rest, None)
            self.generator = torch.get_rng_state()
        if batch is not None:
            self.kept.append(_pair(batch))
        self.ended = batch is None or len(self.kept) == MOST_KEPT
        return batch


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of as many examples."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(each, Tensor) and each.ndim for each in batch):
        held = [type(each).__name__ for each in batch] if pair else []
        what = f"a {type(batch).__name__}" + (f" of {' and '.join(held)}" if held else "")
        raise ValueError(f"batches yields {what}; give pairs of tensors (inputs, targets)")
    inputs, targets = batch
    if len(inputs) != len(targets):
        raise ValueError(
            f"batches yields {len(inputs)} inputs with {len(targets)} targets; give a target per "
            "example, along the first dimension"
        )
    return inputs, targets
