"""What torch's layers and functions are called here, and the settings that decide what they do.

`kind` and `config` are what formulas.py computes them by. What is seldom set is told only where it
is set: there no formula is known, and none is taken.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules import batchnorm, conv, instancenorm

Config = dict[str, Any]

# Functions by their names in torch, torch.nn.functional and torch.Tensor; in-place ones end in _.
FUNCTIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "hardtanh": "hardtanh",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "gelu": "gelu",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "logsigmoid": "logsigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "hardswish": "hardswish",
    "mish": "mish",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "max_pool1d": "max_pool",
    "max_pool2d": "max_pool",
    "max_pool3d": "max_pool",
    "avg_pool1d": "avg_pool",
    "avg_pool2d": "avg_pool",
    "avg_pool3d": "avg_pool",
    "adaptive_avg_pool2d": "adaptive_avg_pool",
    "scaled_dot_product_attention": "scaled_dot_product",
    "interpolate": "interpolate",
}


def module(layer: nn.Module) -> tuple[str, Config]:
    """A layer's kind, or its class (torch's own in small letters), and its settings."""
    for classes, kind, settings in MODULES:
        if isinstance(layer, classes):
            return kind, settings(layer)
    own = type(layer)
    if own.__module__.startswith("torch.nn."):
        return own.__name__.lower(), {}
    return f"{own.__module__}.{own.__name__}", {}  # a user's Embedding is not torch's


def _convolution(layer: Any) -> Config:
    dims = len(layer.kernel_size)
    given = layer.padding
    if given == "valid":
        padding = [[0, 0]] * dims
    elif given == "same":
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding = [[span // 2, span - span // 2] for span in spans]
    else:
        padding = [[each, each] for each in given]
    mode = layer.padding_mode
    return {
        "stride": list(layer.stride),
        "padding": padding,
        "dilation": list(layer.dilation),
        "groups": layer.groups,
    } | ({} if mode == "zeros" else {"padding_mode": mode})


def _transposed(layer: Any) -> Config:
    return {
        "stride": list(layer.stride),
        "padding": list(layer.padding),
        "output_padding": list(layer.output_padding),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
    }


def _embedding(layer: Any) -> Config:
    return {} if layer.padding_idx is None else {"padding_idx": layer.padding_idx}


def _attention(layer: Any) -> Config:
    first = {} if layer.batch_first else {"batch_first": False}
    return {"heads": layer.num_heads, "causal": False} | first


MODULES: list[tuple[Any, str, Callable[[Any], Config]]] = [
    (nn.Linear, "linear", lambda layer: {}),
    (conv._ConvTransposeNd, "conv_transposed", _transposed),
    (conv._ConvNd, "conv", _convolution),
    (
        instancenorm._InstanceNorm,
        "instance_norm",
        lambda layer: (
            {"eps": layer.eps} | ({"tracked": True} if layer.running_mean is not None else {})
        ),
    ),
    (
        batchnorm._BatchNorm,
        "batch_norm",
        lambda layer: {"eps": layer.eps, "training": layer.training},
    ),
    (
        nn.LayerNorm,
        "layer_norm",
        lambda layer: {"dims": len(layer.normalized_shape), "eps": layer.eps},
    ),
    (nn.GroupNorm, "group_norm", lambda layer: {"groups": layer.num_groups, "eps": layer.eps}),
    (nn.RMSNorm, "rms_norm", lambda layer: {"dims": len(layer.normalized_shape), "eps": layer.eps}),
    (nn.Embedding, "embedding", _embedding),
    (nn.MultiheadAttention, "attention", _attention),
    (nn.PReLU, "prelu", lambda layer: {}),
    (nn.LSTM, "lstm", lambda layer: {"layers": layer.num_layers}),
]


def function(name: str, inputs: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """The kind of a function by its name and its settings; None for those not looked at.

    Args:
        inputs: its first argument.
        arguments: the others.
    """
    kind = FUNCTIONS.get(name.removesuffix("_"))
    if kind is None:
        return None
    if kind == "hardtanh":
        ends = dict(zip(("min_val", "max_val"), arguments, strict=False)) | dict(options)
        if (ends.get("min_val", -1.0), ends.get("max_val", 1.0)) == (0.0, 6.0):
            return "relu6", {}  # as torch's own ReLU6 calls it
    return kind, SETTINGS.get(kind, lambda *_: {})(inputs, arguments, options)


def _one(name: str, default: Any) -> Callable[..., Config]:
    """The setting that is a function's first one."""

    def read(_: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Config:
        return {name: options.get(name, arguments[0] if arguments else default)}

    return read


def _renamed(name: str, ours: str, default: Any) -> Callable[..., Config]:
    read = _one(name, default)
    return lambda *given: {ours: read(*given)[name]}


def _axis(inputs: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Config:
    return {"axis": options.get("dim", arguments[0] if arguments else -1) % inputs.ndim}


def _pool(inputs: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Config:
    names = ("kernel_size", "stride", "padding")
    given = dict(zip(names, arguments, strict=False)) | dict(options)
    dims = inputs.ndim - 2 if inputs.ndim > 2 else inputs.ndim - 1

    def each(value: Any) -> list[int]:
        return [value] * dims if isinstance(value, int) else list(value)

    size = each(given["kernel_size"])
    stride = given.get("stride")
    found: Config = {
        "size": size,
        "stride": size if stride is None or stride == [] else each(stride),
        "padding": each(given.get("padding", 0)),
    }
    if (extra := given.get("dilation", 1)) not in (1, [1] * dims, (1,) * dims):
        found["dilation"] = extra
    if given.get("ceil_mode"):
        found["ceil_mode"] = True
    return found


def _average(inputs: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Config:
    settings = _pool(inputs, arguments[:3], options)
    included = options.get("count_include_pad", arguments[4] if len(arguments) > 4 else True)
    return settings | {"count_include_pad": bool(included)}


def _attend(inputs: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Config:
    causal = options.get("is_causal", arguments[4] if len(arguments) > 4 else False)
    return {"causal": bool(causal), "scale": options.get("scale")}


SETTINGS: dict[str, Callable[..., Config]] = {
    "leaky_relu": _renamed("negative_slope", "slope", 0.01),
    "elu": _one("alpha", 1.0),
    "gelu": _one("approximate", "none"),
    "softmax": _axis,
    "log_softmax": _axis,
    "max_pool": _pool,
    "avg_pool": _average,
    "scaled_dot_product": _attend,
}
