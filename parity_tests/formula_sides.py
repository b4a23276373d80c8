"""Each kind of layer in torch and in JAX or Flax, as a function of tensors and inputs.

Layouts are torch's on both sides: JAX transposes inside.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812
from flax import nnx

Arrays = dict[str, np.ndarray]
Gradients = tuple[np.ndarray, list[np.ndarray | None], Arrays]  # output, of inputs, of tensors
Side = Callable[[Mapping[str, Any], Any, Any], Any]  # (config, tensors, inputs): output


def _symmetric(padding: Sequence[Sequence[int]]) -> list[int]:
    """For torch's F.pad, which begins with the last axis."""
    return [n for pair in reversed(padding) for n in pair]


def _torch_conv(config, tensors, inputs):
    x = F.pad(inputs[0], _symmetric(config["padding"]))
    conv = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return conv(
        x, tensors["weight"], tensors.get("bias"), config["stride"], 0, config["dilation"],
        config.get("groups", 1),
    )  # fmt: skip


def _torch_conv_transposed(config, tensors, inputs):
    conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[inputs[0].ndim - 3]
    return conv(
        inputs[0], tensors["weight"], tensors.get("bias"), config["stride"], config["padding"],
        config["output_padding"], config.get("groups", 1), config["dilation"],
    )  # fmt: skip


def _torch_batch_norm(config, tensors, inputs):
    running = (None, None)
    if not config["training"]:
        running = tensors["running_mean"], tensors["running_var"]
    return F.batch_norm(
        inputs[0], *running, tensors.get("weight"), tensors.get("bias"), config["training"],
        0.1, config["eps"],
    )  # fmt: skip


def _torch_max_pool(config, tensors, inputs):
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[inputs[0].ndim - 3]
    dilation = config.get("dilation", 1)
    return pool(inputs[0], config["size"], config["stride"], config["padding"], dilation)


def _torch_avg_pool(config, tensors, inputs):
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[inputs[0].ndim - 3]
    counted = config["count_include_pad"]
    return pool(inputs[0], config["size"], config["stride"], config["padding"], False, counted)


def _torch_attention(config, tensors, inputs):
    x = inputs[0]
    layer = torch.nn.MultiheadAttention(
        x.shape[-1], config["heads"], bias="in_proj_bias" in tensors, batch_first=True
    )
    layer = layer.to(x.dtype)
    mask = inputs[1] if len(inputs) > 1 else None
    if config.get("causal"):
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    call = {"need_weights": False, "attn_mask": mask}
    return torch.func.functional_call(layer, tensors, (x, x, x), call)[0]


def _torch_norm(config, x):
    return x.shape[x.ndim - config["dims"] :]


TORCH: dict[str, Side] = {
    "linear": lambda c, t, x: F.linear(x[0], t["weight"], t.get("bias")),
    "conv": _torch_conv,
    "conv_transposed": _torch_conv_transposed,
    "embedding": lambda c, t, x: F.embedding(x[0], t["weight"], c.get("padding_idx")),
    "batch_norm": _torch_batch_norm,
    "layer_norm": lambda c, t, x: F.layer_norm(
        x[0], _torch_norm(c, x[0]), t.get("weight"), t.get("bias"), c["eps"]
    ),
    "rms_norm": lambda c, t, x: F.rms_norm(x[0], _torch_norm(c, x[0]), t.get("weight"), c["eps"]),
    "group_norm": lambda c, t, x: F.group_norm(
        x[0], c["groups"], t.get("weight"), t.get("bias"), c["eps"]
    ),
    "instance_norm": lambda c, t, x: F.instance_norm(
        x[0], None, None, t.get("weight"), t.get("bias"), True, 0.1, c["eps"]
    ),
    "relu": lambda c, t, x: F.relu(x[0]),
    "relu6": lambda c, t, x: F.relu6(x[0]),
    "leaky_relu": lambda c, t, x: F.leaky_relu(x[0], c["slope"]),
    "elu": lambda c, t, x: F.elu(x[0], c["alpha"]),
    "gelu": lambda c, t, x: F.gelu(x[0], approximate=c["approximate"]),
    "silu": lambda c, t, x: F.silu(x[0]),
    "sigmoid": lambda c, t, x: torch.sigmoid(x[0]),
    "tanh": lambda c, t, x: torch.tanh(x[0]),
    "softplus": lambda c, t, x: F.softplus(x[0]),
    "hardswish": lambda c, t, x: F.hardswish(x[0]),
    "softmax": lambda c, t, x: F.softmax(x[0], c["axis"]),
    "log_softmax": lambda c, t, x: F.log_softmax(x[0], c["axis"]),
    "max_pool": _torch_max_pool,
    "avg_pool": _torch_avg_pool,
    "mean": lambda c, t, x: x[0].mean(c["axes"], c["keepdims"]),
    "attention": _torch_attention,
    "scaled_dot_product": lambda c, t, x: F.scaled_dot_product_attention(
        *x, is_causal=c["causal"], scale=c["scale"]
    ),
    "cross_entropy": lambda c, t, x: F.cross_entropy(
        x[0].flatten(0, -2), x[1].flatten(), reduction=c["reduction"],
        label_smoothing=c["label_smoothing"],
    ),
    "mse": lambda c, t, x: F.mse_loss(x[0], x[1], reduction=c["reduction"]),
}  # fmt: skip


