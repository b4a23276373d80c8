"""The faults of ports: each can be planted; ports/planted.py runs them."""

import functools
import importlib

import pytest
from torch import nn

from parity_tests import pairs
from parity_tests.port_faults import FAULTS, Fault, planted

ROWS = [pytest.param(fault, id=fault.name.replace(" ", "-")) for fault in FAULTS]


def test_there_are_forty_that_no_layout_explains():
    assert len([fault for fault in FAULTS if not fault.layout]) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.pair for fault in FAULTS} == set(pairs.SMALL)


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_alters_its_file(fault: Fault):
    source = planted(fault)
    compile(source, fault.name, "exec")
    assert source != pairs.path(fault.pair, fault.side).read_text()
    assert fault.source.startswith("https://")


@functools.cache
def units(pair: str) -> set[str]:
    """Names of the layers that have weights of their own."""
    model: nn.Module = importlib.import_module(f"parity_tests.pairs.{pair}_torch").setup()[0]
    return {name for name, each in model.named_modules() if list(each.parameters(recurse=False))}


@pytest.mark.parametrize("fault", ROWS)
def test_the_guilty_is_a_layer_of_the_original(fault: Fault):
    named = fault.guilty.removeprefix("between ").removeprefix("statistics of ").split(" and ")
    assert named in (["optimizer"], ["loss"]) or set(named) <= units(fault.pair)


def test_a_fault_whose_text_is_gone_is_refused():
    with pytest.raises(ValueError, match="stands 0 times in cnn"):
        planted(FAULTS[0]._replace(old="no such text"))
