"""Figures of the question: its cases over the epochs, and where they lie in the plane."""

import math
import statistics
from typing import Any

import numpy as np

from jaxmlp.experiment import Experiment
from jaxmlp.law import words
from jaxmlp.law.canonical import Canonical, canonical
from jaxmlp.law.words import counted
from jaxmlp.record.figures import BLUE, COLOURS, GREEN, GREY, ORANGE, panels, png
from jaxmlp.record.labels import Label, put

Runs = list[dict[str, Any]]
TRAINED = "trained"


def styles(names) -> dict[str, dict[str, Any]]:
    """A colour and a line for every case, the same in all figures."""
    lines = ("-", "--")
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": lines[i // len(COLOURS) % 2]}
        for i, name in enumerate(names)
    }


def of_cases(runs: dict[str, Runs], data: str) -> dict[str, bytes]:
    return {"accuracy.png": accuracy(runs, data), "first_steps.png": first_steps(runs, data)}


def accuracy(runs: dict[str, Runs], data: str) -> bytes:
    """Test accuracy per epoch, mean over the seeds with the range as a band."""
    seeds = len(next(iter(runs.values())))
    figure, (axis,) = panels(f"The question's cases on {data}, {counted(seeds, 'seed')}", 1, 9, 5)
    ends = []
    for name, style in styles(runs).items():
        curves = np.array([run["test_accuracy"] for run in runs[name]])
        epochs = np.arange(1, curves.shape[1] + 1)
        axis.fill_between(
            epochs,
            curves.min(axis=0),
            curves.max(axis=0),
            alpha=0.12,
            color=style["color"],
            linewidth=0,
        )
        marker = "o" if len(epochs) == 1 else None  # a line needs two
        axis.plot(epochs, curves.mean(axis=0), label=name, linewidth=1.6, marker=marker, **style)
        ends.append((curves.mean(axis=0)[-1], name))
    order = [name for _, name in sorted(ends, reverse=True)]
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(
        [handles[name] for name in order],
        order,
        fontsize=9,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="epoch", ylabel="test accuracy (line: mean, band: range)")
    return png(figure)


def first_steps(runs: dict[str, Runs], data: str) -> bytes:
    """The loss of each batch, first seed."""
    figure, (axis,) = panels(f"The first steps on {data}, seed 0", 1, 9, 5)
    for name, style in styles(runs).items():
        loss = np.array([float(value) for value in runs[name][0]["loss"]])
        axis.plot(np.arange(1, len(loss) + 1), loss, label=name, linewidth=1.4, **style)
    axis.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xscale="log", yscale="log", xlabel="step", ylabel="loss of the batch")
    return png(figure)


def of_rates(runs: list[tuple[Experiment, dict[str, Any]]], data: str) -> dict[str, bytes]:
    """Accuracy over the learning rate, raw and effective: three curves become one."""
    epochs = runs[0][0].epochs
    figure, axes = panels(
        f"The same network at three input scales on {data}, {counted(epochs, 'epoch')}, seed 0",
        2,
        10,
    )
    scales = sorted({experiment.input_scale for experiment, _ in runs})
    for scale, colour, marker, size in zip(
        scales, (BLUE, ORANGE, GREEN), "os^", (9, 6, 4), strict=True
    ):
        scaled = [pair for pair in runs if pair[0].input_scale == scale]
        reached = [run["test_accuracy"][-1] for _, run in scaled]
        raw = [experiment.per_layer("learning_rate")[0] for experiment, _ in scaled]
        effective = [canonical(experiment).learning_rate for experiment, _ in scaled]
        for axis, rates in zip(axes, (raw, effective), strict=True):
            axis.plot(
                rates,
                reached,
                color=colour,
                marker=marker,
                markersize=size,
                linewidth=1,
                label=f"inputs × {scale:g}",
            )
    axes[0].set(xlabel="learning rate, as it is set", ylabel="test accuracy")
    axes[1].set(xlabel="effective learning rate R")
    for axis in axes:
        axis.set_xscale("log")
    axes[0].legend(fontsize=9, frameon=False)
    return {"collapse.png": png(figure)}


