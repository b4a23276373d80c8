"""The suite holds with one thread and two, jitted and not, and under both float widths."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity_tests import environment

ROOT = Path(__file__).parents[1]
WAYS = {
    "one thread": ("--threads", "1"),
    "two threads, float64 as JAX's default": ("--threads", "2", "--x64"),
    "not jitted": ("--no-jit",),
}


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, subprocess.Popen]]:
    """The quick levels, each way in a process of its own, all at once."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--quick"]
    started = {
        way: subprocess.Popen(
            [*command, "parity_tests/test_levels.py", *options],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for way, options in WAYS.items()
    }  # fmt: skip
    yield started
    for process in started.values():
        with process:
            process.kill()


@pytest.mark.parametrize("way", WAYS)
def test_the_levels_hold_in_a_process_set_up_otherwise(way, processes):
    assert processes[way].stdout is not None
    said = processes[way].stdout.read()
    assert processes[way].wait() == 0, said[-3000:]
    assert ("8 passed, 1 skipped" if way == "not jitted" else "9 passed") in said


def test_the_header_says_what_both_sides_compute_with():
    said = environment.describe()
    assert set(said) == {"versions", "machine", "jax", "torch", "XLA_FLAGS"}
    assert "products highest" in said["jax"]
    assert "products highest" in said["torch"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NVIDIA_TF32_OVERRIDE", "1"), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")],
)
def test_looser_products_from_outside_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=name):
        environment.settle()
    assert name in os.environ
