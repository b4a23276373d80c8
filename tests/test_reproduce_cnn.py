"""scripts/reproduce.py --cnn on tiny images: two networks alike, five cases, proofs and words."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from jaxmlp.commands import reproduce, reproduce_cnn
from jaxmlp.networks import cnn_cases
from jaxmlp.networks.cnn import Cnn, evaluate
from jaxmlp.networks.protocol import INPUT

FRAMEWORKS = [
    "jax",
    pytest.param(
        "torch",
        marks=pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="without torch"),
    ),
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Batches that fit the tiny data set, and few steps."""
    monkeypatch.setattr(cnn_cases, "BATCH_SIZE", 8)
    monkeypatch.setattr(cnn_cases, "CERTIFIED_STEPS", 4)


def networks(framework, dataset):
    return cnn_cases.networks(framework, dataset, 24)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_at_255_it_starts_larger_and_learns_faster_and_with_batch_norm_eps_alone_is_wrong(
    framework, tiny_dataset
):
    plain, batch_norm = networks(framework, tiny_dataset).values()
    told = cnn_cases.reason(plain)
    assert "conv1" in told
    assert "initial values 6.34 times too large and learning rate 40.2 times too large" in told
    assert cnn_cases.reason(batch_norm) == (
        "It is the run with unscaled inputs, but for bn1.eps: value 65,025 times too small."
    )
    moved = cnn_cases.repair(batch_norm).split("; ")
    assert [words for words in moved if "starts" not in words] == ["bn1.eps: value × 255²"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_transports_are_the_same_runs_bit_for_bit(framework, tiny_dataset):
    for network in networks(framework, tiny_dataset).values():
        made = cnn_cases.certificate(network)
        assert made.identical, str(made)
        assert made.untransported_step == 1  # it is the transport that makes them so


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scaled_it_dies_and_is_repaired_and_with_batch_norm_it_lives(
    framework, tiny_dataset, monkeypatch
):
    monkeypatch.setattr(cnn_cases, "LEARNING_RATE", 0.1)  # tiny images carry little
    monkeypatch.setattr(cnn_cases, "SCALE", 256.0)  # so that the repair is exact
    samples = cnn_cases.samples(framework, tiny_dataset, 24)
    named = cnn_cases.cases(networks(framework, tiny_dataset), samples)
    rows = list(cnn_cases.rows(named, tiny_dataset, epochs=8))
    baseline, scaled, repaired, batch_norm, scaled_batch_norm = rows
    assert (scaled.outcome, scaled.dead) == ("dead", 1.0)
    assert repaired[1:] == baseline[1:]
    assert max(baseline.dead, batch_norm.dead, scaled_batch_norm.dead) < 0.5
    assert batch_norm.outcome == scaled_batch_norm.outcome == "trained"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_evaluation_is_of_the_run_as_it_is_now(framework, tiny_dataset):
    network = networks(framework, tiny_dataset)[cnn_cases.BATCH_NORM]
    side = cnn_cases._side(framework)
    training = network.start({INPUT: 4.0}, network.settings)
    training.step()
    images, labels = tiny_dataset.train_images[:8], tiny_dataset.train_labels[:8]
    scores = np.asarray(training.outputs())  # of the first batch, which these images are
    found = side.evaluate(training, images, labels)
    assert found.accuracy == np.mean(scores.argmax(axis=1) == labels)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert found.loss == pytest.approx(-logs[np.arange(8), labels].mean(), rel=1e-5)


def test_both_frameworks_hold_the_same_network(tiny_dataset):
    torch = pytest.importorskip("torch")
    from torchref.cnn import Cnn as TorchCnn

    shape, classes = tiny_dataset.train_images.shape[1:], tiny_dataset.classes
    flax: Any = Cnn(shape, classes, False, 0)
    other = TorchCnn(shape, classes, False, 0)
    for name in ("conv1", "conv2"):
        layer = getattr(other, name)
        getattr(flax, name).kernel.set_value(layer.weight.detach().numpy().transpose(2, 3, 1, 0))
        getattr(flax, name).bias.set_value(layer.bias.detach().numpy())
    # Of the tiny images one pixel is left, so that the order of pixels plays no part.
    flax.head.kernel.set_value(other.head.weight.detach().numpy().T)
    flax.head.bias.set_value(other.head.bias.detach().numpy())
    images = tiny_dataset.train_images.astype(np.float32) / 255
    with torch.no_grad():
        expected = other(torch.from_numpy(images)).numpy()
    scores = np.asarray(flax(images.transpose(0, 2, 3, 1)))
    assert scores == pytest.approx(expected, abs=1e-6)  # sums of at most 144 terms below 1


def test_silent_images_and_dead_channels_are_counted_by_relu(tiny_dataset):
    plain = networks("jax", tiny_dataset)[cnn_cases.PLAIN]
    training: Any = plain.start({}, plain.settings)
    training.trained["conv2.kernel"] *= 0
    training.trained["conv2.bias"] = training.trained["conv2.bias"] * 0 - 1
    training.trained["conv2.bias"] = training.trained["conv2.bias"].at[3].set(1.0)
    images, labels = tiny_dataset.test_images, tiny_dataset.test_labels
    found = evaluate(training, images, labels)
    assert found.silent == [0.0, 0.0]
    assert found.dead[1] == pytest.approx(31 / 32)
    training.trained["conv2.bias"] = training.trained["conv2.bias"].at[3].set(-1.0)
    assert evaluate(training, images, labels).silent == [0.0, 1.0]


def test_the_command_prints_a_table_for_each_framework(tiny_npz, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as without torch
    reproduce.main(["--cnn", "--data", str(tiny_npz), "--epochs", "1", "--images", "16"])
    printed, progress = capsys.readouterr()
    assert printed.count("torch: skipped, for PyTorch is not installed; install it with ") == 1
    assert "16 images, 1 epoch, batch 8." in printed
    assert printed.count("IDENTICAL in every bit: 4 losses") == 2
    cases = ["baseline", "inputs × 255", "inputs × 255, repaired"]
    for case in (*cases, "BatchNorm", "BatchNorm, inputs × 255"):
        assert printed.count(f"\n| {case} | ") == 1
    assert f"[{reproduce_cnn.PARTS}/{reproduce_cnn.PARTS}]" in progress


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--images", "25"], "25 training images; choose 1 to 24"),
        (["--images", "0"], "0 training images; choose 1 to 24"),
        (["--images", "12"], "12 training images are no multiple of the batch, 8"),
    ],
)
def test_bad_input_is_one_line(flags, told, tiny_npz, capsys):
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["--cnn", "--data", str(tiny_npz), *flags])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1


def test_images_that_cannot_be_pooled_twice_are_refused(tiny_dataset):
    import dataclasses

    flat = dataclasses.replace(tiny_dataset, train_images=tiny_dataset.train_images[:, :, :3])
    with pytest.raises(ValueError, match="images of 3 × 4 pixels; the CNN needs 4 × 4"):
        cnn_cases.networks("jax", flat, 24)
