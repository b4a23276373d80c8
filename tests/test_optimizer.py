"""Each optimizer against torch's formulas, written in NumPy; each schedule against its words."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlp.device.precision import float_dtype
from jaxmlp.device.precision import precision as computing_in
from jaxmlp.experiment import Experiment
from jaxmlp.training.optimizer import LayerRates, optimizer, scheduled_rate

RATES, DECAYS = (0.05, 0.2), (0.3, 0.01)
STEPS = 5
# float32: every formula below is a chain of at most 20 rounded operations a step, on numbers of
# order one, 5 steps long: 5 x 20 x 2^-24 = 6e-6.
TOLERANCE = 100 * 2.0**-24


def sgd(g, w, state, lr, decay, mu=0.9, dampening=0.0, nesterov=False):
    g = g + decay * w
    first = "buffer" not in state
    state["buffer"] = g if first else mu * state["buffer"] + (1 - dampening) * g
    return w - lr * (g + mu * state["buffer"] if nesterov else state["buffer"])


def adam(g, w, state, lr, decay, eps=1e-3, b1=0.9, b2=0.999, decoupled=False):
    t = state["t"] = state.get("t", 0) + 1
    w, g = (w * (1 - lr * decay), g) if decoupled else (w, g + decay * w)
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
    root = np.sqrt(state["v"] / (1 - b2**t))
    return w - lr * state["m"] / (1 - b1**t) / (root + eps)


def rmsprop(g, w, state, lr, decay, eps=1e-3, alpha=0.9, mu=0.0):
    g = g + decay * w
    state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g * g
    state["buffer"] = mu * state.get("buffer", 0) + g / (np.sqrt(state["v"]) + eps)
    return w - lr * state["buffer"]


def adagrad(g, w, state, lr, decay, eps=1e-3):
    g = g + decay * w
    state["sum"] = state.get("sum", 0) + g * g
    return w - lr * g / (np.sqrt(state["sum"]) + eps)


def lion(g, w, state, lr, decay, b1=0.9, b2=0.99):
    m = state.get("m", 0)
    state["m"] = b2 * m + (1 - b2) * g
    return w - lr * (np.sign(b1 * m + (1 - b1) * g) + decay * w)


def decoupled_adam(*arguments):
    return adam(*arguments, decoupled=True)


TABLE = {
    "sgd": ({}, sgd),
    "sgd without momentum": ({"momentum": 0.0}, lambda *a: sgd(*a, mu=0.0)),
    "sgd dampened": ({"dampening": 0.4}, lambda *a: sgd(*a, dampening=0.4)),
    "sgd nesterov": ({"nesterov": True}, lambda *a: sgd(*a, nesterov=True)),
    "adam": ({"optimizer": "adam", "eps": (1e-3,)}, adam),
    "adamw": ({"optimizer": "adamw", "eps": (1e-3,)}, decoupled_adam),
    "rmsprop": ({"optimizer": "rmsprop", "eps": (1e-3,), "alpha": 0.9}, rmsprop),
    "rmsprop with momentum": (
        {"optimizer": "rmsprop", "eps": (1e-3,), "alpha": 0.9, "momentum": 0.5},
        lambda *a: rmsprop(*a, mu=0.5),
    ),
    "adagrad": ({"optimizer": "adagrad", "eps": (1e-3,)}, adagrad),
    "lion": ({"optimizer": "lion"}, lion),
}


def rates_of(experiment: Experiment) -> list[dict[str, LayerRates]]:
    eps = experiment.per_layer("eps") if experiment.eps else (0.0, 0.0)
    columns = (experiment.per_layer("learning_rate"), experiment.per_layer("weight_decay"), eps)
    rows = zip(*columns, strict=True)
    return [{"kernel": LayerRates(*(jnp.float32(value) for value in row))} for row in rows]


@pytest.mark.parametrize("name", TABLE)
def test_an_optimizer_steps_as_torch_documents(name):
    settings, formula = TABLE[name]
    experiment = Experiment(hidden=(5,), learning_rate=RATES, weight_decay=DECAYS, **settings)
    chains = optimizer(experiment, rates_of(experiment), steps_per_epoch=1)
    draw = np.random.default_rng(0)
    shapes = ((7, 5), (5, 3))
    params: Any = [{"kernel": draw.normal(size=shape).astype(np.float32)} for shape in shapes]
    expected = [layer["kernel"].astype(np.float64) for layer in params]
    states = [{}, {}]
    opt_state = chains.init(params)
    for _ in range(STEPS):
        grads = [{"kernel": draw.normal(size=shape).astype(np.float32)} for shape in shapes]
        updates, opt_state = jax.jit(chains.update)(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        for i in range(2):
            expected[i] = formula(
                grads[i]["kernel"].astype(np.float64), expected[i], states[i], RATES[i], DECAYS[i]
            )
            np.testing.assert_allclose(
                params[i]["kernel"], expected[i], rtol=TOLERANCE, atol=TOLERANCE
            )


def factors(steps_per_epoch: int = 4, layer: int = 0, **settings) -> np.ndarray:
    experiment = Experiment(epochs=5, **settings)
    return scheduled(experiment, layer, steps_per_epoch, 5 * steps_per_epoch)


def scheduled(experiment: Experiment, layer: int, steps_per_epoch: int, steps: int) -> np.ndarray:
    """The layer's rates at a base rate of 1, compiled as a run compiles them."""
    with computing_in(experiment):
        one = jnp.ones((), float_dtype(experiment))
        rate = scheduled_rate(experiment, layer, one, steps_per_epoch)
        counts = jnp.arange(steps, dtype=jnp.int32)
        return np.asarray(jax.jit(lambda counts: jax.lax.map(rate, counts))(counts))


