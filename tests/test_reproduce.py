"""scripts/reproduce.py on a tiny data set: every run once, tables, figures, and nothing twice."""

import random

import numpy as np
import pytest

from jaxmlp import question
from jaxmlp.commands import reproduce
from jaxmlp.experiment import Experiment
from jaxmlp.law.canonical import canonical
from jaxmlp.record import question_experiments, question_runs, question_tables, sealed


def trains_nothing(*arguments):
    raise AssertionError("trained again")


@pytest.fixture
def small(monkeypatch):
    """The same experiments with batches and widths that fit the tiny data set."""
    import dataclasses

    def shrunk(made):
        def small(*arguments):
            return {
                name: dataclasses.replace(e, hidden=tuple(5 for _ in e.hidden), batch_size=4)
                for name, e in made(*arguments).items()
            }

        return small

    for name in ("cases", "claims", "collapse"):
        made = getattr(question_experiments, name)
        monkeypatch.setattr(question_experiments, name, shrunk(made))


def test_it_leaves_tables_and_figures_and_repeats_nothing(
    small, tiny_npz, tmp_path, monkeypatch, capsys
):
    command = ["--data", str(tiny_npz), "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)]
    line = np.array([0.1, 1.0, 10.0]), np.array([1.0, 0.1, 0.01])
    monkeypatch.setattr(reproduce, "plane", lambda dataset: line)
    reproduce.main(command)
    first, shown = capsys.readouterr()
    lines = shown.splitlines()
    assert lines[0] == "68 runs, 0 of them done before; 106 epochs to train, up to 3 a run"
    assert lines[1].startswith("[1/68] jax baseline, seed 0: stalled, 0.")
    assert lines[68].startswith("[68/68] jax rate 0.16 at × 255, seed 0: ")
    for case in question.CASES:
        assert f"| {case} |" in first
    for name in ("accuracy", "first_steps", "collapse", "plane"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 10 * 2 + 9 * 2 + 30
    monkeypatch.setattr(reproduce, "train", trains_nothing)
    reproduce.main(command)
    said = capsys.readouterr()
    assert (tmp_path / "tables.md").read_text() in said.out
    assert said.err == "68 runs, 68 of them done before; 0 epochs to train, up to 3 a run\n"


def test_both_frameworks_are_compared(small, tiny_npz, tmp_path, capsys):
    reproduce.main(
        [
            "--data",
            str(tiny_npz),
            "--seeds",
            "2",
            "--epochs",
            "1",
            "--framework",
            "both",
            "--cases-only",
            "--out",
            str(tmp_path),
        ]
    )
    printed = capsys.readouterr().out
    assert "JAX − PyTorch, 95 % interval" in printed
    assert printed.count("2 of 2") == len(question.CASES)


def test_the_rates_of_the_collapse_have_one_start_and_the_same_effective_rates():
    found = list(question_experiments.collapse().values())
    for experiment in found:
        assert canonical(experiment).init_scale == pytest.approx((1.0, 1.0))
    effective = [canonical(experiment).learning_rate for experiment in found]
    rates = len(question_experiments.RATES)
    assert effective[:rates] == pytest.approx(list(question_experiments.RATES))
    assert effective[rates : 2 * rates] == pytest.approx(effective[:rates])
    assert found[0].per_layer("learning_rate") != found[rates].per_layer("learning_rate")


def test_counts_are_written_out_where_seeds_differ():
    assert question_tables.by_kind(["dead", "dead"]) == "dead"
    assert question_tables.by_kind(["dead", "trained", "dead"]) == "dead 2, trained 1"


def test_at_the_critical_rate_the_sharpness_meets_its_limit(tiny_dataset):
    from jaxmlp.forecasting.curvature import critical_rate
    from jaxmlp.forecasting.rehearsal import forecast

    small = {"hidden": (5,), "batch_size": 4, "epochs": 1}
    critical = critical_rate(Experiment(**small, init_scale=(2.0,)), tiny_dataset)
    at_limit = Experiment(**small, init_scale=(2.0,), learning_rate=(critical,))
    assert forecast(at_limit, tiny_dataset).sharpness.ratio == pytest.approx(1, rel=1e-3)


def test_the_plane_is_of_the_critical_rates(tiny_dataset, monkeypatch, capsys):
    from jaxmlp.forecasting import curvature

    monkeypatch.setattr(curvature, "critical_rate", lambda e, data: 1 / e.init_scale[0])
    scales, critical = reproduce.plane(tiny_dataset)
    assert (len(scales), scales[0], scales[-1]) == (25, 1 / 40, pytest.approx(200))
    assert critical == pytest.approx(1 / scales)
    assert capsys.readouterr().err.count("\n") == 25


@pytest.mark.parametrize("flags", [["--seeds", "0"], ["--epochs", "0"], ["--framework", "tf"]])
def test_bad_input_is_one_line(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        reproduce.main(flags)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def run_of(seed: int) -> dict:
    return {
        "outcome": "trained",
        "test_accuracy": [0.25, seed / 10],
        "train_loss": float("nan"),
        "dead": 0.5,
        "loss": [1.5, float("inf")],
    }


def test_of_1000_flipped_bits_in_kept_runs_none_is_believed(tmp_path):
    path = tmp_path / "runs.jsonl"
    for seed in range(3):
        sealed.append_line(
            path, {"key": f"jax baseline {seed}", "run": run_of(seed)}, question_runs.KEY
        )
    whole, draw = path.read_bytes(), random.Random(0)
    told: list[str] = []
    expected = {key: repr(run) for key, run in question_runs.read(path, told.append).items()}
    assert len(expected) == 3
    for _ in range(1000):
        damaged, at = bytearray(whole), draw.randrange(8 * len(whole))
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        told.clear()
        found = question_runs.read(path, told.append)
        assert 1 <= len(found) <= 3
        assert {key: repr(run) for key, run in found.items()}.items() <= expected.items()
        if len(found) < 3:
            assert "not believed, but trained again" in told[0]


def test_a_line_that_was_cut_off_costs_one_run(tmp_path):
    path = tmp_path / "runs.jsonl"
    for seed in range(2):
        sealed.append_line(path, {"key": str(seed)}, question_runs.KEY)
    path.write_bytes(path.read_bytes()[:-9])
    sealed.append_line(path, {"key": "2"}, question_runs.KEY)
    assert sealed.read_lines(path) == ([{"key": "0"}, {"key": "2"}], 1)


@pytest.mark.parametrize("name", ["runs.jsonl", "tables.md", "plane.png", "SHA256SUMS"])
def test_files_of_somebody_else_are_refused_before_the_first_run(
    name, tiny_npz, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(reproduce, "train", trains_nothing)
    (tmp_path / "o").mkdir()
    for content in (b"", b"mine", b"{}", b"[" * 100_000):
        (tmp_path / "o" / name).write_bytes(content)
        with pytest.raises(SystemExit) as ended:
            reproduce.main(["--data", str(tiny_npz), "--out", str(tmp_path / "o")])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "move it away" in error
        assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == {
            name: content
        }
