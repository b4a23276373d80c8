"""The law: which runs are the same run, what a run really is, and how to repair one.

Multiply the weights of layer l by c_l and the inputs by 1 / ∏c_l. The network computes the same
function, the gradient of layer l becomes g / c_l, and so each of the layer's settings has to move
by a known power of c_l for training to go on identically. What no such move alters is what the run
is: its canonical form.

Sources: the symmetry, Neyshabur et al. 2015 (arXiv 1506.02617); for training, Yang & Hu 2021
(2011.14522) and Yang & Littwin 2023 (2308.01814, proposition 2.2.3). Here c is W' / W.

All arithmetic is exact (surd.py) until a setting is rounded to a float, once.
"""

import bisect
import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.experiment import PER_TENSOR, TENSORS, Experiment
from jaxmlp.surd import Number, Surd, surd

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


def layer_factors(
    layers: int, change: Surd | Number, scheme: str = "uniform", *, homogeneous: bool = True
) -> list[Surd]:
    """The factors c_l on the weights of each layer when the inputs are multiplied by `change`.

    Args:
        scheme: first-layer puts it all on layer 1, uniform the same share on every layer.
        homogeneous: whether activation(k·x) = k·activation(x) for k > 0, as for ReLU.

    Raises:
        ValueError: the scheme is not known, or needs a homogeneous activation.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is not known; choose from {', '.join(SCHEMES)}")
    inverse = surd(change) ** -1
    if scheme == "first-layer":
        return [inverse, *[surd(1)] * (layers - 1)]
    factors = [inverse ** Fraction(1, layers)] * layers
    _check_homogeneous(factors, homogeneous)
    return factors


def _check_homogeneous(factors: Sequence[Surd], homogeneous: bool) -> None:
    if not homogeneous and any(factor != 1 for factor in factors[1:]):
        raise ValueError(
            "an activation that is not positively homogeneous (ReLU, leaky ReLU and the identity "
            "are) lets only the first layer be rescaled; choose scheme first-layer"
        )


def transport(
    experiment: Experiment,
    input_scale: float | None = None,
    factors: Iterable[Surd | Number] | None = None,
    scheme: str = "uniform",
) -> Experiment:
    """The same run with other numbers: step for step the same losses, weights times the factors.

    Bit for bit where every factor is a power of two and nothing over- or underflows; to rounding
    otherwise.

    Args:
        input_scale: the new one; the scheme says how the layers make up for it.
        factors: W' / W of each layer instead, any positive numbers; the input scale follows.

    Raises:
        ValueError: not exactly one of input_scale and factors is given, their number is not that
            of the layers, or a moved setting leaves float32's range.
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
    scales = {"kernel": chosen, "bias": outputs[1:]}
    moved: dict[str, Any] = {"input_scale": _rounded("input_scale", change * before)}
    for tensor, name in itertools.product(TENSORS[: 1 + experiment.bias], PER_TENSOR):
        values = setting_of(experiment, tensor, name)
        if values is not None:
            exponent = power(experiment.optimizer, name)
            full = _full_name(tensor, name)
            moved[full] = tuple(
                _rounded(full, scale**exponent * value) if value else 0.0
                for scale, value in zip(scales[tensor], values, strict=True)
            )
    return dataclasses.replace(experiment, **moved)


def _full_name(tensor: str, name: str) -> str:
    return name if tensor == "kernel" else f"bias_{name}"


def setting_of(experiment: Experiment, tensor: str, name: str) -> tuple[float, ...] | None:
    """A setting of PER_TENSOR, a value per layer; None if the optimizer has none."""
    if getattr(experiment, name) is None:
        return None
    return experiment.per_tensor(name)[tensor]


def _rounded(name: str, value: Surd | int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} would be too large for a float; choose milder factors") from None


# ---- canonical form

Monomial = dict[tuple[str, int], Fraction]  # (setting's full name, layer from 0): exponent


