"""SIGTERM and Ctrl-C of a command: one line and its own status, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxmlp.commands import exit_status
from jaxmlp.commands.signals import noted

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 75}
WORD = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
# Commands that load what is slow once their flags are good, and flags that are.
DATA = ["--data", "tiny.npz"]
COMMANDS = {
    "run_jax": [*DATA, "--no-forecast"],
    "certify": DATA,
    "compare": ["a", "b"],
    "sweep": DATA,
    "sweep_figures": ["a"],
    "check_sweep": [*DATA, "--seed", "0", "1"],
    "reproduce": DATA,
    "calibrate": [*DATA, "--family", "0"],
    "compile_tpu": [],
}
# The import of the first slow package: it sends itself a signal, as a user might.
INTERRUPTING = """
import importlib.abc, os, runpy, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("jax", "scipy", "matplotlib", "pyarrow", "tensorflow_datasets", "libtpu"):
            for _ in range({count}):
                os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
sys.argv = {words!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def killed(number: int) -> None:
    with exit_status.one_line_errors("all is kept"):
        os.kill(os.getpid(), number)
        pytest.fail("the work goes on")


@pytest.mark.parametrize("number", STATUS)
def test_either_ends_the_work_with_a_line_and_its_status(number, capsys):
    with pytest.raises(SystemExit) as ended:
        killed(number)
    assert ended.value.code == STATUS[number]
    assert capsys.readouterr().err == f"error: {WORD[number]}; all is kept\n"


def killed_again_and_again(number: int, cleaned: list[str]) -> None:
    with exit_status.one_line_errors():
        try:
            os.kill(os.getpid(), number)
        finally:
            for other in STATUS:
                os.kill(os.getpid(), other)
                time.sleep(0)
            cleaned.append("up")


@pytest.mark.parametrize("number", STATUS)
def test_what_cleans_up_is_not_disturbed_by_more_of_them(number, capsys):
    cleaned: list[str] = []
    with pytest.raises(SystemExit) as ended:
        killed_again_and_again(number, cleaned)
    assert cleaned == ["up"]
    assert ended.value.code == STATUS[number]
    assert capsys.readouterr().err.count("\n") == 1


def test_one_that_was_swallowed_is_raised_again_and_the_next_one_ends_it(capsys):
    with exit_status.one_line_errors("all is kept") as signals:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.end_if_asked()


def test_what_came_before_stands_again_after_it():
    before = {number: signal.getsignal(number) for number in STATUS}
    for for_good in (False, True):  # where no signal came
        with exit_status.one_line_errors(for_good=for_good):
            assert all(signal.getsignal(number) is not before[number] for number in STATUS)
        assert {number: signal.getsignal(number) for number in STATUS} == before


def test_one_that_is_noted_only_says_that_it_came():
    with exit_status.one_line_errors() as signals, noted(signal.SIGTERM) as came:
        assert not came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert came()
        assert signals.number is None


@pytest.mark.parametrize("command", COMMANDS)
def test_while_a_command_loads_what_is_slow_it_is_one_line(command, tiny_npz, tmp_path, request):
    script = str(request.config.rootpath / "scripts" / f"{command}.py")
    number = signal.SIGINT if len(command) % 2 else signal.SIGTERM
    words = [script, *COMMANDS[command]]
    code = INTERRUPTING.format(number=int(number), count=2, words=words, script=script)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (STATUS[number], 1), ended.stderr
    assert ended.stderr.startswith(f"error: {WORD[number]}; ")
