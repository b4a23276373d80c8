"""The page of one run, from its record alone."""

import math
import shlex
from typing import Any

import numpy as np
from bokeh.models import Range1d
from bokeh.plotting import figure
from jaxtyping import Float

from jaxmlp.experiment import Experiment
from jaxmlp.law import explanation, words
from jaxmlp.law.emission import SCRIPT, as_flags
from jaxmlp.pages import charts, page
from jaxmlp.pages.charts import Line
from jaxmlp.record.figures import BLUE, ORANGE
from jaxmlp.record.result import Result
from jaxmlp.record.run_record import data_word

MOST_UNITS = 48
SCRIPTS = {"jax": SCRIPT, "torch": ("python", "scripts/run_torch.py")}


def run_page(result: Result) -> bytes:
    """One HTML file: what the run really was, how it went, what it was made of."""
    record = result.record
    experiment = Experiment.from_json(record["experiment"])
    spike = number(record["diagnostics"]["spike"])
    figures = {**_per_epoch(record), **_per_step(record, result.steps)}
    if weights := _weights(record, result.params):
        figures["weights"] = weights
    return page.render(
        "run.html",
        figures,
        record=record,
        title=title(record),
        done=len(record["epochs"]),
        numbers=explanation.table(experiment, explanation.baseline(experiment)),
        foretold=words.forecast(_numbers(record["forecast"])) if record["forecast"] else None,
        layers=_layers(record["layers"]),
        settings=_settings(experiment),
        epochs=_epochs(record),
        command=command(record["framework"], experiment, record["data"]),
        missing=_missing(result.steps["grad_norm"]),
        spike=spike if math.isfinite(spike) else None,
        units=min(MOST_UNITS, record["layers"][0]["fan_out"]),
    )


def title(record: dict[str, Any]) -> str:
    """The case, its inputs, the data and the seed."""
    experiment = record["experiment"]
    return (
        f"{record['case']}: inputs × {experiment['input_scale']:g}, seed {experiment['seed']}, "
        f"{record['data']['name']}"
    )


def command(framework: str, experiment: Experiment, data: dict[str, Any]) -> str:
    """The command that repeats a run.

    Args:
        data: a record's section.
    """
    words = [*SCRIPTS[framework], *as_flags(experiment), "--data", data_word(data)]
    return shlex.join(words)


def number(value: Any) -> float:
    """A number of a record: its "NaN" and "Infinity", too."""
    return float(value)


def _missing(norms: Float[np.ndarray, "steps layers"]) -> str:
    """What it means where a line of norms has a gap."""
    meanings = {"exactly 0": (norms == 0).any(), "not finite": not np.isfinite(norms).all()}
    found = " or ".join(meaning for meaning, there in meanings.items() if there)
    return f" Where a line is missing, it is {found}." if found else ""


def _numbers(section: dict[str, Any]) -> dict[str, Any]:
    """A section with its numbers as floats."""
    texts = ("course", "data")
    return {
        name: value if name in texts or value is None else number(value)
        for name, value in section.items()
    }


# ---- plots


def _per_epoch(record: dict[str, Any]) -> dict[str, figure]:
    classes = record["data"]["classes"]
    rows = record["epochs"]
    epochs = np.array([row["epoch"] for row in rows], float)

    def of_splits(what: str) -> list[Line]:
        return [
            Line(split, epochs, np.array([number(row[f"{split}_{what}"]) for row in rows]), colour)
            for split, colour in (("train", BLUE), ("test", ORANGE))
        ]

    guess = {f"guessing: 1/{classes}": 1 / classes}
    accuracies = of_splits("accuracy")
    return {
        "loss": charts.lines(of_splits("loss"), "epoch", "loss", levels=charts.guessing(classes)),
        "accuracy": charts.lines(
            accuracies, "epoch", "accuracy", levels=guess, ends=charts.from_zero(accuracies)
        ),
    }


