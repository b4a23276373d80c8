"""The explorer: one page on which a reader moves settings and sees which run they really make."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure

from jaxmlp import question
from jaxmlp.experiment import SCALED, Experiment
from jaxmlp.law.canonical import canonical
from jaxmlp.pages import charts, page
from jaxmlp.record import sweep_figures
from jaxmlp.record.figures import GREY
from jaxmlp.record.sweep_figures import ENDINGS

RATE = "canonical_learning_rate"
SCALES = ("canonical_init_scale_1", "canonical_init_scale_2")
CURVES = ("train_loss", "test_accuracy")
AS_LONG_AS_YOU_LIKE = ("epochs", "train_size", "seed", "precision")  # settings that move no point
HERE = "#CC79A7"  # the reader's setting; none of the endings has this colour
MARGINS = 1.6, 3.0  # factors around all that the plane shows, across and up
DIGITS = 5  # of what was measured
BASELINE_SAYS = (
    "What the question starts from. Every other setting is told by how it differs from this."
)
ALONE = {  # reasons that do not read on from another's
    "scaled-lr1": "The effective rate is 16 times too large, as in 6, and the first layer also "
    "starts 64, the second 4 times too large.",
}
REPAIRS = {
    "repair-first-layer": (
        "first layer alone",
        "R, κ1, κ2, δ1 and δ2 are the baseline's, and so is every loss. The first layer "
        "undoes the inputs: its weights ÷ 255, its gradients grow by 255, so its rate ÷ 255² and "
        "its decay × 255². The second layer never notices.",
    ),
    "repair-uniform": (
        "both layers alike",
        "R, κ1, κ2, δ1 and δ2 are the baseline's, and so is every loss. Each layer takes "
        "√255 of the 255: both inits ÷ 15.97, both rates ÷ 255, both decays × 255. This is why "
        "both layers seemed to need it.",
    ),
}


class Slider(NamedTuple):
    """One setting, over powers of ten."""

    id: str
    name: str  # what the script calls the setting
    layer: int | None  # counted from 0
    label: str
    low: float  # as a power of ten
    high: float
    zero: bool  # whether the lowest place means 0


SLIDERS = (
    Slider("s", "inputScale", None, "inputs × s", -2, 4, False),
    Slider("e1", "learningRate", 0, "learning rate η1", -8, 1, False),
    Slider("e2", "learningRate", 1, "learning rate η2", -8, 1, False),
    Slider("a1", "initScale", 0, "initial scale a1", -3, 3, False),
    Slider("a2", "initScale", 1, "initial scale a2", -3, 3, False),
    Slider("d1", "weightDecay", 0, "weight decay d1", -7, 2, True),
    Slider("d2", "weightDecay", 1, "weight decay d2", -7, 2, True),
)


class Case(NamedTuple):
    """One of the question's cases: a button, and a number in the plane."""

    number: int
    group: str
    label: str
    ended: str  # how
    reason: str
    setting: dict[str, Any]  # as the script has it
    scale: float  # √(κ1·κ2)
    rate: float  # R
    uneven: bool  # κ1 and κ2 differ


def explorer_page(plan: dict[str, Any], runs: Any, curves: Any) -> bytes:
    """One HTML file.

    Args:
        plan: sweep.json.
        runs, curves: the two tables, as sweep_files.load gives them.

    Raises:
        ValueError: the sweep is of another network than the question's, or its runs are not
            alike in both layers.
    """
    base = Experiment.from_json(plan["experiment"])
    _check(base, runs)
    measured, cases = _measured(runs, curves), question_cases()
    data = {
        "measured": measured,
        "cases": [case._asdict() for case in cases],
        "sliders": [slider._asdict() for slider in SLIDERS],
        "epochs": base.epochs,
        "steps": base.epochs * base.steps_per_epoch(plan["data"]["train_size"]),
        "momentum": base.momentum,
    }
    endings = measured["ending"]
    return page.render(
        "explorer.html",
        {"plane": _plane(measured, cases), **{name: _curve_plot(name, data) for name in CURVES}},
        scripts=("law.js", "explorer.js"),
        data=data,
        groups=list(dict.fromkeys(case.group for case in cases)),
        cases=cases,
        sliders=SLIDERS,
        both=question.BOTH_LAYERS,
        kinds=[
            (name, colour, endings.count(kind))
            for kind, (name, (colour, _)) in enumerate(ENDINGS.items())
        ],
        measured=sweep_figures.title(plan, runs),
        source=plan["data"]["source"],
    )


