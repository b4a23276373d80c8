"""The group of rescalings, from derivatives: exact, or refused."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jaxmlp.experiment import Experiment
from jaxmlp.law.invariants import as_tensors
from jaxmlp.law.monomials import solve, sparse
from jaxmlp.law.symmetry import rescalings, settled
from jaxmlp.law.tensors import INPUT
from jaxmlp.networks.group import find
from torchref.network import TorchNetwork

NAMES = ("input", "a", "b", "c")


def derivatives(*null, seed=0, points=9):
    """A matrix whose nullspace the rows span."""
    basis = np.linalg.svd(np.array(null, float))[2][len(null) :]
    return np.random.default_rng(seed).normal(size=(points, len(basis))) @ basis


@pytest.mark.smoke
def test_the_exponents_are_rationals_in_echelon_form():
    found = rescalings(derivatives([2, 1, 0, -3], [0, 1, 1, 0]), NAMES)
    assert found.generators == (
        {"input": 1, "b": Fraction(-1, 2), "c": Fraction(-3, 2)},
        {"a": 1, "b": 1},
    )
    assert found.gap > 1e12
    assert (found.inert, found.near) == ((), ())


def test_a_network_without_free_scales_has_no_generators():
    found = rescalings(np.random.default_rng(0).normal(size=(9, 4)), NAMES)
    assert found.generators == ()


def test_tensors_of_any_size_are_told_apart():
    sizes = np.array([1e6, 1.0, 1e-5, 1e3])
    found = rescalings(derivatives([1 / 1e6, -1, 0, 0]) * sizes, NAMES)
    assert len(found.generators) == 1


def test_a_tensor_without_effect_is_set_aside_with_its_noise():
    matrix = derivatives([1, -1, 0, 0])
    matrix[:, 2] = 1e-16 * np.random.default_rng(1).normal(size=len(matrix))
    found = rescalings(matrix, NAMES)
    assert found.inert == ("b",)
    assert found.generators == ({"input": 1, "a": -1}, {"b": 1})


def test_a_symmetry_that_is_broken_is_told_but_not_believed():
    matrix = derivatives([1, -1, 0, 0]) + 1e-5 * derivatives([0, 0, 1, 1], seed=1)
    (near,) = rescalings(matrix, NAMES).near
    assert near.exponents == {"input": 1, "a": -1}
    assert 1e-7 < near.strength < 1e-3
    assert rescalings(matrix, NAMES).generators == ()


def test_without_a_clear_gap_nothing_is_said():
    left, _, right = np.linalg.svd(np.random.default_rng(0).normal(size=(9, 4)), False)
    matrix = left @ np.diag([1, 0.5, 3e-9, 3e-10]) @ right
    with pytest.raises(ValueError, match="no clear gap"):
        rescalings(matrix, NAMES)


def test_exponents_that_are_no_small_rationals_are_refused():
    with pytest.raises(ValueError, match="no small rationals"):
        rescalings(derivatives([1, -np.pi, 0, 0]), NAMES)


def test_a_derivative_that_is_not_finite_is_named():
    matrix = derivatives([1, -1, 0, 0])
    matrix[3, 2] = np.nan
    with pytest.raises(ValueError, match="no finite derivative along b"):
        rescalings(matrix, NAMES)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="3 points are too few for 4 tensors"):
        rescalings(derivatives([1, -1, 0, 0], points=3), NAMES)


def test_fewer_points_than_tensors_are_enough_if_they_leave_much_free():
    matrix = derivatives([1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1], points=3)
    assert not settled(matrix[:1], spare=1)
    assert settled(matrix[:2], spare=1)
    assert len(rescalings(matrix, NAMES).generators) == 3
    assert rescalings(matrix, NAMES).gap > 1e12


def test_points_that_still_add_something_are_not_enough():
    matrix = np.random.default_rng(0).normal(size=(9, 4))
    assert [settled(matrix[:points], spare=2) for points in range(3, 8)] == [False] * 3 + [True] * 2


def random_mlp(seed):
    """An experiment of random depth, widths and biases, and the same as a torch module."""
    draw = np.random.default_rng(seed)
    hidden = tuple(int(width) for width in draw.integers(2, 7, size=draw.integers(1, 5)))
    bias, widths, layers = bool(draw.integers(2)), (5, *hidden, 3), []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    batch = torch.rand(12, 5), torch.from_numpy(draw.integers(3, size=12))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Experiment(hidden=hidden, bias=bias), TorchNetwork(model, optimizer, [batch])


def as_in_torch(row):
    """A row of the closed form, with torch's names for tensors."""
    names = {"kernel": "weight", "bias": "bias"}
    return {
        key if key == INPUT else f"{2 * key.layer}.{names[key.kind]}": exponent
        for key, exponent in row.items()
    }


def span(rows, names):
    """The reduced echelon form of rational rows."""
    _, null = solve([([row.get(n, Fraction(0)) for n in names], {}) for row in rows], len(names))
    return null


def test_of_a_hundred_random_mlps_the_found_group_is_the_closed_form():
    for seed in range(100):
        experiment, network = random_mlp(seed)
        closed = [as_in_torch(row) for row in as_tensors(experiment).generators]
        found = find(network).joint.generators
        assert len(found) == experiment.layers
        assert span(found, [*network.tensors]) == span(closed, [*network.tensors])


def test_a_sparse_basis_spans_the_same_with_fewer_tensors():
    rows = [
        {"input": Fraction(1), "c": Fraction(-1)},
        {"a": Fraction(1), "c": Fraction(-1)},
        {"b": Fraction(1), "c": Fraction(-1)},
    ]
    short = sparse(rows, NAMES)
    assert short == [{"input": 1, "a": -1}, {"a": 1, "b": -1}, {"b": 1, "c": -1}]
    assert span(short, NAMES) == span(rows, NAMES)


class Liar:
    """A network whose derivatives promise that `a` moves against `b`, which its losses deny."""

    def __init__(self):
        self.tensors, self.statistics = dict.fromkeys("abc", (1,)), {}

    def derivatives(self, point, training):
        slope, other = np.random.default_rng(point).normal(size=2)
        return {"a": slope, "b": slope, "c": other}

    def loss(self, point, factors, training):
        return 1.0 + point * factors.get("a", 1.0)


def test_what_the_derivatives_promise_and_the_losses_deny_is_refused():
    liar: Any = Liar()
    with pytest.raises(ValueError, match="the derivatives promise that a\\^1, b\\^-1 leaves"):
        find(liar)
