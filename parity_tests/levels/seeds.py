"""Initial weights and the order of batches: the bits of live torch."""

import itertools
from collections.abc import Iterator

import numpy as np

import torchref.data
from jaxmlp.experiment import Experiment
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from parity_tests import sides
from parity_tests.comparison import Comparison, bitwise

SHAPES = {  # widths, bias, dtype
    "3072-300-10": ((3072, 300, 10), False, np.float32),
    "60-11-6-7, bias": ((60, 11, 6, 7), True, np.float32),
    "7-5-3, bias, float64": ((7, 5, 3), True, np.float64),
    "7-5-3, float64": ((7, 5, 3), False, np.float64),
}
SEEDS = (*range(97), 2**32 - 1, 2**32, 2**40 + 7)


def seeds(quick: bool = False) -> Iterator[Comparison]:
    """Initial weights and the order of batches: the bits of live torch."""
    chosen = (1, 2**40 + 7) if quick else SEEDS
    shapes = list(SHAPES.items())[quick:]
    for (name, (widths, bias, dtype)), seed in itertools.product(shapes, chosen):
        jax = sides.jax_weights(seed, widths, bias, dtype)
        torch = sides.torch_weights(seed, widths, bias, dtype)
        yield from _layers(("seeds", f"initial weights, {name}", f"seed {seed} "), jax, torch)
    for seed in chosen:
        jax, torch = _orders(seed)
        for epoch in range(len(jax)):
            where = ("seeds", "batch order, 3 epochs", f"seed {seed} epoch {epoch + 1}")
            yield bitwise(where, jax[epoch], torch[epoch])
    jax, torch = _orders(2**31 + 3, images=50_000, batch=250)
    yield bitwise(("seeds", "batch order, 3 epochs", "50 000 images"), jax, torch)
    for precision, seed in itertools.product(("float32", "float64"), chosen[:5]):
        experiment = Experiment(
            hidden=(5,),
            bias=True,
            init_scale=(1 / 255, 3.7),
            bias_init_scale=(0.3, 11.0),
            precision=precision,
        )
        dtype = sides.numpy_dtype(experiment)
        weights = sides.torch_weights(seed, (7, 5, 3), True, dtype)
        yield from _layers(
            ("seeds", f"initial weights × init scale, {precision}", f"seed {seed} "),
            sides.jax_scaled_weights(experiment, weights),
            sides.torch_scaled_weights(experiment, weights),
        )


def _layers(where: tuple[str, str, str], jax, torch) -> Iterator[Comparison]:
    level, check, prefix = where
    for i, (a, b) in enumerate(zip(jax, torch, strict=True)):
        for name in a.keys() | b.keys():
            tensor = f"{prefix}layer{i + 1}.{name}"
            yield bitwise((level, check, tensor), a.get(name, ()), b.get(name, ()))


def _orders(seed: int, images: int = 60, batch: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Three epochs of batches by either side's way, with a test set in between."""
    generator = TorchGenerator(seed)
    initial_weights(generator, (7, 5, 3), bias=True)
    jax = list(itertools.islice(batch_order(generator, images, batch), 3))
    sides.torch_weights(seed, (7, 5, 3), True, np.float32)
    pixels, numbers = np.zeros((images, 1, 1, 1), np.uint8), np.arange(images)
    dataset = torchref.data.ArrayImages(pixels, numbers, None, 1.0)
    train = torchref.data.array_loader(dataset, batch, shuffle=True)
    test = torchref.data.array_loader(dataset, batch, shuffle=False)
    epochs = []
    for _ in range(3):
        epochs.append(np.stack([sides.numpy_of(labels) for _, labels in train]).astype(np.int32))
        list(test)
    return np.stack(jax), np.stack(epochs)
