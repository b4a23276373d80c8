"""The usual suspects: what a layer would give if one thing about it were otherwise."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.ports import formulas

Config = Mapping[str, Any]
Tensors = Mapping[str, np.ndarray]
EPS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
SLOPES = (0.01, 0.02, 0.1, 0.2, 0.25, 0.3)
MOMENTA = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 0.9, 0.95, 0.97, 0.99, 0.997, 0.999)
PADS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))  # before and behind
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


class Hypothesis(NamedTuple):
    suspect: str  # a short word
    words: str  # what the port would do
    value: np.ndarray


def of_layer(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Hypothesis]:
    """Outputs of a layer under each hypothesis.

    Args:
        kind, config: the original's.
        inputs: what went into the layer, in float64.
    """
    for suspect, words, changed in _changed(kind, config, tensors, inputs):
        other, settings, weights = changed
        with np.errstate(all="ignore"):
            try:
                value = formulas.value(other, settings, weights, inputs)
            except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError):
                continue  # such a layer does not take these inputs
        if value is not None:
            yield Hypothesis(suspect, words, value)
    if kind == "conv_transposed":
        yield from _cropped(config, tensors, inputs)
    if kind == "group_norm" and inputs[0].ndim > 2:
        last = np.moveaxis(inputs[0], 1, -1)
        flat = formulas.value(kind, config, tensors, [last.reshape(-1, last.shape[-1])])
        if flat is not None:
            value = np.moveaxis(flat.reshape(last.shape), -1, 1)
            yield Hypothesis("axis", "over each pixel by itself", value)


def _cropped(
    config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Hypothesis]:
    """A transposed convolution that is cut elsewhere: its padding is uneven, as SAME's is."""
    own = formulas.value("conv_transposed", config, tensors, inputs)
    none = [0] * len(config["stride"])
    whole = {**config, "padding": none, "output_padding": none}
    plain = {name: value for name, value in tensors.items() if name != "bias"}
    full = formulas.value("conv_transposed", whole, plain, inputs)
    if own is None or full is None:
        return
    bias = tensors.get("bias", np.zeros(1)).reshape(-1, *(1 for _ in none))
    most = max(tensors["weight"].shape[2:])
    padded = np.pad(full, [(0, 0), (0, 0), *((most, most) for _ in none)])
    for low in range(2 * most):
        window = [slice(low, low + size) for size in own.shape[2:]]
        value = padded[(slice(None), slice(None), *window)] + bias
        if value.shape == own.shape:
            yield Hypothesis("padding", f"cut {low - most} places in, before", value)


Changed = tuple[str, str, tuple[str, Config, Tensors]]


def _changed(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Changed]:
    if kind in NORMS:
        yield from _norms(kind, config, tensors, inputs)
    if kind in ("conv", "conv_transposed", "linear"):
        yield from _weights(kind, config, tensors, inputs)
    if kind in ("max_pool", "avg_pool"):
        yield from _pools(kind, config, tensors, inputs)
    if kind in ("softmax", "log_softmax"):
        for axis in range(inputs[0].ndim):
            if axis != config["axis"]:
                yield "axis", f"over axis {axis}", (kind, {"axis": axis}, tensors)
    if kind in ("attention", "scaled_dot_product"):
        yield from _attentions(kind, config, tensors, inputs)
    if kind in ACTIVATIONS:
        for other, settings in _activations():
            words = f"{other} {_shown(settings)}".strip()
            yield _word(kind, config, other, settings), words, (other, settings, {})
    for name in tensors:
        if name.endswith("bias"):
            zero = {**tensors, name: np.zeros_like(tensors[name])}
            yield "missing bias", f"without {name}", (kind, config, zero)
        if kind in NORMS and name == "weight":
            one = {**tensors, name: np.ones_like(tensors[name])}
            yield "missing scale", f"without {name}", (kind, config, one)


ACTIVATIONS = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "softplus",
    "hardswish",
)


