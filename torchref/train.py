"""The reference loop: torch's own optimizers and schedulers, one of each per layer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from torchref.model import MLP, named


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2: the sign of a momentum, with decoupled weight decay.

    torch has none.
    """

    def __init__(self, params, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["exp_avg"] = torch.zeros_like(weight)
                average, grad = state["exp_avg"], weight.grad
                update = (beta1 * average + (1 - beta1) * grad).sign()
                weight.sub_(group["lr"] * (update + group["weight_decay"] * weight))
                average.mul_(beta2).add_(grad, alpha=1 - beta2)


@dataclass(frozen=True)
class TensorSettings:
    """What a layer's weight and its bias can have of their own."""

    learning_rate: float
    weight_decay: float
    eps: float = 1e-8


@dataclass(frozen=True)
class LayerSettings:
    """One layer's own settings; the schedule's times are in epochs."""

    tensors: dict[str, TensorSettings]  # by names as `named` gives them
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    gamma: float = 0.1


def layer_optimizer(
    name: str, layer: nn.Module, tensors: dict[str, TensorSettings], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """One layer's optimizer; weight decay is coupled but for adamw and lion.

    Args:
        name: sgd, adam, adamw, rmsprop, adagrad or lion.
        options: those of the optimizer among momentum, dampening, nesterov, beta1, beta2, alpha.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter],
            "lr": tensors[tensor].learning_rate,
            "weight_decay": tensors[tensor].weight_decay,
            "eps": tensors[tensor].eps,  # of no meaning to SGD and Lion
        }
        for tensor, parameter in named(layer)
    ]
    rate, decay = groups[0]["lr"], groups[0]["weight_decay"]
    match name:
        case "sgd":
            return torch.optim.SGD(
                groups,
                rate,
                momentum=options["momentum"],
                dampening=options["dampening"],
                nesterov=options["nesterov"],
            )
        case "adam" | "adamw":
            kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
            return kind(groups, rate, betas=(options["beta1"], options["beta2"]))
        case "rmsprop":
            return torch.optim.RMSprop(
                groups, rate, alpha=options["alpha"], momentum=options["momentum"]
            )
        case "adagrad":
            return torch.optim.Adagrad(groups, rate)
        case "lion":
            return Lion(
                groups, rate, betas=(options["beta1"], options["beta2"]), weight_decay=decay
            )
    raise ValueError(f"optimizer {name!r} is not known")


def layer_scheduler(
    optimizer: torch.optim.Optimizer,
    settings: LayerSettings,
    milestones: tuple[int, ...],
    epochs: int,
    steps_per_epoch: int,
) -> lr_scheduler.LRScheduler:
    """One layer's schedule, stepped after every batch; milestones are epochs of the whole run.

    A warm-up of n steps gives 1/n, 2/n, ..., 1; cosine and exponential start when it is over.
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    match settings.schedule:
        case "constant":
            after: lr_scheduler.LRScheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
        case "cosine":
            after = lr_scheduler.CosineAnnealingLR(
                optimizer, T_max=max(epochs * steps_per_epoch - warmup, 1)
            )
        case "step":
            steps = [epoch * steps_per_epoch - warmup for epoch in milestones]
            after = lr_scheduler.MultiStepLR(optimizer, steps, settings.gamma)
        case "exponential":  # ExponentialLR, were it stepped once an epoch
            after = lr_scheduler.StepLR(optimizer, steps_per_epoch, settings.gamma)
        case other:
            raise ValueError(f"schedule {other!r} is not known")
    if not warmup:
        return after
    rising = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, max(warmup - 1, 1))
    return lr_scheduler.SequentialLR(optimizer, [rising, after], milestones=[warmup])


class StepMetrics(NamedTuple):
    loss: Tensor  # mean over the batch, before the step
    correct: Tensor  # images of the batch, before the step
    grad_norm: Tensor  # (layers,), of the loss alone: without weight decay
    dead: Tensor  # (hidden layers,), units that no image of the batch activates


class Evaluation(NamedTuple):
    loss: float
    correct: int
    dead: list[int]  # per hidden layer: units that no image activates
    silent: list[int]  # per hidden layer: images that activate no unit


def loss_function(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over the batch."""
    return nn.functional.cross_entropy(logits, labels)


def train_step(
    model: MLP,
    optimizers: list[torch.optim.Optimizer],
    schedulers: list[lr_scheduler.LRScheduler],
    images: Tensor,
    labels: Tensor,
) -> StepMetrics:
    """One step of training on one batch."""
    logits, hidden = model(images)
    loss = loss_function(logits, labels)
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        grads = [
            [p.grad for p in layer.parameters() if p.grad is not None] for layer in model.layers
        ]
        metrics = StepMetrics(
            loss.detach(),
            (logits.argmax(dim=1) == labels).sum(),
            torch.stack([torch.cat([g.flatten() for g in layer]).norm() for layer in grads]),
            torch.tensor([int((~(h > 0).any(dim=0)).sum()) for h in hidden]),
        )
    for optimizer in optimizers:
        optimizer.step()
    for scheduler in schedulers:
        scheduler.step()
    return metrics


@torch.no_grad()
def evaluate(model: MLP, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """What the whole test set says; the loss is the mean over its images."""
    losses, correct, images = 0.0, 0, 0
    hidden_layers: Any = model.layers[:-1]
    active = [torch.zeros(layer.out_features, dtype=torch.bool) for layer in hidden_layers]
    silent = [0] * len(active)
    for inputs, labels in batches:
        logits, hidden = model(inputs)
        losses += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(dim=1) == labels).sum())
        images += len(labels)
        for i, layer in enumerate(hidden):
            active[i] |= (layer > 0).any(dim=0).cpu()
            silent[i] += int((~(layer > 0).any(dim=1)).sum())
    return Evaluation(losses / images, correct, [int((~layer).sum()) for layer in active], silent)


def train(
    model: MLP,
    optimizers: list[torch.optim.Optimizer],
    schedulers: list[lr_scheduler.LRScheduler],
    train_batches: Iterable[tuple[Tensor, Tensor]],
    test_batches: Iterable[tuple[Tensor, Tensor]],
    epochs: int,
) -> Iterator[tuple[list[StepMetrics], Evaluation]]:
    """Trains, yielding after each epoch: over all training batches, then over the test set."""
    device = next(model.parameters()).device
    for _ in range(epochs):
        steps = [
            train_step(model, optimizers, schedulers, images.to(device), labels.to(device))
            for images, labels in train_batches
        ]
        test = evaluate(model, ((i.to(device), y.to(device)) for i, y in test_batches))
        yield steps, test
