"""How a sweep's runs are cut into blocks of one shape."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxmlp.experiment import Experiment

FEW_SETTINGS = 8  # settings per input scale from which on blocks of one scale each are worth it


class Block(NamedTuple):
    """What one device trains at a time: every seed with every setting, by their positions."""

    seeds: tuple[int, ...]
    settings: tuple[int, ...]


def seeded(setting: Experiment, seed: int) -> Experiment:
    """The run of a setting with a seed."""
    return dataclasses.replace(setting, seed=seed)


def one_scale_per_block(scales: Sequence[float]) -> bool:
    """Whether blocks keep to one input scale each, so that their runs share the scaled batch."""
    return len(scales) >= FEW_SETTINGS * len(set(scales))


def blocks(scales: Sequence[float], seeds: int, size: int) -> list[Block]:
    """All runs in rectangles of the same shape, at most `size` runs each.

    Args:
        scales: the settings' input scales.
        seeds: how many.

    Returns:
        Blocks of settings first; the last of a group repeats its last setting or seed.
    """
    positions = range(len(scales))
    groups = [list(positions)]
    if one_scale_per_block(scales):
        groups = [[i for i in positions if scales[i] == scale] for scale in dict.fromkeys(scales)]
    longest = max(map(len, groups))
    width = min(longest, -(-longest // -(-longest // size)))  # even pieces: little to repeat
    height = min(seeds, max(1, size // width))
    return [
        Block(own_seeds, own_settings)
        for group in groups
        for own_settings in _pieces(group, width)
        for own_seeds in _pieces(range(seeds), height)
    ]


def _pieces(items: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    for first in range(0, len(items), size):
        piece = tuple(items[first : first + size])
        yield piece + piece[-1:] * (size - len(piece))