def of_function(inputs: np.ndarray) -> Iterator[Hypothesis]:
    """Every activation of an array."""
    for kind, config in _activations():
        value = formulas.value(kind, config, {}, [inputs])
        if value is not None:
            yield Hypothesis("activation", f"{kind} {_shown(config)}".strip(), value)


def _activations() -> Iterator[tuple[str, Config]]:
    for kind in ACTIVATIONS:
        if kind == "gelu":
            yield from ((kind, {"approximate": way}) for way in ("none", "tanh"))
        elif kind == "leaky_relu":
            yield from ((kind, {"slope": slope}) for slope in SLOPES)
        elif kind == "elu":
            yield kind, {"alpha": 1.0}
        else:
            yield kind, {}


def _word(kind: str, config: Config, other: str, settings: Config) -> str:
    if kind == other == "gelu":
        return "approximate"
    if kind == other == "leaky_relu":
        return "slope"
    return "activation"


def _shown(config: Config) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items())


def _norms(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Changed]:
    for eps in EPS:
        if eps != config["eps"]:
            words = f"eps {eps:g} (the original's: {config['eps']:g})"
            yield "eps", words, (kind, {**config, "eps": eps}, tensors)
    x = inputs[0]
    trailing = {"layer_norm": 1, "rms_norm": 1}
    eps = config["eps"]
    if kind == "batch_norm":
        mode = not config["training"]
        words = "the batch's statistics" if mode else "the running statistics"
        yield "running average", words, (kind, {**config, "training": mode}, tensors)
    if kind == "group_norm":
        channels = x.shape[1]
        for groups in range(1, channels + 1):
            if channels % groups == 0 and groups != config["groups"]:
                yield "groups", f"{groups} groups", (kind, {**config, "groups": groups}, tensors)
    if kind in trailing:
        other = "rms_norm" if kind == "layer_norm" else "layer_norm"
        words = "without subtracting the mean" if other == "rms_norm" else "less the mean"
        yield "mean", words, (other, config, tensors)
        for dims in range(1, x.ndim):
            if dims != config["dims"]:
                words = f"over the last {dims} axes"
                yield "axis", words, (kind, {**config, "dims": dims}, tensors)
    # The usual doubles: an unbiased variance is n / (n - 1) times as large, eps as it is.
    count = _averaged(kind, config, x)
    if count > 1:
        larger = (count - 1) / count
        scaled = {**tensors, "weight": tensors.get("weight", np.ones(1)) * np.sqrt(larger)}
        changed = {**config, "eps": eps * larger}
        if "weight" in tensors:
            yield "unbiased", "with the unbiased variance", (kind, changed, scaled)


def _averaged(kind: str, config: Config, x: np.ndarray) -> int:
    """Of how many numbers a normalisation takes the variance."""
    if kind == "batch_norm":
        return x.size // x.shape[1] if config["training"] else 0
    if kind == "layer_norm":
        return int(np.prod(x.shape[x.ndim - config["dims"] :]))
    if kind == "group_norm":
        return x[0].size // config["groups"]
    return 0


def _weights(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Changed]:
    weight = tensors["weight"]
    if weight.shape[0] == weight.shape[1]:
        turned = {**tensors, "weight": np.swapaxes(weight, 0, 1)}
        yield "transposed", "with the weight transposed", (kind, config, turned)
    space = tuple(range(2, weight.ndim))
    if not space:
        return
    reversed_ = {**tensors, "weight": np.flip(weight, space)}
    yield "flipped", "with the kernel reversed in space", (kind, config, reversed_)
    crossed = {**tensors, "weight": np.swapaxes(weight, -1, -2)}
    if weight.shape[-1] == weight.shape[-2] and len(space) > 1:
        yield "transposed", "with rows and columns of the kernel exchanged", (kind, config, crossed)
    if kind == "conv":
        for name, padding in _paddings(config, weight.shape[2:], inputs[0].shape[2:]):
            yield "padding", name, (kind, {**config, "padding": padding}, tensors)
        for stride in (1, 2):
            changed = {**config, "stride": [stride] * len(space)}
            yield "stride", f"stride {stride}", (kind, changed, tensors)
        for dilation in (1, 2, 3):
            changed = {**config, "dilation": [dilation] * len(space)}
            yield "dilation", f"dilation {dilation}", (kind, changed, tensors)
    else:
        for padding, more in itertools.product(range(weight.shape[2]), (0, 1)):
            changed = {
                **config,
                "padding": [padding] * len(space),
                "output_padding": [more] * len(space),
            }
            for suspect, held in (("padding", tensors), ("padding", reversed_)):
                words = f"padding {padding}, output padding {more}"
                yield suspect, words, (kind, changed, held)


