"""The pairs of models: each side stands alone, both draw the same batches, and each trains."""

import ast
import importlib
from typing import Any

import numpy as np
import pytest

from jaxmlp.networks import adapt
from parity_tests import pairs

FOREIGN = {
    "torch": {"jax", "flax", "optax", "jaxmlp"},
    "flax": {"torch", "torchvision", "torchref"},
}
SLOW = pytest.mark.slow
SOME = [pair if pair in ("cnn", "lstm") else pytest.param(pair, marks=SLOW) for pair in pairs.PAIRS]


def setup(pair: str, side: str, seed: int = 0) -> Any:
    return importlib.import_module(f"parity_tests.pairs.{pair}_{side}").setup(seed)


@pytest.mark.parametrize("side", FOREIGN)
@pytest.mark.parametrize("pair", pairs.PAIRS)
def test_neither_side_imports_the_other(pair: str, side: str):
    tree, names = ast.parse(pairs.path(pair, side).read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert "numpy" in names
    assert not names & {*FOREIGN[side], "parity_tests"}


@pytest.mark.parametrize("pair", SOME)
def test_both_sides_draw_the_same_batches(pair: str):
    theirs, ours = setup(pair, "torch", 7)[2], setup(pair, "flax", 7)[2]
    for (x, y), (ours_x, ours_y) in zip(theirs, ours, strict=True):
        images = x.ndim == 4
        np.testing.assert_array_equal(x.permute(0, 2, 3, 1) if images else x, ours_x, strict=True)
        np.testing.assert_array_equal(y, ours_y, strict=True)


@pytest.mark.parametrize("side", FOREIGN)
@pytest.mark.parametrize("pair", ["cnn", "lstm"])
def test_each_side_trains(pair: str, side: str):
    network = adapt.network(*setup(pair, side))
    run = network.start({}, network.settings)
    before = run.tensors()
    before = {name: np.array(before[name]) for name in network.settings}
    assert np.isfinite(run.step().loss)
    after = run.tensors()
    assert all((before[name] != after[name]).any() for name in before)
