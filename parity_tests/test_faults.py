"""The suite notices: every fault planted in either side's code is caught, far past its bound."""

import jax
import pytest

from parity_tests import faults, levels
from parity_tests.comparison import require


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory):
    """Most programs are the same from fault to fault: compile each once."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0, -1), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


def test_without_a_fault_the_quick_levels_notice_nothing():
    for level in levels.LEVELS.values():
        require(level(True))


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_noticed_ten_bounds_away(fault, record_property):
    caught = faults.notice(fault)
    record_property("level", caught.level)
    assert caught.level, f"{fault.name}: no level noticed it"
    assert caught.margin >= faults.MARGIN, caught.comparison


def test_a_fault_leaves_no_trace():
    fault = faults.FAULTS[0]
    assert faults.notice(fault).level == "seeds"
    require(levels.seeds(True))


def test_an_edit_that_no_longer_applies_is_an_error():
    stale = faults.FAULTS[0]._replace(old="no such code")
    with pytest.raises(ValueError, match="stands 0 times"), faults.planted(stale):
        pass