def _paddings(
    config: Config, kernel: Sequence[int], image: Sequence[int]
) -> Iterator[tuple[str, list[list[int]]]]:
    """SAME as XLA and TensorFlow have it, which is uneven at stride 2; VALID; other numbers."""
    same = []
    for size, k, stride, dilation in zip(
        image, kernel, config["stride"], config["dilation"], strict=True
    ):
        span = dilation * (k - 1) + 1
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        same.append([total // 2, total - total // 2])
    yield "padding SAME, which is uneven at this stride", same
    yield "padding VALID", [[0, 0] for _ in kernel]
    for low, high in itertools.product(range(4), repeat=2):
        yield f"padding ({low}, {high})", [[low, high] for _ in kernel]


def _pools(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Changed]:
    dims = len(config["size"])
    if kind == "avg_pool":
        included = not config["count_include_pad"]
        words = "padding counted" if included else "padding not counted"
        yield "count_include_pad", words, (kind, {**config, "count_include_pad": included}, tensors)
    plain = {name: value for name, value in config.items() if name != "count_include_pad"}
    other = "avg_pool" if kind == "max_pool" else "max_pool"
    yield "pooling", other, (other, plain, tensors)
    ways = [
        config["size"],
        *([size] * dims for size in (2, 3, 4) if [size] * dims != config["size"]),
    ]
    steps = [config["stride"], *([step] * dims for step in (1, 2, 3))]
    for size, stride, padding in itertools.product(ways, steps, PADS):
        changed = {**config, "size": size, "stride": stride, "padding": [list(padding)] * dims}
        words = f"window {tuple(size)}, stride {tuple(stride)}, padding {padding}"
        yield (
            ("padding" if size == config["size"] else "window"),
            words,
            (
                kind,
                changed,
                tensors,
            ),
        )


def _attentions(
    kind: str, config: Config, tensors: Tensors, inputs: Sequence[np.ndarray]
) -> Iterator[Changed]:
    causal = not config.get("causal", False)
    words = "with a causal mask" if causal else "without the causal mask"
    yield "mask", words, (kind, {**config, "causal": causal}, tensors)
    if kind == "scaled_dot_product":
        depth = inputs[0].shape[-1]
        for words, scale in (
            ("without 1/√d", 1.0),
            ("with 1/d", 1 / depth),
            ("with 1/√(heads · d)", (inputs[0].shape[1] * depth) ** -0.5),
        ):
            yield "scale", words, (kind, {**config, "scale": scale}, tensors)
        return
    width, heads = inputs[0].shape[-1], config["heads"]
    depth = width // heads
    for words, factor in (
        ("without 1/√d", depth**0.5),
        ("with 1/d", depth**-0.5),
        ("with 1/√(heads · d)", heads**-0.5),
    ):
        yield "scale", words, (kind, config, _queries(tensors, width, factor))
    for other in range(1, width + 1):
        if width % other == 0 and other != heads:
            yield "heads", f"{other} heads", (kind, {**config, "heads": other}, tensors)
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            names = ", ".join(("query", "key", "value")[each] for each in order)
            moved = dict(tensors)
            for name in ("in_proj_weight", "in_proj_bias"):
                if name in tensors:
                    parts = np.split(tensors[name], 3)
                    moved[name] = np.concatenate([parts[each] for each in order])
            yield "order", f"with {names} in this order", (kind, config, moved)


def _queries(tensors: Tensors, width: int, factor: float) -> Tensors:
    """With all queries multiplied."""
    moved = dict(tensors)
    for name in ("in_proj_weight", "in_proj_bias"):
        if name in tensors:
            moved[name] = tensors[name].copy()
            moved[name][:width] *= factor
    return moved


# ---- attention, written out


def of_attention(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, config: Config
) -> Iterator[Hypothesis]:
    """softmax(scale · q kᵀ) v with another scale, mask, axis or precision; (N, H, T, D)."""
    depth, heads = queries.shape[-1], queries.shape[1]
    scale = config.get("scale") or depth**-0.5
    causal = config.get("causal", False)
    places = np.arange(queries.shape[2])[:, None], np.arange(keys.shape[2])[None]
    masks = {
        "without a mask": np.ones((len(places[0]), places[1].size), bool),
        "with a causal mask": places[0] >= places[1],
        "with a causal mask that shows the next place": places[0] + 1 >= places[1],
        "with a causal mask that hides the place itself": places[0] > places[1],
        "with a mask that shows what comes after": places[0] <= places[1],
    }
    own = masks["with a causal mask" if causal else "without a mask"]
    for words, mask in masks.items():
        yield Hypothesis("mask", words, _attended(queries, keys, values, scale, mask))
    shown = _attended(queries, keys, values, scale, own, hidden=0.0)
    yield Hypothesis("mask", "with masked scores of 0, or near it, which hide nothing", shown)
    for words, other in (
        ("without 1/√d", 1.0),
        ("with 1/d", 1 / depth),
        ("with 1 over the root of all heads' width", (heads * depth) ** -0.5),
    ):
        yield Hypothesis("scale", words, _attended(queries, keys, values, other, own))
    over_queries = _attended(queries, keys, values, scale, own, axis=-2)
    yield Hypothesis("axis", "with the softmax over the queries", over_queries)


def _attended(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    scale: float,
    mask: np.ndarray,
    axis: int = -1,
    hidden: float = -np.inf,
) -> np.ndarray:
    with np.errstate(all="ignore"):
        scores = np.where(mask, scale * (queries @ keys.swapaxes(-1, -2)), hidden)
        powers = np.exp(scores - scores.max(axis, keepdims=True))
        return powers / powers.sum(axis, keepdims=True) @ values


# ---- recurrent layers


def of_lstm(inputs: np.ndarray, tensors: Tensors) -> Iterator[Hypothesis]:
    """A layer of LSTM over (N, T, C): its gates in another order, another bias, another way."""
    names = ("input", "forget", "cell", "output")
    for order in itertools.permutations(range(4)):
        if order != (0, 1, 2, 3):
            words = "with the gates in the order " + ", ".join(names[each] for each in order)
            yield Hypothesis("order", words, _lstm(inputs, tensors, order))
    forget = _lstm(inputs, tensors, forget=1.0)
    yield Hypothesis("forget bias", "with 1 added to the forget gate", forget)
    back = _lstm(inputs[:, ::-1], tensors)
    yield Hypothesis("order", "from the last place to the first", back)
    yield Hypothesis("order", "from the last place to the first", back[:, ::-1])
    if inputs.shape[0] > 1:
        across = _lstm(inputs.swapaxes(0, 1), tensors).swapaxes(0, 1)
        yield Hypothesis("axis", "over examples in the place of places", across)
    for name in tensors:
        if name.startswith("bias"):
            without = {**tensors, name: np.zeros_like(tensors[name])}
            yield Hypothesis("missing bias", f"without {name}", _lstm(inputs, without))


def _lstm(
    inputs: np.ndarray,
    tensors: Tensors,
    order: Sequence[int] = (0, 1, 2, 3),
    forget: float = 0.0,
) -> np.ndarray:
    """h of every place, from zeros (Hochreiter and Schmidhuber 1997, with Gers' forget gate)."""
    into, across = tensors["weight_ih_l0"], tensors["weight_hh_l0"]
    bias = tensors.get("bias_ih_l0", 0.0) + tensors.get("bias_hh_l0", 0.0)
    width = across.shape[1]
    hidden = cell = np.zeros((len(inputs), width))
    found = []
    for place in range(inputs.shape[1]):
        parts = np.split(inputs[:, place] @ into.T + hidden @ across.T + bias, 4, axis=1)
        i, f, g, o = (parts[each] for each in order)
        cell = logistic(f + forget) * cell + logistic(i) * np.tanh(g)
        hidden = logistic(o) * np.tanh(cell)
        found.append(hidden)
    return np.stack(found, axis=1)


def logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


# ---- statistics


def of_statistic(
    name: str, before: np.ndarray, after: np.ndarray, momentum: float, count: int
) -> Iterator[Hypothesis]:
    """A running mean or variance after a batch, by other rules than torch's.

    Args:
        before, after: the original's.
        momentum: torch's.
        count: numbers that the batch's statistic is taken over.
    """
    batch = (after - (1 - momentum) * before) / momentum
    yield Hypothesis("not updated", "not updated at all", before)
    reversed_ = momentum * before + (1 - momentum) * batch
    words = f"with momentum reversed: {1 - momentum:g} of the new in the place of {momentum:g}"
    yield Hypothesis("momentum", words, reversed_)
    for other in MOMENTA:
        if other not in (momentum, 1 - momentum):
            words = f"with {other:g} of the new in the place of {momentum:g}"
            yield Hypothesis("momentum", words, (1 - other) * before + other * batch)
    if name.endswith("var") and count > 1:
        biased = batch * (count - 1) / count
        words = "of the biased variance (of n, not of n - 1): Flax' own, torch keeps the unbiased"
        yield Hypothesis("unbiased", words, (1 - momentum) * before + momentum * biased)
        both = momentum * before + (1 - momentum) * biased
        yield Hypothesis("momentum", "with momentum reversed, of the biased variance", both)


# ---- losses


def of_loss(outputs: np.ndarray, targets: np.ndarray, loss: float) -> Iterator[Hypothesis]:
    """The loss with another reduction or smoothing.

    Args:
        loss: the original's.
    """
    for words, count in _counts(outputs, targets):
        value = np.asarray(loss * count)
        yield Hypothesis("reduction", f"the sum over {count} {words} in the place of a mean", value)
        yield Hypothesis("reduction", f"divided by {count} {words}", np.asarray(loss / count))
    if targets.dtype.kind not in "iu" or outputs.ndim not in (2, 3, 4):
        return
    classes = next((a for a in (-1, 1) if _without(outputs, a) == targets.shape), None)
    if classes is None:
        return
    scores = np.moveaxis(outputs, classes, -1).reshape(-1, outputs.shape[classes])
    chosen = targets.reshape(-1)
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    true, number = logs[np.arange(len(chosen)), chosen], logs.shape[1]
    for smoothing in (0.0, 0.01, 0.05, 0.1, 0.2):
        rest = logs.sum(1) - true
        over_all = -((1 - smoothing) * true + smoothing * logs.mean(1))
        others = -((1 - smoothing) * true + smoothing * rest / (number - 1))
        words = f"with label smoothing {smoothing:g}" if smoothing else "without label smoothing"
        yield Hypothesis("smoothing", words, np.asarray(over_all.mean()))
        if smoothing:
            words = f"{words} over the other classes alone"
            yield Hypothesis("smoothing", words, np.asarray(others.mean()))


def _without(array: np.ndarray, axis: int) -> tuple[int, ...]:
    shape = list(array.shape)
    shape.pop(axis)
    return tuple(shape)


def _counts(outputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[str, int]]:
    seen = {1}
    for words, count in (
        ("examples", len(outputs)),
        ("targets", targets.size),
        ("numbers", outputs.size),
        ("classes", outputs.shape[-1]),
    ):
        if count not in seen:
            seen.add(count)
            yield words, count
