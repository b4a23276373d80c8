"""The layers' formulas: equal to autograd's in float64, and bounds that both sides keep to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import torch

from jaxmlp.device.precision import precision
from jaxmlp.experiment import Experiment
from parity_tests.bounds import UNIT, Bounded
from parity_tests.formula_sides import Arrays, Gradients, in_jax, in_torch
from parity_tests.ports.formulas import FORMULAS, Pass, batch_statistics, run, value

SEEDS = range(3)
LEAST = 1e-4  # of its bound the worst of a few dozen errors uses at least so much
NOTHING_ROUNDED = {
    "relu": {"output", "input 0"},
    "relu6": {"output", "input 0"},
    "leaky_relu": {"output"},
    "max_pool": {"output", "input 0"},
    "embedding": {"output"},
}
Inputs = list[np.ndarray]


@dataclass(frozen=True)
class Case:
    """A layer with its shapes; numbers are drawn from a seed, in float32."""

    kind: str
    config: dict[str, Any]
    inputs: Callable[[np.random.Generator], Inputs]
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def draw(self, seed: int) -> tuple[Arrays, Inputs, np.ndarray]:
        """Tensors, inputs, cotangent."""
        draw = np.random.default_rng(seed)
        tensors = {name: _tensor(draw, name, shape) for name, shape in self.tensors.items()}
        inputs = self.inputs(draw)
        output = value(self.kind, self.config, tensors, inputs)
        assert output is not None
        cotangent = np.asarray(draw.normal(size=output.shape), np.float32)
        return tensors, inputs, cotangent


def _tensor(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "running_var":
        return draw.uniform(0.1, 3, shape).astype(np.float32)
    size = np.sqrt(np.prod(shape[1:], dtype=int))
    return (draw.normal(size=shape) / size).astype(np.float32)


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Callable:
    return lambda draw: [np.float32(scale * draw.normal(size=shape) + shift)]


def constant(*shape: int) -> Callable:
    return lambda draw: [np.full(shape, draw.normal(), np.float32)]


def off(*shape: int) -> Callable:
    """After a ReLU: zeros, and hence ties."""
    return lambda draw: [np.float32(np.maximum(draw.normal(size=shape), 0))]


def nothing(*shape: int) -> Callable:
    return lambda draw: [np.zeros(shape, np.float32)]


def whole(below: int, *shape: int) -> Callable:
    return lambda draw: [np.int32(draw.integers(below, size=shape))]


def together(*parts: Callable) -> Callable:
    return lambda draw: [array for part in parts for array in part(draw)]


def causal_mask(length: int, kind: str) -> Callable:
    blocked = np.triu(np.ones((length, length), bool), 1)
    masks = {
        "blocked": blocked,
        "admitted": ~blocked,
        "minus infinity": np.where(blocked, -np.inf, 0).astype(np.float32),
        "large": np.where(blocked, -1e9, 0.5).astype(np.float32),
    }
    return lambda draw: [masks[kind]]


def conv(stride, padding, dilation, groups: int = 1) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    return dict(zip(names, (stride, padding, dilation, groups), strict=True))


def transposed(stride, padding, output_padding, dilation, groups: int = 1) -> dict[str, Any]:
    return conv(stride, padding, dilation, groups) | {"output_padding": output_padding}


def pool(size, stride, padding, **more) -> dict[str, Any]:
    return {"size": size, "stride": stride, "padding": padding, **more}


def affine(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"weight": shape, "bias": shape}


RUNNING = {"running_mean": (5,), "running_var": (5,)}
BATCH = {"eps": 1e-5, "training": True}
FROZEN = {"eps": 1e-5, "training": False}
ATTENTION = {
    "in_proj_weight": (36, 12), "in_proj_bias": (36,),
    "out_proj.weight": (12, 12), "out_proj.bias": (12,),
}  # fmt: skip
UNBIASED = {name: shape for name, shape in ATTENTION.items() if "bias" not in name}
HEADS = (normal(2, 3, 7, 4), normal(2, 3, 5, 4), normal(2, 3, 5, 4))
SQUARE = (normal(2, 3, 5, 4), normal(2, 3, 5, 4), normal(2, 3, 5, 4))
PLAIN = {"causal": False, "scale": None}
ENTROPY = {"reduction": "mean", "label_smoothing": 0.0}

# fmt: off
CASES = {
    "linear": Case("linear", {}, normal(4, 7), {"weight": (5, 7), "bias": (5,)}),
    "linear without bias": Case("linear", {}, normal(1, 300), {"weight": (3, 300)}),
    "linear on sequences": Case("linear", {}, normal(2, 3, 7, shift=50), affine(5, 7) | {"bias": (5,)}),
    "conv 1d": Case("conv", conv([2], [[1, 2]], [1]), normal(2, 4, 9), {"weight": (6, 4, 3), "bias": (6,)}),
    "conv 2d": Case("conv", conv([1, 1], [[1, 1], [1, 1]], [1, 1]), normal(3, 4, 7, 6), {"weight": (5, 4, 3, 3), "bias": (5,)}),
    "conv 2d by 1": Case("conv", conv([1, 1], [[0, 0], [0, 0]], [1, 1]), normal(3, 4, 7, 6), {"weight": (5, 4, 1, 1)}),
    "conv 2d in groups": Case("conv", conv([2, 1], [[0, 1], [2, 2]], [1, 2], 2), normal(1, 4, 9, 8), {"weight": (6, 2, 3, 2)}),
    "conv 2d depthwise": Case("conv", conv([2, 2], [[1, 1], [1, 1]], [1, 1], 4), normal(2, 4, 7, 7), {"weight": (4, 1, 3, 3), "bias": (4,)}),
    "conv 2d of a stem": Case("conv", conv([2, 2], [[3, 3], [3, 3]], [1, 1]), normal(2, 3, 17, 15), {"weight": (8, 3, 7, 7)}),
    "conv 2d, large mean": Case("conv", conv([1, 1], [[1, 1], [1, 1]], [1, 1]), normal(2, 4, 6, 5, shift=100), {"weight": (3, 4, 3, 3), "bias": (3,)}),
    "conv 3d": Case("conv", conv([1, 2, 1], [[1, 1], [0, 0], [1, 0]], [1, 1, 2]), normal(2, 2, 4, 5, 6), {"weight": (3, 2, 2, 3, 2), "bias": (3,)}),
    "transposed 1d": Case("conv_transposed", transposed([3], [1], [2], [1]), normal(2, 4, 5), {"weight": (4, 3, 4), "bias": (3,)}),
    "transposed 2d": Case("conv_transposed", transposed([2, 2], [1, 1], [1, 1], [1, 1]), normal(2, 4, 5, 6), {"weight": (4, 3, 3, 3), "bias": (3,)}),
    "transposed 2d in groups": Case("conv_transposed", transposed([2, 1], [0, 2], [0, 0], [2, 1], 2), normal(1, 4, 5, 6), {"weight": (4, 3, 2, 3)}),
    "embedding": Case("embedding", {}, whole(6, 3, 8), {"weight": (6, 5)}),
    "embedding with padding": Case("embedding", {"padding_idx": 2}, whole(6, 3, 8), {"weight": (6, 5)}),
    "batch norm": Case("batch_norm", BATCH, normal(4, 5, 3, 6), affine(5)),
    "batch norm of rows": Case("batch_norm", BATCH, normal(8, 5), affine(5)),
    "batch norm without parameters": Case("batch_norm", BATCH, normal(4, 5, 3, 6)),
    "batch norm, large mean": Case("batch_norm", BATCH, normal(4, 5, 3, 6, shift=100), affine(5)),
    "batch norm, huge mean": Case("batch_norm", BATCH, normal(4, 5, 3, 6, shift=1e4), affine(5)),
    "batch norm of constants": Case("batch_norm", BATCH, constant(4, 5, 3, 6), affine(5)),
    "batch norm, small": Case("batch_norm", BATCH, normal(4, 5, 3, 6, scale=1e-3), affine(5)),
    "batch norm, one image": Case("batch_norm", BATCH, normal(1, 5, 3, 6), affine(5)),
    "batch norm, evaluation": Case("batch_norm", FROZEN, normal(4, 5, 3, 6), affine(5) | RUNNING),
    "batch norm, evaluation, large mean": Case("batch_norm", FROZEN, normal(4, 5, 3, 6, shift=1000), affine(5) | RUNNING),
    "layer norm": Case("layer_norm", {"dims": 1, "eps": 1e-5}, normal(2, 3, 16), affine(16)),
    "layer norm, wide": Case("layer_norm", {"dims": 1, "eps": 1e-6}, normal(3, 400), affine(400)),
    "layer norm, small": Case("layer_norm", {"dims": 1, "eps": 1e-5}, normal(2, 3, 16, scale=1e-3), affine(16)),
    "layer norm over two axes": Case("layer_norm", {"dims": 2, "eps": 1e-5}, normal(4, 3, 5), {"weight": (3, 5)}),
    "layer norm, large mean": Case("layer_norm", {"dims": 1, "eps": 1e-5}, normal(2, 3, 16, shift=-300), affine(16)),
    "layer norm of constants": Case("layer_norm", {"dims": 1, "eps": 1e-5}, constant(2, 3, 16), affine(16)),
    "layer norm without parameters": Case("layer_norm", {"dims": 1, "eps": 1e-5}, normal(1, 16)),
    "group norm": Case("group_norm", {"groups": 3, "eps": 1e-5}, normal(2, 6, 3, 5), affine(6)),
    "group norm, one group": Case("group_norm", {"groups": 1, "eps": 1e-5}, normal(1, 6, 7), affine(6)),
    "group norm, large mean": Case("group_norm", {"groups": 2, "eps": 1e-5}, normal(2, 6, 3, 5, shift=30), affine(6)),
    "instance norm": Case("instance_norm", {"eps": 1e-5}, normal(2, 3, 4, 5), affine(3)),
    "instance norm without parameters": Case("instance_norm", {"eps": 1e-5}, normal(2, 3, 4, 5)),
    "rms norm": Case("rms_norm", {"dims": 1, "eps": 1e-6}, normal(2, 3, 16), {"weight": (16,)}),
    "rms norm over two axes": Case("rms_norm", {"dims": 2, "eps": 1e-6}, normal(4, 3, 5, shift=10)),
    "relu": Case("relu", {}, normal(4, 50)),
    "relu at 0": Case("relu", {}, off(4, 50)),
    "relu6": Case("relu6", {}, normal(4, 50, scale=5)),
    "leaky relu": Case("leaky_relu", {"slope": 0.01}, normal(4, 50)),
    "leaky relu at 0": Case("leaky_relu", {"slope": 0.2}, off(4, 50)),
    "elu": Case("elu", {"alpha": 1.0}, normal(4, 50, scale=3)),
    "elu, other alpha": Case("elu", {"alpha": 0.7}, normal(4, 50, scale=0.1)),
    "gelu": Case("gelu", {"approximate": "none"}, normal(4, 100, scale=3)),
    "gelu near 0": Case("gelu", {"approximate": "none"}, normal(4, 100, scale=0.01)),
    "gelu by tanh": Case("gelu", {"approximate": "tanh"}, normal(4, 100, scale=3)),
    "silu": Case("silu", {}, normal(4, 100, scale=6)),
    "sigmoid": Case("sigmoid", {}, normal(4, 100, scale=8)),
    "tanh": Case("tanh", {}, normal(4, 100, scale=3)),
    "softplus": Case("softplus", {}, normal(4, 100, scale=15)),
    "hardswish": Case("hardswish", {}, normal(4, 100, scale=3)),
    "softmax": Case("softmax", {"axis": -1}, normal(4, 3, 30, scale=5)),
    "softmax over channels": Case("softmax", {"axis": 1}, normal(4, 10, 3, shift=80)),
    "log softmax": Case("log_softmax", {"axis": -1}, normal(4, 30, scale=5)),
    "log softmax over channels": Case("log_softmax", {"axis": 1}, normal(4, 10, 3, shift=80)),
    "max pool": Case("max_pool", pool([2, 2], [2, 2], [0, 0]), normal(2, 3, 8, 7)),
    "max pool, overlapping": Case("max_pool", pool([3, 3], [2, 2], [1, 1]), normal(2, 3, 9, 8)),
    "max pool after relu": Case("max_pool", pool([3, 3], [2, 2], [1, 1]), off(2, 3, 9, 8)),
    "max pool 1d": Case("max_pool", pool([3], [1], [1]), normal(2, 3, 9)),
    "avg pool": Case("avg_pool", pool([2, 3], [2, 3], [0, 0], count_include_pad=True), normal(2, 3, 8, 9)),
    "avg pool, padded": Case("avg_pool", pool([3, 3], [2, 1], [1, 1], count_include_pad=True), normal(2, 3, 8, 7)),
    "avg pool, padding not counted": Case("avg_pool", pool([3, 3], [2, 1], [1, 1], count_include_pad=False), normal(2, 3, 8, 7)),
    "avg pool 3d": Case("avg_pool", pool([2, 3, 2], [2, 3, 2], [0, 0, 0], count_include_pad=True), normal(2, 3, 4, 5, 6)),
    "mean": Case("mean", {"axes": [2, 3], "keepdims": True}, normal(2, 3, 5, 7)),
    "mean of a sequence": Case("mean", {"axes": [1], "keepdims": False}, normal(2, 30, 7, shift=20)),
    "attention": Case("attention", {"heads": 3}, normal(2, 5, 12), ATTENTION),
    "attention without biases": Case("attention", {"heads": 2}, normal(1, 9, 12), UNBIASED),
    "attention, long": Case("attention", {"heads": 1}, normal(1, 70, 12), ATTENTION),
    "attention, causal": Case("attention", {"heads": 3, "causal": True}, normal(2, 5, 12), ATTENTION),
    "attention, blocked": Case("attention", {"heads": 3}, together(normal(2, 5, 12), causal_mask(5, "blocked")), ATTENTION),
    "attention, added": Case("attention", {"heads": 3}, together(normal(2, 5, 12), causal_mask(5, "large")), ATTENTION),
    "scaled dot product": Case("scaled_dot_product", PLAIN, together(*HEADS)),
    "scaled dot product, causal": Case("scaled_dot_product", {"causal": True, "scale": 0.3}, together(*SQUARE)),
    "scaled dot product, admitted": Case("scaled_dot_product", PLAIN, together(*SQUARE, causal_mask(5, "admitted"))),
    "scaled dot product, minus infinity": Case("scaled_dot_product", PLAIN, together(*SQUARE, causal_mask(5, "minus infinity"))),
    "cross entropy": Case("cross_entropy", ENTROPY, together(normal(8, 10, scale=4), whole(10, 8))),
    "cross entropy, sum": Case("cross_entropy", ENTROPY | {"reduction": "sum"}, together(normal(8, 10, shift=50), whole(10, 8))),
    "cross entropy, smoothed": Case("cross_entropy", ENTROPY | {"label_smoothing": 0.1}, together(normal(8, 10), whole(10, 8))),
    "cross entropy of sequences": Case("cross_entropy", ENTROPY, together(normal(2, 5, 7), whole(7, 2, 5))),
    "mse": Case("mse", {"reduction": "mean"}, together(normal(4, 7), normal(4, 7))),
    "mse, sum": Case("mse", {"reduction": "sum"}, together(normal(4, 7), normal(4, 7, shift=100))),
}
TORCH_ALONE = {  # XLA has no gradient of it
    "max pool, dilated": Case("max_pool", pool([2, 3], [1, 2], [0, 1], dilation=[2, 1]), normal(2, 3, 9, 8)),
}
# fmt: on


def truth(case: Case, tensors: Arrays, inputs: Inputs, cotangent, dtype="float32") -> Pass:
    done = run(case.kind, case.config, tensors, inputs, cotangent, UNIT[dtype])
    assert done is not None
    return done


def pairs(true: Pass, side: Gradients) -> Iterator[tuple[str, Bounded, np.ndarray]]:
    """Every tensor that a side gives a gradient to, beside its truth, and the output."""
    output, of_inputs, of_tensors = side
    yield "output", true.output, output
    assert len(true.input_gradients) == len(of_inputs)
    for i, (expected, computed) in enumerate(zip(true.input_gradients, of_inputs, strict=True)):
        if expected is not None:
            assert computed is not None
            yield f"input {i}", expected, computed
    assert set(true.gradients) == set(of_tensors)
    for name, computed in of_tensors.items():
        yield name, true.gradients[name], computed


def shares(true: Pass, side: Gradients) -> dict[str, float]:
    """The worst error of each tensor, in bounds."""
    worst = {}
    for name, expected, computed in pairs(true, side):
        assert computed.shape == expected.value.shape, name
        distance = np.abs(computed.astype(np.float64) - expected.value)
        share = np.where(distance == 0, 0, distance / np.maximum(expected.error, 1e-300))
        worst[name] = float(np.max(np.where(np.isnan(share), np.inf, share), initial=0))
    return worst


@cache
def compiled(name: str) -> Callable[..., Gradients]:
    return in_jax(CASES[name].kind, CASES[name].config)


def test_every_formula_has_a_case():
    assert {case.kind for case in CASES.values()} == set(FORMULAS)


@pytest.mark.parametrize("name", [*CASES, *TORCH_ALONE])
def test_in_float64_value_and_gradients_are_autograds(name):
    case = (CASES | TORCH_ALONE)[name]
    for seed in SEEDS:
        tensors, inputs, cotangent = case.draw(seed)
        tensors = {n: t.astype(np.float64) for n, t in tensors.items()}
        inputs = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
        true = truth(case, tensors, inputs, cotangent.astype(np.float64), "float64")
        side = in_torch(case.kind, case.config, tensors, inputs, cotangent.astype(np.float64))
        # Both are rounded, each within the bound.
        assert max(shares(true, side).values()) <= 2
        if "of constants" not in name and "at 0" not in name and "after relu" not in name:
            for tensor, expected, computed in pairs(true, side):
                size = 1 + np.abs(expected.value).max(initial=0)
                assert np.abs(computed - expected.value).max(initial=0) <= 1e-9 * size, tensor


@pytest.mark.parametrize("name", CASES)
def test_in_float32_both_sides_stay_within_bounds_that_say_something(name):
    case, worst = CASES[name], []
    with precision(Experiment(precision="float32")):
        for seed in SEEDS:
            tensors, inputs, cotangent = case.draw(seed)
            true = truth(case, tensors, inputs, cotangent)
            for side in (
                in_torch(case.kind, case.config, tensors, inputs, cotangent),
                compiled(name)(tensors, inputs, cotangent),
            ):
                assert side[0].dtype == np.float32
                worst.append(shares(true, side))
    used = {tensor: max(found[tensor] for found in worst) for tensor in worst[0]}
    print(name, {tensor: f"{share:.2g}" for tensor, share in used.items()})
    assert max(used.values()) <= 1
    for tensor, share in used.items():
        assert share > LEAST or tensor in NOTHING_ROUNDED.get(case.kind, ()), tensor


WRONG = {  # another formula that somebody might have meant
    "eps": ("batch norm, small", {"eps": 1e-6}),
    "eps of a layer norm": ("layer norm, small", {"eps": 1e-6}),
    "statistics": ("batch norm, evaluation", {"training": True}),
    "groups of a norm": ("group norm", {"groups": 2}),
    "padding": ("conv 1d", {"padding": [[2, 1]]}),
    "padding of a pool": ("avg pool, padded", {"count_include_pad": False}),
    "padding index": ("embedding", {"padding_idx": 2}),
    "gelu by tanh": ("gelu", {"approximate": "tanh"}),
    "slope": ("leaky relu", {"slope": 0.0101}),
    "axis": ("softmax over channels", {"axis": -1}),
    "heads": ("attention", {"heads": 2}),
    "causality": ("attention", {"causal": True}),
    "scale": ("scaled dot product", {"scale": 1.0}),
    "reduction": ("cross entropy", {"reduction": "sum"}),
    "smoothing": ("cross entropy", {"label_smoothing": 0.001}),
}


@pytest.mark.parametrize("fault", WRONG)
def test_another_formula_lies_outside(fault):
    name, change = WRONG[fault]
    case = CASES[name]
    tensors, inputs, cotangent = case.draw(0)
    true = truth(case, tensors, inputs, cotangent)
    side = in_torch(case.kind, case.config | change, tensors, inputs, cotangent)
    assert max(shares(true, side).values()) > 2


@pytest.mark.parametrize("shift", [0, 3, 100, 3000])
@pytest.mark.parametrize("scale", [1e-3, 1])
def test_a_norm_s_other_implementations_stay_within_its_bounds(shift, scale):
    """In NumPy's float32: E[x²] - m², x·(r·w) + (b - m·r·w), and its gradient as a·g + b·x + c."""
    case = Case("batch_norm", BATCH, normal(64, 5, scale=scale, shift=shift), affine(5))
    for seed in SEEDS:
        tensors, (x,), g = case.draw(seed)
        weight, bias = tensors["weight"], tensors["bias"]
        count = np.float32(len(x))
        mean, square = x.sum(0) / count, (x * x).sum(0) / count
        root = 1 / np.sqrt(np.maximum(square - mean * mean, 0) + np.float32(1e-5))
        factor = root * weight
        output = x * factor + (bias - mean * factor)
        of_bias, uncentred = g.sum(0), (g * x).sum(0)
        projection = uncentred - mean * of_bias
        b = -projection * weight * root * root * root / count
        c = -b * mean - of_bias * factor / count
        gradients = {"weight": projection * root, "bias": of_bias}
        side = output, [factor * g + b * x + c], gradients
        assert {output.dtype, side[1][0].dtype} == {np.dtype("float32")}
        found = shares(truth(case, tensors, [x], g), side)
        assert max(found.values()) <= 1, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 3, 6), (2, 5, 40)])
