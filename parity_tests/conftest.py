"""The suite's options and header; see environment.py."""

import pytest

from parity_tests import environment


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity")
    group.addoption("--threads", type=int, help="of either side (default: all CPUs)")
    group.addoption("--no-jit", action="store_true", help="run JAX without compiling")
    group.addoption("--x64", action="store_true", help="float64 as JAX's default")


def pytest_configure(config: pytest.Config) -> None:
    if threads := config.getoption("--threads"):
        environment.limit_threads(threads)
    if config.getoption("--no-jit") or config.getoption("--x64"):
        import jax

        jax.config.update("jax_disable_jit", config.getoption("--no-jit"))
        jax.config.update("jax_enable_x64", config.getoption("--x64"))


def pytest_report_header() -> list[str]:
    return [f"parity: {name}: {value}" for name, value in environment.describe().items()]


@pytest.fixture(scope="session", autouse=True)
def settled() -> None:
    environment.settle()


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "all"])
def quick(request: pytest.FixtureRequest) -> bool:
    """A few small problems of each kind, enough to notice every planted fault; or all problems."""
    return request.param
