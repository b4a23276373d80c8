"""What is written in figures crosses no line, no marker, and nothing else that is written."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxmlp.law.canonical import canonical
from jaxmlp.record import question_experiments, question_figures, reliability, run_figures
from jaxmlp.record.figures import panels, png
from jaxmlp.record.labels import Label, put

DPI = 120  # as the figures are saved
CRITICAL = (  # on CIFAR-10, of 25 scales from 1/40 to 200
    *(1.77, 1.77, 1.77, 1.77, 1.76, 1.76, 1.73, 1.47, 0.878, 0.436, 0.196, 0.0789, 0.0274),
    *(0.0093, 0.00447, 0.00322, 0.00288, 0.00273, 0.00245, 0.00236, 0.00265, 0.0027, 0.00238),
    *(0.00272, 0.0057),
)
RATIOS = {  # S ÷ limit there
    "baseline": 0.0891183,
    "scaled": 1460.378,
    "scaled-lr": 5.726974,
    "scaled-lr-init": 0.01022306,
    "scaled-lr-init1": 20.644025,
    "scaled-lr1-init1": 20.653273,
    "scaled-lr1": 176.793904,
    "scaled-lrsq-init1": 0.08095696,
    "repair-first-layer": 0.0891184,
    "repair-uniform": 0.0891184,
}


@pytest.fixture
def saved(monkeypatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def kept(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def written(figure: Figure) -> list[tuple[str, Any]]:
    """What is written inside the axes, and their legends, with what hides it."""
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()]
    texts = [text for axis in figure.axes for text in axis.texts]
    return [("a legend", each) for each in legends] + [(text.get_text(), text) for text in texts]


def crossings(figure: Figure) -> list[str]:
    """What is written over something: by the pixels that are there when it is hidden.

    The grid is no such thing.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # nothing moves any more
    boxes = [(name, artist.get_window_extent()) for name, artist in written(figure)]
    for _, artist in written(figure):
        artist.set_visible(False)
    for axis in figure.axes:
        axis.grid(visible=False)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    crossed = [f"{name} lies on something" for name, box in boxes if not plain(pixels, box)]
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        if one.overlaps(other):
            crossed.append(f"{first} lies on {second}")
    return crossed


def plain(pixels: np.ndarray, box: Any) -> bool:
    """Whether nothing is drawn in a box, counted from below, but one colour."""
    height = len(pixels)
    rows = slice(height - math.ceil(box.y1), height - math.floor(box.y0))
    inside = pixels[rows, math.floor(box.x0) : math.ceil(box.x1)]
    assert inside.size  # else it lies outside the figure
    return bool((inside == inside[0, 0]).all())


def test_a_label_on_a_line_a_marker_or_a_label_is_noticed():
    figure, (axis,) = panels("", 1, 5, 4)
    axis.plot([0, 1], [0.5, 0.5])
    axis.plot(0.2, 0.9, "o")
    for text, place in (("on it", (0.5, 0.5)), ("mark", (0.2, 0.9)), ("free", (0.7, 0.8))):
        axis.annotate(text, place, va="center", ha="center")
    axis.annotate("over", (0.7, 0.79))
    assert crossings(figure) == [
        "on it lies on something",
        "mark lies on something",
        "free lies on over",
    ]


def plane(seeds: int = 2) -> None:
    """The plane of the question's cases, with CIFAR-10's numbers."""
    experiments = question_experiments.cases(20)
    points = {
        case: (canonical(experiments[case]), seeds * [{"outcome": outcome, "foretold": foretold}])
        for case, ratio in RATIOS.items()
        for outcome, foretold in [("trained" if ratio < 10 else "dead", {"ratio": ratio})]
    }
    question_figures.of_plane(np.geomspace(1 / 40, 200, 25), np.array(CRITICAL), points, "cifar10")


