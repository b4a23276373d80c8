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
from typing import Any, NamedTuple

from jaxmlp.experiment import NETWORK, PER_TENSOR, SCALED, Experiment
from jaxmlp.law.surd import Number, Surd, surd

SCHEMES = ("first-layer", "uniform")
# Settings are floats, each rounded once: a canonical number is a product of at most a few dozen
# of them and their roots. 2^-53 each; this is 4000 such roundings, and far below any difference
# that training could show.
SAME = 2.0**-41


class Rule(NamedTuple):
    """Powers of c = W' / W by which a tensor's settings move; None: it has no such setting."""

    learning_rate: int
    weight_decay: int
    eps: int | None = None
    clip: int = -1  # threshold on the norm of the tensor's own gradient
    decoupled: bool = False  # decay shrinks the weight itself


# eps: where PyTorch adds it (LAMB, Muon, LARS, Lion, signSGD, Yogi, NovoGrad: optax).
RULES: dict[str, Rule] = {
    "sgd": Rule(2, -2),
    "adam": Rule(1, -2, -1),
    "adamw": Rule(1, -1, -1, decoupled=True),
    "rmsprop": Rule(1, -2, -1),
    "adagrad": Rule(1, -2, -1),
    "lion": Rule(1, -1, decoupled=True),
    "amsgrad": Rule(1, -2, -1),
    "adabelief": Rule(1, -2, -1),
    "yogi": Rule(1, -2, -1),
    "signsgd": Rule(1, -1, decoupled=True),
    "lars": Rule(0, -2, -1),
    "lamb": Rule(0, -1, -1, decoupled=True),
    "muon": Rule(1, -1, -1, decoupled=True),
    "novograd": Rule(1, -1, -1, decoupled=True),
}
UNMOVABLE = {
    "radam": "its first steps follow the plain momentum and the others its direction, which scale "
    "differently; choose adam, with a warm-up",
    "adadelta": "its one eps stands beside the squared gradients and beside the squared steps, "
    "which scale in opposite ways; choose another optimizer",
}


def rule(optimizer: str) -> Rule:
    """The powers for one optimizer.

    Raises:
        ValueError: it is not known, or cannot be moved exactly.
    """
    if optimizer in UNMOVABLE:
        raise ValueError(f"{optimizer} cannot be moved exactly: {UNMOVABLE[optimizer]}")
    if optimizer not in RULES:
        raise ValueError(f"optimizer {optimizer!r} is not known; choose from {', '.join(RULES)}")
    return RULES[optimizer]


def power(optimizer: str, setting: str) -> int:
    """By which power of c a setting of PER_TENSOR moves."""
    return 1 if setting == "init_scale" else getattr(rule(optimizer), setting)


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


def full_name(tensor: str, name: str) -> str:
    return name if tensor == "kernel" else f"bias_{name}"


def setting_of(experiment: Experiment, tensor: str, name: str) -> tuple[float, ...] | None:
    """A setting of PER_TENSOR, a value per layer; None if the optimizer has none."""
    if getattr(experiment, name) is None:
        return None
    return experiment.per_tensor(name)[tensor]


def rounded(name: str, value: Surd | int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} would be too large for a float; choose milder factors") from None


# ---- canonical form

Monomial = dict[tuple[str, int], Fraction]  # (setting's full name, layer from 0): exponent


def product(*terms: tuple[dict[Any, Fraction], Fraction | int]) -> dict[Any, Fraction]:
    """The product of monomials, each to a power."""
    total: dict[Any, Fraction] = {}
    for monomial, exponent in terms:
        for key, own in monomial.items():
            total[key] = total.get(key, Fraction(0)) + own * exponent
    return {key: exponent for key, exponent in total.items() if exponent}


def invariants(experiment: Experiment) -> dict[str, Monomial]:
    """Each canonical number as a product of powers of the experiment's settings.

    The canonical run has input scale 1 and one learning rate R for the weights of all layers.
    With SGD that asks for c_l = sqrt(R / rate_l), with all others for c_l = R / rate_l, and
    ∏c_l = s fixes R.
    """
    degree = power(experiment.optimizer, "learning_rate")
    assert degree > 0, "a rate that does not move (LARS, LAMB) cannot be made common"
    layers, share = range(experiment.layers), Fraction(1, experiment.layers)

    def setting(name: str, layer: int = 0) -> Monomial:
        return {(name, layer): Fraction(1)}

    scale = setting("input_scale")
    rates = [setting("learning_rate", layer) for layer in layers]
    rate = product((scale, degree * share), *((each, share) for each in rates))
    factors = [product((rate, Fraction(1, degree)), (each, Fraction(-1, degree))) for each in rates]
    outputs = itertools.accumulate(factors, lambda a, b: product((a, 1), (b, 1)))
    scales = {"kernel": factors, "bias": [product((scale, -1), (each, 1)) for each in outputs]}
    found = {"R": rate}
    for tensor, layer in itertools.product(experiment.tensors, layers):
        mark, by = "" if tensor == "kernel" else "b", scales[tensor][layer]

        def moved(name: str, tensor=tensor, layer=layer, by=by) -> Monomial:
            exponent = power(experiment.optimizer, name)
            return product((setting(full_name(tensor, name), layer), 1), (by, exponent))

        if tensor == "bias":
            found[f"R{mark}{layer + 1}"] = moved("learning_rate")
        found[f"κ{mark}{layer + 1}"] = moved("init_scale")
        own = rate if tensor == "kernel" else moved("learning_rate")
        found[f"δ{mark}{layer + 1}"] = product((own, 1), (moved("weight_decay"), 1))
        if experiment.eps is not None:
            found[f"ε{mark}{layer + 1}"] = moved("eps")
    return found


