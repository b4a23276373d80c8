"""An optimizer's steps on one tensor, by torch's rules and by others; in float64."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.ports.hypotheses import Hypothesis


class Rules(NamedTuple):
    """How a tensor is trained; what is after `eps` are departures from torch's rules."""

    name: str  # adam, adamw, rmsprop, adagrad, sgd, lion
    learning_rate: float
    weight_decay: float
    options: Mapping[str, Any]
    eps: float = 0.0
    eps_in_root: bool = False
    corrected: bool = True  # Adam's bias
    initial: float = 0.0  # of averages of squares
    decay_by_rate: bool = True  # of decoupled decay
    decoupled: bool | None = None  # None: as the name says


def hypotheses(rules: Rules) -> Iterator[tuple[str, str, Rules]]:
    """The usual departures: suspect, words, rules."""
    options = rules.options
    if rules.name in ("adam", "adamw"):
        words = "without bias correction"
        yield "bias correction", words, rules._replace(corrected=False)
    if rules.eps:
        yield "eps", "with eps inside the root", rules._replace(eps_in_root=True)
        for eps in (1e-15, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.0):
            if eps != rules.eps:
                yield "eps", f"with eps {eps:g}", rules._replace(eps=eps)
                inside = rules._replace(eps=eps, eps_in_root=True)
                yield "eps", f"with eps {eps:g} inside the root", inside
    if rules.name in ("rmsprop", "adagrad"):
        for start in (1.0, 0.1):
            words = f"with squares that start at {start:g}"
            yield "initial value", words, rules._replace(initial=start)
            inside = rules._replace(initial=start, eps_in_root=True)
            yield "initial value", f"{words}, eps inside the root", inside
    if rules.weight_decay:
        yield "decay", "without weight decay", rules._replace(weight_decay=0.0)
        coupled = "adam" if rules.name == "adamw" else "adamw"
        if rules.name in ("adam", "adamw"):
            words = "coupled" if coupled == "adam" else "decoupled"
            yield "decay", f"with decay {words}", rules._replace(name=coupled)
        words = "with decay that the learning rate does not multiply"
        yield "decay", words, rules._replace(decay_by_rate=False, decoupled=True)
    if rules.name == "sgd" and options.get("momentum"):
        for key, words in (("nesterov", "Nesterov's momentum"), ("dampening", "dampening")):
            now = options.get(key, 0.0)
            other = (not now) if key == "nesterov" else (0.0 if now else options["momentum"])
            said = f"with{'out' if now else ''} {words}"
            yield key, said, rules._replace(options={**options, key: other})
    if options.get("momentum"):
        yield "momentum", "without momentum", rules._replace(options={**options, "momentum": 0.0})
    for factor in (0.1, 0.5, 2.0, 10.0):
        rate = rules.learning_rate * factor
        words = f"with learning rate {rate:g}"
        yield "learning rate", words, rules._replace(learning_rate=rate)


def changes(
    rules: Rules, starts: Sequence[np.ndarray], gradients: Sequence[np.ndarray]
) -> np.ndarray:
    """The last step's change of a tensor.

    Args:
        starts: the tensor before each step.
        gradients: of each step.
    """
    state: dict[str, np.ndarray] = {}
    change = np.zeros_like(starts[0])
    for step, (tensor, gradient) in enumerate(zip(starts, gradients, strict=True), 1):
        change = _change(rules, tensor, gradient, state, step)
    return change


def fitting(
    rules: Rules,
    starts: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
) -> Iterator[Hypothesis]:
    """The last change under each departure."""
    for suspect, words, other in hypotheses(rules):
        yield Hypothesis(suspect, words, changes(other, starts, gradients))


def norm(told: Mapping[str, np.ndarray], trained: Collection[str]) -> float:
    """Of a step's gradients, taken together."""
    gradients = [told[key] for name in trained if (key := f"gradient.{name}") in told]
    return float(np.sqrt(sum(np.square(each).sum() for each in gradients)))


def clipped(
    rules: Rules,
    starts: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    norms: Sequence[float],
) -> Iterator[Hypothesis]:
    """The last change if gradients are clipped by their norm, to the usual values.

    Args:
        norms: of each step's gradients, all tensors together.
    """
    for most in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0):
        if most < max(norms):
            shorter = [g * (most / max(n, most)) for g, n in zip(gradients, norms, strict=True)]
            words = f"with gradients clipped to a norm of {most:g}"
            yield Hypothesis("clipping", words, changes(rules, starts, shorter))


def _change(
    rules: Rules, tensor: np.ndarray, gradient: np.ndarray, state: dict[str, Any], step: int
) -> np.ndarray:
    decoupled = rules.name in ("adamw", "lion") if rules.decoupled is None else rules.decoupled
    g = gradient if decoupled else gradient + rules.weight_decay * tensor
    with np.errstate(all="ignore"):
        direction = _direction(rules, g, state, step)
    change = -rules.learning_rate * direction
    if decoupled:
        rate = rules.learning_rate if rules.decay_by_rate else 1.0
        change = change - rate * rules.weight_decay * tensor
    return change


def _direction(rules: Rules, g: np.ndarray, state: dict[str, Any], step: int) -> np.ndarray:
    options = rules.options
    beta1, beta2 = options.get("beta1", 0.9), options.get("beta2", 0.999)
    start = np.full_like(g, rules.initial)
    if rules.name in ("adam", "adamw"):
        m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
        v = state["v"] = beta2 * state.get("v", start) + (1 - beta2) * g * g
        if rules.corrected:
            m, v = m / (1 - beta1**step), v / (1 - beta2**step)
        return m / _root(rules, v)
    if rules.name == "lion":
        m = state.get("m", np.zeros_like(g))
        state["m"] = beta2 * m + (1 - beta2) * g
        return np.sign(beta1 * m + (1 - beta1) * g)
    if rules.name in ("rmsprop", "adagrad"):
        decay = options.get("alpha", 0.99)
        before = state.get("v", start)
        if rules.name == "rmsprop":
            v = state["v"] = decay * before + (1 - decay) * g * g
        else:
            v = state["v"] = before + g * g
        g = g / _root(rules, v)
    momentum = options.get("momentum", 0.0)
    if not momentum:
        return g
    dampening = options.get("dampening", 0.0) if rules.name == "sgd" else 0.0
    first = "b" not in state
    b = state["b"] = g if first else momentum * state["b"] + (1 - dampening) * g
    return g + momentum * b if options.get("nesterov") and rules.name == "sgd" else b


def _root(rules: Rules, v: np.ndarray) -> np.ndarray:
    return np.sqrt(v + rules.eps) if rules.eps_in_root else np.sqrt(v) + rules.eps
