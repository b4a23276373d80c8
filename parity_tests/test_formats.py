"""The same bytes in TFDS's and in torchvision's format give the same arrays, in the same order."""

import hashlib
import pickle

import numpy as np
import pytest
import torchvision_format
from tfds_format import write_tfds

import torchref.data
from jaxmlp.commands import torch_side
from jaxmlp.data.dataset import first_images
from jaxmlp.data.loading import load_data
from jaxmlp.errors import DataError
from jaxmlp.experiment import Experiment
from jaxmlp.torch_rng import TorchGenerator, batch_order


@pytest.fixture
def content() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "train_images": draw.integers(0, 256, (5, 3, 32, 32), np.uint8),
        "train_labels": np.array([3, 9, 0, 7, 5], np.int32),
        "test_images": draw.integers(0, 256, (3, 3, 32, 32), np.uint8),
        "test_labels": np.array([1, 9, 4], np.int32),
    }


@pytest.fixture
def root(tmp_path, monkeypatch, content):
    monkeypatch.setenv("JAXMLP_CACHE", str(tmp_path / "cache"))
    torchvision_format.write(tmp_path, content, monkeypatch)
    return tmp_path


def test_tfds_and_torchvision_give_the_same_arrays(root, content):
    write_tfds(root / "tfds", content)
    by_tfds = load_data(str(root / "tfds"), warn=lambda text: None)
    by_torchvision = torch_side.torchvision_data(root)
    for name, array in content.items():
        np.testing.assert_array_equal(getattr(by_tfds, name), array)
        np.testing.assert_array_equal(getattr(by_torchvision, name), array)
    assert by_tfds.sha256 == by_torchvision.sha256


@pytest.mark.parametrize("preprocessing", ["unit", "center", "standardize"])
def test_torchvision_pipeline_gives_the_batches_of_the_arrays(root, content, preprocessing):
    import torch

    experiment = Experiment(
        batch_size=1, epochs=1, seed=4, input_scale=255.0, preprocessing=preprocessing
    )
    dataset = torch_side.torchvision_data(root)
    batches = []
    for place in (root, None):
        run = torch_side.torch_run(experiment, dataset, place, device="cpu")
        batches.append([*run.loaders[0], *run.loaders[1]])
    assert len(batches[0]) == 5 + 1
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_the_first_images_of_torchvision_are_the_first_of_the_arrays(root, content):
    import torch

    experiment = Experiment(batch_size=1, epochs=1, seed=4, train_size=3)
    whole = torch_side.torchvision_data(root)
    dataset = first_images(whole, 3)
    batches = [
        list(torch_side.torch_run(experiment, dataset, place, device="cpu").loaders[0])
        for place in (root, None)
    ]
    assert len(batches[0]) == 3
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_torchvision_shuffles_as_torch_rng_does(root, content):
    import torch

    experiment = Experiment(batch_size=1, epochs=1, seed=4)
    dataset = torch_side.torchvision_data(root)
    run = torch_side.torch_run(experiment, dataset, root, device="cpu")
    labels = torch.cat([labels for _, labels in run.loaders[0]]).tolist()
    generator = TorchGenerator(4)
    generator.words(3072 * 300 + 300 * 10)
    order = next(batch_order(generator, 5, 1)).ravel()
    assert labels == content["train_labels"][order].tolist()


def test_torchvision_refuses_files_whose_checksum_is_not_the_known_one(root, monkeypatch):
    batch = root / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1]}))
    assert hashlib.md5(batch.read_bytes())
    with pytest.raises(DataError, match="no intact cifar-10-batches-py"):
        torch_side.torchvision_data(root)


def test_a_batch_of_pil_images_is_the_batch_of_arrays(content):
    from PIL import Image

    transform = torchref.data.transform(None, 255.0)
    image = Image.fromarray(np.moveaxis(content["train_images"][1], 0, 2))
    dataset = torchref.data.ArrayImages(content["train_images"], content["train_labels"], None, 255)
    images, _ = dataset[[1]]
    np.testing.assert_array_equal(np.asarray(transform(image)), images[0].numpy())
