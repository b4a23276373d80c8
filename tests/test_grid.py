"""What a sweep asks for: words to values, values to experiments."""

import itertools

import pytest

from jaxmlp import grid
from jaxmlp.experiment import Experiment
from jaxmlp.grid import axis

BASE = Experiment(epochs=2)


def rate(experiment: Experiment) -> tuple[float, ...]:
    assert experiment.learning_rate
    return experiment.learning_rate


def rates(words: list[str], **options) -> list[tuple[float, ...]]:
    found = grid.experiments(BASE, [axis("learning-rate", words)], **options)
    return [rate(experiment) for experiment in found]


def test_words_are_values_ranges_and_one_per_layer():
    assert rates(["0.1", "0.2,0.3"]) == [(0.1,), (0.2, 0.3)]
    assert rates(["log:1e-4:1:5"]) == [(1e-4,), (1e-3,), (1e-2,), (0.1,), (1.0,)]
    assert rates(["lin:1:3:3", "7"]) == [(1.0,), (2.0,), (3.0,), (7.0,)]
    assert rates(["lin:1:3:1"]) == [(1.0,)]
    assert grid.seeds(["0..3", "7"]) == [0, 1, 2, 3, 7]


def test_a_grid_has_every_combination_the_last_axis_fastest():
    axes = [axis("input-scale", ["1", "255"]), axis("learning-rate", ["0.1", "0.2", "0.3"])]
    found = grid.experiments(BASE, axes)
    expected = itertools.product((1.0, 255.0), (0.1, 0.2, 0.3))
    assert [(e.input_scale, *rate(e)) for e in found] == list(expected)
    assert all(experiment.epochs == 2 for experiment in found)


def test_one_layer_has_an_axis_of_its_own_whatever_the_order():
    axes = [axis("learning-rate.2", ["5", "6"]), axis("learning-rate", ["0.1"])]
    assert [e.learning_rate for e in grid.experiments(BASE, axes)] == [(0.1, 5.0), (0.1, 6.0)]


def test_biases_stay_where_they_were_put():
    base = Experiment(bias=True)
    for words in (
        ["bias-learning-rate", "learning-rate.1"],
        ["learning-rate.1", "bias-learning-rate"],
    ):
        values = {"bias-learning-rate": ["0.02"], "learning-rate.1": ["0.5"]}
        (found,) = grid.experiments(base, [axis(name, values[name]) for name in words])
        assert found.per_layer("learning_rate") == (0.5, 0.02)
        assert found.per_layer("bias_learning_rate") == (0.02, 0.02)


def test_zip_puts_values_side_by_side():
    axes = [
        axis("input-scale", ["1", "255"]),
        axis("learning-rate", ["0.1", "0.2"]),
        axis("weight-decay", ["0"]),
    ]
    found = grid.experiments(BASE, axes, way="zip")
    assert [(e.input_scale, *rate(e), *e.weight_decay) for e in found] == [
        (1.0, 0.1, 0.0),
        (255.0, 0.2, 0.0),
    ]


def test_nothing_swept_is_one_run():
    for way in ("grid", "zip"):
        assert grid.experiments(BASE, [], way=way) == [BASE]


def test_draws_are_within_their_range_and_the_same_for_a_seed():
    axes = [axis("learning-rate", ["log:1e-4:1"]), axis("init-scale", ["1", "2"])]
    found = grid.experiments(BASE, axes, way="random", count=200, draw=3)
    assert found == grid.experiments(BASE, axes, way="random", count=200, draw=3)
    assert found != grid.experiments(BASE, axes, way="random", count=200, draw=4)
    values = [rate(experiment)[0] for experiment in found]
    assert min(values) >= 1e-4
    assert max(values) <= 1
    assert 70 < sum(value < 1e-2 for value in values) < 130  # even in the logarithm
    assert {experiment.init_scale for experiment in found} == {(1.0,), (2.0,)}