def _times(*terms: tuple[dict[Any, Fraction], Fraction | int]) -> dict[Any, Fraction]:
    """The product of monomials, each to a power."""
    product: dict[Any, Fraction] = {}
    for monomial, exponent in terms:
        for key, own in monomial.items():
            product[key] = product.get(key, Fraction(0)) + own * exponent
    return {key: exponent for key, exponent in product.items() if exponent}


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
    rate = _times((scale, degree * share), *((each, share) for each in rates))
    factors = [_times((rate, Fraction(1, degree)), (each, Fraction(-1, degree))) for each in rates]
    outputs = itertools.accumulate(factors, lambda a, b: _times((a, 1), (b, 1)))
    scales = {"kernel": factors, "bias": [_times((scale, -1), (each, 1)) for each in outputs]}
    found = {"R": rate}
    for tensor, layer in itertools.product(TENSORS[: 1 + experiment.bias], layers):
        mark, by = "" if tensor == "kernel" else "b", scales[tensor][layer]

        def moved(name: str, tensor=tensor, layer=layer, by=by) -> Monomial:
            exponent = power(experiment.optimizer, name)
            return _times((setting(_full_name(tensor, name), layer), 1), (by, exponent))

        if tensor == "bias":
            found[f"R{mark}{layer + 1}"] = moved("learning_rate")
        found[f"κ{mark}{layer + 1}"] = moved("init_scale")
        own = rate if tensor == "kernel" else moved("learning_rate")
        found[f"δ{mark}{layer + 1}"] = _times((own, 1), (moved("weight_decay"), 1))
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
        product: Surd | int = surd(1)
        for (setting, layer), exponent in monomial.items():
            factor = _value(experiment, setting, layer)
            product = product * surd(factor) ** exponent if product and factor else 0
        values[name] = product
    return values


def _value(experiment: Experiment, setting: str, layer: int) -> float:
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
    values = {name: _rounded(name, value) for name, value in exact_invariants(experiment).items()}
    layers = range(1, experiment.layers + 1)

    def row(mark: str) -> tuple[float, ...] | None:
        return tuple(values[f"{mark}{layer}"] for layer in layers) if f"{mark}1" in values else None

    own: Any = (row("κ"), row("δ"), row("ε"))
    of_biases: Any = (row("Rb"), row("κb"), row("δb"), row("εb"))
    return Canonical(values["R"], *own, bias=Biases(*of_biases) if experiment.bias else None)


# ---- difference

