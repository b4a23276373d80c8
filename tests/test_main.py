"""The command `jaxmlp`: its subcommands, and how each says it is to be called again."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from jaxmlp.commands import invocation, main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def by_script(monkeypatch):
    monkeypatch.setattr(invocation, "package", ())
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_is_one_screen_with_every_command(arguments, capsys):
    main.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == [*invocation.COMMANDS, "--help", "--version"]


def test_help_says_that_torch_is_missing_where_it_is(monkeypatch, capsys):
    main.main([])
    assert "missing" not in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    main.main([])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "missing" in line)
    assert line.startswith("  run-torch  ")
    assert len(line) <= 80


def test_every_command_has_a_module_and_a_script_that_calls_it():
    for command, (module, _, _) in invocation.COMMANDS.items():
        assert callable(import_module(f"jaxmlp.commands.{module}").main)
        script = ROOT / invocation.words(command)[1]
        assert f"from jaxmlp.commands.{module} import main" in script.read_text()


def test_an_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["trian"])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert "trian is no command of jaxmlp; choose from run, run-torch, explain" in said


@pytest.mark.smoke
def test_what_is_to_be_pasted_begins_as_the_user_began(capsys):
    main.main(["transport", "--input-scale", "255"])
    assert capsys.readouterr().out.startswith("jaxmlp run --init-scale ")
    invocation.package = ()
    from jaxmlp.commands import transport

    transport.main(["--input-scale", "255"])
    assert capsys.readouterr().out.startswith("python scripts/run_jax.py --init-scale ")


def test_what_is_missing_is_installed_as_the_package_was(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    from jaxmlp.commands import run_torch

    for start, remedy in (
        (lambda: main.main(["run-torch"]), "pip install 'jaxmlp[torch]'"),
        (lambda: run_torch.main([]), "pip install -e '.[torch]'"),
    ):
        with pytest.raises(SystemExit) as ended:
            start()
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (1, 1)
        assert said.endswith(f"; install it with {remedy}\n")
        invocation.package = ()


def test_usage_and_version_are_the_commands_own(capsys):
    with pytest.raises(SystemExit):
        main.main(["explain", "--help"])
    assert capsys.readouterr().out.startswith("usage: jaxmlp explain ")
    main.main(["--version"])
    assert re.fullmatch(r"jaxmlp \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_help_imports_no_command():
    code = "import sys; from jaxmlp.commands.main import main; main([]); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = said.stdout.splitlines()[-1].split()
    assert "jaxmlp.commands.main" in modules
    assert not {"numpy", "jax", "matplotlib", "jaxmlp.commands.run"} & set(modules)


def test_scripts_that_a_user_calls_only_call_and_nothing_imports_them():
    tools = {
        "against_commit",
        "bench",
        "bench_torch",
        "build_explorer",
        "elsewhere",
        "profile_step",
        "rooms",
        "scaling",
    }  # our own
    scripts = {path.stem: path for path in (ROOT / "scripts").glob("*.py")}
    assert tools < set(scripts)
    for name in set(scripts) - tools:
        assert len(scripts[name].read_text().splitlines()) <= 15, name
    importing = re.compile(rf"^\s*(?:from|import) (?:scripts|{'|'.join(scripts)})\b", re.MULTILINE)
    for folder in ("jaxmlp", "torchref", "parity_tests", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not importing.search(path.read_text()), path
