"""Pages to look at: made from records alone, whole, offline; they show what there is as it is."""

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, chromium, opened, until, wide
from tiny import arrays

from jaxmlp import Experiment, question
from jaxmlp.commands import report as command
from jaxmlp.commands import run as run_jax
from jaxmlp.commands import sweep as sweep_command
from jaxmlp.pages import charts, page, report, runs
from jaxmlp.pages.question import question_page
from jaxmlp.pages.run import run_page
from jaxmlp.pages.sweep import sweep_page
from jaxmlp.record import question_experiments, question_runs, sealed, sweep_files
from jaxmlp.record.result import Result

SMALL = ("--hidden", "5", "--batch-size", "8", "--epochs", "3")
HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>&amp;\"'$$x$$ʕ•ᴥ•ʔ"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two runs, one that is the first at another scale, and a sweep, by the commands."""
    top = tmp_path_factory.mktemp("pages")
    np.savez(top / "tiny.npz", **arrays())
    data = ("--data", str(top / "tiny.npz"))
    run_jax.main([*data, *SMALL, "--out", str(top / "a")])
    scaled = ("--input-scale", "4", "--init-scale", "0.25", "1", "--no-forecast")
    rates = ("--learning-rate", str(0.02 / 16), "0.02", "--weight-decay", str(1e-4 * 16), "1e-4")
    run_jax.main([*data, *SMALL, *scaled, *rates, "--out", str(top / "b")])
    axes = ("--init-scale", "log:0.1:10:4", "--learning-rate", "log:1e-3:10:5")
    sweep_command.main([*data, *SMALL, *axes, "--seed", "0", "1", "--out", str(top / "sweep")])
    return top


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def edited(source: Path, out: Path, change) -> Path:
    """A copy of a run's directory whose record was changed, and sealed again."""
    result = Result.load(source)
    record = copy.deepcopy(result.record)
    change(record)
    Result(record, result.steps, result.params).save(out)
    return out


# ---- made and written


@pytest.mark.smoke
def test_every_run_and_every_sweep_has_its_page(made):
    for name in ("a", "b", "sweep"):
        content = (made / name / "report.html").read_bytes()
        assert content.startswith(b"<!DOCTYPE html>")
        assert page.MARK.encode() in content[:1024]
        assert len(content) < 2e6


def test_it_can_be_made_again_from_the_record_alone(made, tmp_path, capsys):
    for name in ("a", "sweep"):
        copied = shutil.copytree(made / name, tmp_path / name)
        (copied / "report.html").unlink()
    command.main([str(tmp_path / "a"), "--out", str(tmp_path / "page.html")])
    assert re.fullmatch(r"page: .*page.html \(1 record, 1\.\d MB\)\n", capsys.readouterr().out)
    assert report.report(tmp_path / "sweep") == tmp_path / "sweep" / "report.html"


def test_a_run_that_was_interrupted_has_a_page_that_says_so(made, tmp_path):
    def interrupt(record):
        record["finished"] = False
        record["experiment"]["epochs"] = 9

    text = run_page(Result.load(edited(made / "a", tmp_path / "cut", interrupt))).decode()
    assert "Interrupted after 3 of 9 epochs" in text


def test_a_run_that_blew_up_has_a_page_that_says_so(made, browser, tmp_path):
    data = ("--data", str(made / "tiny.npz"), "--no-forecast")
    run_jax.main([*data, *SMALL, "--learning-rate", "1e30", "--out", str(tmp_path / "blown")])
    with opened(browser, tmp_path / "blown" / "report.html") as page:
        text = page.locator("main").inner_text()
    assert "Nonfinite: the loss is no longer finite" in text
    assert "nan times" not in text
    assert re.search(r"Where a line is missing, it is (exactly 0 or )?not finite\.", text)
    assert "--data PATH" in text


