"""The page of the question, from the runs that reproduce.py kept: its cases and their curves."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bokeh.plotting import figure

from jaxmlp import atomic, question
from jaxmlp.experiment import Experiment
from jaxmlp.law import explanation
from jaxmlp.law.words import counted
from jaxmlp.pages import charts, page
from jaxmlp.pages.charts import Line
from jaxmlp.record import question_experiments, question_runs, question_tables, sums

Cases = dict[str, list[question_runs.Run]]  # by name, a run per seed
PICTURES = {  # of reproduce.py's figures, those that are no curves of cases
    "plane.png": "Which runs the cases really are, in the plane of effective scale and rate.",
    "collapse.png": "Learning rates at three input scales, raw and effective.",
}


class Answer(NamedTuple):
    """The cases that were trained in one framework and for so many epochs."""

    framework: str
    epochs: int
    cases: Cases


class Told(NamedTuple):
    """What a page says of one case."""

    name: str
    what: str  # was changed
    which: str  # run it is
    reason: str  # why it went so, if the question asks


def question_page(kept: Mapping[str, question_runs.Run], directory: Path) -> bytes:
    """One HTML file.

    Args:
        kept: runs.jsonl, as question_runs.read gives it.
        directory: where the figures lie.

    Raises:
        ValueError: there is no whole case among them.
    """
    found = answers(kept)
    if not found:
        raise ValueError(f"{directory} holds no run of the question's cases; let reproduce.py end")
    plots, tables = {}, []
    for number, answer in enumerate(found):
        experiments = question_experiments.cases(answer.epochs)
        tables.append(question_tables.case_rows(experiments, answer.cases))
        plots |= _plots(str(number), answer)
    return page.render(
        "question.html",
        plots,
        answers=found,
        head=question_tables.CASE_HEAD,
        tables=tables,
        headings=[_heading(answer) for answer in found],
        told=[_told(name) for name in question.CASES],
        pictures=_pictures(directory),
        both=question.BOTH_LAYERS,
    )


def answers(kept: Mapping[str, question_runs.Run]) -> list[Answer]:
    """What was trained, by framework and length, cases in the question's order."""
    runs: dict[tuple[str, int], Cases] = {}
    for key, run in kept.items():
        framework, _, rest = key.partition(" ")
        name = rest.rsplit(" ", 2)[0]
        if name in question.CASES:
            runs.setdefault((framework, len(run["test_accuracy"])), {}).setdefault(name, []).append(
                run
            )
    return [
        Answer(framework, epochs, {name: cases[name] for name in question.CASES if name in cases})
        for (framework, epochs), cases in sorted(runs.items())
    ]


def _heading(answer: Answer) -> str:
    seeds = max(map(len, answer.cases.values()))
    return f"{answer.framework}, {counted(seeds, 'seed')}, {counted(answer.epochs, 'epoch')}"


def _told(name: str) -> Told:
    experiment = Experiment(**question.settings(name))
    which = explanation.which_run(experiment, explanation.baseline(experiment))
    attempt = question.ATTEMPTS.get(name)
    return Told(name, question.CASES[name], which, attempt.reason if attempt else "")


# ---- plots


def _plots(prefix: str, answer: Answer) -> dict[str, figure]:
    """Over all cases, and of each: accuracy over the epochs, loss over the first steps."""
    styles = charts.styled(list(answer.cases))
    means = [
        Line(name, _epochs(answer), _accuracies(runs).mean(axis=0), *styles[name])
        for name, runs in answer.cases.items()
    ]
    first = [
        Line(name, _steps(runs[0]), _loss(runs[0]), *styles[name])
        for name, runs in answer.cases.items()
    ]
    ends = charts.from_zero(means)
    plots = {
        f"accuracy {prefix}": charts.lines(means, "epoch", "test accuracy", ends=ends),
        f"steps {prefix}": charts.lines(first, "step", "loss", steps=True),
    }
    for name, runs in answer.cases.items():
        seeds = charts.styled([f"seed {seed}" for seed in range(len(runs))])
        accuracy, loss = [], []
        for (seed, style), run in zip(seeds.items(), runs, strict=True):
            accuracy.append(Line(seed, _epochs(answer), np.array(run["test_accuracy"]), *style))
            loss.append(Line(seed, _steps(run), _loss(run), *style))
        plots[f"accuracy {prefix} {name}"] = charts.lines(
            accuracy, "epoch", "test accuracy", ends=ends
        )
        plots[f"steps {prefix} {name}"] = charts.lines(loss, "step", "loss", steps=True)
    return plots


def _epochs(answer: Answer) -> np.ndarray:
    return np.arange(1.0, answer.epochs + 1)


def _accuracies(runs: Sequence[question_runs.Run]) -> np.ndarray:
    return np.array([run["test_accuracy"] for run in runs], float)


def _steps(run: question_runs.Run) -> np.ndarray:
    return np.arange(1.0, len(run["loss"]) + 1)


def _loss(run: question_runs.Run) -> np.ndarray:
    return np.array([float(value) for value in run["loss"]])


def _pictures(directory: Path) -> list[tuple[str, str]]:
    """Address and caption of the figures that lie there as reproduce.py wrote them."""
    pictures: list[tuple[str, Any]] = []
    try:
        listed = sums.parse(atomic.read_file(directory / sums.SUMS))[0]
    except OSError:
        return []
    for name, caption in PICTURES.items():
        try:
            content = atomic.read_file(directory / name)
        except OSError:
            continue
        if sums.digest(content) == listed.get(name):
            address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            pictures.append((address, caption))
    return pictures
