"""The SkyPilot tasks under cloud/: what can be said of them without a cloud."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxmlp.commands import sweep_flags

ROOT = Path(__file__).parents[1]
TASKS = ("gpu", "tpu", "tpu_pod")
SKYPILOT = """
import sys, sky, yaml
config = yaml.safe_load(open(sys.argv[1]))
task = sky.Task.from_yaml_config(config, env_overrides=[("BUCKET", "jaxmlp-a-law")])
for resources in task.resources:
    print(task.name, task.num_nodes, resources.use_spot, resources.accelerators)
for place, store in task.storage_mounts.items():
    print(place, store.name, store.mode.value, store.persistent)
"""


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cloud" / f"{name}.yaml").read_text())


def command(task: dict[str, Any]) -> list[str]:
    """The words that follow scripts/sweep.py in the task's command."""
    lines = task["run"].replace("\\\n", " ").splitlines()
    (line,) = (line for line in lines if "scripts/sweep.py" in line)
    words = shlex.split(line)
    return words[words.index("scripts/sweep.py") + 1 :]


def understand(words: list[str]) -> list[Any]:
    """The settings that scripts/sweep.py makes of its flags; fails where it would refuse them.

    The one place that knows the command: `parse(words)` and `plan(values)`.
    """
    _, _, settings = sweep_flags.plan(sweep_flags.parse(words, ""))
    return settings


def test_the_tasks_are_those_of_the_directory():
    assert {path.stem for path in (ROOT / "cloud").glob("*.yaml")} == set(TASKS)
    names = [read(task)["name"] for task in TASKS]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name), name


@pytest.mark.parametrize("name", TASKS)
def test_what_is_taken_away_goes_on_from_the_bucket(name):
    task = read(name)
    assert task["resources"]["use_spot"] is True
    ((place, bucket),) = task["file_mounts"].items()
    assert bucket == {"name": "${BUCKET}", "store": "gcs", "mode": "MOUNT"}
    assert task["envs"] == {"BUCKET": None}  # nobody's bucket by default
    words = command(task)
    assert "--resume" in words
    assert "--overwrite" not in words
    assert Path(words[words.index("--out") + 1]).is_relative_to(place)


@pytest.mark.parametrize("name", TASKS)
def test_the_data_are_cifar10_or_the_task_fails(name):
    words = command(read(name))
    assert words[words.index("--data") + 1] == "cifar10"
    assert "data.load('cifar10')" in read(name)["setup"]


@pytest.mark.parametrize(("name", "device"), [("gpu", "cuda"), ("tpu", "tpu"), ("tpu_pod", "tpu")])
def test_the_setup_installs_extras_that_there_are(name, device):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"pip install -e '\.\[(.*)\]'", read(name)["setup"])
    assert extras == device
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_processes_of_a_slice_find_each_other_and_nowhere_else_are_there_any():
    assert {name: "--distributed" in command(read(name)) for name in TASKS} == {
        "gpu": False,
        "tpu": False,
        "tpu_pod": True,
    }


@pytest.mark.parametrize("name", TASKS)
def test_sweep_understands_the_command(name):
    assert len(understand(command(read(name)))) > 1


def test_sweep_understands_no_other_command():
    with pytest.raises(SystemExit):
        understand([*command(read("tpu")), "--resum"])


@pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="needs skypilot[gcp]")
@pytest.mark.parametrize(
    ("name", "kind"), [("gpu", "L4"), ("tpu", "tpu-v6e-8"), ("tpu_pod", "tpu-v6e-32")]
)
def test_skypilot_takes_the_task(name, kind, tmp_path):
    path = ROOT / "cloud" / f"{name}.yaml"
    said = subprocess.run(
        [sys.executable, "-c", SKYPILOT, str(path)],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-2:] == [
        f"{read(name)['name']} 1 True {{'{kind}': 1}}",
        "/results jaxmlp-a-law MOUNT True",
    ]
