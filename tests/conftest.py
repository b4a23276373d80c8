"""Shared by the tests: the tiny data set, a cache of its own, the JAX command."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scripts_dir import SCRIPTS, load
from tiny import arrays

# In the background of a plain shell, pytest and the commands that tests start would ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SCRIPT = SCRIPTS / "run_jax.py"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test downloads, or uses the user's cache, data directory or compiled programs."""
    root = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("JAXMLP_CACHE", str(root / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(root / "no-tfds"))
    monkeypatch.setenv("JAXMLP_CIFAR10_URL", "http://127.0.0.1:1/nobody-listens")


@pytest.fixture
def tiny_npz(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays())
    return path


@pytest.fixture
def tiny_dataset(tiny_npz: Path):
    from jaxmlp.data.loading import load_data

    return load_data(str(tiny_npz))


@pytest.fixture(scope="session")
def script():
    return load("run_jax")


@pytest.fixture
def command(script, tmp_path, monkeypatch, capsys, tiny_npz):
    """Runs the command in its own working directory; gives status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, data: str | None = "tiny.npz"):
        status = 0
        try:
            script.main([*(["--data", data] if data else []), *map(str, arguments)])
        except SystemExit as exit_:
            status = exit_.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def start(script, tmp_path, tiny_npz) -> Callable[..., subprocess.Popen]:
    """The command as a process of its own; given once an epoch of this number has finished."""

    def run(*arguments: str, epoch: int = 1) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-u", script.__file__, "--data", "tiny.npz", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch") and int(line.split()[1].split("/")[0]) >= epoch:
                return process
        raise AssertionError(process.communicate())

    return run
