"""The page of a sweep, from its tables: its plane over any two columns, and all curves."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
from bokeh.models import ColumnDataSource, Range1d
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.pages import charts, page
from jaxmlp.pages.run import command
from jaxmlp.record import sweep_figures, sweep_places
from jaxmlp.record.figures import COLOURS
from jaxmlp.record.outcomes import FAILS_FROM
from jaxmlp.record.sweep_figures import DIVERGES_FROM, ENDINGS

SCALE, RATE = "effective_initial_scale", "canonical_learning_rate"  # the plane of the law
MOST_RUNS = 5_000  # measured: 2,000 runs of 20 epochs are 4 MB and drawn at once
MOST_KEPT = len(COLOURS)
DIGITS = 6  # of what a page shows


def sweep_page(plan: dict[str, Any], runs: Any, curves: Any) -> bytes:
    """One HTML file.

    Args:
        plan: sweep.json.
        runs, curves: the two tables, as sweep_files.load gives them.

    Raises:
        ValueError: there are too many runs to look at.
    """
    if len(runs) > MOST_RUNS:
        raise ValueError(f"{len(runs):,} runs are more than the {MOST_RUNS:,} that a page can show")
    columns = _columns(runs)
    experiments = _experiments(Experiment.from_json(plan["experiment"]), runs)
    data = {
        "columns": columns,
        "endings": [sweep_figures.ending(row) for row in runs.to_pylist()],
        "kinds": [{"name": name, "colour": colour} for name, (colour, _) in ENDINGS.items()],
        "texts": {name: runs[name].to_pylist() for name in ("course", "outcome")},
        "foretold": runs["foretold_course"].to_pylist(),
        "curves": {name: curves_by_run(curves, name, DIGITS) for name in charts.CURVES},
        "commands": [command("jax", experiment, plan["data"]) for experiment in experiments],
        "axes": _first_axes(columns, runs),
        "lines": _lines(columns, runs) if SCALE in columns else [],
        "palette": list(Viridis256),
        "keptColours": list(COLOURS),
    }
    epochs = plan["experiment"]["epochs"]
    plots = {name: _curve_plot(name, epochs) for name in charts.CURVES}
    return page.render(
        "sweep.html",
        {"plane": _plane(), **plots},
        scripts=("sweep.js",),
        data=data,
        title=sweep_figures.title(plan, runs),
        names=list(columns),
        plan=plan,
        kinds=ENDINGS,
        counts=_counts(data["endings"]),
        most=MOST_KEPT,
    )


# ---- numbers


def _columns(runs: Any) -> dict[str, list[float | None]]:
    """The columns of numbers that differ between runs, and the effective initial scale."""
    columns = {}
    for field in runs.schema:
        if str(field.type) == "string" or field.name == "run":
            continue
        values = [None if value is None else float(value) for value in runs[field.name].to_pylist()]
        if len(set(values)) > 1:
            columns[field.name] = charts.shown(values, DIGITS)
    layers = [name for name in runs.column_names if name.startswith("canonical_init_scale_")]
    if runs[RATE].null_count == 0:
        scales = np.log([sweep_figures.column(runs, name) for name in layers])
        columns = {SCALE: charts.shown(np.exp(scales.mean(axis=0)).tolist(), DIGITS), **columns}
        columns[RATE] = charts.shown(sweep_figures.column(runs, RATE).tolist(), DIGITS)
    return columns


def curves_by_run(curves: Any, name: str, digits: int) -> list[list[float | None]]:
    """A column over the epochs, run by run."""
    by_run: dict[int, list[float]] = {}
    for run, value in zip(curves["run"].to_pylist(), curves[name].to_pylist(), strict=True):
        by_run.setdefault(run, []).append(value)
    return [charts.shown(by_run[run], digits) for run in sorted(by_run)]


def _experiments(base: Experiment, runs: Any) -> list[Experiment]:
    """Each run's settings, out of its columns."""
    names = set(runs.column_names)
    changed = [
        prefix + name
        for prefix in ("", "bias_")
        for name in PER_TENSOR
        if f"{prefix}{name}_1" in names
    ]
    experiments = []
    for row in runs.to_pylist():
        settings = {
            name: tuple(row[f"{name}_{layer + 1}"] for layer in range(base.layers))
            for name in changed
        }
        scale, seed = row["input_scale"], int(row["seed"])
        experiments.append(dataclasses.replace(base, input_scale=scale, seed=seed, **settings))
    return experiments


