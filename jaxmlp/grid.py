"""What a sweep asks for: axes of values over the traced settings, and the experiments they span."""

import collections
import dataclasses
import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmlp.experiment import SCALED, Experiment, parse_number

SWEPT = (*SCALED, "seed")  # what is traced: one compiled program serves all values
WAYS = ("grid", "zip", "random")
FIELDS = {setting.name: setting for setting in dataclasses.fields(Experiment)}
MOST_RUNS = 1_000_000  # assumed: more are a slip of the keyboard
DRAWS_PER_RUN = 100  # before giving up; to meet all n of n settings takes about n·ln n
NUMBERS = "numbers, or log:LOW:HIGH:N or lin:LOW:HIGH:N for N of them (--random: log:LOW:HIGH)"
WHOLE = "whole numbers, or LOW..HIGH for all between"
ALL_BETWEEN = re.compile(r"(\d+)\.\.(\d+)")


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
    swept = Axis(setting, int(layer) if layer else None, tuple(words))
    if not words:
        raise ValueError(f"{swept.flag} has no value; give {swept.values}")
    if layer and not FIELDS[setting].metadata.get("per_layer"):
        raise ValueError(f"{swept.flag}: {setting} is not per layer; leave out .{layer}")
    return swept


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
        _check_number_of_runs(count * seeds)
        return _draws(base, axes, count, random.Random(draw))
    values = [_listed(swept) for swept in axes]
    lengths = [len(listed) for listed in values]
    if way == "zip":
        combinations, count = _zipped(axes, values), max(lengths, default=1)
    else:
        combinations, count = itertools.product(*values), math.prod(lengths)
    _check_number_of_runs(count * seeds)
    if way == "grid":  # side by side, a value may come again beside others
        for swept, listed in zip(axes, values, strict=True):
            _check_distinct(swept, listed)
    settings: dict[Experiment, None] = {}  # a set that keeps the order
    for combination in combinations:
        experiment = _replaced(base, axes, combination)
        if experiment in settings:
            twice = " ".join(map(_words, axes, combination))
            raise ValueError(f"{twice} comes twice; give every setting once")
        settings[experiment] = None
    return list(settings)


def seeds(words: Sequence[str]) -> list[int]:
    """The seeds of a sweep, such as `0 1 2` or `0..9`; each is run with all settings.

    Raises:
        ValueError: a word is no whole number, or a seed comes twice.
    """
    swept = Axis("seed", None, tuple(words))
    listed = _listed(swept)
    for seed in (min(listed), max(listed)):
        Experiment(seed=seed)  # is it one?
    _check_distinct(swept, listed)
    return listed


# ---- checks


def _check_number_of_runs(runs: int) -> None:
    """Refuses what nobody means.

    Raises:
        ValueError: there are too many.
    """
    if runs > MOST_RUNS:
        raise ValueError(f"{runs:,} runs are more than {MOST_RUNS:,}; take fewer values")


def _check_distinct(swept: Axis, values: Sequence[Any]) -> None:
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
        raise ValueError(f"{_words(swept, value)} comes twice; give every value once")


def _words(swept: Axis, value: Any) -> str:
    """A value as the command line has it."""
    numbers = value if isinstance(value, tuple) else (value,)
    return f"{swept.flag} {','.join(str(number).removesuffix('.0') for number in numbers)}"


# ---- combinations


def _zipped(axes: list[Axis], values: list[list[Any]]) -> Iterable[Sequence[Any]]:
    """The values side by side; a single one stands beside all."""
    if not axes:
        return [()]
    longest = max(map(len, values), default=1)
    columns = []
    for swept, listed in zip(axes, values, strict=True):
        if len(listed) not in (1, longest):
            raise ValueError(
                f"{swept.flag} has {len(listed)} values beside {longest} of another; with --zip "
                "all have as many, or one"
            )
        columns.append(listed * longest if len(listed) == 1 else listed)
    return zip(*columns, strict=True)


def _draws(
    base: Experiment, axes: list[Axis], count: int, generator: random.Random
) -> list[Experiment]:
    """So many different draws; one that repeats another is drawn again.

    Raises:
        ValueError: the axes have not as many.
    """
    draw_of_each = [_drawn(swept) for swept in axes]
    settings: dict[Experiment, None] = {}  # a set that keeps the order
    for _ in range(DRAWS_PER_RUN * (1 + count)):
        settings[_replaced(base, axes, [draw(generator) for draw in draw_of_each])] = None
        if len(settings) == count:
            return list(settings)
    raise ValueError(
        f"--random {count}: only {len(settings)} different settings are found; draw fewer, or give "
        "wider ranges"
    )


