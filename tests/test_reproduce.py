"""scripts/reproduce.py on a tiny data set: every run once, tables, figures, and nothing twice."""

import json

import numpy as np
import pytest
import reproduce

from jaxmlp import question, rescaling
from jaxmlp.experiment import Experiment


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
        monkeypatch.setattr(reproduce, name, shrunk(getattr(reproduce, name)))


def test_it_leaves_tables_and_figures_and_repeats_nothing(small, tiny_npz, tmp_path, monkeypatch,
                                                          capsys):  # fmt: skip
    command = ["--data", str(tiny_npz), "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)]
    line = np.array([0.1, 1.0, 10.0]), np.array([1.0, 0.1, 0.01])
    monkeypatch.setattr(reproduce, "plane", lambda dataset: line)
    reproduce.main(command)
    first = capsys.readouterr().out
    for case in question.CASES:
        assert f"| {case} |" in first
    for name in ("accuracy", "first_steps", "collapse", "plane"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert len(runs) == 10 * 2 + 9 * 2 + 30
    monkeypatch.setattr(reproduce, "one", None)
    reproduce.main(command)
    assert (tmp_path / "tables.md").read_text() in capsys.readouterr().out


def test_both_frameworks_are_compared(small, tiny_npz, tmp_path, capsys):
    reproduce.main(["--data", str(tiny_npz), "--seeds", "2", "--epochs", "1", "--framework", "both",
                    "--cases-only", "--out", str(tmp_path)])  # fmt: skip
    printed = capsys.readouterr().out
    assert "JAX − PyTorch, 95 % interval" in printed
    assert printed.count("2 of 2") == len(question.CASES)


def test_the_rates_of_the_collapse_have_one_start_and_the_same_effective_rates():
    found = list(reproduce.collapse().values())
    for experiment in found:
        assert rescaling.canonical(experiment).init_scale == pytest.approx((1.0, 1.0))
    effective = [rescaling.canonical(experiment).learning_rate for experiment in found]
    rates = len(reproduce.RATES)
    assert effective[:rates] == pytest.approx(list(reproduce.RATES))
    assert effective[rates : 2 * rates] == pytest.approx(effective[:rates])
    assert found[0].per_layer("learning_rate") != found[rates].per_layer("learning_rate")


def test_counts_are_written_out_where_seeds_differ():
    assert reproduce.counted(["dead", "dead"]) == "dead"
    assert reproduce.counted(["dead", "trained", "dead"]) == "dead 2, trained 1"


def test_the_plane_is_where_the_sharpness_reaches_its_limit(tiny_dataset, monkeypatch):
    import numpy as np

    monkeypatch.setattr(reproduce.np, "geomspace", lambda *a: np.array([1.0]))
    monkeypatch.setattr(
        reproduce, "Experiment", lambda **kw: Experiment(hidden=(5,), batch_size=4, **kw)
    )
    (scale,), (critical,) = reproduce.plane(tiny_dataset)
    assert scale == 1
    from jaxmlp import forecast

    at_limit = Experiment(hidden=(5,), batch_size=4, learning_rate=(critical,), epochs=1)
    assert forecast.forecast(at_limit, tiny_dataset).sharpness.ratio == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("flags", [["--seeds", "0"], ["--epochs", "0"], ["--framework", "tf"]])
def test_bad_input_is_one_line(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        reproduce.main(flags)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
