"""scripts/on_device.sh: every step's output is kept, and one that fails does not hide."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "on_device.sh"
# Stands for the interpreter: says what it is asked, and fails in the script that FAIL names.
STAND_IN = """#!/bin/sh
if [ "$1" = -c ]; then echo "gpu [CudaDevice(id=0)] 0.10.2"; exit 0; fi
echo "asked: $*"
case $1 in *"${FAIL:-nothing}"*) echo "broken" >&2; exit 3;; esac
"""
STEPS = [
    "device",
    "run",
    "run-tf32",
    "bench",
    "profile",
    "check-sweep",
    "sweep",
    "sweep-unforetold",
    "parity",
]


def on_device(tmp_path: Path, *arguments: str, fail: str = "nothing"):
    python = tmp_path / "stand-in"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "FAIL": fail, "SMALL": "1"}
    return subprocess.run(
        [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def test_every_steps_output_is_kept(tmp_path):
    out = tmp_path / "out"
    done = on_device(tmp_path, str(out), "--data-dir", "DATA")
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in out.glob("*.txt")} == {*STEPS, "summary"}
    for name in STEPS[1:-1]:
        assert " --data-dir DATA " in (out / f"{name}.txt").read_text()
    assert "--precision tf32" in (out / "run-tf32.txt").read_text()
    assert "--batching vmap" in (out / "check-sweep.txt").read_text()
    ended = (out / "summary.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in ended] == STEPS
    assert all(re.search(r"exit status 0, \d+ s$", line) for line in ended)


def test_a_step_that_fails_is_named_and_the_others_run(tmp_path):
    out = tmp_path / "out"
    done = on_device(tmp_path, str(out), fail="bench.py")
    assert done.returncode == 1
    assert done.stderr.startswith("failed: bench;")
    assert (out / "bench.txt").read_text().endswith("broken\n")
    assert "asked: scripts/parity.py" in (out / "parity.txt").read_text()
    assert "bench: exit status 3" in (out / "summary.txt").read_text()


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_directory_it_says_what_it_is(arguments, tmp_path):
    done = on_device(tmp_path, *arguments)
    assert done.returncode == 2
    assert "scripts/on_device.sh DIR" in done.stderr


def test_its_sweeps_are_ones_that_the_command_takes(tmp_path, tiny_npz):
    from jaxmlp.commands import sweep_flags

    out = tmp_path / "out"
    on_device(tmp_path, str(out), "--data", str(tiny_npz))
    for name in ("sweep", "sweep-unforetold"):
        words = (out / f"{name}.txt").read_text().split()[2:]
        _, _, settings = sweep_flags.plan(sweep_flags.parse(words, ""))
        assert len(settings) == 4
