"""An explanation and code to paste as data and text, called as from a notebook."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jaxmlp import question
from jaxmlp.commands import explain as command
from jaxmlp.experiment import Experiment
from jaxmlp.law import screen
from jaxmlp.law.canonical import canonical
from jaxmlp.law.emission import TARGETS, as_flags, emit
from jaxmlp.law.explanation import BASELINE, explain
from jaxmlp.law.invariants import TERMS, Invariant, exact_invariants, invariants
from jaxmlp.law.transport import transport

SCALED = Experiment(input_scale=255.0)
FORECAST = {
    "sharpness": 6949.0,
    "limit": 3.8,
    "ratio": 1829.0,
    "images": 1000,
    "rehearsed_steps": 100,
    "diverges": 1.0,
    "fails": 0.996,
    "course": "fails",
}
RUNS = [
    *(Experiment(**question.settings(case)) for case in question.CASES),
    Experiment(hidden=(), input_scale=7.0),
    Experiment(hidden=(5, 6), bias=True, optimizer="adam", input_scale=3.0, eps=(1e-8, 1e-3, 1e-8)),
    Experiment(learning_rate=(0.1, 0.0), input_scale=2.0),
    Experiment(input_scale=1e30),
    Experiment(weight_decay=(0.0,), input_scale=9.0),
    Experiment(init_scale=(0.5,)),
]


@pytest.mark.parametrize("experiment", RUNS)
def test_an_explanations_text_is_what_the_command_shows(experiment, capsys):
    command.main([*as_flags(experiment), "--no-forecast"])
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    told = explain(experiment)
    assert str(told).splitlines() == shown
    commands = [command for _, command in told.exact_repairs]
    assert all(len(line) <= screen.WIDTH or line in commands for line in shown)


def test_commands_to_paste_start_as_the_command_did():
    told = explain(SCALED, again=("jaxmlp", "run", "--data", "a b.npz"))
    commands = [command for _, command in told.exact_repairs]
    assert len(commands) == 2
    assert all(command.startswith("jaxmlp run --data 'a b.npz' --") for command in commands)
    assert "python" not in str(told)


def test_an_explanation_is_data():
    told = explain(SCALED)
    assert (told.case, told.other) == ("scaled", BASELINE)
    assert told.canonical == canonical(SCALED)
    assert [row.ratio for row in told.table[:3]] == ["255", "15.97", "15.97"]
    assert [label for label, _ in told.exact_repairs] == ["first layer alone", "all layers alike"]
    assert [label for label, _ in told.single_knobs] == [
        "learning rates alone",
        "initial scales alone",
    ]
    assert len(told.attempts) == len(question.ATTEMPTS)
    assert told.forecast is told.data is told.nothing_exact is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.case = "another"  # pyright: ignore[reportAttributeAccessIssue]


def test_what_is_the_other_run_already_gets_no_advice():
    told = explain(transport(SCALED, 3.0), SCALED, other="run a")
    assert told.which_run == "It is, step for step, run a."
    assert told.exact_repairs == told.single_knobs == told.attempts == ()
    assert told.table  # the numbers agree, and can be seen to


def test_networks_that_differ_have_neither_table_nor_repairs():
    told = explain(Experiment(hidden=(5,)), SCALED)
    assert told.table == told.exact_repairs == told.single_knobs == ()
    assert "hidden (5,) instead of (300,)" in told.which_run
    assert "beside the other run" in str(told)


def test_a_frozen_layer_is_told_and_single_knobs_are_not_tried():
    told = explain(Experiment(learning_rate=(0.1, 0.0)))
    assert told.canonical is None
    assert told.table == ()
    assert told.nothing_exact is not None
    assert told.nothing_exact.startswith("Nothing exact: layer 2 has learning rate 0")


def test_a_forecast_is_told_from_a_records_section_or_from_what_made_it():
    class Forecast:
        def to_json(self):
            return FORECAST

    told, same = explain(SCALED, forecast=FORECAST), explain(SCALED, forecast=Forecast())
    assert told == same
    assert told.forecast is not None
    assert told.forecast.startswith("Fails: it diverges and does not recover")
    headings = [section.heading for section in told.sections]
    assert headings[1] == "Forecast"
    named = explain(SCALED, forecast={"data": "my images", **FORECAST})
    assert [section.heading for section in named.sections][1] == "Forecast (my images)"


def test_an_explanation_needs_neither_jax_nor_a_terminal():
    code = (
        "import sys; from jaxmlp.experiment import Experiment\n"
        "from jaxmlp.law.emission import emit; from jaxmlp.law.explanation import explain\n"
        "str(explain(Experiment(input_scale=255.0))); emit('torch', 255.0)\n"
        "assert not {'jax', 'torch', 'rich', 'argparse', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- invariants


def test_an_invariant_is_shown_by_its_symbol_and_its_layer_counted_from_1():
    assert Invariant("learning_rate", "kernel", None).in_full == "R (effective learning rate)"
    assert Invariant("init_scale", "kernel", 0).in_full == "κ1 (initial weights, layer 1)"
    assert Invariant("decay", "bias", 1).in_full == "δb2 (decay of the biases, layer 2)"


@pytest.mark.parametrize("experiment", RUNS)
def test_every_tensor_of_every_layer_has_each_of_its_quantities_once(experiment):
    numbers = invariants(experiment)
    symbols = [invariant.symbol for invariant in numbers]
    assert len(set(symbols)) == len(symbols)
    quantities = {"learning_rate", "init_scale", "decay"} | ({"eps"} & set(_eps(experiment)))
    for tensor in experiment.tensors:
        for quantity in quantities:
            layers = {each.layer for each in numbers if each.kind == (quantity, tensor)}
            common = (quantity, tensor) == ("learning_rate", "kernel")
            assert layers == ({None} if common else set(range(experiment.layers)))
    assert {each.kind for each in numbers} <= set(TERMS)


def _eps(experiment: Experiment) -> tuple[str, ...]:
    return () if experiment.eps is None else ("eps",)


def test_an_invariant_with_a_setting_of_0_is_0():
    values = exact_invariants(Experiment(weight_decay=(0.0, 0.1)))
    zero = [invariant.symbol for invariant, value in values.items() if not value]
    assert zero == ["δ1"]


# ---- code to paste


def test_settings_are_given_as_an_experiments_and_may_be_plain_numbers():
    plain = emit("json", 10.0, "adamw", learning_rate=1e-3, weight_decay=1e-4)
    assert plain == emit("json", 10, "adamw", learning_rate=(1e-3,), weight_decay=[1e-4])
    assert json.loads(plain)["first_weight"]["learning_rate"] == 1e-4
    lamb = emit("optax", 10.0, "lamb", learning_rate=1, eps=None)
    assert lamb == emit("optax", 10.0, "lamb", learning_rate=[1.0])


def test_the_flags_start_as_the_command_did():
    words = emit("flags", 255.0, again=("jaxmlp", "run"), epochs=3).split()
    assert words[:2] == ["jaxmlp", "run"]
    assert words[-2:] == ["--epochs", "3"]


BAD = [
    (lambda: emit("keras", 2.0), "choose from flags, json, torch, optax"),
    (lambda: emit("torch", 2.0, lr=1.0), "unknown setting 'lr'"),
    (lambda: emit("optax", 2.0, "lamb", lr=1.0), "unknown setting 'lr'"),
    (lambda: emit("flags", 2.0, lr=1.0), "unknown setting 'lr'"),
    (lambda: emit("torch", 2.0, epochs=3), "--epochs belongs to run_jax.py's network"),
    (
        lambda: emit("torch", 2.0, again=("jaxmlp", "run"), epochs=3),
        "--epochs belongs to jaxmlp run's network",
    ),
    (
        lambda: emit("flags", 2.0, "lamb", again=("jaxmlp", "run")),
        "lamb is no optimizer of jaxmlp run",
    ),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_what_cannot_be_emitted_is_refused_with_its_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_emitted(target):
    assert emit(target, 255.0).endswith("\n")
