"""Weights and batch order have torch's bits: stored SHA-256s, and live torch where it is there."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights

STORED = json.loads((Path(__file__).parent / "torch_fingerprints.json").read_text())
SHAPES = {  # as scripts/torch_fingerprints.py has them
    "question": ((3072, 300, 10), False, np.float32),
    "bias": ((7, 5, 3), True, np.float32),
    "double": ((7, 5, 3), True, np.float64),
}


def weights_sha256(seed: int, shape: str) -> str:
    widths, bias, dtype = SHAPES[shape]
    digest = hashlib.sha256()
    for layer in initial_weights(TorchGenerator(seed), widths, bias, dtype):
        digest.update(np.ascontiguousarray(layer["kernel"].T).tobytes())
        if bias:
            digest.update(layer["bias"].tobytes())
    return digest.hexdigest()


def order_sha256(seed: int) -> str:
    generator = TorchGenerator(seed)
    initial_weights(generator, (7, 5, 3), bias=True)
    digest = hashlib.sha256()
    for indices in itertools.islice(batch_order(generator, images=1000, batch_size=50), 3):
        assert indices.shape == (20, 50)
        digest.update(indices.astype("<i4").tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_100_seeds_have_torch_bits(shape):
    stored = STORED["weights"][shape]
    assert len(stored) == 100
    assert {seed: weights_sha256(int(seed), shape) for seed in stored} == stored


def test_batch_order_of_20_seeds_has_torch_bits():
    assert len(STORED["order"]) == 20
    assert {seed: order_sha256(int(seed)) for seed in STORED["order"]} == STORED["order"]


def test_stored_fingerprints_are_those_of_live_torch():
    pytest.importorskip("torch")
    from parity_tests import fingerprints as live

    for seed in (0, 3, 2**40 + 7):
        for shape in SHAPES:
            assert live.weights_sha256(seed, shape) == STORED["weights"][shape][str(seed)]
        assert live.order_sha256(seed) == STORED["order"][str(seed)]


def test_permutation_holds_every_index_once():
    for count in (0, 1, 2, 257):
        assert sorted(TorchGenerator(5).permutation(count)) == list(range(count))