class Canonical(NamedTuple):
    """What a run is, whatever its input scale. One value per layer, first layer first."""

    learning_rate: float  # R, of the weights of every layer
    init_scale: tuple[float, ...]  # κ, factors on the default initialisation
    decay: tuple[float, ...]  # δ, R times weight decay: with SGD the weights' shrinkage per step
    eps: tuple[float, ...] | None
    bias: "Biases | None"


class Biases(NamedTuple):
    """The biases' own canonical numbers."""

    learning_rate: tuple[float, ...]
    init_scale: tuple[float, ...]
    decay: tuple[float, ...]
    eps: tuple[float, ...] | None


def exact_invariants(experiment: Experiment) -> dict[str, Surd | int]:
    """The value of every invariant by name: R, κ1, ..., δ1, ..., with biases κb1, ...; exact.

    Raises:
        ValueError: a layer's weights do not learn.
    """
    rates = experiment.per_layer("learning_rate")
    if 0 in rates:
        raise ValueError(
            f"layer {rates.index(0) + 1} has learning rate 0: a network with a frozen layer has "
            "no effective learning rate; give every layer one above 0"
        )
    values: dict[str, Surd | int] = {}
    for name, monomial in invariants(experiment).items():
        value: Surd | int = surd(1)
        for (setting, layer), exponent in monomial.items():
            factor = value_of(experiment, setting, layer)
            value = value * surd(factor) ** exponent if value and factor else 0
        values[name] = value
    return values


def value_of(experiment: Experiment, setting: str, layer: int) -> float:
    if setting == "input_scale":
        return experiment.input_scale
    return experiment.per_layer(setting)[layer]


def canonical(experiment: Experiment) -> Canonical:
    """Which run this is: the one with input scale 1 and one learning rate that trains identically.

    Two experiments are the same run if these numbers agree and everything else that they ask
    (`difference` lists it) is the same; and, but for settings without effect, only then.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    values = {name: rounded(name, value) for name, value in exact_invariants(experiment).items()}
    layers = range(1, experiment.layers + 1)

    def row(mark: str) -> tuple[float, ...] | None:
        return tuple(values[f"{mark}{layer}"] for layer in layers) if f"{mark}1" in values else None

    own: Any = (row("κ"), row("δ"), row("ε"))
    of_biases: Any = (row("Rb"), row("κb"), row("δb"), row("εb"))
    return Canonical(values["R"], *own, bias=Biases(*of_biases) if experiment.bias else None)


# ---- difference

NAMES = {
    "R": "effective learning rate",
    "κ": "initial weights",
    "δ": "decay",
    "ε": "eps",
    "Rb": "effective learning rate of the biases",
    "κb": "initial biases",
    "δb": "decay of the biases",
    "εb": "eps of the biases",
}


class Difference(NamedTuple):
    """How run a differs from run b."""

    ratios: dict[str, float]  # a's canonical number over b's, by name; only those that differ
    settings: dict[str, tuple[Any, Any]]  # a's and b's, of what no rescaling touches

    @property
    def same(self) -> bool:
        return not self.ratios and not self.settings

    @property
    def comparable(self) -> bool:
        """Whether network and optimizer are the same, so that the ratios mean something."""
        return not self.settings.keys() & NETWORK


def difference(a: Experiment, b: Experiment) -> Difference:
    """Which canonical numbers and which other settings differ.

    Of networks or optimizers that differ there are no ratios: their numbers cannot be compared.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    settings = {
        field.name: (getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(Experiment)
        if field.name not in SCALED and getattr(a, field.name) != getattr(b, field.name)
    }
    if settings.keys() & NETWORK:
        return Difference({}, settings)
    mine, other = exact_invariants(a), exact_invariants(b)
    ratios = {name: _ratio(mine[name], other[name]) for name in mine}
    return Difference({n: r for n, r in ratios.items() if not abs(r - 1) <= SAME}, settings)


def _ratio(a: Surd | int, b: Surd | int) -> float:
    if not a or not b:
        return 1.0 if not a and not b else float("inf") if a else 0.0
    return rounded("a ratio of canonical numbers", surd(a) / surd(b))


def in_words(found: Difference, layers: int) -> str:
    """The difference as one sentence: what is the same, what is how many times too large."""
    if found.same:
        return "the same run"
    parts = []
    for mark, name in NAMES.items():
        own = {n: times(ratio) for n, ratio in found.ratios.items() if _is(mark, n)}
        if not own:
            alike = {"R": f"same {name}", "κ": f"{name} the same"}
            parts += [alike[mark]] if mark in alike else []
        elif len(set(own.values())) == 1 and (mark == "R" or len(own) == layers):
            parts.append(f"{name} {next(iter(own.values()))}")
        else:
            each = (f"layer {each[len(mark) :]} {text}" for each, text in own.items())
            parts.append(f"{name}: " + ", ".join(each))
    if not found.comparable:
        parts = []  # nothing was compared
    parts += [f"{name} {a} instead of {b}" for name, (a, b) in found.settings.items()]
    return "; ".join(parts)


def _is(mark: str, name: str) -> bool:
    return name.rstrip("0123456789") == mark


def times(ratio: float) -> str:
    """A ratio in words."""
    if ratio in (0, float("inf")):
        return "absent" if ratio == 0 else "present where the other has none"
    if abs(ratio - 1) < 0.005:
        return f"{abs(ratio - 1):.1g} of itself too {'large' if ratio > 1 else 'small'}"
    size = max(ratio, 1 / ratio)
    shown = f"{size:,.0f}" if 1000 <= size < 1e7 else f"{size:.3g}"
    return f"{shown} times too {'large' if ratio > 1 else 'small'}"
