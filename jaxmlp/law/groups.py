"""Settings for any model whose first weight makes up for scaled inputs.

They come in two groups: the first weight, which meets the inputs directly, and everything else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmlp.experiment import (
    FLOAT32_MAX,
    FLOAT32_MIN,
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_OPTIONS,
    PER_TENSOR,
    Experiment,
)
from jaxmlp.law.rules import scaling_rule
from jaxmlp.law.surd import rounded, surd

OPTIONS: dict[str, dict[str, Any]] = {  # of optimizers that an Experiment has not: usual defaults
    "amsgrad": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adabelief": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-16},
    "yogi": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-3},
    "signsgd": {},
    "lars": {"momentum": 0.9, "eps": 1e-9},
    "lamb": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-6},
    "muon": {"beta1": 0.95, "eps": 1e-8},
    "novograd": {"beta1": 0.9, "beta2": 0.25, "eps": 1e-6},
}
# What a setting is that nobody gave: not this project's own default, but that of the library that
# the code is for. PyTorch's signatures; optax's of adamw and lion, whose others decay nothing.
USUAL: dict[str, dict[str, dict[str, Any]]] = {
    "torch": {
        "sgd": {"learning_rate": 1e-3, "momentum": 0.0},
        "adamw": {"weight_decay": 1e-2},
        "amsgrad": {"learning_rate": 1e-3},
    },
    "optax": {
        "sgd": {"momentum": 0.0},
        "adamw": {"weight_decay": 1e-4},
        "lion": {"weight_decay": 1e-3},
    },
}
OF_EVERY_GROUP = (*(name for name in OPTIMIZER_OPTIONS if name != "eps"), "nesterov")


class Group(NamedTuple):
    """The settings of some of a model's tensors."""

    init_scale: float  # what to multiply the initial values by
    learning_rate: float
    weight_decay: float
    eps: float | None
    clip: float | None


def assumed(library: str, optimizer: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was not given, as the library has it where it does not have it as an Experiment does.

    Args:
        library: optax or torch.
        given: settings by their names in an Experiment.
    """
    of_optimizer = {**OPTIMIZER_DEFAULTS, **OPTIONS}[optimizer]
    defaults = {"weight_decay": 0.0, **of_optimizer, **USUAL[library].get(optimizer, {})}
    return {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in defaults.items()
        if name not in given
    }


def whole_model(
    optimizer: str, settings: Mapping[str, Any], clip: float | None = None
) -> tuple[Group, dict[str, Any]]:
    """The unscaled run's settings, one value for the whole model, and the optimizer's options.

    Args:
        settings: by their names in an Experiment, the assumed ones among them.
        clip: threshold on each tensor's own gradient.

    Raises:
        ValueError: a setting breaks its rule, does not apply to the optimizer, has several
            values, or is missing.
    """
    if optimizer in OPTIMIZER_DEFAULTS:
        experiment = Experiment(optimizer=optimizer, **settings)
        several = {name: getattr(experiment, name) for name in PER_TENSOR}
        options = {name: getattr(experiment, name) for name in OF_EVERY_GROUP}
    else:
        several, options = _of_no_experiment(optimizer, settings)
    for name, values in several.items():
        if values is not None and len(values) != 1:
            raise ValueError(f"{name} has {len(values)} values; give one, as for any model")
    single = {name: values[0] for name, values in several.items() if values is not None}
    return Group(**{"eps": None, **single}, clip=clip), options


def _of_no_experiment(
    optimizer: str, settings: Mapping[str, Any]
) -> tuple[dict[str, tuple[float, ...] | None], dict[str, Any]]:
    """The settings of PER_TENSOR and the options of an optimizer that an Experiment has not.

    Raises:
        ValueError: a setting breaks its rule, does not apply, or is missing.
    """
    defaults = OPTIONS[optimizer]
    for name in (*OPTIMIZER_OPTIONS, "nesterov"):
        if name not in defaults and name in settings:
            raise ValueError(f"--{name} does not apply to {optimizer}; leave it out")
    numbers = ("beta1", "beta2", "eps", "learning_rate", "weight_decay")
    adam: dict[str, Any] = {name: settings[name] for name in numbers if name in settings}
    Experiment(optimizer="adam", **adam)  # has all of these: it checks the numbers
    if "learning_rate" not in settings:
        raise ValueError(f"--learning-rate is missing; {optimizer} has no usual one")
    several = {
        name: _values(settings[name]) if name in settings else None
        for name in ("learning_rate", "eps", "weight_decay")
    }
    options = {name: settings[name] for name in defaults if name != "eps"}
    return {**several, "init_scale": (1.0,)}, options


def _values(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value if isinstance(value, list | tuple) else (value,)))


def groups(
    optimizer: str, settings: Group, scale: float, *, eps_in_root: bool = False
) -> tuple[Group, Group]:
    """The first weight, whose inputs are multiplied by `scale`, and everything else.

    Args:
        eps_in_root: eps adds to a squared gradient, and so moves twice as far.

    Raises:
        ValueError: the optimizer cannot be moved, or a number leaves float32's range.
    """
    rule = scaling_rule(optimizer)
    factor = surd(scale) ** -1

    def moved(name: str, exponent: int) -> Any:
        value = getattr(settings, name)
        return value and rounded(name, factor**exponent * value)

    first = Group(
        float(factor),
        moved("learning_rate", rule.learning_rate),
        moved("weight_decay", rule.weight_decay),
        moved("eps", (1 + eps_in_root) * (rule.eps or 0)),
        moved("clip", rule.clip),
    )
    for name, value in first._asdict().items():
        if value is not None and value != 0 and not FLOAT32_MIN <= abs(value) <= FLOAT32_MAX:
            raise ValueError(f"{name} would be {value:.3g}, which float32 cannot hold")
    return first, settings
