"""The two sides, doing the same thing: the project's own code, called as the commands call it.

They share what goes in (weights, pixels, index arrays, numbers) and nothing else. What comes out is
NumPy: layers of kernel (fan_in, fan_out) and bias, under the names of jaxmlp's parameters.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import torch

import torchref.data
import torchref.model
import torchref.run
import torchref.train
from jaxmlp import torch_rng
from jaxmlp.commands import torch_side
from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.experiment import Experiment
from jaxmlp.training import model, optimizer, preprocessing
from jaxmlp.training.run import prepare
from jaxmlp.training.step import (
    batch_step,
    flipped,
    hyperparameters,
    initial_state,
    layer_chains,
    loss_function,
    static_part,
)

Layers = list[dict[str, np.ndarray]]
torch_device = "cpu"  # where the reference computes; scripts/parity.py can choose cuda
BUFFERS = {  # of optax's states, by their names: torch's names for what they keep
    "MomentumState": {"buffer": "momentum_buffer"},
    "ScaleByAdamState": {"mu": "exp_avg", "nu": "exp_avg_sq"},
    "ScaleByRmsState": {"nu": "square_avg"},
    "ScaleByLionState": {"mu": "exp_avg"},
    "AdagradState": {"sum": "sum"},
}


class Gradients(NamedTuple):
    loss: np.ndarray
    hidden: list[np.ndarray]
    grads: Layers


class Stepped(NamedTuple):
    """After a step: parameters, the optimizer's buffers by torch's names, its count of steps."""

    params: Layers
    buffers: list[dict[str, np.ndarray]]  # "kernel.exp_avg", ...
    steps: list[Any]


def clear() -> None:
    """Forgets compiled programs; needed when the code under them has changed."""
    for cached in (_jax_forward, _jax_gradients, _jax_preprocess, _jax_scan, _jax_update):
        cached.cache_clear()


def numpy_dtype(experiment: Experiment) -> type[np.floating]:
    return np.float64 if experiment.precision == "float64" else np.float32


def torch_dtype(experiment: Experiment) -> torch.dtype:
    return torch.float64 if experiment.precision == "float64" else torch.float32


def _shape(weights: Layers) -> tuple[int, ...]:
    return (len(weights[0]["kernel"]), *(layer["kernel"].shape[1] for layer in weights))


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, jax.device_get(tree))


def tensor_of(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(torch_device)


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy(force=True).copy()


def gradient_of(parameter: torch.Tensor) -> np.ndarray:
    assert parameter.grad is not None
    return numpy_of(parameter.grad)


# ---- weights and the order of batches


def jax_weights(seed: int, shape: tuple[int, ...], bias: bool, dtype: type[np.floating]) -> Layers:
    return torch_rng.initial_weights(torch_rng.TorchGenerator(seed), shape, bias, dtype)


def torch_weights(
    seed: int, shape: tuple[int, ...], bias: bool, dtype: type[np.floating]
) -> Layers:
    torch.manual_seed(seed)
    width = torch.float64 if dtype is np.float64 else torch.float32
    return torchref.model.get_weights(torchref.model.MLP(shape, bias, width))


def jax_scaled_weights(experiment: Experiment, weights: Layers) -> Layers:
    with precision(experiment):
        hyper = hyperparameters(experiment)
        start = jax.jit(initial_state, static_argnums=(0, 3))
        return _host(start(static_part(experiment), weights, hyper, 1).params)


def torch_model(experiment: Experiment, weights: Layers) -> torchref.model.MLP:
    """A model that holds these weights."""
    made = torchref.model.MLP(_shape(weights), experiment.bias, torch_dtype(experiment))
    torchref.model.set_weights(made, weights)
    return made.to(torch_device)


def torch_scaled_weights(experiment: Experiment, weights: Layers) -> Layers:
    made = torch_model(experiment, weights)
    torchref.model.scale_weights(made, experiment.per_tensor("init_scale"))
    return torchref.model.get_weights(made)


# ---- inputs


@functools.cache
def _jax_preprocess() -> Callable:
    return jax.jit(preprocessing.preprocess, static_argnums=0)


def jax_inputs(
    experiment: Experiment, dataset: Dataset, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A training batch as it enters the network, and its labels."""
    with precision(experiment):
        images = preprocessing.put_images(experiment, dataset)
        scale = hyperparameters(experiment).input_scale
        chosen = images.train_images[indices]
        inputs = _jax_preprocess()(static_part(experiment), chosen, images, scale)
        return _host((inputs, images.train_labels[indices]))