def test_running_statistics_are_torchs(shape, dtype):
    draw = np.random.default_rng(1)
    x = draw.normal(3, 2, shape).astype(dtype)
    old = {"running_mean": draw.normal(size=5), "running_var": draw.uniform(1, 2, 5)}
    old = {name: array.astype(dtype) for name, array in old.items()}
    true = batch_statistics([x], {"momentum": 0.1}, old, UNIT[dtype])
    new = {name: torch.from_numpy(array.copy()) for name, array in old.items()}
    mean, var = new["running_mean"], new["running_var"]
    torch.nn.functional.batch_norm(torch.from_numpy(x), mean, var, training=True, momentum=0.1)
    axes = (0, *range(2, x.ndim))
    with precision(Experiment(precision=dtype)):
        mean = jax.numpy.mean(x, axes)
        variance = jax.numpy.mean(x * x, axes) - mean * mean
        unbiased = variance * (x.size / 5 / (x.size / 5 - 1))
        batch = {"running_mean": mean, "running_var": unbiased}
        other = {n: np.asarray(0.9 * old[n] + 0.1 * array) for n, array in batch.items()}
    for name, expected in true.items():
        for computed in (new[name].numpy(), other[name]):
            assert computed.dtype == dtype
            assert (np.abs(computed - expected.value) <= 2 * expected.error).all()
        assert (expected.error < 100 * UNIT[dtype] * np.abs(x).max() ** 2).all()
    biased = old["running_var"] * 0.9 + x.var(axes) * 0.1
    assert (np.abs(biased - true["running_var"].value) > true["running_var"].error).all()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("lstm", {}),
        ("gelu", {"approximate": "quick"}),
        ("relu", {"inplace": True}),
        ("layer_norm", {"dims": 1}),
        ("mse", {"reduction": "none"}),
    ],
)
def test_what_has_no_formula_is_said_so(kind, config):
    x = np.ones((2, 3), np.float32)
    assert run(kind, config, {}, [x, x], None, UNIT["float32"]) is None
    assert value(kind, config, {}, [x, x]) is None


