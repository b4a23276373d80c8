"""Transport: the same run with other numbers."""

import itertools
import math
import operator
from collections.abc import Iterable
from fractions import Fraction

from jaxmlp.experiment import Experiment
from jaxmlp.law.invariants import Parameter, as_tensors, full_setting, with_settings
from jaxmlp.law.surd import Number, Surd, surd
from jaxmlp.law.tensors import INPUT, Tensor, moved

SCHEMES = ("first-layer", "uniform")


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
    if factors is not None:
        of_kernels = _one_per_layer(experiment, factors)
    else:
        assert input_scale is not None
        of_kernels = layer_factors(experiment.layers, surd(input_scale) / before, scheme)
    # The network's function stays if the inputs undo all factors. What a layer puts out is then
    # multiplied by the product up to it, and so is its bias, which is added there.
    change = math.prod(of_kernels, start=surd(1)) ** -1
    outputs = list(itertools.accumulate(of_kernels, operator.mul, initial=change))[1:]
    if not homogeneous and any(output != 1 for output in outputs):
        raise ValueError(
            "an activation that is not positively homogeneous (ReLU, leaky ReLU and the identity "
            "are) lets only the first layer be rescaled; choose scheme first-layer"
        )
    scaled: dict[Tensor, Surd] = {INPUT: change}
    for layer, factor in enumerate(of_kernels):
        scaled[Parameter("kernel", layer)] = factor
        scaled[Parameter("bias", layer)] = outputs[layer]
    return with_settings(experiment, moved(as_tensors(experiment), scaled, full_setting))


def _one_per_layer(experiment: Experiment, factors: Iterable[Surd | Number]) -> list[Surd]:
    exact = [surd(factor) for factor in factors]
    if len(exact) != experiment.layers:
        raise ValueError(
            f"{len(exact)} factors; the network has {experiment.layers} "
            f"layer{'s' * (experiment.layers > 1)}: give one per layer"
        )
    return exact
