"""A transported run is the same run: every bit at powers of two, in both frameworks."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from experiments import experiments, factors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxmlp.commands import certify as command
from jaxmlp.commands import torch_side
from jaxmlp.experiment import Experiment
from jaxmlp.law.rules import RULES, Rule
from jaxmlp.law.transport import SCHEMES, transport
from jaxmlp.training import certificate

OPTIMIZERS: dict[str, dict] = {
    "sgd": {},
    "sgd without momentum": {"momentum": 0.0},
    "nesterov": {"nesterov": True},
    "dampening": {"dampening": 0.3},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
    "rmsprop": {"optimizer": "rmsprop"},
    "rmsprop with momentum": {"optimizer": "rmsprop", "momentum": 0.8},
    "adagrad": {"optimizer": "adagrad"},
    "lion": {"optimizer": "lion"},
}
HIDDEN = ((), (5,), (5, 6), (5, 6, 4))
FRAMEWORKS = ("jax", "torch")


def experiment(name: str, hidden=(5, 6), bias=True, **more) -> Experiment:
    """Decays and eps large enough that a wrong power of either shows."""
    chosen = OPTIMIZERS[name]
    rates = {"sgd": 0.05, "lion": 1e-3, "adagrad": 1e-2}
    rate = rates.get(chosen.get("optimizer", "sgd"), 3e-3)
    eps = {} if chosen.get("optimizer", "sgd") in ("sgd", "lion") else {"eps": (1e-3,)}
    return Experiment(
        hidden=hidden,
        bias=bias,
        batch_size=4,
        epochs=3,
        learning_rate=(rate,),
        weight_decay=(0.1,),
        preprocessing="center",
        **eps,
        **chosen,
        **more,
    )


def certify(framework: str, one: Experiment, other: Experiment, dataset) -> certificate.Certificate:
    pair = certificate.pair_epochs if framework == "jax" else torch_side.pair_epochs
    return certificate.certify(one, other, dataset, pair=pair)


@pytest.mark.by_default("torch-*", "jax-sgd-float32", "jax-adam-float32", "jax-lion-float64")
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_at_a_power_of_two_both_schemes_give_every_bit(framework, name, precision, tiny_dataset):
    original = experiment(name, precision=precision)
    for scheme in SCHEMES:
        moved = transport(original, 64.0, scheme=scheme)
        found = certify(framework, original, moved, tiny_dataset)
        assert found.identical, (scheme, found)
        assert found.accuracies[0] == found.accuracies[1]
        assert found.steps == 3 * len(tiny_dataset.train_labels) // 4


@pytest.mark.by_default("torch-*", "jax-hidden3-True")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_at_any_depth_with_and_without_biases(framework, hidden, bias, tiny_dataset):
    original = experiment("sgd", hidden, bias)
    for scheme in SCHEMES:
        moved = transport(original, 4.0 ** len(original.per_layer("gamma")), scheme=scheme)
        assert certify(framework, original, moved, tiny_dataset).identical


@pytest.mark.slow
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_factors_and_optimizers(tiny_dataset, data):
    original = dataclasses.replace(data.draw(experiments()), batch_size=4, epochs=1)
    chosen = data.draw(factors(original, st.integers(-3, 3)))
    moved = transport(original, factors=chosen)
    assert certify("jax", original, moved, tiny_dataset).identical


@pytest.mark.by_default("torch-*", "jax-sgd")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_transport_the_first_losses_already_differ(framework, name, tiny_dataset):
    original = experiment(name)
    scaled = dataclasses.replace(original, input_scale=64.0)
    found = certify(framework, original, scaled, tiny_dataset)
    assert found.loss_step == 1
    assert found.loss_distance > 0.1


WRONG = {  # each off by one power
    "sgd": [Rule(1, -2), Rule(2, -1)],
    "adam": [Rule(2, -2, -1), Rule(1, -1, -1), Rule(1, -2, 0), Rule(1, -2, -2)],
    "adamw": [Rule(2, -1, -1), Rule(1, -2, -1), Rule(1, -1, 0)],
    "rmsprop": [Rule(2, -2, -1), Rule(1, -1, -1), Rule(1, -2, -2)],
    "adagrad": [Rule(2, -2, -1), Rule(1, -1, -1), Rule(1, -2, -2)],
    "lion": [Rule(2, -1), Rule(1, -2)],
}


@pytest.mark.by_default("sgd", "adam")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_power_is_noticed(name, tiny_dataset, monkeypatch):
    original = experiment(name)
    for wrong in WRONG[name]:
        monkeypatch.setitem(RULES, name, wrong)
        for framework in FRAMEWORKS:
            moved = transport(original, 64.0, scheme="first-layer")
            found = certify(framework, original, moved, tiny_dataset)
            assert not found.identical, wrong
            assert found.weight_distance > 1e-4


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_at_255_they_part_by_rounding(framework, tiny_dataset):
    original = experiment("sgd", precision="float64")
    for scheme in SCHEMES:
        found = certify(
            framework, original, transport(original, 255.0, scheme=scheme), tiny_dataset
        )
        assert not found.identical
        # A step takes some 20 operations on each weight, sums over at most 60 inputs among them.
        assert 0 < found.first_distance < 100 * 2.0**-53
        assert "part at step 1" in str(found)


def test_a_run_that_is_thrown_far_stays_the_same_run(tiny_dataset):
    original = dataclasses.replace(experiment("sgd"), learning_rate=(3.0,))
    found = certify("jax", original, transport(original, 64.0), tiny_dataset)
    assert found.identical


def test_an_overflow_ends_the_identity_and_is_reported(tiny_dataset):
    original = dataclasses.replace(experiment("sgd"), learning_rate=(1e9,))
    found = certify("jax", original, transport(original, 2.0**40), tiny_dataset)
    assert not found.identical
    assert found.nonfinite_step is not None
    said = str(found)
    assert "part at step" in said
    assert f"not finite from step {found.nonfinite_step} on" in said
    assert "nan" not in said


FADING = Experiment(  # halves a weight without gradient at every step
    hidden=(5,), batch_size=4, momentum=0.0, learning_rate=(0.5,), weight_decay=(1.0,), epochs=40
)


def with_a_black_pixel(dataset):
    images = {
        f"{split}_images": getattr(dataset, f"{split}_images").copy() for split in ("train", "test")
    }
    for each in images.values():
        each[:, 0, 0, 0] = 0
    return dataclasses.replace(dataset, **images)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weights_that_underflow_are_told_and_are_no_fault(framework, tiny_dataset):
    dataset = with_a_black_pixel(tiny_dataset)
    found = certify(framework, FADING, transport(FADING, 256.0, scheme="first-layer"), dataset)
    assert found.identical
    assert found.weight_distance == 0
    assert 0 < found.underflowed < found.parameters  # the black pixel's, and dead units'
    assert found.underflow_step is not None
    # 2^-126 is the smallest normal number, the weights begin below 1 and the others 2^8 below them.
    assert 100 < found.underflow_step <= 126
    count = "1 parameter that underflows" if found.underflowed == 1 else "parameters that underflow"
    assert f"{count} from step {found.underflow_step} on" in str(found)
    short = dataclasses.replace(FADING, epochs=1)
    found = certify(framework, short, transport(short, 256.0), dataset)
    assert (found.underflowed, found.underflow_step) == (0, None)
    assert "underflow" not in str(found)


def test_underflow_hides_no_fault_in_a_weight_of_normal_size(tiny_dataset):
    moved = transport(FADING, 256.0, scheme="first-layer")
    decay, rest = moved.per_layer("weight_decay")[0], moved.per_layer("weight_decay")[1:]
    wrong = dataclasses.replace(moved, weight_decay=(1.001 * decay, *rest))
    for framework in FRAMEWORKS:
        found = certify(framework, FADING, wrong, with_a_black_pixel(tiny_dataset))
        assert not found.identical
        assert found.weight_step == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fault_among_tiny_weights_is_noticed_by_the_losses(framework, tiny_dataset):
    tiny = Experiment(
        hidden=(),
        optimizer="lion",
        batch_size=4,
        epochs=1,
        input_scale=1e34,
        init_scale=(1e-34,),
        learning_rate=(1e-35,),
        weight_decay=(1e34,),
    )
    wrong = dataclasses.replace(tiny, weight_decay=(2e34,))
    found = certify(framework, tiny, wrong, tiny_dataset)
    assert found.weight_step is None
    assert found.underflow_step == 1
    assert found.loss_step == 2
    assert not found.identical


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_underflow_is_a_difference_of_two_tiny_weights_alone(dtype):
    limit = np.finfo(dtype).tiny / np.finfo(dtype).eps
    below = limit / 2
    nan, inf = np.nan, np.inf
    expected = np.array([below, below, 0.0, below, below, limit, 1.0, nan, below, inf], dtype)
    found = np.array([below, 0.0, -below, limit, 1.0, below, 1.5, 0.0, nan, 0.0], dtype)
    allowed = [False, True, True, False, False, False, False, False, False, False]
    kinds = (np.asarray, jnp.asarray) if dtype is np.float32 else (np.asarray,)
    for kind in kinds:
        mask = np.asarray(certificate.underflows(kind(expected), kind(found), 1.0))
        assert mask.tolist() == allowed
        smaller = kind(expected / 4), kind(found / 4)
        assert np.asarray(certificate.underflows(*smaller, 0.25)).tolist()[3:5] == [True, False]
        larger = kind(expected * 4), kind(found * 4)
        assert np.asarray(certificate.underflows(*larger, 4.0)).tolist() == allowed


def test_other_runs_are_refused(tiny_dataset):
    with pytest.raises(ValueError, match="make everything else equal"):
        certify("jax", Experiment(), Experiment(seed=1), tiny_dataset)


def test_units_in_the_last_place_are_counted_across_zero_and_signs():
    dtype = np.float32
    tiny, one = np.nextafter(dtype(0), dtype(1)), dtype(1)
    nan, inf, after = np.nan, np.inf, np.nextafter(one, dtype(2))
    a = np.array([0.0, -0.0, tiny, one, one, -one, nan, inf, one], dtype)
    b = np.array([tiny, 0.0, -tiny, after, -one, -one, nan, inf, nan], dtype)
    expected = [1, 1, 3, 1, 2 * 0x3F800000 + 1, 0, 0, 0]
    for kind in (np.asarray, jnp.asarray):
        count = np.asarray(certificate.ulps(kind(a), kind(b)))
        assert count[:-1].tolist() == expected
        assert count[-1] > 2**20


def test_the_command_prints_what_it_found(tiny_npz, capsys):
    flags = ["--data", str(tiny_npz), "--hidden", "5", "--batch-size", "4", "--epochs", "2"]
    command.main([*flags, "--framework", "both", "--to", "256"])
    assert capsys.readouterr().out.count("IDENTICAL in every bit") == 4
    command.main([*flags, "--to", "255", "--scheme", "uniform"])
    assert "part at step 1" in capsys.readouterr().out
    command.main([*flags, "--hidden", "5", "4", "--scheme", "uniform"])  # 256^(1/3)
    assert "no powers of two" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main([*flags, "--to", "-1"])
    assert "must be a positive number" in capsys.readouterr().err