def of_plane(
    scales: np.ndarray,
    critical: np.ndarray,
    points: dict[str, tuple[Canonical, Runs]],
    data: str,
) -> dict[str, bytes]:
    """The plane of effective initial scale and effective learning rate.

    Args:
        scales: κ of both layers.
        critical: the R at which S reaches its limit there.
        points: of each case its canonical form and its runs.
    """
    seeds = len(next(iter(points.values()))[1])
    title = f"Which runs the cases really are ({data}); above the line the first steps overshoot"
    figure, (axis,) = panels(title, 1, 10, 6.2)
    axis.plot(scales, critical, color="black", linewidth=1.2)
    axis.fill_between(scales, critical, 1e3, color=ORANGE, alpha=0.08, linewidth=0)
    for form, runs in points.values():
        _point(axis, *_place(form), form, runs, median_ratio(runs))
    limits = _limits(points)
    for x, limit in limits:
        axis.plot([x / 1.12, x * 1.12], [limit, limit], color="black", linewidth=2)
    rates = [form.learning_rate for form, _ in points.values()]
    axis.set(
        xscale="log",
        yscale="log",
        xlim=(scales[0], scales[-1]),
        ylim=(min(rates) / 8, 10 * max(rates)),
        ylabel="effective learning rate R",
        xlabel="effective initial scale, √(κ₁·κ₂)",
    )
    _legend(axis, seeds)
    small = {"fontsize": 9, "color": "0.3"}
    ofs = [Label("limit of\n" + ",\n".join(names), place, small) for place, names in limits.items()]
    put(axis, [*_names(points), *ofs])
    return {"plane.png": png(figure)}


def _place(form: Canonical) -> tuple[float, float]:
    """Where a run lies, rounded so that runs of the same place share it."""
    return round(math.sqrt(math.prod(form.init_scale)), 6), round(form.learning_rate, 9)


def _names(points: dict[str, tuple[Canonical, Runs]]) -> list[Label]:
    """The cases' names and their S ÷ limit, together where they lie together."""
    places: dict[tuple[float, float], dict[str, list[str]]] = {}
    for name, (form, runs) in points.items():
        there = places.setdefault(_place(form), {})
        there.setdefault(words.number(median_ratio(runs)), []).append(name)
    labels = []
    for place, names in places.items():
        text = "\n".join(",\n".join(same) + f": {ratio}" for ratio, same in names.items())
        labels.append(Label(text, place, {"fontsize": 10}))
    return labels


def median_ratio(runs: Runs) -> float:
    """S over its limit, the median of the seeds."""
    return statistics.median(float(run["foretold"]["ratio"]) for run in runs)


def _point(axis, x: float, y: float, form: Canonical, runs: Runs, ratio: float) -> None:
    """A dot; a ring where κ₁ and κ₂ differ, with a thread to its own limit."""
    trained = sum(run["outcome"] == TRAINED for run in runs) / len(runs)
    colour = GREEN if trained == 1 else ORANGE if trained == 0 else GREY
    even = math.isclose(*form.init_scale, rel_tol=1e-6)
    axis.plot(
        x,
        y,
        "o",
        color=colour,
        markersize=8 if even else 14,
        fillstyle="full" if even else "none",
        markeredgewidth=2,
    )
    if not even:
        axis.plot([x, x], [y, y / ratio], ":", color=GREY, linewidth=1)


def _limits(points: dict[str, tuple[Canonical, Runs]]) -> dict[tuple[float, float], list[str]]:
    """Where S reaches its limit for the runs with κ₁ ≠ κ₂, and whose it is: the line is not theirs.

    S is proportional to R, so that is R ÷ (S ÷ limit); runs of the same κ share it.
    """
    limits: dict[tuple[float, ...], tuple[tuple[float, float], list[str]]] = {}
    for name, (form, runs) in points.items():
        if not math.isclose(*form.init_scale, rel_tol=1e-6):
            limit = form.learning_rate / median_ratio(runs)
            key = tuple(float(f"{scale:.3g}") for scale in form.init_scale)
            limits.setdefault(key, ((_place(form)[0], limit), []))[1].append(name)
    return dict(limits.values())


def _legend(axis, seeds: int) -> None:
    axis.plot([], [], color="black", linewidth=1.2, label="S = limit, for κ₁ = κ₂")
    for colour, style, label in (
        (GREEN, "full", "trained: every seed"),
        (GREY, "full", "trained: some seeds"),
        (ORANGE, "full", "trained: no seed"),
        ("black", "none", "ring: κ₁ and κ₂ differ, the line is not for it"),
    ):
        axis.plot([], [], "o", color=colour, fillstyle=style, markeredgewidth=2, label=label)
    axis.plot([], [], color="black", linewidth=2, label="dash: S = limit for that ring")
    which = "seed 0" if seeds == 1 else f"median of {seeds} seeds"
    axis.plot([], [], " ", label=f"numbers: S ÷ limit ({which})")
    axis.legend(fontsize=9, frameon=False, loc="lower left")
