"""One word for each thing (docs/glossary.md): the retired ones stand nowhere that a user looks."""

import ast
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_verdict import result, row, steps

from jaxmlp import question
from jaxmlp.commands import run as run_jax
from jaxmlp.experiment import Experiment
from jaxmlp.law import words
from jaxmlp.record import outcomes

ROOT = Path(__file__).parent.parent
RETIRED = re.compile(
    r"\b(dies|died|dying|fatal|catapult|undisturbed|c[ao]mes? back|blown up|stability)\b", re.I
)
SOURCES = sorted(path for room in ("jaxmlp", "scripts") for path in (ROOT / room).glob("**/*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def said(path: Path) -> Iterator[str]:
    """The strings of a file; of the docstrings only the file's own, which --help prints."""
    tree = ast.parse(path.read_text())
    inner = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_command_says_a_retired_word(path):
    assert [text for text in said(path) if RETIRED.search(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_table_or_printed_output_on_a_page_does(path):
    blocks = re.findall(r"^```.*?^```", path.read_text(), re.S | re.M)
    tables = re.findall(r"^\|.*$", path.read_text(), re.M)
    assert [text for text in blocks + tables if RETIRED.search(text)] == []


def test_the_glossary_defines_every_outcome_and_course():
    text = (ROOT / "docs" / "glossary.md").read_text()
    defined = set(re.findall(r"^\| \*\*(\w+)\*\*", text, re.M))
    assert {"trained", "stalled", "dead", "nonfinite", *outcomes.COURSES} <= defined


def test_a_record_speaks_the_glossarys_words(tiny_npz, tmp_path, capsys):
    run_jax.main(
        [
            "--data",
            str(tiny_npz),
            "--hidden",
            "5",
            "--batch-size",
            "4",
            "--epochs",
            "2",
            "--input-scale",
            "255",
            "--out",
            str(tmp_path / "r"),
        ]
    )
    text = (tmp_path / "r" / "result.json").read_text()
    assert not RETIRED.search(text)
    assert not RETIRED.search(capsys.readouterr().out)
    result = json.loads(text)
    assert result["forecast"]["course"] in outcomes.COURSES


@pytest.mark.parametrize("case", question.CASES)
def test_an_attempt_is_told_by_its_outcome(case):
    experiment = Experiment(**question.settings(case))
    for _, text in question.attempts(experiment):
        assert re.match("Trained|Stalled|Dead", text)


@given(fails=st.floats(0, 1), diverges=st.floats(0, 1), course=st.sampled_from(outcomes.COURSES))
def test_a_forecast_in_words_begins_with_its_course(fails, diverges, course):
    text = words.forecast(
        {
            "ratio": 2.0,
            "sharpness": 7.6,
            "limit": 3.8,
            "fails": fails,
            "diverges": diverges,
            "course": course,
        }
    )
    assert text.lower().startswith(course)
    assert not RETIRED.search(text)


@pytest.mark.parametrize(("loss", "silent"), [(1.0, 0.0), (5.0, 0.0), (1.0, 1.0), (math.nan, 0.0)])
def test_a_verdict_begins_with_its_outcome(loss, silent):
    made = steps(loss=loss)
    found = result(made, [row(loss=loss, silent=silent)])
    text = outcomes.verdict(found, made)
    assert text.lower().startswith(found["outcome"] + ":")
    assert not RETIRED.search(text)


def test_the_probability_from_which_on_fails_is_foretold_is_told_as_it_is():
    told = words.forecast(
        {
            "ratio": 2.0,
            "sharpness": 7.6,
            "limit": 3.8,
            "fails": 0.4,
            "diverges": 1.0,
            "course": "fails",
        }
    )
    share = f"{outcomes.FAILS_FROM:.0%}".replace("%", words.NO_BREAK)
    assert f"(foretold from {share} on)" in told
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    assert f"`fails` is foretold from a\nprobability of {outcomes.FAILS_FROM} on" in glossary
