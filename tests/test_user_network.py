"""explain, transport and certify for a user's own network: what they say, and what they refuse."""

import json
import sys
import textwrap

import architectures
import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import jaxmlp
from jaxmlp.commands import certify, explain, transport
from jaxmlp.networks.knobs import knobs, repair
from torchref.network import TorchNetwork

TORCH_FILE = """
import torch
from torch import nn

def setup():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    batches = [(torch.rand(12, 5), torch.arange(12) % 3) for _ in range(2)]
    return model, optimizer, batches
"""
FLAX_FILE = """
import jaxmlp
import numpy as np
from flax import nnx

class Model(nnx.Module):
    def __init__(self, rngs):
        self.fc1, self.fc2 = nnx.Linear(5, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.fc2(nnx.relu(self.fc1(x)))

def setup():
    draw = np.random.default_rng(0)
    inputs, targets = draw.uniform(size=(12, 5)).astype(np.float32), np.arange(12) % 3
    optimizer = jaxmlp.Optimizer("adamw", learning_rate=1e-3, weight_decay=1e-2)
    return Model(nnx.Rngs(0)), optimizer, [(inputs, targets)]
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command on a file of a user's; gives its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TORCH_FILE)
    (tmp_path / "flax_run.py").write_text(FLAX_FILE)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(main, model, *arguments):
        status = 0
        try:
            main(["--model", model, *arguments])
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.smoke
def test_explain_says_what_is_free_which_run_it_is_and_what_repairs_it(command):
    status, out, err = command(explain.main, "mine.py:setup", "--input-scale", "255")
    assert (status, err) == (0, "")
    for text in (
        "torch: 5 tensors, sgd, inputs × 255",
        "input against 0.weight",
        "0.weight and 0.bias against 2.weight",
        "0.weight and 2.weight: initial values 16 times too large and learning rate 255 times",
        "initial values ÷ 255, learning rate ÷ 255², weight decay × 255²",
        "initial values ÷ 255^(1/2), learning rate ÷ 255, weight decay × 255",
        "S = ",
        "fitted to MLPs",
    ):
        assert text in " ".join(out.split()) or text in out


def test_explain_of_a_flax_network_says_the_same_in_its_names(command):
    status, out, err = command(explain.main, "flax_run.py:setup", "--input-scale", "255")
    assert (status, err) == (0, "")
    assert "input against fc1.kernel" in out
    assert "initial values ÷ 255, learning rate ÷ 255, weight decay × 255" in " ".join(out.split())


def test_explain_as_json_has_every_number(command):
    arguments = ("--input-scale", "256", "--json", "--no-forecast")
    status, out, _ = command(explain.main, "mine.py:setup", *arguments)
    numbers = json.loads(out)
    assert status == 0
    assert numbers["generators"][0] == {"input": "1", "2.weight": "-1", "0.bias": "1"}
    assert numbers["repairs"]["fewest"]["factors"] == {"input": 256.0, "0.weight": 1 / 256}
    assert numbers["repairs"]["fewest"]["settings"]["0.weight"] == {
        "learning_rate": 0.1 / 256**2,
        "weight_decay": 1e-3 * 256**2,
    }


@pytest.mark.parametrize("file", ["mine.py", "flax_run.py"])
def test_certify_compares_the_bits(command, file):
    status, out, _ = command(certify.main, f"{file}:setup", "--to", "256", "--steps", "5")
    assert status == 0
    assert "IDENTICAL in every bit: 5 losses" in out
    assert "with nothing but the inputs scaled: part at step 1" in out
    status, out, _ = command(certify.main, f"{file}:setup", "--to", "255", "--steps", "5")
    assert (status, "IDENTICAL" in out) == (0, False)


def training(model, optimizer, batches, steps):
    losses = []
    for step in range(steps):
        inputs, targets = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def setup_of(text):
    names = {}
    exec(text, names)
    return names["setup"]()


def test_torch_code_to_paste_trains_scaled_inputs_as_unscaled_ones(command):
    _, code, _ = command(transport.main, "mine.py:setup", "--input-scale", "256")
    model, optimizer, batches = setup_of(TORCH_FILE)
    plain = training(model, optimizer, batches, 20)
    model, _, _ = setup_of(TORCH_FILE)
    names = {"model": model}
    exec(code, names)
    scaled = [(256 * inputs, targets) for inputs, targets in batches]
    assert training(model, names["optimizer"], scaled, 20) == plain


@pytest.mark.parametrize("name", ["ResNet", "Transformer"])
def test_torch_code_moves_eps_and_running_statistics(name):
    model, batches = architectures.in_torch(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    network = TorchNetwork(model, optimizer, batches)
    names = {"model": model}
    for scheme in ("fewest", "alike"):
        code = jaxmlp.transport(network, 256, scheme=scheme).emit("torch")
        model, _ = architectures.in_torch(name)
        names = {"model": model}
        exec(code, names)
        scaled = [(256 * inputs, targets) for inputs, targets in batches]
        losses = training(model, names["optimizer"], scaled, 10)
        again, _ = architectures.in_torch(name)
        optimizer = torch.optim.SGD(again.parameters(), 0.05, momentum=0.9)
        expected = training(again, optimizer, batches, 10)
        np.testing.assert_allclose(losses, expected, rtol=1e-4 if scheme == "alike" else 1e-6)


def test_optax_code_to_paste_trains_scaled_inputs_as_unscaled_ones(command):
    _, code, _ = command(transport.main, "flax_run.py:setup", "--input-scale", "256")

    def losses(scale, code):
        model, _, ((inputs, targets),) = setup_of(FLAX_FILE)
        names = {"model": model}
        exec(code, names)
        state, found = nnx.Optimizer(model, names["optimizer"], wrt=nnx.Param), []

        def loss(model):
            logits = jax.nn.log_softmax(model(scale * inputs))
            return -logits[np.arange(12), targets].mean()

        for _ in range(10):
            value, grads = nnx.value_and_grad(loss)(model)
            state.update(model, grads)
            found.append(float(value))
        return found

    _, plain, _ = command(transport.main, "flax_run.py:setup", "--input-scale", "1")
    assert losses(256, code) == losses(1, plain)


def test_apply_is_the_transport():
    model, optimizer, batches = setup_of(TORCH_FILE)
    plain = training(model, optimizer, batches, 20)
    model, optimizer, _ = setup_of(TORCH_FILE)
    jaxmlp.transport(jaxmlp.network(model, optimizer, batches), input_scale=256).apply()
    scaled = [(256 * inputs, targets) for inputs, targets in batches]
    assert training(model, optimizer, scaled, 20) == plain


# ---- what cannot be


def net(*layers, optimizer=lambda p: torch.optim.SGD(p, 0.1), shape=(5,), **options):
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    batches = [(torch.rand(12, *shape), torch.arange(12) % 3)]
    return TorchNetwork(model, optimizer(model.parameters()), batches, **options)


def test_tanh_on_the_inputs_leaves_nothing_to_make_up_for_them():
    network = net(nn.Tanh(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    explanation = str(jaxmlp.explain(network, 255))
    assert "Nothing exact: nothing can make up for scaled inputs" in explanation
    assert "No rescaling of the tensors undoes the inputs' scale" in " ".join(explanation.split())
    with pytest.raises(ValueError, match="nothing can make up for scaled inputs"):
        jaxmlp.transport(network, 255)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (torch.optim.RAdam, "first steps follow the plain momentum"),
        (torch.optim.Adadelta, "its one eps stands beside the squared gradients"),
        (torch.optim.ASGD, "optimizer 'asgd' is not known"),
    ],
)
def test_an_optimizer_that_cannot_be_moved_is_told_with_its_reason(kind, reason):
    network = net(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), optimizer=kind)
    assert reason in " ".join(str(jaxmlp.explain(network, 255)).split())
    with pytest.raises(ValueError, match=reason):
        jaxmlp.transport(network, 255)


def test_clipping_by_the_global_norm_is_told_with_its_reason(command):
    network = net(nn.Linear(5, 3), clip_global_norm=1.0)
    with pytest.raises(ValueError, match="mixes the tensors"):
        jaxmlp.transport(network, 255)
    arguments = ("--to", "256", "--clip-global-norm", "1")
    status, _, err = command(certify.main, "mine.py:setup", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert "clipping by the global norm mixes the tensors" in err


def test_token_ids_have_no_scale():
    model, batches = architectures.in_torch("LanguageModel")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    network = TorchNetwork(model, optimizer, batches)
    with pytest.raises(ValueError, match="whole numbers, such as token ids"):
        jaxmlp.transport(network, 255)
    assert "which have no scale" in str(jaxmlp.explain(network, 255))


def test_knobs_that_do_not_suffice_are_proved_not_to():
    network = net(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    made = repair(network, 255, ["learning_rate"])
    assert made.obstacles
    assert made.missing
    assert repair(network, 255, ["learning_rate", *made.missing]).obstacles == ()
    assert str(made).startswith("Impossible: ")


def test_allowed_knobs_that_suffice_make_the_same_run():
    network = net(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    made = repair(network, 256, ["init_scale", "learning_rate", "weight_decay"])
    assert {name: float(f) for name, f in made.factors.items()} == {
        "init_scale": 1 / 16,
        "learning_rate": 1 / 256,
    }
    assert not made.obstacles


def test_only_the_eps_of_a_batch_norm_has_to_move():
    network = net(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
        shape=(3, 4, 4),
    )
    assert "value:1.eps" in knobs(network)
    made = repair(network, 255, ["value:1.eps"])
    assert {name: float(f) for name, f in made.factors.items()} == {"value:1.eps": 255.0**2}
    assert set(jaxmlp.transport(network, 255).factors) == {
        "1.eps",
        "1.running_mean",
        "1.running_var",
    }
    assert "but for 1.eps: value 65,025 times too small" in str(jaxmlp.explain(network, 255))


# ---- what is refused


REFUSED = {
    "nope.py:setup": "nope.py is no file",
    "mine.py": "give FILE:FUNCTION",
    "mine.py:nothing": "mine.py has no function 'nothing'",
    "broken.py:setup": "broken.py fails: SyntaxError",
    "missing.py:setup": "missing.py fails: ModuleNotFoundError: No module named 'not_there'",
    "raises.py:setup": "setup() of raises.py fails: KeyError: 'width' (raises.py, line 3)",
    "pair.py:setup": "has to return (model, optimizer, batches)",
    "number.py:setup": "it returns a int",
    "strange.py:setup": "the model is a list; give a torch.nn.Module or a flax.nnx.Module",
    "lazy.py:setup": "uninitialized layers",
    "nan.py:setup": "the loss has to be finite",
    "shape.py:setup": "refuses the first batch",
    "empty.py:setup": "batches yields nothing",
    "devices.py:setup": "put the model on one device",
}
FILES = {
    "broken": "def setup(:",
    "missing": "import not_there",
    "raises": "def setup():\n    sizes = {}\n    return sizes['width']",
    "pair": "def setup():\n    return 1, 2",
    "number": "def setup():\n    return 3",
    "strange": "def setup():\n    return [], 2, 3",
}
CHANGED = {  # of the working file
    "lazy": ("nn.Linear(5, 7)", "nn.LazyLinear(7)"),
    "nan": ("torch.rand(12, 5)", "torch.rand(12, 5) * float('nan')"),
    "shape": ("torch.rand(12, 5)", "torch.rand(12, 6)"),
    "empty": ("range(2)", "range(0)"),
    "devices": ("nn.Linear(7, 3))", "nn.Linear(7, 3)).append(nn.Linear(3, 3, device='meta'))"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_a_file_that_is_no_set_up_is_refused_in_one_line(command, tmp_path, model):
    name = model.partition(".")[0]
    if name in FILES:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(FILES[name]))
    if name in CHANGED:
        assert CHANGED[name][0] in TORCH_FILE
        (tmp_path / f"{name}.py").write_text(TORCH_FILE.replace(*CHANGED[name]))
    status, out, err = command(explain.main, model, "--input-scale", "255")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert REFUSED[model] in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--input-scale", "0"), "must be a positive number"),
        (("--input-scale", "nan"), "must be a positive number"),
        (("--input-scale", "2", "--allow", "rate"), "knob 'rate' is not known"),
        (("--inputs", "2"), "unrecognized arguments: --inputs 2"),
        (("--input-scal", "2"), "unrecognized arguments: --input-scal 2"),
    ],
)
def test_a_flag_out_of_its_range_is_refused_in_one_line(command, arguments, reason):
    status, _, err = command(explain.main, "mine.py:setup", *arguments, "--no-forecast")
    assert (status, err.count("\n")) == (2, 1)
    assert reason in err


def test_nothing_of_the_users_is_altered():
    model, optimizer, batches = setup_of(TORCH_FILE)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seed = torch.get_rng_state()
    network = jaxmlp.network(model, optimizer, batches)
    str(jaxmlp.explain(network, 255, jaxmlp.forecast(network, 255, steps=3), ["learning_rate"]))
    jaxmlp.certify(network, 256, steps=3)
    assert torch.equal(torch.get_rng_state(), seed)
    assert optimizer.state == {}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
