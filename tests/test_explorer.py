"""The explorer: settings are moved, and the page says which run they make; offline, and by keys."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import DESKTOP, PHONE, chromium, opened, until, wide

from jaxmlp import question
from jaxmlp.commands import sweep as sweep_command
from jaxmlp.experiment import Experiment
from jaxmlp.law.advice import exact_repairs
from jaxmlp.law.explanation import baseline, which_run
from jaxmlp.pages import explorer, explorer_cases
from jaxmlp.pages.page import static
from jaxmlp.record import sweep_files

PAGE = Path(__file__).parent.parent / "docs" / "explorer.html"
SCRIPTS = ("page.js", "law.js", "explorer.js")
# Of this page, milliseconds that a reader does not notice; medians, so that a machine that does
# other work does not decide. Measured: 20 and 10 on two busy cores.
MOVE_WITHIN, HOVER_WITHIN = 50, 30
MOVES = """async () => {
  const slider = document.getElementById("e1"), taken = [];
  for (let i = 0; i < 100; i++) {
    const start = performance.now();
    slider.value = -6 + 0.06 * i;
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    taken.push(performance.now() - start);
  }
  return taken.sort((a, b) => a - b)[50];
}"""
HOVERS = """() => {
  window.hovers = [];
  addEventListener("pointermove", () => {
    const start = performance.now();
    requestAnimationFrame(() => setTimeout(() => hovers.push(performance.now() - start)));
  }, {capture: true});
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser):
    with opened(browser, PAGE) as shown:
        yield shown


def press(page: Any, case: str) -> Experiment:
    """Presses a case's button; the experiment that the page is to speak of."""
    number = list(question.CASES).index(case) + 1
    page.locator(f"button.case[value='{number}']").click()
    return Experiment(**question.settings(case))


def sentence(page: Any) -> str:
    return page.locator("#sentence").inner_text()


def here(page: Any) -> dict[str, list[float]]:
    return page.evaluate("source('plane', 'here').data")


# ---- the page that is kept


@pytest.mark.smoke
def test_the_kept_page_has_the_scripts_style_and_cases_of_today():
    """Else: `python scripts/build_explorer.py DIR` makes it anew."""
    text = PAGE.read_text()
    for script in SCRIPTS:
        assert f"<script>{static(script)}</script>" in text, script
    assert static("page.css") in text
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert match
    data = json.loads(match[1])
    cases = json.loads(json.dumps([case._asdict() for case in explorer_cases.question_cases()]))
    assert data["cases"] == cases
    assert data["sliders"] == [slider._asdict() for slider in explorer.SLIDERS]
    assert len(text) < 3e6


def test_it_opens_with_the_baseline(page):
    assert sentence(page) == which_run(Experiment(), Experiment())
    assert here(page)["solid"] == [1]
    assert page.locator("#repairs pre").count() == 0
    assert page.locator("button.case[aria-pressed=true]").inner_text() == "1 baseline"


@pytest.mark.parametrize("case", question.CASES)
def test_each_case_says_which_run_it_is_why_it_ended_so_and_what_repairs_it(page, case):
    experiment = press(page, case)
    against = baseline(experiment)
    assert sentence(page) == which_run(experiment, against)
    commands = [text for _, text in exact_repairs(experiment, against)]
    assert page.locator("#repairs pre").all_inner_texts()[: len(commands)] == commands
    guide = page.locator("#guide").inner_text()
    if attempt := question.ATTEMPTS.get(case):
        assert attempt.ended in guide
        assert explorer_cases.ALONE.get(case, attempt.reason) in guide
    first, second = (float(cell) for cell in numbers(page, "κ"))
    assert here(page)["solid"] == [int(first == second)]
    assert ("differ: the ring" in page.locator("#where").inner_text()) == (first != second)


def numbers(page: Any, symbol: str) -> list[str]:
    """This run's numbers of both layers, as the table shows them."""
    rows = page.locator("#numbers tbody tr").all_inner_texts()
    return [row.split("\t")[1] for row in rows if re.match(rf"{symbol}\d[ ,]", row)]


# ---- moved by pointer and keys


