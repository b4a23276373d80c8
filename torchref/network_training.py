"""A user's own run, step by step, on a copy of the model and with a fresh optimizer."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from torchref.network_batches import Batches
from torchref.network_optimizer import Settings, fresh, move_state, trained, with_settings
from torchref.network_tensors import Modes, multiplied, multiply, seeded, statistics

Loss = Callable[[Any, Tensor], Tensor]
RELUS = {nn.functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class Step(NamedTuple):
    """One step of training."""

    loss: np.ndarray  # scalar, of the run's dtype, before the step
    correct: float | None  # share of the batch; None if outputs are no scores
    dead: dict[str, float]  # by ReLU, in order: share of units off everywhere


class Training:
    """A run under way: one parameter group per trained tensor."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Batches,
        loss: Loss,
        modes: Modes,
        factors: Mapping[str, float],
        settings: Settings,
        clip_global_norm: float | None,
    ) -> None:
        self.clip_global_norm = clip_global_norm
        self.model, self.modes = copy.deepcopy(model), modes
        self.batches, self.loss_function, self.factors = batches, loss, factors
        multiply(self.model, factors)
        modes.set(self.model, True)
        copies = dict(self.model.named_parameters())
        groups = [
            with_settings(group, settings.get(name, {})) | {"params": [copies[name]]}
            for name, (_, group) in trained(model, optimizer).items()
        ]
        self.optimizer = fresh(optimizer, groups)
        move_state(self.optimizer, copies, factors)  # Adagrad's sum may start above 0
        self.relus, self.steps = DeadUnits(self.model), 0

    def step(self) -> Step:
        """Trains on the next batch; after the last comes the first again."""
        inputs, targets = self.batches[self.steps]
        with seeded(self.steps):  # so that all runs drop the same units
            with self.relus:
                outputs = self.model(multiplied(inputs, self.factors))
            loss = self.loss_function(outputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_global_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_global_norm)
        self.optimizer.step()
        self.steps += 1
        return Step(as_array(loss), _correct(outputs, targets), self.relus.shares)

    def tensors(self) -> dict[str, np.ndarray]:
        """Copies of the parameters and the running statistics as they are now."""
        tensors = dict(self.model.named_parameters()) | statistics(self.model)
        return {name: as_array(tensor).copy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def outputs(self) -> np.ndarray:
        """What the network makes of the first batch in evaluation mode."""
        self.modes.set(self.model, False)
        outputs = self.model(multiplied(self.batches[0][0], self.factors))
        self.modes.set(self.model, True)
        return as_array(outputs)


class DeadUnits(TorchFunctionMode):
    """While entered, notes of every ReLU called which share of its units is off in the batch.

    `shares`: by the module's name, or for functions relu1, relu2, .. in the order of calls.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.shares: dict[str, float] = {}
        self.module = ""  # whose ReLU is being called
        for name, module in model.named_modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(functools.partial(self._enter_module, name))
                module.register_forward_hook(functools.partial(self._enter_module, ""))

    def _enter_module(self, name: str, *_: Any) -> None:
        self.module = name

    def __enter__(self):
        self.shares = {}
        return super().__enter__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.shares[self._name()] = _dead_share(outputs.detach())
        return outputs

    def _name(self) -> str:
        if not self.module:
            return f"relu{len(self.shares) + 1}"
        calls = sum(name.split("#")[0] == self.module for name in self.shares)
        return f"{self.module}#{calls + 1}" if calls else self.module


def _dead_share(outputs: Tensor) -> float:
    """Units are the channels of images, else the last dimension."""
    outputs = torch.atleast_1d(outputs)
    axis = 1 if outputs.ndim == 4 else -1
    alive = (outputs > 0).movedim(axis, 0).reshape(outputs.shape[axis], -1).any(dim=1)
    return 1 - float(alive.double().mean())


def _correct(outputs: Any, targets: Tensor) -> float | None:
    """The share of examples, or of places, whose class has the highest score."""
    scores = isinstance(outputs, Tensor) and outputs.shape[:-1] == targets.shape
    if not scores or targets.is_floating_point():
        return None
    return float((outputs.argmax(dim=-1) == targets).double().mean())


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's numbers; numpy has no bfloat16, of which float32 holds every number."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
