"""Experiment: defaults, rules, JSON round trip; the question's cases."""

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import question
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment, parse_number

BAD = [  # settings, words that the one-line error must have: value, rule, remedy
    ({"hidden": (0,)}, ("hidden 0", "at least 1")),
    ({"hidden": (3.5,)}, ("hidden 3.5", "whole number")),
    ({"bias": "yes"}, ("bias 'yes'", "true or false")),
    ({"input_scale": 0.0}, ("input_scale 0.0", "positive")),
    ({"input_scale": -255.0}, ("input_scale -255.0", "positive")),
    ({"input_scale": math.nan}, ("input_scale nan", "positive")),
    ({"input_scale": math.inf}, ("input_scale inf", "positive")),
    ({"input_scale": 1e39}, ("input_scale 1e+39", "float32")),
    ({"input_scale": 1e-50}, ("input_scale 1e-50", "float32")),
    ({"input_scale": "255"}, ("input_scale '255'", "a number")),
    ({"input_scale": True}, ("input_scale True", "a number")),
    ({"init_scale": (1.0, 0.0)}, ("init_scale 0.0", "positive")),
    ({"init_scale": (1.0, 2.0, 3.0)}, ("init_scale has 3 values", "2 layers", "one per layer")),
    ({"init_scale": (2.0, 2.0, 2.0)}, ("init_scale has 3 values", "2 layers")),
    ({"bias": True, "bias_learning_rate": (0.1,) * 3}, ("bias_learning_rate has 3", "2 layers")),
    ({"gamma": [0.5] * 5}, ("gamma has 5 values", "2 layers")),
    ({"init_scale": ()}, ("init_scale has 0 values", "2 layers")),
    ({"hidden": (), "init_scale": (1.0, 2.0)}, ("init_scale has 2 values", "1 layer:")),
    ({"learning_rate": (-0.1,)}, ("learning_rate -0.1", "0 or a positive")),
    ({"learning_rate": (math.nan,)}, ("learning_rate nan",)),
    ({"weight_decay": (-1e-4,)}, ("weight_decay -0.0001", "0 or a positive")),
    ({"momentum": 1.0}, ("momentum 1.0", "[0, 1)")),
    ({"optimizer": "sdg"}, ("optimizer 'sdg'", "choose from sgd")),
    ({"optimizer": "adam", "momentum": 0.9}, ("momentum does not apply", "adam", "sgd, rmsprop")),
    ({"beta1": 0.9}, ("beta1 does not apply", "sgd", "adam, adamw, lion")),
    ({"eps": (1e-8,)}, ("eps does not apply", "sgd")),
    ({"optimizer": "lion", "nesterov": True}, ("nesterov does not apply", "lion")),
    ({"bias_learning_rate": (0.1,)}, ("bias_learning_rate 0.1", "no biases", "leave it out")),
    ({"bias": True, "bias_eps": (1e-6,)}, ("bias_eps does not apply", "sgd", "leave it out")),
    ({"bias": True, "bias_init_scale": (1, 2, 3)}, ("bias_init_scale has 3 values", "2 layers")),
    ({"bias": True, "bias_init_scale": (1, -2)}, ("bias_init_scale -2", "positive")),
    ({"nesterov": True, "momentum": 0.0}, ("nesterov", "momentum above 0")),
    ({"nesterov": True, "dampening": 0.5}, ("nesterov", "no dampening")),
    ({"dampening": 0.5, "momentum": 0.0}, ("dampening 0.5", "momentum")),
    ({"schedule": ("linear",)}, ("schedule 'linear'", "choose from constant")),
    ({"schedule": ("step",)}, ("schedule step needs milestones",)),
    ({"milestones": (3,)}, ("milestones 3", "schedule step")),
    ({"schedule": ("step",), "milestones": (5, 3)}, ("milestones 5 3", "must rise")),
    ({"warmup_epochs": (-1.0,)}, ("warmup_epochs -1.0", "[0, 1e6]")),
    ({"gamma": (0.0,)}, ("gamma 0.0", "positive")),
    ({"batch_size": 0}, ("batch_size 0", "at least 1")),
    ({"epochs": 0}, ("epochs 0", "at least 1")),
    ({"seed": -1}, ("seed -1", "2^64")),
    ({"seed": 2**64}, ("seed 18446744073709551616", "2^64")),
    ({"epochs": 10**400}, ("epochs 1000", "below 2^31")),
    ({"train_size": 0}, ("train_size 0", "at least 1")),
    ({"precision": "float16"}, ("precision 'float16'", "choose from float32")),
    ({"preprocessing": "zca"}, ("preprocessing 'zca'", "choose from unit")),
]


def test_biases_follow_the_weights_unless_told_otherwise():
    own = Experiment(bias=True, learning_rate=(0.1, 0.2), bias_learning_rate=(0.3,))
    assert own.per_tensor("learning_rate") == {"kernel": (0.1, 0.2), "bias": (0.3, 0.3)}
    assert own.per_tensor("weight_decay") == {"kernel": (1e-4, 1e-4), "bias": (1e-4, 1e-4)}
    assert Experiment().per_tensor("init_scale") == {"kernel": (1.0, 1.0)}
    same = Experiment(bias=True, learning_rate=(0.1,), bias_learning_rate=(0.1, 0.1))
    assert same == Experiment(bias=True, learning_rate=(0.1,))


