"""Draws a finished sweep: `python scripts/sweep_figures.py DIR --axes init_scale_1 input_scale`.

sweep.py draws the same when it ends. Runs that share a place in a figure are averaged.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm

from jaxmlp.commands import exit_status, flags
from jaxmlp.commands.calibrate import reliability
from jaxmlp.experiment import PER_TENSOR
from jaxmlp.forecast.models import FAILS_FROM
from jaxmlp.record import atomic
from jaxmlp.record.figures import BLUE, GREY, ORANGE, png
from jaxmlp.record.question_figures import panels

VALUE = "test_accuracy"
DECADES = 10  # a ratio of the ends from which on an axis is logarithmic


def swept(runs: Any) -> list[str]:
    """The columns of settings in which the runs differ, one for those that go together."""
    names = [
        name
        for name in runs.column_names
        if name == "input_scale" or name.rpartition("_")[0].removeprefix("bias_") in PER_TENSOR
    ]
    found: list[str] = []
    for name in names:
        values = np.array(runs[name].to_pylist(), float)
        known = (np.array(runs[other].to_pylist(), float) for other in found)
        if len(set(values)) > 1 and not any(_proportional(values, other) for other in known):
            found.append(name)
    return found


def _proportional(a: np.ndarray, b: np.ndarray) -> bool:
    at = np.argmax(np.abs(b))
    return bool(np.allclose(a * b[at], b * a[at], rtol=1e-9, atol=0))


def draw(asked: dict[str, Any], runs: Any) -> dict[str, bytes]:
    """The figures that the runs allow, by file name.

    Args:
        asked: sweep.json.
        runs: the table of runs.parquet.
    """
    found = {}
    axes = swept(runs)
    if len(axes) >= 2:
        found["heat.png"] = heat(asked, runs, axes[0], axes[1], VALUE)
    if runs["canonical_learning_rate"].null_count == 0:
        found["plane.png"] = plane(asked, runs)
    if runs["sharpness"].null_count == 0:
        found["foretold.png"] = foretold(asked, runs)
    return found


def column(runs: Any, name: str) -> np.ndarray:
    return np.array(runs[name].to_pylist(), float)


def title(asked: dict[str, Any], runs: Any) -> str:
    base, seeds = asked["experiment"], len(asked["seeds"])
    return (
        f"{len(runs):,} runs on {asked['data']['name']}, {asked['data']['train_size']:,} images, "
        f"{base['epochs']} epoch{'s' * (base['epochs'] > 1)}, {base['optimizer']}, "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )


def heat(asked: dict[str, Any], runs: Any, x: str, y: str, value: str) -> bytes:
    """The mean of a column over two others."""
    figure, (axis,) = panels(title(asked, runs), 1, 8, 5.4)
    axis.grid(visible=False)
    _cells(figure, axis, runs, x, y, column(runs, value), value)
    axis.set(xlabel=x, ylabel=y)
    return png(figure)


def _cells(figure, axis, runs, x: str, y: str, values: np.ndarray, label: str) -> None:
    """A grid of cells where the runs form one, points elsewhere; the mean at each place."""
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError(f"{label} is nowhere finite; choose another --value")
    across, up = column(runs, x), column(runs, y)
    bounded = 0 <= known.min() <= known.max() <= 1
    wide = not bounded and known.min() > 0 and known.max() > DECADES * known.min()
    options: dict[str, Any] = {"cmap": "viridis"} | ({"norm": LogNorm()} if wide else {})
    shown = _places(
        axis, across, up, np.where(np.isfinite(values), values, np.nan), np.mean, **options
    )
    _scales(axis, across, up)
    figure.colorbar(shown, ax=axis, label=label.replace("_", " "))


def _scales(axis, across: np.ndarray, up: np.ndarray) -> None:
    for which, values in (("x", across), ("y", up)):
        if logarithmic(values):
            axis.set(**{f"{which}scale": "log"})


def plane(asked: dict[str, Any], runs: Any) -> bytes:
    """What happened, over effective initial scale and rate, with what was foretold as lines."""
    layers = sum(name.startswith("canonical_init_scale_") for name in runs.column_names)
    scales = np.array([column(runs, f"canonical_init_scale_{i + 1}") for i in range(layers)])
    mean = np.exp(np.mean(np.log(scales), axis=0))
    rate = column(runs, "canonical_learning_rate")
    figure, axes = panels(title(asked, runs), 2, 13, 5.8)
    courses = np.array([course(row) for row in runs.to_pylist()])
    colours = ListedColormap([colour for colour, _ in COURSES.values()])
    _places(axes[0], mean, rate, courses, np.max, cmap=colours, vmin=-0.5, vmax=len(COURSES) - 0.5)
    for index, (name, (colour, _)) in enumerate(COURSES.items()):
        if count := int((courses == index).sum()):
            axes[0].plot([], [], "s", color=colour, label=f"{name} ({count:,})")
    shown = _places(axes[1], mean, rate, column(runs, VALUE), np.mean, cmap="viridis")
    figure.colorbar(shown, ax=axes[1], label="test accuracy")
    for axis, colour in zip(axes, ("black", "white"), strict=True):
        if line := boundary(runs, scales, mean, rate):
            axis.plot(*line, color=colour, linewidth=1.8)
            axes[0].plot([], [], color="black", label="S = limit")
        for name, level, style in (("diverges", 0.5, "--"), ("fails", FAILS_FROM, ":")):
            grid = gridded(mean, rate, column(runs, f"foretold_{name}"), np.mean)
            if grid and min(grid[2].shape) > 1 and grid[2].min() < level < grid[2].max():
                axis.contour(*grid, [level], colors=colour, linestyles=style, linewidths=1.8)
                if axis is axes[0]:
                    axis.plot([], [], style, color="black", label=f"foretold: {name}")
        name = "√(κ₁·κ₂)" if layers == 2 else "geometric mean of all κ"
        _scales(axis, mean, rate)
        axis.set(xlabel=f"effective initial scale, {name}")
        axis.set(xlim=_ends(mean), ylim=_ends(rate))
        axis.grid(visible=False)
    axes[0].set_ylabel("effective learning rate R")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=9,
        frameon=False,
    )
    return png(figure)


COURSES = {  # by how grave
    "stable": ("#56B4E9", lambda row: True),
    "recovers": ("#F0E442", lambda row: row["course"] == "recovers"),
    "fails": (ORANGE, lambda row: row["course"] == "fails"),
    "fails, nonfinite": ("black", lambda row: row["outcome"] == "nonfinite"),
}


def course(row: dict[str, Any]) -> int:
    """The gravest of COURSES that holds of a run."""
    return max(i for i, (_, holds) in enumerate(COURSES.values()) if holds(row))


def gridded(across: np.ndarray, up: np.ndarray, values: np.ndarray, merge: Any):
    """Columns, rows and values (rows, columns) if the places form a full grid; else None.

    Args:
        merge: of the values at one place.
    """
    columns, where_x = _marks(across)
    rows, where_y = _marks(up)
    cells: dict[tuple[int, int], list[float]] = {}
    for x, y, value in zip(where_x.tolist(), where_y.tolist(), values, strict=True):
        cells.setdefault((y, x), []).append(value)
    if len(cells) < len(columns) * len(rows):
        return None
    merged = [[merge(cells[y, x]) for x in range(len(columns))] for y in range(len(rows))]
    return columns, rows, np.array(merged, float)


def _marks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values, but for rounding, and which of them each is."""
    with np.errstate(divide="ignore"):
        digits = 6 - np.floor(np.log10(np.abs(values)))
    rounded = [
        round(v, int(d)) if np.isfinite(d) else v for v, d in zip(values, digits, strict=True)
    ]
    return np.unique(rounded, return_inverse=True)