def test_targets_that_are_left_out_have_no_formula():
    x = np.ones((2, 3), np.float32)
    for targets in (np.array([0, -100]), np.eye(3, dtype=np.float32)[:2]):
        assert run("cross_entropy", ENTROPY, {}, [x, targets], None, UNIT["float32"]) is None


def test_of_equal_maxima_any_may_have_the_gradient():
    x = np.array([[[1, 1, 0, 2]]], np.float32)
    g = np.array([[[3, 5]]], np.float32)
    true = run("max_pool", pool([2], [2], [0]), {}, [x], g, UNIT["float32"])
    assert true is not None
    (gradient,) = true.input_gradients
    assert gradient is not None
    assert gradient.value.tolist() == [[[3, 0, 0, 5]]]
    np.testing.assert_allclose(gradient.error, [[[3, 3, 0, 0]]], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "kink", "slopes"),
    [
        ("relu", {}, 0, (0, 0)),
        ("relu6", {}, 0, (0, 1)),
        ("relu6", {}, 6, (0, 1)),
        ("leaky_relu", {"slope": 0.25}, 0, (0.25, 1)),
        ("elu", {"alpha": 1.0}, 0, (1, 1)),
        ("elu", {"alpha": 0.5}, 0, (0.5, 1)),
        ("hardswish", {}, -3, (-0.5, 0)),
        ("hardswish", {}, 3, (1, 1.5)),
    ],
)
def test_on_a_kink_either_slope_is_right_and_nothing_beyond(kind, config, kink, slopes):
    x, g = np.full(1, kink, np.float32), np.ones(1, np.float32)
    true = run(kind, config, {}, [x], g, UNIT["float32"])
    assert true is not None
    (gradient,) = true.input_gradients
    assert gradient is not None
    assert min(slopes) - 1e-5 <= gradient.value[0] <= max(slopes) + 1e-5
    spread = max(slopes) - min(slopes)
    np.testing.assert_allclose(gradient.error[0], spread, atol=1e-5)
    (of_torch,), (of_jax,) = (
        in_torch(kind, config, {}, [x], g)[1],
        in_jax(kind, config)({}, [x], g)[1],
    )
    assert of_torch is not None
    assert of_jax is not None
    np.testing.assert_allclose(of_torch, gradient.value, atol=1e-6)
    assert np.abs(of_jax - gradient.value) <= gradient.error


