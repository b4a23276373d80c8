"""The forecast before the first step; the explanation in words; both in records."""

import json
import math
import shlex
import subprocess
import sys

import numpy as np
import pytest

from jaxmlp import question
from jaxmlp.commands import calibrate, explain, run_torch
from jaxmlp.commands import run as run_jax
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import calibration
from jaxmlp.forecasting import rehearsal as forecast
from jaxmlp.forecasting.models import DIVERGES, FAILS, features
from jaxmlp.law import advice, explanation, words
from jaxmlp.law.difference import difference, in_words
from jaxmlp.law.transport import transport
from jaxmlp.record import metrics, outcomes
from jaxmlp.record.reliability import reliability
from jaxmlp.training.run import Run

TINY = {"hidden": (5,), "batch_size": 4, "epochs": 6, "preprocessing": "center"}


@pytest.mark.smoke
def test_the_rehearsal_is_the_runs_own_beginning(tiny_dataset):
    experiment = Experiment(**TINY, learning_rate=(0.1,))
    found = forecast.forecast(experiment, tiny_dataset)
    run = Run(experiment, tiny_dataset)
    steps = run.steps(list(run.epochs()))
    np.testing.assert_array_equal(found.loss.astype(np.float32), steps["loss"])
    np.testing.assert_array_equal(found.dead, steps["dead"])
    assert len(found.loss) == 6 * 6  # no longer than the run


def test_what_blows_up_is_foretold_and_what_trains_too(tiny_dataset):
    calm = forecast.forecast(Experiment(**TINY, learning_rate=(1e-3,)), tiny_dataset)
    wild = forecast.forecast(Experiment(**TINY, learning_rate=(1e4,)), tiny_dataset)
    assert calm.course == "stable"
    assert calm.diverges < 0.1
    assert wild.diverges > 0.9
    assert wild.sharpness.ratio > 100 > 1 > calm.sharpness.ratio


def test_the_verdict_belongs_to_the_run_whatever_the_input_scale(tiny_dataset):
    experiment = Experiment(**TINY, learning_rate=(0.3,), bias=True)
    one = forecast.forecast(experiment, tiny_dataset).to_json()
    other = forecast.forecast(transport(experiment, 256.0), tiny_dataset).to_json()
    assert one.pop("course") == other.pop("course")
    assert one == pytest.approx(other, rel=1e-3)  # Lanczos starts in another direction


def test_a_run_without_finite_numbers_has_a_forecast(tiny_dataset):
    found = forecast.forecast(Experiment(**TINY, input_scale=1e38, init_scale=(1e3,)), tiny_dataset)
    assert found.fails == 1
    assert "not finite" in words.forecast(found.to_json())


def known(**changes: float) -> dict[str, float]:
    calm = features(0.1, np.linspace(2.3, 1.9, 100), np.full((100, 1), 0.1), np.full(100, 0.3), 10)
    return {**calm, **changes}


def test_more_trouble_seen_means_more_trouble_foretold():
    base = DIVERGES.probability(known())
    for more in ({"sharpness": 3.0}, {"margin": 1.0, "passed": 1.0}, {"end": 2.0}):
        assert DIVERGES.probability(known(**more)) > base
    base = FAILS.probability(known())
    for more in ({"alive": -3.0}, {"accuracy": 0.0}, {"late": 2.0, "end": 3.0}):
        assert FAILS.probability(known(**more)) > base


def test_a_layer_without_active_units_counts_as_diverged_though_the_loss_falls():
    falls = np.geomspace(50, 2.31, 100)
    alive, dead = (
        features(9.0, falls, np.full((100, 1), share), np.full(100, 0.1), 10)
        for share in (0.5, 1.0)
    )
    assert DIVERGES.probability(dead) > 0.5 > DIVERGES.probability(alive)


def test_features_stay_within_the_range_that_was_seen():
    loss = np.array([2.3, 1e20, np.inf, np.nan] * 25)
    found = features(math.nan, loss, np.ones((100, 2)), np.zeros(100), 10)
    assert all(math.isfinite(value) and abs(value) <= 6 for value in found.values())
    assert found["sharpness"] == 6


# ---- calibration


def test_a_family_is_the_same_each_time_and_its_members_differ():
    first = [calibration.random_experiment(1, index) for index in range(20)]
    assert first == [calibration.random_experiment(1, index) for index in range(20)]
    assert len(set(first)) == 20
    assert first[0] != calibration.random_experiment(2, 0)


