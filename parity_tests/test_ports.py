"""Ports held to their originals: pairs agree, planted faults do not, set-ups say what is wrong."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from parity_tests import pairs, port_faults
from parity_tests.ports import (
    command,
    hypotheses,
    layouts,
    matching,
    patterns,
    planted,
    steps,
    training,
    wire,
)
from parity_tests.ports.port import Report, compare
from parity_tests.ports.precision import of_precision
from parity_tests.ports.torch_watch import Watch

SLOW = pytest.mark.slow


# ---- whole comparisons


def held(pair: str, **options) -> Report:
    files = (pairs.path(pair, side) for side in ("torch", "flax"))
    original, port = (f"{file}:setup" for file in files)
    return compare(original, port, **options)


@pytest.mark.parametrize(
    "pair", [pair if pair == "lstm" else pytest.param(pair, marks=SLOW) for pair in pairs.SMALL]
)
def test_a_port_that_is_the_original_passes(pair: str):
    report = held(pair, steps=6)
    assert report.passed, report.guilt
    assert not report.matching.only_torch
    assert not report.matching.only_jax
    kinds = {each.kind for each in report.held}
    assert kinds == {"float64", "derived", "compared"}
    assert any(each.phase == "step 6" for each in report.held)
    assert max(each.share for each in report.held if each.kind == "float64") < 1e-2


def test_of_a_large_network_few_steps_are_held_each_from_where_the_original_is(monkeypatch):
    monkeypatch.setattr(training, "MANY", 10)
    monkeypatch.setattr(training, "HELD", (1, 2, 5, 6))
    report = held("lstm", steps=9)
    assert report.passed, report.guilt
    held_steps = [each for each in report.held if re.fullmatch(r"step \d+", each.phase)]
    assert {int(each.phase.split()[1]) for each in held_steps} == {1, 2, 5, 6, 9}
    kept = {each.what.split()[0] for each in held_steps if each.phase == "step 9"}
    assert {"loss", "gradient", "change", "exp_avg", "exp_avg_sq"} <= kept


def test_a_layer_may_be_given_its_state_as_a_pair():
    model = torch.nn.LSTM(3, 4)
    state = torch.zeros(1, 4, requires_grad=True)
    watch = Watch(model, [""])
    with watch:
        model(torch.ones(5, 3), (state, 2 * state))[0].sum().backward()
    found = [f"0.in.{place}{end}" for place in range(3) for end in ("", ".gradient")]
    assert [key for key in found if key not in watch.found] == ["0.in.0.gradient"]


@pytest.mark.slow
def test_torchvisions_resnet_passes():
    report = held("resnet18", steps=2, examples=2)
    assert report.passed, report.guilt
    assert report.layers == 41


SOME_FAULTS = [
    next(fault for fault in port_faults.FAULTS if fault.pair == pair)
    for pair in ("lstm", "resnet", "gpt", "vit")
]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault.pair == "lstm" else SLOW, id=fault.name)
        for fault in SOME_FAULTS
    ],
)
def test_a_planted_fault_is_noticed_named_and_explained(fault: port_faults.Fault):
    noticed = planted.notice(fault)
    assert noticed.said
    assert noticed.layer
    assert noticed.suspect


TORCH = """
import numpy as np, torch
from torch import nn
def setup():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3))
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(6, 5)).astype("float32"), draw.integers(3, size=6)
    CHANGED
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    return model, optimizer, [(torch.from_numpy(x), torch.from_numpy(y))]
"""
FLAX = """
import jax, numpy as np, optax
from flax import nnx
class Model(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b, self.c = (nnx.Linear(*of, rngs=rngs) for of in ((5, 7), (7, 7), (7, 3)))
    def __call__(self, x):
        return self.c(nnx.relu(self.b(nnx.relu(self.a(x)))))
def setup():
    model, draw = Model(nnx.Rngs(0)), np.random.default_rng(0)
    x, y = draw.normal(size=(6, 5)).astype("float32"), draw.integers(3, size=6)
    CHANGED
    return model, optax.adam(0.01), [(x, y)]
"""


def written(directory: Path, original: str = TORCH, port: str = FLAX) -> tuple[str, str]:
    for name, text in (("original", original), ("port", port)):
        (directory / f"{name}.py").write_text(text.replace("CHANGED", ""))
    return f"{directory}/original.py:setup", f"{directory}/port.py:setup"


@pytest.mark.slow
def test_an_optax_transformation_is_held_too(tmp_path: Path):
    good = compare(*written(tmp_path), steps=12)
    assert good.passed, good.guilt
    assert any("exp_avg" in each.what for each in good.held)
    bad = FLAX.replace("optax.adam(0.01)", "optax.adam(0.01, eps=1e-4)")
    guilt = compare(*written(tmp_path, port=bad), steps=2).guilt
    assert guilt is not None
    assert (guilt.place, guilt.suspects[0][0]) == ("optimizer", "eps")


def test_what_went_wrong_before_reaches_no_other_layer(tmp_path: Path):
    bad = FLAX.replace("nnx.relu(self.a(x))", "nnx.gelu(self.a(x))")
    report = compare(*written(tmp_path, port=bad), steps=1)
    failed = [each for each in report.held if not each.passed]
    alone = {each.place for each in failed if not each.phase.startswith("step")}
    assert alone == {"relu after 0"}
    assert {each.phase.partition(",")[0] for each in failed} == {"forward", "backward", "step 1"}
    assert report.guilt is not None
    assert report.guilt.suspects[0] == ("activation", "gelu approximate tanh")


WRONG = {
    "a missing layer": ("port", "(7, 7), (7, 3)", "(7, 3), (3, 3)", r"2\.weight .* no partner"),
    "another width": (
        "original",
        "nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3)",
        "nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 3)",
        r"2\.weight \(8, 7\) has no partner .*b\.kernel \(7, 7\)",
    ),
    "examples in another order": ("port", "CHANGED", "x, y = x[::-1], y[::-1]", "another order"),
    "other targets": ("port", "CHANGED", "y = 2 - y", "its targets"),
    "a NaN": (
        "original",
        "CHANGED",
        "model[2].weight.data[1, 2] = float('nan')",
        r"the original .*: 1 of the 49 numbers of 2\.weight are not finite",
    ),
    "a NaN in the port": (
        "port",
        "CHANGED",
        "model.b.kernel[...] = model.b.kernel[...].at[1, 2].set(np.nan)",
        r"the port .*: 1 of the 49 numbers of b\.kernel are not finite",
    ),
    "no torch module": ("original", "return model, ", "return 3, ", "the model is a int"),
    "an error": ("port", "CHANGED", "raise KeyError('where')", r"KeyError: 'where' \(port.py"),
}


@pytest.mark.parametrize(
    "what", [w if w == "a NaN" else pytest.param(w, marks=SLOW) for w in WRONG]
)
def test_a_wrong_set_up_gets_one_line(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    side, old, new, line = WRONG[what]
    texts = {"original": TORCH, "port": FLAX}
    assert old in texts[side]
    texts[side] = texts[side].replace(old, new)
    original, port = written(tmp_path, texts["original"], texts["port"])
    with pytest.raises(SystemExit) as ended:
        command.main(["--torch", original, "--jax", port, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    errors = capfd.readouterr().err.splitlines()
    (error,) = [each for each in errors if each.startswith("error: ")]
    assert re.search(line, error)
    assert not any("Traceback" in each for each in errors)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--torch", "a.py:f", "--jaks", "b.py:f"], "unrecognized arguments: --jaks"),
        (["--torch", "a.py:f"], "--jax is missing"),
        (["--torch", "a.py:f", "--jax", "b.py:f", "--steps", "0"], "--steps 0 must be at least 1"),
    ],
)
def test_flags_that_are_wrong_get_one_line(
    flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        command.main(flags)
    assert ended.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error


@pytest.mark.slow
def test_modes_that_differ_and_weights_converted_wrongly_are_told(tmp_path: Path):
    model = "nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))"
    original = re.sub(r"nn\.Sequential\(.*\)", f"{model}.eval()", TORCH)
    port = FLAX.replace("self.b(nnx.relu(self.a(x)))", "self.b(self.a(x))").replace(
        "nnx.Linear(*of, rngs=rngs) for of in ((5, 7), (7, 7), (7, 3))",
        "nnx.Linear(5, 7, rngs=rngs), nnx.BatchNorm(7, momentum=0.9, rngs=rngs), "
        "nnx.Linear(7, 3, rngs=rngs)",
    )
    report = compare(*written(tmp_path, original, port), steps=1)
    assert any("evaluation mode, the port in training mode" in note for note in report.notes)
    assert report.guilt is not None
    assert (report.guilt.phase, report.guilt.suspects[0][0]) == ("statistics", "unbiased")

    loaded = FLAX.replace("CHANGED", "fill(model)") + FILL
    guilt = compare(*written(tmp_path, TORCH, loaded), steps=1).guilt
    assert guilt is not None
    assert (guilt.place, guilt.what) == ("2", "the port's own b.kernel")


FILL = """
def fill(model):
    import torch
    torch.manual_seed(0)
    layers = torch.nn.Linear(5, 7), torch.nn.Linear(7, 7), torch.nn.Linear(7, 3)
    for linear, given in zip((model.a, model.b, model.c), layers):
        linear.kernel[...] = given.weight.detach().numpy().T
        linear.bias[...] = given.bias.detach().numpy()
    model.b.kernel[...] = model.b.kernel[...].T
"""


@pytest.mark.slow
def test_the_command_leaves_a_table_weights_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from safetensors.numpy import load_file

    original, port = written(tmp_path)
    flags = ["--torch", original, "--jax", port, "--steps", "2", "--out", str(tmp_path / "out")]
    weights = tmp_path / "port.safetensors"
    given = tmp_path / "pairs.json"
    given.write_text('{"b.kernel": "2.weight"}')
    with pytest.raises(SystemExit) as ended:
        command.main([*flags, "--save-weights", str(weights), "--pairs", str(given)])
    assert ended.value.code == 0
    assert "The port is the original" in capsys.readouterr().out
    torch.manual_seed(0)
    first = torch.nn.Linear(5, 7)
    np.testing.assert_array_equal(load_file(weights)["a.kernel"], first.weight.detach().numpy().T)
    result = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert result["passed"]
    assert len(result["tensors"]) == 6

    given.write_text('{"b.kernal": "2.weight"}')
    with pytest.raises(SystemExit) as ended:
        command.main([*flags, "--pairs", str(given)])
    assert ended.value.code == 2
    assert "b.kernel meant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "own", "foreign"),
    [("torch_side", "torch", {"jax", "flax", "optax"}), ("jax_side", "jax", {"torch", "torchref"})],
)
def test_a_side_loads_nothing_of_the_other(module: str, own: str, foreign: set[str]):
    code = (
        f"import sys, parity_tests.ports.{module}\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert own in names
    assert not names & foreign


# ---- its parts


def test_messages_are_json_and_numbers():
    stream = io.BytesIO()
    arrays = {"a": np.arange(6.0).reshape(2, 3)[:, ::2], "b": np.array(3, np.int32)}
    wire.send(stream, {"x": [1, "é"]}, arrays)
    stream.seek(0)
    message = wire.receive(stream)
    assert message == {"x": [1, "é"]}
    for name, array in arrays.items():
        np.testing.assert_array_equal(message.arrays[name], array, strict=True)
    with pytest.raises(EOFError):
        wire.receive(stream)


def test_objects_are_not_passed_on():
    header = b'{"told": {}, "arrays": {"a": ["|O", [1]]}}\n'
    with pytest.raises(ValueError, match="not passed on"):
        wire.receive(io.BytesIO(header + bytes(8)))


@pytest.mark.parametrize(
    ("shape", "port"), [((6, 3, 2, 5), (2, 5, 3, 6)), ((8, 5), (5, 2, 4)), ((8,), (2, 4)), ((), ())]
)
def test_every_layout_leads_there_and_back(shape: tuple[int, ...], port: tuple[int, ...]):
    array = np.random.default_rng(0).normal(size=shape)
    found = layouts.layouts(shape, port, tuple(range(2, len(shape))))
    assert found
    for layout in found:
        assert layout.to_jax(array).shape == port
        np.testing.assert_array_equal(layout.to_torch(layout.to_jax(array)), array)


def tensor(name: str, *shape: int, kind: str = "linear") -> matching.Tensor:
    owner, _, local = name.rpartition(".")
    found = {"name": name, "shape": list(shape), "sort": "parameter", "owner": owner}
    return found | {"local": local, "kind": kind, "config": {}}


def test_fused_tensors_are_matched_in_their_parts():
    torch_side = [tensor("qkv.weight", 12, 4), tensor("out.weight", 4, 4)]
    jax_side = [tensor(f"attention.{name}.kernel", 4, 2, 2) for name in ("query", "key", "value")]
    jax_side.append(tensor("attention.out.kernel", 2, 2, 4))
    found = matching.match(torch_side, jax_side)
    assert not found.only_torch + found.only_jax
    values = {"qkv.weight": np.arange(48.0).reshape(12, 4), "out.weight": np.eye(4)}
    port = found.to_jax(values)
    np.testing.assert_array_equal(
        port["attention.key.kernel"], values["qkv.weight"][4:8].T.reshape(4, 2, 2)
    )
    back = found.to_torch(port)
    for name, value in values.items():
        np.testing.assert_array_equal(back[name], value)
    apart = [tensor(f"attention.{name}.weight", 4, 4) for name in ("q", "k", "v")]
    other = matching.match(apart, [tensor("attention.qkv.kernel", 4, 12)])
    assert not other.only_torch + other.only_jax
    squares = {each["name"]: np.random.default_rng(0).normal(size=(4, 4)) for each in apart}
    (joined,) = other.to_jax(squares).values()
    np.testing.assert_array_equal(joined[:, 4:8], squares["attention.k.weight"].T)
    assert other.to_torch({"attention.qkv.kernel": joined}).keys() == squares.keys()
    squares.pop("attention.k.weight")  # as a gradient may be
    assert not other.to_jax(squares)


def test_layers_stacked_for_a_scan_are_matched_one_by_one():
    def tensors(names, shape):
        kinds = {"sort": "parameter", "kind": "linear", "config": {}, "local": "weight"}
        return [{"name": n, "shape": shape, "owner": n.rpartition(".")[0], **kinds} for n in names]

    torch_ = tensors([f"blocks.{i}.{n}.weight" for i in range(3) for n in ("k", "q")], [5, 5])
    jax_ = tensors(["blocks.k.kernel", "blocks.q.kernel"], [3, 5, 5])
    for hints in ({}, {"blocks.q.kernel": "blocks.0.q.weight"}):
        found = matching.match(torch_, jax_, hints)
        assert not found.only_torch
        assert not found.only_jax
        draw = np.random.default_rng(0)
        squares = {each["name"]: draw.normal(size=(5, 5)) for each in torch_}
        there = found.to_jax(squares)
        rows = [squares[f"blocks.{i}.q.weight"].T for i in range(3)]
        np.testing.assert_array_equal(there["blocks.q.kernel"], rows)
        back = found.to_torch(there)
        for name, square in squares.items():
            np.testing.assert_array_equal(back[name], square)


def test_layers_of_one_number_are_matched():
    one = {"sort": "parameter", "kind": "prelu", "config": {}, "local": "weight", "owner": "p"}
    found = matching.match(
        [{"name": "p.weight", "shape": [1], **one}],
        [{"name": "p.negative_slope", "shape": [], **one}],
    )
    there = found.to_jax({"p.weight": np.array([0.25])})
    assert there["p.negative_slope"].shape == ()
    assert found.to_torch(there)["p.weight"].shape == (1,)


def test_a_row_of_an_embedding_is_no_example():
    gradient = np.random.default_rng(0).normal(size=(30, 4))
    other = gradient * (np.arange(30) != 7)[:, None]
    assert "only in row 7 of 30" in patterns.words(gradient, other, weights=True)


def test_clipped_gradients_are_recognised():
    rules = steps.Rules("adam", 1e-3, 0.0, {}, eps=1e-8)
    draw = np.random.default_rng(0)
    starts, gradients = draw.normal(size=(2, 3, 4)), draw.normal(size=(2, 3, 4))
    norms = [float(np.linalg.norm(each)) for each in gradients]
    shorter = [each / norm for each, norm in zip(gradients, norms, strict=True)]
    change = steps.changes(rules, list(starts), shorter)
    found = steps.clipped(rules, list(starts), list(gradients), norms)
    (fits,) = [each.words for each in found if np.allclose(each.value, change, rtol=1e-9, atol=0)]
    assert fits == "with gradients clipped to a norm of 1"


def differences() -> Iterator[tuple[np.ndarray, str]]:
    array = np.random.default_rng(0).normal(size=(4, 3, 6, 6))
    yield 3 * array, "constant factor, 3"
    yield array + 2, "constant shift, 2"
    yield array + np.arange(3)[:, None, None], "shift of each channel"
    yield array * np.arange(1, 4)[:, None, None], "factor of each channel"
    yield array[:, :, ::-1], "another order"
    yield np.where(np.arange(6) == 5, array + 1, array), "border"
    moved = array.copy()
    moved[:, 1] += array[:, 0]
    yield moved, "only in channel 1 of 3"
    yield array[:2], "its shape is (2, 3, 6, 6)"
    yield np.full_like(array, np.nan), "not finite"


@pytest.mark.parametrize(("changed", "words"), list(differences()))
def test_a_difference_is_described(changed: np.ndarray, words: str):
    array = np.random.default_rng(0).normal(size=(4, 3, 6, 6))
    assert words in patterns.words(array, changed)


@pytest.mark.parametrize(("dtype", "words"), [("bfloat16", "bfloat16"), ("float16", "float16")])
def test_a_shorter_format_is_recognised(dtype: str, words: str):
    exact = np.random.default_rng(0).normal(size=(50, 50))
    short = torch.from_numpy(exact).to(getattr(torch, dtype)).float().numpy()
    ((suspect, told),) = of_precision(exact, short)
    assert suspect == "precision"
    assert words in told
    assert not list(of_precision(exact, exact.astype(np.float32)))


OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}, {"beta1": 0.9, "beta2": 0.999}),
    "adamw": (torch.optim.AdamW, {}, {"beta1": 0.9, "beta2": 0.999}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9}, {"alpha": 0.99, "momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {}, {}),
    "sgd": (
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_of_a_hypothesis_start_from_torchs_own(name: str):
    kind, options, told = OPTIMIZERS[name]
    draw = np.random.default_rng(0)
    weight = torch.nn.Parameter(torch.from_numpy(draw.normal(size=(3, 4))))
    options = options if name == "sgd" else {**options, "eps": 1e-4}
    optimizer = kind([weight], lr=0.1, weight_decay=0.01, **options)
    starts, gradients = [], []
    for _ in range(4):
        starts.append(weight.detach().numpy().copy())
        gradients.append(draw.normal(size=(3, 4)))
        weight.grad = torch.from_numpy(gradients[-1])
        optimizer.step()
    change = weight.detach().numpy() - starts[-1]
    eps = optimizer.defaults.get("eps", 0.0)
    rules = steps.Rules(name, 0.1, 0.01, told, eps)
    np.testing.assert_allclose(steps.changes(rules, starts, gradients), change, 1e-12, 1e-14)
    others = [each.value for each in steps.fitting(rules, starts, gradients)]
    assert others
    assert not any(np.allclose(each, change, 1e-9, 0) for each in others)


def test_the_lstm_of_a_hypothesis_is_torchs_own():
    torch.manual_seed(0)
    layer = torch.nn.LSTM(4, 5, batch_first=True).double()
    inputs = torch.randn(3, 6, 4, dtype=torch.float64)
    tensors = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    ours = hypotheses._lstm(inputs.numpy(), tensors)
    np.testing.assert_allclose(ours, layer(inputs)[0].detach().numpy(), 1e-12, 1e-14)
