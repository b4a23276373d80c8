"""Small architectures, each written once and built in torch and in Flax NNX.

An architecture is two functions: `layers` gives a model its layers, `forward` runs them. What the
two frameworks call differently is in `InTorch` and `InFlax`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

CLASSES, EXAMPLES, BATCHES = 4, 12, 4


class InTorch:
    """torch's layers and functions; images are NCHW."""

    cat, tanh, sigmoid = (
        staticmethod(torch.cat),
        staticmethod(torch.tanh),
        staticmethod(torch.sigmoid),
    )
    relu = staticmethod(nn.functional.relu)
    gelu, einsum = staticmethod(nn.functional.gelu), staticmethod(torch.einsum)
    stack = staticmethod(torch.stack)

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> Any:
        return nn.Linear(inputs, outputs, bias)

    def conv(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, bias=True
    ) -> Any:
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=bias)

    def batch_norm(self, features: int) -> Any:
        return nn.BatchNorm2d(features)

    def group_norm(self, groups: int, features: int) -> Any:
        return nn.GroupNorm(groups, features)

    def layer_norm(self, features: int) -> Any:
        return nn.LayerNorm(features)

    def embedding(self, tokens: int, features: int) -> Any:
        return nn.Embedding(tokens, features)

    def slope(self) -> Any:
        return nn.Parameter(torch.tensor([0.25]))

    def softmax(self, x: Any) -> Any:
        return torch.softmax(x, -1)

    def leaky_relu(self, x: Any, slope: Any = 0.1) -> Any:
        return torch.where(x > 0, x, slope * x)

    def max_pool(self, x: Any) -> Any:
        return nn.functional.max_pool2d(x, 2)

    def mean(self, x: Any) -> Any:
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)

    def over_channels(self, x: Any, gate: Any) -> Any:
        return x * gate[:, :, None, None]

    def zeros(self, like: Any, features: int) -> Any:
        return like.new_zeros(len(like), features)

    def unembed(self, x: Any, embedding: Any) -> Any:
        return x @ embedding.weight.T


class InFlax:
    """Flax NNX' layers and JAX's functions; images are NHWC."""

    cat, tanh, sigmoid = (
        staticmethod(jnp.concatenate),
        staticmethod(jnp.tanh),
        staticmethod(jax.nn.sigmoid),
    )
    relu, einsum, stack = staticmethod(nnx.relu), staticmethod(jnp.einsum), staticmethod(jnp.stack)

    def __init__(self, seed: int = 0) -> None:
        self.rngs = nnx.Rngs(seed)

    def gelu(self, x: Any) -> Any:
        return nnx.gelu(x, approximate=False)

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> Any:
        return nnx.Linear(inputs, outputs, use_bias=bias, rngs=self.rngs)

    def conv(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, bias=True
    ) -> Any:
        return nnx.Conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=size // 2,
            feature_group_count=groups,
            use_bias=bias,
            rngs=self.rngs,
        )

    def batch_norm(self, features: int) -> Any:
        return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=self.rngs)

    def group_norm(self, groups: int, features: int) -> Any:
        return nnx.GroupNorm(features, num_groups=groups, epsilon=1e-5, rngs=self.rngs)

    def layer_norm(self, features: int) -> Any:
        return nnx.LayerNorm(features, epsilon=1e-5, rngs=self.rngs)

    def embedding(self, tokens: int, features: int) -> Any:
        return nnx.Embed(tokens, features, rngs=self.rngs)

    def slope(self) -> Any:
        return nnx.Param(jnp.array([0.25]))

    def softmax(self, x: Any) -> Any:
        return nnx.softmax(x)

    def leaky_relu(self, x: Any, slope: Any = 0.1) -> Any:
        return jnp.where(x > 0, x, slope * x)

    def max_pool(self, x: Any) -> Any:
        return nnx.max_pool(x, (2, 2), strides=(2, 2))

    def mean(self, x: Any) -> Any:
        return x.mean((1, 2)) if x.ndim == 4 else x.mean(1)

    def over_channels(self, x: Any, gate: Any) -> Any:
        return x * gate[:, None, None, :]

    def zeros(self, like: Any, features: int) -> Any:
        return jnp.zeros((len(like), features), like.dtype)

    def unembed(self, x: Any, embedding: Any) -> Any:
        return x @ embedding.embedding.T


