"""What scripts/transport.py prints, executed: CNNs that train identically with scaled inputs."""

import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlp.commands import flags
from jaxmlp.commands import run as run_jax
from jaxmlp.commands import transport as command
from jaxmlp.experiment import Experiment
from jaxmlp.law import explanation
from jaxmlp.law.rules import RULES, scaling_rule
from jaxmlp.law.templates import DIRECTIONS
from jaxmlp.law.transport import SCHEMES, transport

STEPS, SCALE = 8, 64.0
IMAGES = np.random.default_rng(0).uniform(0, 1, (6, 8, 7, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1])
COMMON = ["--learning-rate", "0.05", "--weight-decay", "0.1"]
EPS = ["--eps", "0.001"]
OPTAX = {
    "sgd": [],
    "adam": EPS,
    "adamw": EPS,
    "rmsprop": [*EPS, "--momentum", "0.5"],
    "adagrad": EPS,
    "lion": [],
    "amsgrad": EPS,
    "adabelief": EPS,
    "yogi": EPS,
    "signsgd": [],
    "lars": EPS,
    "lamb": EPS,
    "novograd": EPS,
}
TORCH = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "amsgrad")


def emitted(capsys, *flags: str) -> str:
    command.main([*flags])
    return capsys.readouterr().out


# ---- optax


def initial_params() -> dict:
    draw = np.random.default_rng(1)

    def normal(*shape: int):
        return jnp.asarray(0.3 * draw.normal(size=shape), jnp.float32)

    return {
        "conv": {"kernel": normal(3, 3, 3, 5), "bias": normal(5)},
        "dense": {"kernel": normal(6 * 5 * 5, 4), "bias": normal(4)},
    }


