"""What a sweep asks for: axes of values over the traced settings, and the experiments they span."""

import collections
import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmlp.experiment import SCALED, Experiment, parse_number

SWEPT = (*SCALED, "seed")  # what is traced: one compiled program serves all values
WAYS = ("grid", "zip", "random")
FIELDS = {setting.name: setting for setting in dataclasses.fields(Experiment)}
MOST = 1_000_000  # runs; more are a slip of the keyboard
TRIES = 100  # draws for each that is wanted; all n of n settings take n·ln n
NUMBERS = "numbers, or log:LOW:HIGH:N or lin:LOW:HIGH:N for N of them (--random: log:LOW:HIGH)"
WHOLE = "whole numbers, or LOW..HIGH for all between"


class Range(NamedTuple):
    """Numbers between two ends, evenly spaced in the logarithm or as they are."""

    kind: str  # log or lin
    low: float
    high: float
    number: int | None  # None: to draw from

    def values(self) -> list[float]:
        assert self.number is not None
        if self.number == 1:
            return [self.low]
        inner = [self.at(i / (self.number - 1)) for i in range(1, self.number - 1)]
        return [self.low, *inner, self.high]

    def at(self, share: float) -> float:
        if self.kind == "lin":
            return self.low + share * (self.high - self.low)
        return self.low * 10 ** (share * math.log10(self.high / self.low))


class Axis(NamedTuple):
    """The values of one setting: for all layers, or for one."""

    setting: str
    layer: int | None  # counted from 1
    words: tuple[str, ...]

    @property
    def flag(self) -> str:
        layer = "" if self.layer is None else f".{self.layer}"
        return "--" + self.setting.replace("_", "-") + layer

    @property
    def values(self) -> str:
        """What may be given."""
        return WHOLE if FIELDS[self.setting].metadata["kind"] is int else NUMBERS


def axis(name: str, words: Sequence[str]) -> Axis:
    """The axis of a flag's name without dashes, such as `learning-rate` or `learning-rate.1`.

    Raises:
        ValueError: there is no such setting, or no value is given.
    """
    setting, _, layer = name.replace("-", "_").partition(".")
    found = Axis(setting, int(layer) if layer else None, tuple(words))
    if not words:
        raise ValueError(f"{found.flag} has no value; give {found.values}")
    if layer and not FIELDS[setting].metadata.get("per_layer"):
        raise ValueError(f"{found.flag}: {setting} is not per layer; leave out .{layer}")
    return found


def experiments(
    base: Experiment,
    axes: Iterable[Axis],
    way: str = "grid",
    count: int | None = None,
    draw: int = 0,
    seeds: int = 1,
) -> list[Experiment]:
    """The runs' settings at the base's seed, in the order of the table.

    Args:
        way: grid, every combination, the last axis fastest; zip, the axes' values side by side; or
            random, `count` different draws from the axes' ranges and lists with the seed `draw`.
        seeds: that each setting will be run with.

    Raises:
        ValueError: a value breaks its rule, the axes do not fit together, or a setting comes twice.
    """
    axes = list(axes)
    if way == "random":
        assert count is not None
        limit(count * seeds)
        return _draws(base, axes, count, random.Random(draw))
    values = [_listed(one) for one in axes]
    combinations = _zipped(axes, values) if way == "zip" else itertools.product(*values)
    count = max(map(len, values), default=1) if way == "zip" else math.prod(map(len, values))
    limit(count * seeds)
    if way == "grid":
        for one, own in zip(axes, values, strict=True):
            _once(one, own)
    found: dict[Experiment, None] = {}
    for combination in combinations:
        experiment = _replaced(base, axes, combination)
        if experiment in found:
            twice = " ".join(map(_words, axes, combination))
            raise ValueError(f"{twice} comes twice; give every setting once")
        found[experiment] = None
    return list(found)


def _once(one: Axis, values: Sequence[Any]) -> None:
    """Sees that no value comes twice, however it is written.

    Raises:
        ValueError: one does.
    """
    # One number for each layer is that number for all.
    plain = [
        value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value for value in values
    ]
    value, times = collections.Counter(plain).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{_words(one, value)} comes twice; give every value once")


def _words(one: Axis, value: Any) -> str:
    """A value as the command line has it."""
    numbers = value if isinstance(value, tuple) else (value,)
    return f"{one.flag} {','.join(str(number).removesuffix('.0') for number in numbers)}"


def _draws(
    base: Experiment, axes: list[Axis], count: int, generator: random.Random
) -> list[Experiment]:
    """So many different draws; one that repeats another is drawn again.

    Raises:
        ValueError: the axes have not as many.
    """
    choices = [_drawn(one) for one in axes]
    found: dict[Experiment, None] = {}
    for _ in range(TRIES + TRIES * count):
        found[_replaced(base, axes, [one(generator) for one in choices])] = None
        if len(found) == count:
            return list(found)
    raise ValueError(
        f"--random {count}: only {len(found)} different settings are found; draw fewer, or give "
        "wider ranges"
    )