def test_the_fit_finds_the_probabilities_that_made_the_data():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(4000, 2))
    truth = draw.random(4000) < 1 / (1 + np.exp(-(0.5 + 2 * values[:, 0] - values[:, 1])))
    found = [
        {"features": {"a": a, "b": b}, "diverges": bool(t)}
        for (a, b), t in zip(values, truth, strict=True)
    ]
    model = calibration.fit(found, ("a", "b"), "diverges")
    # the weights' standard errors are below 0.08; three of them, and the ridge
    assert model.intercept == pytest.approx(0.5, abs=0.25)
    assert model.weights == pytest.approx({"a": 2.0, "b": -1.0}, abs=0.25)
    foretold = np.array([model.probability(row["features"]) for row in found])
    for _, share, (low, high), _ in reliability(foretold, truth):
        assert low <= share <= high
    assert "balanced accuracy" in calibration.confusion("it", foretold, truth)


def test_confusions_are_counted():
    text = calibration.confusion(
        "it", np.array([0.9, 0.9, 0.1, 0.1, 0.1]), np.array([True, False, True, False, False])
    )
    assert "1 foretold and true, 1 missed, 1 false alarms, 2 rightly not" in text
    assert "balanced accuracy 58.3%" in text


def ended(loss: list[float], correct: int, silent: int = 0) -> metrics.EpochResult:
    """An epoch; of 10 test images."""
    steps = metrics.StepMetrics(np.array(loss, np.float32), *np.zeros((3, len(loss), 1)))
    test = metrics.Evaluation(np.float32(loss[-1]), np.array(correct), *np.array([[0], [silent]]))
    return metrics.EpochResult(steps, test, [], 0.0)


@pytest.mark.parametrize(
    ("loss", "counts", "diverges", "fails"),
    [
        ([1.0, 1.9, 0.9], {"correct": 8}, False, False),
        ([1.0, 2.1, 0.9], {"correct": 8}, True, False),
        ([1.0, 2.1, 0.9], {"correct": 2}, True, True),  # no better than twice guessing
        ([1.0, 1.9, 0.9], {"correct": 2}, False, False),  # slow, and has not diverged
        ([1.0, 1.0, 0.9], {"correct": 8, "silent": 8}, True, False),
        ([1.0, 1.0, math.nan], {"correct": 8}, True, True),
        ([1.0, 2.0, 40.0, 50.0], {"correct": 8}, True, True),  # and still rises
    ],
)
def test_how_a_run_went(loss, counts, diverges, fails):
    found = outcomes.course(Experiment(hidden=(5,)), [ended(loss, **counts)], 10, 7)
    assert (found["diverges"], found["fails"]) == (diverges, fails)


def test_measurements_are_kept_and_not_repeated(tiny_npz, tmp_path, monkeypatch, capsys):
    def tiny(family: int, index: int) -> Experiment:
        rate = 10.0 ** ((index % 5) - 2)
        return Experiment(hidden=(5,), batch_size=4, learning_rate=(rate,), epochs=2, seed=index)

    monkeypatch.setattr(calibration, "random_experiment", tiny)
    command = [
        "--family",
        "3",
        "--experiments",
        "10",
        "--data",
        str(tiny_npz),
        "--out",
        str(tmp_path),
    ]
    calibrate.main(command)
    first = capsys.readouterr().out
    assert "10 experiments of family 3" in first
    assert (tmp_path / "3.png").is_file()
    monkeypatch.setattr(calibration, "measure", None)
    calibrate.main(command)
    assert capsys.readouterr().out == first


# ---- explanation


def test_a_loss_that_reaches_0_has_features():
    found = features(0.1, np.zeros(100), np.zeros((100, 1)), np.ones(100), 2)
    assert all(math.isfinite(value) for value in found.values())


def test_settings_that_a_repair_puts_back_are_printed():
    experiment = Experiment(init_scale=(0.5,), weight_decay=(0.0, 0.1))
    against = Experiment(weight_decay=(0.0, 0.1))
    assert advice.exact_repairs(experiment, against) == [
        ("its own settings", "python scripts/run_jax.py --weight-decay 0 0.1")
    ]
    rows = dict(advice.single_knobs(Experiment(init_scale=(0.5,)), Experiment()))
    assert rows["initial scales alone"] == (
        "possible: initial scale of layer 1 × 2, initial scale of layer 2 × 2"
    )