def test_nothing_in_the_plane_of_the_cases_crosses_anything(saved):
    plane()
    (figure,) = saved
    names = "\n".join(text.get_text() for text in figure.axes[0].texts)
    assert all(case in names for case in RATIOS)
    assert crossings(figure) == []


def test_a_limits_name_stands_closer_to_its_dash_than_to_any_other(saved):
    plane()
    (figure,) = saved
    figure.draw_without_rendering()
    axis = figure.axes[0]
    limits = [text for text in axis.texts if text.get_text().startswith("limit of")]
    dashes = [axis.transData.transform(text.xy) for text in limits]
    assert len(limits) == 3
    for i, text in enumerate(limits):
        box = text.get_window_extent()
        middles = [np.hypot(*(dash - [box.x0, (box.y0 + box.y1) / 2])) for dash in dashes]
        assert np.argmin(middles) == i


@pytest.mark.parametrize("seed", range(8))
def test_labels_of_other_points_find_room(seed):
    draw = np.random.default_rng(seed)
    figure, (axis,) = panels("points at random", 1, 9, 6)
    across = np.geomspace(0.01, 100, 8)
    for _ in range(2):
        axis.plot(across, 10 ** draw.uniform(-3, 3, 8), color="black")
    places = 10 ** draw.uniform((-2, -3), (2, 3), (7, 2))
    for place in places:
        axis.plot(*place, "o", markersize=draw.uniform(4, 14))
    axis.set(xscale="log", yscale="log", xlim=(0.005, 300), ylim=(1e-4, 1e4))
    put(axis, [Label(f"case {i}: {x:.3g}", (x, y), {}) for i, (x, y) in enumerate(places)])
    png(figure)
    assert crossings(figure) == []


def test_where_there_is_no_room_labels_are_written_all_the_same():
    figure, (axis,) = panels("no room", 1, 2, 2)
    for height in np.linspace(0, 1, 40):
        axis.plot([0, 1], [height, height])
    put(axis, [Label("crowded", (0.5, 0.5), {}), Label("too", (0.5, 0.5), {})])
    assert png(figure).startswith(b"\x89PNG")
    assert crossings(figure)


def test_axes_without_labels_are_left_as_they_are():
    figure, (axis,) = panels("none", 1, 2, 2)
    put(axis, [])
    assert list(axis.texts) == []
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_of_the_reliability_figure_cross_nothing(saved, seed):
    draw = np.random.default_rng(seed)
    foretold = draw.uniform(0, 1, 100) ** draw.uniform(0.3, 3)
    true = draw.uniform(0, 1, 100) < foretold
    sure = np.where(true, 0.97, 0.01)
    reliability.figure({"by S alone": (foretold, true), "with more": (sure, true)}, 100)
    (figure,) = saved
    counts = [text.get_text() for text in figure.axes[0].texts]
    assert sum(map(int, counts)) == 100
    assert crossings(figure) == []


@pytest.mark.parametrize("steps", [2, 600, 4000])
def test_the_legends_of_a_runs_figures_cover_nothing(command, saved, tmp_path, steps):
    from jaxmlp.record.result import Result

    status, _, _ = command("--hidden", "5", "--batch-size", "8", "--epochs", "1", "--out", "a")
    assert status == 0
    run, draw = Result.load(tmp_path / "a"), np.random.default_rng(0)
    rising = np.minimum(np.arange(steps) / 3, 1)
    longer = {
        "loss": 10 ** draw.uniform(0, 6, steps),
        "grad_norm": 10 ** draw.uniform(-3, 3, (steps, 2)) * (draw.uniform(size=(steps, 2)) > 0.1),
        "dead": rising[:, None],
    }
    saved.clear()
    run_figures.figures(run.record, longer, run.params)
    run_figures.comparison(("A", "B"), 2 * [run.record], 2 * [longer["loss"]])
    curves, first_steps, _, comparison = saved
    for figure in (curves, first_steps, comparison):
        assert [text for axis in figure.axes for text in axis.texts] == []
        assert crossings(figure) == []
