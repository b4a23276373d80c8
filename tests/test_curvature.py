"""Sharpness: against a dense eigendecomposition, against PyTorch, and under every transport."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting.calibration import random_experiment
from jaxmlp.forecasting.models import Sharpness
from jaxmlp.law.transport import transport
from jaxmlp.training.run import prepare
from jaxmlp.training.step import static_part

SMALL = Experiment(
    hidden=(5, 6),
    batch_size=4,
    preprocessing="center",
    precision="float64",
    input_scale=3.0,
    learning_rate=(0.1, 0.02, 0.3),
)
OPTIMIZERS: dict[str, dict] = {
    "sgd": {"learning_rate": (0.1, 0.02, 0.3)},
    "adam": {"optimizer": "adam", "eps": (1e-3,)},
    "rmsprop": {"optimizer": "rmsprop", "eps": (1e-3,)},
    "adagrad": {"optimizer": "adagrad", "eps": (1e-3,)},
    "lion": {"optimizer": "lion"},
}


def of(experiment: Experiment, dataset, tolerance: float = 1e-12) -> Sharpness:
    ready = prepare(experiment, dataset)
    return curvature.sharpness(experiment, ready, next(ready.order), tolerance)


def dense(experiment: Experiment, dataset) -> float:
    """λmax(D^½ H D^½) by writing everything down: H of the mean loss, D from its definition."""
    ready = prepare(experiment, dataset)
    batches = next(ready.order)
    with precision(experiment):
        flat, unravel = ravel_pytree(ready.state.params)
        loss = curvature._loss(static_part(experiment), ready.widths, ready.hyper, ready.images)
        hessian = jax.hessian(lambda v: loss(unravel(v), jnp.asarray(batches.ravel())))(flat)
        grads = np.stack(
            [
                ravel_pytree(jax.grad(loss)(ready.state.params, jnp.asarray(batch)))[0]
                for batch in batches
            ]
        )
        rms = np.sqrt((grads**2).mean(axis=0))
        rates, eps = (
            np.asarray(
                ravel_pytree(
                    [
                        {
                            name: jnp.full_like(w, getattr(ready.hyper.rates[name], what)[i])
                            for name, w in layer.items()
                        }
                        for i, layer in enumerate(ready.state.params)
                    ]
                )[0]
            )
            for what in ("learning_rate", "eps")
        )
    with np.errstate(divide="ignore"):
        factor = {
            "sgd": np.ones_like(rms),
            "adam": 1 / (rms + eps),
            "rmsprop": 1 / (np.sqrt(0.01) * rms + eps),
            "adagrad": 1 / (rms + eps),
            "lion": 1 / rms,
        }[experiment.optimizer]
    root = np.sqrt(rates * np.where((rms == 0) & (experiment.optimizer != "sgd"), 0, factor))
    return float(np.linalg.eigvalsh(root[:, None] * np.asarray(hessian) * root).max())


@pytest.mark.by_default("True-sgd", "False-lion")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_largest_eigenvalue_of_the_dense_matrix(name, bias, tiny_dataset):
    experiment = Experiment(**{**_plain(SMALL), **OPTIMIZERS[name], "bias": bias})
    assert of(experiment, tiny_dataset).value == pytest.approx(
        dense(experiment, tiny_dataset), rel=1e-6
    )


@pytest.mark.by_default("0-float64", "2-float32", "3-float64")
@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("index", range(12))
def test_it_is_arpacks_at_a_tight_tolerance_on_random_experiments(index, kind, thumbnails):
    drawn = random_experiment(5, index)
    experiment = dataclasses.replace(drawn, precision=kind, batch_size=20)
    ready = prepare(experiment, thumbnails)
    batches = next(ready.order)
    found = curvature.sharpness(experiment, ready, batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curvature, "LANCZOS", 30)
        patch.setattr(curvature.largest_eigenvalue, "__defaults__", (1e-7,))
        exact = curvature.with_restarts(experiment, ready, batches)
    # Besides: sums and products of float32, each rounded.
    assert found.value == pytest.approx(exact, rel=1e-6 if kind == "float64" else 1e-5)


@pytest.fixture
def thumbnails(tiny_dataset):
    """80 images of 4 by 4 pixels, of noise."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 80, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(80, dtype=np.int32) % 7
    return dataclasses.replace(
        tiny_dataset,
        train_images=pixels[0],
        train_labels=labels,
        test_images=pixels[1],
        test_labels=labels,
    )