def test_biases_that_follow_their_weights_again_are_printed():
    own = Experiment(bias=True, bias_learning_rate=(0.5,))
    ((_, command),) = advice.exact_repairs(own, Experiment(bias=True))
    assert command == "python scripts/run_jax.py --bias"


def test_a_scheme_that_leaves_the_range_does_not_hide_the_other():
    rows = dict(advice.exact_repairs(Experiment(input_scale=1e20), Experiment()))
    assert "impossible: learning_rate" in rows["first layer alone"]
    assert "--init-scale 1e-10" in rows["all layers alike"]


@pytest.mark.parametrize("case", [case for case in question.CASES if case != "baseline"])
def test_explain_says_of_every_case_what_it_is(case, capsys):
    explain.main(["--case", case, "--no-forecast"])
    shown = " ".join(capsys.readouterr().out.split())
    if case.startswith("repair"):
        assert f"It is, step for step, {explanation.BASELINE}." in shown
        assert "What turns it" not in shown
        return
    experiment = Experiment(**question.settings(case))
    words = in_words(difference(experiment, Experiment()), 2)
    assert words in shown
    alone = {
        name: f"{name} alone impossible" in shown for name in ("learning rates", "initial scales")
    }
    assert alone["learning rates"]
    assert alone["initial scales"]
    assert all(tried.reason[1:30] in shown for tried in question.ATTEMPTS.values())
    assert "Why both layers seemed to need it" in shown


def test_the_commands_that_it_prints_can_be_pasted_and_are_the_repairs(capsys):
    """Each is a whole line, whatever the terminal's width."""
    explain.main(["--input-scale", "255", "--no-forecast", "--data", "a b.npz"])
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("python ")]
    assert len(commands) == 2
    for command in commands:
        assert command[:4] == ["python", "scripts/run_jax.py", "--data", "a b.npz"]
        explain.main([*command[2:], "--no-forecast"])
        assert f"It is, step for step, {explanation.BASELINE}." in capsys.readouterr().out


