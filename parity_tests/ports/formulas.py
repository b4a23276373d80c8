"""Every kind of layer from its formulas: value and gradients in float64, with bounds.

Imports neither torch nor JAX. The bounds are on what any usual implementation rounds, in the
precision whose unit roundoff is given: sums in any order, products in any association, with or
without fused multiply-adds. Each kind's module says what else is covered and what is not.

Layouts and tensors' names are torch's: images (N, C, ...), weights (O, I, ...), sequences
(N, T, C).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from parity_tests.bounds import UNIT, Bounded, exact
from parity_tests.ports import attention, convolutions, norms, softmax
from parity_tests.ports.activations import ACTIVATIONS, elementwise
from parity_tests.ports.layer import Formula, NoFormula, Pass

FORMULAS: dict[str, Formula] = {
    "linear": convolutions.linear,
    "conv": convolutions.conv,
    "conv_transposed": convolutions.conv_transposed,
    "embedding": convolutions.embedding,
    "max_pool": convolutions.max_pool,
    "avg_pool": convolutions.avg_pool,
    "mean": convolutions.mean,
    "batch_norm": norms.batch_norm,
    "layer_norm": norms.layer_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "rms_norm": norms.rms_norm,
    "softmax": softmax.softmax,
    "log_softmax": softmax.log_softmax,
    "cross_entropy": softmax.cross_entropy,
    "mse": softmax.mse,
    "attention": attention.attention,
    "scaled_dot_product": attention.scaled_dot_product,
}
FORMULAS |= {name: elementwise(activation) for name, activation in ACTIVATIONS.items()}


def run(
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    inputs: Sequence[np.ndarray],
    cotangent: np.ndarray | None,
    unit: float,
) -> Pass | None:
    """A layer's value and, with a cotangent, its gradients.

    Args:
        config: its options; see each formula.
        tensors: parameters and buffers by their local names.
        inputs: floating-point arrays, which both sides hold as they are; whole numbers; masks.
        cotangent: of the output.
        unit: unit roundoff of the precision to bound (bounds.UNIT).

    Returns:
        None where the kind, or this configuration of it, has no formula here.
    """
    formula = FORMULAS.get(kind)
    if formula is None or not _takes(ACTIVATIONS.get(kind, formula), config):
        return None
    arrays = [np.asarray(array) for array in inputs]
    try:
        return formula(
            {name: exact(tensor, unit) for name, tensor in tensors.items()},
            [exact(array, unit) if array.dtype.kind == "f" else array for array in arrays],
            None if cotangent is None else exact(cotangent, unit),
            **config,
        )
    except (NoFormula, KeyError):  # such as a weight that is computed out of others
        return None


def value(
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    inputs: Sequence[np.ndarray],
) -> np.ndarray | None:
    """The output alone, in float64; None as in run."""
    done = run(kind, config, tensors, inputs, None, UNIT["float64"])
    return None if done is None else done.output.value


def batch_statistics(
    inputs: Sequence[np.ndarray],
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unit: float,
) -> dict[str, Bounded]:
    """running_mean and running_var after batch_norm in training has seen a batch.

    torch's convention: new = (1 - momentum)·old + momentum·batch, the variance unbiased.
    """
    held = {name: exact(tensors[name], unit) for name in ("running_mean", "running_var")}
    return norms.running_statistics(held, exact(inputs[0], unit), config["momentum"])


def _takes(function: Callable, config: Mapping[str, Any]) -> bool:
    """Every option is known, and none that is needed is missing."""
    parameters = inspect.signature(function).parameters.values()
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    needed = {p.name for p in options if p.default is p.empty}
    return needed <= set(config) <= {p.name for p in options}
