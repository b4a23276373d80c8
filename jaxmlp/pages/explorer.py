"""The explorer: one page on which a reader moves settings and sees which run they really make."""

import dataclasses
from typing import Any, NamedTuple

from jaxmlp import question
from jaxmlp.experiment import SCALED, Experiment
from jaxmlp.pages import charts, page
from jaxmlp.pages.explorer_cases import alike, question_cases
from jaxmlp.pages.explorer_plots import curve_plot, plane
from jaxmlp.pages.sweep import RATE, curves_by_run
from jaxmlp.record import sweep_figures
from jaxmlp.record.sweep_figures import ENDINGS

SCALES = ("canonical_init_scale_1", "canonical_init_scale_2")
AS_LONG_AS_YOU_LIKE = ("epochs", "train_size", "seed", "precision")  # settings that move no point
DIGITS = 5  # of what was measured


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
    plots = {name: curve_plot(name, data) for name in charts.CURVES}
    return page.render(
        "explorer.html",
        {"plane": plane(measured, cases), **plots},
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
    if runs[RATE].null_count or not all(map(alike, first, second)):
        raise ValueError(
            "the explorer shows runs with κ1 = κ2 and rates above 0; sweep both layers together"
        )


# ---- what was measured


def _measured(runs: Any, curves: Any) -> dict[str, list[Any]]:
    """What the page shows of each run, column by column."""
    return {
        "rate": charts.shown(runs[RATE].to_pylist(), DIGITS),
        "scale": charts.shown(runs[SCALES[0]].to_pylist(), DIGITS),
        "decay": charts.shown(runs["canonical_decay_1"].to_pylist(), DIGITS),
        "dead": charts.shown(runs["dead_1"].to_pylist(), DIGITS),
        "outcome": runs["outcome"].to_pylist(),
        "course": runs["course"].to_pylist(),
        "ending": [sweep_figures.ending(row) for row in runs.to_pylist()],
        **{name: curves_by_run(curves, name, DIGITS) for name in charts.CURVES},
    }
