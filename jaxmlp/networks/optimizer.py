"""The optimizer of a user's Flax network: by name, with rates for all tensors or for each."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import optax

from jaxmlp.experiment import DECOUPLED, OPTIMIZER_DEFAULTS, OPTIMIZER_OPTIONS, Experiment
from jaxmlp.training.optimizer import direction

ALL_OTHERS = "*"  # the key of what holds for every tensor that is not named
OPTIONS = (*(name for name in OPTIMIZER_OPTIONS if name != "eps"), "nesterov")

PerTensor = float | Mapping[str, float]  # one number, or one by tensor and one for "*"


class Optimizer:
    """What a Flax network is trained with, in torch's semantics (docs/your-own-network.md).

    Args:
        name: sgd, adam, adamw, rmsprop, adagrad or lion.
        learning_rate: a number, or numbers by tensor, with the key "*" for all others; as are
            weight_decay (decoupled for adamw and lion, else coupled) and eps.
        frozen: tensors that are not trained.
        options: momentum, dampening, nesterov, beta1, beta2, alpha, where the optimizer has them.

    Raises:
        ValueError: a name is not known or a number is out of its range.
    """

    def __init__(
        self,
        name: str,
        learning_rate: PerTensor,
        weight_decay: PerTensor = 0.0,
        eps: PerTensor | None = None,
        *,
        frozen: Iterable[str] = (),
        **options: Any,
    ) -> None:
        self.experiment = Experiment(optimizer=name, **options)
        self.name, self.frozen = name, frozenset(frozen)
        default = OPTIMIZER_DEFAULTS[name].get("eps")
        if default is not None:
            eps = default[0] if eps is None else eps
        elif eps is not None:
            raise ValueError(f"eps does not apply to {name}; leave it out")
        given = {"learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps}
        self.given = {key: value for key, value in given.items() if value is not None}
        for key, value in self.given.items():
            for number in value.values() if isinstance(value, Mapping) else (value,):
                Experiment(optimizer=name, **{key: number})  # it knows the ranges

    @property
    def options(self) -> dict[str, float | bool]:
        """Those that the optimizer has."""
        values = {name: getattr(self.experiment, name) for name in OPTIONS}
        return {name: value for name, value in values.items() if value is not None}

    def settings(self, tensors: Iterable[str]) -> dict[str, dict[str, float]]:
        """The settings of each trained tensor.

        Raises:
            ValueError: a tensor is named that the network does not have, or one has no rate.
        """
        names = list(tensors)
        given = {key: _by_tensor(value) for key, value in self.given.items()}
        for named in (*given.values(), self.frozen):
            for name in named:
                if name not in names and name != ALL_OTHERS:
                    raise ValueError(f"the network has no tensor {name!r}; it has {_some(names)}")
        return {
            name: {key: _of(key, values, name) for key, values in given.items()}
            for name in names
            if name not in self.frozen
        }

    def chain(self, settings: Mapping[str, Any]) -> optax.GradientTransformation:
        """What one tensor is trained with; its settings may be traced."""
        decay = optax.add_decayed_weights(settings["weight_decay"])
        step = direction(self.experiment, settings.get("eps", 0.0))
        links = (step, decay) if self.name in DECOUPLED else (decay, step)
        return optax.chain(*links, optax.scale(-settings["learning_rate"]))

    def optax(self, tensors: Iterable[str]) -> optax.GradientTransformation:
        """For the user's own training: of nnx.Param, by the names that FlaxNetwork gives them.

        It has the rates of now; after `apply` a new one is needed.

        Raises:
            ValueError: as `settings` does.
        """
        chains: dict[Any, Any] = {
            name: self.chain(own) for name, own in self.settings(tensors).items()
        }

        def names(params: Any) -> Any:
            return jax.tree.map_with_path(_name, params)

        chains |= dict.fromkeys(self.frozen, optax.set_to_zero())
        return optax.partition(chains, names)


def _name(path: tuple[Any, ...], _: Any) -> str:
    return ".".join(str(key.key) for key in path if hasattr(key, "key"))


def _by_tensor(value: PerTensor) -> Mapping[str, float]:
    return value if isinstance(value, Mapping) else {ALL_OTHERS: value}


def _of(key: str, values: Mapping[str, float], tensor: str) -> float:
    if tensor not in values and ALL_OTHERS not in values:
        raise ValueError(f'{key} of {tensor} is missing; name it, or give "*" for all others')
    return float(values.get(tensor, values.get(ALL_OTHERS, 0.0)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