BAD = [
    (lambda: rates(["x"]), "--learning-rate x: this is no value"),
    (lambda: rates(["1e-400"]), "--learning-rate 1e-400: this is no value"),
    (lambda: rates(["0.1,1e-400"]), "--learning-rate 0.1,1e-400: this is no value"),
    (lambda: rates(["0.1,0.1,0.1"]), "learning_rate has 3 values; the network has 2 layers"),
    (lambda: rates(["-1"]), "learning_rate -1.0 must be 0 or a positive number"),
    (lambda: rates(["nan"]), "learning_rate nan must be"),
    (lambda: rates(["1,2,3"]), "learning_rate has 3 values; the network has 2 layers"),
    (lambda: rates(["log:0:2:3"]), "--learning-rate log:0:2:3: this is no value"),
    (lambda: rates(["log:3:2:3"]), "this is no value"),
    (lambda: rates(["log:1:2:0"]), "this is no value"),
    (lambda: rates(["log:1:2:3:4"]), "this is no value"),
    (lambda: rates(["log:1:inf:3"]), "this is no value"),
    (lambda: rates(["log:1"]), "this is no value"),
    (lambda: rates(["log:1:2:"]), "this is no value"),
    (lambda: rates(["1..3"]), "this is no value"),
    (lambda: rates(["log:1:2"]), "log:1:2: say how many, log:1:2:N"),
    (lambda: rates(["log:1:2:3"], way="random", count=2), "with --random give one log:LOW:HIGH"),
    (lambda: rates(["log:1:2:1000000", "1"]), "1,000,001 runs are more than 1,000,000"),
    (lambda: axis("learning-rate", []), "--learning-rate has no value"),
    (lambda: axis("input-scale.1", ["1"]), "input_scale is not per layer"),
    (lambda: grid.seeds(["1", "0..2"]), "--seed 1 comes twice"),
    (lambda: grid.seeds(["-1"]), "seed -1 must lie in"),
    (lambda: grid.seeds(["0.5"]), "--seed 0.5: this is no value; give whole numbers"),
    (lambda: grid.seeds(["1..99999999999"]), "99,999,999,998 runs are more than"),
    (lambda: grid.seeds(["log:1:9:3"]), "--seed log:1:9:3: this is no value"),
    (
        lambda: grid.experiments(BASE, [axis("learning-rate.3", ["1"])]),
        "--learning-rate.3: the network has layers 1 to 2",
    ),
    (lambda: grid.experiments(BASE, [axis("eps.1", ["1"])]), "--eps.1 does not apply to"),
    (
        lambda: grid.experiments(
            BASE,
            [axis("init-scale", ["1", "2"]), axis("learning-rate", ["1", "2", "3"])],
            way="zip",
        ),
        "--init-scale has 2 values beside 3 of another",
    ),
]


@pytest.mark.parametrize(("ask", "words"), BAD)
def test_what_is_no_sweep_is_refused_in_a_line(ask, words):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        ask()
    assert words in str(refused.value)


TWICE = [
    (lambda: rates(["0.1", ".1"]), "--learning-rate 0.1 comes twice; give every value once"),
    (lambda: rates(["1e-1", "0.1,0.1"]), "--learning-rate 0.1 comes twice"),
    (lambda: rates(["0.1,0.2", "1e-1,2e-1"]), "--learning-rate 0.1,0.2 comes twice"),
    (lambda: rates(["1", "log:0.01:1:3"]), "--learning-rate 1 comes twice"),
    (lambda: rates(["0.1", "0.1"], way="zip"), "--learning-rate 0.1 comes twice"),
    (lambda: rates(["0.1", ".1"], way="random", count=1), "--learning-rate 0.1 comes twice"),
    (
        lambda: grid.experiments(
            BASE, [axis("learning-rate", ["1", "1"]), axis("init-scale", ["2", "2.0"])], way="zip"
        ),
        "--learning-rate 1 --init-scale 2 comes twice; give every setting once",
    ),
    (
        lambda: grid.experiments(
            BASE,
            [
                axis("learning-rate", ["1", "2"]),
                axis("learning-rate.1", ["3"]),
                axis("learning-rate.2", ["4"]),
            ],
        ),
        "--learning-rate 2 --learning-rate.1 3 --learning-rate.2 4 comes twice",
    ),
    (
        lambda: grid.experiments(Experiment(bias=True), [axis("bias-learning-rate", ["1", "1,1"])]),
        "--bias-learning-rate 1 comes twice",
    ),
    (lambda: grid.seeds(["1", "01"]), "--seed 1 comes twice; give every value once"),
    (
        lambda: rates(["1", "2"], way="random", count=3),
        "--random 3: only 2 different settings are found; draw fewer, or give wider ranges",
    ),
]


@pytest.mark.parametrize(("ask", "words"), TWICE)
def test_no_setting_is_trained_twice(ask, words):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        ask()
    assert words in str(refused.value)


def test_zipped_values_may_come_again_beside_others():
    axes = [axis("learning-rate", ["1", "1", "2"]), axis("init-scale", ["1", "2", "2"])]
    assert len(grid.experiments(BASE, axes, way="zip")) == 3


def test_a_draw_that_repeats_another_is_drawn_again():
    words = [str(number) for number in range(1, 10)]
    found = rates(words, way="random", count=9)
    assert sorted(found) == [(float(word),) for word in words]
    assert found == rates(words, way="random", count=9)
