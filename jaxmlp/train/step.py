"""One run as one compiled program: an epoch is a scan over batches, then a look at the test set."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jaxmlp.data.dataset import Dataset
from jaxmlp.device import processes as devices
from jaxmlp.experiment import SCALED, Experiment
from jaxmlp.record import run_record as record
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.train.model import Apply, Params, mlp
from jaxmlp.train.optimizer import LayerRates, optimizer
from jaxmlp.train.preprocessing import Images, preprocess, put_images

TRACED = (*SCALED, "seed")
EVALUATION_BATCH = 500  # test images at a time: bounds memory, and fills the matrix product
FEW = 100  # test images; seen to be summed in other orders: 20, 21, 32


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


class StepMetrics(NamedTuple):
    """What each step leaves behind; under a scan each has a leading axis of steps."""

    loss: Float[Array, ""]  # of the batch, before the step
    correct: Int[Array, ""]  # images of the batch, before the step
    grad_norm: Float[Array, " layers"]  # L2, of the loss alone: without weight decay
    dead: Int[Array, " hidden"]  # units of each hidden layer that no image of the batch activates


class Evaluation(NamedTuple):
    """What the whole test set says; counts, so that shares are exact on the host."""

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    dead: Int[Array, " hidden"]  # units of each hidden layer that no image activates
    silent: Int[Array, " hidden"]  # images that activate no unit of each hidden layer


class EpochResult(NamedTuple):
    """One finished epoch, on the host."""

    steps: StepMetrics  # NumPy arrays with a leading axis of steps
    test: Evaluation
    params: Params  # on the device, after the epoch; given up to the next epoch when that starts
    seconds: float


def program(experiment: Experiment) -> Experiment:
    """The experiment with everything traced blanked: what decides which program is compiled."""
    blank = Experiment(optimizer=experiment.optimizer)
    return dataclasses.replace(experiment, **{name: getattr(blank, name) for name in TRACED})


def hyperparameters(experiment: Experiment) -> Hyperparameters:
    """The experiment's traced settings as arrays of its precision."""
    dtype = devices.dtype(experiment)
    init_scale = experiment.per_tensor("init_scale")
    no_eps = dict.fromkeys(init_scale, (0.0,) * experiment.layers)
    rates = (
        experiment.per_tensor("learning_rate"),
        experiment.per_tensor("weight_decay"),
        experiment.per_tensor("eps") if experiment.eps else no_eps,
    )
    return Hyperparameters(
        jnp.asarray(experiment.input_scale, dtype),
        {name: jnp.asarray(values, dtype) for name, values in init_scale.items()},
        {
            name: LayerRates(*(jnp.asarray(values[name], dtype) for values in rates))
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


def layer_chains(
    experiment: Experiment, hyper: Hyperparameters, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The layers' optimizers at the traced rates."""
    rates = [
        {name: LayerRates(*(value[layer] for value in of)) for name, of in hyper.rates.items()}
        for layer in range(experiment.layers)
    ]
    return optimizer(experiment, rates, steps_per_epoch)


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
    """The step from a state and the indices of a batch: gather, preprocess, train."""
    apply = mlp(widths, experiment.bias, devices.dtype(experiment))
    chains = layer_chains(experiment, hyper, steps_per_epoch)

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
        experiment: only its static part is looked at (`program`).
        widths: of the input, every hidden layer, and the classes.
    """
    step = batch_step(experiment, widths, hyper, images, len(batch_indices))
    state, steps = jax.lax.scan(step, state, batch_indices)
    apply = mlp(widths, experiment.bias, devices.dtype(experiment))
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
    if len(losses) >= FEW:
        return jnp.mean(losses)
    total, _ = jax.lax.scan(
        lambda sum_, loss: (sum_ + loss, None), jnp.zeros_like(losses[0]), losses
    )
    return total / len(losses)


class Start(NamedTuple):
    """A run before its first step, on the device."""

    widths: tuple[int, ...]  # of the input, every hidden layer, and the classes
    train_size: int
    steps_per_epoch: int
    images: Images
    hyper: Hyperparameters
    state: State
    order: Iterator[Int[np.ndarray, "steps batch"]]  # the epochs' batches, without end


_initialise = jax.jit(initial_state, static_argnums=(0, 3))


def start(experiment: Experiment, dataset: Dataset, images: Images | None = None) -> Start:
    """The run's images, weights, optimizer state and order of batches.

    Args:
        images: the data set on the device, if it is there already.

    Raises:
        ValueError: the batch size does not divide the training images, or the device cannot
            compute in the experiment's precision.
    """
    train_size, widths = len(dataset.train_labels), dataset.widths(experiment.hidden)
    steps_per_epoch = experiment.steps_per_epoch(train_size)
    with devices.precision(experiment):
        images = images or jax.block_until_ready(put_images(experiment, dataset))
        hyper = hyperparameters(experiment)
        generator = TorchGenerator(experiment.seed)
        dtype = np.dtype(devices.dtype(experiment)).type
        weights = initial_weights(generator, widths, experiment.bias, dtype)
        state = _initialise(program(experiment), weights, hyper, steps_per_epoch)
    order = batch_order(generator, train_size, experiment.batch_size)
    return Start(widths, train_size, steps_per_epoch, images, hyper, state, order)


def compile_epoch(
    experiment: Experiment,
    widths: tuple[int, ...],
    state: State,
    hyper: Hyperparameters,
    images: Images,
    steps: int,
    mesh: Mesh | None = None,
) -> Any:
    """`run_epoch`, compiled for arguments of these shapes; the state is given up to it.

    Args:
        steps: of an epoch.
        mesh: its devices share each batch, along the axis `batch`; the rest is on all of them.
    """
    placed: dict[str, Any] = {}
    if mesh is not None:
        everywhere, batches = (NamedSharding(mesh, P(*names)) for names in ((), (None, "batch")))
        placed = {
            "in_shardings": (everywhere, everywhere, batches, everywhere),
            "out_shardings": everywhere,
        }
    epoch = jax.jit(run_epoch, static_argnums=(0, 1), donate_argnums=2, **placed)
    indices = jax.ShapeDtypeStruct((steps, experiment.batch_size), jnp.int32)
    return epoch.lower(program(experiment), widths, state, hyper, indices, images).compile()


class Run:
    """A compiled run, ready to train: the program, its inputs, and how long it took to get there.

    Args:
        data_parallel: devices that share each batch; the same run to rounding.

    Raises:
        ValueError: as `start`; or there are not so many devices, or they do not divide the batch.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, data_parallel: int = 1) -> None:
        began = time.perf_counter()
        mesh = None
        if data_parallel != 1:
            mesh = devices.mesh(data_parallel, experiment.batch_size, only=True)
        self.experiment, self.start = experiment, start(experiment, dataset)
        if mesh is not None:
            images, hyper, state = devices.put(
                (self.start.images, self.start.hyper, self.start.state), NamedSharding(mesh, P())
            )
            self.start = self.start._replace(images=images, hyper=hyper, state=state)
        self.train_size, self.state = self.start.train_size, self.start.state
        self.done = 0
        self.setup_seconds = time.perf_counter() - began
        began = time.perf_counter()
        with devices.precision(experiment):
            self.compiled = compile_epoch(
                experiment, self.start.widths, self.state, self.start.hyper, self.start.images,
                self.start.steps_per_epoch, mesh,
            )  # fmt: skip
        self.compile_seconds = time.perf_counter() - began

    def resume(self, state: State, done: int) -> None:
        """Goes on from the state after `done` epochs, with the batches that follow them."""
        self.state, self.done = state, done
        for _ in range(done):
            next(self.start.order)

    def epochs(self) -> Iterator[EpochResult]:
        """Trains what is left, yielding after each epoch. Can be iterated once: the state moves."""
        left = range(self.done, self.experiment.epochs)
        batches = next(self.start.order) if left else None
        for epoch in left:
            began = time.perf_counter()
            with devices.precision(self.experiment):
                self.state, steps, test = self.compiled(
                    self.state, self.start.hyper, batches, self.start.images
                )
                if epoch + 1 < self.experiment.epochs:  # drawn while the device trains
                    batches = next(self.start.order)
                steps, test = jax.device_get((steps, test))  # waits
            yield EpochResult(steps, test, self.state.params, time.perf_counter() - began)

    def row(self, epoch: int, result: EpochResult) -> dict[str, Any]:
        """The record's entry for one epoch."""
        return row(self.experiment, epoch, result, len(self.start.images.test_labels))

    def steps(self, results: list[EpochResult]) -> dict[str, np.ndarray]:
        """The arrays of steps.npz."""
        return steps_arrays(self.experiment, [result.steps for result in results])


def row(experiment: Experiment, epoch: int, result: EpochResult, test_size: int) -> dict[str, Any]:
    """The record's entry for one epoch of a run."""
    loss, test = np.asarray(result.steps.loss), result.test
    return record.epoch_row(
        epoch,
        loss,
        np.asarray(result.steps.correct),
        len(loss) * experiment.batch_size,
        float(test.loss),
        int(test.correct),
        test_size,
        (test.dead / np.array(experiment.hidden)).tolist(),
        (test.silent / test_size).tolist(),
    )


def steps_arrays(experiment: Experiment, epochs: list[StepMetrics]) -> dict[str, np.ndarray]:
    """The arrays of steps.npz, from the epochs' metrics."""
    loss, _, grad_norm, dead = (np.concatenate(arrays) for arrays in zip(*epochs, strict=True))
    return {"loss": loss, "grad_norm": grad_norm, "dead": dead / np.array(experiment.hidden)}
