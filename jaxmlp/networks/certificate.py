"""Whether a network's run and its transport are one run, bit for bit: both side by side."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmlp.law.surd import surd
from jaxmlp.networks.protocol import INPUT, Factors, Network
from jaxmlp.networks.run import Change
from jaxmlp.networks.transport import transport


class Certificate(NamedTuple):
    """Where two runs part. Steps are counted from 1."""

    steps: int
    numbers: int  # parameters and running statistics compared after every step
    loss_step: int | None  # first step whose losses differ in a bit
    tensor_step: int | None  # first step after which a rescaled tensor differs in a bit
    tensor: str | None  # that tensor
    distance: float  # largest relative distance of two losses
    outputs: bool  # in evaluation mode after the last step: the same in every bit
    untransported_step: int | None  # first step whose loss differs if only the inputs are scaled
    nonfinite_step: int | None  # first step with a loss that is not finite

    @property
    def identical(self) -> bool:
        """Whether all losses, all tensors, and the outputs in evaluation agree in every bit."""
        return self.loss_step is None and self.tensor_step is None and self.outputs

    def __str__(self) -> str:
        """The certificate in a sentence."""
        tail = ""
        if self.untransported_step is not None:
            tail = f"; with nothing but the inputs scaled: part at step {self.untransported_step}"
        if self.nonfinite_step is not None:
            tail += f" (not finite from step {self.nonfinite_step} on: nothing is shown from there)"
        if self.identical:
            return (
                f"IDENTICAL in every bit: {self.steps:,} losses, {self.numbers:,} rescaled numbers "
                f"after each step, and the outputs in evaluation{tail}"
            )
        where = []
        if self.tensor_step is not None:
            where.append(f"step {self.tensor_step} ({self.tensor})")
        if self.loss_step is not None:
            where.append(f"step {self.loss_step} (losses)")
        if not where:
            where.append("the outputs in evaluation")
        return (
            f"part at {' and '.join(where)}; losses at most {self.distance:.1e} apart in "
            f"{self.steps:,} steps{tail}"
        )


def certify(
    network: Network,
    input_scale: float = 256.0,
    steps: int = 50,
    scheme: str = "fewest",
    progress: Callable[[int], None] = lambda step: None,
) -> Certificate:
    """Trains a network, and its transport to scaled inputs, side by side and compares the bits.

    Args:
        scheme: fewest tensors touched, or all weights alike.
        progress: called after each step with its number.

    Raises:
        ValueError: there is no such transport, or `steps` is no positive number.
    """
    return compare(network, transport(network, input_scale, scheme).change, steps, progress)


def compare(
    network: Network,
    change: Change,
    steps: int,
    progress: Callable[[int], None] = lambda step: None,
) -> Certificate:
    """As `certify`, of any transport.

    Raises:
        ValueError: `steps` is no positive number.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps; give at least one")
    factors = change.factors
    pair = [network.start({}, network.settings), network.start(factors, change.settings)]
    scaled = {name: factor for name, factor in factors.items() if name == INPUT}
    plain = network.start(scaled, network.settings) if scaled.get(INPUT, 1.0) != 1 else None
    loss_step = tensor_step = tensor = untransported = nonfinite = None
    distance, numbers = 0.0, 0
    for step in range(1, steps + 1):
        first, second = (run.step().loss for run in pair)
        if loss_step is None and not _same(first, second):
            loss_step = step
        if nonfinite is None and not (np.isfinite(first) and np.isfinite(second)):
            nonfinite = step
        distance = max(distance, _distance(float(first), float(second)))
        if plain is not None and untransported is None:
            untransported = None if _same(first, plain.step().loss) else step
        if tensor_step is None:
            tensors, others = (run.tensors() for run in pair)
            numbers = sum(array.size for array in tensors.values())
            tensor = _first_apart(tensors, others, factors)
            tensor_step = step if tensor else None
        progress(step)
    outputs = _same(*(run.outputs() for run in pair))
    return Certificate(
        steps,
        numbers,
        loss_step,
        tensor_step,
        tensor,
        distance,
        outputs,
        untransported,
        nonfinite,
    )


def exact(change: Change) -> bool:
    """Whether every factor is a power of two, so that no bit may differ."""
    factors = [surd(change.scale) ** exponent for exponent in change.exponents.values()]
    return all(
        float(factor) == factor and math.frexp(float(factor))[0] == 0.5 for factor in factors
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _distance(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return 0.0
    return abs(b - a) / abs(a) if a else abs(b)


def _first_apart(
    tensors: dict[str, np.ndarray], others: dict[str, np.ndarray], factors: Factors
) -> str | None:
    """The first tensor that is not the other run's times its factor, in every bit."""
    for name, array in tensors.items():
        expected = array * np.asarray(factors.get(name, 1.0), array.dtype)
        if not _same(expected, others[name]):
            return name
    return None
