"""The compiled run: its arithmetic, what it traces, what it leaves, the law at powers of two."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.training import preprocessing
from jaxmlp.training import step as train
from jaxmlp.training.model import mlp
from jaxmlp.training.run import Run
from jaxmlp.training.step import static_part

SMALL = Experiment(hidden=(11, 6), batch_size=8, epochs=3, seed=2)


def trained(experiment, dataset):
    run = Run(experiment, dataset)
    results = list(run.epochs())
    return run, results, run.steps(results)


def all_pixels() -> Dataset:
    """Every pixel value once in each of two channels."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(2, axis=1)
    images = np.concatenate([images, images[:, ::-1, ::-1]])
    labels = np.array([0, 1], np.int32)
    return Dataset("pixels", "every value", images, labels, images, labels, "", 2)


@pytest.mark.parametrize("scale", [1.0, 255.0, 0.0625, 3.7])
@pytest.mark.parametrize("kind", ["unit", "center", "standardize"])
def test_every_pixel_value_becomes_the_float_that_torchvision_makes(scale, kind):
    dataset = all_pixels()
    experiment = Experiment(input_scale=scale, preprocessing=kind)
    images = preprocessing.put_images(experiment, dataset)
    scaled = jax.jit(preprocessing.preprocess, static_argnums=0)(
        experiment, images.train_images, images, np.float32(scale)
    )
    expected = dataset.train_images.reshape(2, -1).astype(np.float32) / np.float32(255)
    if kind != "unit":
        expected = expected - np.float32(0.5)  # the mean of 0..255 over 255
    if kind == "standardize":
        expected = expected / np.float32(np.std(np.arange(256) / 255))
    np.testing.assert_array_equal(np.asarray(scaled), np.float32(scale) * expected)


def test_channel_statistics_are_those_of_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 5, 4), dtype=np.uint8)
    mean, deviation = preprocessing.channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(deviation, (images / 255).std(axis=(0, 2, 3)), rtol=1e-13)


def test_a_relu_at_exactly_zero_passes_no_gradient():
    apply = mlp((1, 1, 1), use_bias=False, dtype=jnp.float32)
    params = [{"kernel": jnp.zeros((1, 1))}, {"kernel": jnp.ones((1, 1))}]
    grads = jax.grad(lambda p: apply(p, jnp.ones((1, 1)))[0].sum())(params)
    assert grads[0]["kernel"] == 0


@pytest.mark.smoke
def test_a_run_is_the_plain_loop(tiny_dataset):
    """The same epoch as a Python loop over batches with optax's own SGD, one decay and one rate."""
    _, results, steps = trained(SMALL, tiny_dataset)
    generator = TorchGenerator(SMALL.seed)
    params: Any = initial_weights(generator, (60, 11, 6, 7), bias=False)
    apply = mlp((60, 11, 6, 7), use_bias=False, dtype=jnp.float32)
    images = tiny_dataset.train_images.reshape(24, -1).astype(np.float32) / np.float32(255)
    chain = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.02, 0.9))
    opt_state, losses, order = chain.init(params), [], batch_order(generator, 24, 8)

    def loss_of(p, x, y):
        losses = optax.softmax_cross_entropy_with_integer_labels(apply(p, x)[0], y)
        return losses.mean()

    for indices in np.concatenate([next(order) for _ in range(3)]):
        batch = images[indices], tiny_dataset.train_labels[indices]
        loss, grads = jax.value_and_grad(loss_of)(params, *batch)
        updates, opt_state = chain.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    # Sums of at most 60 products in another order, 9 steps: 9 x 60 x 2^-24 = 3e-5.
    np.testing.assert_allclose(steps["loss"], losses, rtol=4e-5)
    for got, expected in zip(results[-1].params, params, strict=True):
        np.testing.assert_allclose(got["kernel"], expected["kernel"], rtol=4e-5, atol=4e-6)


def test_metrics_are_those_of_the_batch_before_the_step(tiny_dataset):
    _, _, steps = trained(dataclasses.replace(SMALL, epochs=1), tiny_dataset)
    generator = TorchGenerator(SMALL.seed)
    params = initial_weights(generator, (60, 11, 6, 7), bias=False)
    indices = next(batch_order(generator, 24, 8))[0]
    hidden = tiny_dataset.train_images.reshape(24, -1)[indices] / 255
    for i, layer in enumerate(params[:-1]):
        hidden = np.maximum(hidden @ layer["kernel"], 0)
        assert steps["dead"][0, i] == np.mean(~(hidden > 0).any(axis=0))
    assert steps["loss"].shape == (3,)
    assert steps["grad_norm"].shape == (3, 3)


