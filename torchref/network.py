"""A user's own torch module with its optimizer and batches, as anything that rescales it sees it.

It only differentiates and steps: what may be rescaled, and what that means, is decided elsewhere.
Everything happens on copies; nothing but `apply` alters what the user has.
"""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchref.points import Points, constants, eps_value, norms, seeded, statistics
from torchref.relus import DeadUnits

BATCHES_KEPT = 100  # of the user's, read once: loaders shuffle
Factors = Mapping[str, float]
Settings = Mapping[str, Mapping[str, float]]
Arrays = dict[str, np.ndarray]
Loss = Callable[[Any, Tensor], Tensor]

OPTIONS = ("momentum", "dampening", "nesterov", "alpha")
# Powers of W' / W by which an optimizer's state moves; RMSprop's momentum is of normalised steps.
STATE = {
    "momentum_buffer": -1,
    "exp_avg": -1,
    "exp_avg_sq": -2,
    "max_exp_avg_sq": -2,
    "exp_inf": -1,
    "square_avg": -2,
    "grad_avg": -1,
    "sum": -2,
}
RMSPROP_STATE = STATE | {"momentum_buffer": 0}


class Step(NamedTuple):
    """One step of training."""

    loss: np.ndarray  # scalar, before the step
    correct: float | None  # share of the batch
    dead: dict[str, float]  # by ReLU: share of units that are off in the whole batch


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over examples, or over the places of sequences: class scores come last."""
    return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


class TorchNetwork:
    """A model, its optimizer, its batches and its loss.

    Args:
        batches: pairs of inputs and targets; the first are kept and come again after the last.
        loss: of outputs and targets, a scalar; default: cross-entropy.
        clip_global_norm: what the norm of all gradients together is clipped to.

    Raises:
        ValueError: something else is given, or the model does not run; the message says which.
    """

    framework = "torch"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Iterable[tuple[Tensor, Tensor]],
        loss: Loss | None = None,
        clip_global_norm: float | None = None,
    ) -> None:
        _check(model, optimizer)
        self.clip_global_norm = clip_global_norm
        self.model, self.user_optimizer = model, optimizer
        self.loss_function = loss or cross_entropy
        with torch.random.fork_rng():
            self.batches = _kept(batches)
        self.flags = {name: module.training for name, module in model.named_modules()}
        parameters = dict(model.named_parameters())
        self.norms = norms(model)
        shapes: dict[str, tuple[int, ...]] = {}
        if self.batches[0][0].is_floating_point():
            shapes["input"] = tuple(self.batches[0][0].shape[1:])
        shapes |= {name: tuple(p.shape) for name, p in parameters.items()}
        shapes |= {name: tuple(b.shape) for name, b in constants(model).items()}
        self.tensors = shapes | dict.fromkeys(self.norms, ())
        self.statistics = {name: tuple(s.shape) for name, s in statistics(model).items()}
        self.optimizer = _name(optimizer)
        self.groups = _groups(parameters, optimizer)
        self.settings = {name: _settings(group) for name, group in self.groups.items()}
        self.options = _options(next(iter(self.groups.values())))
        self._check_batch()
        self.points = Points(
            copy.deepcopy(model), self.batches[0], self.loss_function, self._set_mode
        )
        self._at_start: tuple[Factors, nn.Module] | None = None

    # ---- at random points

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        return self.points.derivatives(point, training)

    def loss(self, point: int, factors: Factors, training: bool) -> float:
        return self.points.loss(point, factors, training)

    # ---- the user's own run

    def start(self, factors: Factors, settings: Settings) -> "Training":
        return Training(self, factors, settings)

    def gradients(self, factors: Factors, batches: int) -> Arrays:
        model, squares = self._moved_model(factors), {}
        for inputs, targets in self._scaled(factors, batches):
            grads = torch.autograd.grad(self._loss(model, inputs, targets), self._trained(model))
            for name, grad in zip(self.groups, grads, strict=True):
                squares[name] = squares.get(name, 0) + grad.numpy(force=True).astype(float) ** 2
        count = min(batches, len(self.batches))
        return {name: np.sqrt(square / count) for name, square in squares.items()}

    def hessian_product(self, factors: Factors, batches: int, vector: Arrays) -> Arrays:
        model, total = self._moved_model(factors), {name: np.zeros(()) for name in self.groups}
        parameters = self._trained(model)
        tangents = [
            torch.as_tensor(vector[name], dtype=p.dtype, device=p.device)
            for name, p in zip(self.groups, parameters, strict=True)
        ]
        for inputs, targets in self._scaled(factors, batches):
            loss = self._loss(model, inputs, targets)
            grads = torch.autograd.grad(loss, parameters, create_graph=True)
            slope = torch.stack([(g * t).sum() for g, t in zip(grads, tangents, strict=True)]).sum()
            products = torch.autograd.grad(slope, parameters, materialize_grads=True)
            for name, product in zip(self.groups, products, strict=True):
                total[name] = total[name] + product.numpy(force=True)
        count = min(batches, len(self.batches))
        return {name: product / count for name, product in total.items()}

    def apply(self, factors: Factors, settings: Settings) -> None:
        powers = RMSPROP_STATE if self.optimizer == "rmsprop" else STATE
        parameters = dict(self.model.named_parameters())
        for name, group in self.groups.items():
            if "initial_lr" in group:
                raise ValueError(
                    "make the learning-rate schedule after the transport: a scheduler keeps its "
                    "own copy of the rates"
                )
            _check_state(name, parameters[name], self.user_optimizer, powers)
        scale(self.model, factors)
        for name, parameter in parameters.items():
            for key, value in self.user_optimizer.state.get(parameter, {}).items():
                if key in powers and isinstance(value, Tensor):
                    value.mul_(factors.get(name, 1.0) ** powers[key])
        by_settings: dict[Any, dict[str, Any]] = {}
        for name, group in self.groups.items():
            moved = _with_settings(group, settings[name])
            key = (id(group), *settings[name].values())
            by_settings.setdefault(key, {**moved, "params": []})["params"].append(parameters[name])
        self.user_optimizer.param_groups[:] = by_settings.values()
        self.groups = _groups(parameters, self.user_optimizer)
        self.settings = {name: _settings(group) for name, group in self.groups.items()}
        self._at_start = None

    # ---- parts

    def _loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with seeded(0):
            return self.loss_function(model(inputs), targets)

    def _set_mode(self, model: nn.Module, training: bool) -> None:
        """Training mode as the user left it, module by module, where the user left it on."""
        model.train(training)
        if training and self.flags[""]:
            for name, module in model.named_modules():
                module.training = self.flags[name]

    def _moved_model(self, factors: Factors) -> nn.Module:
        """A copy in training mode with its tensors multiplied; kept for the next call."""
        if self._at_start is None or self._at_start[0] != factors:
            model = copy.deepcopy(self.model)
            scale(model, factors)
            self._set_mode(model, True)
            self._at_start = dict(factors), model
        return self._at_start[1]

    def _trained(self, model: nn.Module) -> list[nn.Parameter]:
        parameters = dict(model.named_parameters())
        return [parameters[name] for name in self.groups]

    def _scaled(self, factors: Factors, batches: int) -> Iterable[tuple[Tensor, Tensor]]:
        for inputs, targets in self.batches[:batches]:
            yield self.scaled(inputs, factors), targets

    def scaled(self, inputs: Tensor, factors: Factors) -> Tensor:
        """The inputs multiplied; whole numbers have no scale."""
        has_scale = inputs.is_floating_point() and "input" in factors
        return inputs * factors["input"] if has_scale else inputs

    def _check_batch(self) -> None:
        model = copy.deepcopy(self.model)
        self._set_mode(model, True)
        inputs, targets = self.batches[0]
        try:
            loss = self._loss(model, inputs, targets)
        except Exception as error:  # whatever a user's model may raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"the model or the loss refuses the first batch (inputs {tuple(inputs.shape)}, "
                f"targets {tuple(targets.shape)}): {reason[0]}"
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError("the loss of a batch has to be one number, such as a mean over it")
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of the first batch is {float(loss)}; it has to be finite")


class Training:
    """A run under way, on a copy of the model."""

    def __init__(self, network: TorchNetwork, factors: Factors, settings: Settings) -> None:
        self.network, self.factors = network, factors
        self.model = copy.deepcopy(network.model)
        scale(self.model, factors)
        network._set_mode(self.model, True)
        parameters = dict(self.model.named_parameters())
        groups = [
            {**_with_settings(group, settings[name]), "params": [parameters[name]]}
            for name, group in network.groups.items()
        ]
        kind = type(network.user_optimizer)
        self.optimizer = _fresh(kind, groups, network.user_optimizer.defaults)
        powers = RMSPROP_STATE if network.optimizer == "rmsprop" else STATE
        for name, parameter in parameters.items():  # Adagrad's sum may start above 0
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if key in powers:
                    value.mul_(factors.get(name, 1.0) ** powers[key])
        self.batches, self.count = itertools.cycle(network.batches), 0

    def step(self) -> Step:
        inputs, targets = next(self.batches)
        self.count += 1
        with seeded(self.count), DeadUnits() as units:
            outputs = self.model(self.network.scaled(inputs, self.factors))
            loss = self.network.loss_function(outputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        if self.network.clip_global_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.network.clip_global_norm)
        self.optimizer.step()
        return Step(loss.numpy(force=True), _correct(outputs, targets), units.shares)

    def tensors(self) -> Arrays:
        both = {**dict(self.model.named_parameters()), **statistics(self.model)}
        return {name: tensor.numpy(force=True).copy() for name, tensor in both.items()}

    @torch.no_grad()
    def outputs(self) -> np.ndarray:
        self.model.eval()
        outputs = self.model(self.network.scaled(self.network.batches[0][0], self.factors))
        self.network._set_mode(self.model, True)
        return outputs.numpy(force=True)


@torch.no_grad()
def scale(model: nn.Module, factors: Factors) -> None:
    """Multiplies parameters, constants, running statistics and norms' eps in place."""
    of_model = {**dict(model.named_parameters()), **constants(model), **statistics(model)}
    for name, tensor in of_model.items():
        if name in factors:
            tensor.mul_(factors[name])
    for name, module in norms(model).items():
        if name in factors:
            module.eps = eps_value(module) * factors[name]


