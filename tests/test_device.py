"""What is said of the machine, and of where its time goes."""

import os

import pytest
from scripts_dir import load

from jaxmlp.device.mesh import processor
from jaxmlp.experiment import Experiment
from jaxmlp.training.run import Run

CORES = f", {os.cpu_count()} cores"
CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
"""
PROGRAM = """HloModule jit_f
%body {
  %dot.1 = f32[2,3]{1,0} dot(%a, %b), metadata={op_name="jit(f)/transpose(jvp())/dot_general"}
  ROOT %pair.2 = (f32[2]{0}, s32[]) fusion(%a), kind=kLoop, metadata={op_name="jit(f)/reduce"}
}
ENTRY %main {
  %copy.3 = f32[4]{0} copy(%a)
  %while.4 = f32[4]{0} while(%copy.3), condition=%c, body=%body
}
"""


@pytest.fixture
def profile_step():
    return load("profile_step")


def test_a_processor_is_named_with_what_tells_makes_apart(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text(CPUINFO)
    assert processor(told) == "AMD EPYC (family 25, model 17)" + CORES


def test_a_processor_is_named_where_the_system_does_not_tell(tmp_path):
    told = tmp_path / "cpuinfo"
    assert processor(told) != CORES
    told.write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert processor(told) == processor(tmp_path / "missing")


def test_instructions_are_told_by_shape_and_operation_and_loops_not(profile_step):
    told = {name: text.split() for name, text in profile_step.instructions(PROGRAM).items()}
    assert told == {
        "dot.1": ["f32[2,3]", "dot_general", "(gradient)", "dot.1"],
        "pair.2": ["(f32[2],", "s32[])", "reduce", "pair.2"],
        "copy.3": ["f32[4]", "copy.3"],
    }


def test_a_profile_has_both_products_of_the_first_layer(profile_step, tiny_dataset):
    run = Run(Experiment(epochs=3, batch_size=12, hidden=(11,)), tiny_dataset)
    whole, parts = profile_step.recorded_epoch(run)
    made = [part.split()[:-1] for part in parts]
    assert ["f32[12,11]", "dot_general"] in made
    assert any(part[1:] == ["dot_general", "(gradient)"] for part in made)
    assert whole > 0
    assert sum(parts.values()) > 0


def test_a_profiles_table_sums_what_is_small_and_says_what_is_left(profile_step):
    table = profile_step.table(10.0, {"a product": 7.5, "one": 0.012, "another": 0.007})
    first, *lines = table.splitlines()
    assert processor() in first
    assert [line.split(maxsplit=3) for line in lines] == [
        ["7.500", "ms", "75%", "a product"],
        ["0.019", "ms", "0%", "2 smaller parts"],
        ["2.481", "ms", "25%", "between them"],
    ]


def test_a_profiles_table_has_nothing_left_where_parts_ran_at_once(profile_step):
    assert "between" not in profile_step.table(10.0, {"one": 6.0, "another": 6.0})
