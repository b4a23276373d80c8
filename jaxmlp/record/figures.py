"""The style of all figures: colours, axes, titles, and how one becomes a PNG."""

import io
import warnings
from typing import Any

from matplotlib.figure import Figure

# Okabe & Ito 2008: distinguishable with every common colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
WORDS_BELOW = 3.6  # high, in letters: an axis' numbers and its label
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")


def panels(title: str, columns: int, width: float, height: float = 4.2) -> tuple[Figure, Any]:
    """A figure of axes side by side, and these; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    set_title(figure, title)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def legend_below(axis: Any, fontsize: int = 10) -> None:
    """Puts the legend under the words below an axis, where it covers nothing that is drawn."""
    handles, _ = axis.get_legend_handles_labels()
    if handles:
        axis.legend(
            fontsize=fontsize,
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=WORDS_BELOW,
            ncols=len(handles),
            columnspacing=1.2,
        )


def set_title(figure: Figure, text: str, fontsize: int = 12) -> None:
    """Writes above a figure, as they are, words that may come from outside, as a file's name does.

    Dollars are no formula. Bytes that are no text, which matplotlib cannot draw, are "?".
    """
    drawable = text.encode("utf-8", "replace").decode()
    figure.suptitle(drawable, fontsize=fontsize, parse_math=False)


def png(figure: Figure, metadata: dict[str, str] | None = None) -> bytes:
    """A figure as a PNG; a letter that the font lacks is an empty box in it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=120, metadata=metadata)
    return buffer.getvalue()
