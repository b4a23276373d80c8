"""What every test runs under: programs that are compiled once, threads that sleep, what is slow."""

import os
import tempfile

import pytest

# torch's threads sleep while they wait: spinning, they cost many times what small networks take.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_configure(config: pytest.Config) -> None:
    """Whatever compiles a program that some test or its processes compiled before, reads it."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.TemporaryDirectory(prefix="jaxmlp-tests-")
        config.add_cleanup(directory.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test marked `by_default("a", "b")` the other rows are slow."""
    missing: dict[str, set[str]] = {}
    for item in items:
        if chosen := item.get_closest_marker("by_default"):
            row = item.name.partition("[")[2].removesuffix("]")
            missing.setdefault(item.nodeid.partition("[")[0], set(chosen.args)).discard(row)
            if row not in chosen.args:
                item.add_marker("slow")
    whole = not any("::" in argument for argument in config.args)
    for test, rows in missing.items():
        if rows and whole:
            raise pytest.UsageError(f"{test}: by_default names no such row: {sorted(rows)}")