@pytest.mark.parametrize(("settings", "words"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_setting_is_one_line_with_value_rule_and_remedy(settings, words):
    with pytest.raises(ValueError, match=r".") as error:
        Experiment(**settings)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_the_defaults_are_the_question():
    experiment = Experiment()
    assert (experiment.hidden, experiment.bias, experiment.input_scale) == ((300,), False, 1.0)
    assert experiment.learning_rate == (0.02,)
    assert (experiment.momentum, experiment.weight_decay) == (0.9, (1e-4,))
    assert (experiment.batch_size, experiment.epochs) == (250, 20)


def test_a_batch_size_that_does_not_divide_names_two_that_do():
    with pytest.raises(ValueError, match=r"300 does not divide 50000 .*; 250 and 400 do"):
        Experiment(batch_size=300).steps_per_epoch(50000)
    assert Experiment().steps_per_epoch(50000) == 200
    with pytest.raises(ValueError, match=r"1 and 4001 do, or take --train-size 4000$"):
        Experiment().steps_per_epoch(4001)
    with pytest.raises(ValueError, match=r"; 70 does$"):
        Experiment().steps_per_epoch(70)


def test_equal_values_per_layer_are_one_value():
    assert Experiment(learning_rate=(0.02, 0.02)) == Experiment(learning_rate=(0.02,))
    assert Experiment(learning_rate=(0.02, 0.02)).sha256 == Experiment().sha256
    assert Experiment(learning_rate=(0.02, 0.1)).sha256 != Experiment().sha256
    assert Experiment(hidden=(5, 3), init_scale=(2.0,)).per_layer("init_scale") == (2.0,) * 3


def test_a_zero_is_one_setting_whatever_its_sign():
    for name in ("learning_rate", "weight_decay", "momentum", "warmup_epochs"):
        plus, minus = (Experiment(**dict[str, Any]({name: zero})) for zero in (0.0, -0.0))
        assert plus == minus
        assert plus.sha256 == minus.sha256


def test_a_number_too_small_for_a_float_is_not_0():
    assert [parse_number(word) for word in ("0", "-0.0", "0e-999", "1e-300")] == [0, 0, 0, 1e-300]
    for word in ("1e-400", "-0.001e-400", "0." + "0" * 400 + "1"):
        with pytest.raises(ValueError, match="too small for a float"):
            parse_number(word)


@given(
    optimizer=st.sampled_from(sorted(OPTIMIZER_DEFAULTS)),
    hidden=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    input_scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**64 - 1),
    bias=st.booleans(),
    data=st.data(),
)
def test_json_gives_the_same_experiment_back(optimizer, hidden, input_scale, seed, bias, data):
    rates = st.tuples(*[st.floats(1e-30, 1)] * (len(hidden) + 1))
    asked = Experiment(
        optimizer=optimizer,
        hidden=hidden,
        input_scale=input_scale,
        seed=seed,
        bias=bias,
        learning_rate=data.draw(rates),
    )
    again = Experiment.from_json(json.loads(json.dumps(asked.to_json())))
    assert again == asked
    assert again.sha256 == asked.sha256


def test_json_with_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="unknown setting 'lr'; known are alpha"):
        Experiment.from_json({"lr": 0.1})


def test_equal_hashes_need_equal_settings():
    changed = {"input_scale": 2.0, "seed": 1, "bias": True, "epochs": 3, "hidden": (4,)}
    hashes = {dataclasses.replace(Experiment(), **{k: v}).sha256 for k, v in changed.items()}
    assert len(hashes | {Experiment().sha256}) == len(changed) + 1


@pytest.mark.parametrize("scale", [2.0, 255.0])
def test_repairs_keep_what_makes_two_runs_the_same(scale):
    """s·prod(a) and s²·prod(rates), and each layer's rate·decay and init²/rate: docs/why.md."""

    def invariants(case):
        run = Experiment(**question.settings(case, scale if case != "baseline" else 1.0))
        init, rate, decay = map(run.per_layer, ("init_scale", "learning_rate", "weight_decay"))
        effective = (run.input_scale**2 * math.prod(rate)) ** 0.5
        kappa = [a * math.sqrt(effective / r) for a, r in zip(init, rate, strict=True)]
        return [effective, *kappa, *(r * d for r, d in zip(rate, decay, strict=True))]

    for repair in ("repair-first-layer", "repair-uniform"):
        assert invariants(repair) == pytest.approx(invariants("baseline"), rel=1e-12)
    assert invariants("scaled-lr") != pytest.approx(invariants("baseline"), rel=1e-2)


def test_every_case_knows_its_own_name():
    for case in question.CASES:
        assert question.name(Experiment(**question.settings(case), seed=3, epochs=2)) == case
    assert question.name(Experiment(input_scale=255.0)) == "scaled"
    assert question.name(Experiment(input_scale=254.0)) == "custom"


def test_an_unknown_case_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'scald' is not known; choose from baseline, scaled"):
        question.settings("scald")


def test_importing_the_light_modules_loads_neither_jax_nor_tfds():
    code = (
        "import sys, jaxmlp.experiment, jaxmlp.question, jaxmlp.torch_rng, jaxmlp.data.dataset;"
        "print([m for m in ('jax', 'tensorflow_datasets', 'torch', 'flax') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr
