"""The pages' law in JavaScript says what the law says: numbers, sentences, repairs, all exactly."""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from browser import chromium

from jaxmlp import question
from jaxmlp.experiment import FLOAT32_MIN, Experiment
from jaxmlp.law.advice import exact_repairs
from jaxmlp.law.canonical import canonical_if_any
from jaxmlp.law.emission import emit
from jaxmlp.law.explanation import baseline, which_run
from jaxmlp.law.transport import transport
from jaxmlp.pages.explorer_cases import as_script
from jaxmlp.pages.page import static

FEW, MANY = 500, 10_000
OF_THE_QUESTION: dict[str, Any] = {
    "learning_rate": 0.02,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "dampening": 0.0,
}
# Numbers travel as text: a large one without a fraction would arrive as an integer.
SAID = """settings => settings.map(s => ({
  canonical: s.learningRate.includes(0) ? null : Object.values(canonical(s)).flat().map(String),
  sentence: whichRun(s),
  repairs: repairs(s),
  torch: torchCode(s.inputScale),
  optax: optaxCode(s.inputScale),
}))"""


@pytest.fixture(scope="module")
def law() -> Iterator[Any]:
    """A browser's page with the law and nothing else."""
    with chromium() as browser:
        page = browser.new_page()
        page.set_content("<!DOCTYPE html><meta charset=utf-8>")
        page.add_script_tag(content=static("law.js"))
        yield page


def said_by_python(experiment: Experiment) -> dict[str, Any]:
    against = baseline(experiment)
    form = canonical_if_any(experiment)
    return {
        "canonical": form and [form.learning_rate, *form.init_scale, *form.decay],
        "sentence": which_run(experiment, against),
        "repairs": [list(repair) for repair in exact_repairs(experiment, against)],
        "torch": emitted("torch", experiment.input_scale),
        "optax": emitted("optax", experiment.input_scale),
    }


def emitted(target: str, input_scale: float) -> str:
    try:
        return emit(target, input_scale, **OF_THE_QUESTION)
    except ValueError as error:
        return f"impossible: {error}"


# ---- settings


def drawn(draw: random.Random) -> Experiment:
    """Settings over many decades: some short, some whole, some powers of two, some equal."""

    def number(center: float, decades: float) -> float:
        value = center * 10 ** draw.uniform(-decades, decades)
        kinds = (
            lambda: value,
            lambda: float(f"{value:.3g}"),
            lambda: float(f"{value:.4g}"),  # often a tie of three digits
            lambda: 2.0 ** round(math.log2(value)),
            lambda: 10.0 ** round(math.log10(value)),
            lambda: center * 255.0 ** draw.choice((-2, -1, -0.5, 0.5, 1, 2)),
            lambda: center * draw.choice((0.75, 0.998, 1.004, 1.125, 4.5, 255, 1000.5, 2500)),
            lambda: center,
        )
        return draw.choice(kinds)()

    def two(center: float, decades: float, zeros: float = 0.0) -> tuple[float, float]:
        first, second = (
            0.0 if draw.random() < zeros else number(center, decades) for _ in range(2)
        )
        return (first, first) if draw.random() < 0.4 else (first, second)

    decades = draw.choice((1, 3, 6))
    return Experiment(
        input_scale=number(1.0, decades),
        init_scale=two(1.0, decades),
        learning_rate=two(0.02, decades),
        weight_decay=two(1e-4, decades, 0.1),
    )


def named() -> Iterator[Experiment]:
    """The question's cases, and what stands on the edge of something."""
    yield from (Experiment(**question.settings(case)) for case in question.CASES)
    for scale, scheme in itertools.product((2.0, 255.0, 1e-3, 1 / 3), ("first-layer", "uniform")):
        same_run = transport(Experiment(), scale, scheme=scheme)
        yield same_run
        rate = same_run.per_layer("learning_rate")
        for off in (1e-14, 1e-13, 3e-13, 4e-13, 5e-13, 6e-13, 1e-12, 1e-9, 1e-3, 4.9e-3, 5.1e-3):
            yield dataclasses.replace(same_run, learning_rate=(rate[0], rate[1] * (1 + off)))
            yield dataclasses.replace(same_run, learning_rate=(rate[0], rate[1] * (1 - off)))
    for value in (1.125, 1.135, 1.375, 2.5, 1000.5, 1001.5, 9999999.0, 1e7, 999.5, 0.1255):
        for inverse in (value, 1 / value):
            yield Experiment(input_scale=inverse, weight_decay=(0.0,))
            yield Experiment(init_scale=(inverse, 1.0), weight_decay=(inverse,))
            yield Experiment(learning_rate=(inverse,), input_scale=value)
    for scale in (1e-37, FLOAT32_MIN, 1e-20, 1e-18, 1e18, 1e19, 1e30, 3.4e38):
        yield Experiment(input_scale=scale)
    for rates in ((0.0, 0.02), (0.02, 0.0), (0.0, 0.0)):
        yield Experiment(learning_rate=rates)


def check(law: Any, experiments: list[Experiment]) -> None:
    said = law.evaluate(SAID, [as_script(experiment) for experiment in experiments])
    for experiment, by_script in zip(experiments, said, strict=True):
        if by_script["canonical"]:
            by_script["canonical"] = list(map(float, by_script["canonical"]))
        assert by_script == said_by_python(experiment), experiment


def test_the_script_says_of_the_named_settings_what_python_says(law):
    check(law, list(named()))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_the_script_says_of_any_setting_what_python_says(law, count):
    """Canonical numbers to the last bit, so that no rounding of a digit can go the other way."""
    draw = random.Random(count)
    check(law, [drawn(draw) for _ in range(count)])