def _drawn(swept: Axis) -> Callable[[random.Random], Any]:
    """A function from a generator to one value of the axis."""
    parsed = [_parsed(swept, word) for word in swept.words]
    ranges = [value for value in parsed if isinstance(value, Range)]
    if not ranges:
        listed = _listed(swept)
        _check_distinct(swept, listed)
        return lambda generator: generator.choice(listed)
    if len(parsed) > 1 or ranges[0].number is not None:
        raise ValueError(
            f"{swept.flag} {' '.join(swept.words)}: with --random give one "
            f"{ranges[0].kind}:LOW:HIGH, or a list to choose from"
        )
    return lambda generator: ranges[0].at(generator.random())


def _replaced(base: Experiment, axes: list[Axis], values: Sequence[Any]) -> Experiment:
    """The base with a value for each axis; what holds for all layers first, then what for one."""
    changed = base
    # And the weights' before the biases', which are stored as following those that they equal.
    pairs = sorted(
        zip(axes, values, strict=True),
        key=lambda pair: (pair[0].setting.startswith("bias_"), pair[0].layer or 0),
    )
    for swept, value in pairs:
        if swept.layer is not None:
            value = _with_layer(changed, swept, value)
        elif FIELDS[swept.setting].metadata.get("per_layer") and not isinstance(value, tuple):
            value = (value,)
        changed = dataclasses.replace(changed, **{swept.setting: value})
    return changed


def _with_layer(experiment: Experiment, swept: Axis, value: Any) -> tuple[Any, ...]:
    """The setting's values per layer with a new one for the axis's layer.

    Raises:
        ValueError: there is no such layer, or the optimizer has no such setting.
    """
    assert swept.layer is not None
    if not 1 <= swept.layer <= experiment.layers:
        raise ValueError(f"{swept.flag}: the network has layers 1 to {experiment.layers}")
    if getattr(experiment, swept.setting.removeprefix("bias_")) is None:
        raise ValueError(
            f"{swept.flag} does not apply to the optimizer {experiment.optimizer}; leave it out"
        )
    layers = list(experiment.per_layer(swept.setting))
    layers[swept.layer - 1] = value
    return tuple(layers)


# ---- words to values


def _listed(swept: Axis) -> list[Any]:
    """All values of an axis."""
    values: list[Any] = []
    for word in swept.words:
        value = _parsed(swept, word)
        if isinstance(value, Range):
            if value.number is None:
                raise ValueError(f"{swept.flag} {word}: say how many, {word}:N")
            values += value.values()
        elif isinstance(value, range):
            values += value
        else:
            values.append(value)
    return values


def _parsed(swept: Axis, word: str) -> Any:
    """A word's value: a Range, a range of whole numbers, a number, or one per layer.

    Raises:
        ValueError: it is none.
    """
    if match := ALL_BETWEEN.fullmatch(word):
        _check_number_of_runs(int(match[2]) - int(match[1]))  # before so many are listed
    try:
        return _value(swept, word)
    except ValueError:
        raise ValueError(f"{swept.flag} {word}: this is no value; give {swept.values}") from None


def _value(swept: Axis, word: str) -> Any:
    rules: Mapping[str, Any] = FIELDS[swept.setting].metadata
    whole = rules["kind"] is int
    kind, *numbers = word.split(":")
    if kind in ("log", "lin") and numbers:
        if whole or len(numbers) not in (2, 3):
            raise ValueError("whole numbers have no such range; others, a low, a high, a number")
        return _range(kind, *numbers)
    if match := ALL_BETWEEN.fullmatch(word):
        low, high = map(int, match.groups())
        if low > high or not whole:
            raise ValueError("nothing lies between, or more than whole numbers")
        return range(low, high + 1)
    read = int if whole else parse_number
    if rules.get("per_layer") and swept.layer is None and "," in word:
        return tuple(map(read, word.split(",")))
    return read(word)


def _range(kind: str, low: str, high: str, number: str | None = None) -> Range:
    """The range of a word such as log:LOW:HIGH:N.

    Raises:
        ValueError: the ends are not in order, or it has no values.
    """
    count = None if number is None else int(number)
    ends = Range(kind, parse_number(low), parse_number(high), count)
    if not ends.low < ends.high < math.inf or (kind == "log" and not ends.low > 0):
        raise ValueError("the ends are not in order")
    if count is not None and not 1 <= count <= MOST_RUNS:
        raise ValueError("nobody means so many")
    return ends
