"""The API: instant to import, whole, and the same as the commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmlp

ROOT = Path(__file__).parents[1]
SMALL = {"hidden": (5,), "batch_size": 4, "epochs": 2, "input_scale": 255.0}
FLAGS = ["--hidden", "5", "--batch-size", "4", "--epochs", "2", "--input-scale", "255"]


def loaded(code: str) -> set[str]:
    """The names of all modules that a fresh process holds after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.smoke
def test_the_package_alone_loads_no_other_package():
    names = loaded("import jaxmlp")
    assert {name for name in names if name.startswith("jaxmlp")} == {"jaxmlp"}
    assert not names & {"numpy", "jax", "argparse", "matplotlib"}


def test_every_verb_is_there_with_a_docstring_and_nothing_else():
    assert dir(jaxmlp) == jaxmlp.__all__ == sorted(jaxmlp.__all__)
    for name in jaxmlp.__all__:
        assert getattr(jaxmlp, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        jaxmlp.trian  # noqa: B018


@pytest.mark.parametrize("room", ["law", "data", "record"])
def test_a_room_below_the_device_loads_neither_jax_nor_the_command_line(room):
    files = sorted((ROOT / "jaxmlp" / room).glob("*.py"))
    modules = [f"jaxmlp.{room}" + f".{path.stem}" * (path.stem != "__init__") for path in files]
    names = loaded("import " + ", ".join(modules))
    assert set(modules) <= names
    assert not names & {"jax", "jaxlib", "flax", "optax", "orbax", "torch", "torchref"}
    assert not {name for name in names if name.startswith("jaxmlp.commands")}


def test_the_step_loads_no_figures_no_command_line_and_no_data_formats():
    """But for argparse, which JAX itself loads."""
    by_jax = loaded("import jax, flax.nnx, optax")
    names = loaded("import jaxmlp.training.step") - by_jax
    assert "jaxmlp.training.step" in names
    assert not names & {"argparse", "matplotlib", "tensorflow_datasets", "torch", "pyarrow"}
    assert not {name for name in names if name.startswith("jaxmlp.commands")}


def test_api_command_and_script_leave_the_same_record(tiny_npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = jaxmlp.train(jaxmlp.Experiment(**SMALL), jaxmlp.load_data(str(tiny_npz)))
    result.save("api")
    words = ["--data", str(tiny_npz), *FLAGS]
    script = str(ROOT / "scripts" / "run_jax.py")
    for name, command in (
        ("command", [sys.executable, "-m", "jaxmlp", "run"]),
        ("script", [sys.executable, script]),
    ):
        subprocess.run([*command, *words, "--out", name], check=True, capture_output=True)
    records = {}
    for name in ("api", "command", "script"):
        record = json.loads(Path(name, "result.json").read_text())
        assert record.pop("timings")
        records[name] = record
    assert records["api"] == records["command"] == records["script"]
    for file in ("steps.npz", "params.npz"):
        arrays = [np.load(Path(name, file)) for name in records]
        for key in arrays[0].files:
            assert len({each[key].tobytes() for each in arrays}) == 1, (file, key)
    figures = {name: sorted(path.name for path in Path(name).glob("*.png")) for name in records}
    assert figures["api"] == figures["command"] == figures["script"] != []


def test_the_page_about_the_api_lists_every_verb():
    """That it runs as it stands is held by test_documents.py."""
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^\| `(\w+)\(", page, re.MULTILINE)
    assert sorted([*listed, "Result"]) == jaxmlp.__all__
