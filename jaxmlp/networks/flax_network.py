"""A user's own Flax NNX module with its optimizer and batches, as the law sees it.

It only differentiates and steps. Everything happens on copies; nothing but `apply` alters what the
user has.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from jaxmlp.networks.batches import Batches
from jaxmlp.networks.flax_model import FlaxModel, at
from jaxmlp.networks.flax_points import Points
from jaxmlp.networks.flax_training import Training
from jaxmlp.networks.optimizer import Optimizer
from jaxmlp.networks.protocol import INPUT, Arrays, Factors, Settings
from jaxmlp.networks.relus import dead_units


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """Mean over examples, or over the places of sequences: class scores come last."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


class FlaxNetwork:
    """A model, its optimizer, its batches and its loss.

    Args:
        batches: pairs of inputs and targets; the first are kept and come again after the last.
        loss: of outputs and targets, a scalar; default: cross-entropy.
        clip_global_norm: what the norm of all gradients together is clipped to.

    Raises:
        ValueError: something else is given, or the model does not run; the message says which.
    """

    framework = "jax"

    def __init__(
        self,
        model: nnx.Module,
        optimizer: Optimizer,
        batches: Iterable[tuple[Any, Any]],
        loss: Callable[[Any, Any], Any] | None = None,
        clip_global_norm: float | None = None,
    ) -> None:
        _check(model, optimizer)
        self.clip_global_norm = clip_global_norm
        self.module, self.user_optimizer = model, optimizer
        self.loss_function, self.batches = loss or cross_entropy, Batches(batches)
        self.model = FlaxModel(model)
        values = self.model.values()
        shapes = {}
        if jnp.issubdtype(self.batches[0][0].dtype, jnp.floating):
            shapes[INPUT] = self.batches[0][0].shape[1:]
        shapes |= {n: values[n].shape for n in (*self.model.parameters, *self.model.constants)}
        self.tensors = shapes | dict.fromkeys(self.model.norms, ())
        self.statistics = {name: values[name].shape for name in self.model.statistics}
        self.optimizer, self.options = optimizer.name, optimizer.options
        self.settings = optimizer.settings(self.model.parameters)
        self._check_batch()
        self.points = Points(self.model, self.batches[0], self.loss_function)
        self.train_step = jax.jit(self._train_step)
        self.product = jax.jit(self._product)
        self.gradient = jax.jit(jax.grad(self._loss))

    # ---- at random points

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        return self.points.derivatives(point, training)

    def loss(self, point: int, factors: Factors, training: bool) -> float:
        return self.points.loss(point, factors, training)

    # ---- the user's own run

    def start(self, factors: Factors, settings: Settings) -> Training:
        return Training(self, factors, settings)

    def gradients(self, factors: Factors, batches: int) -> Arrays:
        chosen, squares = self.batches[:batches], {}
        for inputs, targets in chosen:
            grads = self.gradient(*self.moved(factors), inputs, targets)
            for name, grad in grads.items():
                squares[name] = squares.get(name, 0) + np.asarray(grad, np.float64) ** 2
        return {name: np.sqrt(square / len(chosen)) for name, square in squares.items()}

    def hessian_product(self, factors: Factors, batches: int, vector: Arrays) -> Arrays:
        chosen, total = self.batches[:batches], dict.fromkeys(self.settings, np.zeros(()))
        for inputs, targets in chosen:
            products = self.product(vector, *self.moved(factors), inputs, targets)
            total = {name: total[name] + np.asarray(products[name]) for name in total}
        return {name: product / len(chosen) for name, product in total.items()}

    def apply(self, factors: Factors, settings: Settings) -> None:
        for name, factor in factors.items():
            if name in self.model.flat:
                variable = at(self.module, self.model.flat[name][0])
                variable.set_value(variable.get_value() * factor)
            elif name in self.model.norms:
                at(self.module, self.model.norms[name]).epsilon *= factor
        for key in self.user_optimizer.given:
            of_tensors = {name: of_tensor[key] for name, of_tensor in settings.items()}
            self.user_optimizer.given[key] = of_tensors
        self.settings = self.user_optimizer.settings(self.model.parameters)
        self.model = FlaxModel(self.module)
        self.points.model = self.model

    # ---- pure functions

    def moved(self, factors: Factors) -> tuple[Any, Any, Any, Any]:
        """Trained parameters, all other arrays, eps and the inputs' factor of the moved run."""
        values, eps, scale = self._moved_values(factors)
        trained = {name: values.pop(name) for name in self.settings}
        return trained, values, eps, scale

    def _moved_values(self, factors: Factors) -> tuple[dict[str, Array], dict[str, float], float]:
        values = {
            name: value * factors[name] if name in factors else value
            for name, value in self.model.values().items()
        }
        eps = {name: value * factors.get(name, 1.0) for name, value in self.model.eps().items()}
        return values, eps, factors.get(INPUT, 1.0)

    def _forward(self, trained: Any, others: Any, eps: Any, scale: Any, inputs: Any) -> Any:
        if INPUT in self.tensors:
            inputs = inputs * scale
        return self.model.run({**trained, **others}, eps, inputs, training=True)

    def _loss(
        self, trained: Any, others: Any, eps: Any, scale: Any, inputs: Any, targets: Any
    ) -> Any:
        return self.loss_function(self._forward(trained, others, eps, scale, inputs)[0], targets)

    def _product(self, vector: Any, trained: Any, *rest: Any) -> Any:
        def gradient(parameters: Any) -> Any:
            return jax.grad(self._loss)(parameters, *rest)

        return jax.jvp(gradient, (trained,), (vector,))[1]

    def _train_step(
        self,
        trained: Any,
        others: Any,
        state: Any,
        settings: Any,
        eps: Any,
        scale: Any,
        inputs: Any,
        targets: Any,
    ) -> Any:
        def loss(parameters: Any) -> Any:
            outputs, after = self._forward(parameters, others, eps, scale, inputs)
            return self.loss_function(outputs, targets), (outputs, after)

        (value, (outputs, after)), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        dead = dead_units(lambda *a: self._forward(*a)[0], trained, others, eps, scale, inputs)
        if self.clip_global_norm is not None:
            clip = optax.clip_by_global_norm(self.clip_global_norm)
            clipped: Any = clip.update(grads, clip.init(trained))[0]
            grads = clipped
        stepped, states = {}, {}
        for name, of_tensor in settings.items():
            chain = self.user_optimizer.chain(of_tensor)
            updates, states[name] = chain.update(grads[name], state[name], trained[name])
            stepped[name] = optax.apply_updates(trained[name], updates)
        others = {name: after[name] for name in others}
        return stepped, others, states, value, _correct(outputs, targets), dead

    def _check_batch(self) -> None:
        inputs, targets = self.batches[0]
        try:
            loss = self._loss(*self.moved({}), inputs, targets)
        except Exception as error:  # whatever a user's model may raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"the model or the loss refuses the first batch (inputs {inputs.shape}, "
                f"targets {targets.shape}): {reason[0]}"
            ) from error
        if jnp.shape(loss) != ():
            raise ValueError("the loss of a batch has to be one number, such as a mean over it")
        if not jnp.isfinite(loss):
            raise ValueError(f"the loss of the first batch is {float(loss)}; it has to be finite")


def _correct(outputs: Any, targets: Any) -> Array | None:
    """The share of targets whose class has the largest output; None if they are no classes."""
    if not isinstance(outputs, Array) or not jnp.issubdtype(targets.dtype, jnp.integer):
        return None
    if outputs.shape[:-1] != targets.shape:
        return None
    return jnp.mean((outputs.argmax(axis=-1) == targets).astype(jnp.float32))


def _check(model: Any, optimizer: Any) -> None:
    if not isinstance(model, nnx.Module):
        raise ValueError(f"the model is a {type(model).__name__}; give a flax.nnx.Module")
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"the optimizer is a {type(optimizer).__name__}, from which no tensor's rates can be "
            'read; give jaxmlp.Optimizer("sgd", learning_rate=...)'
        )
