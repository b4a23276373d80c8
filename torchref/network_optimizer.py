"""A user's optimizer: its name and settings, and how both it and its state are moved."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Settings = Mapping[str, Mapping[str, float]]
Group = dict[str, Any]

KEYS = {"learning_rate": "lr", "weight_decay": "weight_decay", "eps": "eps"}
OPTIONS = ("momentum", "dampening", "nesterov", "alpha")
# Powers of a tensor's factor by which its state moves: gradients by -1, their squares by -2.
STATE_POWERS = {
    "momentum_buffer": -1,
    "exp_avg": -1,
    "exp_avg_sq": -2,
    "max_exp_avg_sq": -2,
    "exp_inf": -1,
    "square_avg": -2,
    "grad_avg": -1,
    "sum": -2,
    "step": 0,
    "mu_product": 0,
}
RMSPROP_POWERS = STATE_POWERS | {"momentum_buffer": 0}  # of steps already normalised


def optimizer_name(optimizer: Optimizer) -> str:
    """Its class' name in small letters; Adam by another name where its options make it one."""
    name, group = type(optimizer).__name__.lower(), optimizer.param_groups[0]
    if name in ("adam", "nadam") and group.get("decoupled_weight_decay"):
        return name + "w"
    return "amsgrad" if name == "adam" and group.get("amsgrad") else name


def options(optimizer: Optimizer) -> dict[str, float | bool]:
    """Momentum and the like, of the first group."""
    group = optimizer.param_groups[0]
    found = {name: group[name] for name in OPTIONS if name in group}
    found |= dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))
    return {name: v if isinstance(v, bool) else float(v) for name, v in found.items()}


def trained(model: nn.Module, optimizer: Optimizer) -> dict[str, tuple[nn.Parameter, Group]]:
    """The parameters that training alters, in the model's order, and the group of each."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parameters = model.named_parameters()
    return {n: (p, groups[id(p)]) for n, p in parameters if p.requires_grad and id(p) in groups}


def settings_of(group: Group) -> dict[str, float]:
    """Learning rate and weight decay of a group, and eps if it has one."""
    read = {name: group.get(key) for name, key in KEYS.items()}
    read["weight_decay"] = read["weight_decay"] or 0.0
    return {n: float(v) for n, v in read.items() if isinstance(v, int | float | Tensor)}


def with_settings(group: Group, settings: Mapping[str, float]) -> Group:
    """The group with these settings; rates that are tensors stay tensors."""
    moved = dict(group)
    for name, value in settings.items():
        if (key := KEYS[name]) in group:
            is_tensor = isinstance(group[key], Tensor)
            moved[key] = torch.full_like(group[key], value) if is_tensor else value
    return moved


def fresh(optimizer: Optimizer, groups: Iterable[Group]) -> Optimizer:
    """A new optimizer of the same class and options over other groups."""
    accepted = inspect.signature(type(optimizer)).parameters
    defaults = {n: value for n, value in optimizer.defaults.items() if n in accepted}
    return type(optimizer)(list(groups), **defaults)


def check_movable(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], factors: Mapping[str, float]
) -> None:
    """Raises ValueError if a schedule is attached or a state's power is not known."""
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise ValueError(
            "make the learning-rate schedule after the transport: a scheduler keeps its own copy "
            "of the rates"
        )
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            is_state = isinstance(value, Tensor) and value.is_floating_point()
            has_entries = is_state and (value.ndim > 0 or value.shape == parameter.shape)
            if factors.get(name, 1.0) != 1.0 and has_entries and key not in STATE_POWERS:
                raise ValueError(
                    f"the state {key!r} that {type(optimizer).__name__} keeps of {name} has no "
                    f"known power; {', '.join(STATE_POWERS)} have one"
                )


@torch.no_grad()
def move_state(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], factors: Mapping[str, float]
) -> None:
    """Multiplies what the optimizer keeps of each parameter by the power of its factor."""
    powers = RMSPROP_POWERS if optimizer_name(optimizer) == "rmsprop" else STATE_POWERS
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if name in factors and isinstance(value, Tensor) and powers.get(key):
                value.mul_(factors[name] ** powers[key])


def regroup(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], settings: Settings
) -> None:
    """Gives each parameter whose settings change a group of its own; the others stay together."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = []
    for group in optimizer.param_groups:
        stay, moved = [], []
        for place, parameter in enumerate(group["params"]):
            wanted = settings.get(names[id(parameter)], {})
            target = with_settings(group, wanted)
            if settings_of(target) == settings_of(group):
                stay.append(place)
            else:
                moved.append(_part(target, [place]))
        groups += [_part(group, stay), *moved] if stay else moved
    optimizer.param_groups[:] = groups


def _part(group: Group, places: list[int]) -> Group:
    """The group with some of its parameters only."""
    lists = [key for key in ("params", "param_names") if key in group]
    return group | {key: [group[key][place] for place in places] for key in lists}