def _places(axis, across: np.ndarray, up: np.ndarray, values: np.ndarray, merge: Any, **options):
    """Cells where the runs form a grid, points elsewhere."""
    grid = gridded(across, up, values, merge)
    if grid and min(grid[2].shape) > 1:
        columns, rows, merged = grid
        return axis.pcolormesh(_edges(columns), _edges(rows), merged, **options)
    size = max(8.0, min(60.0, 16_000 / len(values)))
    return axis.scatter(across, up, c=values, s=size, marker="s", linewidths=0, **options)


def _edges(places: np.ndarray) -> np.ndarray:
    """The borders of cells around the places, half-way on the axis that they get."""
    if logarithmic(places):
        return np.exp(_edges_between(np.log(places)))
    return _edges_between(places)


def _edges_between(places: np.ndarray) -> np.ndarray:
    middle = (places[1:] + places[:-1]) / 2
    return np.array([2 * places[0] - middle[0], *middle, 2 * places[-1] - middle[-1]])


def logarithmic(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() > DECADES * values.min())


def _ends(values: np.ndarray) -> tuple[float, float]:
    """A little beyond the cells, or the points."""
    if len(places := _marks(values)[0]) > 1:
        edges = _edges(places)
        return float(edges[0]), float(edges[-1])
    return float(values.min()) / 1.1, float(values.max()) * 1.1