def test_where_the_estimate_is_not_small_enough_arpack_is_asked(tiny_dataset, monkeypatch):
    ready = prepare(SMALL, tiny_dataset)
    batches = next(ready.order)
    settled = curvature.sharpness(SMALL, ready, batches)
    monkeypatch.setattr(curvature.Found, "settled", lambda found, tolerance: False)
    asked = curvature.sharpness(SMALL, ready, batches)
    assert asked.value == curvature.with_restarts(SMALL, ready, batches) != settled.value


def _plain(experiment: Experiment) -> dict:
    names = ("hidden", "batch_size", "preprocessing", "precision", "input_scale")
    return {name: getattr(experiment, name) for name in names}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_belongs_to_the_run_whatever_the_input_scale(name, tiny_dataset):
    experiment = Experiment(**{**_plain(SMALL), **OPTIMIZERS[name], "bias": True})
    for moved in (
        transport(experiment, 255.0),
        transport(experiment, 0.1, scheme="first-layer"),
        transport(experiment, factors=[2.0, 0.3, 5.0]),
    ):
        assert of(moved, tiny_dataset).value == pytest.approx(
            of(experiment, tiny_dataset).value, rel=1e-9
        )
    scaled = dataclasses.replace(experiment, input_scale=255.0)
    assert of(scaled, tiny_dataset).value > 5 * of(experiment, tiny_dataset).value


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_is_proportional_to_the_rate_however_small_that_is(optimizer, tiny_dataset):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 6, 5, 3), dtype=np.uint8)
    labels = np.arange(48, dtype=np.int32) % 7
    larger = dataclasses.replace(
        tiny_dataset,
        train_images=pixels[0],
        train_labels=labels,
        test_images=pixels[1],
        test_labels=labels,
    )
    asked = Experiment(optimizer=optimizer, batch_size=8)
    ratios = []
    for rate in (0.1, 1e-30, 1e-20, 1e-12, 1e-6, 1e-5, 10.0, 1e10):
        found = of(dataclasses.replace(asked, learning_rate=(rate,)), larger, curvature.TOLERANCE)
        ratios.append(found.value / rate)
    # Rates are rounded to float32, so are their roots, and each of a product's sums and products.
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=100 * 2.0**-23)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_small_eigenvalue_is_looked_at_as_closely_as_a_large_one(dtype):
    diagonal = np.linspace(-0.5, 1, 300).astype(dtype)

    def found(exponent: int) -> float:
        scaled: Any = diagonal * dtype(2.0**exponent)
        with jax.enable_x64(dtype is np.float64):
            return curvature.largest_eigenvalue(
                lambda vector: jnp.asarray(scaled) * vector, 300, np.dtype(dtype), 1e-2
            )

    assert found(0) == pytest.approx(1, rel=1e-2)
    for exponent in (-90, -40, -20, 20, 90):
        assert found(exponent) == found(0) * 2.0**exponent


def test_the_products_are_pytorchs(tiny_dataset):
    import torch

    from torchref import model as reference

    ready = prepare(SMALL, tiny_dataset)
    batches = next(ready.order)
    with precision(SMALL):
        params = ready.state.params
        static = static_part(SMALL)
        arguments = (static, ready.widths, params)
        root = curvature.root_rates(*arguments, ready.hyper, batches, ready.images)
        flat, unravel = ravel_pytree(params)
        vector = np.random.default_rng(0).normal(size=flat.size)
        ours = curvature.hessian_product(
            *arguments, root, ready.hyper, batches, ready.images, jnp.asarray(vector)
        )
        layers = jax.tree.map(np.asarray, (params, unravel(jnp.asarray(vector)), unravel(ours)))
        inputs = np.array(
            curvature.preprocess(
                static,
                ready.images.train_images[batches.ravel()],
                ready.images,
                ready.hyper.input_scale,
            )
        )
    net = reference.MLP(ready.widths, False, torch.float64)
    reference.set_weights(net, layers[0])
    labels = torch.from_numpy(np.array(tiny_dataset.train_labels)[batches.ravel()]).long()
    weights = tuple(net.parameters())
    roots = [rate**0.5 for rate in SMALL.per_layer("learning_rate")]

    def loss(*values):
        named = dict(zip((name for name, _ in net.named_parameters()), values, strict=True))
        logits, _ = torch.func.functional_call(net, named, (torch.from_numpy(inputs),))
        return torch.nn.functional.cross_entropy(logits, labels)

    direction = tuple(
        root * torch.from_numpy(layer["kernel"].T.copy())
        for root, layer in zip(roots, layers[1], strict=True)
    )
    _, products = torch.autograd.functional.hvp(loss, weights, direction)
    for root, product, mine in zip(roots, products, layers[2], strict=True):
        theirs = root * product.numpy().T
        np.testing.assert_allclose(
            mine["kernel"], theirs, rtol=1e-10, atol=1e-12 * abs(theirs).max()
        )


