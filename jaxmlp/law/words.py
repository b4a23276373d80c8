"""Counts, sizes, ratios, probabilities and forecasts in words."""

import math
from collections.abc import Mapping
from typing import Any

NO_BREAK = "\N{NO-BREAK SPACE}%"  # a percent sign stays with its number


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def number(value: float) -> str:
    """A size for reading: two digits, or whole."""
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.2g}"


def times(ratio: float) -> str:
    """By how much a number is wrong that is `ratio` times the right one."""
    if ratio in (0, math.inf):
        return "absent" if ratio == 0 else "present where the other has none"
    direction = "large" if ratio > 1 else "small"
    if abs(ratio - 1) < 0.005:
        return f"{abs(ratio - 1):.1g} of itself too {direction}"
    size = max(ratio, 1 / ratio)
    shown = f"{size:,.0f}" if 1000 <= size < 1e7 else f"{size:.3g}"
    return f"{shown} times too {direction}"


def percent(probability: float) -> str:
    """A probability that is never rounded to certainty."""
    if 0 < probability < 0.01:
        return f"below 1{NO_BREAK}"
    if 0.99 < probability < 1:
        return f"above 99{NO_BREAK}"
    return f"{probability:.0%}".replace("%", NO_BREAK)


def forecast(section: Mapping[str, Any]) -> str:
    """The forecast in words, from the record's section `forecast`."""
    ratio = section["ratio"]
    course = _course(section["course"], percent(section["diverges"]), section["fails"])
    if math.isnan(ratio):
        return f"{course}. The curvature at the start is not finite."
    return (
        f"{course}. Curvature times (full) rates at the start: "
        f"S = {number(section['sharpness'])}, "
        f"{number(ratio)} times the limit of {section['limit']:.3g}."
    )


def _course(course: str, diverges: str, fails: float) -> str:
    """The course that is foretold, with its probability."""
    if course == "fails":
        # Below one half the word needs its threshold beside it (record/outcomes.py's FAILS_FROM).
        threshold = f" (foretold from 30{NO_BREAK} on)" if fails < 0.5 else ""
        return (
            f"Fails: it diverges and does not recover, with probability {percent(fails)}{threshold}"
        )
    if course == "recovers":
        return (
            f"Recovers: it diverges (probability {diverges}) and trains on "
            f"(it fails with probability {percent(fails)})"
        )
    assert course == "stable", course
    return f"Stable (it diverges with probability {diverges})"