def torch_images(experiment: Experiment, dataset: Dataset) -> torchref.data.ArrayImages:
    normalization = torchref.data.statistics(dataset.train_images, experiment.preprocessing)
    return torchref.data.ArrayImages(
        dataset.train_images,
        dataset.train_labels,
        normalization,
        experiment.input_scale,
        torch_dtype(experiment),
        torch_device,
    )


def torch_inputs(
    experiment: Experiment, dataset: Dataset, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = torch_images(experiment, dataset)[indices.tolist()]
    return numpy_of(inputs.flatten(1)), numpy_of(labels).astype(np.int32)


# ---- forward and gradients


@functools.cache
def _jax_forward(shape: tuple[int, ...], bias: bool, precision: str) -> Callable:
    return jax.jit(model.mlp(shape, bias, float_dtype(Experiment(precision=precision))))


def jax_forward(
    experiment: Experiment, weights: Layers, inputs: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Hidden activations and logits."""
    with precision(experiment):
        forward = _jax_forward(_shape(weights), experiment.bias, experiment.precision)
        logits, hidden = _host(forward(weights, inputs))
    return hidden, logits


def torch_forward(
    experiment: Experiment, weights: Layers, inputs: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    with torch.no_grad():
        logits, hidden = torch_model(experiment, weights)(tensor_of(inputs))
    return [numpy_of(layer) for layer in hidden], numpy_of(logits)


def jax_squared_error(apply, params, inputs, targets):
    """Half the sum of squares over the batch: a loss that can be exact."""
    logits, hidden = apply(params, inputs)
    return 0.5 * ((logits - targets) ** 2).sum() / len(targets), (0, hidden)


def torch_squared_error(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((logits - targets) ** 2).sum() / len(targets)


@functools.cache
def _jax_gradients(shape: tuple[int, ...], bias: bool, precision: str, squared: bool) -> Callable:
    apply = model.mlp(shape, bias, float_dtype(Experiment(precision=precision)))
    loss = jax_squared_error if squared else loss_function
    return jax.jit(functools.partial(jax.value_and_grad(loss, argnums=1, has_aux=True), apply))


def jax_gradients(
    experiment: Experiment, weights: Layers, inputs: np.ndarray, labels: np.ndarray
) -> Gradients:
    """Cross-entropy for integer labels, squared error for floating-point targets."""
    squared = labels.dtype.kind == "f"
    with precision(experiment):
        gradients = _jax_gradients(_shape(weights), experiment.bias, experiment.precision, squared)
        (loss, (_, hidden)), grads = _host(gradients(weights, inputs, labels))
    return Gradients(loss, hidden, grads)


def torch_gradients(
    experiment: Experiment, weights: Layers, inputs: np.ndarray, labels: np.ndarray
) -> Gradients:
    made = torch_model(experiment, weights)
    logits, hidden = made(tensor_of(inputs))
    if labels.dtype.kind == "f":
        loss = torch_squared_error(logits, tensor_of(labels))
    else:
        loss = torchref.train.loss_function(logits, tensor_of(labels).long())
    loss.backward()
    grads = [
        {name: gradient_of(p).T.copy() for name, p in torchref.model.named(layer)}
        for layer in made.layers
    ]
    return Gradients(numpy_of(loss), [numpy_of(layer) for layer in hidden], grads)


# ---- optimizers and schedules


class Change(NamedTuple):
    """From this step on, counted from 0, every learning rate is multiplied by factor."""

    step: int
    factor: float


@functools.cache
def _jax_update(experiment: Experiment, per_epoch: int) -> Callable:
    def update(hyper, grads, state, params):
        chains = layer_chains(experiment, hyper, per_epoch)
        updates, state = chains.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(update)


def jax_optimizer(
    experiment: Experiment, weights: Layers, grads: list[Layers], per_epoch: int, change: Change
) -> Iterator[Stepped]:
    """The state after each of the given gradients."""
    with precision(experiment):
        hyper = hyperparameters(experiment)
        faster = {
            name: rates._replace(learning_rate=rates.learning_rate * change.factor)
            for name, rates in hyper.rates.items()
        }
        changed = hyper._replace(rates=faster)
        state = layer_chains(experiment, hyper, per_epoch).init(weights)
        params, compiled = weights, _jax_update(static_part(experiment), per_epoch)
        for step, layer_grads in enumerate(grads):
            now = hyper if step < change.step else changed
            params, state = compiled(now, layer_grads, state, params)
            yield jax_stepped(params, state)


def jax_stepped(params: Any, opt_state: Any) -> Stepped:
    """The host's view of parameters and optax's state."""
    buffers, steps = [], []
    for layer in _host(opt_state):
        links = [(key, link) for key, chain in sorted(layer.items()) for link in _links(chain)]
        buffers.append(
            {
                f"{key}.{name}": getattr(link, field)
                for key, link in links
                for field, name in BUFFERS.get(type(link).__name__, {}).items()
            }
        )
        steps += [link.count for _, link in links if isinstance(link, optax.ScaleByScheduleState)]
    return Stepped(_host(params), buffers, steps)


def _links(chain: Any) -> Iterator[Any]:
    """The states of a chain's links, those of chains within it included."""
    for link in chain:
        if type(link) is tuple:
            yield from _links(link)
        else:
            yield link


def torch_optimizer(
    experiment: Experiment, weights: Layers, grads: list[Layers], per_epoch: int, change: Change
) -> Iterator[Stepped]:
    made = torch_model(experiment, weights)
    optimizers, schedulers = torch_optimizers(experiment, made, per_epoch)
    for step, layer_grads in enumerate(grads):
        if step == change.step:
            for stepped, scheduler in zip(optimizers, schedulers, strict=True):
                scale_rates(stepped, scheduler, change.factor)
        for layer, values in zip(made.layers, layer_grads, strict=True):
            for name, parameter in torchref.model.named(layer):
                parameter.grad = tensor_of(values[name].T.copy())
        for stepped in optimizers:
            stepped.step()
        for scheduler in schedulers:
            scheduler.step()
        yield torch_stepped(made, optimizers, schedulers)


def torch_optimizers(
    experiment: Experiment, made: torchref.model.MLP, per_epoch: int
) -> tuple[list, list]:
    """The reference's optimizer and scheduler of each layer of a model."""
    widths = _shape(torchref.model.get_weights(made))
    return torchref.run.optimizers(torch_side.settings(experiment, widths), made, per_epoch)


def scale_rates(stepped: torch.optim.Optimizer, scheduler: Any, factor: float) -> None:
    """Another base rate in mid-run, for the optimizer and for every scheduler on it."""
    for group in stepped.param_groups:
        group["lr"] *= factor
    nested = getattr(scheduler, "_schedulers", [])
    for each in (scheduler, *nested):
        if hasattr(each, "base_lrs"):
            each.base_lrs = [rate * factor for rate in each.base_lrs]


def torch_stepped(made: torchref.model.MLP, optimizers: list, schedulers: list) -> Stepped:
    buffers = []
    for layer, stepped in zip(made.layers, optimizers, strict=True):
        buffers.append(
            {
                f"{key}.{name}": numpy_of(value).T.copy()
                for key, parameter in torchref.model.named(layer)
                for name, value in stepped.state[parameter].items()
                if name != "step" and value is not None
            }
        )
    steps = [
        scheduler.last_epoch
        for layer, scheduler in zip(made.layers, schedulers, strict=True)
        for _ in layer.parameters()
    ]
    return Stepped(torchref.model.get_weights(made), buffers, steps)


def jax_rates(experiment: Experiment, per_epoch: int, steps: int) -> np.ndarray:
    """Learning rates (steps, layers), as each step multiplies them in."""
    with precision(experiment):
        hyper = hyperparameters(experiment)
        counts = jax.numpy.arange(steps, dtype=jax.numpy.int32)
        columns = [
            jax.lax.map(optimizer.scheduled_rate(experiment, layer, rate, per_epoch), counts)
            for layer, rate in enumerate(hyper.rates["kernel"].learning_rate)
        ]
        return np.stack(_host(columns), axis=1).astype(numpy_dtype(experiment))


def torch_rates(experiment: Experiment, per_epoch: int, steps: int) -> np.ndarray:
    made = torchref.model.MLP((2,) * (experiment.layers + 1), bias=False)
    optimizers, schedulers = torch_optimizers(experiment, made, per_epoch)
    rows = []
    for _ in range(steps):
        rows.append([stepped.param_groups[0]["lr"] for stepped in optimizers])
        for stepped, scheduler in zip(optimizers, schedulers, strict=True):
            stepped.step()
            scheduler.step()
    return np.array(rows).astype(numpy_dtype(experiment))


# ---- whole trajectories


class Trace(NamedTuple):
    """After each step of an epoch: its metrics, and every tensor of the state."""

    metrics: dict[str, np.ndarray]  # loss, correct, grad_norm, dead; leading axis of steps
    tensors: dict[str, np.ndarray]  # layer1.kernel, layer1.kernel.momentum_buffer, ...


def _named(stepped: Stepped) -> dict[str, np.ndarray]:
    named = {}
    for i, (params, buffers) in enumerate(zip(stepped.params, stepped.buffers, strict=True)):
        named |= {f"layer{i + 1}.{name}": value for name, value in {**params, **buffers}.items()}
    return named


@functools.cache
def _jax_scan(experiment: Experiment, shape: tuple[int, ...], per_epoch: int) -> Callable:
    """An epoch that also hands out the whole state after each step."""

    def epoch(state, hyper, batch_indices, images):
        step = batch_step(experiment, shape, hyper, images, per_epoch)

        def body(state, indices):
            state, metrics = step(flipped(state), indices)
            state = flipped(state)
            return state, (state, metrics)

        return jax.lax.scan(body, state, batch_indices)

    return jax.jit(epoch)


def jax_trajectory(experiment: Experiment, dataset: Dataset, epochs: int) -> Iterator[Trace]:
    """A run from its seed on, an epoch at a time."""
    with precision(experiment):
        run = prepare(experiment, dataset)
        scan = _jax_scan(static_part(experiment), run.widths, run.steps_per_epoch)
        state = run.state
        for _ in range(epochs):
            state, (states, metrics) = scan(state, run.hyper, next(run.order), run.images)
            yield Trace(_host(metrics._asdict()), _named(jax_stepped(*states)))


def torch_trajectory(
    experiment: Experiment, dataset: Dataset, epochs: int, nudge: int | None = None
) -> Iterator[Trace]:
    """The same in PyTorch.

    Args:
        nudge: a seed; every initial weight is moved by one unit in the last place, up or down.
    """
    run = torch_side.torch_run(experiment, dataset, device=torch_device)
    if nudge is not None:
        nudge_weights(run.model, nudge)
    for _ in range(epochs):
        metrics, tensors = [], []
        for images, labels in run.loaders[0]:
            step = torchref.train.train_step(
                run.model, run.optimizers, run.schedulers, images, labels
            )
            metrics.append({name: numpy_of(value) for name, value in step._asdict().items()})
            tensors.append(_named(torch_stepped(run.model, run.optimizers, run.schedulers)))
        torchref.train.evaluate(run.model, run.loaders[1])  # it draws from the generator, too
        yield Trace(
            *(
                {key: np.stack([row[key] for row in rows]) for key in rows[0]}
                for rows in (metrics, tensors)
            )
        )


def nudge_weights(model: torchref.model.MLP, seed: int) -> None:
    """Moves every weight by one unit in the last place, up or down."""
    draw = np.random.default_rng(seed)
    weights = torchref.model.get_weights(model)
    for layer in weights:
        for name, weight in layer.items():
            towards = np.where(draw.random(weight.shape) < 0.5, np.inf, -np.inf)
            layer[name] = np.nextafter(weight, towards, dtype=weight.dtype)
    torchref.model.set_weights(model, weights)


@contextlib.contextmanager
def planted() -> Iterator[None]:
    """Around changed code: nothing compiled before is used inside, nothing from inside after."""
    clear()
    jax.clear_caches()
    try:
        yield
    finally:
        clear()
        jax.clear_caches()
