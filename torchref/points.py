"""A module's losses at random points, and their derivatives along each tensor; in float64."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# All normalise f(x, eps) with f(c·x, c²·eps) = f(x, eps).
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EXAMPLES = 8  # of a point: few are quick, and enough for a normalisation over them
POINTS_PER_DRAW = 8  # that share their tensors and differ in inputs and targets: drawing is slow
GAIN = 1.4  # keeps the activations of ReLU networks at their size (He et al. 2015: root of 2)


def norms(model: nn.Module) -> dict[str, Any]:
    """The normalisations, by the names of their eps."""
    found = model.named_modules()
    return {joined(name, "eps"): module for name, module in found if isinstance(module, NORMS)}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of normalisations, by name."""
    found = {}
    for eps, module in norms(model).items():
        for name in ("running_mean", "running_var"):
            if isinstance(getattr(module, name, None), Tensor):
                found[eps.removesuffix("eps") + name] = getattr(module, name)
    return found


def eps_value(module: Any) -> float:
    """A normalisation's eps; RMSNorm's default is that of its dtype."""
    if module.eps is None:
        return torch.finfo(module.weight.dtype if module.weight is not None else torch.float).eps
    return float(module.eps)


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that are no running statistics."""
    known = {id(tensor) for tensor in statistics(model).values()}
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and id(buffer) not in known
    }


def joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generators at a seed, and afterwards where they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Points:
    """The model at random points of moderate size, on a copy of its own."""

    def __init__(
        self,
        model: nn.Module,
        example: tuple[Tensor, Tensor],
        loss: Callable[[Any, Tensor], Tensor],
        set_mode: Callable[[nn.Module, bool], None],
    ) -> None:
        self.model, (self.inputs, self.targets) = model.double(), example
        self.loss_function, self.set_mode = loss, set_mode
        self.parameters = dict(self.model.named_parameters())
        self.constants, self.statistics = constants(self.model), statistics(self.model)
        self.norms = norms(self.model)
        self.at_start = {name: p.detach().clone() for name, p in self.parameters.items()}
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.double = self.inputs.is_floating_point()
        self.drawn = -1  # which draw of tensors the model has
        self.drawn_statistics: dict[str, Tensor] = {}

    def loss(self, point: int, factors: Mapping[str, float], training: bool) -> float:
        """The loss at a point, with tensors multiplied by the factors."""
        inputs, targets = self._draw(point)
        self.set_mode(self.model, training)
        with torch.no_grad(), seeded(point), self._multiplied(factors):
            inputs = inputs * factors["input"] if "input" in factors else inputs
            return float(self.loss_function(self.model(inputs), targets))

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        """d loss / dt with each tensor times e^t: ⟨p, ∂loss/∂p⟩, by one reverse pass."""
        inputs, targets = self._draw(point)
        self.set_mode(self.model, training)
        along = {**self.parameters, **self.constants}
        if self.double:
            along["input"] = inputs.requires_grad_()
        if not training:
            along |= self.statistics
        scales = {}
        with contextlib.ExitStack() as hooks, seeded(point):
            for tensor in (*self.constants.values(), *self.statistics.values()):
                tensor.requires_grad_(any(tensor is each for each in along.values()))
                hooks.callback(tensor.requires_grad_, False)
            for name, module in self.norms.items():
                scales[name] = torch.zeros((), dtype=torch.double, requires_grad=True)
                hooks.callback(_with_scaled_eps(module, scales[name]))
            loss = self.loss_function(self.model(inputs), targets)
            leaves = [*along.values(), *scales.values()]
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        # A scale is t itself; of a tensor p the derivative by t at p·e^t is ⟨p, gradient⟩.
        directions = [*along.values(), *(torch.ones_like(scale) for scale in scales.values())]
        with torch.no_grad():
            return {
                name: 0.0 if grad is None else float((grad * direction).sum())
                for name, direction, grad in zip((*along, *scales), directions, grads, strict=True)
            }

    @contextlib.contextmanager
    def _multiplied(self, factors: Mapping[str, float]) -> Iterator[None]:
        """The model's tensors times the factors, and afterwards as they were."""
        tensors = {**self.parameters, **self.constants, **self.statistics}
        before = {n: tensor.clone() for n, tensor in tensors.items() if n in factors}
        eps = {name: module.eps for name, module in self.norms.items()}
        for name in before:
            tensors[name].mul_(factors[name])
        for name, module in self.norms.items():
            module.eps = eps[name] * factors.get(name, 1.0)
        yield
        for name, values in before.items():
            tensors[name].copy_(values)
        for name, module in self.norms.items():
            module.eps = eps[name]

    @torch.no_grad()
    def _draw(self, point: int) -> tuple[Tensor, Tensor]:
        """Gives the model the point's values; returns its inputs and targets."""
        if point // POINTS_PER_DRAW != self.drawn:
            self.drawn = point // POINTS_PER_DRAW
            self._draw_tensors(np.random.default_rng((0, self.drawn)))
        for name, values in self.drawn_statistics.items():  # a pass in training mode moves them
            self.statistics[name].copy_(values)
        draw = np.random.default_rng((1, point))
        chosen = torch.from_numpy(draw.integers(len(self.targets), size=EXAMPLES))
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        if self.double:
            inputs = torch.from_numpy(draw.normal(size=inputs.shape)).to(inputs.device)
        if targets.is_floating_point():
            targets = targets.double()
        return inputs, targets

    def _draw_tensors(self, draw: np.random.Generator) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(_random(draw, self.at_start[name]))
        for constant in self.constants.values():
            constant.copy_(torch.from_numpy(np.asarray(draw.normal(size=constant.shape))))
        for name, statistic in self.statistics.items():
            noise = torch.from_numpy(draw.normal(size=statistic.shape))
            values = torch.exp(noise / 2) if name.endswith("var") else 0.3 * noise
            self.drawn_statistics[name] = values.to(statistic.device)
        for module in self.norms.values():
            module.eps = draw.uniform(0.3, 1.3)


def _random(draw: np.random.Generator, like: Tensor) -> Tensor:
    """Values of moderate size, none of them 0: a tensor that starts at 0 has no derivative."""
    noise = torch.from_numpy(np.asarray(draw.normal(size=like.shape)))
    if like.ndim >= 2:
        return noise * GAIN / math.sqrt(math.prod(like.shape[1:]))
    if like.numel() and bool((like == 1).all()):  # a normalisation's scale
        return 1 + 0.3 * noise
    return 0.3 * noise


def _with_scaled_eps(module: Any, scale: Tensor) -> Callable[[], None]:
    """Makes the module's output depend on `scale` as if its eps were times e^scale; undoes it.

    A norm with eps times e^t is one with inputs times e^(-t/2). Running statistics do not move with
    the inputs, and torch does not differentiate by them: there the formula is written out.
    """
    if module.training or getattr(module, "running_mean", None) is None:
        hook = module.register_forward_pre_hook(
            lambda module, args: (args[0] * torch.exp(-scale / 2), *args[1:])
        )
        return hook.remove

    def evaluated(inputs: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (inputs.ndim - 2))
        mean, variance = module.running_mean.view(shape), module.running_var.view(shape)
        normalised = (inputs - mean) * torch.rsqrt(variance + module.eps * torch.exp(scale))
        if module.weight is None:
            return normalised
        return normalised * module.weight.view(shape) + module.bias.view(shape)

    module.forward = evaluated
    return functools.partial(delattr, module, "forward")
