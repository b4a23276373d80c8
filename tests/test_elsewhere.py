"""scripts/elsewhere.py: what becomes of a run is told from its steps, and balanced accuracy."""

import math

import numpy as np
import pytest
from scripts_dir import load

torch = pytest.importorskip("torch")

CLASSES, EXAMPLES = 3, 5


@pytest.fixture(scope="module")
def elsewhere():
    return load("elsewhere")


@pytest.fixture
def batches():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand((2, EXAMPLES, 3, 8, 8), generator=draw)
    labels = torch.randint(CLASSES, (2, EXAMPLES), generator=draw)
    return list(zip(images, labels, strict=True))


class Step:
    def __init__(self, loss: float, dead: float = 0.0) -> None:
        self.loss, self.correct, self.dead = np.array(loss), 0.5, {"relu1": dead}


@pytest.mark.parametrize("name", ["CNN", "ResNet"])
def test_a_small_rate_is_stable_and_a_huge_one_diverges_as_foretold(elsewhere, name, batches):
    small, huge = elsewhere.Setting(1e-5, 1.0, 1.0), elsewhere.Setting(1e6, 1.0, 1.0)
    stable = elsewhere.measure(name, 0, small, batches, CLASSES, steps=4)
    diverging = elsewhere.measure(name, 0, huge, batches, CLASSES, steps=4)
    assert (stable.diverges, diverging.diverges) == (False, True)
    assert stable.by_curvature < 0.5 < diverging.by_curvature
    assert stable.by_rehearsal < 0.5 < diverging.by_rehearsal


def test_init_and_input_scale_reach_the_run(elsewhere, batches):
    ratios = [
        elsewhere.measure("CNN", 0, elsewhere.Setting(0.01, *scales), batches, CLASSES, 1).ratio
        for scales in ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0))
    ]
    assert ratios[0] < ratios[1]
    assert ratios[0] < ratios[2]


@pytest.mark.parametrize(
    ("course", "diverges"),
    [
        ([Step(1.0), Step(2.0)], False),  # just not
        ([Step(1.0), Step(2.1), Step(0.1)], True),
        ([Step(1.0), Step(math.nan)], True),
        ([Step(1.0), Step(1.0, dead=1.0), Step(1.0)], False),  # it recovers
        ([Step(1.0), Step(1.0, dead=0.99)], True),
    ],
)
def test_what_becomes_of_a_run_is_told_from_its_losses_and_its_last_dead_units(
    elsewhere, course, diverges
):
    assert elsewhere.diverges(course) == diverges


def test_settings_are_drawn_over_their_decades_and_stay_when_there_are_more(elsewhere):
    drawn = np.log10(elsewhere.settings(100)) - np.log10((0.02, 1, 1))
    assert (np.abs(drawn) <= (1.5, 1.5, 1)).all()
    assert (np.abs(drawn).max(axis=0) > (1.4, 1.4, 0.9)).all()
    assert elsewhere.settings(3) == elsewhere.settings(100)[:3]


def test_balanced_accuracy_is_the_mean_of_the_recalls(elsewhere):
    truth = np.array([True, True, False, False, False, False])
    said = np.array([True, False, False, False, False, True])
    assert elsewhere.score(said, truth) == "62.5% (1 missed, 1 false alarms)"


def test_where_no_run_diverges_there_is_no_balanced_accuracy(elsewhere):
    said = np.array([True, False])
    assert elsewhere.score(said, np.array([False, False])) == "– (0 missed, 1 false alarms)"
