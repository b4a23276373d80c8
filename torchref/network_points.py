"""The loss of a module at random points, and its derivatives along each tensor; in float64."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchref.network_tensors import (
    Modes,
    constants,
    multiplied,
    multiply,
    norms,
    seeded,
    statistics,
)

EXAMPLES = 8  # per point: few are quick, and enough to normalise over
GAIN = 1.4  # keeps activations of ReLU networks at their size (He et al. 2015: root of 2)
SPREAD = 0.3  # of biases about 0 and of gains about 1: moderate, so that no loss saturates
POINTS_PER_DRAW = 8  # that share their tensors and differ in inputs and targets: drawing is slow
POSITIVE = 0.3, 1.3  # range of variances and eps: neither drowns the other


class Points:
    """A float64 copy of the model, at a point that each call draws anew from its seed."""

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        loss: Callable[[Any, Tensor], Tensor],
        modes: Modes,
    ) -> None:
        self.model, self.batch = model.double().requires_grad_(), batch
        self.loss_function, self.modes = loss, modes
        self.drawn = dict(model.named_parameters()) | constants(model)
        self.draws: tuple[int, list[tuple[Tensor, Tensor]], dict[str, float]] = -1, [], {}
        self.multiplied = False  # whether the tensors are not those of the draw
        self.gains = {n for n, t in self.drawn.items() if t.ndim < 2 and bool((t == 1).all())}

    def loss(self, point: int, factors: Mapping[str, float], training: bool) -> float:
        """The loss there with tensors multiplied, computed as the framework computes it."""
        inputs, targets = self._at(point)
        multiply(self.model, factors)
        self.multiplied = bool(factors)
        self.modes.set(self.model, training)
        with torch.no_grad(), seeded(point):
            outputs = self.model(multiplied(inputs, factors))
            return float(self.loss_function(outputs, targets))

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        """d loss / dt for each tensor times e^t: ⟨p, ∂loss/∂p⟩, all by one reverse pass."""
        inputs, targets = self._at(point)
        self.modes.set(self.model, training)
        tracked = {n: s.clone().requires_grad_() for n, s in statistics(self.model).items()}
        # t of each eps, at 0
        logs = {n: inputs.new_zeros((), dtype=torch.double) for n in norms(self.model)}
        leaves = {"input": inputs} if inputs.is_floating_point() else {}
        leaves |= self.drawn | logs
        if not training:
            leaves |= tracked
        with contextlib.ExitStack() as undo, seeded(point):
            for leaf in leaves.values():
                undo.callback(leaf.requires_grad_, leaf.requires_grad)
                leaf.requires_grad_()
            for name, module in norms(self.model).items():
                undo.enter_context(_eps_differentiable(name, module, logs[name], tracked))
            outputs = self.model(multiplied(inputs, {}))
            grads = torch.autograd.grad(
                self.loss_function(outputs, targets), list(leaves.values()), allow_unused=True
            )
        # An eps enters by its logarithm: its derivative is the gradient itself.
        along = leaves | {name: torch.ones_like(log) for name, log in logs.items()}
        return {
            name: 0.0 if grad is None else float((grad * tensor.detach()).sum())
            for (name, tensor), grad in zip(along.items(), grads, strict=True)
        }

    @torch.no_grad()
    def _at(self, point: int) -> tuple[Tensor, Tensor]:
        """Gives the model's tensors the point's values; returns its inputs and targets."""
        number = point // POINTS_PER_DRAW
        known = self.draws[0] == number and not self.multiplied
        if self.draws[0] != number:
            self.draws = number, *self._draw(np.random.default_rng((0, number)))
        _, values, eps = self.draws
        # The statistics move by themselves in training mode.
        for tensor, drawn in values[len(self.drawn) :] if known else values:
            tensor.copy_(drawn)
        self.multiplied = False
        for name, module in norms(self.model).items():
            module.eps = eps[name]
        draw = np.random.default_rng((1, point))
        inputs, targets = self.batch
        chosen = torch.as_tensor(draw.integers(len(inputs), size=EXAMPLES), device=inputs.device)
        inputs, targets = inputs[chosen], targets[chosen.to(targets.device)]
        if inputs.is_floating_point():
            inputs = torch.as_tensor(draw.normal(size=inputs.shape), device=inputs.device)
        return inputs, targets.double() if targets.is_floating_point() else targets

    def _draw(
        self, draw: np.random.Generator
    ) -> tuple[list[tuple[Tensor, Tensor]], dict[str, float]]:
        """Values for each tensor of the model, and for each eps."""
        values = [
            (tensor, _weights(draw, tensor.shape, name in self.gains))
            for name, tensor in self.drawn.items()
        ]
        for name, tensor in statistics(self.model).items():
            if name.endswith("running_mean"):
                drawn = draw.normal(0, SPREAD, tensor.shape)
            else:
                drawn = draw.uniform(*POSITIVE, tensor.shape)
            values.append((tensor, torch.as_tensor(drawn)))
        return values, {name: draw.uniform(*POSITIVE) for name in norms(self.model)}


def _weights(draw: np.random.Generator, shape: torch.Size, gain: bool) -> Tensor:
    """Random values, nowhere 0: what starts at 0 would have no derivative along itself."""
    noise = torch.as_tensor(draw.normal(size=shape))
    if len(shape) >= 2:
        return noise * GAIN / math.sqrt(math.prod(shape[1:]))
    return SPREAD * noise + (1.0 if gain else 0.0)


@contextlib.contextmanager
def _eps_differentiable(name: str, module: Any, log: Tensor, tracked: Mapping[str, Tensor]):
    """While entered, the normalisation is that of eps times e^log, and differentiable by it.

    eps times e^t is to a normalisation what inputs times e^(-t/2) are. Not where it uses running
    statistics, by which torch does not differentiate either: there the formula is written out.
    """
    prefix = name.removesuffix("eps")
    by_statistics = not module.training and prefix + "running_var" in tracked

    def rescale(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * torch.exp(-log / 2), *args[1:])

    def normalise(_: nn.Module, args: tuple[Tensor, ...], __: Tensor) -> Tensor:
        inputs, channels = args[0], (-1, *(1,) * (args[0].ndim - 2))
        mean, variance = tracked[prefix + "running_mean"], tracked[prefix + "running_var"]
        root = torch.rsqrt(variance + module.eps * torch.exp(log))
        outputs = (inputs - mean.view(channels)) * root.view(channels)
        if module.weight is not None:
            outputs = outputs * module.weight.view(channels)
        return outputs if module.bias is None else outputs + module.bias.view(channels)

    if by_statistics:
        hook = module.register_forward_hook(normalise)
    else:
        hook = module.register_forward_pre_hook(rescale)
    try:
        yield
    finally:
        hook.remove()
