"""Optimizers with torch's semantics and schedules: one optax chain per tensor of each layer."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmlp.experiment import DECOUPLED, Experiment

LAST = 2**31 - 1  # where optax's count of steps stops; a later step never comes


class LayerRates(NamedTuple):
    """The traced settings of a layer's kernel or bias; scalars (in a stack of layers: arrays)."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    eps: Float[Array, ""]  # unused by optimizers that have none


class MomentumState(NamedTuple):
    step: Int[Array, ""]
    buffer: optax.Updates


def momentum(decay: float, dampening: float, nesterov: bool) -> optax.GradientTransformation:
    """torch.optim.SGD's momentum: buffer = decay·buffer + (1 - dampening)·gradient.

    The first step stores the whole gradient, without dampening.
    """

    def init(params):
        return MomentumState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        if dampening:
            fresh = jnp.where(state.step == 0, 1.0, 1.0 - dampening)
            buffer = jax.tree.map(
                lambda b, g: decay * b + fresh.astype(g.dtype) * g, state.buffer, updates
            )
        else:
            buffer = jax.tree.map(lambda b, g: decay * b + g, state.buffer, updates)
        direction = buffer
        if nesterov:
            direction = jax.tree.map(lambda g, b: g + decay * b, updates, buffer)
        return direction, MomentumState(state.step + 1, buffer)

    return optax.GradientTransformation(init, update)


def scale_by_adam(
    beta1: float, beta2: float, eps: Float[Array, ""]
) -> optax.GradientTransformation:
    """torch.optim.Adam's direction, bias corrections to float32's full precision.

    optax's own takes 1 - beta^t as a difference in float32; at t = 1 and beta2 = 0.999 the rounding
    of beta is 3e-5 of it. Here it is -expm1(t log beta), good to a few units in the last place.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def correction(beta, count, dtype):
        return -jnp.expm1(count.astype(dtype) * (math.log(beta) if beta else -math.inf))

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * (g * g), state.nu, updates)

        def direction(m, v):
            mean = m / correction(beta1, count, m.dtype)
            return mean / (jnp.sqrt(v / correction(beta2, count, v.dtype)) + eps)

        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


class AdagradState(NamedTuple):
    sum: optax.Updates


def scale_by_adagrad(eps: Float[Array, ""]) -> optax.GradientTransformation:
    """torch.optim.Adagrad's direction: g / (sqrt(sum of g²) + eps), the sum starting at 0.

    optax's own adds eps inside the root.
    """

    def init(params):
        return AdagradState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        squares = jax.tree.map(lambda s, g: s + g * g, state.sum, updates)
        direction = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), updates, squares)
        return direction, AdagradState(squares)

    return optax.GradientTransformation(init, update)


def direction(experiment: Experiment, eps: Float[Array, ""]) -> optax.GradientTransformation:
    """What the optimizer makes of a gradient before the learning rate."""
    asked: Any = experiment  # no option of the chosen optimizer is None
    beta1, beta2 = asked.beta1, asked.beta2
    match experiment.optimizer:
        case "sgd" if not experiment.momentum:
            return optax.identity()
        case "sgd":
            return momentum(asked.momentum, asked.dampening, asked.nesterov)
        case "adam" | "adamw":
            return scale_by_adam(beta1, beta2, eps)
        case "rmsprop":
            scaled = optax.scale_by_rms(asked.alpha, eps, eps_in_sqrt=False)
            if not experiment.momentum:
                return scaled
            return optax.chain(scaled, momentum(asked.momentum, 0.0, False))
        case "adagrad":
            return scale_by_adagrad(eps)
        case "lion":
            return optax.scale_by_lion(beta1, beta2)
    raise AssertionError(experiment.optimizer)


def rate_factor(
    experiment: Experiment, layer: int, steps_per_epoch: int, count: Int[Array, ""], dtype: Any
) -> Float[Array, ""]:
    """The factor on layer's learning rate at the step `count`, from 0.

    A linear warm-up over n steps gives 1/n, 2/n, ..., 1. The clocks of `cosine` (to 0 at the end of
    the run) and `exponential` (gamma per epoch, once an epoch) start where the warm-up ends;
    milestones are epochs of the whole run.

    Counts are compared, subtracted and divided as whole numbers: as floats, float32's end at 2^24,
    and XLA makes count / n a product with the rounded 1 / n, whose floor at a multiple of n is one
    too small for some n.
    """
    warmup = round(experiment.per_layer("warmup_epochs")[layer] * steps_per_epoch)
    gamma, first = experiment.per_layer("gamma")[layer], min(warmup, LAST)
    after = jnp.maximum(count - first, 0)
    match experiment.per_layer("schedule")[layer]:
        case "constant":
            factor = jnp.ones((), dtype)
        case "cosine":
            factor = _cosine(after, experiment.epochs * steps_per_epoch - warmup, dtype)
        case "exponential":
            passed = jax.lax.div(after, jnp.int32(min(steps_per_epoch, LAST)))
            factor = jnp.power(jnp.asarray(gamma, dtype), passed.astype(dtype))
        case _:
            factor = jnp.ones((), dtype)
            for epoch in experiment.milestones:
                come = count >= min(epoch * steps_per_epoch, LAST)
                factor = jnp.where(come, gamma * factor, factor)
    if not warmup:
        return factor
    rising = (count + 1).astype(dtype) / _undivided(warmup, dtype)
    return jnp.where(count < first, rising, factor)


def _cosine(step: Int[Array, ""], steps: int, dtype: Any) -> Float[Array, ""]:
    """(1 + cos(pi step / steps)) / 2, from 1 to 0; written so that it is as exact near 0."""
    steps = min(max(steps, 1), LAST)
    left = jnp.maximum(steps - step, 0).astype(dtype) / _undivided(steps, dtype)
    return jnp.square(jnp.sin(math.pi / 2 * left))


def _undivided(divisor: int, dtype: Any) -> Float[Array, ""]:
    """A divisor that XLA does not replace by its reciprocal: n / n is 1."""
    return jax.lax.optimization_barrier(jnp.asarray(divisor, dtype))


def scheduled_rate(
    experiment: Experiment, layer: int, rate: Float[Array, ""], steps_per_epoch: int
) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """The layer's learning rate as a function of the step, counted from 0."""
    return lambda count: rate * rate_factor(experiment, layer, steps_per_epoch, count, rate.dtype)


