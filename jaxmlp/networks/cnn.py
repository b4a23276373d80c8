"""A small convolutional network in Flax NNX; torchref/cnn.py has the same in torch."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxmlp.networks.flax_model import at
from jaxmlp.networks.flax_network import cross_entropy
from jaxmlp.networks.flax_training import Training
from jaxmlp.networks.optimizer import Optimizer

WIDTHS = (16, 32)  # channels of the two convolutions
CHUNK = 500  # images evaluated at a time

Images = UInt8[np.ndarray, "images channels height width"]
Labels = Int[np.ndarray, " images"]


class Cnn(nnx.Module):
    """Twice convolution 3×3, ReLU and max-pool; then one linear layer. Images are NHWC.

    Args:
        shape: channels, height and width of an image.
        batch_norm: between each convolution and its ReLU, in place of the convolution's bias.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, batch_norm: bool, seed: int) -> None:
        channels, height, width = shape
        rngs = nnx.Rngs(seed)
        self.conv1 = _conv(channels, WIDTHS[0], not batch_norm, rngs)
        self.conv2 = _conv(*WIDTHS, not batch_norm, rngs)
        if batch_norm:
            self.bn1, self.bn2 = (
                nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs) for width in WIDTHS
            )
        self.batch_norm = batch_norm
        features = WIDTHS[1] * (height // 4) * (width // 4)
        init = _uniform(features)
        self.head = nnx.Linear(features, classes, kernel_init=init, bias_init=init, rngs=rngs)

    def activations(self, images: Float[Array, "n h w c"]) -> tuple[Array, Array]:
        """What the two ReLUs give."""
        first = self.conv1(images)
        first = nnx.relu(self.bn1(first) if self.batch_norm else first)
        second = self.conv2(_pool(first))
        return first, nnx.relu(self.bn2(second) if self.batch_norm else second)

    def __call__(self, images: Float[Array, "n h w c"]) -> Float[Array, "n classes"]:
        return self.scores(self.activations(images)[1])

    def scores(self, activations: Array) -> Float[Array, "n classes"]:
        """What the last layer makes of the second ReLU's activations."""
        return self.head(_pool(activations).reshape(len(activations), -1))


def _conv(inputs: int, outputs: int, bias: bool, rngs: nnx.Rngs) -> nnx.Conv:
    init = _uniform(9 * inputs)
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        padding=1,
        use_bias=bias,
        kernel_init=init,
        bias_init=init,
        rngs=rngs,
    )


def _uniform(fan_in: int) -> Initializer:
    """torch's default, for weights and biases, so that both frameworks start alike."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _pool(images: Array) -> Array:
    return nnx.max_pool(images, (2, 2), (2, 2))


def optimizer(model: Cnn, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """SGD; weight decay is coupled."""
    return Optimizer("sgd", learning_rate, weight_decay, momentum=momentum)


def batches(images: Images, labels: Labels, size: int) -> Iterator[tuple[Array, Array]]:
    """Pixels in [0, 1] and labels, in order; what is left over makes no batch."""
    for start in range(0, len(images) - size + 1, size):
        chosen = slice(start, start + size)
        yield _pixels(images[chosen]), jnp.asarray(labels[chosen])


def _pixels(images: Images) -> Float[Array, "n h w c"]:
    return jnp.asarray(images.transpose(0, 2, 3, 1), jnp.float32) / 255


class Evaluation(NamedTuple):
    """What a network makes of images in evaluation mode."""

    loss: float
    accuracy: float
    silent: list[float]  # by ReLU: share of the images that activate none of its channels
    dead: list[float]  # by ReLU: share of the channels that no image activates


def evaluate(training: Training, images: Images, labels: Labels) -> Evaluation:
    """The run's network as it is now, on images multiplied by what the run multiplies its by."""
    model, losses, correct = _as_it_is(training), 0.0, 0
    active: list[list[np.ndarray]] = [[], []]
    for inputs, targets in batches(images, labels, math.gcd(len(images), CHUNK)):
        outputs, of_relus = _forward(model, inputs * training.scale)
        losses += float(cross_entropy(outputs, targets)) * len(targets)
        correct += int((outputs.argmax(axis=-1) == targets).sum())
        for chunks, channels in zip(active, of_relus, strict=True):
            chunks.append(np.asarray(channels))
    by_relu = [np.concatenate(chunks) for chunks in active]
    return Evaluation(
        losses / len(images),
        correct / len(images),
        [float(1 - channels.any(axis=1).mean()) for channels in by_relu],
        [float(1 - channels.any(axis=0).mean()) for channels in by_relu],
    )


@nnx.jit
def _forward(model: Cnn, inputs: Array) -> tuple[Array, list[Bool[Array, "n channels"]]]:
    """Scores, and for each ReLU which channels each image activates anywhere."""
    relus = model.activations(inputs)
    return model.scores(relus[1]), [(relu > 0).any(axis=(1, 2)) for relu in relus]


def _as_it_is(training: Training) -> Cnn:
    """The run's network in evaluation mode: a copy of the user's with the run's numbers."""
    model, flax = nnx.clone(training.network.module), training.network.model
    values = {**training.trained, **training.others}
    for name, (path, _) in flax.flat.items():
        at(model, path).set_value(values[name])
    for name, path in flax.norms.items():
        at(model, path).epsilon = training.eps[name]
    model.eval()
    assert isinstance(model, Cnn)
    return model
