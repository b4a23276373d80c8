"""What is said of the machine, and of where its time goes."""

import os

import pytest
from scripts_dir import load

from jaxmlp.device.mesh import processor

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


def test_a_profile_names_both_products_of_the_first_layer(profile_step, tiny_npz, capsys):
    profile_step.main(["--data", str(tiny_npz), "--batch-size", "12", "--hidden", "11"])
    first, *parts = capsys.readouterr().out.splitlines()
    assert processor() in first
    made = [line.split()[3:-1] for line in parts if "dot_general" in line]
    assert ["f32[12,11]", "dot_general"] in made
    assert any(what[1:] == ["dot_general", "(gradient)"] for what in made)
