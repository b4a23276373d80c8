"""A Flax network's training run under way."""

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmlp.networks.protocol import INPUT, Arrays, Factors, Settings

if TYPE_CHECKING:
    from jaxmlp.networks.flax_network import FlaxNetwork


class Step(NamedTuple):
    """One step of training."""

    loss: np.ndarray  # scalar, before the step
    correct: float | None  # share of the batch
    dead: dict[str, float]  # by ReLU: share of units that are off in the whole batch


class Training:
    """A run under way: one compiled step for all runs of a network, with other numbers."""

    def __init__(self, network: "FlaxNetwork", factors: Factors, settings: Settings) -> None:
        self.network = network
        self.trained, self.others, self.eps, self.scale = network.moved(factors)
        self.settings = {name: dict(of_tensor) for name, of_tensor in settings.items()}
        self.state = {
            name: network.user_optimizer.chain(of_tensor).init(self.trained[name])
            for name, of_tensor in self.settings.items()
        }
        self.batches = itertools.cycle(network.batches)

    def step(self) -> Step:
        self.trained, self.others, self.state, loss, correct, dead = self.network.train_step(
            self.trained,
            self.others,
            self.state,
            self.settings,
            self.eps,
            self.scale,
            *next(self.batches),
        )
        shares = {name: float(share) for name, share in dead.items()}
        return Step(np.asarray(loss), None if correct is None else float(correct), shares)

    def tensors(self) -> Arrays:
        both = {**self.trained, **self.others}
        names = (*self.network.model.parameters, *self.network.statistics)
        return {name: np.asarray(both[name]) for name in names}

    def outputs(self) -> np.ndarray:
        inputs = self.network.batches[0][0]
        if INPUT in self.network.tensors:
            inputs = inputs * self.scale
        values = {**self.trained, **self.others}
        return np.asarray(self.network.model.run(values, self.eps, inputs, training=False)[0])
