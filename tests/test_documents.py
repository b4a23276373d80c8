"""The README and docs/: every command and every line of Python runs, every link leads somewhere.

A page is one session: its commands run one after the other in an empty directory, each as
documented but for smaller numbers, on a data set of 500 images. A command that stands on several
pages runs on the first.
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from scripts_dir import load

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
SHOWN = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)

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
SMALLER = {  # what follows the words of a script or a command, and so wins over them
    "run_jax": "--data tiny.npz --epochs 2",
    "run_torch": "--data tiny.npz --epochs 2",
    "explain": "--data tiny.npz",
    "certify": "--data tiny.npz --epochs 1",
    "sweep": "--data tiny.npz --epochs 1 --train-size 500",
    "check_sweep": "--data tiny.npz --sample 1",
    "reproduce": "--data tiny.npz --epochs 1 --seeds 1",
    "compile_tpu": "v5e:2x2 --hidden 16 --train-size 1000 --precision bfloat16 --programs run",
    "calibrate": "--data tiny.npz --experiments 10",
    "scaling": "--data tiny.npz --splits 1x2 2x1 --runs 2 --rounds 1 --train-size 500",
    "bench": "--data shaped.npz --rounds 1",
    "profile_step": "--data tiny.npz",
    "build_explorer": "--out explorer.html",
    "python scripts/parity.py": "--quick",
    "python scripts/reproduce.py --cnn --data-dir DIR": "--data tiny.npz --epochs 1 --images 100",
}
SLOW = ("bench", "calibrate", "compile_tpu", "parity", "reproduce", "scaling")
OWN_PROCESS = (
    "bench",  # its end ends the processes that it has started
    "compile_tpu",  # cannot read this process's cache of compiled programs
)
NEEDS = {"compile_tpu": "libtpu", "run_torch": "torch", "parity": "torch", "bench": "torch"}


def shell_lines(page: str) -> Iterator[str]:
    """The commands of a page: whole blocks of sh, and what follows a $ where output is shown."""
    for language, block in SHOWN.findall(PAGES[page]):
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
    return load(script).main


def smaller(command: str) -> list[str]:
    """The words after the script's name, with smaller numbers and without a data directory."""
    words = shlex.split(command.replace(" --data-dir DIR", ""))[2:]
    words = [re.sub(r"^((?:log|lin):[^:]+:[^:]+):\d+$", r"\1:2", word) for word in words]
    words = [re.sub(r"^0\.\.\d+$", "0..1", word) for word in words]
    if "--random" in words:
        words[words.index("--random") + 1] = "2"
    if "--model" in words:  # it brings its own data
        return words
    return words + SMALLER.get(command, SMALLER.get(script_of(command), "")).split()