@torch.no_grad()
def _correct(outputs: Any, targets: Tensor) -> float | None:
    """The share of targets whose class has the largest output; None if they are no classes."""
    if not isinstance(outputs, Tensor) or targets.is_floating_point():
        return None
    if outputs.shape[:-1] != targets.shape:
        return None
    return float((outputs.argmax(dim=-1) == targets).float().mean())


# ---- what the user gives


def _check(model: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}; give a torch.nn.Module")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"the optimizer is a {type(optimizer).__name__}; give a torch.optim optimizer"
        )
    parameters = list(model.parameters())
    if any(is_lazy(parameter) for parameter in parameters):
        raise ValueError(
            "the model has lazy layers without weights: run one batch through it first"
        )
    devices = sorted({str(parameter.device) for parameter in parameters})
    if len(devices) != 1:
        on = f"lie on {' and '.join(devices)}" if devices else "are none"
        raise ValueError(f"the model's parameters {on}; they have to lie on one device")


def _kept(batches: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    try:
        kept = list(itertools.islice(batches, BATCHES_KEPT))
    except TypeError:
        raise ValueError(
            f"batches is a {type(batches).__name__}; give a list or a loader of (inputs, targets)"
        ) from None
    if not kept:
        raise ValueError("there are no batches; give at least one pair of inputs and targets")
    for batch in kept:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not pair or not all(isinstance(each, Tensor) for each in batch):
            raise ValueError("a batch is no pair of tensors (inputs, targets)")
    return [(inputs, targets) for inputs, targets in kept]


def _name(optimizer: torch.optim.Optimizer) -> str:
    """As the law calls it; of unknown ones the class' name."""
    name, group = type(optimizer).__name__.lower(), optimizer.param_groups[0]
    if name in ("adam", "nadam") and group.get("decoupled_weight_decay"):
        return f"{name}w"
    return "amsgrad" if name == "adam" and group.get("amsgrad") else name


def _groups(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Any]]:
    """The parameter group of each trained parameter, in the model's order."""
    of_tensor = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    unknown = of_tensor.keys() - {id(parameter) for parameter in parameters.values()}
    groups = {
        name: of_tensor[id(parameter)]
        for name, parameter in parameters.items()
        if id(parameter) in of_tensor and parameter.requires_grad
    }
    if unknown or not groups:
        raise ValueError(
            f"the optimizer holds {len(unknown) or 'no'} tensors that "
            f"{'are not' if unknown else 'are'} the model's trained parameters; make it from "
            "model.parameters()"
        )
    return groups


