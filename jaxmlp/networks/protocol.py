"""What the law has to know of a network, and what it has to be able to do with it.

`torchref/network.py` meets this protocol for torch modules, `jaxmlp/networks/flax_network.py` for
Flax NNX. The two share no code; both only differentiate and step.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

INPUT = "input"

Factors = Mapping[str, float]  # by tensor: what its values are multiplied by; 1 if not named
Settings = Mapping[str, Mapping[str, float]]  # by trained tensor: learning_rate, weight_decay, eps
Arrays = dict[str, np.ndarray]  # by tensor


class Batches(Protocol):
    """Pairs of inputs and targets, read when they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> tuple[Any, Any]: ...


class Step(Protocol):
    """One step of training."""

    @property
    def loss(self) -> np.ndarray: ...  # scalar, of the run's dtype, before the step
    @property
    def correct(self) -> float | None: ...  # share of the batch; None if outputs are no scores
    @property
    def dead(self) -> Mapping[str, float]: ...  # by ReLU, in order: share of units off everywhere


class Training(Protocol):
    """A run under way, on a copy of the model."""

    def step(self) -> Step:
        """Trains on the next batch; after the last comes the first again."""
        ...

    def tensors(self) -> Arrays:
        """Copies of the parameters and the running statistics as they are now."""
        ...

    def outputs(self) -> np.ndarray:
        """What the network makes of the first batch in evaluation mode."""
        ...


class Network(Protocol):
    """A model with its optimizer, batches and loss. Nothing but `apply` alters what the user has.

    Tensors come in this order: the inputs (as `input`, if they are floating point numbers, which
    token ids are not), the parameters as the model names and orders them, tied ones once; constants
    (floating-point buffers that no training alters); the eps of every normalisation, named after it
    (`bn1.eps`).
    """

    @property
    def framework(self) -> str: ...  # torch or jax
    @property
    def optimizer(self) -> str: ...  # as law/rules.py names it, or its class' name in small letters
    @property
    def options(self) -> Mapping[str, float | bool]: ...  # momentum, dampening, nesterov, beta1, ..
    @property
    def clip_global_norm(self) -> float | None: ...  # threshold on the norm of all gradients
    @property
    def batches(self) -> Batches: ...
    @property
    def tensors(self) -> Mapping[str, tuple[int, ...]]: ...  # shapes
    @property
    def statistics(self) -> Mapping[str, tuple[int, ...]]: ...  # running means and variances
    @property
    def settings(self) -> Settings: ...  # of the trained tensors; frozen ones are not listed

    def derivatives(self, point: int, training: bool) -> dict[str, float]:
        """d loss / dt where a tensor is multiplied by e^t, for each tensor; in float64.

        Args:
            point: seeds weights and inputs, of moderate size, and which few targets are taken.
            training: in training mode; else in evaluation mode, and the statistics, drawn as well,
                are among the tensors.
        """
        ...

    def loss(self, point: int, factors: Factors, training: bool) -> float:
        """The loss there, in float64, with tensors (and statistics) multiplied by the factors."""
        ...

    def start(self, factors: Factors, settings: Settings) -> Training:
        """The user's own run, in its own dtype, with initial values and inputs multiplied."""
        ...

    def gradients(self, factors: Factors, batches: int) -> Arrays:
        """Of each trained tensor at the start of that run: root mean square over first batches."""
        ...

    def hessian_product(self, factors: Factors, batches: int, vector: Arrays) -> Arrays:
        """The Hessian of the mean loss of the first batches there, times a vector."""
        ...

    def apply(self, factors: Factors, settings: Settings) -> None:
        """Multiplies the user's own parameters, constants, eps, statistics and optimizer's state.

        And gives the optimizer the settings; the inputs stay the user's to multiply.
        """
        ...