def test_one_compilation_serves_every_case(tiny_dataset):
    first = static_part(SMALL)
    other = dataclasses.replace(
        SMALL,
        input_scale=255.0,
        init_scale=(1.0, 2.0, 3.0),
        learning_rate=(0.1, 0.2, 0.3),
        weight_decay=(0.0,),
        seed=9,
    )
    assert static_part(other) == first
    assert static_part(dataclasses.replace(SMALL, momentum=0.5)) != first


def test_two_runs_have_the_same_bits(tiny_dataset):
    _, first, first_steps = trained(SMALL, tiny_dataset)
    _, second, second_steps = trained(SMALL, tiny_dataset)
    for name, values in first_steps.items():
        np.testing.assert_array_equal(values, second_steps[name])
    jax.tree.map(np.testing.assert_array_equal, first[-1].params, second[-1].params)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_at_a_power_of_two_the_repaired_run_has_the_bits_of_the_baseline(tiny_dataset, precision):
    s = 256.0
    base = dataclasses.replace(SMALL, hidden=(11,), precision=precision)
    repaired = dataclasses.replace(
        base,
        input_scale=s,
        init_scale=(1 / s, 1.0),
        learning_rate=(0.02 / s**2, 0.02),
        weight_decay=(1e-4 * s**2, 1e-4),
    )
    broken = dataclasses.replace(repaired, learning_rate=(0.02 / s,))
    losses = [trained(e, tiny_dataset)[2]["loss"] for e in (base, repaired, broken)]
    assert losses[0].dtype == precision
    np.testing.assert_array_equal(losses[1], losses[0])
    assert (losses[2] != losses[0]).any()


def test_the_test_set_is_counted_whole_though_no_batch_divides_it(tiny_dataset, monkeypatch):
    monkeypatch.setattr(train, "EVALUATION_BATCH", 4)
    jax.clear_caches()
    run, results, _ = trained(SMALL, tiny_dataset)
    hidden = tiny_dataset.test_images.reshape(10, -1) / 255
    for i, layer in enumerate(results[-1].params[:-1]):
        hidden = np.maximum(hidden @ np.asarray(layer["kernel"]), 0)
        assert results[-1].test.dead[i] == (~(hidden > 0).any(axis=0)).sum()
        assert results[-1].test.silent[i] == (~(hidden > 0).any(axis=1)).sum()
    logits = hidden @ np.asarray(results[-1].params[-1]["kernel"])
    assert results[-1].test.correct == (logits.argmax(axis=1) == tiny_dataset.test_labels).sum()
    assert run.row(3, results[-1])["test_accuracy"] == results[-1].test.correct / 10


@pytest.mark.parametrize("hidden", [(), (5,), (11, 6, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_any_depth_with_and_without_bias_learns(tiny_dataset, hidden, bias):
    experiment = Experiment(
        hidden=hidden,
        bias=bias,
        batch_size=24,
        epochs=60,
        optimizer="adam",
        learning_rate=(0.01,),
        weight_decay=(0.0,),
        preprocessing="standardize",
    )
    _, results, steps = trained(experiment, tiny_dataset)
    assert len(results[-1].params) == len(hidden) + 1
    assert steps["loss"][-1] < 0.7 * steps["loss"][0]


def test_a_batch_size_that_does_not_divide_is_refused_before_compiling(tiny_dataset):
    with pytest.raises(ValueError, match="batch size 7 does not divide 24 training images"):
        Run(dataclasses.replace(SMALL, batch_size=7), tiny_dataset)


def test_a_constant_channel_cannot_be_standardised(tiny_dataset):
    images = tiny_dataset.train_images.copy()
    images[:, 1] = 9
    flat = dataclasses.replace(tiny_dataset, train_images=images)
    with pytest.raises(ValueError, match="channel 1 of tiny is constant: choose center"):
        Run(dataclasses.replace(SMALL, preprocessing="standardize"), flat)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU has no loose products")
def test_a_precision_that_the_device_lacks_is_refused():
    for kind in ("tf32", "bfloat16"):
        with (
            pytest.raises(ValueError, match=f"precision {kind} does not exist on cpu"),
            precision(Experiment(precision=kind)),
        ):
            pass