def status(main: Callable[[list[str]], None], arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run(command: str) -> None:
    """Runs a script's command in this process; fails unless it ends with status 0."""
    script = script_of(command)
    assert script, f"{command!r} is no script's; run it or say in ELSEWHERE why not"
    if script in NEEDS:
        pytest.importorskip(NEEDS[script])
    if script in OWN_PROCESS:
        path = ROOT / "scripts" / f"{script}.py"
        subprocess.run([sys.executable, str(path), *smaller(command)], check=True)
        return
    with mock.patch.dict(os.environ):
        assert status(main_of(script), smaller(command)) == 0, command


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """No user's cache or data; what is compiled once serves every page."""
    root = tmp_path_factory.mktemp("own")
    elsewhere = {
        "JAXMLP_CACHE": str(root / "cache"),
        "TFDS_DATA_DIR": str(root / "no-tfds"),
        "JAXMLP_CIFAR10_URL": "http://127.0.0.1:1/nobody-listens",
    }
    with mock.patch.dict(os.environ, elsewhere):
        yield


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    """An empty working directory, but for 500 images: tiny ones, and of CIFAR-10's shape."""
    draw = np.random.default_rng(0)
    for name, shape in (("tiny", (5, 4, 3)), ("shaped", (32, 32, 3))):
        arrays = {}
        for split, size in (("train", 500), ("test", 50)):
            arrays[f"{split}_images"] = draw.integers(0, 256, (size, *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(size) % 10
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for page in PAGES.values():  # the files that it has its reader write
        for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", page, re.S | re.M):
            (tmp_path / name).write_text(code)
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
    scripts = {*EVERY_COMMAND, *map(script_of, EVERY_COMMAND)}
    assert [command for command in ELSEWHERE if command not in EVERY_COMMAND] == []
    assert [
        script for script in (*SMALLER, *SLOW, *OWN_PROCESS, *NEEDS) if script not in scripts
    ] == []


# ---- words in the text


@cache
def help_of(script: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main_of(script)(["--help"])
    assert not ended.value.code
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_flags_that_the_text_names_with_a_script_are_the_scripts(page):
    for span in re.findall(r"`([^`]+)`", SHOWN.sub("", PAGES[page])):
        named = re.match(r"(?:python )?scripts/(\w+)\.py\b(.*)", span, re.S)
        if not named:
            continue
        assert (ROOT / "scripts" / f"{named[1]}.py").is_file(), span
        for flag in re.findall(r"--[a-z-]+", named[2]):
            assert re.search(rf"{flag}\b", help_of(named[1])), span


def small_python(code: str) -> str:
    """The code with the tiny data and a network to match, where it names neither."""
    code = code.replace("load_data()", "load_data('tiny.npz')")
    return re.sub(r"\bExperiment\((?![^)]*hidden)", "Experiment(hidden=(8,), epochs=1, ", code)


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page]])
def test_the_python_of_a_page_runs(page, directory):
    names: dict[str, object] = {}
    for language, code in SHOWN.findall(PAGES[page]):
        if language == "python":
            exec(compile(small_python(code), page, "exec"), names)


# ---- links


def anchors(page: str) -> list[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", SHOWN.sub("", PAGES[page]), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links(page: str) -> list[str]:
    """The targets of a page's links and images, but for those on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", SHOWN.sub("", PAGES[page]))
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(os.path.relpath(path, ROOT)), link


def test_every_page_and_every_figure_is_linked():
    linked = {
        os.path.normpath(Path(page).parent / link.partition("#")[0])
        for page in PAGES
        for link in links(page)
    }
    pages_and_figures = [
        f"docs/{path.name}" for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".png")
    ]
    assert [path for path in pages_and_figures if path not in linked] == []


# ---- what the pages say of the rest


def test_the_readme_is_of_one_sitting():
    assert len(PAGES["README.md"].splitlines()) <= 180
    assert len(PAGES["README.md"].split()) <= 1600


def test_the_readmes_tree_is_the_house():
    (tree,) = (block for _, block in SHOWN.findall(PAGES["README.md"]) if "jaxmlp/\n" in block)
    named = [line.split(maxsplit=1)[0].rstrip("/") for line in tree.splitlines()]
    inside = [line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")]
    rooms = {
        path.name
        for path in (ROOT / "jaxmlp").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert set(inside) == rooms - {"__main__.py"}
    assert [name for name in named if name not in inside and not (ROOT / name).is_dir()] == []


def test_a_record_and_a_sweep_hold_what_their_pages_say(directory):
    run("python scripts/run_jax.py --out runs/one")
    result = json.loads(Path("runs/one/result.json").read_text())
    sections = PAGES["docs/records.md"].partition("## result.json")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", sections, re.M)) == set(result)
    assert f"Schema {result['schema']}." in sections
    (diagnostics,) = re.findall(r"^\| `diagnostics` .*", sections, re.M)
    assert set(re.findall(r"`(\w+)`", diagnostics)) == {"diagnostics", *result["diagnostics"]}
    (epoch,) = re.findall(r"^\| `epochs` .*", sections, re.M)
    assert set(re.findall(r"`(\w+)`", epoch)) == {"epochs", *result["epochs"][0]}

    run("python scripts/sweep.py --seed 0..1 --out runs/many")
    there = set(pq.read_table("runs/many/runs.parquet").column_names)
    table = PAGES["docs/sweeps.md"].partition("| columns |")[2].partition("\n\n")[0]
    first_cells = "\n".join(row.split("|")[1] for row in table.splitlines()[2:])
    documented = set(re.findall(r"`(\w+)`", first_cells))
    assert documented <= there
    asked = re.compile(r"(canonical_)?(init_scale|learning_rate|weight_decay|decay|dead)_\d+")
    assert {name for name in there - documented if not asked.fullmatch(name)} == set()
