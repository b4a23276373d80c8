"""What is said of the machine."""

from jaxmlp.device.mesh import processor

CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
"""


def test_a_processor_is_named_with_what_tells_makes_apart(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text(CPUINFO)
    assert processor(told) == "AMD EPYC (family 25, model 17)"


def test_a_processor_is_named_where_the_system_does_not_tell(tmp_path):
    told = tmp_path / "cpuinfo"
    assert processor(told)
    told.write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert processor(told) == processor(tmp_path / "missing")
