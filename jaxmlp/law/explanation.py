"""An explanation: which run a run really is, what course it will take, what would repair it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from jaxmlp import question
from jaxmlp.experiment import NETWORK, SCALED, Experiment
from jaxmlp.law import words
from jaxmlp.law.advice import exact_repairs, single_knobs, target
from jaxmlp.law.canonical import Canonical, canonical, canonical_if_any
from jaxmlp.law.difference import difference, in_words, same
from jaxmlp.law.emission import SCRIPT
from jaxmlp.law.invariants import exact_invariants
from jaxmlp.law.rules import power
from jaxmlp.law.screen import Commands, Labelled, Paragraph, Part, Section, Table, plain

BASELINE = "the baseline: inputs × 1, default scales, rates and decays"


def baseline(experiment: Experiment) -> Experiment:
    """The same experiment with unscaled inputs and default scales, rates and decays."""
    default = Experiment(optimizer=experiment.optimizer)
    return dataclasses.replace(experiment, **{name: getattr(default, name) for name in SCALED})


# ---- sentences


def same_as(experiment: Experiment) -> str:
    """What scaled inputs are, in terms of the first layer alone."""
    scale = f"{experiment.input_scale:g}"

    def moved(setting: str) -> str:
        exponent = power(experiment.optimizer, setting)
        return f"{'×' if exponent > 0 else '÷'} {scale}{'²' * (abs(exponent) == 2)}"

    return (
        f"Inputs × {scale} are the same as inputs × 1 with first-layer weights × {scale} and a "
        f"first-layer learning rate {moved('learning_rate')} (and its decay "
        f"{moved('weight_decay')}): the first layer's outputs and its gradients both grow by "
        f"{scale}."
    )


def which_run(experiment: Experiment, against: Experiment, other: str = BASELINE) -> str:
    """What the run is, beside another.

    Args:
        other: what the other one is called.
    """
    try:
        between = difference(experiment, against)
        form = canonical(experiment)
    except ValueError as error:
        return f"No canonical form: {error}."
    if between.same:
        return f"It is {other}." if experiment == against else f"It is, step for step, {other}."
    init_scales = _alike([f"{value:.3g}" for value in form.init_scale])
    decays = _alike([f"{value / form.learning_rate:.3g}" for value in form.decay])
    further = [*["eps"] * (form.eps is not None), *["biases"] * experiment.bias]
    moved_along = f" ({' and '.join(further)} moved along)" if further else ""
    verb = "is" if experiment.input_scale == 1 else "is, step for step,"
    return (
        f"It {verb} the run with inputs × 1, learning rate {form.learning_rate:.3g} for every "
        f"layer, initial weights × {init_scales} and weight decay {decays}{moved_along}. Beside "
        f"{_short(other)}: {in_words(between, experiment.layers)}."
    )


def _alike(values: list[str]) -> str:
    """One value where all layers have the same."""
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def _short(other: str) -> str:
    """A run's name without what stands behind its colon."""
    return other.partition(":")[0]


def why(experiment: Experiment) -> list[str]:
    """Paragraphs: which run it is, and where it is one of the question's, why it went so."""
    paragraphs = [which_run(experiment, baseline(experiment))]
    if experiment.input_scale != 1:
        paragraphs.insert(0, f"Why: {same_as(experiment)}")
    case = question.name(experiment)
    as_long = experiment.epochs == Experiment().epochs  # what is told is of so many
    if case in question.ATTEMPTS and experiment.input_scale == question.SCALE and as_long:
        paragraphs.append(question.ATTEMPTS[case].reason)
    return paragraphs


# ---- numbers


class TableRow(NamedTuple):
    """One invariant of two runs, as text."""

    label: str
    this: str
    other: str
    ratio: str  # this over the other


def table(experiment: Experiment, against: Experiment) -> list[TableRow]:
    """A row for each invariant, of two runs of one network; empty if nothing can be compared."""
    try:
        exact = [exact_invariants(each) for each in (experiment, against)]
        this, other = ({key: float(value) for key, value in each.items()} for each in exact)
    except (ValueError, OverflowError):
        return []
    rows = []
    for invariant in sorted(this, key=lambda invariant: invariant.rank):
        name = ", ".join(filter(None, (invariant.terms.label, invariant.where)))
        a, b = this[invariant], other[invariant]
        ratio = "1" if a == b else f"{a / b:.4g}" if b else "–"
        rows.append(TableRow(f"{invariant.symbol}  {name}", f"{a:.4g}", f"{b:.4g}", ratio))
    return rows


# ---- the whole


class Foretold(Protocol):
    """A forecast, such as jaxmlp.forecast's."""

    def to_json(self) -> dict[str, Any]:
        """A record's section `forecast`."""
        ...


