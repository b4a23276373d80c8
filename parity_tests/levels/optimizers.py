"""Optimizers and schedules: every tensor of the state after every step, from the same gradients."""

import itertools
from collections.abc import Iterator

import numpy as np

from jaxmlp.experiment import OPTIMIZER_OPTIONS, Experiment
from parity_tests import sides, truth
from parity_tests.bounds import UNIT, Bounded, constant, exact
from parity_tests.comparison import Comparison, bitwise, derived

OPTIMIZERS: dict[str, dict] = {  # options of Experiment; eps and rates per layer come on top
    "sgd": {},
    "sgd, no momentum": {"momentum": 0.0},
    "sgd, dampening": {"dampening": 0.4},
    "sgd, nesterov": {"nesterov": True},
    "adam": {"optimizer": "adam"},
    "adam, betas": {"optimizer": "adam", "beta1": 0.5, "beta2": 0.95},
    "adam, beta1 = 0": {"optimizer": "adam", "beta1": 0.0},
    "adamw": {"optimizer": "adamw"},
    "adamw, beta2 = 0.9999": {"optimizer": "adamw", "beta2": 0.9999},
    "rmsprop": {"optimizer": "rmsprop"},
    "rmsprop, momentum": {"optimizer": "rmsprop", "momentum": 0.8, "alpha": 0.9},
    "adagrad": {"optimizer": "adagrad"},
    "lion": {"optimizer": "lion"},
    "lion, betas": {"optimizer": "lion", "beta1": 0.7, "beta2": 0.6},
}
SCHEDULES: dict[str, dict] = {
    "constant": {},
    "warm-up": {"warmup_epochs": (1.5,)},
    "cosine": {"schedule": ("cosine",)},
    "cosine after warm-up": {"schedule": ("cosine",), "warmup_epochs": (0.75,)},
    "step": {"schedule": ("step",), "milestones": (2, 3, 7), "gamma": (0.3,)},
    "step after warm-up": {
        "schedule": ("step",),
        "milestones": (1, 2, 5),
        "gamma": (0.5,),
        "warmup_epochs": (2.0,),
    },
    "exponential": {"schedule": ("exponential",), "gamma": (0.7,)},
    "exponential after warm-up": {
        "schedule": ("exponential",),
        "gamma": (0.7,),
        "warmup_epochs": (1.25,),
    },
    "warm-up rounded to a step": {"warmup_epochs": (0.3,)},
    "warm-up rounded to two": {"warmup_epochs": (0.45,), "schedule": ("cosine",)},
    "warm-up past the end": {"warmup_epochs": (9.0,)},
    "another for each layer": {
        "schedule": ("cosine", "step", "exponential"),
        "milestones": (3,),
        "gamma": (0.1, 0.2, 0.6),
        "warmup_epochs": (0.5, 1.0, 0.0),
        "hidden": (5, 4),
        "learning_rate": (0.02, 0.3, 0.0),
    },
}
QUICK = ("sgd", "adamw, beta2 = 0.9999", "rmsprop, momentum")  # in float32
PER_EPOCH = 4  # steps; the experiments below have 8 epochs
CHANGE = sides.Change(step=5, factor=3.7)


def optimizers(quick: bool = False) -> Iterator[Comparison]:
    """Parameters and every state buffer after every step, from the same gradients.

    Rates and decays differ between the layers, and between weights and biases;
    in mid-run all rates change.
    """
    rows = [(name, dtype, False) for name in OPTIMIZERS for dtype in ("float32", "float64")]
    rows = [(*row[:2], True) for row in rows if row[1] == "float64"] + rows
    for name, precision, scheduled in rows:
        if quick and not scheduled and (precision == "float64" or name not in QUICK):
            continue
        settings = dict(OPTIMIZERS[name])
        if settings.get("optimizer", "sgd") not in ("sgd", "lion"):
            settings |= {"eps": (1e-3, 1e-5), "bias_eps": (1e-4, 1e-6)}
        if scheduled:
            settings |= {"schedule": ("exponential",), "gamma": (0.7,), "warmup_epochs": (1.5,)}
        experiment = Experiment(
            hidden=(5,),
            bias=True,
            learning_rate=(0.02, 0.3),
            weight_decay=(0.1, 0.003),
            epochs=8,
            bias_learning_rate=(0.05, 0.007),
            bias_weight_decay=(0.02, 0.0),
            precision=precision,
            **settings,
        )
        check = f"{name}, {precision}" + ", scheduled" * scheduled
        yield from _optimizer(("optimizers", check), experiment, steps=8 if quick else 12)