def limit(runs: int) -> None:
    """Refuses what nobody means.

    Raises:
        ValueError: there are too many.
    """
    if runs > MOST:
        raise ValueError(f"{runs:,} runs are more than {MOST:,}; take fewer values")


def seeds(words: Sequence[str]) -> list[int]:
    """The seeds of a sweep, such as `0 1 2` or `0..9`; each is run with all settings.

    Raises:
        ValueError: a word is no whole number, or a seed comes twice.
    """
    axis_of_seeds = Axis("seed", None, tuple(words))
    found = _listed(axis_of_seeds)
    for seed in (min(found), max(found)):
        Experiment(seed=seed)  # is it one?
    _once(axis_of_seeds, found)
    return found


def _zipped(axes: list[Axis], values: list[list[Any]]) -> Iterable[Sequence[Any]]:
    if not axes:
        return [()]
    longest = max(map(len, values), default=1)
    for one, own in zip(axes, values, strict=True):
        if len(own) not in (1, longest):
            raise ValueError(
                f"{one.flag} has {len(own)} values beside {longest} of another; with --zip all "
                "have as many, or one"
            )
    return zip(*(own * longest if len(own) == 1 else own for own in values), strict=True)


def _listed(one: Axis) -> list[Any]:
    """All values of an axis."""
    found: list[Any] = []
    for word in one.words:
        value = _parsed(one, word)
        if isinstance(value, Range) and value.number is None:
            raise ValueError(f"{one.flag} {word}: say how many, {word}:N")
        found += (
            value.values()
            if isinstance(value, Range)
            else value
            if isinstance(value, range)
            else [value]
        )
    return found


def _drawn(one: Axis):
    """A function from a generator to one value of the axis."""
    parsed = [_parsed(one, word) for word in one.words]
    ranges = [value for value in parsed if isinstance(value, Range)]
    if not ranges:
        listed = _listed(one)
        _once(one, listed)
        return lambda generator: generator.choice(listed)
    if len(parsed) > 1 or ranges[0].number is not None:
        raise ValueError(
            f"{one.flag} {' '.join(one.words)}: with --random give one {ranges[0].kind}:LOW:HIGH, "
            "or a list to choose from"
        )
    return lambda generator: ranges[0].at(generator.random())


def _parsed(one: Axis, word: str) -> Any:
    """A word's value: a Range, a range of whole numbers, a number, or one per layer."""
    rules: Mapping[str, Any] = FIELDS[one.setting].metadata
    read = int if rules["kind"] is int else parse_number
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", word):
        limit(int(match[2]) - int(match[1]))
    try:
        kind, *rest = word.split(":")
        if kind in ("log", "lin") and rest:
            if one.setting == "seed":
                raise ValueError
            low, high, *count = rest
            found = Range(
                kind, parse_number(low), parse_number(high), int(count[0]) if count else None
            )
            good = found.low > 0 or kind == "lin"
            if len(count) > 1 or not (good and found.low < found.high < math.inf):
                raise ValueError
            if found.number is not None and not 1 <= found.number <= MOST:
                raise ValueError
            return found
        if match := re.fullmatch(r"(\d+)\.\.(\d+)", word):
            low, high = map(int, match.groups())
            if low > high or rules["kind"] is not int:
                raise ValueError
            return range(low, high + 1)
        if rules.get("per_layer") and one.layer is None and "," in word:
            return tuple(map(read, word.split(",")))
        return read(word)
    except ValueError:
        raise ValueError(f"{one.flag} {word}: this is no value; give {one.values}") from None


def _replaced(base: Experiment, axes: list[Axis], values: Sequence[Any]) -> Experiment:
    """The base with a value for each axis; what holds for all layers first, then what for one."""
    changed = base
    # And the weights' before the biases', which are stored as following those that they equal.
    pairs = sorted(
        zip(axes, values, strict=True),
        key=lambda pair: (pair[0].setting.startswith("bias_"), pair[0].layer or 0),
    )
    for one, value in pairs:
        if one.layer is not None:
            if not 1 <= one.layer <= base.layers:
                raise ValueError(f"{one.flag}: the network has layers 1 to {base.layers}")
            if getattr(changed, one.setting.removeprefix("bias_")) is None:
                raise ValueError(
                    f"{one.flag} does not apply to the optimizer {base.optimizer}; leave it out"
                )
            layers = list(changed.per_layer(one.setting))
            layers[one.layer - 1] = value
            value = tuple(layers)
        elif FIELDS[one.setting].metadata.get("per_layer") and not isinstance(value, tuple):
            value = (value,)
        changed = dataclasses.replace(changed, **{one.setting: value})
    return changed