def test_what_is_missing_for_a_repair_is_told_in_words(capsys):
    explain.main(["--input-scale", "255", "--no-forecast"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "It needs as well: initial scales, weight decays." in shown
    assert "It needs as well: learning rates, weight decays." in shown
    assert advice.in_words("bias_eps:2") == "eps of the biases of layer 2"
    assert advice.in_words("bias_init_scale") == "initial scales of the biases"


def test_every_attempt_of_the_question_is_explained():
    cases = {case for case in question.CASES if not case.startswith(("baseline", "repair"))}
    assert set(question.ATTEMPTS) == cases


def test_explain_needs_neither_jax_nor_data_without_a_forecast():
    code = (
        "import sys; from jaxmlp.commands import explain\n"
        "explain.main(['--input-scale', '9', '--no-forecast']); "
        "assert not {'jax', 'tensorflow_datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_record_is_explained_and_compared(tiny_npz, tmp_path, capsys):
    flags = ["--data", str(tiny_npz), "--hidden", "5", "--batch-size", "4", "--epochs", "1"]
    run_jax.main([*flags, "--out", str(tmp_path / "plain")])
    run_torch.main([*flags, "--input-scale", "9", "--out", str(tmp_path / "scaled")])
    capsys.readouterr()
    explain.main(
        [
            str(tmp_path / "scaled"),
            "--data",
            str(tiny_npz),
            "--json",
            "--against",
            str(tmp_path / "plain"),
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert "effective learning rate 9 times too large" in found["explanation"]
    assert found["forecast"]["course"] in outcomes.COURSES
    plain, scaled = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("plain", "scaled")
    )
    assert found["canonical"] == scaled["canonical"]
    assert scaled["forecast"] is None  # PyTorch's runs load no JAX
    assert plain["forecast"]["rehearsed_steps"] == 6
    assert plain["explanation"] == f"It is {explanation.BASELINE}."
    explain.main([str(tmp_path / "scaled"), "--no-forecast", "--against", str(tmp_path / "plain")])
    assert "first layer alone" in capsys.readouterr().out
    explain.main(["--no-forecast", "--against", str(tmp_path / "plain"), "--hidden", "5"])
    shown = capsys.readouterr().out
    assert "epochs 20 instead of 1" in " ".join(shown.split())
    assert "python scripts/run_jax.py --hidden 5 --batch-size 4 --epochs 1\n" in shown


BAD = [
    (["nowhere"], "no record of a run"),
    (["--against", "nowhere"], "no record of a run"),
    (["pyproject.toml"], "no record of a run"),
    (["--input-scale", "-1"], "input_scale -1.0"),
    (["nowhere", "--epochs", "3"], "give one of the two"),
    (["nowhere", "--case", "baseline"], "give one of the two"),
    (["docs/scaled.png"], "no record of a run"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_input_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        explain.main([*arguments, "--no-forecast"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--learning-rate", "0.1", "0"], "No canonical form: layer 2 has learning rate 0"),
        (["--hidden", "--input-scale", "7"], "effective learning rate 49 times too large"),
        (["--optimizer", "lion", "--bias", "--input-scale", "4"], "initial biases"),
        (["--weight-decay", "0", "--input-scale", "2"], "decay absent"),
    ],
)
def test_other_runs_are_explained_too(flags, words, capsys):
    explain.main([*flags, "--no-forecast"])
    assert words in " ".join(capsys.readouterr().out.split())


def test_networks_that_differ_are_not_compared(tiny_npz, tmp_path, capsys):
    run_jax.main(
        [
            "--data",
            str(tiny_npz),
            "--hidden",
            "5",
            "--batch-size",
            "4",
            "--epochs",
            "1",
            "--no-forecast",
            "--out",
            str(tmp_path / "five"),
        ]
    )
    capsys.readouterr()
    explain.main(["--no-forecast", "--against", str(tmp_path / "five"), "--hidden", "6"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "hidden (6,) instead of (5,)" in shown
    assert "first layer alone" not in shown


def test_a_record_is_forecast_on_its_own_data_or_not_at_all(
    tiny_npz, tmp_path, capsys, monkeypatch
):
    flags = ["--data", str(tiny_npz), "--hidden", "5", "--batch-size", "4", "--epochs", "1"]
    run_jax.main([*flags, "--train-size", "8", "--out", str(tmp_path / "r")])
    capsys.readouterr()

    def explained(*more: str):
        explain.main([str(tmp_path / "r"), *more])
        said = capsys.readouterr()
        return said.out, " ".join(said.err.split())

    out, err = explained()
    assert "Forecast" not in out
    assert "was trained on the user's file tiny.npz; name that with --data PATH" in err
    out, err = explained("--data", str(tiny_npz))
    assert "Forecast (the user's file tiny.npz)" in out
    assert not err
    assert explained("--no-forecast", "--against", str(tmp_path / "r"))[0].count(" on other") == 0
    other = np.load(tiny_npz)
    np.savez(tiny_npz, **{**other, "train_labels": other["train_labels"][::-1]})
    out, err = explained("--data", str(tiny_npz))
    assert "Forecast" not in out
    assert "was trained on other data" in err


def test_what_is_to_be_pasted_names_the_records_data_or_leaves_them_to_be_named(
    tiny_npz, tmp_path, capsys
):
    flags = ["--hidden", "5", "--batch-size", "4", "--epochs", "1", "--input-scale", "9"]
    run_jax.main([*flags, "--data", str(tiny_npz), "--no-forecast", "--out", str(tmp_path / "r")])
    other = tmp_path / "other.npz"
    content = dict(np.load(tiny_npz))
    np.savez(other, **{**content, "train_labels": content["train_labels"][::-1]})
    run_jax.main([*flags, "--data", str(other), "--no-forecast", "--out", str(tmp_path / "o")])
    capsys.readouterr()

    def pasted(*more: str) -> set[tuple[str, ...]]:
        explain.main([str(tmp_path / "r"), *more])
        lines = capsys.readouterr().out.splitlines()
        return {tuple(shlex.split(line)[2:4]) for line in lines if line.startswith("python ")}

    assert pasted("--no-forecast") == {("--data", "PATH")}
    assert pasted("--data", str(tiny_npz)) == {("--data", str(tiny_npz))}
    assert pasted("--data", str(other)) == {("--data", "PATH")}
    explain.main([str(tmp_path / "r"), "--no-forecast", "--against", str(tmp_path / "o")])
    assert "o, on other data." in " ".join(capsys.readouterr().out.split())