def test_a_slider_moves_the_point_and_the_words(page):
    before = here(page)
    page.locator("#s").fill("2")
    assert "effective learning rate 100 times too large" in sentence(page)
    assert here(page)["y"][0] == pytest.approx(100 * before["y"][0])
    assert page.locator("#s-number").input_value() == "100"
    page.locator("#d1").fill("-7")  # the lowest place
    assert "decay: layer 1 absent" in sentence(page)


def test_both_layers_move_together_where_that_is_asked(page):
    page.locator("#together").check()
    page.locator("#a1").fill("-1")
    assert page.evaluate("setting.initScale") == [0.1, 0.1]
    page.locator("#together").uncheck()
    page.locator("#a1").fill("0")
    assert page.evaluate("setting.initScale") == [1, 0.1]


def test_a_number_is_typed_and_a_wrong_one_is_marked_and_changes_nothing(page):
    field = page.locator("#s-number")
    field.fill("255")
    field.press("Enter")
    assert sentence(page) == which_run(Experiment(input_scale=255), Experiment())
    for wrong in ("", "0", "-1", "x", "1e999"):
        field.fill(wrong)
        field.press("Enter")
        assert field.get_attribute("aria-invalid") == "true"
        assert page.evaluate("setting.inputScale") == 255
    page.locator("#e1").focus()
    page.keyboard.press("ArrowRight")
    assert field.input_value() == "255"


def test_keys_alone_reach_and_move_everything(page):
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
    buttons = [str(number) for number in range(1, len(question.CASES) + 1)]
    fields = [name for each in explorer.SLIDERS for name in (each.id, f"{each.id}-number")]
    wanted = [*buttons, *fields, "together"]
    assert [name for name in seen if name in wanted][: len(wanted)] == wanted
    page.locator("button.case").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("setting.inputScale") == 255
    page.focus("#s")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("setting.inputScale") == pytest.approx(10 ** (2.4 - 0.02), rel=0.03)
    before = page.evaluate("setting.inputScale")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("setting.inputScale") == pytest.approx(before * 10**0.1, rel=0.02)


def test_every_control_has_a_name(page):
    unnamed = """[...document.querySelectorAll("input, button")]
      .filter((each) => !each.labels?.length && !each.ariaLabel && !each.textContent.trim())"""
    assert page.evaluate(f"{unnamed}.length") == 0


