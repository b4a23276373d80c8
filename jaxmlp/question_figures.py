"""The figures of scripts/reproduce.py."""

import io
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxmlp import explanation, rescaling
from jaxmlp.experiment import Experiment
from jaxmlp.report import BLUE, COLOURS, GREEN, GREY, ORANGE
from jaxmlp.rescaling import Canonical

Runs = list[dict[str, Any]]
TRAINED = "trained"


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def panels(title: str, columns: int, width: float, height: float = 4.2):
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


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
    figure, (axis,) = panels(f"The question's cases on {data}, {seeds} seeds", 1, 9, 5)
    ends = []
    for name, style in styles(runs).items():
        curves = np.array([run["test_accuracy"] for run in runs[name]])
        epochs = np.arange(1, curves.shape[1] + 1)
        axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.12,
                          color=style["color"], linewidth=0)  # fmt: skip
        axis.plot(epochs, curves.mean(axis=0), label=name, linewidth=1.6, **style)
        ends.append((curves.mean(axis=0)[-1], name))
    order = [name for _, name in sorted(ends, reverse=True)]
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend([handles[name] for name in order], order, fontsize=9, frameon=False,
                loc="center left", bbox_to_anchor=(1, 0.5))  # fmt: skip
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
        f"The same network at three input scales on {data}, {epochs} epochs, seed 0", 2, 10
    )
    scales = sorted({experiment.input_scale for experiment, _ in runs})
    for scale, colour, marker, size in zip(
        scales, (BLUE, ORANGE, GREEN), "os^", (9, 6, 4), strict=True
    ):
        own = [pair for pair in runs if pair[0].input_scale == scale]
        reached = [run["test_accuracy"][-1] for _, run in own]
        raw = [experiment.per_layer("learning_rate")[0] for experiment, _ in own]
        effective = [rescaling.canonical(experiment).learning_rate for experiment, _ in own]
        for axis, rates in zip(axes, (raw, effective), strict=True):
            axis.plot(rates, reached, color=colour, marker=marker, markersize=size, linewidth=1,
                      label=f"inputs × {scale:g}")  # fmt: skip
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
    """The plane of effective initial scale and effective learning rate."""
    title = f"Which runs the cases really are ({data}); above the line the first steps overshoot"
    figure, (axis,) = panels(title, 1, 10, 5.8)
    axis.plot(
        scales,
        critical,
        color="black",
        linewidth=1.2,
        label="S = limit, where κ₁ = κ₂\n(at the names: S ÷ limit)",
    )
    axis.fill_between(scales, critical, 1e3, color=ORANGE, alpha=0.08, linewidth=0)
    places: dict[tuple[float, float], list[str]] = {}
    for name, (form, _) in points.items():
        x, y = math.sqrt(math.prod(form.init_scale)), form.learning_rate
        places.setdefault((round(x, 6), round(y, 9)), []).append(name)
    for (x, y), names in places.items():
        labels: dict[str, list[str]] = {}
        for name in names:
            form, runs = points[name]
            trained = sum(run["outcome"] == TRAINED for run in runs) / len(runs)
            even = math.isclose(*form.init_scale, rel_tol=1e-6)
            axis.plot(x, y, "o", color=GREEN if trained == 1 else ORANGE if trained == 0 else GREY,
                      markersize=8 if even else 14, fillstyle="full" if even else "none",
                      markeredgewidth=2)  # fmt: skip
            ratio = float(runs[0]["foretold"]["ratio"])
            labels.setdefault(explanation.number(ratio), []).append(name)
        text = "\n".join(",\n".join(group) + f": {ratio}" for ratio, group in labels.items())
        axis.annotate(
            text,
            (x, y),
            (11, 4),
            textcoords="offset points",
            fontsize=9,
            va="top" if "\n" in text else "center",
        )
    rates = [rate for _, rate in places]
    axis.set(xscale="log", yscale="log", xlim=(scales[0], scales[-1]),
             ylim=(min(rates) / 4, 10 * max(rates)), ylabel="effective learning rate R",
             xlabel="effective initial scale, √(κ₁·κ₂)")  # fmt: skip
    for colour, style, label in (
        (GREEN, "full", "every seed trains"), (GREY, "full", "some seeds train"),
        (ORANGE, "full", "no seed trains"), ("black", "none", "ring: κ₁ and κ₂ differ"),
    ):  # fmt: skip
        axis.plot([], [], "o", color=colour, fillstyle=style, markeredgewidth=2, label=label)
    axis.legend(fontsize=9, frameon=False, loc="lower left")
    return {"plane.png": png(figure)}
