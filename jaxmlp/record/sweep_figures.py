"""Figures of a sweep, from its tables alone: over two settings, over κ and R, forecasts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap, LogNorm

from jaxmlp.experiment import PER_TENSOR
from jaxmlp.record import sweep_places
from jaxmlp.record.figures import BLUE, GREY, ORANGE, panels, png
from jaxmlp.record.labels import Label, put
from jaxmlp.record.outcomes import FAILS_FROM
from jaxmlp.record.reliability import reliability
from jaxmlp.record.sweep_places import DECADE, Values

VALUE = "test_accuracy"
DIVERGES_FROM = 0.5  # the probability from which on a run is shown as foretold to diverge


def draw(
    plan: dict[str, Any], runs: Any, axes: Sequence[str] | None = None, value: str = VALUE
) -> dict[str, bytes]:
    """The figures that the runs allow, as PNG bytes by file name.

    Args:
        plan: sweep.json.
        runs: the table of runs.parquet.
        axes: two columns, across and up, of heat.png; the first two that were swept.
        value: the column that colours heat.png.

    Raises:
        ValueError: there is no such column of numbers, or the value is nowhere finite.
    """
    _check_columns(runs, (*(axes or ()), value))
    figures = {}
    axes = axes or swept(runs)
    if len(axes) >= 2:
        figures["heat.png"] = heat(plan, runs, axes[0], axes[1], value)
    if runs["canonical_learning_rate"].null_count == 0:
        figures["plane.png"] = plane(plan, runs)
    if runs["sharpness"].null_count == 0:
        figures["foretold.png"] = foretold(plan, runs)
    return figures


def _check_columns(runs: Any, names: Sequence[str]) -> None:
    numbers = [field.name for field in runs.schema if str(field.type) != "string"]
    for name in names:
        if name not in numbers:
            raise ValueError(f"{name} is no column of numbers; choose from {', '.join(numbers)}")


def swept(runs: Any) -> list[str]:
    """The columns of settings in which the runs differ, one for those that go together."""
    apart: dict[str, Values] = {}
    for name in runs.column_names:
        setting = name.rpartition("_")[0].removeprefix("bias_")
        if name != "input_scale" and setting not in PER_TENSOR:
            continue
        values = column(runs, name)
        if len(set(values)) > 1 and not any(_proportional(values, v) for v in apart.values()):
            apart[name] = values
    return list(apart)


def _proportional(a: Values, b: Values) -> bool:
    at = np.argmax(np.abs(b))
    return bool(np.allclose(a * b[at], b * a[at], rtol=1e-9, atol=0))


def column(runs: Any, name: str) -> Values:
    return np.array(runs[name].to_pylist(), float)


def title(plan: dict[str, Any], runs: Any) -> str:
    base, seeds = plan["experiment"], len(plan["seeds"])
    return (
        f"{len(runs):,} runs on {plan['data']['name']}, {plan['data']['train_size']:,} images, "
        f"{base['epochs']} epoch{'s' * (base['epochs'] > 1)}, {base['optimizer']}, "
        f"{seeds} seed{'s' * (seeds > 1)}"
    )


# ---- over two settings


def heat(plan: dict[str, Any], runs: Any, x: str, y: str, value: str) -> bytes:
    """The mean of a column over two others."""
    values = column(runs, value)
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError(f"{value} is nowhere finite; choose another --value")
    bounded = 0 <= known.min() <= known.max() <= 1  # a share, which no axis of decades suits
    wide = not bounded and known.min() > 0 and known.max() > DECADE * known.min()
    options: dict[str, Any] = {"cmap": "viridis"} | ({"norm": LogNorm()} if wide else {})
    figure, (axis,) = panels(title(plan, runs), 1, 8, 5.4)
    axis.grid(visible=False)
    across, up = column(runs, x), column(runs, y)
    finite = np.where(np.isfinite(values), values, np.nan)
    shown = sweep_places.draw(axis, across, up, finite, np.mean, **options)
    sweep_places.set_scales(axis, across, up)
    figure.colorbar(shown, ax=axis, label=value.replace("_", " "))
    axis.set(xlabel=x, ylabel=y)
    return png(figure)


# ---- over effective initial scale and rate

ENDINGS = {  # by how grave: the colour, and whether it holds of a run
    "stable": ("#56B4E9", lambda row: True),
    "recovers": ("#F0E442", lambda row: row["course"] == "recovers"),
    "fails": (ORANGE, lambda row: row["course"] == "fails"),
    "fails, nonfinite": ("black", lambda row: row["outcome"] == "nonfinite"),
}


def plane(plan: dict[str, Any], runs: Any) -> bytes:
    """What happened, over effective initial scale and rate, with what was foretold as lines."""
    layers = sum(name.startswith("canonical_init_scale_") for name in runs.column_names)
    scales = np.array([column(runs, f"canonical_init_scale_{i + 1}") for i in range(layers)])
    mean = np.exp(np.mean(np.log(scales), axis=0))
    rate = column(runs, "canonical_learning_rate")
    figure, (happened, reached) = panels(title(plan, runs), 2, 13, 5.8)
    _draw_endings(happened, runs, mean, rate)
    shown = sweep_places.draw(reached, mean, rate, column(runs, VALUE), np.mean, cmap="viridis")
    figure.colorbar(shown, ax=reached, label="test accuracy")
    line = boundary(runs, scales, mean, rate)
    for axis, colour in ((happened, "black"), (reached, "white")):
        if line:
            axis.plot(*line, color=colour, linewidth=1.8)
            happened.plot([], [], color="black", label="S = limit")
        _draw_foretold(axis, runs, mean, rate, colour)
        name = "√(κ₁·κ₂)" if layers == 2 else "geometric mean of all κ"
        sweep_places.set_scales(axis, mean, rate)
        axis.set(xlabel=f"effective initial scale, {name}")
        axis.set(xlim=sweep_places.ends(mean), ylim=sweep_places.ends(rate))
        axis.grid(visible=False)
    happened.set_ylabel("effective learning rate R")
    handles, labels = happened.get_legend_handles_labels()
    handle_of = dict(zip(labels, handles, strict=True))
    figure.legend(
        handle_of.values(),
        handle_of,
        loc="outside lower center",
        ncols=len(handle_of),
        fontsize=9,
        frameon=False,
    )
    return png(figure)


def _draw_endings(axis, runs: Any, mean: Values, rate: Values) -> None:
    """The gravest ending at each place, and how many runs there are of each in the legend."""
    gravest = np.array([ending(row) for row in runs.to_pylist()])
    colours = ListedColormap([colour for colour, _ in ENDINGS.values()])
    limits = {"vmin": -0.5, "vmax": len(ENDINGS) - 0.5}
    sweep_places.draw(axis, mean, rate, gravest, np.max, cmap=colours, **limits)
    for index, (name, (colour, _)) in enumerate(ENDINGS.items()):
        if count := int((gravest == index).sum()):
            axis.plot([], [], "s", color=colour, label=f"{name} ({count:,})")


def _draw_foretold(axis, runs: Any, mean: Values, rate: Values, colour: str) -> None:
    """The lines from which on runs were foretold to diverge and to fail."""
    for name, level, style in (("diverges", DIVERGES_FROM, "--"), ("fails", FAILS_FROM, ":")):
        probability = column(runs, f"foretold_{name}")
        grid = sweep_places.gridded(mean, rate, probability, np.mean)
        if grid and min(grid[2].shape) > 1 and grid[2].min() < level < grid[2].max():
            axis.contour(*grid, [level], colors=colour, linestyles=style, linewidths=1.8)
            if colour == "black":
                axis.plot([], [], style, color=colour, label=f"foretold: {name}")


def ending(row: dict[str, Any]) -> int:
    """The gravest of ENDINGS that holds of a run."""
    return max(i for i, (_, holds) in enumerate(ENDINGS.values()) if holds(row))


def boundary(
    runs: Any, scales: Float[np.ndarray, "layers runs"], mean: Values, rate: Values
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]] | None:
    """Where S reaches its limit: the rate at each mean scale, if the layers' scales go together.

    S is proportional to the rate, so each run tells the rate of the limit at its scale.
    """
    if runs["sharpness"].null_count or not np.allclose(scales / mean, scales[:, :1] / mean[0]):
        return None
    ratio = column(runs, "sharpness") / column(runs, "sharpness_limit")
    logarithms = np.round(np.log(mean), 9)
    places, rates = [], []
    for logarithm in np.unique(logarithms):
        here = (logarithms == logarithm) & np.isfinite(ratio) & (ratio > 0)
        if here.any():
            places.append(math.exp(logarithm))
            rates.append(float(np.median(rate[here] / ratio[here])))
    return (np.array(places), np.array(rates)) if len(places) > 2 else None


# ---- what was foretold beside what happened


def foretold(plan: dict[str, Any], runs: Any) -> bytes:
    """Accuracy over S ÷ limit, and how often what was foretold came true."""
    figure, (sharpness, shares) = panels(title(plan, runs), 2, 11, 4.6)
    courses = np.array(runs["course"].to_pylist())
    _draw_sharpness(sharpness, runs, courses != "stable")
    shares.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    counts = []
    for name, truth, colour in (
        ("diverges", courses != "stable", BLUE),
        ("fails", courses == "fails", ORANGE),
    ):
        bins = list(reliability(column(runs, f"foretold_{name}"), truth))
        means, came_true = zip(*[each[:2] for each in bins], strict=True)
        shares.plot(means, came_true, "o-", color=colour, linewidth=1, label=name)
        style = {"fontsize": 8, "color": colour}
        counts += [Label(f"{count:,}", (mean, share), style) for mean, share, _, count in bins]
    shares.set(
        xlabel="probability foretold",
        ylabel="share that came true (runs)",
        xlim=(-0.04, 1.08),
        ylim=(-0.08, 1.06),
    )
    shares.legend(fontsize=9)
    put(shares, counts)
    return png(figure)


def _draw_sharpness(axis, runs: Any, diverged: Int[np.ndarray, " runs"]) -> None:
    ratio = column(runs, "sharpness") / column(runs, "sharpness_limit")
    accuracy = column(runs, VALUE)
    drawable = np.isfinite(ratio) & (ratio > 0)
    if hidden := int((~drawable).sum()):
        axis.plot([], [], " ", label=f"S 0 or not finite, not shown ({hidden:,})")
    for chosen, colour, label in (
        (drawable & ~diverged, BLUE, "stable"),
        (drawable & diverged, ORANGE, "recovers or fails"),
    ):
        axis.scatter(
            ratio[chosen],
            accuracy[chosen],
            s=8,
            color=colour,
            alpha=0.5,
            linewidths=0,
            label=f"{label} ({int(chosen.sum()):,})",
        )
    axis.axvline(1, color="black", linewidth=1)
    axis.set(xscale="log", xlabel="S ÷ limit, before the first step", ylabel="test accuracy")
    axis.legend(fontsize=9)
