"""Sharpness at initialisation: the largest eigenvalue of D^½ H D^½, and the optimizer's limit.

H is the Hessian of the training loss, D the learning rates times the optimizer's preconditioner.
Gradient descent is stable along an eigenvector while the eigenvalue stays below a limit that the
momentum decides (Cohen et al. 2021, arXiv 2103.00065; for adaptive optimizers 2022, 2207.14484).
Unlike the plain sharpness of H this number belongs to the run: it is the same for every experiment
that is the same run (law/transport.py).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting.lanczos import Ritz, largest
from jaxmlp.forecasting.models import Sharpness
from jaxmlp.training.model import Params, mlp
from jaxmlp.training.optimizer import direction
from jaxmlp.training.preprocessing import Images, preprocess
from jaxmlp.training.run import Prepared, prepare
from jaxmlp.training.step import Hyperparameters, loss_function, static_part

SAMPLE = 1000  # images; measured: 5000 move the question's S by less than 3 %
TOLERANCE = 1e-7  # of the eigenvalue, relative
RESIDUAL = 1e-2  # ARPACK's tolerance, relative; the eigenvalue is closer, by its square
LANCZOS = 8  # vectors that ARPACK keeps; measured: converges in as many products as with 20
PRODUCTS = 300  # Hessian-vector products at most


def stability_limit(experiment: Experiment) -> float:
    """The largest eigenvalue of D^½ H D^½ at which the optimizer's iteration does not grow.

    Along an eigenvector the optimizer is a linear filter from gradient to step. The iteration grows
    when a root of its characteristic polynomial leaves the unit circle: at -1, where the filter's
    response to an alternating gradient, times the eigenvalue, reaches 2; for Lion with beta2 below
    beta1 as a pair, earlier. Preconditioners are taken as fixed.
    """
    asked: Any = experiment
    match experiment.optimizer:
        case "sgd" if experiment.nesterov:
            response = (1 + 2 * asked.momentum) / (1 + asked.momentum)
        case "sgd":
            response = (1 - asked.dampening) / (1 + asked.momentum)
        case "rmsprop":
            response = 1 / (1 + asked.momentum)
        case "adam" | "adamw":
            response = (1 - asked.beta1) / (1 + asked.beta1)
        case "lion":  # the step mixes the gradient with an average that decays at another rate
            average = (1 - asked.beta2) / (1 + asked.beta2)
            response = 1 - asked.beta1 - asked.beta1 * average
        case _:
            response = 1.0
    limit = 2 / response if response > 0 else float("inf")
    if experiment.optimizer == "lion" and asked.beta1 > asked.beta2:
        return min(limit, (1 - asked.beta2) / (asked.beta1 - asked.beta2))
    return limit


@functools.partial(jax.jit, static_argnums=(0, 1))
def root_rates(
    experiment: Experiment,
    widths: tuple[int, ...],
    params: Params,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
) -> Params:
    """D^½: the root of each parameter's learning rate times its preconditioner.

    The preconditioner is what the optimizer's first step makes of a gradient, |u(g)| / |g|, at the
    root mean square of the batches' gradients; 0 where no batch has a gradient. 1 for SGD.
    """
    if experiment.optimizer == "sgd":
        squares = jax.tree.map(jnp.ones_like, params)
    else:
        grad = jax.grad(_loss(experiment, widths, hyper, images))
        squares = jax.lax.map(lambda batch: jax.tree.map(jnp.square, grad(params, batch)), batches)
        squares = jax.tree.map(lambda square: jnp.mean(square, axis=0), squares)

    def root(square, rate, eps):
        if experiment.optimizer == "sgd":
            return jnp.sqrt(rate) * square
        grads = jnp.sqrt(square)
        chain = direction(experiment, eps)
        step: Any = chain.update(grads, chain.init(grads))[0]
        found = jnp.where(grads > 0, jnp.abs(step) / jnp.where(grads > 0, grads, 1), 0)
        return jnp.sqrt(rate * found)

    return [
        {
            name: root(square, hyper.rates[name].learning_rate[i], hyper.rates[name].eps[i])
            for name, square in layer.items()
        }
        for i, layer in enumerate(squares)
    ]


def _loss(
    experiment: Experiment, widths: tuple[int, ...], hyper: Hyperparameters, images: Images
) -> Callable[[Params, Int[Array, " batch"]], Float[Array, ""]]:
    apply = mlp(widths, experiment.bias, float_dtype(experiment))

    def loss(params, indices):
        pixels, labels = images.train_images[indices], images.train_labels[indices]
        inputs = preprocess(experiment, pixels, images, hyper.input_scale)
        return loss_function(apply, params, inputs, labels)[0]

    return loss


def stretched_hessian(
    experiment: Experiment,
    widths: tuple[int, ...],
    params: Params,
    root: Params,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
) -> Callable[[Float[Array, " parameters"]], Float[Array, " parameters"]]:
    """Products with D^½ H D^½, H the mean over the batches; parameters in `ravel_pytree`'s order.

    The gradient is linearised once, in coordinates that D^½ stretches: all further products are two
    passes through the network each, not four.
    """
    loss = _loss(experiment, widths, hyper, images)
    flat, unravel = ravel_pytree(params)

    def stretched(moved: Float[Array, " parameters"]) -> Float[Array, ""]:
        there = jax.tree.map(lambda p, r, m: p + r * m, params, root, unravel(moved))
        return loss(there, batches.ravel())

    return jax.linearize(jax.grad(stretched), jnp.zeros_like(flat))[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def hessian_product(
    experiment: Experiment,
    widths: tuple[int, ...],
    params: Params,
    root: Params,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
    vector: Float[Array, " parameters"],
) -> Float[Array, " parameters"]:
    """One product of `stretched_hessian`."""
    return stretched_hessian(experiment, widths, params, root, hyper, batches, images)(vector)


class Found(NamedTuple):
    """Of D^½ H D^½, in units of 4^exponent, in which nothing over- or underflows."""

    largest: Ritz
    exponent: Int[Array, ""]

    def value(self) -> float:
        """The eigenvalue, as a float that holds it whatever the unit."""
        return float(self.largest.value) * 4.0 ** int(self.exponent)

    def settled(self, tolerance: float = TOLERANCE) -> bool:
        """Whether it is as exact as asked, or not finite, which no more work would change."""
        value, error = map(float, self.largest)
        return not error > tolerance * abs(value)


def at_start(
    experiment: Experiment,
    widths: tuple[int, ...],
    params: Params,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
    tolerance: float = TOLERANCE,
) -> Found:
    """The largest eigenvalue of D^½ H D^½ at these parameters; a pure function of its arrays.

    Args:
        tolerance: of the eigenvalue's error, as it is estimated, relative.
    """
    root, exponent = _root_rates_in_unit(experiment, widths, params, hyper, batches, images)
    product = stretched_hessian(experiment, widths, params, root, hyper, batches, images)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    start = jax.random.normal(jax.random.key(0), (size,), float_dtype(experiment))
    return Found(largest(product, start, tolerance), exponent)


_at_start = jax.jit(at_start, static_argnums=(0, 1, 6))


def sharpness(
    experiment: Experiment,
    ready: Prepared,
    batches: Int[np.ndarray, "steps batch"],
    tolerance: float = TOLERANCE,
) -> Sharpness:
    """S of a run at its start on these batches, by Lanczos on Hessian-vector products.

    Args:
        batches: indices of training images; `sample` gives the run's own first ones.
        tolerance: of the eigenvalue's error, as it is estimated, relative.
    """
    arguments = (static_part(experiment), ready.widths, ready.state.params, ready.hyper)
    with precision(experiment):
        found = _at_start(*arguments, batches, ready.images, tolerance)
    value = found.value() if found.settled(tolerance) else with_restarts(experiment, ready, batches)
    return Sharpness(value, stability_limit(experiment), batches.size)


def with_restarts(
    experiment: Experiment, ready: Prepared, batches: Int[np.ndarray, "steps batch"]
) -> float:
    """S where the products of `at_start` do not suffice: by ARPACK, on the host."""
    start = (static_part(experiment), ready.widths, ready.state.params)
    rest = (ready.hyper, jnp.asarray(batches), ready.images)
    with precision(experiment):
        root, exponent = _root_rates_in_unit(*start, *rest)
        value = largest_eigenvalue(
            lambda vector: hessian_product(*start, root, *rest, vector),
            sum(leaf.size for leaf in jax.tree.leaves(ready.state.params)),
            np.dtype(float_dtype(experiment)),
        )
    return value * 4.0 ** int(exponent)


def _root_rates_in_unit(
    experiment: Experiment,
    widths: tuple[int, ...],
    params: Params,
    hyper: Hyperparameters,
    batches: Int[Array, "steps batch"],
    images: Images,
) -> tuple[Params, Int[Array, ""]]:
    """`root_rates` over a power of two, and its exponent."""
    exponent = _root_rate_exponent(hyper)
    unit = jnp.ldexp(jnp.ones((), float_dtype(experiment)), -exponent)
    root = root_rates(experiment, widths, params, hyper, batches, images)
    return jax.tree.map(lambda r: r * unit, root), exponent


def _root_rate_exponent(hyper: Hyperparameters) -> Int[Array, ""]:
    """The power of two nearest to the root of the largest learning rate; 0 if that is 0.

    In this unit products with D^½ neither under- nor overflow because of the rates.
    """
    rates = [jnp.max(of_tensor.learning_rate) for of_tensor in hyper.rates.values()]
    rate = functools.reduce(jnp.maximum, rates)
    usable = (rate > 0) & jnp.isfinite(rate)
    return jnp.where(usable, jnp.round(jnp.log2(rate) / 2), 0).astype(jnp.int32)


def largest_eigenvalue(
    product: Callable[[np.ndarray], Any], size: int, dtype: np.dtype, tolerance: Any = RESIDUAL
) -> float:
    """Of a symmetric matrix that is known by its products; NaN if one of them is not finite."""
    unit = 1.0

    def finite(vector):
        result = np.asarray(product(vector.reshape(-1).astype(dtype))) * dtype.type(unit)
        if not np.isfinite(result).all():
            raise FloatingPointError
        return result

    start = np.random.default_rng(0).normal(size=size).astype(dtype)
    operator: Any = LinearOperator((size, size), matvec=finite, dtype=dtype)  # pyright: ignore
    try:
        if size <= LANCZOS:
            columns = [finite(unit) for unit in np.eye(size, dtype=dtype)]
            return float(np.linalg.eigvalsh(columns)[-1])
        first = finite(start)
        if not first.any():  # nothing learns, or the loss is flat; ARPACK refuses zeros
            return 0.0
        # ARPACK's tolerance is relative for eigenvalues above eps^⅔ alone, and absolute below.
        unit = 2.0 ** min(126, -math.frexp(_norm(first) / _norm(start))[1])  # float32 ends there
        values = eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            ncv=LANCZOS,
            tol=tolerance,
            maxiter=PRODUCTS // (LANCZOS // 2),
            return_eigenvectors=False,
        )
        return float(values[0]) / unit
    except (FloatingPointError, ArpackError):
        return float("nan")


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


def sample(order: Int[np.ndarray, "steps batch"], images: int = SAMPLE):
    """The run's first batches with no more than `images` images; of a larger batch its beginning.

    Args:
        order: the index array of the first epoch.
    """
    return order[: max(1, images // order.shape[1]), :images]


def critical_rate(experiment: Experiment, dataset: Dataset) -> float:
    """The learning rate at which the sharpness at initialisation meets its limit.

    S is proportional to a learning rate that all layers share, as the experiment's has to be.
    """
    ready = prepare(experiment, dataset)
    found = sharpness(experiment, ready, sample(next(ready.order)))
    (rate,) = set(experiment.per_layer("learning_rate"))
    return rate / found.ratio
