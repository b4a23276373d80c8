"""A user's network as the law's tensors, and its runs as settings of those."""

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from jaxmlp.law import tensors as law
from jaxmlp.law.rules import GLOBAL_NORM, scaling_rule
from jaxmlp.law.surd import surd
from jaxmlp.law.symmetry import Exponents
from jaxmlp.law.tensors import INPUT, Setting, Tensors
from jaxmlp.networks.group import Group
from jaxmlp.networks.protocol import Network

SCHEMES = {"fewest": "fewest tensors touched", "alike": "all weights alike"}
# What moving a tensor costs the user: a parameter needs other initial values and other settings,
# an eps is one number, and running statistics follow by themselves but for where they start.
COST_OF_PARAMETER, COST_OF_EPS, COST_OF_STATISTIC = 100, 1, 0


class Change(NamedTuple):
    """A transport: what to multiply initial values and inputs by, and the moved settings."""

    scale: float  # what its exponents are powers of: of the inputs, for a transport to scaled ones
    exponents: dict[str, Fraction]  # by tensor; those that stay are not listed
    settings: dict[str, dict[str, float]]  # by trained tensor, all of them

    @property
    def factors(self) -> dict[str, float]:
        """By tensor, each rounded once."""
        scale = surd(self.scale)
        return {name: float(scale**exponent) for name, exponent in self.exponents.items()}


def as_tensors(
    network: Network, generators: tuple[Exponents, ...], input_scale: float = 1.0
) -> Tensors:
    """The run as the law sees it, with initial values in units of the user's own.

    Raises:
        ValueError: the optimizer cannot be moved.
    """
    scaling_rule(network.optimizer)
    settings = {}
    for name in (*network.tensors, *network.statistics):
        settings[Setting("init_scale", name)] = input_scale if name == INPUT else 1.0
        of_tensor = network.settings.get(name, {})
        if of_tensor.get("learning_rate"):  # at rate 0 it is frozen
            settings |= {Setting(setting, name): value for setting, value in of_tensor.items()}
    trained = [name for name in network.settings if Setting("learning_rate", name) in settings]
    weights = [name for name in trained if len(network.tensors[name]) > 1]
    return Tensors(network.optimizer, generators, settings, weights or trained)


def costs(network: Network) -> dict[str, int]:
    """Of moving each tensor."""
    prices = {}
    for name in (*network.tensors, *network.statistics):
        is_eps = name.endswith(".eps") and network.tensors.get(name) == ()
        prices[name] = COST_OF_EPS if is_eps else COST_OF_PARAMETER
        if name in network.statistics or name == INPUT:
            prices[name] = COST_OF_STATISTIC
    return prices


def generators(group: Group) -> tuple[Exponents, ...]:
    """Those along which evaluation stays, too; of training alone if no other has inputs."""
    if any(INPUT in row for row in group.joint.generators):
        return group.exact
    if any(INPUT in row for row in group.training.generators):
        return group.training.generators
    return group.exact


def transports(network: Network, group: Group, input_scale: float) -> dict[str, Change]:
    """The same run with inputs × `input_scale`: touching few tensors, and all weights alike.

    Raises:
        ValueError: no rescaling makes up for the inputs, the optimizer cannot be moved, or a moved
            setting leaves its range.
    """
    if INPUT not in network.tensors:
        raise ValueError("the inputs are whole numbers, such as token ids: they have no scale")
    if network.clip_global_norm is not None:
        raise ValueError(GLOBAL_NORM)
    run = as_tensors(network, generators(group))
    few, alike = law.fewest(run, costs(network)), law.alike(run)
    if few is None or alike is None:
        raise ValueError(
            "nothing can make up for scaled inputs: every rescaling that leaves this network's "
            "losses as they are leaves its inputs as they are (something that is not homogeneous, "
            "such as tanh or a constant, meets them)"
        )
    changes = {"fewest": along(network, run, few, input_scale)}
    if alike != few:
        changes["alike"] = along(network, run, alike, input_scale)
    return changes


def along(
    network: Network, run: Tensors, exponents: Mapping[str, Fraction], scale: float
) -> Change:
    """The transport along a rescaling of the group, by `scale` to the exponents.

    Raises:
        ValueError: a moved setting is larger than every float.
    """
    moved = law.moved(run, law.raised(exponents, surd(scale)))
    settings = {
        name: {key: moved.get(Setting(key, name), value) for key, value in of_tensor.items()}
        for name, of_tensor in network.settings.items()
    }
    return Change(scale, dict(exponents), settings)