def _per_step(record: dict[str, Any], steps: dict[str, np.ndarray]) -> dict[str, figure]:
    names = [layer["name"] for layer in record["layers"]]
    count = np.arange(1, len(steps["loss"]) + 1, dtype=float)
    styles = charts.styled(names)

    def of_layers(what: str, layers: list[str]) -> list[Line]:
        return [
            Line(name, count, steps[what][:, i], *styles[name]) for i, name in enumerate(layers)
        ]

    loss = [Line("loss of the batch", count, steps["loss"], BLUE)]
    guess = charts.guessing(record["data"]["classes"])
    figures = {
        "step_loss": charts.lines(loss, "step", "loss", steps=True, levels=guess),
        "norms": charts.lines(of_layers("grad_norm", names), "step", "gradient norm", steps=True),
    }
    if names[:-1]:
        dead = of_layers("dead", names[:-1])
        figures["dead"] = charts.lines(dead, "step", "dead units", steps=True, ends=(-0.03, 1.03))
    return figures


def _weights(record: dict[str, Any], params: dict[str, np.ndarray]) -> figure | None:
    """The first layer's weights as images; None if its inputs are no images."""
    tiles = _tiles(params["layer1.kernel"], record["data"]["shape"])
    if tiles is None:
        return None
    rows, columns = tiles.shape[:2]
    plot = charts.blank(
        "weights",
        aspect_ratio=columns / rows,
        tools=charts.TOOLS,
        toolbar_location="above",
        x_range=Range1d(start=0, end=columns),
        y_range=Range1d(start=0, end=rows),
    )
    plot.axis.visible = plot.grid.visible = False
    packed: Any = np.ascontiguousarray(tiles[::-1]).view(np.uint32).reshape(rows, columns)
    plot.image_rgba([packed], x=0, y=0, dw=columns, dh=rows)
    return plot


def _tiles(
    kernel: Float[np.ndarray, "inputs units"], shape: list[int]
) -> Float[np.ndarray, "rows columns 4"] | None:
    """Units side by side, RGBA bytes, grey 0, each on its own scale."""
    channels, height, width = shape
    if min(height, width) < 4:
        return None
    images = kernel.T[:MOST_UNITS].reshape(-1, channels, height, width)
    with np.errstate(all="ignore"):
        largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
        shades = np.nan_to_num(127.5 + 127.5 * images / largest, nan=127.5).astype(np.uint8)
    if channels != 3:
        shades = np.repeat(shades.mean(axis=1, keepdims=True).astype(np.uint8), 3, axis=1)
    columns = min(16, len(shades))
    rows = math.ceil(len(shades) / columns)
    sheet = np.zeros((rows * (height + 2), columns * (width + 2), 4), np.uint8)
    for i, image in enumerate(np.moveaxis(shades, 1, -1)):
        top, left = i // columns * (height + 2), i % columns * (width + 2)
        sheet[top : top + height, left : left + width, :3] = image
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet


# ---- tables


def _layers(sections: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a column for each layer."""
    names = [name for name in sections[0] if name != "name"]
    head = ["", *(section["name"] for section in sections)]
    return head, [
        [name.replace("_", " "), *(_text(section.get(name)) for section in sections)]
        for name in names
    ]


def _settings(experiment: Experiment) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), _text(value))
        for name, value in experiment.to_json().items()
        if value is not None
    ]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _epochs(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what the plots over epochs show, for those who read."""
    hidden = [layer["name"] for layer in record["layers"][:-1]]
    head = ["epoch", "train loss", "train accuracy", "test loss", "test accuracy"]
    head += [f"dead units, {name}" for name in hidden]
    rows = []
    for row in record["epochs"]:
        losses = {what: f"{number(row[f'{what}_loss']):.4g}" for what in ("train", "test")}
        cells = [str(row["epoch"]), losses["train"], f"{row['train_accuracy']:.2%}"]
        cells += [losses["test"], f"{row['test_accuracy']:.2%}"]
        rows.append([*cells, *(f"{dead:.1%}" for dead in row["dead"])])
    return head, rows
