"""The data set on the device, and from its pixels to the network's inputs."""

import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import float_dtype
from jaxmlp.experiment import Experiment


class Images(NamedTuple):
    """The data set on the device; mean and deviation are those of the training set's channels."""

    train_images: UInt8[Array, "train features"]
    train_labels: Int[Array, " train"]
    test_images: UInt8[Array, "test features"]
    test_labels: Int[Array, " test"]
    mean: Float[Array, " features"]
    deviation: Float[Array, " features"]


def channel_statistics(
    images: UInt8[np.ndarray, "images channels height width"],
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """Mean and (population) standard deviation of each channel, pixels in [0, 1].

    From sums in whole numbers: the mean and the variance are correctly rounded.
    """
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256).tolist()
        count = sum(counts)
        total = sum(value * n for value, n in enumerate(counts))
        squares = sum(value**2 * n for value, n in enumerate(counts))
        means.append(total / (255 * count))
        deviations.append(math.sqrt((count * squares - total**2) / (255 * count) ** 2))
    return np.array(means), np.array(deviations)


def put_images(experiment: Experiment, dataset: Dataset) -> Images:
    """The data set on the default device, images flattened as torch does: channel, row, column.

    Raises:
        ValueError: a channel is constant and cannot be standardised.
    """
    dtype = np.dtype(float_dtype(experiment))
    _, channels, height, width = dataset.train_images.shape
    mean, deviation = np.zeros(channels), np.ones(channels)
    if experiment.preprocessing != "unit":
        mean, deviation = channel_statistics(dataset.train_images)
    if experiment.preprocessing == "center":
        deviation = np.ones(channels)
    if not deviation.all():
        raise ValueError(
            f"preprocessing standardize needs channels that vary; channel {deviation.argmin()} of "
            f"{dataset.name} is constant: choose center"
        )
    arrays = (
        dataset.train_images.reshape(len(dataset.train_images), -1),
        dataset.train_labels,
        dataset.test_images.reshape(len(dataset.test_images), -1),
        dataset.test_labels,
        np.repeat(mean, height * width).astype(dtype),
        np.repeat(deviation, height * width).astype(dtype),
    )
    return Images(*map(jax.device_put, arrays))


def preprocess(
    experiment: Experiment,
    pixels: UInt8[Array, "batch features"],
    images: Images,
    input_scale: Float[Array, ""],
) -> Float[Array, "batch features"]:
    """The network's inputs: torchvision's ToTensor, its Normalize, times the input scale.

    The same floats as torch's, which divides. XLA turns a division by a broadcast value into a
    multiplication by its reciprocal, one unit in the last place off for many pixels. So /255 is
    pixel·high + pixel·low with high + low = 1/255: the first product is exact, the second's error
    far below the sum's rounding. The TPU's compiler would make that pixel·(high + low), as far off;
    a rounding to the precision that the product has anyway keeps the two apart. The division by the
    deviations is shielded by a barrier.
    """
    values = pixels.astype(input_scale.dtype)
    digits = 22 if values.dtype == jnp.float32 else 52
    high = 2**digits // 255 / 2**digits
    low = float(Fraction(1, 255) - Fraction(high))
    kind = jnp.finfo(values.dtype)
    inputs = jax.lax.reduce_precision(values * high, kind.nexp, kind.nmant) + values * low
    if experiment.preprocessing != "unit":
        inputs = inputs - images.mean
    if experiment.preprocessing == "standardize":
        inputs = inputs / jax.lax.optimization_barrier(
            jnp.broadcast_to(images.deviation, inputs.shape)
        )
    return input_scale * inputs
