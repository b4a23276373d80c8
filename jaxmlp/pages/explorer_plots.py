"""The explorer's plots, in which the script moves what belongs to the reader's setting."""

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure

from jaxmlp.pages import charts
from jaxmlp.pages.explorer_cases import Case
from jaxmlp.record.figures import GREY
from jaxmlp.record.sweep_figures import ENDINGS

HERE = "#CC79A7"  # the reader's setting; none of the endings has this colour
MARGINS = 1.6, 3.0  # factors around all that the plane shows, across and up


def plane(measured: dict[str, list[Any]], cases: Sequence[Case]) -> figure:
    ends: dict[str, Any] = {
        "x_range": _around([*measured["scale"], *(case.scale for case in cases)], MARGINS[0]),
        "y_range": _around([*measured["rate"], *(case.rate for case in cases)], MARGINS[1]),
    }
    plot = charts.blank(
        "plane",
        height=340,
        tools=charts.TOOLS,
        x_axis_type="log",
        y_axis_type="log",
        x_axis_label="effective initial scale, √(κ1·κ2)",
        y_axis_label="effective learning rate R",
        toolbar_location="above",
        **ends,
    )
    colours = [colour for colour, _ in ENDINGS.values()]
    shown = {
        **{name: measured[name] for name in ("scale", "rate", "outcome", "course")},
        "accuracy": [values[-1] for values in measured["test_accuracy"]],
        "fill": [colours[ending] for ending in measured["ending"]],
    }
    runs: Any = plot.scatter(
        "scale", "rate", fill_color="fill", line_color=None, size=7, source=shown
    )
    tips = [("κ", "@scale"), ("R", "@rate"), ("it", "@course, @outcome"), ("accuracy", "@accuracy")]
    plot.add_tools(HoverTool(renderers=[runs], tooltips=tips))
    _draw_cases(plot, cases)
    _draw_here(plot)
    return plot


def _around(values: Sequence[float], margin: float) -> Range1d:
    return Range1d(start=min(values) / margin, end=max(values) * margin)


def _draw_cases(plot: figure, cases: Sequence[Case]) -> None:
    """The numbers of the cases at each place; in brackets those that the plane cannot tell."""
    places: dict[str, list[Case]] = {}
    for case in cases:
        places.setdefault(f"{case.scale:.3g} {case.rate:.3g}", []).append(case)
    numbers = [
        " ".join(f"({case.number})" if case.uneven else f"{case.number}" for case in together)
        for together in places.values()
    ]
    firsts = [together[0] for together in places.values()]
    source = ColumnDataSource(
        {"x": [case.scale for case in firsts], "y": [case.rate for case in firsts], "text": numbers}
    )
    plot.scatter(
        "x", "y", marker="diamond", size=11, fill_color="black", line_color="white", source=source
    )
    labels: Any = plot.text("x", "y", "text", x_offset=9, y_offset=-9, source=source)
    labels.glyph.update(
        text_font_size="12px",
        text_color="black",
        background_fill_color="white",
        background_fill_alpha=0.85,
        border_radius=3,
        padding=2,
    )


def _draw_here(plot: figure) -> None:
    """The run that is nearest, and the reader's setting; a ring where κ1 and κ2 differ."""
    nearest = ColumnDataSource({"x": [], "y": []})
    drawn: Any = plot.scatter("x", "y", size=14, marker="square", source=nearest, name="nearest")
    drawn.glyph.update(fill_color=None, line_width=2, tags=["ink"])
    here = ColumnDataSource({"x": [], "y": [], "solid": []})
    options = {"fill_color": HERE, "line_color": HERE, "line_width": 4, "fill_alpha": "solid"}
    plot.scatter("x", "y", size=19, source=here, name="here", **options)


def curve_plot(name: str, data: dict[str, Any]) -> figure:
    loss = name.endswith("loss")
    largest = max(value or 0 for values in data["measured"]["test_accuracy"] for value in values)
    plot = charts.blank(
        name,
        height=190,
        tools="",
        over_epochs=True,
        y_axis_label=name.replace("_", " "),
        y_axis_type="log" if loss else "linear",
        x_range=Range1d(start=0.9, end=max(2, data["epochs"]) + 0.1),
        y_range=Range1d(start=1, end=10) if loss else Range1d(start=0, end=1.1 * largest),
        toolbar_location=None,
    )
    for which, colour, dash in (("baseline", GREY, "dashed"), ("nearest", HERE, "solid")):
        source = ColumnDataSource({"x": [], "y": []})
        plot.line("x", "y", color=colour, line_dash=dash, line_width=2.5, source=source, name=which)
        plot.scatter("x", "y", color=colour, size=6, source=source)
    return plot