@pytest.mark.parametrize("damage", ["missing", "truncated", "newer", "none"])
def test_a_record_that_cannot_be_believed_is_one_line(made, tmp_path, capsys, damage):
    out = shutil.copytree(made / "a", tmp_path / "a")
    if damage == "missing":
        (out / "steps.npz").unlink()
    elif damage == "truncated":
        (out / "steps.npz").write_bytes((out / "steps.npz").read_bytes()[:50])
    elif damage == "newer":
        (out / "SHA256SUMS").unlink()
        (out / "result.json").write_text('{"schema": 4}')
    else:
        shutil.rmtree(out)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        command.main([str(out), "--out", str(tmp_path / "page.html")])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "is no record of a run" in said.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_file_that_is_no_page_of_ours_is_left(made, tmp_path, capsys):
    (tmp_path / "page.html").write_text("precious")
    with pytest.raises(SystemExit) as ended:
        command.main([str(made / "a"), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    assert "page.html is no page of ours; move it away" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text() == "precious"


def test_without_room_for_its_page_a_record_is_whole_and_no_older_page_stays(
    made, tmp_path, monkeypatch
):
    out, told = shutil.copytree(made / "a", tmp_path / "a"), []

    def full(path, content, key=None):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(report.atomic, "replace", full)
    assert report.beside(out, lambda: b"page", told.append) == {}
    assert told == [
        f"no page was written: [Errno 28] No space left on device: '{out / 'report.html'}'; "
        "the record is whole"
    ]
    assert not (out / "report.html").exists()
    Result.load(out)


def test_several_runs_are_called_by_as_little_as_tells_them_apart():
    assert runs.called(["runs/a", "runs/b/"]) == ["a", "b"]
    assert runs.called(["x/a", "y/a", "a"]) == ["x/a", "y/a", "a"]


def test_one_record_twice_is_an_error(made, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([str(made / "a"), str(made / "a")])
    assert ended.value.code == 2
    assert "is named twice" in capsys.readouterr().err


def test_a_long_line_keeps_its_beginning_and_its_extremes():
    x, y = np.arange(1.0, 1e5 + 1), np.sin(np.arange(1e5))
    y[77_777], y[5] = 1e9, np.nan
    fewer_x, fewer_y = charts.thinned(x, y)
    assert len(fewer_x) <= charts.MOST_POINTS
    np.testing.assert_array_equal(fewer_x[:300], x[:300])
    assert fewer_y[fewer_x == 77_778] == 1e9
    assert (np.diff(fewer_x) > 0).all()


# ---- in a browser


def test_a_run_shows_its_verdict_numbers_and_curves(made, browser):
    with opened(browser, made / "a" / "report.html") as page:
        record = Result.load(made / "a").record
        assert page.locator("p.lead").inner_text() == record["verdict"]
        assert record["explanation"] in page.locator("main").inner_text()
        assert page.locator("figure .bk-Figure").count() == 6
        assert not wide(page)
        page.locator("summary").first.click()
        assert page.locator("details td").first.is_visible()


def test_the_pointer_tells_a_value_and_the_wheel_zooms(made, browser):
    with opened(browser, made / "a" / "report.html") as page:
        plot = page.locator("figure .bk-Figure").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        told = "document.querySelector('.bk-Tooltip')?.shadowRoot.textContent ?? ''"
        # In three epochs the second lies in the middle; its height is looked for.
        for share in np.linspace(0.25, 0.8, 60):
            page.mouse.move(box["x"] + box["width"] * 0.53, box["y"] + box["height"] * share)
            page.wait_for_timeout(20)
            if page.locator(".bk-Tooltip").count():
                break
        until(page, rf"/(train|test)\s*epoch:\s*2/.test({told})")
        zoom = "Bokeh.documents[0].roots()[0].x_range.end"
        before = page.evaluate(zoom)
        plot.locator(".bk-tool-icon-wheel-zoom").first.click(force=True)
        page.mouse.move(box["x"] + 200, box["y"] + 120)
        page.mouse.wheel(0, -500)
        until(page, f"{zoom} !== {before}")


def test_what_repeats_the_run_is_copied(made, browser):
    with opened(browser, made / "a" / "report.html") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("button.copy").first.focus()
        page.keyboard.press("Enter")
        page.get_by_text("copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator(".command pre").first.inner_text()
        assert copied.startswith("python scripts/run_jax.py ")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_take_the_colours_of_the_page(made, browser, viewport, scheme):
    with opened(
        browser, made / "b" / "report.html", viewport=viewport, color_scheme=scheme
    ) as page:
        ink = page.evaluate("colour('--ink')")
        axis = page.evaluate("Bokeh.documents[0].roots()[0].below[0].axis_label_text_color")
        assert axis == ink
        assert not wide(page)


def test_runs_that_are_one_are_told_to_be(made, browser, tmp_path):
    out = report.report(made / "a", made / "b", to=tmp_path / "ü ö & so on" / "page.html")
    with opened(browser, out) as page:
        assert page.locator("p.lead").inner_text().startswith("a and b are one and the same run")
        numbers = page.locator("tbody tr").all_inner_texts()
        for row in numbers:
            *_, first, second = row.split("\t")
            assert first == second


def test_what_a_record_says_is_shown_as_it_is_and_runs_nothing(made, browser, tmp_path):
    def change(record):
        for name in ("case", "verdict", "explanation"):
            record[name] = HOSTILE + name
        record["data"]["name"] = record["data"]["source"] = HOSTILE
        record["environment"]["device"] = HOSTILE
        record["environment"]["versions"][HOSTILE] = HOSTILE

    one = edited(made / "a", tmp_path / "one", change)
    two = edited(made / "b", tmp_path / HOSTILE.replace("/", "∕"), change)
    report.report(one)
    pages = one / "report.html", report.report(one, two, to=tmp_path / "both.html")
    for path in pages:
        with opened(browser, path) as page:
            assert page.evaluate("typeof hacked") == "undefined"
            assert page.locator("img").count() == 0
            assert HOSTILE + "verdict" in page.locator("main").inner_text()


# ---- a sweep


def pointed_at(page) -> str:
    return page.locator("#now p").first.inner_text()


def test_a_cell_shows_its_runs_and_is_kept_by_a_click(made, browser):
    with opened(browser, made / "sweep" / "report.html") as page:
        assert page.evaluate("cells.length") == 20
        box = page.locator("#field .bk-Figure").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        until(page, "at >= 0")
        assert pointed_at(page) == "2 runs lie here; the first of them:"
        assert page.evaluate("source('train_loss', 'curves').data.y.length") == 2
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        until(page, "view.kept.length === 1")
        run = page.evaluate("view.kept[0]")
        assert page.locator("#kept .run").inner_text().startswith(f"Run {run}: ")


def test_the_plane_is_walked_and_kept_by_keys(made, browser):
    with opened(browser, made / "sweep" / "report.html") as page:
        page.focus("#field")
        for key in ("ArrowRight", "ArrowUp", "Enter", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        assert page.evaluate("view.kept.length") == 2
        first, second = page.evaluate("view.kept.map((run) => data.columns.init_scale_1[run])")
        assert second > first
        for _ in range(8):
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("Enter")
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
        assert page.evaluate("view.kept.length") <= 6
        page.keyboard.press("Escape")
        assert page.locator("#kept").inner_text() == "None yet."


def test_a_sweep_shows_names_as_they_are(made, browser, tmp_path):
    plan, table, curves = sweep_files.load(made / "sweep")
    plan["data"] |= {"name": HOSTILE, "source": HOSTILE}
    (tmp_path / "page.html").write_bytes(sweep_page(plan, table, curves))
    with opened(browser, tmp_path / "page.html") as page:
        page.focus("#field")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("img").count() == 0
        assert HOSTILE in page.locator("h1").inner_text()
        assert "onerror" in page.locator("#now pre").inner_text()


def test_axes_colours_and_endings_are_chosen(made, browser):
    with opened(browser, made / "sweep" / "report.html") as page:
        page.select_option("#x", "train_loss")
        page.select_option("#y", "spike")
        assert page.evaluate("plots.plane.below[0].axis_label") == "train loss"
        page.select_option("#colour", "test_accuracy")
        assert page.locator("#scale").inner_text().startswith("test_accuracy: 0")
        endings = page.evaluate("data.endings")
        page.select_option("#x", "seed")
        page.uncheck("#filters input[value='0']")
        shown = page.evaluate("cells.flatMap((cell) => cell.runs).length")
        assert shown == len(endings) - endings.count(0)


def test_its_commands_repeat_the_runs(made, browser):
    import shlex

    from jaxmlp.commands import flags

    _, table, _ = sweep_files.load(made / "sweep")
    with opened(browser, made / "sweep" / "report.html") as page:
        commands = page.evaluate("data.commands")
    for text, sha256 in zip(commands, table["experiment"].to_pylist(), strict=True):
        parser = flags.parser("")
        flags.add_run_flags(parser)
        _, experiment = flags.experiment(parser.parse_args(shlex.split(text)[2:]))
        assert experiment.sha256 == sha256


# ---- the question


@pytest.fixture(scope="module")
def answered(tmp_path_factory) -> Path:
    """A directory with runs of two cases, as reproduce.py keeps them."""
    out = tmp_path_factory.mktemp("question")
    for case in ("baseline", "scaled"):
        for seed in range(2):
            experiment = Experiment(**question.settings(case), epochs=3, seed=seed)
            key = question_runs.key_of(("jax", case, experiment), "0" * 64)
            run = {
                "outcome": "trained",
                "test_accuracy": [0.1, 0.2, 0.3 + seed / 10],
                "train_loss": 1.0,
                "dead": 0.5,
                "loss": [2.3, 2.2, 2.1],
            }
            sealed.append_line(out / "runs.jsonl", {"key": key, "run": run}, question_runs.KEY)
    return out


def test_each_case_of_the_question_leads_to_its_curves(answered, browser):
    with opened(browser, report.report(answered)) as page:
        assert page.locator("tbody tr").count() == 2
        assert "0.350 ± 0.071" in page.locator("tbody tr").first.inner_text()
        page.get_by_role("link", name="scaled", exact=True).click()
        assert page.locator("section:target h3").inner_text() == "scaled: inputs x s"
        assert page.locator("section:target .bk-Figure").count() == 2


def test_a_directory_without_cases_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no run of the question's cases"):
        question_page({}, tmp_path)
    assert question_experiments.cases(1).keys() == question.CASES.keys()


def test_data_for_scripts_end_no_element():
    assert json.loads(page.as_json({"a": HOSTILE})) == {"a": HOSTILE}
    assert "<" not in page.as_json({"a": HOSTILE})
