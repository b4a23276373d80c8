"""Random experiments: a fixed few that reach every edge, and faults that only they notice."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from parity_tests import drawing, environment, faults, random_experiments, random_faults
from parity_tests.comparison import require

FAMILY = 0
ALL = [(edge, fault) for edge, planted in random_faults.FAULTS.items() for fault in planted]
pytestmark = pytest.mark.skipif(
    environment.jax_setting("disable_jit"), reason="the commands' runs are always compiled"
)


@pytest.mark.by_default("deep", "linear", "sweep", "commands", "dying", "certificate")
@pytest.mark.parametrize("index", range(len(drawing.EDGES)), ids=list(drawing.EDGES))
def test_both_commands_run_the_same_experiment_whatever_it_is(index):
    (checked,) = random_experiments.family(FAMILY, index, 1)
    require(checked.comparisons)


def test_a_family_and_an_index_are_one_experiment_and_no_other():
    drawn = [drawing.draw(1, index) for index in range(60)]
    assert drawn == [drawing.draw(1, index) for index in range(60)]
    others = [*drawn, *(drawing.draw(2, index) for index in range(60))]
    assert len({one.experiment.sha256 for one in others}) == len(others)


def test_as_many_experiments_as_there_are_edges_reach_every_kind_of_setting():
    few = [drawing.draw(FAMILY, index).experiment for index in range(len(drawing.EDGES))]
    assert {one.optimizer for one in few} == {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"}
    assert {one.preprocessing for one in few} == {"unit", "center", "standardize"}
    assert {kind for one in few for kind in one.schedule} == {
        "constant",
        "cosine",
        "step",
        "exponential",
    }
    assert {1, 2, 3, 4, 5, 6} <= {one.layers for one in few}
    assert {bool(one.bias_learning_rate) for one in few if one.bias} == {True, False}
    assert max(one.seed for one in few) > 2**33


def test_a_run_is_compared_until_a_change_in_the_last_place_grows_or_changes_a_count():
    loss, dead = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    row = {"epoch": np.array(1.0)}

    def course(loss, dead):
        return random_experiments.Course({"loss": loss, "dead": dead}, [row, row], {})

    reference = course(loss, dead)
    assert random_experiments.stable(reference, [course(loss * (1 + 1e-12), dead)]) == (4, 2)
    grown = course(loss * np.array([1, 1, 1, 1 + 2e-10]), dead)
    assert random_experiments.stable(reference, [reference, grown]) == (3, 1)
    counted = course(loss, np.array([0, 1, 1, 1]))
    assert random_experiments.stable(reference, [counted]) == (1, 0)
    blown = course(np.array([1.0, np.nan, np.nan, np.inf]), dead)
    assert random_experiments.stable(blown, [blown]) == (4, 2)
    assert random_experiments.stable(blown, [reference]) == (1, 0)


def test_a_run_of_which_too_little_can_be_compared_is_a_failure():
    course = random_experiments.Course({"loss": np.ones(20)}, [{"epoch": np.array(1.0)}], {})
    found = list(random_experiments.compared("", course, course, 9, 0))
    assert [one.tensor for one in found if not one.passed] == ["steps that can be compared"]
    assert require(random_experiments.compared("", course, course, 10, 0))


@pytest.mark.by_default("*exponential decay a step late*")
@pytest.mark.parametrize(("edge", "fault"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_a_planted_fault_is_noticed_at_its_edge(edge, fault):
    caught = random_faults.caught(edge, fault)
    assert caught.level, f"{fault.name}: not noticed"
    assert caught.margin >= faults.MARGIN, caught.comparison


@pytest.mark.parametrize(("edge", "fault"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_a_fault_can_still_be_planted(edge, fault):
    assert edge in drawing.EDGES
    source = Path(importlib.import_module(fault.module).__file__ or "").read_text()
    assert source.count(fault.old) == 1
    compile(source.replace(fault.old, fault.new), fault.module, "exec")


def parity_command(capsys, tmp_path, *words: str) -> tuple[int, str, str]:
    from parity_tests import command as parity

    with pytest.raises(SystemExit) as exit_:
        parity.main([*words, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


def test_the_command_says_what_it_compared_and_how_to_do_it_again(capsys, tmp_path):
    first = str(list(drawing.EDGES).index("linear"))
    words = ("--random", "1", "--family", "3", "--first", first)
    status, out, _ = parity_command(capsys, tmp_path, *words)
    assert status == 0
    name = drawing.draw(3, int(first)).name
    assert any(line.startswith(name) and line.endswith("pass") for line in out.splitlines())
    assert "1 of 1 experiments pass" in out
    assert f"--random 1 --family 3 --first {first}\n" in out


def test_an_experiment_that_breaks_a_side_is_a_failure_and_the_next_one_follows(
    capsys, tmp_path, monkeypatch
):
    def broken(drawn):
        raise FloatingPointError("no such step")

    monkeypatch.setattr(random_experiments, "check", broken)
    status, out, _ = parity_command(capsys, tmp_path, "--random", "2")
    assert status == 1
    assert out.count("FloatingPointError: no such step") == 2
    assert "0 of 2 experiments pass" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--random", "0"), "--random 0 must be at least 1"),
        (("--family", "1"), "--family 1 needs --random N"),
        (("--random", "1", "--first", "-1"), "--first -1 must be at least 0"),
        (("--random", "1", "seeds"), "--random goes with neither levels"),
    ],
)
def test_random_experiments_that_mean_nothing_are_refused(capsys, tmp_path, words, said):
    status, _, err = parity_command(capsys, tmp_path, *words)
    assert status == 2
    assert said in err