NAMES = {
    "R": "effective learning rate",
    "κ": "weights start",
    "δ": "decay",
    "ε": "eps",
    "Rb": "effective learning rate of the biases",
    "κb": "biases start",
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


def difference(a: Experiment, b: Experiment) -> Difference:
    """Which canonical numbers and which other settings differ.

    Of networks or optimizers that differ there are no ratios: their numbers cannot be compared.

    Raises:
        ValueError: a layer has learning rate 0.
    """
    scaled = {"input_scale", *PER_TENSOR, *(f"bias_{name}" for name in PER_TENSOR)}
    settings = {
        field.name: (getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(Experiment)
        if field.name not in scaled and getattr(a, field.name) != getattr(b, field.name)
    }
    if {"hidden", "bias", "optimizer"} & settings.keys():
        return Difference({}, settings)
    mine, other = exact_invariants(a), exact_invariants(b)
    ratios = {name: _ratio(mine[name], other[name]) for name in mine}
    return Difference({n: r for n, r in ratios.items() if not abs(r - 1) <= SAME}, settings)


def _ratio(a: Surd | int, b: Surd | int) -> float:
    if not a or not b:
        return 1.0 if not a and not b else float("inf") if a else 0.0
    return _rounded("a ratio of canonical numbers", surd(a) / surd(b))


def in_words(found: Difference, layers: int) -> str:
    """The difference as one sentence: what is the same, what is how many times too large."""
    if found.same:
        return "the same run"
    parts = []
    for mark, name in NAMES.items():
        own = {n: times(ratio) for n, ratio in found.ratios.items() if _is(mark, n)}
        if not own:
            alike = {"R": f"same {name}", "κ": f"{name} alike"}
            parts += [alike[mark]] if mark in alike else []
        elif len(set(own.values())) == 1 and (mark == "R" or len(own) == layers):
            parts.append(f"{name} {next(iter(own.values()))}")
        else:
            each = (f"layer {each[len(mark) :]} {text}" for each, text in own.items())
            parts.append(f"{name}: " + ", ".join(each))
    if {"hidden", "bias", "optimizer"} & found.settings.keys():
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
    return f"{ratio:.3g} times too large" if ratio > 1 else f"{1 / ratio:.3g} times too small"


# ---- repair


class Repair(NamedTuple):
    """The exact repair, or the proof that the allowed knobs cannot do it."""

    experiment: Experiment | None  # repaired; None if impossible
    factors: dict[str, Surd]  # by knob: what to multiply it by; knobs left alone are not listed
    obstacles: tuple[str, ...]  # each: what stays wrong whatever the allowed knobs do
    missing: tuple[str, ...]  # further knobs, all needed, that would make it possible


def knobs(experiment: Experiment) -> tuple[str, ...]:
    """All names that `repair` knows for this experiment: whole settings and single layers'."""
    names = ["input_scale"]
    for tensor, name in itertools.product(TENSORS[: 1 + experiment.bias], PER_TENSOR):
        if getattr(experiment, name) is not None:
            full = _full_name(tensor, name)
            names += [full, *(f"{full}:{layer + 1}" for layer in range(experiment.layers))]
    return tuple(names)


def repair(experiment: Experiment, to: Experiment, allow: Sequence[str]) -> Repair:
    """What to multiply the allowed knobs by so that `experiment` becomes the run that `to` is.

    The canonical numbers are products of powers of the settings: in logarithms, a linear system
    over the rationals. It is solved exactly. Of several solutions the knobs named first are used
    and those named last are left alone.

    Args:
        allow: names as `knobs` lists them: "learning_rate" moves all layers by one factor,
            "learning_rate:1" the first layer's. Biases follow their layer's weights unless the
            experiment gives them settings of their own.

    Raises:
        ValueError: a knob is not known; the two differ in what no knob moves; a layer has learning
            rate 0; or the repaired settings leave float32's range.
    """
    known = knobs(experiment)
    for knob in allow:
        if knob not in known:
            raise ValueError(f"knob {knob!r} is not known; choose from {', '.join(known)}")
    found = difference(experiment, to)
    if found.settings:
        name, (mine, other) = next(iter(found.settings.items()))
        raise ValueError(f"{name} is {mine} and should be {other}; no rescaling alters that")
    zero = [name for name, ratio in found.ratios.items() if ratio in (0, math.inf)]
    if zero:
        obstacles = (
            f"{_long(name)} is 0 in one of the two, and no factor alters that" for name in zero
        )
        return Repair(None, {}, tuple(obstacles), ())
    system = _system(experiment, to)
    solved, left = _eliminate(system, {knob: _effect(experiment, knob) for knob in allow})
    stuck = [row for row in left if not _satisfied(system, row)]
    if stuck:
        obstacles = (
            f"{_product(row)} is {times(math.exp(-_logarithm(system, row)))}, "
            "and no allowed knob alters it"
            for row in stuck
        )
        return Repair(None, {}, tuple(obstacles), _missing(experiment, system, allow))
    exact = {knob: _value_of(system, row) for knob, row in solved.items()}
    factors = {knob: factor for knob, factor in exact.items() if factor != 1}
    return Repair(_turned(experiment, factors), factors, (), ())


class System(NamedTuple):
    """∏ over settings of change^power, for each canonical number, is by what it has to change."""

    rows: dict[str, Monomial]
    change: dict[tuple[str, int], Surd]  # of each setting that differs: the target's over ours


def _system(experiment: Experiment, to: Experiment) -> System:
    rows = invariants(experiment)
    settings = {key for row in rows.values() for key in row}
    change = {}
    for name, layer in settings:
        mine, other = (_value(each, name, layer) for each in (experiment, to))
        if mine and other and mine != other:
            change[name, layer] = surd(other) / mine
    # Earlier rows are solved first, so that what is left over speaks of them.
    marks = list(NAMES)
    zero = {name for name, value in exact_invariants(experiment).items() if not value}
    order = sorted(rows, key=lambda name: marks.index(name.rstrip("0123456789")))
    return System({name: rows[name] for name in order if name not in zero}, change)


def _effect(experiment: Experiment, knob: str) -> set[tuple[str, int]]:
    """The settings that a knob multiplies."""
    name, _, layer = knob.partition(":")
    if name == "input_scale":
        return {(name, 0)}
    layers = [int(layer) - 1] if layer else range(experiment.layers)
    follows = experiment.bias and name in PER_TENSOR and getattr(experiment, f"bias_{name}") is None
    return {(each, i) for each in (name, *[f"bias_{name}"] * follows) for i in layers}


Combination = dict[str, Fraction]  # of rows: by name, exponents


def _eliminate(
    system: System, columns: Mapping[str, set[tuple[str, int]]]
) -> tuple[dict[str, Combination], list[Combination]]:
    """Gauss-Jordan elimination of the knobs from the rows, over the rationals.

    Returns:
        For each knob that is used the combination of rows that its factor is; and the combinations
        that no knob alters.
    """
    pending: list[Row] = []
    for name, row in system.rows.items():
        powers = {
            knob: total
            for knob, settings in columns.items()
            if (total := sum((row.get(key, Fraction(0)) for key in settings), Fraction(0)))
        }
        pending.append(Row(powers, {name: Fraction(1)}))
    solved: dict[str, Row] = {}
    for knob in columns:
        pivot = next((row for row in pending if knob in row.powers), None)
        if pivot is None:
            continue
        pending.remove(pivot)
        pivot = Row(*(_times((part, 1 / pivot.powers[knob])) for part in pivot))
        pending = [_without(row, knob, pivot) for row in pending]
        solved = {other: _without(row, knob, pivot) for other, row in solved.items()}
        solved[knob] = pivot
    return {knob: row.rows for knob, row in solved.items()}, [row.rows for row in pending]


class Row(NamedTuple):
    """A combination of canonical numbers under elimination."""

    powers: dict[str, Fraction]  # of the knobs
    rows: Combination


def _without(row: Row, knob: str, pivot: Row) -> Row:
    """The row less as much of the pivot as frees it from the knob."""
    if knob not in row.powers:
        return row
    share = -row.powers[knob]
    return Row(*(_times((mine, 1), (other, share)) for mine, other in zip(row, pivot, strict=True)))


def _powers(system: System, combination: Combination) -> Monomial:
    product = _times(*((system.rows[name], power) for name, power in combination.items()))
    return {key: power for key, power in product.items() if key in system.change}


def _value_of(system: System, combination: Combination) -> Surd:
    powers = _powers(system, combination).items()
    return math.prod((system.change[key] ** power for key, power in powers), start=surd(1))


def _logarithm(system: System, combination: Combination) -> float:
    powers = _powers(system, combination).items()
    return math.fsum(float(power) * system.change[key].logarithm() for key, power in powers)


def _satisfied(system: System, combination: Combination) -> bool:
    return abs(_logarithm(system, combination)) <= SAME


def _product(combination: Combination) -> str:
    """Such as κ1·κ2, or Rb1 ÷ R."""
    if len(combination) == 1:
        return _long(next(iter(combination)))
    signs = {True: [], False: []}
    for name, power in combination.items():
        size = abs(power)
        signs[power > 0].append(name if size == 1 else f"{name}^({size})")
    above, below = ("·".join(sorted(names)) for names in (signs[True], signs[False]))
    return f"{above or 1} ÷ {below}" if below else above


def _long(name: str) -> str:
    mark = name.rstrip("0123456789")
    layer = name[len(mark) :]
    return f"{name} ({NAMES[mark]}{', layer ' + layer if layer else ''})"


def _missing(experiment: Experiment, system: System, allow: Sequence[str]) -> tuple[str, ...]:
    """Further knobs, each of them needed, with which there is a repair; whole settings first."""

    def enough(further: Sequence[str]) -> bool:
        columns = {knob: _effect(experiment, knob) for knob in (*allow, *further)}
        return all(_satisfied(system, row) for row in _eliminate(system, columns)[1])

    others = [knob for knob in knobs(experiment) if knob not in (*allow, "input_scale")]
    others.sort(key=lambda knob: ":" in knob)
    needed = others[
        : bisect.bisect_left(range(len(others)), True, key=lambda n: enough(others[:n]))
    ]
    for knob in reversed(needed):
        fewer = [each for each in needed if each != knob]
        if enough(fewer):
            needed = fewer
    return tuple(needed)


def _turned(experiment: Experiment, factors: Mapping[str, Surd]) -> Experiment:
    """The experiment with each knob's settings multiplied by its factor."""
    exact: dict[tuple[str, int], Surd] = {}
    for knob, factor in factors.items():
        for key in _effect(experiment, knob):
            exact[key] = exact.get(key, surd(1)) * factor
    changed: dict[str, Any] = {}
    for name in {name for name, _ in exact}:
        if name == "input_scale":
            changed[name] = _rounded(name, exact[name, 0] * experiment.input_scale)
            continue
        changed[name] = tuple(
            _rounded(name, exact.get((name, i), surd(1)) * value) if value else 0.0
            for i, value in enumerate(experiment.per_layer(name))
        )
    return dataclasses.replace(experiment, **changed)
