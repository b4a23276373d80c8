"""Figures of one run, made from its record alone."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxmlp.record.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    legend_below,
    panels,
    png,
    set_title,
)

LABEL = {"size": 11}
MOST_UNITS_SHOWN = 48
SOFTWARE = b"Software\0jaxmlp"  # as a PNG says it; figures alone in a place are known by it


def figures(
    result: dict[str, Any], steps: dict[str, np.ndarray], params: dict[str, np.ndarray]
) -> dict[str, bytes]:
    """The run's figures as PNG bytes, by file name."""
    return {
        "curves.png": _png(_curves(result)),
        "first_steps.png": _png(_first_steps(result, steps)),
        "weights.png": _png(_weights(result, params)),
    }


def comparison(
    names: tuple[str, str], results: list[dict[str, Any]], losses: list[np.ndarray]
) -> bytes:
    """The losses of two runs, step by step, and how far they are apart, as a PNG."""
    titles = dict.fromkeys(map(title, results))
    figure, (loss, apart) = panels(" and ".join(titles), 2, 11, 4)
    for name, values, colour, width in zip(names, losses, (BLUE, ORANGE), (2.4, 0.9), strict=True):
        loss.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=width, label=name)
    loss.set_title("loss of the batch", fontsize=11)
    legend_below(loss)
    count = min(map(len, losses))
    first, second = (values[:count].astype(np.float64) for values in losses)
    with np.errstate(all="ignore"):
        relative = np.abs(first - second) / np.abs(second)
    steps = np.arange(1, count + 1)
    seen = np.isfinite(relative) & (relative > 0)
    apart.plot(steps[seen], relative[seen], ".", color=GREEN, markersize=3)
    apart.set_title("relative difference of the losses (equal ones are not drawn)", fontsize=11)
    for axis, drawn in ((loss, np.concatenate(losses)), (apart, relative[seen])):
        axis.set_xscale("log")
        axis.set_xlim(0.9, 1.1 * max(map(len, losses)))
        axis.set_xlabel("step", **LABEL)
        if np.any((drawn > 0) & np.isfinite(drawn)):
            axis.set_yscale("log")
    return _png(figure)


def title(result: dict[str, Any]) -> str:
    """What every figure says above itself: the case, the data, the seed, the outcome."""
    experiment = result["experiment"]
    return (
        f"{result['case']}: inputs × {experiment['input_scale']:g}, seed {experiment['seed']}, "
        f"{result['data']['name']} → {result['outcome']}"
    )


def _png(figure: Figure) -> bytes:
    return png(figure, {"Software": "jaxmlp"})


def _number(value: Any) -> float:
    return float(value)  # the record's "NaN" and "Infinity" too


def _curves(result: dict[str, Any]) -> Figure:
    """Losses and accuracies per epoch."""
    figure, (loss, accuracy) = panels(title(result), 2, 9, 3.6)
    epochs = [row["epoch"] for row in result["epochs"]]
    classes = result["data"]["classes"]
    for axis, what in ((loss, "loss"), (accuracy, "accuracy")):
        for split, colour, marker, size in (("train", BLUE, "o", 6), ("test", ORANGE, "s", 3)):
            values = [_number(row[f"{split}_{what}"]) for row in result["epochs"]]
            axis.plot(epochs, values, color=colour, marker=marker, markersize=size, label=split)
        axis.set_xlabel("epoch", **LABEL)
        axis.set_ylabel(what, **LABEL)
        axis.xaxis.get_major_locator().set_params(integer=True)
    guess = math.log(classes)
    loss.axhline(guess, color=GREY, linestyle="--", label=f"guessing: ln {classes}")
    accuracy.axhline(1 / classes, color=GREY, linestyle="--", label=f"guessing: 1/{classes}")
    finite = [_number(row["train_loss"]) for row in result["epochs"]]
    if max((value for value in finite if math.isfinite(value)), default=0) > 10 * guess:
        loss.set_yscale("log")
    best = max(max(row["train_accuracy"], row["test_accuracy"]) for row in result["epochs"])
    accuracy.set_ylim(0, min(1.0, 1.15 * max(best, 2 / classes)))
    for axis in (loss, accuracy):
        legend_below(axis)
    return figure


def _first_steps(result: dict[str, Any], steps: dict[str, np.ndarray]) -> Figure:
    """Loss, gradient norms and dead units, step by step, on a logarithmic step axis."""
    figure, (loss, norms, dead) = panels(title(result), 3, 11, 3.6)
    count = np.arange(1, len(steps["loss"]) + 1)
    classes, names = result["data"]["classes"], [layer["name"] for layer in result["layers"]]
    loss.plot(count, steps["loss"], color=BLUE, linewidth=1)
    loss.axhline(math.log(classes), color=GREY, linestyle="--", label=f"ln {classes}")
    for i, name in enumerate(names):
        norm, colour = steps["grad_norm"][:, i], COLOURS[i % len(COLOURS)]
        norms.plot(count, np.where(norm > 0, norm, np.nan), color=colour, linewidth=1, label=name)
    _mark_zeros(norms, count, steps["grad_norm"])
    for i, name in enumerate(names[:-1]):
        dead.plot(
            count, steps["dead"][:, i], color=COLOURS[i % len(COLOURS)], linewidth=1.3, label=name
        )
    dead.set_ylim(-0.03, 1.03)
    labels = ("loss of the batch", "gradient norm", "fraction of units dead in the batch")
    for axis, label in zip((loss, norms, dead), labels, strict=True):
        axis.set_xscale("log")
        axis.set_xlim(0.9, 1.1 * len(count))
        axis.set_xlabel("step", **LABEL)
        axis.set_title(label, fontsize=11)
        legend_below(axis)
    for axis, values in ((loss, steps["loss"]), (norms, steps["grad_norm"])):
        if np.any((values > 0) & np.isfinite(values)):  # else nothing can be drawn on a log axis
            axis.set_yscale("log")
    return figure


def _mark_zeros(axis, count: np.ndarray, norms: Float[np.ndarray, "steps layers"]) -> None:
    """Marks at the lower edge for the steps that a logarithmic axis cannot show."""
    zero = (norms == 0).any(axis=1)
    if zero.any():
        edge = axis.get_xaxis_transform()  # x in data, y in shares of the axis
        axis.plot(
            count[zero],
            np.full(int(zero.sum()), 0.012),
            "|",
            color=GREY,
            markersize=5,
            transform=edge,
            clip_on=False,
            label="exactly 0",
        )


def _weights(result: dict[str, Any], params: dict[str, np.ndarray]) -> Figure:
    """The first layer's weights of the first units as images; grey is 0, one scale for each."""
    channels, height, width = result["data"]["shape"]
    kernel = params["layer1.kernel"].T[:MOST_UNITS_SHOWN].reshape(-1, channels, height, width)
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(kernel), axis=(1, 2, 3), keepdims=True)
        shown = np.nan_to_num(0.5 + 0.5 * kernel / largest, nan=0.5)
    if channels != 3:
        shown = np.repeat(shown.mean(axis=1, keepdims=True), 3, axis=1)
    columns = min(12, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(9, 0.78 * rows + 0.9), layout="constrained")
    set_title(
        figure,
        f"{title(result)}\nfirst-layer weights of {len(shown)} units after training: grey 0, "
        "bright positive, dark negative, each on its own scale\n"
        "(all dark: every weight is negative, and the unit off on images whose pixels are not)",
        fontsize=10,
    )
    for i, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if i < len(shown):
            axis.imshow(np.moveaxis(shown[i], 0, -1), interpolation="nearest")
    return figure
