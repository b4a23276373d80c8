"""A Flax module's losses at random points, and their derivatives along each tensor; in float64."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp.networks.flax_model import FlaxModel
from jaxmlp.networks.protocol import INPUT

EXAMPLES = 8  # of a point: few are quick, and enough for a normalisation over them
POINTS_PER_DRAW = 8  # that share their tensors and differ in inputs and targets: drawing is slow
GAIN = 1.4  # keeps the activations of ReLU networks at their size (He et al. 2015: root of 2)


class Points:
    """The model at random points of moderate size.

    Args:
        example: inputs and targets of a batch: token ids and targets are taken from them.
        loss: of outputs and targets, a scalar.
    """

    def __init__(
        self, model: FlaxModel, example: tuple[Any, Any], loss: Callable[[Any, Any], Any]
    ) -> None:
        self.model, self.loss_function = model, loss
        self.inputs, self.targets = map(np.asarray, example)
        self.at_start = {name: np.asarray(value) for name, value in self._floats().items()}
        self.drawn: tuple[int, Any] = -1, None
        self.scaled_loss = jax.jit(self._scaled_loss, static_argnames="training")
        self.slopes = jax.jit(jax.grad(self._along), static_argnames="training")

    def loss(self, point: int, factors: Mapping[str, float], training: bool) -> float:
        """The loss at a point, with tensors multiplied by the factors."""
        with jax.enable_x64(True):
            ones = dict.fromkeys(self._names(training=False), 1.0)
            loss = self.scaled_loss({**ones, **factors}, *self._draw(point), training=training)
            return float(loss)

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        """d loss / dt with each tensor times e^t, by one reverse pass."""
        with jax.enable_x64(True):
            zeros = dict.fromkeys(self._names(training), 0.0)
            slopes = self.slopes(zeros, *self._draw(point), training=training)
            return {name: float(slope) for name, slope in slopes.items()}

    def _along(self, exponents: Any, *point: Any, training: bool) -> Any:
        factors = {name: jnp.exp(exponent) for name, exponent in exponents.items()}
        return self._scaled_loss(factors, *point, training=training)

    def _scaled_loss(
        self, factors: Any, values: Any, eps: Any, inputs: Any, targets: Any, training: bool
    ) -> Any:
        values = {
            name: value * factors[name] if name in factors else value
            for name, value in values.items()
        }
        eps = {name: value * factors.get(name, 1.0) for name, value in eps.items()}
        if INPUT in factors:
            inputs = inputs * factors[INPUT]
        outputs, _ = self.model.run(values, eps, inputs, training=training, double=True)
        loss = self.loss_function(outputs, targets)
        if loss.dtype != jnp.float64:
            raise ValueError(
                f"the loss comes out as {loss.dtype}, and float64 is needed to tell what may be "
                "rescaled; build the model with dtype=None, and cast nothing to a fixed type"
            )
        return loss

    def _names(self, training: bool) -> list[str]:
        model = self.model
        has_scale = jnp.issubdtype(self.inputs.dtype, jnp.floating)
        names = [INPUT] * has_scale + [*model.parameters, *model.constants, *model.norms]
        return names if training else [*names, *model.statistics]

    def _floats(self) -> dict[str, Any]:
        model, values = self.model, self.model.values()
        names = (*model.parameters, *model.constants, *model.statistics)
        return {name: values[name] for name in names}

    def _draw(self, point: int) -> tuple[Any, Any, Any, Any]:
        """The point's values and eps, inputs and targets."""
        values, eps = self._tensors(point // POINTS_PER_DRAW)
        draw = np.random.default_rng((1, point))
        chosen = draw.integers(len(self.targets), size=EXAMPLES)
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        if jnp.issubdtype(inputs.dtype, jnp.floating):
            inputs = draw.normal(size=inputs.shape)
        if jnp.issubdtype(targets.dtype, jnp.floating):
            targets = targets.astype(np.float64)
        return values, eps, jnp.asarray(inputs), jnp.asarray(targets)

    def _tensors(self, number: int) -> tuple[Any, Any]:
        """A draw of all tensors and eps; the last one is kept."""
        if self.drawn[0] != number:
            draw, model, values = (
                np.random.default_rng((0, number)),
                self.model,
                self.model.values(),
            )
            for name, start in self.at_start.items():
                noise = draw.normal(size=start.shape)
                if name.endswith("var") and name in model.statistics:
                    noise = np.exp(noise / 2)
                elif name not in model.embeddings:
                    noise = _moderate(noise, start)
                values[name] = jnp.asarray(noise)
            eps = {name: jnp.asarray(draw.uniform(0.3, 1.3)) for name in model.norms}
            self.drawn = number, (values, eps)
        return self.drawn[1]


def _moderate(noise: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values of moderate size, none of them 0: a tensor that starts at 0 has no derivative."""
    if like.ndim >= 2:
        return noise * GAIN / math.sqrt(math.prod(like.shape[:-1]))
    if like.size and (like == 1).all():  # a normalisation's scale
        return 1 + 0.3 * noise
    return 0.3 * noise
