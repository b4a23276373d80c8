"""The programs, compiled for TPUs that are not there. Needs libtpu: the extra `tpu`."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmlp.commands import compile_tpu
from jaxmlp.experiment import Experiment
from jaxmlp.sweeps import tpu

SCRIPT = Path(__file__).parent.parent / "scripts" / "compile_tpu.py"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the extra tpu)"
)
SMALL = ("--hidden", "16", "--train-size", "1000", "--precision", "bfloat16")
TEXT = """HloModule x
%condition.1 (p: s32[]) -> pred[] {
  %c = s32[]{:T(128)} constant(200)
}
%inner (p: s32[]) -> pred[] {
  %c = s32[] constant(3)
}
%inner_body (p: s32[]) -> s32[] {
  %f = f32[] fusion(%p), backend_config={"estimated_cycles":"7"}
}
%body.1 (p: s32[]) -> s32[] {
  %g = f32[8] all-reduce(%p), backend_config={"estimated_cycles":"100"}
  %h = f32[8] all-gather-start(%p), backend_config={"estimated_cycles":"20"}
  %w = (s32[]) while(%p), condition=%inner, body=%inner_body
}
ENTRY %main (p: s32[]) -> s32[] {
  %w = (s32[]) while(%p), condition=%condition.1, body=%body.1
  %f = f32[] fusion(%p), backend_config={"estimated_cycles":"5"}
}
"""


def test_loops_count_as_often_as_they_run():
    found = tpu.parts(TEXT)
    assert found == [(1, 5, 0), (200, 120, 2), (600, 7, 0)]
    with pytest.raises(ValueError, match="does not say how often"):
        tpu.parts(TEXT.replace("constant(200)", "parameter(0)"))


def test_work_is_that_of_the_products_and_of_the_state():
    shape = tpu.Shape(train=1000, test=100, features=30, classes=5)
    gflop, gigabytes = tpu.work(Experiment(hidden=(20,), batch_size=250), shape, 3, 1)
    first, second = 2 * 30 * 20, 2 * 20 * 5
    products = 1000 * (2 * first + 3 * second) + 100 * (first + second)
    assert gflop == pytest.approx(3 * products / 1e9)
    weights = 4 * (30 * 20 + 20 * 5)
    assert gigabytes == pytest.approx((3 * 4 * 4 * weights + 30 * 1100) / 1e9)


def test_a_batch_is_shared_by_as_many_as_can():
    experiment, share = tpu.shared(Experiment(), 50_000, 64)
    assert (experiment.batch_size, share) == (400, 16)  # 50,000 is 2⁴·5⁵
    assert tpu.shared(Experiment(), 50_000, 4)[0].batch_size == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["v9z:2x2"], "v9z:2x2: known are v4, v5e, v5p, v6e"),
        (["v5e:2x2", "--runs-per-device", "0"], "--runs-per-device 0 must be at least 1"),
        (["v5e:2x2", "--batch-size", "7"], "batch size 7 does not divide 50000"),
        (["v5e:2x2", "--programs", "both"], "invalid choice"),
    ],
)
def test_bad_flags_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        compile_tpu.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def fresh(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.slow
@needs_libtpu
def test_the_three_programs_compile_for_a_topology():
    said = fresh("v5e:2x2", *SMALL, "--json")
    assert said.returncode == 0, said.stderr
    run, shared, sweep = json.loads(said.stdout)
    assert [row["program"] for row in (run, shared, sweep)] == list(tpu.PROGRAMS)
    assert (run["chips"], shared["chips"], sweep["chips"]) == (1, 4, 4)
    assert run["collectives_per_step"] == sweep["collectives_per_step"] == 0
    assert shared["collectives_per_step"] >= 1  # the gradients' sum over the chips
    assert sweep["gflop"] == pytest.approx(16 * run["gflop"])
    assert run["memory_bytes"] < sweep["memory_bytes"] < 16e9
    for row in (run, shared, sweep):
        assert 0 < row["roofline_milliseconds"] <= row["milliseconds"] * 1.001
        assert row["dollars_per_1000_runs"] == pytest.approx(
            row["seconds_per_1000_runs"] / 3600 * row["chips"] * 1.2
        )


@needs_libtpu
def test_a_topology_that_is_none_is_one_line():
    said = fresh("v5e:3x3x3", *SMALL)
    assert said.returncode == 2
    assert re.fullmatch(r"error: v5e:3x3x3 is no topology .*\n", said.stderr)


@pytest.mark.slow
@needs_libtpu
def test_pixels_keep_both_products_on_tpu():
    """ToTensor's division: the compiler must not fold pixel·high + pixel·low into one product."""
    code = """
from jaxmlp.sweeps import tpu
from jaxmlp.experiment import Experiment
_, there = tpu.topology("v5e:2x2")
shape = tpu.Shape(train=1000, test=1000)
experiment = Experiment(hidden=(16,), precision="bfloat16")
print(tpu.compiled("run", experiment, shape, there, 1, 1).as_text())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    pixels = [
        body
        for body in re.split(r"\n\}", said.stdout)
        if re.search(r"= f32\[(?:1,)?(?:250|500),3072\]\S* convert\(", body)
    ]
    assert len(pixels) >= 2  # training and evaluation
    for body in pixels:
        kinds = re.findall(
            r"= f32\[(?:1,)?(?:250|500),3072\]\S* (multiply|add|reduce-precision)\(", body
        )
        assert kinds.count("multiply") >= 2
        assert kinds.count("add") >= 1
