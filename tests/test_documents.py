"""Every command and every line of Python in the README and on docs/'s pages runs; links lead somewhere.

A page is one session: its commands run one after the other in an empty directory, each as documented
but for smaller numbers, on a data set of 500 tiny images. A command that stands on several pages
runs on the first.
"""

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)

INSTALLS = "installs; .ci/run does it"
CHECKS = "looks at the whole checkout; .ci/run does it"
CLOUD = "rents machines; tests/test_cloud.py reads the task"
ELSEWHERE = {  # what cannot run here, and why
    "python3 -m venv .venv": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "pip install -e .": INSTALLS,
    "pip install -e '.[test]'": INSTALLS,
    "pip install -e '.[dev]'": INSTALLS,
    "pytest": "is what runs this",
    "ruff check .": CHECKS,
    "ruff format --check .": CHECKS,
    "pyright": CHECKS,
    "lint-imports": CHECKS,
    "pip install 'skypilot[gcp]>=0.14'": CLOUD,
    "sky check gcp": CLOUD,
    "sky jobs launch cloud/tpu.yaml --env BUCKET=NAME": CLOUD,
    "gcloud storage cp --recursive gs://NAME/plane runs/": CLOUD,
    "python scripts/parity.py --faults": "takes an hour; parity_tests/test_faults.py plants each",
}
SMALLER = {  # what follows the documented words of a script, and so wins over them
    "run_jax": "--data tiny.npz --epochs 2",
    "run_torch": "--data tiny.npz --epochs 2",
    "explain": "--data tiny.npz",
    "certify": "--data tiny.npz --epochs 1",
    "sweep": "--data tiny.npz --epochs 1 --train-size 500",
    "check_sweep": "--data tiny.npz --sample 1",
    "reproduce": "--data tiny.npz --epochs 1 --seeds 1",
    "compile_tpu": "v5e:2x2 --hidden 16 --train-size 1000 --precision bfloat16 --programs run",
    "parity": "--quick",
    "calibrate": "--data tiny.npz --experiments 10",
    "scaling": "--data tiny.npz --runs 2 --rounds 1 --train-size 500",
    "bench": "--data tiny.npz --rounds 1",
}
SLOW = ("bench", "calibrate", "parity", "reproduce", "scaling")
NEEDS = {"compile_tpu": "libtpu", "run_torch": "torch", "parity": "torch", "bench": "torch"}


def shell_lines(page: str) -> Iterator[str]:
    """The commands of a page: whole blocks of sh, and what follows a $ where output is shown."""
    for language, block in FENCED.findall(PAGES[page]):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "sh" and not line.startswith("#"):
                yield line
            elif line.startswith("$ "):
                yield line.removeprefix("$ ")


def commands(page: str) -> list[str]:
    return [command.strip() for line in shell_lines(page) for command in line.split("&&")]


def script_of(command: str) -> str:
    """The script's name without `.py`; empty if it is no script's command."""
    found = re.match(r"python scripts/(\w+)\.py(?= |$)", command)
    return found[1] if found else ""


EVERY_COMMAND = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
FIRST_PAGE = {command: page for page in reversed(PAGES) for command in commands(page)}


def session(page: str) -> list[str]:
    """The quick commands that run on this page."""
    here = (command for command in EVERY_COMMAND if FIRST_PAGE[command] == page)
    return [c for c in here if c not in ELSEWHERE and script_of(c) not in SLOW]


@cache
def main_of(script: str) -> Callable[[list[str]], None]:
    path = ROOT / "scripts" / f"{script}.py"
    spec = importlib.util.spec_from_file_location(f"documented_{script}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def smaller(command: str) -> list[str]:
    """The documented words after the script's name, with smaller numbers and no data's directory."""
    words = shlex.split(command.replace(" --data-dir DIR", ""))[2:]
    words = [re.sub(r"^((?:log|lin):[^:]+:[^:]+):\d+$", r"\1:2", word) for word in words]
    words = [re.sub(r"^0\.\.\d+$", "0..1", word) for word in words]
    if "--random" in words:
        words[words.index("--random") + 1] = "2"
    return words + SMALLER.get(script_of(command), "").split()


def run(command: str) -> None:
    """Runs a script's command in this process; fails unless it ends with status 0."""
    script = script_of(command)
    assert script, f"{command!r} is no script's; run it or say in ELSEWHERE why not"
    if script in NEEDS:
        pytest.importorskip(NEEDS[script])
    with mock.patch.dict(os.environ):
        try:
            main_of(script)(smaller(command))
        except SystemExit as ended:
            assert not ended.code, f"{command!r} ends with status {ended.code}"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """No user's cache or data; what is compiled once serves every page."""
    root = tmp_path_factory.mktemp("own")
    with mock.patch.dict(os.environ, {
        "JAXMLP_CACHE": str(root / "cache"), "TFDS_DATA_DIR": str(root / "no-tfds"),
        "JAXMLP_CIFAR10_URL": "http://127.0.0.1:1/nobody-listens",
    }):  # fmt: skip
        yield


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    """An empty working directory, but for 500 images of 10 classes."""
    draw = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", 500), ("test", 50)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (size, 5, 4, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(size) % 10
    np.savez(tmp_path / "tiny.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if session(page)])
def test_the_commands_of_a_page_run(page, directory):
    for command in session(page):
        run(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in EVERY_COMMAND if script_of(c) in SLOW])
def test_a_slow_command_runs(command, directory):
    if command not in ELSEWHERE:
        run(command)


def test_what_does_not_run_here_and_what_is_made_smaller_stands_on_a_page():
    scripts = {script_of(command) for command in EVERY_COMMAND}
    assert [command for command in ELSEWHERE if command not in EVERY_COMMAND] == []
    assert [script for script in (*SMALLER, *SLOW, *NEEDS) if script not in scripts] == []
