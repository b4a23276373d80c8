"""A transport of a user's run: its settings to read, to paste, or to apply."""

from typing import Any

from jaxmlp.law.surd import surd
from jaxmlp.networks.emission import as_json, as_optax, as_torch
from jaxmlp.networks.group import find
from jaxmlp.networks.protocol import INPUT, Network
from jaxmlp.networks.run import SCHEMES, Change, transports
from jaxmlp.networks.words import in_words


class Transport:
    """The settings with which a network trains on inputs × `input_scale` as on unscaled ones."""

    def __init__(self, network: Network, change: Change) -> None:
        self.network, self.change = network, change

    @property
    def factors(self) -> dict[str, float]:
        """By tensor: what to multiply its initial values by."""
        return {name: f for name, f in self.change.factors.items() if name != INPUT}

    @property
    def settings(self) -> dict[str, dict[str, float]]:
        """By trained tensor: learning_rate, weight_decay, and eps where the optimizer has one."""
        return self.change.settings

    def apply(self) -> None:
        """Multiplies the model's own tensors and gives its optimizer the settings, in place.

        The inputs stay yours to multiply.

        Raises:
            ValueError: the optimizer's state cannot be moved; nothing is altered then.
        """
        self.network.apply(self.factors, self.settings)

    def emit(self, target: str) -> str:
        """Code or numbers to paste.

        Args:
            target: torch (parameter groups), optax (chains by tensor), or json.

        Raises:
            ValueError: the target is not known, or knows no such optimizer.
        """
        targets: dict[str, Any] = {"torch": as_torch, "optax": as_optax, "json": as_json}
        if target not in targets:
            raise ValueError(f"target {target!r} is not known; choose from {', '.join(targets)}")
        return targets[target](self.network, self.change)

    def __str__(self) -> str:
        """Which tensors move, and how."""
        return "\n".join(f"{names}: {text}" for names, text in in_words(self.network, self.change))


def transport(network: Network, input_scale: float, scheme: str = "fewest") -> Transport:
    """The same run with inputs × `input_scale`.

    Bit for bit where every factor is a power of two; to rounding otherwise.

    Args:
        scheme: fewest tensors touched, or all weights alike.

    Raises:
        ValueError: nothing makes up for scaled inputs, the optimizer cannot be moved, or the scheme
            is not known.
    """
    surd(input_scale)  # a positive number
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is not known; choose from {', '.join(SCHEMES)}")
    changes = transports(network, find(network), input_scale)
    return Transport(network, changes.get(scheme, changes["fewest"]))
