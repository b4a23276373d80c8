"""One run as one compiled program: an epoch is a scan over batches, then a look at the test set."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmlp.device.precision import float_dtype
from jaxmlp.experiment import SCALED, Experiment
from jaxmlp.record.metrics import Evaluation, StepMetrics
from jaxmlp.training.model import Apply, Params, mlp, quick
from jaxmlp.training.optimizer import LayerRates, optimizer
from jaxmlp.training.preprocessing import Images, preprocess

TRACED = (*SCALED, "seed")
EVALUATION_BATCH = 500  # test images at a time: bounds memory, and fills the matrix product
FEW_TEST_IMAGES = 100  # test images; seen to be summed in other orders: 20, 21, 32


class Hyperparameters(NamedTuple):
    """What a compiled program takes as arrays: other values need no other program.

    The dicts hold what belongs to the kernels, and with biases to them, one value per layer.
    """

    input_scale: Float[Array, ""]
    init_scale: dict[str, Float[Array, " layers"]]
    rates: dict[str, LayerRates]


class State(NamedTuple):
    params: Params
    opt_state: optax.OptState


def static_part(experiment: Experiment) -> Experiment:
    """The experiment with everything traced blanked: what decides which program is compiled."""
    blank = Experiment(optimizer=experiment.optimizer)
    return dataclasses.replace(experiment, **{name: getattr(blank, name) for name in TRACED})


def hyperparameters(
    experiment: Experiment, array: Callable[..., Any] = jnp.asarray
) -> Hyperparameters:
    """The experiment's traced settings as arrays of its precision.

    Args:
        array: makes one; `np.asarray` leaves them on the host.
    """
    dtype = np.dtype(float_dtype(experiment))
    init_scale = experiment.per_tensor("init_scale")
    no_eps = dict.fromkeys(init_scale, (0.0,) * experiment.layers)
    rates = (
        experiment.per_tensor("learning_rate"),
        experiment.per_tensor("weight_decay"),
        experiment.per_tensor("eps") if experiment.eps else no_eps,
    )
    return Hyperparameters(
        array(experiment.input_scale, dtype),
        {name: array(values, dtype) for name, values in init_scale.items()},
        {
            name: LayerRates(*(array(values[name], dtype) for values in rates))
            for name in init_scale
        },
    )


def initial_state(
    experiment: Experiment, weights: Params, hyper: Hyperparameters, steps_per_epoch: int
) -> State:
    """The default initial weights times each layer's init scale, and a fresh optimizer state."""
    params = [
        {name: hyper.init_scale[name][layer] * w for name, w in weight.items()}
        for layer, weight in enumerate(weights)
    ]
    return State(params, layer_chains(experiment, hyper, steps_per_epoch).init(params))


def abstract_state(experiment: Experiment, widths: tuple[int, ...], steps_per_epoch: int) -> State:
    """The shapes and types of a run's state, without the arrays."""
    dtype = float_dtype(experiment)
    weights = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = {"kernel": jax.ShapeDtypeStruct((fan_in, fan_out), dtype)}
        if experiment.bias:
            layer["bias"] = jax.ShapeDtypeStruct((fan_out,), dtype)
        weights.append(layer)

    def initial(weights: Params) -> State:
        return initial_state(experiment, weights, hyperparameters(experiment), steps_per_epoch)

    return jax.eval_shape(initial, weights)


def layer_chains(
    experiment: Experiment, hyper: Hyperparameters, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The layers' optimizers at the traced rates."""
    rates = [
        {name: LayerRates(*(value[layer] for value in of)) for name, of in hyper.rates.items()}
        for layer in range(experiment.layers)
    ]
    return optimizer(experiment, rates, steps_per_epoch)


def flipped(tree: Any) -> Any:
    """A state or parameters with their kernels in torch's layout, (fan_out, fan_in); or back.

    Steps are taken in that layout: on a CPU the products with it are the quicker ones.
    """
    return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)


def _inactive(active: list[Bool[Array, "images width"]], axis: int) -> Int[Array, " hidden"]:
    """Per hidden layer, over how many of the other axis's positions nothing is active on `axis`."""
    return jnp.array([jnp.sum(~jnp.any(layer, axis=axis)) for layer in active], jnp.int32)


