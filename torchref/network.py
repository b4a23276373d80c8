"""A user's own torch module, its optimizer and its batches, as the law sees a network.

It only differentiates and steps: what may be rescaled, and what follows, is decided elsewhere.
Everything happens on copies; nothing but `apply` alters what the user has.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from torchref import network_optimizer
from torchref.network_batches import Batches
from torchref.network_optimizer import Settings, check_movable, move_state, regroup, settings_of
from torchref.network_points import Points
from torchref.network_tensors import (
    Modes,
    constants,
    multiplied,
    multiply,
    norms,
    seeded,
    statistics,
)
from torchref.network_training import Loss, Training

Factors = Mapping[str, float]
Arrays = dict[str, np.ndarray]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over the examples, or over the places of sequences, whose classes come last."""
    if outputs.ndim == 3 and outputs.shape[:2] == targets.shape:
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    return nn.functional.cross_entropy(outputs, targets)


class TorchNetwork:
    """A model with its optimizer, batches and loss: meets the protocol of networks.

    Args:
        batches: pairs of inputs and targets; the first hundred are kept and used again and again.
        loss: of outputs and targets, a scalar; cross-entropy by default.
        clip_global_norm: what the norm of all gradients together is clipped to, if it is.

    Raises:
        ValueError: one of them is something else, or the model does not run on the first batch.
    """

    framework = "torch"

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Iterable[tuple[Tensor, Tensor]],
        loss: Loss | None = None,
        clip_global_norm: float | None = None,
    ) -> None:
        _check_model(model)
        _check_optimizer(optimizer, model)
        self.clip_global_norm, self.batches = clip_global_norm, Batches(batches)
        self._model, self._optimizer = model, optimizer
        self._loss_function, self._modes = loss or cross_entropy, Modes(model)
        self._check_first_batch()
        double = copy.deepcopy(model)
        self._points = Points(double, self.batches[0], self._loss_function, self._modes)
        self._start: tuple[Factors, nn.Module] | None = None

    @property
    def optimizer(self) -> str:
        """The class' name in small letters, and adamw, amsgrad or nadamw by their options."""
        return network_optimizer.optimizer_name(self._optimizer)

    @property
    def options(self) -> dict[str, float | bool]:
        """Of the first parameter group: momentum, dampening, nesterov, beta1, beta2, alpha."""
        return network_optimizer.options(self._optimizer)

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes; of the inputs, that of one example."""
        inputs = self.batches[0][0]
        shapes = {"input": tuple(inputs.shape[1:])} if inputs.is_floating_point() else {}
        tensors = dict(self._model.named_parameters()) | constants(self._model)
        shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return shapes | dict.fromkeys(norms(self._model), ())

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Shapes of running means and variances."""
        return {name: tuple(tensor.shape) for name, tensor in statistics(self._model).items()}

    @property
    def settings(self) -> dict[str, dict[str, float]]:
        """Of the trained tensors: learning_rate, weight_decay, and eps if there is one."""
        groups = network_optimizer.trained(self._model, self._optimizer)
        return {name: settings_of(group) for name, (_, group) in groups.items()}

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        """d loss / dt where a tensor is multiplied by e^t, for each tensor; in float64."""
        return self._points.derivatives(point, training)

    def loss(self, point: int, factors: Factors, training: bool) -> float:
        """The loss there, in float64, with tensors and statistics multiplied by the factors."""
        return self._points.loss(point, factors, training)

    def start(self, factors: Factors, settings: Settings) -> Training:
        """The user's own run, in its own dtype, with initial values and inputs multiplied."""
        return Training(
            self._model,
            self._optimizer,
            self.batches,
            self._loss_function,
            self._modes,
            factors,
            settings,
            self.clip_global_norm,
        )

    def gradients(self, factors: Factors, batches: int) -> Arrays:
        """Root mean squares over the first batches, at the start of that run."""
        squares = [
            {name: g.numpy(force=True).astype(float) ** 2 for name, g in grads.items()}
            for _, grads in self._gradients(factors, batches, create_graph=False)
        ]
        return {name: np.sqrt(np.mean([s[name] for s in squares], axis=0)) for name in squares[0]}

    def hessian_product(self, factors: Factors, batches: int, vector: Arrays) -> Arrays:
        """The Hessian of the mean loss of the first batches there, times a vector."""
        products = []
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            for parameters, grads in self._gradients(factors, batches, create_graph=True):
                curved = [name for name, grad in grads.items() if grad.requires_grad]
                second = torch.autograd.grad(
                    [grads[name] for name in curved],
                    list(parameters.values()),
                    [torch.as_tensor(vector[name]).to(grads[name]) for name in curved],
                    materialize_grads=True,
                )
                products.append(dict(zip(parameters, second, strict=True)))
        return {
            name: np.mean([p[name].numpy(force=True) for p in products], axis=0, dtype=float)
            for name in products[0]
        }

    def apply(self, factors: Factors, settings: Settings) -> None:
        """Multiplies the user's own tensors, eps and optimizer's state, and gives it the settings.

        Raises:
            ValueError: a schedule is attached, or the optimizer keeps something unknown; nothing
                is altered then.
        """
        parameters = dict(self._model.named_parameters())
        check_movable(self._optimizer, parameters, factors)
        multiply(self._model, factors)
        move_state(self._optimizer, parameters, factors)
        regroup(self._optimizer, parameters, settings)
        self._start = None

    def _gradients(
        self, factors: Factors, batches: int, create_graph: bool
    ) -> Iterator[tuple[dict[str, nn.Parameter], dict[str, Tensor]]]:
        """The trained parameters at the start and their gradients, batch by batch."""
        model = self._at_start(factors)
        names = network_optimizer.trained(self._model, self._optimizer)
        parameters = {n: p for n, p in model.named_parameters() if n in names}
        for number, (inputs, targets) in enumerate(self.batches.first(batches)):
            with seeded(number):  # as the run's own step
                loss = self._loss_function(model(multiplied(inputs, factors)), targets)
            grads = torch.autograd.grad(
                loss,
                list(parameters.values()),
                create_graph=create_graph,
                materialize_grads=True,
            )
            yield parameters, dict(zip(parameters, grads, strict=True))

    def _at_start(self, factors: Factors) -> nn.Module:
        """A copy in training mode with its tensors multiplied; kept for the next call.

        Hessian products come by the dozen. What the user trains in between is not seen.
        """
        if self._start is None or self._start[0] != factors:
            model = copy.deepcopy(self._model)
            multiply(model, factors)
            self._modes.set(model, True)
            self._start = dict(factors), model
        return self._start[1]

    def _check_first_batch(self) -> None:
        """Raises ValueError if the model has no finite loss there."""
        model, (inputs, targets) = copy.deepcopy(self._model), self.batches[0]
        self._modes.set(model, True)
        try:
            with torch.no_grad(), seeded(0):
                loss = self._loss_function(model(multiplied(inputs, {})), targets)
        except Exception as error:  # whatever a user's model may raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"the model or the loss refuses the first batch: {reason}") from error
        if not isinstance(loss, Tensor) or loss.ndim:
            what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss has to be a scalar tensor; of the first batch it is {what}")
        if not torch.isfinite(loss):
            raise ValueError(f"the loss has to be finite; of the first batch it is {float(loss)}")


def _check_model(model: Any) -> None:
    """Raises ValueError if it is no module that is ready to run on one device."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}; give a torch.nn.Module")
    if any(is_lazy(each) for each in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "the model has uninitialized layers; run one batch through the model first"
        )
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1:
        places = " and ".join(sorted(devices))
        raise ValueError(f"the parameters lie on {places}; put the model on one device")


def _check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Raises ValueError if it does not train this model."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"the optimizer is a {type(optimizer).__name__}; give a torch.optim.Optimizer"
        )
    parameters = {id(parameter) for parameter in model.parameters()}
    held = [id(each) for group in optimizer.param_groups for each in group["params"]]
    foreign = len(set(held) - parameters)
    if foreign == len(set(held)):
        raise ValueError("the optimizer holds none of the model's parameters; make it from them")
    if foreign:
        raise ValueError(
            f"the optimizer holds {foreign} tensors that are none of the model's parameters; give "
            "the model that has them all"
        )
