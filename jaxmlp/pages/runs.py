"""The page of several runs side by side: those that are one run fall on one another."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.plotting import figure

from jaxmlp.experiment import Experiment
from jaxmlp.law.difference import difference, in_words, same
from jaxmlp.law.invariants import exact_invariants
from jaxmlp.pages import charts, page
from jaxmlp.pages.charts import Line
from jaxmlp.pages.run import command, number, title
from jaxmlp.record.result import Result

THIN, WIDER, MOST_WIDER = 1.8, 2.0, 3  # of lines: the last one's pixels, and how others are wider


def runs_page(results: Mapping[str, Result]) -> bytes:
    """One HTML file.

    Args:
        results: at least two, by what each is called.
    """
    experiments = {
        name: Experiment.from_json(result.record["experiment"]) for name, result in results.items()
    }
    return page.render(
        "runs.html",
        _plots(results),
        names=list(results),
        titles={name: title(result.record) for name, result in results.items()},
        results=results,
        styles=charts.styled(list(results)),
        groups=_one_run(experiments),
        numbers=_numbers(experiments),
        apart=_apart(experiments),
        commands={
            name: command(result.record["framework"], experiments[name], result.record["data"])
            for name, result in results.items()
        },
    )


def _one_run(experiments: Mapping[str, Experiment]) -> list[list[str]]:
    """The names of those that are one and the same run, group by group."""
    groups: list[list[str]] = []
    for name, experiment in experiments.items():
        known = next((each for each in groups if same(experiments[each[0]], experiment)), None)
        if known is None:
            groups.append([name])
        else:
            known.append(name)
    return [group for group in groups if len(group) > 1]


def _numbers(experiments: Mapping[str, Experiment]) -> list[list[str]]:
    """A row for each canonical number: its label, and each run's; a dash where a run has none."""
    of_runs = []
    for experiment in experiments.values():
        try:
            of_runs.append(exact_invariants(experiment))
        except ValueError:  # a frozen layer
            of_runs.append({})
    found = {key for values in of_runs for key in values}
    known = sorted(found, key=lambda key: (key.rank, key.layer or 0))
    rows = []
    for key in known:
        label = ", ".join(filter(None, (key.terms.label, key.where)))
        cells = (f"{float(values[key]):.4g}" if key in values else "–" for values in of_runs)
        rows.append([f"{key.symbol}  {label}", *cells])
    return rows


def _apart(experiments: Mapping[str, Experiment]) -> list[tuple[str, str]]:
    """How each of the others differs from the first, in words."""
    (_, base), *others = experiments.items()
    sentences = []
    for name, experiment in others:
        try:
            sentences.append((name, in_words(difference(experiment, base), experiment.layers)))
        except ValueError as error:
            sentences.append((name, f"cannot be compared: {error}"))
    return sentences


def _plots(results: Mapping[str, Result]) -> dict[str, figure]:
    """The same axes for all, a colour each; earlier lines are wider, and seen beneath."""
    styles = {
        name: (*style, THIN + WIDER * min(MOST_WIDER, len(results) - 1 - i))
        for i, (name, style) in enumerate(charts.styled(list(results)).items())
    }

    def over_epochs(what: str) -> list[Line]:
        return [
            Line(name, *_epochs(result.record, what), *styles[name])
            for name, result in results.items()
        ]

    def over_steps(values: Mapping[str, np.ndarray]) -> list[Line]:
        return [
            Line(name, np.arange(1.0, len(each) + 1), each, *styles[name])
            for name, each in values.items()
        ]

    accuracy = over_epochs("test_accuracy")
    loss = {name: result.steps["loss"] for name, result in results.items()}
    norm = {name: result.steps["grad_norm"][:, 0] for name, result in results.items()}
    dead = {
        name: result.steps["dead"][:, 0]
        for name, result in results.items()
        if result.steps["dead"].shape[1]
    }
    plots = {
        "loss": charts.lines(over_epochs("train_loss"), "epoch", "training loss"),
        "accuracy": charts.lines(
            accuracy, "epoch", "test accuracy", ends=charts.from_zero(accuracy)
        ),
        "step_loss": charts.lines(over_steps(loss), "step", "loss", steps=True),
        "norms": charts.lines(over_steps(norm), "step", "gradient norm, layer 1", steps=True),
    }
    if dead:
        ends = (-0.03, 1.03)
        plots["dead"] = charts.lines(over_steps(dead), "step", "dead units", steps=True, ends=ends)
    return plots


def _epochs(record: dict[str, Any], what: str) -> tuple[np.ndarray, np.ndarray]:
    rows = record["epochs"]
    return np.array([row["epoch"] for row in rows], float), np.array(
        [number(row[what]) for row in rows]
    )


def called(directories: Sequence[str]) -> list[str]:
    """A name for each directory: as little of its end as tells them apart."""
    parts = [each.replace("\\", "/").rstrip("/").split("/") for each in directories]
    for kept in itertools.count(1):
        names = ["/".join(each[-kept:]) for each in parts]
        if len(set(names)) == len(names) or kept > max(map(len, parts)):
            return names
    raise AssertionError