def test_a_constant_rate_stays():
    assert (factors() == 1).all()


def test_warm_up_rises_linearly_to_the_whole_rate_and_stays():
    np.testing.assert_allclose(factors(warmup_epochs=(1.5,))[:7], [*np.arange(1, 7) / 6, 1], 1e-6)
    np.testing.assert_allclose(factors(warmup_epochs=(0.25,)), 1)


def test_cosine_falls_to_zero_from_the_end_of_the_warm_up():
    expected = [0.5 * (1 + math.cos(math.pi * t / 20)) for t in range(20)]
    np.testing.assert_allclose(factors(schedule=("cosine",)), expected, rtol=1e-6, atol=1e-7)
    warm = [0.25, 0.5, 0.75, 1, *(0.5 * (1 + math.cos(math.pi * t / 16)) for t in range(16))]
    np.testing.assert_allclose(
        factors(schedule=("cosine",), warmup_epochs=(1.0,)), warm, rtol=1e-6, atol=1e-7
    )


def test_milestones_are_epochs_of_the_whole_run():
    expected = np.repeat([1, 1, 0.5, 0.25, 0.25], 4)
    step = {"schedule": ("step",), "milestones": (2, 3), "gamma": (0.5,)}
    np.testing.assert_allclose(factors(**step), expected)
    expected[:8] = [*np.arange(1, 9) / 8]
    np.testing.assert_allclose(factors(**step, warmup_epochs=(2.0,)), expected, rtol=1e-6)


def test_exponential_falls_once_an_epoch():
    expected = np.repeat(0.5 ** np.arange(5), 4)
    np.testing.assert_allclose(factors(schedule=("exponential",), gamma=(0.5,)), expected, 1e-6)


def test_each_layer_has_its_own_schedule():
    mixed = {"schedule": ("constant", "exponential"), "gamma": (0.1, 0.5)}
    assert (factors(layer=0, **mixed) == 1).all()
    np.testing.assert_allclose(factors(layer=1, **mixed), np.repeat(0.5 ** np.arange(5), 4), 1e-6)


BOTH_WIDTHS = pytest.mark.parametrize("precision", ["float32", "float64"])
# Times the rounded 1 / n, a multiple of n can end below a whole number: 41 to 82 in float32, 49 to
# 107 in float64. The others are for comparison.
STEPS_PER_EPOCH = (1, 2, 7, 41, 47, 55, 61, 82, 49, 98, 103, 107, 300)
EPOCHS = 5


@BOTH_WIDTHS
@pytest.mark.parametrize("steps", STEPS_PER_EPOCH)
def test_a_rate_falls_at_the_first_step_of_an_epoch(steps, precision):
    settings = {"hidden": (), "epochs": EPOCHS, "gamma": (0.5,), "precision": precision}
    expected = np.repeat(0.5 ** np.arange(EPOCHS), steps)
    exponential = Experiment(schedule=("exponential",), **settings)
    np.testing.assert_array_equal(scheduled(exponential, 0, steps, EPOCHS * steps), expected)
    step = Experiment(schedule=("step",), milestones=tuple(range(1, EPOCHS)), **settings)
    np.testing.assert_array_equal(scheduled(step, 0, steps, EPOCHS * steps), expected)


@BOTH_WIDTHS
@pytest.mark.parametrize("steps", STEPS_PER_EPOCH)
def test_a_warm_up_ends_at_the_whole_rate_and_then_the_clock_starts(steps, precision):
    warm = Experiment(
        hidden=(),
        warmup_epochs=(1.0,),
        schedule=("exponential",),
        gamma=(0.5,),
        precision=precision,
    )
    rising = np.arange(1, steps + 1).astype(precision) / np.array(steps, precision)
    expected = [*rising, *np.repeat([1, 0.5], steps)]
    np.testing.assert_array_equal(scheduled(warm, 0, steps, 3 * steps), expected)


@BOTH_WIDTHS
def test_a_count_is_a_whole_number_beyond_the_floats_that_hold_one(precision):
    settings = {"hidden": (), "epochs": 3, "gamma": (0.5,), "precision": precision}
    steps = 2**24 + 1  # twice as many less one is no float32
    for schedule, milestones in (("step", (2,)), ("exponential", ())):
        experiment = Experiment(schedule=(schedule,), milestones=milestones, **settings)
        with computing_in(experiment):
            one = jnp.ones((), float_dtype(experiment))
            rate = jax.jit(scheduled_rate(experiment, 0, one, steps))
            before, after = (float(rate(jnp.int32(2 * steps - i))) for i in (1, 0))
        assert after == before / 2


def test_cosine_is_as_exact_near_zero_as_elsewhere():
    found = scheduled(Experiment(hidden=(), schedule=("cosine",), epochs=20), 0, 200, 4000)
    expected = np.sin(np.pi / 2 * (1 - np.arange(4000) / 4000)) ** 2
    # A quotient, pi / 2, a product, 2 units for the sine; twice that and a unit for the square.
    np.testing.assert_allclose(found, expected, rtol=(2 * (3 + 2) + 1) * 2.0**-24)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "exponential"])
def test_a_schedule_longer_than_any_count_can_be_compiled(schedule):
    experiment = Experiment(
        hidden=(),
        schedule=(schedule,),
        epochs=2**31 - 1,
        warmup_epochs=(1e6,),
        milestones=(2**31 - 1,) if schedule == "step" else (),
    )
    assert (scheduled(experiment, 0, 50_000, 3) > 0).all()
