"""The suite holds with one thread, too, not jitted, and under the other default of widths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests import environment

ROOT = Path(__file__).parents[1]
WAYS = {
    "one thread, float64 as JAX's default": ("--threads", "1", "--x64"),
    "not jitted": ("--no-jit",),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_levels_hold_in_a_process_set_up_otherwise(way):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    variables = dict(os.environ)
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is compiled here is for other threads
    done = subprocess.run(
        [*command, "parity_tests/test_levels.py", *WAYS[way]],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert ("8 passed, 1 skipped" if way == "not jitted" else "9 passed") in done.stdout


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