def test_what_repairs_it_is_copied_as_it_stands(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(page, "scaled")
    for index, text in enumerate(page.locator("#repairs pre").all_text_contents()):
        page.locator("#repairs button.copy").nth(index).click()
        button = f"document.querySelectorAll('#repairs button.copy')[{index}]"
        until(page, f"{button}.textContent === 'copied'")
        assert page.evaluate("navigator.clipboard.readText()") == text


# ---- the address


def test_the_address_holds_the_setting_and_restores_it(browser, tmp_path):
    """From a path with spaces and other alphabets, as a copy that was sent."""
    sent = tmp_path / "für später — копия & 写し" / "explorer.html"
    sent.parent.mkdir()
    shutil.copy(PAGE, sent)
    with opened(browser, sent) as page:
        experiment = press(page, "scaled-lrsq-init1")
        page.locator("#d2").fill("-7")
        said = sentence(page)
        until(page, "location.hash.endsWith('weightDecay=0.0001,0')")
        fragment = page.evaluate("location.hash")
    with opened(browser, sent, fragment) as page:
        assert sentence(page) == said
        assert page.evaluate("setting.learningRate") == list(experiment.per_layer("learning_rate"))
        press(page, "baseline")
        until(page, "location.hash.includes('inputScale=1&')")
        page.evaluate(f"location.hash = {fragment!r}")
        until(page, f"document.getElementById('sentence').textContent === {said!r}")


@pytest.mark.parametrize("fragment", ["#x", "#inputScale=0", "#inputScale=<b>&initScale=1,1"])
def test_an_address_that_holds_no_setting_shows_the_baseline(browser, fragment):
    with opened(browser, PAGE, fragment) as page:
        assert sentence(page) == which_run(Experiment(), Experiment())


def test_a_setting_far_outside_is_told_and_stays_in_the_plane(browser):
    far = "#inputScale=1e30&initScale=1,1&learningRate=1e-30,1&weightDecay=0,0"
    with opened(browser, PAGE, far) as page:
        assert "beyond what was measured" in page.locator("#where").inner_text()
        assert "impossible" in page.locator("#repairs").inner_text()
        place, ends = here(page)["x"][0], "plots.plane.x_range"
        assert page.evaluate(f"{ends}.start") <= place <= page.evaluate(f"{ends}.end")


def test_the_curves_are_those_of_the_nearest_run(page):
    at = "source('plane', 'nearest').data"
    curve = "source('train_loss', 'nearest').data.y"
    for case in ("baseline", "scaled", "scaled-lr-init"):
        press(page, case)
        there = f"rate === {at}.y[0] && measured.scale[i] === {at}.x[0]"
        run = f"measured.rate.findIndex((rate, i) => {there})"
        shown, of_run = page.evaluate(curve), page.evaluate(f"measured.train_loss[{run}]")
        assert shown == of_run
        assert len(shown) == page.evaluate("data.epochs")


# ---- speed, and how it looks


def test_a_move_is_drawn_before_it_is_noticed(page):
    assert page.evaluate(MOVES) < MOVE_WITHIN


def test_the_pointer_shows_a_run_before_it_is_noticed(page):
    page.evaluate(HOVERS)
    box = page.locator(".bk-Figure").first.bounding_box()
    for step in range(60):
        page.mouse.move(box["x"] + box["width"] * (0.2 + step / 100), box["y"] + box["height"] / 2)
        page.wait_for_timeout(20)
    taken = sorted(page.evaluate("hovers"))
    assert taken[len(taken) // 2] < HOVER_WITHIN
    tips = ".bk-Tooltip .bk-tooltip-row-label"
    for step in range(200):
        if page.locator(tips).count():
            break
        page.mouse.move(box["x"] + 250 + step / 4, box["y"] + box["height"] / 2 + step % 7)
        page.wait_for_timeout(20)
    assert "κ" in page.locator(tips).first.inner_text()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window(browser, viewport, scheme):
    with opened(browser, PAGE, viewport=viewport, color_scheme=scheme) as page:
        for case in question.CASES:
            press(page, case)
            assert not wide(page)


# ---- made from a sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Any, Any, Any]:
    """A sweep of the question's network on images as few and as small as can be."""
    top = tmp_path_factory.mktemp("explorer")
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = draw.integers(0, 256, (250, 5, 4, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(250) % 10
    np.savez(top / "few.npz", **arrays)
    axes = ("--init-scale", "0.5", "1", "--learning-rate", "0.02", "1e30")
    sweep_command.main(
        [
            *("--data", str(top / "few.npz"), "--epochs", "2", "--no-forecast"),
            *(*axes, "--out", str(top / "sweep")),
        ]
    )
    return sweep_files.load(top / "sweep")


def test_it_is_made_from_a_sweep_of_the_question_s_network(swept, browser, tmp_path):
    out = tmp_path / "explorer.html"
    out.write_bytes(explorer.explorer_page(*swept))
    with opened(browser, out) as page:
        assert page.evaluate("measured.rate.length") == 4
        assert "κ1 = κ2 = 1, R = 0.02" in page.locator("#fate").inner_text()
        for field in ("#e1-number", "#e2-number"):
            page.locator(field).fill("1e30")
            page.locator(field).press("Enter")
        assert "R = 1e+30: nonfinite" in page.locator("#fate").inner_text()


@pytest.mark.parametrize("setting", [{"hidden": [8]}, {"momentum": 0.0}, {"bias": True}])
def test_a_sweep_of_another_network_is_refused_in_one_line(swept, setting):
    plan, *tables = swept
    other = {**plan, "experiment": {**plan["experiment"], **setting}}
    with pytest.raises(ValueError, match=r"^the sweep is of another network .* left alone$"):
        explorer.explorer_page(other, *tables)


@pytest.mark.parametrize("value", [2.0, None])
def test_runs_that_have_no_place_in_the_plane_are_refused_in_one_line(swept, value):
    plan, runs, curves = swept
    name = "canonical_learning_rate" if value is None else "canonical_init_scale_2"
    column = pa.array([value] * len(runs), pa.float64())
    moved = runs.set_column(runs.column_names.index(name), name, column)
    with pytest.raises(ValueError, match=r"^the explorer shows runs with κ1 = κ2 .* together$"):
        explorer.explorer_page(plan, moved, curves)