LIMITS = [  # from the linear recurrences worked out by hand
    ({"momentum": 0.0}, 2.0),
    ({}, 3.8),
    ({"nesterov": True}, 2 * 1.9 / 2.8),
    ({"dampening": 0.5}, 3.8 / 0.5),
    ({"optimizer": "adam"}, 38.0),
    ({"optimizer": "rmsprop"}, 2.0),
    ({"optimizer": "rmsprop", "momentum": 0.5}, 3.0),
    ({"optimizer": "adagrad"}, 2.0),
]


@pytest.mark.parametrize(("settings", "limit"), LIMITS)
def test_the_limits_are_the_literatures(settings, limit):
    assert curvature.stability_limit(Experiment(**settings)) == pytest.approx(limit)


def iterate(experiment: Experiment, curved: float) -> float:
    """How far the optimizer's own linear part takes x from 1 on curved·x²/2 in 400 steps."""
    asked: Any = experiment
    x = 1.0
    buffer = None
    average = 0.0
    for _ in range(400):
        g = curved * x
        if experiment.optimizer == "lion":
            step = asked.beta1 * average + (1 - asked.beta1) * g
            average = asked.beta2 * average + (1 - asked.beta2) * g
        elif experiment.optimizer == "adam":
            average = asked.beta1 * average + (1 - asked.beta1) * g
            step = average
        else:
            mu, damp = asked.momentum, asked.dampening
            buffer = g if buffer is None else mu * buffer + (1 - damp) * g
            step = g + mu * buffer if asked.nesterov else buffer
        x -= step
    return abs(x)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": True},
        {"dampening": 0.3},
        {"optimizer": "adam"},
        {"optimizer": "lion"},
        {"optimizer": "lion", "beta1": 0.5, "beta2": 0.7},
        {"optimizer": "lion", "beta1": 0.9, "beta2": 0.5},
        {"optimizer": "lion", "beta1": 0.9, "beta2": 0.8},
    ],
)
def test_below_the_limit_the_iteration_shrinks_above_it_grows(settings):
    experiment = Experiment(**settings)
    limit = curvature.stability_limit(experiment)
    assert iterate(experiment, 0.95 * limit) < 1 < iterate(experiment, 1.05 * limit)


def test_an_overflown_hessian_has_no_sharpness(tiny_dataset):
    huge = dataclasses.replace(SMALL, precision="float32", input_scale=3e38, init_scale=(1e3,))
    found = of(huge, tiny_dataset, 1e-2)
    assert np.isnan(found.value)
    assert np.isnan(found.ratio)


def test_where_nothing_learns_there_is_no_sharpness(tiny_dataset):
    frozen = dataclasses.replace(SMALL, learning_rate=(0.0,))
    assert of(frozen, tiny_dataset).value == 0


@pytest.mark.smoke
def test_a_network_of_a_few_parameters_is_done_densely(tiny_dataset):
    first = {
        f"{split}_{kind}": getattr(tiny_dataset, f"{split}_{kind}")
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    first |= {name: array[:, :1, :1, :1] for name, array in first.items() if "images" in name}
    little = dataclasses.replace(tiny_dataset, **first)
    experiment = dataclasses.replace(SMALL, hidden=(), learning_rate=(0.1,))
    assert of(experiment, little).value == pytest.approx(dense(experiment, little), rel=1e-9)


def test_the_sample_is_the_runs_first_images():
    order = np.arange(1200).reshape(4, 300)
    assert curvature.sample(order).shape == (3, 300)
    assert curvature.sample(order, 300).tolist() == [list(range(300))]
    assert curvature.sample(np.arange(5000).reshape(1, 5000)).shape == (1, 1000)
