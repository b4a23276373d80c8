"""The law: canonical form, transport, difference, repair."""

import dataclasses
import math
import re
import subprocess
import sys
from fractions import Fraction

import pytest
from experiments import experiments, factors
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import question
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, PER_TENSOR, Experiment
from jaxmlp.law.canonical import canonical
from jaxmlp.law.difference import difference, in_words
from jaxmlp.law.invariants import Invariant
from jaxmlp.law.repair import knobs, repair
from jaxmlp.law.rules import RULES, power, scaling_rule
from jaxmlp.law.surd import surd
from jaxmlp.law.transport import SCHEMES, transport
from jaxmlp.law.words import times

BASELINE, SCALED = Experiment(), Experiment(input_scale=255.0)
MANY = pytest.mark.examples(500)
# Every setting is rounded once by each of at most three transports: 3 units of 2^-53, and a fourth
# for the comparison.
CLOSE = 4 * 2.0**-53


def numbers(experiment: Experiment) -> dict[str, tuple[float, ...]]:
    """Every setting that a transport moves, resolved."""
    found = {"input_scale": (experiment.input_scale,)}
    for name in PER_TENSOR:
        if getattr(experiment, name) is not None:
            found |= {f"{t} {name}": v for t, v in experiment.per_tensor(name).items()}
    return found


def assert_close(a: Experiment, b: Experiment) -> None:
    for (name, mine), other in zip(numbers(a).items(), numbers(b).values(), strict=True):
        assert mine == pytest.approx(other, rel=CLOSE, abs=0), name


@st.composite
def moved(draw, exponents):
    experiment = draw(experiments())
    return experiment, draw(factors(experiment, exponents))


@MANY
@given(moved(st.floats(-4, 4)))
def test_the_canonical_form_is_the_same_after_any_transport(pair):
    experiment, chosen = pair
    assert difference(transport(experiment, factors=chosen), experiment).same


@MANY
@given(moved(st.integers(-8, 8)))
def test_a_transport_by_powers_of_two_is_undone_exactly(pair):
    experiment, chosen = pair
    there = transport(experiment, factors=chosen)
    assert transport(there, factors=[1 / c for c in chosen]) == experiment


@MANY
@given(moved(st.floats(-4, 4)), st.data())
def test_transports_compose_and_invert(pair, data):
    experiment, first = pair
    second = data.draw(factors(experiment, st.floats(-4, 4)))
    twice = transport(transport(experiment, factors=first), factors=second)
    exact = [surd(a) * b for a, b in zip(first, second, strict=True)]
    assert_close(twice, transport(experiment, factors=exact))
    back = transport(twice, factors=[c**-1 for c in exact])
    assert_close(back, experiment)


@MANY
@given(experiments(), st.floats(-2, 2), st.sampled_from(SCHEMES))
def test_a_scheme_arrives_at_the_input_scale_and_is_the_same_run(experiment, decade, scheme):
    there = transport(experiment, 10**decade, scheme=scheme)
    assert there.input_scale == 10**decade
    assert difference(there, experiment).same


@MANY
@given(experiments())
def test_the_canonical_numbers_are_those_of_the_run_with_unscaled_inputs_and_one_rate(experiment):
    """transport by the factors of the definition leads to an experiment that has them literally."""
    form = canonical(experiment)
    degree = power(experiment.optimizer, "learning_rate")
    rates = experiment.per_layer("learning_rate")
    literal = transport(
        experiment, factors=[(form.learning_rate / rate) ** (1 / degree) for rate in rates]
    )
    close = {"rel": 1e-14, "abs": 0}  # the factors above are floats: a few dozen roundings
    assert literal.input_scale == pytest.approx(1, **close)
    assert literal.per_layer("learning_rate") == pytest.approx(
        (form.learning_rate,) * experiment.layers, **close
    )
    assert literal.per_layer("init_scale") == pytest.approx(form.init_scale, **close)
    decay = [form.learning_rate * value for value in literal.per_layer("weight_decay")]
    assert decay == pytest.approx(form.decay, **close)
    if form.bias:
        assert literal.per_layer("bias_learning_rate") == pytest.approx(
            form.bias.learning_rate, **close
        )
        assert literal.per_layer("bias_init_scale") == pytest.approx(form.bias.init_scale, **close)
    if form.eps:
        assert literal.per_layer("eps") == pytest.approx(form.eps, **close)


