"""From a pixel to the network's input, and from a seed to the first epoch's batches."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

import torchref.data
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.training import preprocessing as preprocessing_of_jax
from parity_tests import problems, sides
from parity_tests.comparison import Comparison, bitwise


def preprocessing(quick: bool = False) -> Iterator[Comparison]:
    """From a pixel to the network's input, and from a seed to the first epoch's batches."""
    scales = (255.0, 0.3) if quick else (1.0, 255.0, 256.0, 1 / 255, 0.3, 3.7e4)
    kinds = ("unit", "center", "standardize")
    every = _every_pixel()
    for precision, kind, scale in itertools.product(("float32", "float64"), kinds, scales):
        experiment = Experiment(preprocessing=kind, input_scale=scale, precision=precision)
        indices = np.arange(len(every.train_labels))
        jax, _ = sides.jax_inputs(experiment, every, indices)
        torch, _ = sides.torch_inputs(experiment, every, indices)
        check = f"256 pixel values, {kind}, {precision}"
        yield bitwise(("preprocessing", check, f"× {scale:g}"), jax, torch)
        if precision == "float32":
            pipeline = _torchvision_inputs(experiment, every)
            check = f"256 pixel values, {kind}, torchvision's transforms"
            yield bitwise(("preprocessing", check, f"× {scale:g}"), jax, pipeline)
    yield from _statistics()
    flat = every.train_images.copy()
    flat[:, 1] = 77
    for kind in kinds[:2]:
        experiment = Experiment(preprocessing=kind, input_scale=255.0)
        constant = dataclasses.replace(every, train_images=flat)
        arguments = (experiment, constant, np.arange(len(flat)))
        inputs = [side(*arguments)[0] for side in (sides.jax_inputs, sides.torch_inputs)]
        yield bitwise(("preprocessing", f"a constant channel, {kind}", "inputs"), *inputs)
    for kind in kinds:
        experiment = Experiment(
            hidden=(5,), preprocessing=kind, input_scale=255.0, batch_size=8, seed=5
        )
        yield from _first_epoch(experiment, problems.tiny())


def _statistics() -> Iterator[Comparison]:
    """Of more images than either side takes at a time."""
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (50_001, 3, 1, 1), np.uint8)
    images[:1000] //= 2  # the first and the last are unlike the others
    images[-1] = 255
    jax = preprocessing_of_jax.channel_statistics(images)
    torch = torchref.data.channel_statistics(images)
    for name, mine, other in zip(("means", "deviations"), jax, torch, strict=True):
        yield bitwise(("preprocessing", "statistics of 50 001 images", name), mine, np.array(other))


def _every_pixel() -> Dataset:
    """Every value in each of three channels, in another order and number in each."""
    draw = np.random.default_rng(0)
    channels = [draw.permutation(np.r_[np.arange(256), np.full(64, 40 * c)]) for c in range(3)]
    images = np.stack(channels).astype(np.uint8).reshape(3, 20, 16).swapaxes(0, 1)
    images = images.reshape(5, 4, 3, 16).swapaxes(1, 2)
    labels = np.arange(5, dtype=np.int32)
    return Dataset("pixels", "every value", images, labels, images, labels, "", 5)


def _torchvision_inputs(experiment: Experiment, dataset: Dataset) -> np.ndarray:
    from PIL import Image

    transform = torchref.data.transform(
        torchref.data.statistics(dataset.train_images, experiment.preprocessing),
        experiment.input_scale,
    )
    pictures = [Image.fromarray(np.moveaxis(image, 0, 2)) for image in dataset.train_images]
    return np.stack([np.asarray(transform(picture)).ravel() for picture in pictures])


def _first_epoch(experiment: Experiment, dataset: Dataset) -> Iterator[Comparison]:
    """Inputs and labels of every batch, each side's from the seed on."""
    widths, count = dataset.widths(experiment.hidden), len(dataset.train_labels)
    generator = TorchGenerator(experiment.seed)
    initial_weights(generator, widths, experiment.bias)
    order = next(batch_order(generator, count, experiment.batch_size))
    sides.torch_weights(experiment.seed, widths, experiment.bias, np.float32)
    images = sides.torch_images(experiment, dataset)
    loader = torchref.data.array_loader(images, experiment.batch_size, shuffle=True)
    batches = [(images.flatten(1), labels) for images, labels in loader]
    check = f"batches of an epoch, {experiment.preprocessing}"
    yield bitwise(("preprocessing", check, "number"), len(order), len(batches))
    for i, (indices, (images, labels)) in enumerate(zip(order, batches, strict=False)):
        jax_inputs, jax_labels = sides.jax_inputs(experiment, dataset, indices)
        torch_labels = sides.numpy_of(labels).astype(np.int32)
        where = ("preprocessing", check)
        yield bitwise((*where, f"batch {i} inputs"), jax_inputs, sides.numpy_of(images))
        yield bitwise((*where, f"batch {i} labels"), jax_labels, torch_labels)