def _settings(group: Mapping[str, Any]) -> dict[str, float]:
    settings = {
        "learning_rate": float(group["lr"]),
        "weight_decay": float(group.get("weight_decay", 0.0)),
    }
    return settings | ({"eps": float(group["eps"])} if "eps" in group else {})


def _with_settings(group: Mapping[str, Any], settings: Mapping[str, float]) -> dict[str, Any]:
    moved = {**group, "lr": settings["learning_rate"]}
    for name in ("weight_decay", "eps"):
        if name in group:
            moved[name] = settings[name]
    return moved


def _options(group: Mapping[str, Any]) -> dict[str, float]:
    options = {name: group[name] for name in OPTIONS if name in group}
    if "betas" in group:
        options["beta1"], options["beta2"] = group["betas"]
    return options


def _fresh(
    kind: type, groups: list[dict[str, Any]], defaults: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer of the same kind; what its groups do not say is as it was made."""
    taken = inspect.signature(kind).parameters
    return kind(groups, **{name: value for name, value in defaults.items() if name in taken})


def _check_state(
    name: str,
    parameter: nn.Parameter,
    optimizer: torch.optim.Optimizer,
    powers: Mapping[str, int],
) -> None:
    for key, value in optimizer.state.get(parameter, {}).items():
        unknown = isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim
        if unknown and key not in powers:
            raise ValueError(
                f"the optimizer's state {key!r} of {name} is not known, so it cannot be moved; "
                "transport before the first step"
            )