def tensor_optimizer(
    experiment: Experiment, layer: int, rates: LayerRates, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The whole chain of one tensor of a layer: decay, direction, scheduled learning rate."""
    decay = optax.add_decayed_weights(rates.weight_decay)
    step = direction(experiment, rates.eps)
    links = (step, decay) if experiment.optimizer in DECOUPLED else (decay, step)
    rate = scheduled_rate(experiment, layer, rates.learning_rate, steps_per_epoch)
    schedule = optax.scale_by_schedule(lambda count: -rate(jnp.asarray(count, jnp.int32)))
    return optax.chain(*links, schedule)


def optimizer(
    experiment: Experiment, rates: list[dict[str, LayerRates]], steps_per_epoch: int
) -> optax.GradientTransformation:
    """The tensors' chains side by side, over a list of layers: each tensor meets its own alone."""
    chains = [
        {
            name: tensor_optimizer(experiment, layer, of_tensor, steps_per_epoch)
            for name, of_tensor in of_layer.items()
        }
        for layer, of_layer in enumerate(rates)
    ]

    def init(params):
        return [
            {name: chain.init(layer[name]) for name, chain in of_layer.items()}
            for of_layer, layer in zip(chains, params, strict=True)
        ]

    def update(updates, state, params=None):
        assert params is not None
        layers: Any = zip(chains, updates, state, params, strict=True)
        stepped = [
            {name: chain.update(g[name], s[name], p[name]) for name, chain in of_layer.items()}
            for of_layer, g, s, p in layers
        ]
        updates, state = (
            [{name: pair[part] for name, pair in layer.items()} for layer in stepped]
            for part in (0, 1)
        )
        return updates, state

    return optax.GradientTransformation(init, update)