def cnn(params: dict, images):
    """GELU and a sum over places: nothing in it is homogeneous."""
    hidden = jax.lax.conv_general_dilated(
        images,
        params["conv"]["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    hidden = jax.nn.gelu(hidden + params["conv"]["bias"])
    return hidden.reshape(len(hidden), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]


def loss_of(params: dict, images):
    return optax.softmax_cross_entropy_with_integer_labels(cnn(params, images), LABELS).mean()


def optax_losses(code: str, scale: float) -> list[float]:
    """What a user would do with the code."""
    namespace: dict = {"params": initial_params()}
    exec(code, namespace)
    params, optimizer = namespace["params"], namespace["optimizer"]
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, images):
        loss, grads = jax.value_and_grad(loss_of)(params, images)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(STEPS):
        params, state, loss = step(params, state, scale * IMAGES)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("optimizer", OPTAX)
def test_the_optax_code_trains_a_cnn_identically(optimizer, capsys):
    asked = [
        "--optimizer",
        optimizer,
        *COMMON,
        *OPTAX[optimizer],
        "--emit",
        "optax",
        "--weight",
        "conv/kernel",
    ]
    plain = optax_losses(emitted(capsys, *asked, "--input-scale", "1"), 1.0)
    moved = optax_losses(emitted(capsys, *asked, "--input-scale", str(SCALE)), SCALE)
    assert moved == plain
    assert len(set(plain)) == STEPS  # it does train
    spoilt = optax_losses(emitted(capsys, *asked, "--input-scale", "1"), SCALE)
    assert abs(spoilt[0] - plain[0]) > 0.01


ALIASES = {
    "adamw": lambda: optax.adamw(0.05, eps=1e-3, weight_decay=0.1),
    "lion": lambda: optax.lion(0.05, weight_decay=0.1),
    "lamb": lambda: optax.lamb(0.05, eps=1e-3, weight_decay=0.1),
    "lars": lambda: optax.lars(
        0.05, 0.1, momentum=0.9, trust_coefficient=1.0, eps=1e-3, trust_ratio_mask=True
    ),
    "novograd": lambda: optax.novograd(0.05, b2=0.25, eps=1e-3, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", ALIASES)
def test_the_optax_code_is_what_optax_calls_by_that_name(optimizer, capsys):
    code = emitted(
        capsys,
        "--optimizer",
        optimizer,
        *COMMON,
        *OPTAX[optimizer],
        "--emit",
        "optax",
        "--weight",
        "conv/kernel",
        "--input-scale",
        "1",
    )
    namespace: dict = {"params": initial_params()}
    exec(code, namespace)
    params = initial_params()
    chains = namespace["optimizer"], ALIASES[optimizer]()
    states = [chain.init(params) for chain in chains]
    for _ in range(3):
        grads = jax.grad(loss_of)(params, IMAGES)
        (own, states[0]), (theirs, states[1]) = (
            chain.update(grads, state, params) for chain, state in zip(chains, states, strict=True)
        )
        for mine, expected in zip(jax.tree.leaves(own), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=2e-6, atol=1e-9)
        params = optax.apply_updates(params, theirs)


def test_every_optimizer_with_a_rule_can_be_emitted():
    assert set(OPTAX) | {"muon"} == set(RULES) == set(DIRECTIONS) | {"muon"}


def test_muons_rule_holds_for_optaxs_muon():
    """It takes matrices only: a network of two, without biases."""
    rule = scaling_rule("muon")
    eps_power = rule.eps
    assert eps_power is not None
    draw = np.random.default_rng(0)
    start = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in ((7, 5), (5, 3))]
    inputs = jnp.asarray(draw.uniform(size=(6, 7)), jnp.float32)

    def losses(scale: float) -> list[float]:
        c, rate, decay, eps = 1 / scale, 0.02, 0.1, 1e-2
        chains = [
            optax.chain(
                optax.contrib.scale_by_muon(eps=eps * c**eps_power),
                optax.add_decayed_weights(decay * c**rule.weight_decay),
                optax.scale(-rate * c**rule.learning_rate),
            )
            for c in (c, 1.0)
        ]
        params = [c * start[0], start[1]]
        states = [chain.init(w) for chain, w in zip(chains, params, strict=True)]

        @jax.jit
        def step(params, states):
            def loss(params):
                return jnp.mean((jax.nn.gelu(scale * inputs @ params[0]) @ params[1] - 1) ** 2)

            value, grads = jax.value_and_grad(loss)(params)
            moved = [
                c.update(g, s, w) for c, g, s, w in zip(chains, grads, states, params, strict=True)
            ]
            return (
                [w + u for w, (u, _) in zip(params, moved, strict=True)],
                [s for _, s in moved],
                value,
            )

        values = []
        for _ in range(STEPS):
            params, states, value = step(params, states)
            values.append(float(value))
        return values

    assert losses(SCALE) == losses(1.0)
    assert len(set(losses(1.0))) == STEPS


def test_a_threshold_on_each_tensors_gradient_moves_along(capsys):
    asked = [*COMMON, "--emit", "optax", "--weight", "conv/kernel", "--clip", "0.003"]
    plain = optax_losses(emitted(capsys, *asked, "--input-scale", "1"), 1.0)
    assert optax_losses(emitted(capsys, *asked, "--input-scale", "64"), SCALE) == plain
    free = optax_losses(emitted(capsys, *asked[:-2], "--input-scale", "1"), 1.0)
    assert plain != free


def test_a_path_that_is_not_there_is_noticed(capsys):
    code = emitted(capsys, "--emit", "optax", "--input-scale", "2", "--weight", "first/kernel")
    with pytest.raises(AssertionError, match="first/kernel is no tensor"):
        optax_losses(code, 2.0)


# ---- torch


def torch_losses(code: str, scale: float) -> list[float]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(5 * 6 * 5, 9),
        nn.LayerNorm(9),
        nn.Linear(9, 4),
    )
    namespace: dict = {"model": model}
    exec(code, namespace)
    optimizer = namespace["optimizer"]
    images = torch.from_numpy(np.moveaxis(IMAGES, 3, 1).copy()) * scale
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(model(images), torch.from_numpy(LABELS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("weight", [[], ["--weight", "0.weight"]])
@pytest.mark.parametrize("optimizer", TORCH)
def test_the_torch_code_trains_a_cnn_identically(optimizer, weight, capsys):
    asked = ["--optimizer", optimizer, *COMMON, *OPTAX[optimizer], "--emit", "torch", *weight]
    plain = torch_losses(emitted(capsys, *asked, "--input-scale", "1"), 1.0)
    assert torch_losses(emitted(capsys, *asked, "--input-scale", str(SCALE)), SCALE) == plain
    spoilt = torch_losses(emitted(capsys, *asked, "--input-scale", "1"), SCALE)
    assert abs(spoilt[0] - plain[0]) > 0.01


def test_groups_are_emitted_where_torch_has_no_such_optimizer(capsys):
    code = emitted(capsys, "--optimizer", "lion", "--emit", "torch", "--input-scale", "4")
    assert '"lr": 2.5e-05' in code
    assert "Give `groups` to your lion" in code


# ---- flags and json


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_flags_ask_for_the_transported_experiment(scheme, capsys):
    text = emitted(
        capsys,
        "--input-scale",
        "255",
        "--scheme",
        scheme,
        "--optimizer",
        "adamw",
        "--bias",
        "--hidden",
        "5",
        "6",
        "--schedule",
        "cosine",
    )
    program, command, *words = shlex.split(text)
    assert (program, command) == ("python", "scripts/run_jax.py")
    values = flags.parser("").parse_args(words)
    original = Experiment(optimizer="adamw", bias=True, hidden=(5, 6), schedule=("cosine",))
    assert flags.experiment(values)[1] == transport(original, 255.0, scheme=scheme)


def test_the_flags_run(tiny_npz, tmp_path, capsys):
    text = emitted(
        capsys, "--input-scale", "255", "--hidden", "5", "--batch-size", "4", "--epochs", "1"
    )
    run_jax.main([*shlex.split(text)[2:], "--data", str(tiny_npz), "--out", str(tmp_path / "run")])
    assert f"It is, step for step, {explanation.BASELINE}." in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("optimizer", TORCH)
def test_what_is_not_given_is_torchs_own_default_and_told(optimizer, capsys):
    kind = {
        "sgd": "SGD",
        "adam": "Adam",
        "adamw": "AdamW",
        "rmsprop": "RMSprop",
        "adagrad": "Adagrad",
        "amsgrad": "Adam",
    }[optimizer]
    rate = ["--learning-rate", "1e-3"] if optimizer == "amsgrad" else []
    code = emitted(capsys, "--optimizer", optimizer, *rate, "--emit", "torch", "--input-scale", "1")
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    namespace: dict = {"model": model}
    exec(code, namespace)
    theirs = getattr(torch.optim, kind)(model.parameters()).param_groups[0]
    for group in namespace["optimizer"].param_groups:
        for name in ("lr", "weight_decay", "betas", "eps", "alpha", "momentum", "dampening"):
            assert group.get(name) == theirs.get(name), name
    assert code.startswith("# Not given, and so assumed: ")
    assert f"weight_decay {theirs['weight_decay']}" in code.splitlines()[0]


def test_what_is_given_is_not_told_as_assumed(capsys):
    code = emitted(
        capsys,
        "--optimizer",
        "adamw",
        *COMMON,
        *EPS,
        "--beta1",
        "0.9",
        "--beta2",
        "0.99",
        "--emit",
        "torch",
        "--input-scale",
        "2",
    )
    assert "Not given" not in code


def test_json_has_the_numbers_and_the_powers(capsys):
    text = emitted(
        capsys,
        "--optimizer",
        "adamw",
        "--emit",
        "json",
        "--input-scale",
        "10",
        "--weight-decay",
        "1e-4",
    )
    found = json.loads(text)
    assert found["first_weight"]["learning_rate"] == 1e-4
    assert found["first_weight"]["weight_decay"] == 1e-3
    assert found["everything_else"]["learning_rate"] == 1e-3
    assert found["not_given"] == {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert found["powers_of_the_input_scale"] == {
        "init_scale": -1,
        "learning_rate": -1,
        "weight_decay": 1,
        "eps": 1,
        "clip": 1,
    }


BAD = [
    ([], "--input-scale is missing"),
    (["--input-scale", "0"], "input_scale 0.0"),
    (["--input-scale", "1e30"], "float32"),
    (["--input-scale", "2", "--optimizer", "adadelta"], "cannot be moved exactly"),
    (["--input-scale", "2", "--optimizer", "radam"], "cannot be moved exactly"),
    (["--input-scale", "2", "--optimizer", "sdg"], "choose from sgd"),
    (["--input-scale", "2", "--optimizer", "muon", "--emit", "optax", *COMMON], "emit json"),
    (["--input-scale", "2", "--optimizer", "lamb"], "no optimizer of run_jax.py"),
    (
        ["--input-scale", "2", "--optimizer", "lamb", "--emit", "optax"],
        "--learning-rate is missing",
    ),
    (["--input-scale", "2", "--emit", "optax", "--scheme", "uniform"], "is for --emit flags"),
    (["--input-scale", "2", "--emit", "torch", "--clip", "1"], "adds 1e-6"),
    (
        ["--input-scale", "2", "--emit", "optax", "--clip", "0"],
        "--clip 0.0 must be a positive number",
    ),
    (["--input-scale", "2", "--clip", "1"], "--clip for optax and json"),
    (["--input-scale", "255", "--case", "scaled"], "describe the unscaled one"),
    (["--input-scale", "1e-15", "--optimizer", "adagrad", "--emit", "optax"], "eps would be 1e-40"),
    (["--input-scale", "2", "--emit", "torch", "--schedule", "cosine"], "--schedule belongs to"),
    (
        ["--input-scale", "2", "--optimizer", "lamb", *COMMON, "--emit", "json", "--beta1", "7"],
        "beta1 7.0 must lie in [0, 1)",
    ),
    (
        [
            "--input-scale",
            "2",
            "--optimizer",
            "lamb",
            *COMMON,
            "--emit",
            "json",
            "--momentum",
            "0.1",
        ],
        "--momentum does not apply to lamb",
    ),
    (
        ["--input-scale", "2", "--emit", "optax", "--momentum", "0.5", "--dampening", "0.1"],
        "no dampening",
    ),
    (["--input-scale", "2", "--emit", "torch", "--learning-rate", "1", "2"], "give one"),
    (["--input-scale", "2", "--emit", "torch", "--init-scale", "3"], "leave it out"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_what_cannot_be_emitted_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