def _optimizer(where: tuple[str, str], experiment: Experiment, steps: int) -> Iterator[Comparison]:
    dtype, unit = sides.numpy_dtype(experiment), 2 * UNIT[experiment.precision]
    draw = np.random.default_rng(7)
    weights = sides.torch_weights(4, (7, 5, 3), True, dtype)
    grads = [_random_grads(draw, weights, step) for step in range(steps)]
    arguments = (experiment, weights, grads, PER_EPOCH, CHANGE)
    runs = zip(sides.jax_optimizer(*arguments), sides.torch_optimizer(*arguments), strict=True)
    options = {name: getattr(experiment, name) for name in (*OPTIMIZER_OPTIONS, "nesterov")}
    true = [{name: exact(w, unit) for name, w in layer.items()} for layer in weights]
    kept: list[dict] = [{name: {} for name in layer} for layer in weights]
    for step, (jax, torch) in enumerate(runs):
        for i, name in ((i, name) for i, layer in enumerate(weights) for name in layer):
            rate = _rate(experiment, i, step) * constant(
                experiment.per_tensor("learning_rate")[name][i]
                * (1.0 if step < CHANGE.step else CHANGE.factor),
                unit,
            )
            settings = truth.Settings(
                experiment.optimizer,
                experiment.per_tensor("weight_decay")[name][i],
                experiment.per_tensor("eps")[name][i] if experiment.eps else 0.0,
                options,
            )
            true[i][name], kept[i][name] = truth.optimizer_step(
                settings, true[i][name], grads[step][i][name], kept[i][name], rate, step + 1
            )
            tensor = f"step {step + 1} layer{i + 1}.{name}"
            yield derived(
                (*where, tensor), jax.params[i][name], torch.params[i][name], true[i][name]
            )
            buffers = {f"{name}.{buffer}": value for buffer, value in kept[i][name].items()}
            for buffer, value in buffers.items():
                yield derived(
                    (*where, f"step {step + 1} layer{i + 1}.{buffer}"),
                    jax.buffers[i].get(buffer, ()),
                    torch.buffers[i].get(buffer, ()),
                    value,
                )
        counted = [np.array(side.steps, np.int64) for side in (jax, torch)]
        yield bitwise((*where, f"step {step + 1} schedules' counts"), *counted)
        wanted = [
            sorted(f"{name}.{buffer}" for name, held in layer.items() for buffer in held)
            for layer in kept
        ]
        for who, side in (("jax", jax), ("torch", torch)):
            names = [sorted(layer) for layer in side.buffers]
            same = np.array(names == wanted)
            yield bitwise(
                (*where, f"step {step + 1} {who} keeps the buffers' names"), same, np.array(True)
            )


def _random_grads(draw: np.random.Generator, weights: sides.Layers, step: int) -> sides.Layers:
    """Of many sizes; a zero among them, and one step of zeros."""
    size = 0.0 if step == 3 else 10.0 ** draw.integers(-3, 3)
    grads = [
        {name: (size * draw.normal(size=w.shape)).astype(w.dtype) for name, w in layer.items()}
        for layer in weights
    ]
    grads[0]["kernel"][1, 2] = 0
    return grads


def _rate(experiment: Experiment, layer: int, step: int) -> Bounded:
    return truth.rate_factor(
        experiment.per_layer("schedule")[layer],
        step,
        round(experiment.per_layer("warmup_epochs")[layer] * PER_EPOCH),
        experiment.epochs * PER_EPOCH,
        PER_EPOCH,
        experiment.milestones,
        experiment.per_layer("gamma")[layer],
        experiment.precision,
    )


def schedules(quick: bool = False) -> Iterator[Comparison]:
    """Every layer's learning rate at every step of a run."""
    precisions = ("float64",) if quick else ("float32", "float64")
    for (name, settings), precision in itertools.product(SCHEDULES.items(), precisions):
        asked = {"hidden": (5,), "learning_rate": (0.02, 0.3), **settings}
        experiment = Experiment(epochs=8, precision=precision, **asked)
        unit, steps = UNIT[precision], experiment.epochs * PER_EPOCH
        jax = sides.jax_rates(experiment, PER_EPOCH, steps)
        torch = sides.torch_rates(experiment, PER_EPOCH, steps)
        for layer in range(experiment.layers):
            rate = constant(experiment.per_layer("learning_rate")[layer], unit)
            rates = [_rate(experiment, layer, step) * rate for step in range(steps)]
            yield derived(
                ("schedules", f"{name}, {precision}", f"layer{layer + 1}, step "),
                jax[:, layer],
                torch[:, layer],
                Bounded(
                    np.stack([rate.value for rate in rates]),
                    np.stack([rate.error for rate in rates]),
                    unit,
                ),
            )
