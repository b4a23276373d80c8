"""The last screen of a run: how it ended, why, what to do, and where everything lies."""

import json
import shlex

import pytest

from jaxmlp.experiment import Experiment
from jaxmlp.law import explanation
from jaxmlp.law.difference import same

FAST = ("--hidden", "5", "--batch-size", "4", "--no-forecast")
DEADLY = ("--input-scale", "255", "--learning-rate", "0.5")


def test_a_run_that_did_not_train_ends_with_why_and_what_to_do(command, tmp_path):
    status, out, err = command(*FAST, *DEADLY, "--epochs", "3", "--out", "my run")
    assert (status, err) == (0, "")
    screen = out[out.index("set-up") :]
    lines = screen.splitlines()
    result = json.loads((tmp_path / "my run" / "result.json").read_text())
    assert result["outcome"] != "trained"
    assert "Why: Inputs × 255 are the same as inputs × 1" in " ".join(screen.split())
    assert "divide the inputs by 255" in " ".join(screen.split())
    commands = [shlex.split(line) for line in lines if line.startswith("python ")]
    assert len(commands) == 2  # one for each scheme, each on a line of its own
    for words in commands:
        assert words[:4] == ["python", "scripts/run_jax.py", "--data", "tiny.npz"]
    figures = [line.removeprefix("figure: ") for line in lines if line.startswith("figure: ")]
    assert len(figures) == 3
    assert all((tmp_path / figure).is_file() for figure in figures)
    assert "record: my run" in lines
    assert lines[-1] == "more:   python scripts/explain.py 'my run'"


def test_what_it_says_to_run_is_the_baseline(command, tmp_path):
    _, out, _ = command(*FAST, *DEADLY, "--epochs", "2", "--out", "a")
    for i, line in enumerate(line for line in out.splitlines() if line.startswith("python ")):
        words = shlex.split(line)[4:]  # the data are the fixture's
        assert command(*words, "--no-forecast", "--out", f"repaired-{i}")[0] == 0
        result = json.loads((tmp_path / f"repaired-{i}" / "result.json").read_text())
        experiment = Experiment.from_json(result["experiment"])
        assert same(experiment, explanation.baseline(experiment))


def test_a_run_that_is_the_baseline_gets_no_advice(command):
    _, out, _ = command(
        "--hidden",
        "5",
        "--batch-size",
        "4",
        "--epochs",
        "9",
        "--no-forecast",
        "--learning-rate",
        "0.02",
        "--out",
        "a",
    )
    assert f"It is {explanation.BASELINE}." in " ".join(out.split())
    assert "python scripts/run_jax.py" not in out


def test_what_is_dead_is_one_line_not_an_epoch_each(command):
    _, out, _ = command(*FAST, "--input-scale", "1e5", "--epochs", "9", "--out", "a")
    lines = out.splitlines()
    shown = [line for line in lines if line.startswith("epoch ")]
    (over,) = (line for line in lines if line.startswith(("dead since", "nonfinite since")))
    assert "further epochs are not listed" in over
    assert len(shown) == int(over.split()[3].rstrip(";"))
    assert f"{over.split(';')[0].replace('since', 'from')} to 9" in out
    rows = [line for line in lines if line.startswith(" ") and line.strip()[:1].isdigit()]
    assert len(rows) == len(shown)


@pytest.mark.parametrize(
    "more",
    [
        ("--learning-rate", "0"),  # no canonical form
        ("--input-scale", "1e30"),  # a repair that leaves float32's range
        ("--hidden", "--input-scale", "9"),  # a linear model
        ("--optimizer", "adam", "--bias", "--input-scale", "1e5", "--bias-eps", "1e-3"),
    ],
)
def test_every_kind_of_run_has_an_end_that_can_be_told(more, command, tmp_path):
    status, out, err = command(*FAST, "--epochs", "2", *more, "--out", "a")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "more:   python scripts/explain.py a"
