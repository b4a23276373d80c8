"""The question's answer as Markdown tables: its cases, its claims, and both frameworks."""

import math
import statistics

import numpy as np
from jaxtyping import Float

from jaxmlp import question
from jaxmlp.experiment import Experiment
from jaxmlp.law import words
from jaxmlp.law.canonical import canonical
from jaxmlp.record.question_runs import Run


def by_kind(kinds: list[str]) -> str:
    """The kinds, with their counts where they differ."""
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    if len(counts) == 1:
        return kinds[0]
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "–"


def last_accuracies(runs: list[Run]) -> Float[np.ndarray, " runs"]:
    """Each run's test accuracy after its last epoch."""
    return np.array([run["test_accuracy"][-1] for run in runs])


def spread(values: Float[np.ndarray, " runs"]) -> str:
    """Mean and standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


CASE_HEAD = (
    *("case", "what was changed", "R", "κ₁", "κ₂", "S ÷ limit", "foretold", "outcome"),
    *("test accuracy", "dead units"),
)


def case_table(experiments: dict[str, Experiment], runs: dict[str, list[Run]]) -> str:
    """The question's cases as Markdown: what each is, what was foretold, what happened."""
    lines = [_line(list(CASE_HEAD)), "|" + "---|" * len(CASE_HEAD)]
    return "\n".join([*lines, *map(_line, case_rows(experiments, runs))])


def case_rows(experiments: dict[str, Experiment], runs: dict[str, list[Run]]) -> list[list[str]]:
    """A row for each case, of what CASE_HEAD names."""
    base, rows = canonical(experiments["baseline"]), []
    for case, seeds in runs.items():
        form = canonical(experiments[case])
        numbers = [form.learning_rate / base.learning_rate, *form.init_scale]
        forecasts = [run["foretold"] for run in seeds if "foretold" in run]
        ratios = [float(forecast["ratio"]) for forecast in forecasts]
        ratio = statistics.median(ratios) if ratios else math.nan
        cells = [
            case,
            question.CASES[case],
            *(f"{number:.3g}" for number in numbers),
            words.number(ratio),
            by_kind([forecast["course"] for forecast in forecasts]),
            by_kind([run["outcome"] for run in seeds]),
            spread(last_accuracies(seeds)),
            f"{statistics.mean(run['dead'] for run in seeds):.2f}",
        ]
        rows.append(cells)
    return rows


def claim_table(runs: dict[str, list[Run]]) -> str:
    """The answers' claims: what happened, and the best epoch's accuracy."""
    lines = [
        "| what was tried | outcome | test accuracy | best epoch's | dead units |",
        "|---|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        best = np.array([max(run["test_accuracy"]) for run in seeds])
        cells = [
            name,
            by_kind([run["outcome"] for run in seeds]),
            spread(last_accuracies(seeds)),
            spread(best),
            f"{statistics.mean(run['dead'] for run in seeds):.2f}",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def comparison(jax: dict[str, list[Run]], torch: dict[str, list[Run]]) -> str:
    """JAX less PyTorch, seed by seed, with the 95 % interval of the mean (Student's t)."""
    import scipy.stats  # only here, for it is slow to load

    lines = [
        "| case | JAX | PyTorch | JAX − PyTorch, 95 % interval | outcomes alike |",
        "|---|---|---|---|---|",
    ]
    for case in jax:
        ours, theirs = last_accuracies(jax[case]), last_accuracies(torch[case])
        differences, count = ours - theirs, len(ours)
        interval = "–"
        if count > 1:
            error = differences.std(ddof=1) / np.sqrt(count)
            interval = f"{scipy.stats.t.ppf(0.975, count - 1) * error:.4f}"
        pairs = zip(jax[case], torch[case], strict=True)
        alike = sum(first["outcome"] == second["outcome"] for first, second in pairs)
        cells = [
            case,
            f"{ours.mean():.4f}",
            f"{theirs.mean():.4f}",
            f"{differences.mean():+.4f} ± {interval}",
            f"{alike} of {count}",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
