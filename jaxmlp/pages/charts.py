"""Lines over epochs and steps: axes, zoom, hover and legends are Bokeh's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, HoverTool
from bokeh.plotting import figure
from jaxtyping import Float

from jaxmlp.record.figures import COLOURS, GREY

MOST_POINTS = 3000  # of a line; a longer one is shown by the extremes of its stretches
WIDE = 50  # a ratio of the ends from which on an axis of values is logarithmic
HEIGHT = 300  # pixels
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"
CURVES = ("train_loss", "test_accuracy")  # of a sweep's runs
MARKED = 100  # points of a line that are marked each
MOST_WITHIN = 4  # lines whose names stand among them
DASHES = ("solid", "dashed", "dotted")


class Line(NamedTuple):
    """What one line shows."""

    label: str
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]  # what is not finite is a gap
    colour: str
    dash: str = "solid"
    width: float = 1.8


def styled(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a dash for each name, told apart by everybody."""
    return {
        name: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
        for i, name in enumerate(names)
    }


def lines(
    drawn: Sequence[Line],
    x: str,
    y: str,
    *,
    steps: bool = False,
    levels: Mapping[str, float] | None = None,
    ends: tuple[float, float] | None = None,
) -> figure:
    """A plot of lines with a legend in which each can be hidden.

    Args:
        steps: over steps, on a logarithmic axis, for the first ones matter most.
        levels: grey horizontal lines by their names.
        ends: of the axis of values.
    """
    log_y = ends is None and wide([line.y for line in drawn])
    plot = blank(
        y,
        height=HEIGHT,
        tools=TOOLS,
        x_axis_type="log" if steps else "linear",
        y_axis_type="log" if log_y else "linear",
        over_epochs=not steps,
        x_axis_label=x,
        y_axis_label=y,
        toolbar_location="above",
        **({"y_range": ends} if ends else {}),
    )
    parts = [part for line in drawn for part in _draw(plot, line, log_y)]
    for name, level in (levels or {}).items():
        longest = max(drawn, key=lambda line: len(line.x)).x
        across = [float(longest[0]), float(longest[-1])]
        plot.line(across, [level, level], color=GREY, line_dash="dotdash", legend_label=name)
    tips = [("", "$name"), (x, "@x{0,0.[00]}"), (y, "@y{0.[0000]}")]
    plot.add_tools(HoverTool(renderers=parts, tooltips=tips))
    _finish_legend(plot, beside=len(drawn) > MOST_WITHIN)
    return plot


def blank(name: str, *, over_epochs: bool = False, **options: Any) -> figure:
    """A plot without anything in it, in the colours of its page.

    Args:
        over_epochs: across, in whole numbers.
    """
    if over_epochs:
        options["x_axis_label"] = "epoch"
    plot = figure(
        name=name,
        sizing_mode="stretch_width",
        background_fill_color=None,
        outline_line_color=None,
        **options,
    )
    plot.toolbar.logo = None
    plot.axis.minor_tick_line_color = None
    if over_epochs:
        plot.xaxis.ticker = BasicTicker(min_interval=1, desired_num_ticks=8)
    return plot


def _draw(plot: figure, line: Line, log_y: bool) -> list[Any]:
    """The parts of a line that answer to the pointer."""
    x, y = thinned(line.x, line.y)
    shown = np.where(np.isfinite(y) & ((y > 0) | (not log_y)), y, np.nan)
    source = ColumnDataSource({"x": x, "y": shown})
    style: dict[str, Any] = {
        "color": line.colour,
        "legend_label": line.label,
        "source": source,
        "name": line.label,
    }
    drawn: list[Any] = [plot.line("x", "y", line_width=line.width, line_dash=line.dash, **style)]
    if len(x) <= MARKED:
        drawn.append(plot.scatter("x", "y", size=line.width + 3, **style))
    return drawn


def _finish_legend(plot: figure, beside: bool) -> None:
    """Makes each of its names hide a line; a long one stands beside the lines."""
    legend: Any = plot.legend[0]
    legend.update(click_policy="hide", label_text_font_size="12px", spacing=0, padding=4)
    plot.toolbar.autohide = True
    if beside:
        plot.add_layout(legend, "right")


def wide(values: Sequence[np.ndarray]) -> bool:
    """Whether values are positive and so far apart that their axis has to be logarithmic."""
    together = np.concatenate([np.asarray(each, np.float64).ravel() for each in values])
    finite = together[np.isfinite(together)]
    positive = finite[finite > 0]
    if not len(positive) or (finite < 0).any():
        return False
    return bool(positive.max() > WIDE * positive.min())


def thinned(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], most: int = MOST_POINTS
) -> tuple[Float[np.ndarray, " fewer"], Float[np.ndarray, " fewer"]]:
    """A long line by the smallest and the largest value of each stretch; the first tenth whole."""
    y = np.asarray(y, np.float64)
    if len(y) <= most:
        return np.asarray(x, np.float64), y
    whole = most // 10
    kept = [np.arange(whole)]
    for stretch in np.array_split(np.arange(whole, len(y)), (most - whole) // 2):
        finite = stretch[np.isfinite(y[stretch])]
        if len(finite):
            kept.append(np.unique([finite[np.argmin(y[finite])], finite[np.argmax(y[finite])]]))
        else:
            kept.append(stretch[:1])
    places = np.concatenate(kept)
    return np.asarray(x, np.float64)[places], y[places]


def shown(values: Sequence[float | None], digits: int) -> list[float | None]:
    """Numbers to so many digits; None for what is not finite."""
    return [
        float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None
        for value in values
    ]


def from_zero(drawn: Sequence[Line]) -> tuple[float, float]:
    """The ends of an axis for shares: 0, and a little above the largest."""
    largest = max((float(line.y.max(initial=0.0)) for line in drawn), default=0.0)
    return 0.0, min(1.0, max(0.2, 1.15 * largest))


def guessing(classes: int) -> dict[str, float]:
    """The loss of a network that guesses, for the plots of losses."""
    return {f"guessing: ln {classes}": math.log(classes)}