def _first_axes(columns: dict[str, Any], runs: Any) -> list[str]:
    """The two columns that the page opens with."""
    if SCALE in columns and len(set(columns[SCALE])) > 1 and len(set(columns[RATE])) > 1:
        return [SCALE, RATE]
    swept = [name for name in sweep_figures.swept(runs) if name in columns]
    return [*swept, *columns][:2]


def _counts(endings: Sequence[int]) -> list[int]:
    return [endings.count(kind) for kind in range(len(ENDINGS))]


# ---- what was foretold, as lines in the plane


def _lines(columns: dict[str, Any], runs: Any) -> list[dict[str, Any]]:
    """Where S meets its limit, and from where on runs were foretold to diverge and to fail."""
    if runs["sharpness"].null_count:
        return []
    layers = [name for name in runs.column_names if name.startswith("canonical_init_scale_")]
    scales = np.array([sweep_figures.column(runs, name) for name in layers])
    mean = np.exp(np.log(scales).mean(axis=0))
    rate = sweep_figures.column(runs, RATE)
    lines = []
    if line := sweep_figures.boundary(runs, scales, mean, rate):
        lines.append({"name": "S = limit", "dash": "solid", "parts": [_part(*line)]})
    for name, level, dash in (
        ("diverges", DIVERGES_FROM, "dashed"),
        ("fails", FAILS_FROM, "dotted"),
    ):
        probability = sweep_figures.column(runs, f"foretold_{name}")
        if parts := _contour(mean, rate, probability, level):
            lines.append({"name": f"foretold: {name}", "dash": dash, "parts": parts})
    return lines


def _contour(across: Any, up: Any, values: Any, level: float) -> list[dict[str, Any]]:
    grid = sweep_places.gridded(across, up, values, np.mean)
    if not grid or min(grid[2].shape) < 2:
        return []
    lines: Any = contourpy.contour_generator(*grid).lines(level)
    return [_part(*line.T) for line in lines]


def _part(x: Any, y: Any) -> dict[str, Any]:
    return {name: charts.shown(list(map(float, of)), DIGITS) for name, of in (("x", x), ("y", y))}


# ---- plots, which the script fills


def _plane() -> figure:
    plot = charts.blank(
        "plane",
        height=520,
        tools=charts.TOOLS,
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        toolbar_location="above",
    )
    plot.grid.visible = False
    cells = ColumnDataSource({name: [] for name in ("left", "right", "bottom", "top", "fill")})
    sides = ("left", "right", "top", "bottom")
    plot.quad(*sides, color="fill", source=cells, name="cells")
    points = ColumnDataSource({"x": [], "y": [], "fill": []})
    plot.scatter("x", "y", fill_color="fill", line_color=None, size=9, source=points, name="points")
    for dash in ("solid", "dashed", "dotted"):
        lines = ColumnDataSource({"x": [], "y": []})
        drawn: Any = plot.multi_line("x", "y", line_width=2, source=lines, name=dash)
        drawn.glyph.update(line_dash=dash, tags=["ink"])
    marks = ColumnDataSource({"x": [], "y": [], "line": []})
    options = {"fill_color": None, "line_color": "line", "line_width": 3, "source": marks}
    plot.scatter("x", "y", size=15, name="marks", **options)
    return plot


def _curve_plot(name: str, epochs: int) -> figure:
    plot = charts.blank(
        name,
        height=240,
        tools=charts.TOOLS,
        over_epochs=True,
        y_axis_label=name.replace("_", " "),
        y_axis_type="log" if name.endswith("loss") else "linear",
        x_range=Range1d(start=0.9, end=max(2, epochs) + 0.1),
        y_range=Range1d(start=0.1, end=10) if name.endswith("loss") else Range1d(start=0, end=1),
        toolbar_location=None,
    )
    source = ColumnDataSource({"x": [], "y": [], "line": [], "width": []})
    plot.multi_line("x", "y", line_color="line", line_width="width", source=source, name="curves")
    ends = ColumnDataSource({"x": [], "y": [], "line": []})
    plot.scatter("x", "y", color="line", size=5, source=ends, name="ends")
    return plot
