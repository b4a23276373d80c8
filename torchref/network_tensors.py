"""The tensors of a module that a rescaling may multiply, and the modes that it is run in."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# All are f(x, eps) with f(c·x, c²·eps) = f(x, eps), unless they use running statistics.
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def norms(model: nn.Module) -> dict[str, Any]:
    """The normalisations by the names of their eps."""
    modules = model.named_modules()
    return {_joined(name, "eps"): each for name, each in modules if isinstance(each, NORMS)}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of those normalisations that track them."""
    return {
        _joined(name, kind): getattr(module, kind)
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
        for kind in ("running_mean", "running_var")
        if getattr(module, kind) is not None
    }


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that are no running statistics."""
    tracked = statistics(model)
    buffers = model.named_buffers()
    return {n: b for n, b in buffers if b.is_floating_point() and n not in tracked}


def eps_of(module: Any) -> float:
    """The eps that a normalisation uses: RMSNorm's None means that of its numbers' format."""
    if module.eps is not None:
        return float(module.eps)
    dtype = torch.get_default_dtype() if module.weight is None else module.weight.dtype
    return torch.finfo(dtype).eps


@torch.no_grad()
def multiply(model: nn.Module, factors: Mapping[str, float]) -> None:
    """Multiplies parameters, constants, statistics and eps in place by those factors given."""
    tensors = dict(model.named_parameters()) | constants(model) | statistics(model)
    for name, tensor in tensors.items():
        if name in factors:
            tensor.mul_(factors[name])
    for name, module in norms(model).items():
        if name in factors:
            module.eps = eps_of(module) * factors[name]


def multiplied(inputs: Tensor, factors: Mapping[str, float]) -> Tensor:
    """A copy of the inputs, which models may overwrite; token ids have no scale."""
    return inputs * factors.get("input", 1.0) if inputs.is_floating_point() else inputs.clone()


class Modes:
    """Which modules the user keeps in training mode: batch normalisations may be frozen."""

    def __init__(self, model: nn.Module) -> None:
        self.training = {name: module.training for name, module in model.named_modules()}

    def set(self, model: nn.Module, training: bool) -> None:
        """Puts a copy of the model in evaluation mode, or in training mode as the user has it."""
        model.train(training)
        if training and self.training[""]:
            for name, module in model.named_modules():
                module.training = self.training[name]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generators start from a seed inside, and are as they were outside."""
    with forked():
        torch.manual_seed(seed)
        yield


def forked() -> contextlib.AbstractContextManager[None]:
    """torch's generators are outside as if nothing were drawn inside."""
    # Devices are named because torch warns where there are several and it has to guess.
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name