@MANY
@given(experiments(), st.data())
def test_a_setting_moved_alone_makes_it_another_run(experiment, data):
    names = [name for name, values in numbers(experiment).items() if values[0]]
    name = data.draw(st.sampled_from(names)).removeprefix("kernel ").replace("bias ", "bias_")
    if name == "input_scale":
        changed = dataclasses.replace(experiment, input_scale=experiment.input_scale * 1.001)
    else:
        values = list(experiment.per_layer(name))
        layer = data.draw(st.integers(0, experiment.layers - 1))
        values[layer] *= 1.001
        changed = dataclasses.replace(experiment, **{name: tuple(values)})
    assert not difference(changed, experiment).same


TABLE = {  # docs/why.md, section 3: R, κ1, κ2 in units of the baseline
    "baseline": (1, 1, 1),
    "scaled": (255, 15.97, 15.97),
    "scaled-lr": (1, 15.97, 15.97),
    "scaled-lr-init": (1, 0.0626, 0.0626),
    "scaled-lr-init1": (1, 0.0626, 15.97),
    "scaled-lr1-init1": (15.97, 0.25, 4.0),
    "scaled-lr1": (15.97, 63.8, 4.0),
    "scaled-lrsq-init1": (1 / 255, 0.0626, 15.97),
    "repair-first-layer": (1, 1, 1),
    "repair-uniform": (1, 1, 1),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_questions_cases_have_the_canonical_forms_worked_out_by_hand(case):
    form = canonical(Experiment(**question.settings(case)))
    assert (form.learning_rate / 0.02, *form.init_scale) == pytest.approx(TABLE[case], rel=2e-3)


def test_the_questions_repairs_are_transports_of_the_baseline():
    for scheme in SCHEMES:
        asked = Experiment(**question.settings(f"repair-{scheme}"))
        assert_close(transport(BASELINE, 255.0, scheme=scheme), asked)


def test_adam_moves_by_the_first_power_and_its_eps_against_it():
    adam = Experiment(optimizer="adam", bias=True)
    there = transport(adam, 16.0, scheme="first-layer")
    assert there.per_layer("learning_rate") == (1e-3 / 16, 1e-3)
    assert there.per_layer("eps") == (1e-8 * 16, 1e-8)
    assert there.per_layer("weight_decay") == (1e-4 * 256, 1e-4)
    for name in PER_TENSOR:  # the biases of a network whose first layer makes up for the scale stay
        assert there.per_tensor(name)["bias"] == adam.per_tensor(name)["bias"]


def test_decoupled_decay_moves_by_the_first_power():
    for optimizer in ("adamw", "lion"):
        there = transport(Experiment(optimizer=optimizer), 16.0, scheme="first-layer")
        assert there.per_layer("weight_decay") == (1e-4 * 16, 1e-4)


def test_biases_scale_with_their_layers_outputs():
    there = transport(Experiment(bias=True, hidden=(5, 6)), 64.0)
    assert there.per_tensor("init_scale") == {"kernel": (0.25,) * 3, "bias": (16.0, 4.0, 1.0)}
    assert there.per_tensor("learning_rate")["bias"] == (0.02 * 256, 0.02 * 16, 0.02)


BAD = [
    (lambda: transport(BASELINE), "either an input scale or one factor per layer"),
    (lambda: transport(BASELINE, 2.0, [1, 2]), "either an input scale or one factor per layer"),
    (lambda: transport(BASELINE, factors=[2]), "1 factors; the network has 2 layers"),
    (lambda: transport(BASELINE, -2.0), "must be a positive number"),
    (lambda: transport(BASELINE, 2.0, scheme="best"), "choose from first-layer, uniform"),
    (lambda: transport(BASELINE, 1e30, scheme="first-layer"), "learning_rate .* float32"),
    (lambda: transport(BASELINE, factors=[1e-200, 1e200]), "too large for a float"),
    (lambda: scaling_rule("adadelta"), "eps stands beside the squared gradients"),
    (lambda: scaling_rule("sdg"), "not known; choose from sgd"),
    (lambda: canonical(Experiment(learning_rate=(0.1, 0.0))), "layer 2 has learning rate 0"),
    (lambda: repair(SCALED, BASELINE, ["lr"]), "knob 'lr' is not known"),
    (lambda: repair(SCALED, Experiment(seed=1), ["learning_rate"]), "seed is 0 and should be 1"),
    (
        lambda: transport(BASELINE, 255.0, homogeneous=False),
        "only the first layer .* choose scheme first-layer",
    ),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_what_cannot_be_done_is_refused_with_its_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_any_activation_lets_the_first_layer_be_rescaled():
    deep = Experiment(hidden=(5, 6), bias=True)
    there = transport(deep, 255.0, scheme="first-layer", homogeneous=False)
    assert there == transport(deep, factors=[Fraction(1, 255), 1, 1], homogeneous=False)
    for wrong in ([1, Fraction(1, 255), 1], [Fraction(1, 255), 2, 1]):
        with pytest.raises(ValueError, match="only the first layer"):
            transport(deep, factors=wrong, homogeneous=False)


# ---- difference


def test_differences_are_said_in_words():
    words = {
        case: in_words(difference(Experiment(**question.settings(case)), BASELINE), 2)
        for case in question.CASES
    }
    assert words["repair-uniform"] == words["repair-first-layer"] == "the same run"
    assert words["scaled"] == (
        "effective learning rate 255 times too large; initial weights 16 times too large"
    )
    assert words["scaled-lr"].startswith(
        "same effective learning rate; initial weights 16 times too large"
    )
    assert "layer 1 16 times too small, layer 2 16 times too large" in words["scaled-lr-init1"]


def test_other_settings_are_part_of_a_run():
    found = difference(Experiment(batch_size=100), BASELINE)
    assert found.settings == {"batch_size": (100, 250)}
    assert not found.ratios
    assert "batch_size 100 instead of 250" in in_words(found, 2)
    other = difference(Experiment(optimizer="adam", input_scale=9.0), BASELINE)
    assert "optimizer" in other.settings
    assert not other.ratios


def test_a_decay_that_only_one_has_is_said():
    found = difference(Experiment(weight_decay=(0.0,)), BASELINE)
    assert found.ratios == {Invariant("decay", "kernel", layer): 0.0 for layer in (0, 1)}
    assert [invariant.symbol for invariant in found.ratios] == ["δ1", "δ2"]
    assert "decay absent" in in_words(found, 2)


# ---- repair


@pytest.mark.smoke
def test_global_knobs_rate_over_255_inits_over_its_root_decay_times_255():
    found = repair(SCALED, BASELINE, ["learning_rate", "init_scale", "weight_decay"])
    assert found.factors["init_scale"] ** 2 == surd(1) / 255
    assert found.factors["learning_rate"] == surd(1) / 255
    assert found.factors["weight_decay"] == 255
    assert found.experiment
    assert difference(found.experiment, BASELINE).same


def test_first_layer_knobs_init_over_255_rate_over_its_square_decay_times_its_square():
    found = repair(SCALED, BASELINE, ["init_scale:1", "learning_rate:1", "weight_decay:1"])
    assert found.factors["init_scale:1"] == surd(1) / 255
    assert found.factors["learning_rate:1"] == surd(1) / 255**2
    assert found.factors["weight_decay:1"] == 255**2
    assert found.experiment
    assert_close(found.experiment, transport(BASELINE, 255.0, scheme="first-layer"))


@pytest.mark.parametrize(
    ("allow", "obstacle"),
    [
        (["learning_rate"], "κ1 .* is 16 times too large"),
        (["learning_rate:1", "learning_rate:2"], "κ1·κ2 is 255 times too large"),
        (["init_scale"], "R .* is 255 times too large"),
        (["init_scale:1", "init_scale:2"], "R .* is 255 times too large"),
        (["learning_rate", "weight_decay"], "κ1 .* is 16 times too large"),
    ],
)
def test_rates_alone_and_inits_alone_cannot_repair_it(allow, obstacle):
    found = repair(SCALED, BASELINE, allow)
    assert found.experiment is None
    assert any(re.search(obstacle, each) for each in found.obstacles)
    enough = repair(SCALED, BASELINE, [*allow, *found.missing])
    assert enough.experiment
    for knob in found.missing:
        fewer = [each for each in (*allow, *found.missing) if each != knob]
        assert repair(SCALED, BASELINE, fewer).experiment is None


def test_no_factor_leads_from_a_decay_of_0_to_another():
    free, everything = Experiment(weight_decay=(0.0,)), knobs(BASELINE)
    for one, other in ((free, BASELINE), (BASELINE, free)):
        found = repair(one, other, everything)
        assert found.experiment is None
        assert all("is 0 in one of the two" in each for each in found.obstacles)
        assert found.missing == ()
    scaled = dataclasses.replace(free, input_scale=255.0)
    few = ["learning_rate", "init_scale"]  # without decay, two knobs are enough
    repaired = repair(scaled, free, few).experiment
    assert repaired
    assert difference(repaired, free).same


def test_deep_networks_with_biases_take_no_long_time():
    """Eight layers, Adam, biases: 57 canonical numbers."""
    deep = Experiment(
        hidden=(4,) * 7,
        bias=True,
        optimizer="adam",
        learning_rate=tuple(1e-3 * (1 + i) for i in range(8)),
    )
    scaled = dataclasses.replace(deep, input_scale=255.0)
    stuck = repair(scaled, deep, ["learning_rate"])
    assert stuck.experiment is None
    assert repair(scaled, deep, ["learning_rate", *stuck.missing]).experiment


@MANY
@given(experiments(), st.floats(-2, 2), st.data())
def test_every_knob_together_repairs_every_run(experiment, decade, data):
    """And so does any chain of them that is long enough; what is not used stays."""
    target = transport(experiment, experiment.input_scale * 10**decade)
    single = [knob for knob in knobs(experiment) if ":" in knob]
    spoilt = dataclasses.replace(experiment, learning_rate=(0.3,), init_scale=(2.0,))
    found = repair(spoilt, target, data.draw(st.permutations(single)))
    assert found.experiment, found.obstacles
    assert difference(found.experiment, experiment).same


@pytest.mark.examples(100)
@given(experiments(), st.data())
def test_a_repair_touches_nothing_but_the_allowed_knobs(experiment, data):
    allowed = data.draw(st.lists(st.sampled_from(knobs(experiment)), unique=True))
    scaled = dataclasses.replace(experiment, input_scale=experiment.input_scale * 3)
    found = repair(scaled, experiment, allowed)
    assert set(found.factors) <= set(allowed)
    if found.experiment is None:
        assert found.obstacles
        assert not set(found.missing) & set(allowed)
        return
    assert difference(found.experiment, experiment).same
    for name, before in numbers(scaled).items():
        after = numbers(found.experiment)[name]
        setting = name.split()[-1]
        for layer, (a, b) in enumerate(zip(before, after, strict=True)):
            if a != b:
                touching = {
                    setting,
                    f"{setting}:{layer + 1}",
                    f"bias_{setting}",
                    f"bias_{setting}:{layer + 1}",
                }
                assert touching & set(found.factors), name


def test_every_optimizer_of_an_experiment_has_a_rule():
    assert set(OPTIMIZER_DEFAULTS) <= set(RULES)
    for name, options in OPTIMIZER_DEFAULTS.items():
        assert ("eps" in options) == (scaling_rule(name).eps is not None)


def test_the_law_needs_no_jax():
    code = "import sys, jaxmlp.law.repair; assert not {'jax', 'flax', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ratios_are_said_in_words():
    assert times(255.0) == "255 times too large"
    assert times(1 / math.sqrt(255)) == "16 times too small"
