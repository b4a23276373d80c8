"""A Result is what the command leaves, in memory; it saves, loads and shows it."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tiny import arrays

from jaxmlp.commands import run as run_jax
from jaxmlp.record.result import Result


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run's directory, by the command."""
    top = tmp_path_factory.mktemp("result")
    np.savez(top / "tiny.npz", **arrays())
    rate = ("--learning-rate", "1e30")  # the record then holds numbers that are not finite
    small = ("--hidden", "5", "--batch-size", "8", "--epochs", "2", "--no-forecast")
    run_jax.main(["--data", str(top / "tiny.npz"), *small, *rate, "--out", str(top / "a")])
    return top / "a"


def contents(directory: Path) -> dict[str, bytes]:
    """Of a record; its page is no part of it."""
    paths = (path for path in directory.iterdir() if path.name != "report.html")
    return {path.name: path.read_bytes() for path in paths}


def test_what_was_loaded_is_saved_as_the_command_wrote_it(made, tmp_path):
    result = Result.load(made)
    result.save(tmp_path / "b" / "c")
    assert contents(tmp_path / "b" / "c") == contents(made)
    assert set(contents(made)) == {*result.files(), "SHA256SUMS"}


def test_a_finished_run_is_replaced_only_when_asked_and_nothing_else_is_touched(made, tmp_path):
    result, out = Result.load(made), tmp_path / "b"
    result.save(str(out))
    (out / "thesis.txt").write_text("precious")
    (out / "curves.png").write_bytes(b"damaged")
    before = contents(out)
    with pytest.raises(ValueError, match=r"holds a damaged run .*--overwrite replaces it"):
        result.save(out)
    assert contents(out) == before
    result.save(out, overwrite=True)
    assert contents(out) == {**contents(made), "thesis.txt": b"precious"}
    with pytest.raises(ValueError, match=r"holds files that are not a run's \(b\)"):
        result.save(tmp_path)


def test_it_says_how_the_run_ended_in_a_word_a_sentence_and_a_line(made):
    result = Result.load(made)
    assert result.outcome == "nonfinite"
    assert result.verdict.startswith("Nonfinite: the loss is no longer finite from step ")
    assert repr(result) == "Result(custom on tiny, jax, 2 of 2 epochs: nonfinite)"


def test_no_other_record_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"is no record of a run: .*; give a run's directory"):
        Result.load(tmp_path)


def test_a_notebook_shows_the_verdict_and_every_figure(made, monkeypatch, capsys):
    shown = []
    display = types.SimpleNamespace(Image=lambda content: content, display=shown.append)
    kernel = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: kernel, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    result = Result.load(made)
    result.show()
    assert shown == [contents(made)[name] for name in result.figures()]
    assert len(shown) == 3
    assert capsys.readouterr().out == result.verdict + "\n"


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()])
def test_elsewhere_the_verdict_is_printed_and_how_to_have_the_figures(
    made, monkeypatch, capsys, shell
):
    if shell:  # IPython in a terminal
        ipython = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
    result = Result.load(made)
    result.show()
    told = capsys.readouterr().out
    assert told == f"{result.verdict}\nfigures: result.save(DIRECTORY) writes them as PNG\n"


def test_a_record_is_read_without_jax_and_without_what_draws(made):
    code = (
        "import sys; from jaxmlp.record.result import Result; Result.load(sys.argv[1]).verdict\n"
        "print({'jax', 'matplotlib', 'tensorflow_datasets', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