def test_where_a_variance_may_come_out_as_nothing_no_gradient_need_pass_through_it():
    config = BATCH
    for scale, may in ((4e-4, True), (4e-3, False)):
        draw = np.random.default_rng(5)
        x = (0.3 + scale * draw.normal(size=(20, 2))).astype(np.float32)
        g = draw.normal(size=x.shape).astype(np.float32)
        true = run("batch_norm", config, {}, [x], g, UNIT["float32"])
        assert true is not None
        (gradient,) = true.input_gradients
        assert gradient is not None
        root = 1 / np.sqrt(x.var(0, dtype=np.float64) + config["eps"])
        without = root * (g - g.mean(0, dtype=np.float64))
        assert (np.abs(without - gradient.value) <= gradient.error).all() == may


def test_sums_that_are_centred_afterwards_stay_within_the_bound():
    """One after another, all of one sign: what an order of sums can do."""
    x = np.full((20_000, 1), 1000.3, np.float32)
    g = np.ones_like(x)
    tensors = {"weight": np.ones(1), "running_mean": x[0] - 1, "running_var": np.ones(1)}
    true = run("batch_norm", FROZEN, tensors, [x], g, UNIT["float32"])
    assert true is not None
    of_weight = np.cumsum(g * x, dtype=np.float32)[-1] - tensors["running_mean"] * len(x)
    error = np.abs(of_weight / np.sqrt(1 + 1e-5) - true.gradients["weight"].value)
    assert 0.01 * true.gradients["weight"].error < error <= true.gradients["weight"].error


