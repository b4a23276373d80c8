"""Settings to paste: flags of a run, or numbers and code for any model with scaled inputs."""

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from jaxmlp.law.groups import Group, assumed, groups, whole_model
from jaxmlp.law.rules import scaling_rule
from jaxmlp.law.templates import optax_code, torch_code
from jaxmlp.law.transport import transport

SCRIPT = ("python", "scripts/run_jax.py")  # a command to be pasted starts so
TARGETS = ("flags", "json", "torch", "optax")
# Settings of a run that mean something for this project's network only.
OF_THE_NETWORK = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if field.metadata["section"] != "optimizer" and field.name not in ("init_scale", "input_scale")
)


def emit(
    target: str,
    input_scale: float,
    optimizer: str = "sgd",
    *,
    scheme: str = "first-layer",
    weight: str = "",
    clip: float | None = None,
    again: Sequence[str] = SCRIPT,
    **settings: Any,
) -> str:
    """Settings with which a run trains on scaled inputs as it does on unscaled ones, to paste.

    For any model (all targets but flags) the first weight alone makes up for the scale. It has to
    be a linear map that meets the scaled inputs directly; its bias stays.

    Args:
        target: flags, of this project's run; json, the numbers; torch or optax, code.
        input_scale: what the inputs will be multiplied by.
        optimizer: one of RULES, all of which can be moved.
        scheme: which layers make up for the scale; uniform is for flags.
        weight: torch, optax: name of the first weight, such as conv1.weight, or conv1/kernel.
        clip: optax, json: threshold on each tensor's own gradient (its root mean square).
        again: flags: the command's words before the settings.
        settings: of the unscaled run, by their names in an Experiment. What is not given is the
            library's own default, and told.

    Raises:
        ValueError: it does not exist; the message says why.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    if target not in TARGETS:
        raise ValueError(f"target {target!r} is not known; choose from {', '.join(TARGETS)}")
    if clip is not None and not 0 < clip < math.inf:
        raise ValueError(f"--clip {clip} must be a positive number")
    input_scale = Experiment(input_scale=input_scale).input_scale  # checked, and a float
    scaling_rule(optimizer)  # can it be moved?
    if target == "flags" or scheme == "uniform":
        _check_flags(target, optimizer, clip, again)
        experiment = Experiment.from_json({"optimizer": optimizer, **settings})
        moved = transport(experiment, input_scale, scheme=scheme)
        return shlex.join([*again, *as_flags(moved)]) + "\n"
    _check_any_model(settings, again)
    guesses = assumed("optax" if target == "optax" else "torch", optimizer, settings)
    group, options = whole_model(optimizer, {**settings, **guesses}, clip)
    if group.init_scale != 1:
        raise _of_the_network("init_scale", again)
    if target == "json":
        return json_text(optimizer, group, input_scale, guesses) + "\n"
    code = torch_code if target == "torch" else optax_code
    return _note(guesses) + code(optimizer, group, options, input_scale, weight)


def _check_flags(target: str, optimizer: str, clip: float | None, again: Sequence[str]) -> None:
    """Sees that a run of this project is meant.

    Raises:
        ValueError: it has no such optimizer, or something is asked that it has not.
    """
    if optimizer not in OPTIMIZER_DEFAULTS:
        raise ValueError(
            f"{optimizer} is no optimizer of {_command(again)}; --emit torch, optax or json has it"
        )
    if target != "flags" or clip:
        raise ValueError("scheme uniform is for --emit flags, and --clip for optax and json")


def _check_any_model(settings: Mapping[str, Any], again: Sequence[str]) -> None:
    """Sees that the settings mean something for any model.

    Raises:
        ValueError: one does not.
    """
    names = {field.name for field in dataclasses.fields(Experiment)}
    if unknown := sorted(settings.keys() - names):
        raise ValueError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(names))}")
    for name in OF_THE_NETWORK:
        if name in settings:
            raise _of_the_network("--" + name.replace("_", "-"), again)


def _of_the_network(what: str, again: Sequence[str]) -> ValueError:
    return ValueError(f"{what} belongs to {_command(again)}'s network; leave it out, or emit flags")


def _command(again: Sequence[str]) -> str:
    """What a command is called, such as run_jax.py, or jaxmlp run."""
    return again[-1].rpartition("/")[2] if again[0] == "python" else " ".join(again)


def _note(guesses: Mapping[str, Any]) -> str:
    """The code's first lines: what was not given and is assumed; empty if nothing is."""
    if not guesses:
        return ""
    values = ", ".join(f"{name} {value}" for name, value in guesses.items())
    flags = " ".join(f"--{name.replace('_', '-')}" for name in guesses)
    return f"# Not given, and so assumed: {values}.\n# Where yours differ, give: {flags}\n"


def json_text(optimizer: str, settings: Group, scale: float, guesses: dict[str, Any]) -> str:
    """The numbers, the powers of the input scale that they are, and which of them are assumed."""
    first, other = groups(optimizer, settings, scale)
    of_factor = scaling_rule(optimizer)._asdict()  # which is 1 / scale
    of_factor.pop("decoupled")
    of_scale = {name: power and -power for name, power in of_factor.items()}
    return json.dumps(
        {
            "optimizer": optimizer,
            "input_scale": scale,
            "first_weight": first._asdict(),
            "everything_else": other._asdict(),
            "not_given": guesses,
            "powers_of_the_input_scale": {"init_scale": -1, **of_scale},
        },
        indent=2,
    )


def as_flags(experiment: Experiment) -> list[str]:
    """The flags that ask for `experiment`: what differs from the defaults, exactly."""
    defaults = Experiment(optimizer=experiment.optimizer).to_json()
    defaults["optimizer"] = Experiment().optimizer
    words = []
    for name, value in experiment.to_json().items():
        if value is not None and value != defaults[name]:
            words += as_flag(name, value)
    return words


def as_flag(name: str, value: Any) -> list[str]:
    """One setting as the words of the command line."""
    word = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [word]
    return [word, *map(_word, value if isinstance(value, list | tuple) else (value,))]


def _word(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e6
    return str(int(value) if whole else value)
