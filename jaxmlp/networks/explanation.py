"""What may be rescaled in a user's network, which run scaled inputs make of it, and its repairs."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jaxmlp.law.monomials import sparse
from jaxmlp.law.screen import Labelled, Paragraph, Part, Section, plain
from jaxmlp.law.words import counted
from jaxmlp.networks.group import Group, find
from jaxmlp.networks.knobs import NetworkRepair, repair
from jaxmlp.networks.protocol import Network
from jaxmlp.networks.run import SCHEMES, Change, transports
from jaxmlp.networks.words import against, in_words, listed, which_run

ROWS_SHOWN = 14  # assumed: more is no screen; --json has all
FITTED = (
    "The probabilities were fitted to MLPs; docs/your-own-network.md tells how they do elsewhere."
)


class NetworkExplanation(NamedTuple):
    """Everything that explain.py --model shows. `print` it, or take what you need."""

    network: Network
    input_scale: float
    group: Group
    which_run: str  # a sentence
    forecast: str | None  # a sentence, if a forecast was made
    changes: Mapping[str, Change]  # by scheme: what repairs it exactly; empty if nothing does
    obstacle: str | None  # why nothing does
    repair: NetworkRepair | None  # with the allowed knobs, if some were named

    def __str__(self) -> str:
        """The screen of explain.py as plain text."""
        return plain(self.title, self.sections)

    @property
    def title(self) -> str:
        scale = f", inputs × {self.input_scale:g}" * (self.input_scale != 1)
        tensors = counted(len(self.network.tensors) + len(self.network.statistics), "tensor")
        return f"{self.network.framework}: {tensors}, {self.network.optimizer}{scale}"

    @property
    def sections(self) -> tuple[Section, ...]:
        """What is to be shown, in order."""
        sections = [
            free_rescalings(self.network, self.group),
            Section("Which run this is", (Paragraph(self.which_run),)),
        ]
        if self.forecast:
            words = (Paragraph(self.forecast), Paragraph(FITTED))
            sections.append(Section("Forecast", words))
        if self.changes or self.obstacle:
            sections.append(self._repairs())
        if self.repair:
            sections.append(Section("With the knobs that are allowed", (self._allowed(),)))
        return tuple(sections)

    def _repairs(self) -> Section:
        heading = "What makes it train as with unscaled inputs"
        if self.obstacle:
            return Section(heading, (Paragraph(f"Nothing exact: {self.obstacle}."),))
        divide = (
            f"Divide the inputs by {self.input_scale:g} where they were multiplied. Where they "
            "have to stay as they are:"
        )
        parts: list[Part] = [Paragraph(divide)]
        for scheme, change in self.changes.items():
            parts.append(Paragraph(f"{SCHEMES[scheme]}:"))
            parts.append(Labelled(tuple(in_words(self.network, change))))
        return Section(heading, tuple(parts))

    def _allowed(self) -> Part:
        assert self.repair is not None
        return Paragraph(str(self.repair))

    def to_json(self) -> dict[str, Any]:
        return {
            "framework": self.network.framework,
            "optimizer": self.network.optimizer,
            "input_scale": self.input_scale,
            "tensors": {name: list(shape) for name, shape in self.network.tensors.items()},
            "generators": [_plain(row) for row in self.group.joint.generators],
            "generators_of_training": [_plain(row) for row in self.group.training.generators],
            "inert": list(self.group.training.inert),
            "gap": self.group.training.gap,
            "which_run": self.which_run,
            "forecast": self.forecast,
            "repairs": {
                scheme: {
                    "factors": change.factors,
                    "exponents": _plain(change.exponents),
                    "settings": change.settings,
                }
                for scheme, change in self.changes.items()
            },
            "obstacle": self.obstacle,
        }


def explain(
    network: Network,
    input_scale: float = 1.0,
    forecast: Any = None,
    allow: Sequence[str] = (),
) -> NetworkExplanation:
    """What may be rescaled, which run it is with inputs × `input_scale`, what would repair it.

    Args:
        forecast: what jaxmlp.forecast gave for that run, to be told among the rest.
        allow: knobs that may be moved, as `jaxmlp.networks.knobs.knobs` names them.

    Raises:
        ValueError: the group cannot be told, or a knob is not known.
    """
    group = find(network)
    changes: dict[str, Change] = {}
    obstacle = None
    if input_scale != 1:
        try:
            changes = transports(network, group, input_scale)
        except ValueError as error:
            obstacle = str(error)
    return NetworkExplanation(
        network,
        input_scale,
        group,
        which_run(network, group, input_scale),
        None if forecast is None else str(forecast),
        changes,
        obstacle,
        repair(network, input_scale, allow) if allow else None,
    )


# ---- what is free


def free_rescalings(network: Network, group: Group) -> Section:
    """The generators in words, those that are inert, and those that something breaks."""
    names = [*network.tensors, *network.statistics]
    rows = [
        row
        for row in sparse(group.joint.generators, names)
        if len(row) > 1 or next(iter(row)) not in group.training.inert
    ]
    lines = [(str(place + 1), against(row)) for place, row in enumerate(rows[:ROWS_SHOWN])]
    parts: list[Part] = [Labelled(tuple(lines))] if lines else []
    if len(rows) > ROWS_SHOWN:
        parts.append(Paragraph(f"and {len(rows) - ROWS_SHOWN} more (--json lists them)"))
    if not rows:
        parts.append(Paragraph("None: every rescaling changes the losses."))
    if group.training.inert:
        inert = listed(group.training.inert)
        parts.append(Paragraph(f"Without effect on training, whatever their size: {inert}."))
    parts.extend(
        Paragraph(f"Nearly free (broken by {near.strength:.0e}): {against(near.exponents)}.")
        for near in group.training.near
    )
    heading = f"Free rescalings: {len(rows)} (a gap of {group.joint.gap:.0e} sets them apart)"
    return Section(heading, tuple(parts))


def _plain(row: Mapping[str, Fraction]) -> dict[str, str]:
    return {name: str(exponent) for name, exponent in row.items()}
