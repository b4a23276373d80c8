"""Outcomes are what DESIGN calls them, and the words say what the numbers say."""

import math

import numpy as np
import pytest

from jaxmlp.record import outcomes, run_figures
from jaxmlp.record import run_record as record

STEPS, CLASSES, WIDTH = 12, 7, 5


def steps(loss=1.0, dead: float | list[float] = 0.0):
    return {
        "loss": np.broadcast_to(np.float32(loss), STEPS).copy(),
        "grad_norm": np.ones((STEPS, 2), np.float32),
        "dead": np.broadcast_to(np.reshape(dead, (-1, 1)), (STEPS, 1)).copy(),
    }


def row(loss=1.0, silent=0.0, dead=0.0, test_loss=1.0):
    return {
        "epoch": 1,
        "train_loss": loss,
        "train_accuracy": 0.5,
        "test_loss": test_loss,
        "test_accuracy": 0.25,
        "dead": [dead],
        "silent": [silent],
    }


def result(made, rows):
    return {
        "case": "custom",
        "experiment": {"bias": False, "input_scale": 2.0, "seed": 0},
        "layers": [{"name": "layer1", "fan_out": WIDTH}, {"name": "layer2", "fan_out": CLASSES}],
        "data": {"classes": CLASSES, "test_size": 1000, "name": "tiny", "shape": [3, 5, 4]},
        "epochs": rows,
        "outcome": outcomes.outcome(CLASSES, made, rows, finite=True),
        "diagnostics": outcomes.diagnostics(made, rows),
    }


def outcome(made=None, finite=True, **of_row):
    return outcomes.outcome(CLASSES, made or steps(), [row(**of_row)], finite)


def diagnostics(made, **of_row):
    return outcomes.diagnostics(made, [row(**of_row)])


def test_an_outcome_is_one_of_four():
    assert outcome() == "trained"
    assert outcome(loss=0.91 * math.log(CLASSES)) == "stalled"
    assert outcome(silent=0.999) == "dead"
    assert outcome(silent=0.998) == "trained"
    assert outcome(finite=False) == "nonfinite"
    assert outcome(test_loss=math.inf) == "nonfinite"


def test_a_loss_that_is_not_finite_outranks_death_and_names_its_step():
    made = steps()
    made["loss"][4:] = np.nan
    assert outcome(made, silent=1.0) == "nonfinite"
    ended = diagnostics(made, silent=1.0)
    assert ended["first_nonfinite_step"] == 5
    assert math.isnan(ended["spike"])
    assert "from step 5 on" in outcomes.verdict(result(made, [row()]), made)


def test_spike_is_the_largest_loss_over_the_first():
    made = steps()
    made["loss"][:3] = 2, 9, 1
    assert diagnostics(made)["spike"] == 4.5


@pytest.mark.parametrize(
    ("dead", "step"),
    [
        ([0.2] * 3 + [1.0] * 9, 4),
        ([1.0] * 12, 1),
        ([1.0] * 11 + [0.4], None),
        ([0.0] * 12, None),
        ([1.0, 0.4] + [1.0] * 10, 3),
    ],
)
def test_the_collapse_is_the_step_after_the_last_living_batch(dead, step):
    assert diagnostics(steps(dead=dead))["collapse_step"] == [step]


def test_the_words_for_death_name_units_step_output_and_loss():
    made, guess = steps(dead=[0.2] * 6 + [1.0] * 6), math.log(CLASSES)
    text = outcomes.verdict(result(made, [row(loss=guess, silent=1.0, dead=1.0)]), made)
    assert "in every batch from step 7 on all 5 hidden units are dead" in text
    assert "outputs 0 for every test image" in text
    assert "loss is ln 7" in text
    text = outcomes.verdict(result(made, [row(loss=guess, silent=0.999, dead=0.8)]), made)
    assert "outputs 0 for 999 of the 1000 test images" in text


def test_worst_dead_is_over_all_epochs():
    ended = outcomes.diagnostics(steps(), [row(dead=0.6), row(dead=0.2)])
    assert (ended["dead"], ended["worst_dead"]) == ([0.2], [0.6])


def test_numbers_that_are_not_finite_become_strings_of_strict_json():
    text = record.encode({"a": math.nan, "b": [math.inf, -math.inf], "c": 1.5})
    assert '"NaN"' in text
    assert text.count('Infinity"') == 2
    assert '"c": 1.5' in text


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_figures_can_be_drawn_of_anything_that_training_leaves(bad):
    made = steps(loss=bad)
    made["grad_norm"][:] = bad
    weights = {"layer1.kernel": np.full((60, WIDTH), bad, np.float32)}
    drawn = run_figures.figures(result(made, [row(loss=bad, test_loss=bad)]), made, weights)
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())


def test_a_run_is_over_from_the_first_epoch_of_its_last_state():
    dead, bad = {"silent": 1.0}, {"loss": math.nan, "silent": 1.0}

    def over(*rows: dict):
        return outcomes.over_since([row(**each) | {"epoch": i + 1} for i, each in enumerate(rows)])

    assert over({}, {}) is None
    assert over({}, dead, dead) == ("dead", 2)
    assert over(dead, {}, dead, dead) == ("dead", 3)
    assert over(dead, {}) is None
    assert over(dead, bad, bad) == ("nonfinite", 2)
