"""Users' networks: the group of every architecture in both frameworks, proved by bits."""

import functools
from fractions import Fraction
from typing import Any

import architectures
import numpy as np
import pytest
import torch

from jaxmlp.law.surd import surd
from jaxmlp.law.tensors import raised
from jaxmlp.networks.certificate import certify, compare, exact
from jaxmlp.networks.flax_network import FlaxNetwork
from jaxmlp.networks.group import CHECKS, ROUNDING, find, powers_of_two
from jaxmlp.networks.optimizer import Optimizer
from jaxmlp.networks.protocol import INPUT
from jaxmlp.networks.run import along, as_tensors
from torchref.network import TorchNetwork
from torchref.train import Lion

NAMES = tuple(architectures.ALL)
FREE = {  # how many scales are free, by hand
    "MLP": 3,
    "MLPWithoutBias": 3,
    "MLPWithGELU": 1,
    "MLPWithLeakyReLU": 3,
    "MLPWithPReLU": 3,
    "TanhOfInputs": 2,
    "CNN": 3,
    "CNNWithSkips": 3,  # the stem ties both residual branches to it
    "LSTM": 1,
    "GRU": 2,  # the input against both gates; the state against what reads it
}
TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, weight_decay=1e-3, momentum=0.5),
    "lion": lambda p: Lion(p, 1e-3, (0.9, 0.99), 1e-2),
}
FLAX = {
    "sgd": lambda: Optimizer("sgd", 0.05, 1e-3, momentum=0.9),
    "adamw": lambda: Optimizer("adamw", 1e-3, 1e-2),
    "rmsprop": lambda: Optimizer("rmsprop", 1e-3, 1e-3, momentum=0.5),
    "adagrad": lambda: Optimizer("adagrad", 1e-2, 1e-3),
}
STEPS = 30


@functools.cache
def in_torch(name, optimizer="sgd"):
    model, batches = architectures.in_torch(name)
    return TorchNetwork(model, TORCH[optimizer](model.parameters()), batches)


@functools.cache
def in_flax(name, optimizer="sgd"):
    model, batches = architectures.in_flax(name)
    return FlaxNetwork(model, FLAX[optimizer](), batches)


def as_torch(row):
    return {architectures.as_torch(name): exponent for name, exponent in row.items()}


quick = pytest.mark.by_default("CNN", "ResNet", "LanguageModel")
every_architecture = pytest.mark.parametrize("name", NAMES)


@every_architecture
def test_both_frameworks_make_the_same_of_the_same_weights(name):
    model, batches = architectures.in_torch(name)
    other, others = architectures.in_flax(name)
    architectures.copy_weights(model, other)
    (inputs, _), (images, _) = batches[0], others[0]
    ours, theirs = np.asarray(other(images)), model(inputs).detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@every_architecture
@quick
def test_both_frameworks_have_the_same_group(name):
    first, second = find(in_torch(name)), find(in_flax(name))
    assert {*map(architectures.as_torch, in_flax(name).tensors)} == {*in_torch(name).tensors}
    for ours, theirs in ((first.training, second.training), (first.joint, second.joint)):
        assert [as_torch(row) for row in theirs.generators] == list(ours.generators)
        assert {*map(architectures.as_torch, theirs.inert)} == {*ours.inert}
        assert min(ours.gap, theirs.gap) > 1e10
    if name in FREE:
        assert len(first.training.generators) == FREE[name]


def outside(group, names, count):
    """Random small whole exponents that no rescaling of the group has."""
    draw = np.random.default_rng(0)
    matrix: list[Any] = [[float(row.get(name, 0)) for name in names] for row in group.generators]
    rank = np.linalg.matrix_rank(matrix) if matrix else 0
    vectors = []
    while len(vectors) < count:
        vector = draw.integers(-2, 3, size=len(names))
        if np.linalg.matrix_rank([*matrix, vector]) > rank:
            vectors.append(dict(zip(names, map(Fraction, vector.tolist()), strict=True)))
    return vectors


def changes_a_loss(network, row):
    factors, points = powers_of_two(row), range(500, 500 + CHECKS)
    before = [network.loss(point, {}, True) for point in points]
    after = [network.loss(point, factors, True) for point in points]
    return any(abs(b - a) > ROUNDING * abs(a) for a, b in zip(before, after, strict=True))


@every_architecture
@pytest.mark.parametrize("build", [in_torch, pytest.param(in_flax, marks=pytest.mark.slow)])
def test_no_freedom_is_false_and_none_is_missed(name, build):
    network = build(name)
    group, names = find(network).training, [*network.tensors]
    for row in group.generators:
        assert not changes_a_loss(network, row)
        altered = next(reversed(row))  # of an inert tensor any exponent is right
        if altered not in group.inert:
            assert changes_a_loss(network, {**row, altered: row[altered] + 1})
    for row in outside(group, names, 50):
        assert changes_a_loss(network, row)


def certificates(network):
    """Of inputs × 256 and of powers of two along every other generator, but for rounded ones."""
    group = find(network)
    run = as_tensors(network, group.exact)
    for row in group.exact:
        if row in group.rounded:  # an inert tensor: what it is added to rounds with it
            assert {*row} & {*group.joint.inert}
            continue
        factors = powers_of_two(row)
        base = 256 if INPUT in row else 2
        whole = Fraction(surd(factors[next(iter(row))]).logarithm() / np.log(2)).limit_denominator()
        scale = whole / next(iter(row.values())) if INPUT not in row else ONE
        change = along(network, run, {n: e * scale for n, e in row.items()}, base)
        assert exact(change)
        yield row, compare(network, change, STEPS)


ONE = Fraction(1)


@every_architecture
@pytest.mark.parametrize("optimizer", TORCH)
@pytest.mark.by_default("sgd-MLP", "adamw-CNN", "sgd-ResNet", "rmsprop-Transformer", "lion-GRU")
def test_in_torch_a_transported_run_is_the_same_run_in_every_bit(name, optimizer):
    for row, made in certificates(in_torch(name, optimizer)):
        assert made.identical, (row, str(made))
        if INPUT in row:
            assert made.untransported_step == 1


@every_architecture
@pytest.mark.parametrize("optimizer", FLAX)
@pytest.mark.by_default("adamw-CNN", "sgd-ResNet")
def test_in_flax_a_transported_run_is_the_same_run_in_every_bit(name, optimizer):
    for row, made in certificates(in_flax(name, optimizer)):
        assert made.identical, (row, str(made))
        if INPUT in row:
            assert made.untransported_step == 1


@pytest.mark.parametrize("build", [in_torch, in_flax])
def test_at_255_the_runs_agree_to_rounding(build):
    made = certify(build("CNN"), 255.0, 10)
    assert not made.identical
    assert made.distance < 1e-5  # each step's rounding, 6e-8, grows over ten of them


def test_a_wrong_power_is_found_at_once():
    network = in_torch("CNN")
    run = as_tensors(network, find(network).joint.generators)
    change = along(network, run, {INPUT: ONE, "conv1.weight": -ONE}, 256.0)
    settings = {name: dict(of_tensor) for name, of_tensor in change.settings.items()}
    settings["conv1.weight"]["learning_rate"] *= 2
    made = compare(network, change._replace(settings=settings), 5)
    assert (made.tensor_step, made.tensor) == (1, "conv1.weight")


def test_factors_are_rounded_once():
    assert raised({"a": Fraction(1, 3)}, surd(8))["a"] == 2
