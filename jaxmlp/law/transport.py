"""The law: which runs are the same run, and what a run really is.

Multiply the weights of layer l by c_l and the inputs by 1 / ∏c_l. The network computes the same
function, the gradient of layer l becomes g / c_l, and so each of the layer's settings has to move
by a known power of c_l for training to go on identically. What no such move alters is what the run
is: its canonical form.

Sources: the symmetry, Neyshabur et al. 2015 (arXiv 1506.02617); for training, Yang & Hu 2021
(2011.14522) and Yang & Littwin 2023 (2308.01814, proposition 2.2.3). Here c is W' / W.

All arithmetic is exact (surd.py) until a setting is rounded to a float, once.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.law.rules import full_name, power, setting_of
from jaxmlp.law.surd import Number, Surd, rounded, surd

SCHEMES = ("first-layer", "uniform")


# ---- transport


def layer_factors(layers: int, change: Surd | Number, scheme: str = "uniform") -> list[Surd]:
    """The factors c_l on the weights of each layer when the inputs are multiplied by `change`.

    Args:
        scheme: first-layer puts it all on layer 1, uniform the same share on every layer.

    Raises:
        ValueError: the scheme is not known.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is not known; choose from {', '.join(SCHEMES)}")
    inverse = surd(change) ** -1
    if scheme == "first-layer":
        return [inverse, *[surd(1)] * (layers - 1)]
    return [inverse ** Fraction(1, layers)] * layers


def transport(
    experiment: Experiment,
    input_scale: float | None = None,
    factors: Iterable[Surd | Number] | None = None,
    scheme: str = "uniform",
    *,
    homogeneous: bool = True,
) -> Experiment:
    """The same run with other numbers: step for step the same losses, weights times the factors.

    Bit for bit where every factor is a power of two and nothing over- or underflows; to rounding
    otherwise.

    Args:
        input_scale: the new one; the scheme says how the layers make up for it.
        factors: W' / W of each layer instead, any positive numbers; the input scale follows.
        homogeneous: whether activation(k·x) = k·activation(x) for k > 0, as for this project's
            ReLU; without that only the first layer can make up for the inputs.

    Raises:
        ValueError: not exactly one of input_scale and factors is given, their number is not that
            of the layers, they need a homogeneous activation, or a moved setting leaves float32's
            range.
    """
    if (input_scale is None) == (factors is None):
        raise ValueError("give either an input scale or one factor per layer")
    before = surd(experiment.input_scale)
    if factors is None:
        assert input_scale is not None
        chosen = layer_factors(experiment.layers, surd(input_scale) / before, scheme)
    else:
        chosen = [surd(factor) for factor in factors]
    if len(chosen) != experiment.layers:
        raise ValueError(
            f"{len(chosen)} factors; the network has {experiment.layers} "
            f"layer{'s' * (experiment.layers > 1)}: give one per layer"
        )
    change = math.prod(chosen, start=surd(1)) ** -1  # of the input scale
    outputs = list(itertools.accumulate(chosen, operator.mul, initial=change))
    if not homogeneous and any(output != 1 for output in outputs[1:]):
        raise ValueError(
            "an activation that is not positively homogeneous (ReLU, leaky ReLU and the identity "
            "are) lets only the first layer be rescaled; choose scheme first-layer"
        )
    scales = {"kernel": chosen, "bias": outputs[1:]}
    moved: dict[str, Any] = {"input_scale": rounded("input_scale", change * before)}
    for tensor, name in itertools.product(experiment.tensors, PER_TENSOR):
        values = setting_of(experiment, tensor, name)
        if values is not None:
            exponent = power(experiment.optimizer, name)
            full = full_name(tensor, name)
            moved[full] = tuple(
                rounded(full, scale**exponent * value) if value else 0.0
                for scale, value in zip(scales[tensor], values, strict=True)
            )
    return dataclasses.replace(experiment, **moved)


# ---- canonical form


# ---- difference
