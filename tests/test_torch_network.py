"""torchref/network.py: its derivatives against differences of its losses, its runs in bits."""

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from torchref.network import TorchNetwork, cross_entropy  # noqa: E402
from torchref.train import Lion  # noqa: E402

if TYPE_CHECKING:
    from jaxmlp.networks.protocol import Network

    def meets_the_protocol(network: TorchNetwork) -> Network:  # the type checker's to refuse
        return network


CLASSES = 3
# Central differences at step h err by h²/6 of a third derivative and by rounding over h. Losses are
# near 1 and their derivatives by logarithms of tensors at most some hundreds (fourth powers of
# activations): 1e-8 · 1e2 from the one, 1e-16 / 1e-4 from the other.
STEP, DIFFERENCE_ERROR = 1e-4, 1e-6


class Block(nn.Module):
    """A transformer's block: tied embedding, a constant, attention, a norm of either kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.RMSNorm(4)
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("place", torch.ones(5, 4))

    def forward(self, tokens):
        hidden = self.embed(tokens) + self.place
        q, k, v = self.qkv(self.norm1(hidden)).chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        hidden = hidden + self.out(attended)
        hidden = hidden + self.down(nn.functional.relu(self.up(self.norm2(hidden))))
        return self.head(hidden)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


SHAPES = {mlp: (4, 6), cnn: (4, 2, 6, 6)}


def batches_of(build, count: int = 3) -> list:
    draw = torch.Generator().manual_seed(5)
    if build is Block:
        tokens = [torch.randint(7, (4, 6), generator=draw) for _ in range(count)]
        return [(each[:, :-1], each[:, 1:]) for each in tokens]
    return [
        (
            torch.randn(*SHAPES[build], generator=draw),
            torch.randint(CLASSES, (4,), generator=draw),
        )
        for _ in range(count)
    ]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=2**-4, momentum=0.9, weight_decay=2**-7)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=2**-6, weight_decay=2**-5)


def rmsprop(parameters):
    return torch.optim.RMSprop(parameters, lr=2**-7, momentum=0.9, weight_decay=2**-7)


def adagrad(parameters):
    return torch.optim.Adagrad(parameters, lr=2**-5, initial_accumulator_value=2**-3)


def lion(parameters):
    return Lion(parameters, lr=2**-7, betas=(0.9, 0.99), weight_decay=2**-3)


def network(build, optimizer=sgd, **options) -> TorchNetwork:
    torch.manual_seed(3)
    model = build()
    return TorchNetwork(model, optimizer(model.parameters()), batches_of(build), **options)


# Of the learning rate, the weight decay and eps: powers of c = W' / W, as docs' table has them.
POWERS = {
    sgd: (2, -2, 0),
    adamw: (1, -1, -1),
    rmsprop: (1, -2, -1),
    adagrad: (1, -2, -1),
    lion: (1, -1, 0),
}
HALVED = {"0.weight": 0.5}  # against inputs times 2


def moved(of: TorchNetwork, optimizer) -> dict:
    rate, decay, eps = POWERS[optimizer]
    powers: dict[str, int] = {"learning_rate": rate, "weight_decay": decay, "eps": eps}
    return {
        tensor: {k: v * HALVED.get(tensor, 1.0) ** powers[k] for k, v in settings.items()}
        for tensor, settings in of.settings.items()
    }


def same_bits(first: dict, second: dict) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_tensors_come_in_the_protocols_order():
    block, conv = network(Block), network(cnn)
    assert "head.weight" not in block.tensors
    assert "input" not in block.tensors
    assert list(block.tensors)[-3:] == ["place", "norm1.eps", "norm2.eps"]
    assert next(iter(conv.tensors)) == "input"
    assert list(conv.tensors)[-1] == "1.eps"
    assert conv.statistics == {"1.running_mean": (4,), "1.running_var": (4,)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("build", [mlp, cnn, Block])
def test_derivatives_are_those_of_the_loss(build, training):
    of = network(build)
    for point in range(2):
        derivatives = of.derivatives(point, training)
        names = [*of.tensors, *(() if training else of.statistics)]
        assert list(derivatives) == names
        for name in names:
            up, down = (of.loss(point, {name: math.exp(h)}, training) for h in (STEP, -STEP))
            difference = (up - down) / (2 * STEP)
            assert derivatives[name] == pytest.approx(difference, abs=DIFFERENCE_ERROR), name


def test_derivatives_of_a_frozen_normalisation_use_its_statistics():
    model = cnn()
    model[1].eval()
    of = TorchNetwork(model, sgd(model.parameters()), batches_of(cnn))
    up, down = (of.loss(1, {"1.eps": math.exp(h)}, True) for h in (STEP, -STEP))
    expected = pytest.approx((up - down) / (2 * STEP), abs=DIFFERENCE_ERROR)
    assert of.derivatives(1, True)["1.eps"] == expected
    run = of.start({}, {})
    run.step()
    run.outputs()
    assert not run.tensors()["1.running_mean"].any()


def test_a_symmetry_by_powers_of_two_leaves_every_bit_of_the_loss():
    of, factors = network(mlp), {"input": 2.0, **HALVED}
    assert of.loss(1, factors, True) == of.loss(1, {}, True) != of.loss(1, HALVED, True)
    # BatchNorm: the weight before it doubles, and with it what is measured of its outputs.
    of, factors = network(cnn), {"0.weight": 2.0, "0.bias": 2.0, "1.eps": 4.0}
    assert of.loss(1, factors, True) == of.loss(1, {}, True)
    factors |= {"1.running_mean": 2.0, "1.running_var": 4.0}
    assert of.loss(1, factors, False) == of.loss(1, {}, False)


@pytest.mark.parametrize("optimizer", POWERS)
def test_two_runs_that_are_the_same_agree_in_every_bit(optimizer):
    of = network(mlp, optimizer)
    plain = of.start({}, of.settings)
    other = of.start({"input": 2.0, **HALVED}, moved(of, optimizer))
    for _ in range(20):
        step, same = plain.step(), other.step()
        assert step.loss == same.loss
        assert (step.correct, step.dead) == (same.correct, same.dead)
    assert np.array_equal(plain.outputs(), other.outputs())
    wanted = {name: v * HALVED.get(name, 1.0) for name, v in plain.tensors().items()}
    assert same_bits(wanted, other.tensors())


@pytest.mark.parametrize("optimizer", POWERS)
def test_what_is_applied_in_the_middle_of_training_goes_on_as_before(optimizer):
    def losses(of: TorchNetwork, scale: float, steps: int) -> list[float]:
        model, users = of._model, of._optimizer
        found = []
        for step in range(steps):
            inputs, targets = of.batches[step]
            loss = cross_entropy(model(scale * inputs), targets)
            users.zero_grad()
            loss.backward()
            users.step()
            found.append(loss.item())
        return found

    plain, other = network(mlp, optimizer), network(mlp, optimizer)
    assert losses(plain, 1.0, 4) == losses(other, 1.0, 4)
    settings = moved(other, optimizer)
    other.apply({"input": 2.0, **HALVED}, settings)
    assert other.settings == settings
    assert len(other._optimizer.param_groups) == 2  # what does not change stays together
    assert losses(plain, 1.0, 8) == losses(other, 2.0, 8)


def test_what_is_applied_is_what_would_have_been_started():
    of, factors = network(cnn), {"0.weight": 4.0, "1.eps": 2.0, "1.running_var": 2.0}
    settings = of.settings | {"5.weight": {"learning_rate": 0.25, "weight_decay": 0.5}}
    foreseen = of.start(factors, settings)
    of.apply(factors, settings)
    run = of.start({}, {})
    assert same_bits(run.tensors(), foreseen.tensors())
    for _ in range(4):
        assert run.step().loss == foreseen.step().loss
    assert of._model.get_submodule("1").eps == 2e-5


def test_nothing_but_apply_alters_what_the_user_has():
    torch.manual_seed(1)
    model = cnn()
    optimizer = adamw(model.parameters())
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    drawn = [(torch.rand(4, 2, 6, 6), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    torch.set_rng_state(generator)
    of = TorchNetwork(
        model,
        optimizer,
        ((torch.rand(4, 2, 6, 6), torch.tensor([0, 1, 2, 0])) for _ in range(2)),
    )
    of.derivatives(0, False)
    run = of.start({"0.weight": 3.0}, of.settings)
    for _ in range(3):
        run.step()
    run.outputs()
    of.gradients({"1.eps": 3.0}, 2)
    # Batches are what the user would have drawn: read apart, yet one after another.
    assert all(torch.equal(of.batches[n][0], drawn[n][0]) for n in range(2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert model[1].eps == 1e-5
    assert model.training
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_and_hessian_are_those_of_the_mean_loss():
    for build in (mlp, cnn, Block):
        of = network(build)
        single = of.gradients({}, 1)
        model = copy.deepcopy(of._model)
        inputs, targets = of.batches[0]
        of._loss_function(model(inputs), targets).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            # The same sums in float32, of at most 120 terms near 1: 120 · 6e-8.
            assert single[name] == pytest.approx(abs(parameter.grad.numpy()), abs=1e-5)
        draw = np.random.default_rng(0)
        first, second = (
            {name: draw.normal(size=g.shape) for name, g in single.items()} for _ in range(2)
        )
        products = of.hessian_product({}, 2, first), of.hessian_product({}, 2, second)
        # A Hessian is symmetric; float32 rounds sums of some hundred terms near 1.
        forth, back = (
            sum(float((p[name] * v[name]).sum()) for name in p)
            for p, v in zip(products, (second, first), strict=True)
        )
        assert forth == pytest.approx(back, abs=1e-3)
        assert abs(forth) > 1e-1


def test_hessian_of_a_quadratic_is_known():
    model = nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    of = TorchNetwork(
        model, sgd(model.parameters()), [(inputs, torch.zeros(2, 1))], loss=nn.functional.mse_loss
    )
    product = of.hessian_product({"input": 2.0}, 1, {"weight": np.array([[1.0, 0.0]])})
    assert product["weight"].tolist() == [[40.0, -4.0]]  # 2 · 4 · XᵀX / 2, exact in binary


def test_dead_units_are_told_of_modules_and_functions():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.act = nn.Linear(2, 4), nn.ReLU()

        def forward(self, inputs):
            hidden = self.act(self.lift(inputs))
            return torch.relu(self.act(hidden - 1e9)[:, :3] + 1).mul(1).relu_()

    model = Both()
    with torch.no_grad():
        model.lift.bias.copy_(torch.tensor([9.0, 9.0, 9.0, -9.0]))
        model.lift.weight.zero_()
    batch = torch.ones(4, 2), torch.tensor([0, 1, 2, 0])
    step = TorchNetwork(model, sgd(model.parameters()), [batch]).start({}, {}).step()
    assert step.dead == {"act": 0.25, "act#2": 1.0, "relu3": 0.0, "relu4": 0.0}
    assert list(step.dead) == ["act", "act#2", "relu3", "relu4"]


def test_units_of_images_are_channels():
    model = cnn()
    with torch.no_grad():
        model.get_parameter("1.weight").zero_()
        model.get_parameter("1.bias").copy_(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    of = TorchNetwork(model, sgd(model.parameters()), batches_of(cnn))
    assert of.start({}, {}).step().dead == {"2": 0.75}


def test_outputs_are_of_evaluation_mode_and_do_not_disturb_the_run():
    of = network(cnn)
    plain, looked_at = of.start({"input": 2.0}, {}), of.start({"input": 2.0}, {})
    before, outputs = looked_at.tensors(), looked_at.outputs()
    for _ in range(3):
        assert plain.step().loss == looked_at.step().loss
        outputs = looked_at.outputs()
    model = copy.deepcopy(looked_at.model).eval()
    with torch.no_grad():
        assert np.array_equal(outputs, model(2.0 * of.batches[0][0]).numpy())
    assert same_bits(plain.tensors(), looked_at.tensors())
    assert not same_bits(before, looked_at.tensors())


def test_gradients_are_of_the_factors_given_and_of_what_was_applied():
    of = network(mlp)
    plain, halved = of.gradients({}, 2), of.gradients({"input": 2.0, **HALVED}, 2)
    assert np.array_equal(2 * plain["0.weight"], halved["0.weight"])
    assert np.array_equal(plain["2.weight"], halved["2.weight"])
    assert not same_bits(of.gradients({"input": 2.0}, 2), halved)
    of.apply(HALVED, {})
    assert same_bits(of.gradients({"input": 2.0}, 2), halved)
    assert not same_bits(of.gradients({}, 2), plain)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (sgd, "sgd"),
        (adamw, "adamw"),
        (lion, "lion"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.Adam(p, decoupled_weight_decay=True), "adamw"),
        (lambda p: torch.optim.NAdam(p, decoupled_weight_decay=True), "nadamw"),
        (lambda p: torch.optim.Adam(p, lr=torch.tensor(0.5)), "adam"),
        (lambda p: torch.optim.Adamax(p), "adamax"),
        (lambda p: torch.optim.RAdam(p), "radam"),
        (lambda p: torch.optim.Adadelta(p), "adadelta"),
        (lambda p: torch.optim.Muon([each for each in p if each.ndim == 2]), "muon"),
    ],
)
def test_every_optimizer_has_its_name_and_runs(build, name):
    of = network(mlp, build)
    assert of.optimizer == name
    assert all(isinstance(v, float) for each in of.settings.values() for v in each.values())
    assert ("0.bias" in of.settings) == (name != "muon")
    assert np.isfinite(of.start({}, of.settings).step().loss)


def test_rates_that_are_tensors_stay_tensors():
    model = mlp()
    users = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.5))
    of = TorchNetwork(model, users, batches_of(mlp))
    of.apply({}, {"2.bias": {"learning_rate": 0.25}})
    assert [group["lr"] for group in users.param_groups] == [torch.tensor(0.5), torch.tensor(0.25)]
    assert all(isinstance(group["lr"], torch.Tensor) for group in users.param_groups)


def test_options_are_of_the_first_group():
    assert network(mlp, adamw).options == {"beta1": 0.9, "beta2": 0.999}
    assert network(mlp, sgd).options == {"momentum": 0.9, "dampening": 0, "nesterov": False}


def test_named_groups_stay_named():
    model = mlp()
    users = torch.optim.SGD(model.named_parameters(), lr=0.5)
    of = TorchNetwork(model, users, batches_of(mlp))
    of.start({}, {}).step()
    of.apply({}, {"2.bias": {"learning_rate": 0.25}})
    assert [group["param_names"] for group in users.param_groups] == [
        ["0.weight", "0.bias", "2.weight", "4.weight", "4.bias"],
        ["2.bias"],
    ]


def test_apply_refuses_before_it_alters_anything():
    model = mlp()
    users = torch.optim.Adadelta(model.parameters())
    of = TorchNetwork(model, users, batches_of(mlp))
    of._loss_function(model(of.batches[0][0]), of.batches[0][1]).backward()
    users.step()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"state 'acc_delta' that Adadelta keeps of 0\.weight"):
        of.apply(HALVED, {})
    torch.optim.lr_scheduler.ConstantLR(users)
    with pytest.raises(ValueError, match="make the learning-rate schedule after the transport"):
        of.apply({}, {})
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


def test_batches_are_read_when_needed_and_at_most_a_hundred_kept():
    inputs, targets = batches_of(mlp, 1)[0]
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield inputs + len(read), targets

    model = mlp()
    of = TorchNetwork(model, sgd(model.parameters()), endless())
    assert len(read) == 1
    run = of.start({}, {})
    losses = [run.step().loss for _ in range(2)]
    assert len(read) == 2
    assert losses[0] != losses[1]
    assert of.batches[103] is of.batches[3]
    assert len(read) == 100


def test_a_model_that_overwrites_its_inputs_meets_them_unaltered_again():
    class Shifted(Block):
        def forward(self, tokens):
            return super().forward(tokens.add_(1).remainder_(7))

    for build in (Shifted, lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3))):
        model, kept = build(), batches_of(Block if build is Shifted else mlp, 1)
        before = kept[0][0].clone()
        of = TorchNetwork(model, sgd(model.parameters()), kept)
        of.derivatives(0, True)
        of.gradients({}, 1)
        run = of.start({}, {})
        run.step()
        run.outputs()
        assert torch.equal(kept[0][0], before)


def test_all_runs_drop_the_same_units():
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 3))
    of = TorchNetwork(model, sgd(model.parameters()), batches_of(mlp, 1))
    plain, other = of.start({}, {}), of.start({"input": 2.0, **HALVED}, moved(of, sgd))
    losses = [plain.step().loss for _ in range(3)]
    assert losses == [other.step().loss for _ in range(3)]
    assert of.loss(1, {}, True) == of.loss(1, {}, True) != of.loss(1, {}, False)


def test_what_is_no_network_is_refused_in_one_line():
    model, batches = mlp(), batches_of(mlp)
    users = sgd(model.parameters())
    lazy = nn.LazyLinear(3)
    two = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3, device="meta"))
    larger = nn.Sequential(model, nn.Linear(3, 3))
    inputs, targets = batches[0]
    refused: tuple[tuple[Any, str], ...] = (
        (("mlp", users, batches), "the model is a str; give a torch.nn.Module"),
        ((model, 0.1, batches), "the optimizer is a float; give a torch.optim.Optimizer"),
        ((mlp(), users, batches), "none of the model's parameters; make it"),
        ((model, sgd(larger.parameters()), batches), "holds 2 tensors that are none of"),
        ((lazy, users, batches), "run one batch through the model first"),
        ((two, sgd(two.parameters()), batches), "lie on cpu and meta"),
        ((model, users, 3), "batches is a int; give an iterable"),
        ((model, users, []), "batches yields nothing"),
        ((model, users, [inputs]), "batches yields a Tensor; give pairs"),
        ((model, users, [(inputs, targets[:3])]), "4 inputs with 3 targets"),
        ((model, users, [(inputs[:, :5], targets)]), "first batch: mat1 and mat2 shapes"),
        ((model, users, batches, lambda outputs, _: outputs), r"scalar tensor; .* \(4, 3\)"),
        ((model, users, batches, lambda outputs, _: outputs.sum() * math.inf), "finite"),
    )
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message) as raised:
            TorchNetwork(*arguments)
        assert "\n" not in str(raised.value)
