"""Whether two experiments are the same run, bit for bit: both side by side in one program."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.experiment import Experiment
from jaxmlp.law.surd import surd
from jaxmlp.record.metrics import Evaluation
from jaxmlp.training.model import Params, mlp
from jaxmlp.training.preprocessing import Images
from jaxmlp.training.run import prepare
from jaxmlp.training.step import (
    Hyperparameters,
    State,
    batch_step,
    evaluate,
    flipped,
    static_part,
)


class Epoch(NamedTuple):
    """One epoch of both runs, on the host. ulps: units in the last place, 0: the same bits."""

    losses: Float[np.ndarray, "2 steps"]
    loss_ulps: UInt[np.ndarray, " steps"]
    # Of the parameters after the step, but for the `underflowed` ones:
    weight_ulps: UInt[np.ndarray, " steps"]  # the largest
    weight_distance: Float[np.ndarray, " steps"]  # relative, in the L2 norm
    underflowed: Int[np.ndarray, " steps"]  # how many differ where `underflows` allows it
    accuracies: tuple[float, float]  # on the test set, after the epoch


class Certificate(NamedTuple):
    """Where two runs part, parameters that underflow aside; all epochs together."""

    steps: int
    parameters: int  # numbers compared after every step
    loss_step: int | None  # first step, counted from 1, whose losses differ in a bit
    weight_step: int | None  # first step after which a rescaled weight differs in a bit
    first_ulps: int  # the largest distance at the earlier of the two
    first_distance: float  # relative, of the weights, after the first step that parts them
    loss_distance: float  # largest relative distance of two losses
    weight_distance: float  # relative, after the last step
    accuracies: tuple[float, float]
    nonfinite_step: int | None  # first step, counted from 1, with a loss that is not finite
    underflowed: int  # parameters that differ by underflow, after the step with the most of them
    underflow_step: int | None  # first step after which there is one

    @property
    def identical(self) -> bool:
        """Whether all losses, and all parameters that do not underflow, agree in every bit."""
        return self.loss_step is None and self.weight_step is None

    def __str__(self) -> str:
        """The certificate in a sentence."""
        first, second = self.accuracies
        accuracies = f"test accuracy {first:.2%} and {second:.2%}"
        if self.identical:
            return (
                f"IDENTICAL in every bit: {self.steps:,} losses, and {self.parameters:,} rescaled "
                f"parameters after each step{self._reservations()}; {accuracies}"
            )
        where = []
        if self.weight_step is not None:
            where.append(f"step {self.weight_step} (weights)")
        if self.loss_step is not None:
            where.append(f"step {self.loss_step} (losses)")
        bit = max(self.first_ulps.bit_length() - 1, 0)
        return (
            f"part at {' and '.join(where)}, by {self.first_distance:.1e} (bit {bit} from the last "
            f"at most){self._reservations()}; then losses at most {self.loss_distance:.1e} apart, "
            f"weights {self.weight_distance:.1e} after {self.steps:,} steps; {accuracies}"
        )

    def _reservations(self) -> str:
        """What the comparison leaves out, in words."""
        text = ""
        if self.underflow_step is not None:
            # "1 parameter that underflows", "2 parameters that underflow"
            noun, verb = (
                ("parameter", "underflows")
                if self.underflowed == 1
                else ("parameters", "underflow")
            )
            text = (
                f", but for {self.underflowed:,} {noun} that {verb} "
                f"from step {self.underflow_step} on"
            )
        if self.nonfinite_step is not None:
            text += f" (not finite from step {self.nonfinite_step} on: nothing is shown from there)"
        return text


def summary(epochs: list[Epoch], parameters: int) -> Certificate:
    """The certificate of all epochs."""
    losses = np.concatenate([epoch.losses for epoch in epochs], axis=1).astype(np.float64)
    loss, weight = (
        np.concatenate([getattr(epoch, name) for epoch in epochs])
        for name in ("loss_ulps", "weight_ulps")
    )
    weight_step = _first(weight)
    parted = [step for step in (_first(loss), weight_step) if step is not None]
    first = min(parted, default=None)
    apart = np.concatenate([epoch.weight_distance for epoch in epochs])
    underflowed = np.concatenate([epoch.underflowed for epoch in epochs])
    with np.errstate(all="ignore"):
        distance = np.abs(losses[1] - losses[0]) / np.abs(losses[0])
    return Certificate(
        steps=losses.shape[1],
        parameters=parameters,
        loss_step=_first(loss),
        weight_step=weight_step,
        first_ulps=0 if first is None else int(max(loss[first - 1], weight[first - 1])),
        first_distance=0.0 if weight_step is None else float(apart[weight_step - 1]),
        loss_distance=float(np.max(np.where(loss == 0, 0.0, distance))),
        weight_distance=float(apart[-1]),
        accuracies=epochs[-1].accuracies,
        nonfinite_step=_first(~np.isfinite(losses).all(axis=0)),
        underflowed=int(underflowed.max()),
        underflow_step=_first(underflowed),
    )


def _first(steps: Any) -> int | None:
    """The first step, counted from 1, at which this is not 0."""
    return int(np.argmax(steps > 0)) + 1 if (steps > 0).any() else None


def factors(experiment: Experiment, moved: Experiment) -> dict[str, list[float]]:
    """W' / W of every layer's kernel, and bias: the ratio of the initial scales.

    Raises:
        ValueError: the experiments differ in more than what one compiled program takes as numbers.
    """
    if static_part(experiment) != static_part(moved) or experiment.seed != moved.seed:
        raise ValueError(
            "only experiments that differ in scales, rates, decays and eps can be the same run; "
            "make everything else equal"
        )
    before, after = experiment.per_tensor("init_scale"), moved.per_tensor("init_scale")
    return {
        tensor: [
            float(surd(b) / surd(a)) for a, b in zip(before[tensor], after[tensor], strict=True)
        ]
        for tensor in before
    }


def exact(experiment: Experiment, moved: Experiment) -> bool:
    """Whether the weights' factors are all powers of two, so that no bit may differ.

    Raises:
        ValueError: the two can never be the same run.
    """
    return all(
        math.frexp(factor)[0] == 0.5
        for layers in factors(experiment, moved).values()
        for factor in layers
    )


def pair_epochs(experiment: Experiment, moved: Experiment, dataset: Dataset) -> Iterator[Epoch]:
    """Trains both, yielding after each epoch how far apart they are.

    One program steps the two one after the other with the same instructions; what differs between
    them are the numbers it is given.

    Raises:
        ValueError: the two can never be the same run, or a run cannot start.
    """
    scales = factors(experiment, moved)
    runs = [prepare(experiment, dataset), prepare(moved, dataset)]
    with precision(experiment):
        states, hypers = jax.tree.map(
            lambda *pair: jnp.stack(pair), *((run.state, run.hyper) for run in runs)
        )
        dtype = float_dtype(experiment)
        scales = {tensor: jnp.asarray(values, dtype) for tensor, values in scales.items()}
        compiled = jax.jit(side_by_side, static_argnums=(0, 1), donate_argnums=2)
    test_size = len(dataset.test_labels)
    for _ in range(experiment.epochs):
        with precision(experiment):
            batches = next(runs[0].order)
            states, found, test = compiled(
                static_part(experiment),
                runs[0].widths,
                states,
                hypers,
                scales,
                batches,
                runs[0].images,
            )
            (losses, *rest), correct = jax.device_get((found, test.correct))
            loss, weight, distance, lost = rest
        first, second = (int(count) / test_size for count in correct)
        yield Epoch(losses.T, loss, weight, distance, lost, (first, second))


def certify(
    experiment: Experiment,
    moved: Experiment,
    dataset: Dataset,
    progress: Callable[[int], None] | None = None,
    pair: Callable[[Experiment, Experiment, Dataset], Iterator[Epoch]] = pair_epochs,
) -> Certificate:
    """Whether two experiments are one run, bit for bit: both are trained, and compared.

    Args:
        moved: the experiment, rescaled, as jaxmlp.transport gives it.
        progress: called after each epoch, counted from 1.
        pair: who trains the two, if not JAX.

    Raises:
        ValueError: the two can never be the same run, or a run cannot start.
    """
    epochs: list[Epoch] = []
    for epoch in pair(experiment, moved, dataset):
        epochs.append(epoch)
        if progress:
            progress(len(epochs))
    widths = dataset.widths(experiment.hidden)
    parameters = sum((a + experiment.bias) * b for a, b in itertools.pairwise(widths))
    return summary(epochs, parameters)


def side_by_side(
    experiment: Experiment,
    widths: tuple[int, ...],
    states: State,
    hypers: Hyperparameters,
    scales: dict[str, Float[Array, " layers"]],
    batch_indices: Int[Array, "steps batch"],
    images: Images,
) -> tuple[State, tuple[Array, ...], Evaluation]:
    """An epoch of both runs: states and hyper with a leading axis of two."""
    steps_per_epoch = len(batch_indices)

    def one(pair, indices):
        state, hyper = pair
        return batch_step(experiment, widths, hyper, images, steps_per_epoch)(state, indices)

    def both(pair, indices):
        pair, metrics = jax.lax.map(lambda each: one(each, indices), (pair, hypers))
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pair.params) for i in (0, 1))
        factors = [
            {tensor: scales[tensor][layer] for tensor in weights}
            for layer, weights in enumerate(first)
        ]
        expected = jax.tree.map(jnp.multiply, factors, first)
        lost = jax.tree.map(underflows, expected, second, factors)
        count = jnp.sum(jnp.array([jnp.sum(mask) for mask in jax.tree.leaves(lost)]))
        second = jax.tree.map(jnp.where, lost, expected, second)
        found = (
            metrics.loss,
            ulps(metrics.loss[0], metrics.loss[1]),
            _largest(expected, second),
            _relative(expected, second),
            count,
        )
        return pair, found

    states, found = jax.lax.scan(both, jax.vmap(flipped)(states), batch_indices)
    states = jax.vmap(flipped)(states)
    apply = mlp(widths, experiment.bias, float_dtype(experiment))
    test = jax.lax.map(
        lambda pair: evaluate(experiment, apply, pair[0], pair[1], images), (states.params, hypers)
    )
    return states, found, test


def ulps(a: Any, b: Any) -> Any:
    """How many floats lie between a and b, one end included; 0 for the same bits, or two NaN.

    Args:
        a, b: floats of one type and shape, of JAX or of NumPy; so is what comes back, unsigned.
    """
    xp: Any = jnp if isinstance(a, jax.Array) else np
    unsigned = xp.uint64 if a.dtype == xp.float64 else xp.uint32
    sign = unsigned(1 << (8 * a.dtype.itemsize - 1))

    def ordered(value):  # sign and magnitude to an order of whole numbers
        raw = value.view(unsigned)
        return xp.where(raw & sign, ~raw, raw | sign)

    first, second = ordered(a), ordered(b)
    apart = xp.where(first > second, first - second, second - first)
    return xp.where(xp.isnan(a) & xp.isnan(b), unsigned(0), apart)


def underflows(expected: Any, found: Any, factor: Any) -> Any:
    """Where two weights differ and are so small that underflow can be why; of booleans.

    Below the smallest normal number over the spacing of floats at 1, a weight's last place is
    itself no normal number: what a step adds there may be flushed to 0 in one run and not in the
    other. Both weights have to be so small, in the run of the smaller ones.

    Args:
        expected, found: floats of one type and shape, of JAX or of NumPy.
        factor: expected and found over the first run's weights; above 0.
    """
    xp: Any = jnp if isinstance(expected, jax.Array) else np
    limits = np.finfo(expected.dtype)
    limit = xp.maximum(factor, 1) * (limits.tiny / limits.eps)
    small = xp.maximum(abs(expected), abs(found)) < limit
    return small & (ulps(expected, found) > 0)


def _largest(expected: Params, found: Params) -> UInt[Array, ""]:
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    return jnp.max(jnp.array([jnp.max(ulps(a, b)) for a, b in pairs]))


def _relative(expected: Params, found: Params) -> Float[Array, ""]:
    """Of each tensor relative to itself, the largest."""
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    distances = jnp.array([jnp.linalg.norm(b - a) / jnp.linalg.norm(a) for a, b in pairs])
    same = _largest(expected, found) == 0
    return jnp.where(same, 0.0, jnp.max(jnp.where(jnp.isnan(distances), jnp.inf, distances)))
