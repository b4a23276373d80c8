"""The repair of a network's run with the knobs that may be moved; or the proof of none."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxmlp.law import tensors as law
from jaxmlp.law.knobs import System, solve
from jaxmlp.law.surd import Surd, surd
from jaxmlp.law.tensors import Setting, Tensors
from jaxmlp.networks.group import find
from jaxmlp.networks.protocol import INPUT, Network
from jaxmlp.networks.run import as_tensors, transports

OBSTACLES_SHOWN = 2
PHRASES = {
    "init_scale": "the initial scale",
    "learning_rate": "the learning rate",
    "weight_decay": "learning rate × weight decay",
    "eps": "eps",
}


class Quantity(NamedTuple):
    """A setting of the canonical run."""

    setting: Setting

    @property
    def symbol(self) -> str:
        return f"({self.in_full})"

    @property
    def in_full(self) -> str:
        return f"{PHRASES[self.setting.name]} of {self.setting.tensor}"


class NetworkRepair(NamedTuple):
    """What to multiply the allowed knobs by; or the proof that they cannot do it."""

    factors: dict[str, Surd]  # by knob; those that stay as they are are not listed
    obstacles: tuple[str, ...]
    missing: tuple[str, ...]  # further knobs, all needed, that would make it possible

    def __str__(self) -> str:
        """The repair in a sentence or two."""
        if not self.obstacles:
            moves = [f"{knob} × {float(factor):.6g}" for knob, factor in self.factors.items()]
            return f"Exactly: {', '.join(moves) or 'nothing has to be moved'}."
        shown = "; ".join(self.obstacles[:OBSTACLES_SHOWN])
        more = len(self.obstacles) - OBSTACLES_SHOWN
        tail = f" (and {more} more)" if more > 0 else ""
        missing = f" It needs as well: {', '.join(self.missing)}." if self.missing else ""
        return f"Impossible: {shown}{tail}.{missing}"


def knobs(network: Network) -> dict[str, set[Setting]]:
    """All names that `repair` knows for this network, and the settings that each multiplies.

    `learning_rate` multiplies those of all trained tensors, `learning_rate:NAME` one's; likewise
    init_scale, weight_decay and eps (the optimizer's). `value:NAME` is a norm's eps or a constant.
    """
    names: dict[str, set[Setting]] = {}
    for tensor, of_tensor in network.settings.items():
        for name in ("init_scale", *of_tensor):
            names.setdefault(name, set()).add(Setting(name, tensor))
    for tensor in network.tensors:
        if tensor in network.settings:
            for name in ("init_scale", *network.settings[tensor]):
                names[f"{name}:{tensor}"] = {Setting(name, tensor)}
        elif tensor != INPUT:
            names[f"value:{tensor}"] = {Setting("init_scale", tensor)}
    return names


def repair(network: Network, input_scale: float, allow: Sequence[str]) -> NetworkRepair:
    """What makes the run with inputs × `input_scale` train as with unscaled ones.

    Args:
        allow: names as `knobs` lists them; those named first are used first.

    Raises:
        ValueError: a knob is not known, the optimizer cannot be moved, or the inputs have no scale.
    """
    if INPUT not in network.tensors:
        raise ValueError("the inputs are whole numbers, such as token ids: they have no scale")
    all_knobs, group = knobs(network), find(network)
    for knob in allow:
        if knob not in all_knobs:
            raise ValueError(f"knob {knob!r} is not known; such are {', '.join([*all_knobs][:8])}")
    run = as_tensors(network, group.training.generators, input_scale)
    rows = {
        Quantity(setting): monomial
        for setting, monomial in law.canonical_settings(run).items()
        if not _is_zero(monomial, run)
    }
    change = {Setting("init_scale", INPUT): surd(1) / input_scale}
    further = [knob for knob in all_knobs if ":" not in knob]
    further += [f"{name}:{tensor}" for name, tensor in _moved(network, input_scale)]
    known = [knob for knob in further if knob in all_knobs]
    return NetworkRepair(*solve(System(rows, change, all_knobs), allow, known))


def _is_zero(monomial: Mapping[Setting, object], run: Tensors) -> bool:
    return any(not run.settings[setting] for setting in monomial)


def _moved(network: Network, input_scale: float) -> list[tuple[str, str]]:
    """Settings that the exact repairs move: where it is worth looking for what is missing."""
    try:
        changes = transports(network, find(network), input_scale)
    except ValueError:
        return []
    pairs = []
    for change in changes.values():
        for tensor in change.exponents:
            names = ("init_scale", *network.settings[tensor]) if tensor in network.settings else ()
            pairs += [(name, tensor) for name in names or ("value",)]
    return list(dict.fromkeys(pairs))