def boundary(runs: Any, scales: np.ndarray, mean: np.ndarray, rate: np.ndarray):
    """Where S reaches its limit: the rate at each mean scale, if the layers' scales go together."""
    if runs["sharpness"].null_count or not np.allclose(scales / mean, scales[:, :1] / mean[0]):
        return None
    ratio = column(runs, "sharpness") / column(runs, "sharpness_limit")
    places = np.round(np.log(mean), 9)
    found = []
    for place in np.unique(places):
        own = (places == place) & np.isfinite(ratio) & (ratio > 0)
        if own.any():
            found.append((math.exp(place), float(np.median(rate[own] / ratio[own]))))
    return tuple(np.array(found).T) if len(found) > 2 else None


def foretold(asked: dict[str, Any], runs: Any) -> bytes:
    """What was foretold beside what happened."""
    figure, axes = panels(title(asked, runs), 2, 11, 4.6)
    ratio = column(runs, "sharpness") / column(runs, "sharpness_limit")
    courses = np.array(runs["course"].to_pylist())
    accuracy, diverged = column(runs, VALUE), courses != "stable"
    good = np.isfinite(ratio) & (ratio > 0)
    if hidden := int((~good).sum()):
        axes[0].plot([], [], " ", label=f"S 0 or not finite, not shown ({hidden:,})")
    for own, colour, label in (
        (good & ~diverged, BLUE, "stable"),
        (good & diverged, ORANGE, "recovers or fails"),
    ):
        axes[0].scatter(
            ratio[own],
            accuracy[own],
            s=8,
            color=colour,
            alpha=0.5,
            linewidths=0,
            label=f"{label} ({int(own.sum()):,})",
        )
    axes[0].axvline(1, color="black", linewidth=1)
    axes[0].set(xscale="log", xlabel="S ÷ limit, before the first step", ylabel="test accuracy")
    axes[0].legend(fontsize=9)
    axes[1].plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for said, went, colour, below in (
        ("diverges", diverged, BLUE, -12),
        ("fails", courses == "fails", ORANGE, 6),
    ):
        points = list(reliability(column(runs, f"foretold_{said}"), went))
        places = [point[:2] for point in points]
        axes[1].plot(*zip(*places, strict=True), "o-", color=colour, linewidth=1, label=said)
        for x, y, _, count in points:
            axes[1].annotate(
                f"{count:,}",
                (x, y),
                (5, below),
                fontsize=8,
                color=colour,
                textcoords="offset points",
            )
    axes[1].set(
        xlabel="probability foretold",
        ylabel="share that came true (runs)",
        xlim=(-0.04, 1.08),
        ylim=(-0.08, 1.06),
    )
    axes[1].legend(fontsize=9)
    return png(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a finished sweep's")
    parser.add_argument("--axes", nargs=2, metavar=("X", "Y"), help="columns of runs.parquet")
    parser.add_argument("--value", default=VALUE, metavar="COLUMN", help=f"(default: {VALUE})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: the sweep's)")
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("no figure was written"):
        run(values)


def run(values: argparse.Namespace) -> None:
    from jaxmlp.record import sweep_files

    asked, runs, _ = sweep_files.load(values.directory)
    numbers = [field.name for field in runs.schema if str(field.type) != "string"]
    for name in (*(values.axes or ()), values.value):
        if name not in numbers:
            raise ValueError(f"{name} is no column of numbers; choose from {', '.join(numbers)}")
    files = draw(asked, runs)
    axes = values.axes or swept(runs)[:2]
    if len(axes) == 2:
        files["heat.png"] = heat(asked, runs, axes[0], axes[1], values.value)
    out = values.out or values.directory
    atomic.make_directory(out)
    sweep_files.save_figures(out, files, asked["identity"])
    for name in files:
        print(f"written: {out / name}")


if __name__ == "__main__":
    sys.exit(main())