class TorchModel(nn.Module):
    def __init__(self, architecture: Any) -> None:
        super().__init__()
        self.architecture, self.use = architecture(), InTorch()
        self.architecture.layers(self, self.use)

    def forward(self, x: Any) -> Any:
        return self.architecture.forward(self, self.use, x)


class FlaxModel(nnx.Module):
    def __init__(self, architecture: Any, seed: int) -> None:
        architecture().layers(self, InFlax(seed))
        self.architecture = nnx.static(architecture) if hasattr(nnx, "static") else architecture

    def __call__(self, x: Any) -> Any:
        return self.architecture().forward(self, InFlax(), x)


# ---- the architectures

FEATURES, IMAGE, PATCHES, TOKENS = 7, (8, 8, 3), (6, 7), 11


class MLP:
    """Linear layers with biases and ReLU."""

    shape, bias = (FEATURES,), True

    def layers(self, m: Any, use: Any) -> None:
        m.fc1, m.fc2 = use.linear(7, 9, self.bias), use.linear(9, 6, self.bias)
        m.fc3 = use.linear(6, CLASSES, self.bias)

    def act(self, use: Any, x: Any) -> Any:
        return use.relu(x)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        return m.fc3(self.act(use, m.fc2(self.act(use, m.fc1(x)))))


class MLPWithoutBias(MLP):
    bias = False


class MLPWithGELU(MLP):
    def act(self, use: Any, x: Any) -> Any:
        return use.gelu(x)


class MLPWithLeakyReLU(MLP):
    def act(self, use: Any, x: Any) -> Any:
        return use.leaky_relu(x)


class MLPWithPReLU(MLP):
    """A trained slope, which nothing may rescale."""

    def layers(self, m: Any, use: Any) -> None:
        super().layers(m, use)
        m.slope = use.slope()

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.leaky_relu(m.fc1(x), m.slope)
        return m.fc3(use.leaky_relu(m.fc2(x), m.slope))


class TanhOfInputs(MLP):
    """Nothing can make up for scaled inputs."""

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        return super().forward(m, use, use.tanh(x))