def _last(x):
    return jnp.moveaxis(x, 1, -1)


def _first(x):
    return jnp.moveaxis(x, -1, 1)


def _load(layer, **arrays):
    for name, array in arrays.items():
        if array is not None:
            setattr(layer, name, type(getattr(layer, name))(array))
    return layer


def _jax_conv(config, tensors, inputs):
    kernel = jnp.transpose(tensors["weight"], (*range(2, inputs[0].ndim), 1, 0))
    layer = nnx.Conv(
        inputs[0].shape[1], kernel.shape[-1], kernel.shape[:-2], config["stride"],
        padding=[tuple(pair) for pair in config["padding"]], kernel_dilation=config["dilation"],
        feature_group_count=config.get("groups", 1), use_bias="bias" in tensors,
        dtype=inputs[0].dtype, rngs=nnx.Rngs(0),
    )  # fmt: skip
    _load(layer, kernel=kernel, bias=tensors.get("bias"))
    return _first(layer(_last(inputs[0])))


def _jax_conv_transposed(config, tensors, inputs):
    """A convolution of the images with zeros in between, its kernel turned around."""
    weight, groups = tensors["weight"], config.get("groups", 1)
    entering, leaving, *size = weight.shape
    kernel = weight.reshape(groups, entering // groups, leaving, *size).swapaxes(1, 2)
    kernel = kernel.reshape(groups * leaving, entering // groups, *size)
    reach = [d * (k - 1) - p for d, k, p in zip(config["dilation"], size, config["padding"])]  # noqa: B905
    output = jax.lax.conv_general_dilated(
        inputs[0], jnp.flip(kernel, range(2, kernel.ndim)), [1] * len(size),
        [(r, r + more) for r, more in zip(reach, config["output_padding"])],  # noqa: B905
        lhs_dilation=config["stride"], rhs_dilation=config["dilation"], feature_group_count=groups,
    )  # fmt: skip
    if "bias" not in tensors:
        return output
    return output + tensors["bias"].reshape(1, -1, *[1] * len(size))


def _jax_embedding(config, tensors, inputs):
    weight, row = tensors["weight"], config.get("padding_idx")
    if row is not None:
        weight = weight.at[row].set(jax.lax.stop_gradient(weight[row]))
    return jnp.take(weight, inputs[0], axis=0)


def _affine(tensors, arrays) -> dict[str, Any]:
    return {
        "epsilon": arrays["eps"], "use_bias": "bias" in tensors, "use_scale": "weight" in tensors,
        "dtype": tensors.get("weight", jnp.zeros(())).dtype, "rngs": nnx.Rngs(0),
    }  # fmt: skip


def _jax_batch_norm(config, tensors, inputs):
    layer = nnx.BatchNorm(
        inputs[0].shape[1], use_running_average=not config["training"], **_affine(tensors, config)
    )
    _load(layer, scale=tensors.get("weight"), bias=tensors.get("bias"))
    _load(layer, mean=tensors.get("running_mean"), var=tensors.get("running_var"))
    return _first(layer(_last(inputs[0])))


def _jax_layer_norm(config, tensors, inputs):
    """Flax's; over several axes as one, since its parameters have one."""
    x, dims = inputs[0], config["dims"]
    flat = x.reshape(*x.shape[: x.ndim - dims], -1)
    layer = nnx.LayerNorm(flat.shape[-1], **_affine(tensors, config))
    parameters = {"scale": tensors.get("weight"), "bias": tensors.get("bias")}
    _load(layer, **{n: None if p is None else p.reshape(-1) for n, p in parameters.items()})
    return layer(flat).reshape(x.shape)


def _jax_rms_norm(config, tensors, inputs):
    options = _affine(tensors, config)
    del options["use_bias"]
    x = inputs[0]
    flat = x.reshape(*x.shape[: x.ndim - config["dims"]], -1)
    layer = nnx.RMSNorm(flat.shape[-1], **options)
    weight = tensors.get("weight")
    _load(layer, scale=None if weight is None else weight.reshape(-1))
    return layer(flat).reshape(x.shape)


def _jax_group_norm(config, tensors, inputs):
    options = _affine(tensors, config)
    layer = nnx.GroupNorm(inputs[0].shape[1], config["groups"], **options)
    _load(layer, scale=tensors.get("weight"), bias=tensors.get("bias"))
    return _first(layer(_last(inputs[0])))


def _jax_instance_norm(config, tensors, inputs):
    layer = nnx.InstanceNorm(inputs[0].shape[1], **_affine(tensors, config))
    _load(layer, scale=tensors.get("weight"), bias=tensors.get("bias"))
    return _first(layer(_last(inputs[0])))


def _pool_options(config) -> tuple:
    return tuple(config["size"]), tuple(config["stride"]), [(p, p) for p in config["padding"]]


def _jax_max_pool(config, tensors, inputs):
    return _first(nnx.max_pool(_last(inputs[0]), *_pool_options(config)))


def _jax_avg_pool(config, tensors, inputs):
    size, stride, padding = _pool_options(config)
    counted = config["count_include_pad"]
    return _first(nnx.avg_pool(_last(inputs[0]), size, stride, padding, counted))


def _jax_attention(config, tensors, inputs):
    x = inputs[0]
    count, length, width = x.shape
    projected = x @ tensors["in_proj_weight"].T + tensors.get("in_proj_bias", 0)
    parts = projected.reshape(count, length, 3, config["heads"], -1)
    mask = inputs[1] if len(inputs) > 1 else None
    options = {}
    if mask is not None:
        options = {"mask": ~mask[None, None]} if mask.dtype == bool else {"bias": mask[None, None]}
    output = jax.nn.dot_product_attention(
        parts[:, :, 0], parts[:, :, 1], parts[:, :, 2], is_causal=config.get("causal", False),
        **options,
    )  # fmt: skip
    flat = output.reshape(count, length, width)
    return flat @ tensors["out_proj.weight"].T + tensors.get("out_proj.bias", 0)


def _jax_scaled_dot_product(config, tensors, inputs):
    query, key, values = (x.swapaxes(1, 2) for x in inputs[:3])
    options = {"is_causal": config["causal"], "scale": config["scale"]}
    if len(inputs) > 3:
        options["mask" if inputs[3].dtype == bool else "bias"] = inputs[3][None, None]
    return jax.nn.dot_product_attention(query, key, values, **options).swapaxes(1, 2)


def _jax_cross_entropy(config, tensors, inputs):
    logits, targets = inputs
    if smoothing := config["label_smoothing"]:
        labels = optax.smooth_labels(jax.nn.one_hot(targets, logits.shape[-1]), smoothing)
        losses = optax.softmax_cross_entropy(logits, labels.astype(logits.dtype))
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses.mean() if config["reduction"] == "mean" else losses.sum()


def _jax_mse(config, tensors, inputs):
    squares = jnp.square(inputs[0] - inputs[1])
    return squares.mean() if config["reduction"] == "mean" else squares.sum()


JAX: dict[str, Side] = {
    "linear": lambda c, t, x: x[0] @ t["weight"].T + t.get("bias", 0),
    "conv": _jax_conv,
    "conv_transposed": _jax_conv_transposed,
    "embedding": _jax_embedding,
    "batch_norm": _jax_batch_norm,
    "layer_norm": _jax_layer_norm,
    "rms_norm": _jax_rms_norm,
    "group_norm": _jax_group_norm,
    "instance_norm": _jax_instance_norm,
    "relu": lambda c, t, x: jax.nn.relu(x[0]),
    "relu6": lambda c, t, x: jax.nn.relu6(x[0]),
    "leaky_relu": lambda c, t, x: jax.nn.leaky_relu(x[0], c["slope"]),
    "elu": lambda c, t, x: jax.nn.elu(x[0], c["alpha"]),
    "gelu": lambda c, t, x: jax.nn.gelu(x[0], approximate=c["approximate"] == "tanh"),
    "silu": lambda c, t, x: jax.nn.silu(x[0]),
    "sigmoid": lambda c, t, x: jax.nn.sigmoid(x[0]),
    "tanh": lambda c, t, x: jnp.tanh(x[0]),
    "softplus": lambda c, t, x: jax.nn.softplus(x[0]),
    "hardswish": lambda c, t, x: jax.nn.hard_swish(x[0]),
    "softmax": lambda c, t, x: jax.nn.softmax(x[0], c["axis"]),
    "log_softmax": lambda c, t, x: jax.nn.log_softmax(x[0], c["axis"]),
    "max_pool": _jax_max_pool,
    "avg_pool": _jax_avg_pool,
    "mean": lambda c, t, x: x[0].mean(c["axes"], keepdims=c["keepdims"]),
    "attention": _jax_attention,
    "scaled_dot_product": _jax_scaled_dot_product,
    "cross_entropy": _jax_cross_entropy,
    "mse": _jax_mse,
}  # fmt: skip


def in_torch(
    kind: str, config: Mapping[str, Any], tensors: Arrays, inputs: Sequence[np.ndarray], cotangent
) -> Gradients:
    """By autograd, in the arrays' own precision; running statistics are no parameters."""
    held = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    given = [torch.from_numpy(x.copy()) for x in inputs]
    given = [x.long() if x.dtype == torch.int32 else x for x in given]
    learned = {n: t for n, t in held.items() if "running" not in n}
    floats = [x for x in given if x.is_floating_point()]
    for tensor in (*learned.values(), *floats):
        tensor.requires_grad_()
    output = TORCH[kind](config, held, given)
    output.backward(torch.from_numpy(np.asarray(cotangent)))
    of_inputs = [None if x.grad is None else x.grad.numpy() for x in given]
    of_tensors = {n: t.grad.numpy() for n, t in learned.items() if t.grad is not None}
    return output.detach().numpy(), of_inputs, of_tensors


def in_jax(kind: str, config: Mapping[str, Any]) -> Callable[..., Gradients]:
    """By jax.vjp, compiled once for all arrays of the same shapes."""

    @jax.jit
    def both(tensors: Arrays, inputs: Sequence[np.ndarray], cotangent):
        floats = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]

        def forward(tensors, given):
            places = dict(zip(floats, given, strict=True))
            return JAX[kind](config, tensors, [places.get(i, x) for i, x in enumerate(inputs)])

        output, pull = jax.vjp(forward, tensors, [inputs[i] for i in floats])
        of_tensors, of_floats = pull(cotangent)
        places = dict(zip(floats, of_floats, strict=True))
        return output, [places.get(i) for i in range(len(inputs))], of_tensors

    def run(tensors: Arrays, inputs: Sequence[np.ndarray], cotangent) -> Gradients:
        output, of_inputs, of_tensors = both(tensors, list(inputs), np.asarray(cotangent))
        return (
            np.asarray(output),
            [None if g is None else np.asarray(g) for g in of_inputs],
            {n: np.asarray(g) for n, g in of_tensors.items() if "running" not in n},
        )

    return run
