"""The law on tensors: for the project's own network it says what is known in closed form."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp.experiment import Experiment
from jaxmlp.law.invariants import Parameter, as_tensors
from jaxmlp.law.surd import surd
from jaxmlp.law.tensors import (
    INPUT,
    Setting,
    Tensors,
    alike,
    canonical_settings,
    fewest,
    moved,
    raised,
    value,
)
from jaxmlp.law.transport import layer_factors

ONE = Fraction(1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(5,), (5, 6, 7)])
def test_few_tensors_are_the_first_layer_and_all_alike_the_uniform_scheme(hidden, bias):
    run = as_tensors(Experiment(hidden=hidden, bias=bias))
    for exponents, scheme in ((fewest(run, {}), "first-layer"), (alike(run), "uniform")):
        assert exponents is not None
        factors = raised(exponents, surd(255))
        of_kernels = layer_factors(len(hidden) + 1, 255, scheme)
        for layer, factor in enumerate(of_kernels):
            assert factors.get(Parameter("kernel", layer), surd(1)) == factor


def network(rates, generators, frozen=(), optimizer="sgd"):
    """A network of tensors with these learning rates."""
    settings = {Setting("init_scale", INPUT): 3.0}
    for name, rate in rates.items():
        settings[Setting("init_scale", name)] = 1.0
        if name not in frozen:
            settings[Setting("learning_rate", name)] = rate
            settings[Setting("weight_decay", name)] = 1e-3
    return Tensors(optimizer, generators, settings, [name for name in rates if name not in frozen])


def canonical(run):
    return {key: value(row, run.settings) for key, row in canonical_settings(run).items()}


scales = st.integers(-8, 8).map(lambda power: surd(2) ** Fraction(power, 3))


@given(scales, scales)
def test_a_rescaled_run_has_the_same_canonical_settings(first, second):
    rows = [{INPUT: ONE, "a": -ONE}, {"a": ONE, "b": Fraction(-1, 2), "c": ONE}]
    run = network({"a": 0.1, "b": 0.02, "c": 0.3, "d": 0.1}, rows, frozen=("c",))
    factors = {
        INPUT: first,
        "a": second / first,
        "b": second ** Fraction(-1, 2),
        "c": second,
    }
    other = run._replace(settings=moved(run, factors))
    for key, number in canonical(run).items():
        assert float(canonical(other)[key]) == pytest.approx(float(number), rel=2.0**-41)


def test_inputs_that_nothing_undoes_keep_their_scale():
    run = network({"a": 0.1, "b": 0.2}, [{"a": ONE, "b": -ONE}])
    assert canonical(run)[Setting("init_scale", INPUT)] == 3
    assert fewest(run, {}) is None
    assert alike(run) is None


def test_rates_are_made_as_equal_as_the_group_allows():
    run = network({"a": 0.1, "b": 0.4, "c": 0.7}, [{"a": ONE, "b": -ONE}])
    numbers = canonical(run)
    a, b, c = (float(numbers[Setting("learning_rate", name)]) for name in "abc")
    assert (a, c) == pytest.approx((b, 0.7))
    assert a == pytest.approx(0.2)


def test_where_rates_do_not_move_initial_scales_are_balanced():
    run = network({"a": 0.1, "b": 0.4}, [{"a": ONE, "b": -ONE}], optimizer="lars")
    run = run._replace(settings={**run.settings, Setting("init_scale", "a"): 4.0})
    numbers = canonical(run)
    assert numbers[Setting("init_scale", "a")] == numbers[Setting("init_scale", "b")] == 2


def test_the_cheapest_rescaling_is_found_through_others():
    rows = [{INPUT: ONE, "a": -ONE, "b": -ONE}, {"b": ONE, "c": Fraction(2)}]
    run = network({"a": 0.1, "b": 0.1, "c": 0.1}, rows)
    assert fewest(run, {"b": 5}) == {INPUT: 1, "a": -1, "c": 2}
    assert fewest(run, {"c": 5}) == {INPUT: 1, "a": -1, "b": -1}