class CNN:
    """Convolutions with biases, ReLU and max-pooling."""

    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.conv1, m.conv2, m.fc = use.conv(3, 5), use.conv(5, 6), use.linear(6, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.max_pool(use.relu(m.conv1(x)))
        return m.fc(use.mean(use.relu(m.conv2(x))))


class CNNWithSkips:
    """Residual sums, which tie the scales of what they add."""

    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.stem, m.conv1, m.conv2 = use.conv(3, 5), use.conv(5, 5), use.conv(5, 5)
        m.widen, m.fc = use.conv(5, 6, 1, bias=False), use.linear(6, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.relu(m.stem(x))
        x = x + use.relu(m.conv1(x))
        x = use.relu(x + m.conv2(x))
        return m.fc(use.mean(use.relu(m.widen(x))))


class ResNet:
    """BatchNorm, a stage without and one with a convolution on the shortcut."""

    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.stem, m.norm0 = use.conv(3, 5, bias=False), use.batch_norm(5)
        m.conv1, m.norm1 = use.conv(5, 5, bias=False), use.batch_norm(5)
        m.conv2, m.norm2 = use.conv(5, 5, bias=False), use.batch_norm(5)
        m.conv3, m.norm3 = use.conv(5, 6, stride=2, bias=False), use.batch_norm(6)
        m.conv4, m.norm4 = use.conv(6, 6, bias=False), use.batch_norm(6)
        m.short, m.norm5 = use.conv(5, 6, 1, stride=2, bias=False), use.batch_norm(6)
        m.fc = use.linear(6, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.relu(m.norm0(m.stem(x)))
        y = use.relu(m.norm1(m.conv1(x)))
        x = use.relu(x + m.norm2(m.conv2(y)))
        y = use.relu(m.norm3(m.conv3(x)))
        x = use.relu(m.norm5(m.short(x)) + m.norm4(m.conv4(y)))
        return m.fc(use.mean(x))


class CNNWithGroupNorm:
    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.conv1, m.norm1 = use.conv(3, 6), use.group_norm(2, 6)
        m.conv2, m.norm2, m.fc = use.conv(6, 9), use.group_norm(3, 9), use.linear(9, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.max_pool(use.relu(m.norm1(m.conv1(x))))
        return m.fc(use.mean(use.relu(m.norm2(m.conv2(x)))))


class Separable:
    """Depthwise-separable convolutions with BatchNorm."""

    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.stem, m.deep = use.conv(3, 5), use.conv(5, 5, groups=5, bias=False)
        m.norm1, m.point = use.batch_norm(5), use.conv(5, 6, 1, bias=False)
        m.norm2, m.fc = use.batch_norm(6), use.linear(6, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.relu(m.norm1(m.deep(use.relu(m.stem(x)))))
        return m.fc(use.mean(use.relu(m.norm2(m.point(x)))))


class SqueezeAndExcitation:
    """A gate by sigmoids, which nothing may rescale."""

    shape = IMAGE

    def layers(self, m: Any, use: Any) -> None:
        m.conv1, m.conv2 = use.conv(3, 6), use.conv(6, 6)
        m.squeeze, m.excite, m.fc = use.linear(6, 2), use.linear(2, 6), use.linear(6, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        x = use.relu(m.conv2(use.relu(m.conv1(x))))
        gate = use.sigmoid(m.excite(use.relu(m.squeeze(use.mean(x)))))
        return m.fc(use.mean(use.over_channels(x, gate)))


class Transformer:
    """A block with LayerNorm, attention by two heads, and ReLU, on patches."""

    shape, heads = PATCHES, 2

    def layers(self, m: Any, use: Any) -> None:
        m.embed = use.linear(PATCHES[1], 8)
        self.block(m, use)
        m.fc = use.linear(8, CLASSES)

    def block(self, m: Any, use: Any) -> None:
        m.norm1, m.q, m.k = use.layer_norm(8), use.linear(8, 8), use.linear(8, 8)
        m.v, m.o, m.norm2 = use.linear(8, 8), use.linear(8, 8), use.layer_norm(8)
        m.up, m.down = use.linear(8, 10), use.linear(10, 8)

    def act(self, use: Any, x: Any) -> Any:
        return use.relu(x)

    def run_block(self, m: Any, use: Any, x: Any) -> Any:
        y = m.norm1(x)
        q, k, v = (each(y).reshape(*y.shape[:2], self.heads, -1) for each in (m.q, m.k, m.v))
        scores = use.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        mixed = use.einsum("bhqk,bkhd->bqhd", use.softmax(scores), v)
        x = x + m.o(mixed.reshape(y.shape))
        return x + m.down(self.act(use, m.up(m.norm2(x))))

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        return m.fc(use.mean(self.run_block(m, use, m.embed(x))))


class LanguageModel(Transformer):
    """Tokens, GELU, and an output that is tied to the embedding."""

    shape = None

    def layers(self, m: Any, use: Any) -> None:
        m.embed = use.embedding(TOKENS, 8)
        self.block(m, use)
        m.norm = use.layer_norm(8)

    def act(self, use: Any, x: Any) -> Any:
        return use.gelu(x)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        return use.unembed(m.norm(self.run_block(m, use, m.embed(x))), m.embed)


class LSTM:
    """Gates of sigmoid and tanh: nothing of what enters them may be rescaled."""

    shape = PATCHES

    def layers(self, m: Any, use: Any) -> None:
        m.into, m.again = use.linear(PATCHES[1], 4 * 5), use.linear(5, 4 * 5, False)
        m.fc = use.linear(5, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        state = memory = use.zeros(x, 5)
        for time in range(x.shape[1]):
            gates = m.into(x[:, time]) + m.again(state)
            i, f, g, o = (gates[:, 5 * part : 5 * part + 5] for part in range(4))
            memory = use.sigmoid(f) * memory + use.sigmoid(i) * use.tanh(g)
            state = use.sigmoid(o) * use.tanh(memory)
        return m.fc(state)


class GRU:
    """A gated unit whose candidate is a ReLU, so that it may be rescaled."""

    shape = PATCHES

    def layers(self, m: Any, use: Any) -> None:
        m.gate, m.candidate = use.linear(PATCHES[1], 5), use.linear(PATCHES[1], 5)
        m.again, m.fc = use.linear(5, 5, False), use.linear(5, CLASSES)

    def forward(self, m: Any, use: Any, x: Any) -> Any:
        state = use.zeros(x, 5)
        for time in range(x.shape[1]):
            gate = use.sigmoid(m.gate(x[:, time]))
            new = use.relu(m.candidate(x[:, time]) + m.again(state))
            state = (1 - gate) * state + gate * new
        return m.fc(state)


ALL = {
    kind.__name__: kind
    for kind in (
        MLP,
        MLPWithoutBias,
        MLPWithGELU,
        MLPWithLeakyReLU,
        MLPWithPReLU,
        TanhOfInputs,
        CNN,
        CNNWithSkips,
        ResNet,
        CNNWithGroupNorm,
        Separable,
        SqueezeAndExcitation,
        Transformer,
        LanguageModel,
        LSTM,
        GRU,
    )
}


# ---- to build them


class Built(NamedTuple):
    model: Any
    batches: list[tuple[Any, Any]]


def data(name: str, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of inputs (images NHWC) and integer targets."""
    draw, shape = np.random.default_rng(seed), ALL[name].shape
    batches = []
    for _ in range(BATCHES):
        if shape is None:
            tokens = draw.integers(TOKENS, size=(EXAMPLES, 7))
            batches.append((tokens[:, :-1], tokens[:, 1:]))
            continue
        inputs = draw.uniform(size=(EXAMPLES, *shape)).astype(np.float32)
        batches.append((inputs, draw.integers(CLASSES, size=EXAMPLES)))
    return batches


def in_torch(name: str, seed: int = 0) -> Built:
    torch.manual_seed(seed)
    batches = [
        (
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x),
            torch.from_numpy(y),
        )
        for x, y in data(name, seed)
    ]
    return Built(TorchModel(ALL[name]), batches)


def in_flax(name: str, seed: int = 0) -> Built:
    return Built(FlaxModel(ALL[name], seed), data(name, seed))


def as_torch(name: str) -> str:
    """A tensor's name in torch, of its name in Flax."""
    for flax, its in (("kernel", "weight"), ("scale", "weight"), ("embedding", "weight")):
        if name.endswith(f".{flax}"):
            return f"{name.removesuffix(flax)}{its}"
    for flax, its in (("mean", "running_mean"), ("var", "running_var")):
        if name.endswith(f".{flax}"):
            return f"{name.removesuffix(flax)}{its}"
    return name


def copy_weights(ours: TorchModel, theirs: FlaxModel) -> None:
    """Gives the Flax model the torch model's parameters, in its own layout."""
    values = {name: parameter.detach().numpy() for name, parameter in ours.named_parameters()}
    for path, variable in nnx.to_flat_state(nnx.state(theirs, nnx.Param)):
        name = ".".join(map(str, path))
        array = values[as_torch(name)]
        if name.endswith("kernel"):  # (out, in, ...) there, (..., in, out) here
            array = np.moveaxis(array, (1, 0), (-2, -1))
        variable.set_value(jnp.asarray(array))
    assert len(values) == len(jax.tree.leaves(nnx.state(theirs, nnx.Param)))