def by_erfc(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    phi = np.float32(0.5) * torch.erfc(torch.from_numpy(-x * np.float32(np.sqrt(0.5)))).numpy()
    density = np.exp(-x * x / 2) * np.float32(np.sqrt(0.5 / np.pi))
    return x * phi, g * phi + g * x * density


def by_logaddexp(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = np.logaddexp(x, np.float32(0))
    return value, g * np.exp(x - value)


def by_log_sum_exp(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = x.max(1, keepdims=True)
    p = np.exp(x - (largest + np.log(np.exp(x - largest).sum(1, keepdims=True))))
    return p, p * g - p * (p * g).sum(1, keepdims=True)


def by_tanh(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = np.float32(0.5) + np.float32(0.5) * np.tanh(x / 2)
    return value, g * value * (1 - value)


OTHERS = {  # implementations, in NumPy's float32
    "gelu": ("gelu", {"approximate": "none"}, by_erfc, 1),
    "softplus": ("softplus", {}, by_logaddexp, 20),
    "softmax": ("softmax", {"axis": 1}, by_log_sum_exp, 300),
    "sigmoid near 0": ("sigmoid", {}, by_tanh, 0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_implementations_stay_within_the_bounds(name):
    kind, config, implementation, scale = OTHERS[name]
    draw = np.random.default_rng(6)
    x = (scale * draw.normal(size=(50, 20)) + scale / 2).astype(np.float32)
    g = draw.normal(size=x.shape).astype(np.float32)
    true = run(kind, config, {}, [x], g, UNIT["float32"])
    assert true is not None
    output, gradient = implementation(x, g)
    assert {output.dtype, gradient.dtype} == {np.dtype("float32")}
    assert max(shares(true, (output, [gradient], {})).values()) <= 1


def test_a_fused_attention_stays_within_the_bounds():
    """Probabilities from the log-sum-exp, Σ p·dp from the output, the quotient after the product."""
    draw = np.random.default_rng(7)
    q, k, v, g = (draw.normal(size=(2, 3, 40, 8)).astype(np.float32) for _ in range(4))
    true = run("scaled_dot_product", {"scale": 0.5}, {}, [q, k, v], g, UNIT["float32"])
    assert true is not None
    half = np.float32(0.5)
    scores = (q * half) @ k.swapaxes(-1, -2)
    largest = scores.max(-1, keepdims=True)
    exponentials = np.exp(scores - largest)
    total = exponentials.sum(-1, keepdims=True)
    output = (exponentials @ v) / total
    p = np.exp(scores - (largest + np.log(total)))
    of_scores = p * (g @ v.swapaxes(-1, -2) - (g * output).sum(-1, keepdims=True))
    of_q, of_k = of_scores @ k * half, of_scores.swapaxes(-1, -2) @ q * half
    of_v = p.swapaxes(-1, -2) @ g
    assert {output.dtype, of_q.dtype} == {np.dtype("float32")}
    found = shares(true, (output, [of_q, of_k, of_v], {}))
    assert max(found.values()) <= 1, found


def test_just_below_hardswish_s_upper_kink_either_slope_is_right():
    x = np.nextafter(np.full(1, 3, np.float32), np.float32(0))
    g = np.ones(1, np.float32)
    assert x + np.float32(3) == 6
    true = run("hardswish", {}, {}, [x], g, UNIT["float32"])
    assert true is not None
    for side in (in_torch("hardswish", {}, {}, [x], g), in_jax("hardswish", {})({}, [x], g)):
        assert max(shares(true, side).values()) <= 1