def _check(base: Experiment, runs: Any) -> None:
    """Sees that the runs have a place in the plane of the question's network.

    Raises:
        ValueError: they have not.
    """
    default = Experiment()
    names = (*SCALED, *AS_LONG_AS_YOU_LIKE)
    usual = dataclasses.replace(base, **{name: getattr(default, name) for name in names})
    if usual != default:
        raise ValueError(
            "the sweep is of another network or optimizer than the question's; sweep init_scale "
            "and learning_rate with the other settings left alone"
        )
    first, second = (runs[name].to_pylist() for name in SCALES)
    if runs[RATE].null_count or not all(map(_alike, first, second)):
        raise ValueError(
            "the explorer shows runs with κ1 = κ2 and rates above 0; sweep both layers together"
        )


def _alike(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9)


# ---- what was measured


def _measured(runs: Any, curves: Any) -> dict[str, list[Any]]:
    """What the page shows of each run, column by column."""
    by_run: dict[int, dict[str, list[float]]] = {}
    for row in curves.to_pylist():
        of_run = by_run.setdefault(row["run"], {name: [] for name in CURVES})
        for name in CURVES:
            of_run[name].append(row[name])
    of_runs = [by_run[run] for run in runs["run"].to_pylist()]
    return {
        "rate": _shown(runs[RATE].to_pylist()),
        "scale": _shown(runs[SCALES[0]].to_pylist()),
        "decay": _shown(runs["canonical_decay_1"].to_pylist()),
        "dead": _shown(runs["dead_1"].to_pylist()),
        "outcome": runs["outcome"].to_pylist(),
        "course": runs["course"].to_pylist(),
        "ending": [sweep_figures.ending(row) for row in runs.to_pylist()],
        **{name: [_shown(of_run[name]) for of_run in of_runs] for name in CURVES},
    }


def _shown(values: Sequence[float | None]) -> list[float | None]:
    """Numbers to so many digits; None for what is not finite."""
    return [
        float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
        for value in values
    ]


# ---- the question


def question_cases() -> list[Case]:
    """The baseline, what was tried, and the two repairs, in the order of the buttons."""
    cases = []
    for number, name in enumerate(question.CASES, start=1):
        experiment = Experiment(**question.settings(name))
        form = canonical(experiment)
        first, second = form.init_scale
        setting = _as_script(experiment)
        place = math.sqrt(first * second), form.learning_rate, not _alike(first, second)
        cases.append(Case(number, *_told(name), setting, *place))
    return cases


def _told(name: str) -> tuple[str, str, str, str]:
    """A case's group, label, end and reason."""
    if attempt := question.ATTEMPTS.get(name):
        return (
            "Tried at inputs × 255:",
            attempt.what,
            attempt.ended,
            ALONE.get(name, attempt.reason),
        )
    if name in REPAIRS:
        label, reason = REPAIRS[name]
        return "Exact at inputs × 255:", label, "Trained, as the baseline", reason
    return "Inputs × 1:", name, "Trained", BASELINE_SAYS


def _as_script(experiment: Experiment) -> dict[str, Any]:
    """The settings that the page moves, by the names that law.js has for them."""
    return {
        "inputScale": experiment.input_scale,
        "initScale": experiment.per_layer("init_scale"),
        "learningRate": experiment.per_layer("learning_rate"),
        "weightDecay": experiment.per_layer("weight_decay"),
    }


# ---- plots, in which the script moves what belongs to the reader's setting


def _plane(measured: dict[str, list[Any]], cases: Sequence[Case]) -> figure:
    ends = {
        "x_range": _around([*measured["scale"], *(case.scale for case in cases)], MARGINS[0]),
        "y_range": _around([*measured["rate"], *(case.rate for case in cases)], MARGINS[1]),
    }
    plot = charts.blank(
        "plane",
        height=340,
        tools="pan,box_zoom,wheel_zoom,reset,save",
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


def _curve_plot(name: str, data: dict[str, Any]) -> figure:
    loss = name.endswith("loss")
    largest = max(value or 0 for values in data["measured"]["test_accuracy"] for value in values)
    plot = charts.blank(
        name,
        height=190,
        tools="",
        x_axis_label="epoch",
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