@dataclass(frozen=True)
class Explanation:
    """Everything that explain.py shows of a run. `print` it, or take what you need."""

    case: str  # name of the question's case, or "custom"
    experiment: Experiment
    against: Experiment
    other: str  # what `against` is called
    canonical: Canonical | None  # None: a layer is frozen
    which_run: str  # a sentence
    table: tuple[TableRow, ...]  # empty: networks, optimizers or a frozen layer forbid it
    forecast: str | None  # a sentence, if a forecast was given
    data: str | None  # what was foretold for, if the forecast says so
    exact_repairs: tuple[tuple[str, str], ...]  # label and command, or why there is none
    single_knobs: tuple[tuple[str, str], ...]  # label and what the knob can do alone
    nothing_exact: str | None  # why single knobs could not be tried
    attempts: tuple[tuple[str, str], ...]  # of the question, if it is one of its cases

    def __str__(self) -> str:
        """The screen of explain.py as plain text."""
        return plain(self.title, self.sections)

    @property
    def title(self) -> str:
        layers = self.experiment.layers
        depth = f"{layers} layer{'s' * (layers > 1)}"
        inputs = f"inputs × {self.experiment.input_scale:g}"
        return f"{self.case}: {depth}, {self.experiment.optimizer}, {inputs}"

    @property
    def sections(self) -> tuple[Section, ...]:
        """What is to be shown, in order."""
        sections = [self._identity()]
        if self.forecast:
            data = f" ({self.data})" if self.data else ""
            sections.append(Section(f"Forecast{data}", (Paragraph(self.forecast),)))
        if self.exact_repairs:
            sections.append(self._repairs())
        if self.attempts:
            sections.append(self._attempts())
        return tuple(sections)

    def _identity(self) -> Section:
        heading = f"Which run this is, beside {_short(self.other)}"
        sentence = Paragraph(self.which_run)
        if not self.table:
            return Section(heading, (sentence,))
        numbers = Table(("", "this run", "the other", "ratio"), self.table)
        return Section(heading, (sentence, numbers))

    def _repairs(self) -> Section:
        parts: list[Part] = [Commands(self.exact_repairs)]
        if self.experiment.input_scale != self.against.input_scale:
            change = self.experiment.input_scale / self.against.input_scale
            divide = (
                f"Divide the inputs by {change:g} where they were multiplied. Where they have to "
                "stay as they are:"
            )
            parts.insert(0, Paragraph(divide))
        if self.single_knobs:
            parts.append(Labelled(self.single_knobs))
        if self.nothing_exact:
            parts.append(Paragraph(self.nothing_exact))
        return Section(f"What turns it into {_short(self.other)}", tuple(parts))

    def _attempts(self) -> Section:
        return Section(
            "The question's attempts at inputs × 255 (CIFAR-10, 20 epochs)",
            (
                Paragraph(same_as(self.experiment)),
                Labelled(self.attempts),
                Paragraph(question.BOTH_LAYERS),
            ),
        )


def explain(
    experiment: Experiment,
    against: Experiment | None = None,
    forecast: Mapping[str, Any] | Foretold | None = None,
    *,
    case: str | None = None,
    other: str | None = None,
    again: Sequence[str] = SCRIPT,
) -> Explanation:
    """Which run a run really is, what course it will take, what would repair it.

    Args:
        against: the run to compare with; without it the same experiment with unscaled inputs and
            default scales, rates and decays.
        forecast: a record's section `forecast`, perhaps with the `data` that it is for, or what
            jaxmlp.forecast gave.
        case: what the run is called; without it as the question names it.
        other: what `against` is called.
        again: the words of the command before the settings, in the commands to paste.
    """
    default = baseline(experiment)
    if against is None:
        against, other = default, other or BASELINE
    comparable = all(getattr(experiment, name) == getattr(against, name) for name in NETWORK)
    repairs = exact_repairs(experiment, against, again) if comparable else []
    knobs, nothing_exact = _single_knobs(experiment, against) if repairs else ([], None)
    # What is told of the attempts is told beside the baseline.
    asks_why = against == default and not same(experiment, default)
    section = forecast if isinstance(forecast, Mapping | None) else forecast.to_json()
    return Explanation(
        case=case or question.name(experiment),
        experiment=experiment,
        against=against,
        other=other or "the other run",
        canonical=canonical_if_any(experiment),
        which_run=which_run(experiment, against, other or "the other run"),
        table=tuple(table(experiment, against)) if comparable else (),
        forecast=words.forecast(section) if section else None,
        data=section.get("data") if section else None,
        exact_repairs=tuple(repairs),
        single_knobs=tuple(knobs),
        nothing_exact=nothing_exact,
        attempts=tuple(question.attempts(experiment)) if asks_why else (),
    )


def _single_knobs(
    experiment: Experiment, against: Experiment
) -> tuple[list[tuple[str, str]], str | None]:
    """What single knobs can do towards `against`'s settings; or why that cannot be said."""
    try:
        to = target(experiment, against)
        return ([] if same(experiment, to) else single_knobs(experiment, to)), None
    except ValueError as error:
        return [], f"Nothing exact: {error}."