def loss_function(
    apply: Apply,
    params: Params,
    inputs: Float[Array, "batch features"],
    labels: Int[Array, " batch"],
) -> tuple[Float[Array, ""], tuple[Int[Array, ""], list[Float[Array, "batch width"]]]]:
    """Cross-entropy, the mean over the batch; beside it right answers and hidden activations."""
    logits, hidden = apply(params, inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), (jnp.sum(jnp.argmax(logits, axis=1) == labels), hidden)


def train_step(
    apply: Apply,
    chains: optax.GradientTransformation,
    state: State,
    inputs: Float[Array, "batch features"],
    labels: Int[Array, " batch"],
) -> tuple[State, StepMetrics]:
    """One step of training on one batch."""
    gradient = jax.value_and_grad(loss_function, argnums=1, has_aux=True)
    (loss, (correct, hidden)), grads = gradient(apply, state.params, inputs, labels)
    updates, opt_state = chains.update(grads, state.opt_state, state.params)
    norms = jnp.array([optax.tree.norm(layer) for layer in grads])
    metrics = StepMetrics(loss, correct, norms, _inactive([h > 0 for h in hidden], axis=0))
    params: Any = optax.apply_updates(state.params, updates)
    return State(params, opt_state), metrics


def batch_step(
    experiment: Experiment,
    widths: tuple[int, ...],
    hyper: Hyperparameters,
    images: Images,
    steps_per_epoch: int,
) -> Callable[[State, Int[Array, " batch"]], tuple[State, StepMetrics]]:
    """The step from a `flipped` state and the indices of a batch: gather, preprocess, train."""
    given = mlp(widths, experiment.bias, float_dtype(experiment), quick)
    chains = layer_chains(experiment, hyper, steps_per_epoch)

    def apply(params, inputs):
        return given(flipped(params), inputs)

    def step(state, indices):
        pixels, labels = images.train_images[indices], images.train_labels[indices]
        inputs = preprocess(experiment, pixels, images, hyper.input_scale)
        return train_step(apply, chains, state, inputs, labels)

    return step


def run_epoch(
    experiment: Experiment,
    widths: tuple[int, ...],
    state: State,
    hyper: Hyperparameters,
    batch_indices: Int[Array, "steps batch"],
    images: Images,
) -> tuple[State, StepMetrics, Evaluation]:
    """One epoch of training and an evaluation on the test set; a pure function of its arrays.

    Args:
        experiment: only its static part is looked at (`static_part`).
        widths: of the input, every hidden layer, and the classes.
    """
    step = batch_step(experiment, widths, hyper, images, len(batch_indices))
    state, steps = jax.lax.scan(step, flipped(state), batch_indices)
    state = flipped(state)
    apply = mlp(widths, experiment.bias, float_dtype(experiment))
    return state, steps, evaluate(experiment, apply, state.params, hyper, images)


def evaluate(experiment, apply, params: Params, hyper: Hyperparameters, images: Images):
    """Loss, right answers, dead units and silent layers over the whole test set."""

    def one(image):
        pixels, label = image
        inputs = preprocess(experiment, pixels, images, hyper.input_scale)
        logits, hidden = apply(params, inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return loss, jnp.argmax(logits) == label, [h > 0 for h in hidden]

    losses, correct, active = jax.lax.map(
        one, (images.test_images, images.test_labels), batch_size=EVALUATION_BATCH
    )
    return Evaluation(
        _mean(losses), jnp.sum(correct), _inactive(active, axis=0), _inactive(active, axis=1)
    )


def _mean(losses: Float[Array, " images"]) -> Float[Array, ""]:
    """The mean; in one order in every program.

    XLA on a CPU unrolls a short sum in an order that depends on what it compiles beside it: a run's
    would not be in every bit that of the same run in a sweep.
    """
    if len(losses) >= FEW_TEST_IMAGES:
        return jnp.mean(losses)
    total, _ = jax.lax.scan(
        lambda sum_, loss: (sum_ + loss, None), jnp.zeros_like(losses[0]), losses
    )
    return total / len(losses)
