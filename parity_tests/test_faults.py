"""The suite notices: every fault planted in either side's code is caught, far past its bound."""

import pytest

from parity_tests import faults, levels
from parity_tests.comparison import require


@pytest.mark.slow  # test_levels.py does the same, a level at a time
def test_without_a_fault_the_quick_levels_notice_nothing():
    for level in levels.LEVELS.values():
        require(level(True))


ROWS = [(level, fault) for level, planted in faults.FAULTS.items() for fault in planted]


@pytest.mark.by_default(  # a fault of each level
    "seeds-uniform draws rounded to float32 too early",
    "preprocessing-pixels times the rounded 1/255",
    "exact-half as ReLU's subgradient at 0",
    "forward-products at TF32",
    "schedules-schedule off by one step",
    "optimizers-Adam's epsilon inside the root",
    "trajectories-stale buffer*",
    "runs-bias left out in torch",
)
@pytest.mark.parametrize(("level", "fault"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_a_planted_fault_is_noticed_at_its_level_ten_bounds_away(level, fault):
    caught = faults.notice(fault, {level: levels.LEVELS[level]})
    assert caught.level, f"{fault.name}: not noticed"
    assert caught.margin >= faults.MARGIN, caught.comparison


def test_a_fault_leaves_no_trace():
    fault = faults.FAULTS["seeds"][0]
    assert faults.notice(fault).level == "seeds"
    require(levels.seeds(True))


def test_an_edit_that_no_longer_applies_is_an_error():
    stale = faults.FAULTS["seeds"][0]._replace(old="no such code")
    with pytest.raises(ValueError, match="stands 0 times"), faults.planted(stale):
        pass


def test_a_fault_that_breaks_a_side_altogether_is_told_as_a_crash():
    fault = faults.FAULTS["seeds"][0]._replace(new="undefined * (math")
    caught = faults.notice(fault)
    assert caught.level == "seeds"
    assert faults.past(caught) == "crash"
