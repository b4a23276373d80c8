"""What every test runs under: programs compiled once, one thread a library; and which are slow."""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import hypothesis
import pytest

MAPPED = 20_000  # areas of memory: Linux gives a process 65,530, and each program takes some
FEWER = 10  # times fewer of hypothesis' examples by default than where slow tests run
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")

# One thread for torch and for NumPy, which read this when they are loaded: for products as small as
# the tests' more threads wait for one another, spinning, and take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Whatever compiles a program that some test or its processes compiled before, reads it."""
    if config.option.markexpr == "smoke":
        config.option.markexpr = "smoke and not slow"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.TemporaryDirectory(prefix="jaxmlp-tests-")
        config.add_cleanup(directory.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory.name
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # As in pyproject.toml, for the processes that tests start.
    unreadable = "ignore:Error reading persistent compilation cache:UserWarning"
    os.environ.setdefault("PYTHONWARNINGS", unreadable)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what is slow: rows that `by_default` leaves out, and all of a test's `examples`."""
    few = "not slow" in config.option.markexpr
    whole = not any("::" in argument for argument in config.args)
    for test, rows in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        rows = list(rows)
        if by_default := rows[0].get_closest_marker("by_default"):
            leave_out(test, rows, by_default.args, whole)
        if examples := rows[0].get_closest_marker("examples"):
            count = max(examples.args[0] // FEWER, 1) if few else examples.args[0]
            function = getattr(rows[0], "obj")  # noqa: B009, the same for all rows
            hypothesis.settings(max_examples=count)(function)
            for row in [] if few else rows:
                row.add_marker("slow")


def leave_out(test: str, rows: list[pytest.Item], patterns: Sequence[str], whole: bool) -> None:
    """Marks as slow the rows that no pattern matches.

    Raises:
        UsageError: a pattern matches none, although all rows were collected.
    """
    names = [row.name.partition("[")[2].removesuffix("]") for row in rows]
    for row, name in zip(rows, names, strict=True):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            row.add_marker("slow")
    idle = [pattern for pattern in patterns if not any(fnmatchcase(n, pattern) for n in names)]
    if idle and whole:
        raise pytest.UsageError(f"{test}: by_default names no row of it: {', '.join(idle)}")


@pytest.fixture(scope="module", autouse=True)
def programs_dropped() -> Iterator[None]:
    """After a file of tests, where programs have become many: XLA dies where no area is left."""
    import jax  # not before the environment is set

    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPPED:
        jax.clear_caches()
