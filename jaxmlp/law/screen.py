"""Sections of a screen, and the same as lines of plain text."""

import textwrap
from typing import NamedTuple

WIDTH = 100
INDENT = "  "


class Paragraph(NamedTuple):
    text: str


class Table(NamedTuple):
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Labelled(NamedTuple):
    """Texts beside their labels."""

    rows: tuple[tuple[str, str], ...]


class Commands(NamedTuple):
    """Each under its label, on a line of its own, however long, so that it can be pasted."""

    rows: tuple[tuple[str, str], ...]


Part = Paragraph | Table | Labelled | Commands


class Section(NamedTuple):
    heading: str
    parts: tuple[Part, ...]


def plain(title: str, sections: tuple[Section, ...]) -> str:
    """The screen as text; no line but a command's is longer than WIDTH."""
    lines = [title]
    for section in sections:
        lines += ["", section.heading]
        for part in section.parts:
            lines += _lines(part)
    return "\n".join(lines)


def _lines(part: Part) -> list[str]:
    if isinstance(part, Paragraph):
        return [INDENT + line for line in _wrapped(part.text, WIDTH - len(INDENT))]
    if isinstance(part, Table):
        return _aligned((part.headings, *part.rows))
    if isinstance(part, Labelled):
        return _beside(part.rows)
    return [line for label, command in part.rows for line in (f"{INDENT}{label}:", command)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _aligned(rows: tuple[tuple[str, ...], ...]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append((INDENT + (2 * INDENT).join(cells)).rstrip())
    return lines


def _beside(rows: tuple[tuple[str, str], ...]) -> list[str]:
    """Labels in one column, their texts wrapped in another."""
    widest = max(len(label) for label, _ in rows)
    margin = " " * (widest + 2 * len(INDENT))
    lines = []
    for label, text in rows:
        first, *rest = _wrapped(text, WIDTH - len(margin))
        lines.append(f"{INDENT}{label.ljust(widest)}{INDENT}{first}")
        lines += [margin + line for line in rest]
    return lines
