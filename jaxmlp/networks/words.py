"""What is said of a user's network: its rescalings, which run it is, and what to do, in words."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from jaxmlp.law import tensors as law
from jaxmlp.law.difference import differing_ratios
from jaxmlp.law.rules import UNMOVABLE, scaling_rule
from jaxmlp.law.words import times
from jaxmlp.networks.group import Group
from jaxmlp.networks.protocol import INPUT, Network
from jaxmlp.networks.run import Change, as_tensors

NAMES_SHOWN = 4  # assumed: more is no sentence
PHRASES = {
    "init_scale": "initial values",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "eps": "eps of the optimizer",
}


def against(row: Mapping[str, Fraction]) -> str:
    """A generator in words: what grows, against what shrinks."""
    grow = listed([_raised(name, power) for name, power in row.items() if power > 0])
    shrink = listed([_raised(name, -power) for name, power in row.items() if power < 0])
    return f"{grow} against {shrink}" if grow and shrink else f"{grow or shrink} together"


def listed(names: Iterable[str]) -> str:
    """`a, b and c`; of many the first few."""
    names = list(names)
    if len(names) > NAMES_SHOWN + 1:
        return f"{', '.join(names[:NAMES_SHOWN])} and {len(names) - NAMES_SHOWN} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _raised(name: str, power: Fraction) -> str:
    return name + _power(power)


def _power(power: Fraction) -> str:
    return {Fraction(1): "", Fraction(2): "²", Fraction(4): "⁴"}.get(power, f"^({power})")


# ---- which run it is


def which_run(network: Network, group: Group, input_scale: float) -> str:
    """The run beside that with unscaled inputs, in a sentence."""
    if network.optimizer in UNMOVABLE:
        return f"That cannot be said: {network.optimizer} {UNMOVABLE[network.optimizer]}."
    try:
        scaling_rule(network.optimizer)
    except ValueError as error:
        return f"That cannot be said: {error}."
    if INPUT not in network.tensors:
        return "Its inputs are whole numbers, such as token ids, which have no scale."
    if input_scale == 1:
        return "Its inputs are unscaled; give --input-scale to see what scaling them would do."
    ratios = ratios_to_unscaled(network, group, input_scale)
    if not ratios:
        return "It is, step for step, the run with unscaled inputs."
    if any(setting.tensor == INPUT for setting in ratios):
        return (
            "No rescaling of the tensors undoes the inputs' scale: it is another run than that "
            "with unscaled inputs, with no settings that would make them the same."
        )
    wrong: dict[str, list[str]] = {}
    for setting, ratio in ratios.items():
        if setting.name != "weight_decay":  # learning rate times weight decay says nothing more
            text = f"{_phrase(network, setting)} {times(ratio)}"
            wrong.setdefault(setting.tensor, []).append(text)
    alike: dict[str, list[str]] = {}
    for tensor, texts in wrong.items():
        alike.setdefault(" and ".join(texts), []).append(tensor)
    parts = [f"{listed(tensors)}: {text}" for text, tensors in alike.items()]
    return f"It is the run with unscaled inputs, but for {'; '.join(parts)}."


def ratios_to_unscaled(
    network: Network, group: Group, input_scale: float
) -> dict[law.Setting, float]:
    """The canonical settings that differ: with scaled inputs, over those with unscaled ones."""
    basis = group.training.generators
    values = []
    for scale in (input_scale, 1.0):
        run = as_tensors(network, basis, scale)
        canonical = law.canonical_settings(run)
        values.append({key: law.value(row, run.settings) for key, row in canonical.items()})
    return differing_ratios(*values)


def _phrase(network: Network, setting: law.Setting) -> str:
    if setting.tensor not in network.settings and setting.name == "init_scale":
        return "value"
    return PHRASES[setting.name]


# ---- what to do


def in_words(network: Network, change: Change) -> list[tuple[str, str]]:
    """Which tensors move, and how: a row for those that move alike."""
    rows: dict[str, list[str]] = {}
    for name, exponent in change.exponents.items():
        if name != INPUT:
            rows.setdefault(_moves(network, name, exponent, change.scale), []).append(name)
    return [(listed(names), text) for text, names in rows.items()]


def _moves(network: Network, name: str, exponent: Fraction, scale: float) -> str:
    if name in network.statistics:
        return f"starts {_by(exponent, scale)}"
    if name not in network.settings:
        return f"value {_by(exponent, scale)}"
    rule = scaling_rule(network.optimizer)
    moves = [f"{PHRASES['init_scale']} {_by(exponent, scale)}"]
    for setting, value in network.settings[name].items():
        power = getattr(rule, setting)
        if power and value:
            moves.append(f"{PHRASES[setting]} {_by(exponent * power, scale)}")
    return ", ".join(moves)


def _by(exponent: Fraction, scale: float) -> str:
    return f"{'×' if exponent > 0 else '÷'} {scale:g}{_power(abs(exponent))}"
