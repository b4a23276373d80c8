"""A Flax model as the law sees it: derivatives, runs in bits, and what the user has left alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxmlp.networks.flax_model import FlaxModel
from jaxmlp.networks.flax_network import FlaxNetwork
from jaxmlp.networks.optimizer import Optimizer
from jaxmlp.networks.relus import dead_units, with_relus

STEPS = 20
# Central differences in float64: truncation 1e-10, rounding 1e-15 / STEP = 1e-10; a factor of 100.
STEP, DIFFERENCE = 1e-5, 1e-8


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        self.second = nnx.Linear(7, 5, rngs=rngs)  # defined before what alphabet puts first
        self.first = nnx.Linear(6, 7, rngs=rngs)
        self.out = nnx.Linear(5, 3, rngs=rngs)
        self.gain = nnx.Variable(jnp.float32(0.5))

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        return self.out(nnx.relu(self.second(x))) * self.gain[...]


class Images(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.out(nnx.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1))


class Words(nnx.Module):
    def __init__(self, rngs, dtype=None):
        self.embed = nnx.Embed(11, 8, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(8, dtype=dtype, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 8, decode=False, dtype=dtype, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.embed.attend(x + self.drop(self.attend(self.norm(x))))


def batches(kind, count=3):
    draw = np.random.default_rng(5)
    for _ in range(count):
        if kind is Words:
            tokens = draw.integers(0, 11, (9, 4))
            yield tokens.astype(np.int32), np.roll(tokens, -1, 1).astype(np.int32)
        else:
            shape = (9, 6) if kind is Perceptron else (9, 4, 4, 2)
            yield draw.normal(size=shape).astype(np.float32), draw.integers(0, 3, 9)


def network(kind, optimizer=None):
    optimizer = optimizer or Optimizer("sgd", 0.1, 0.01, momentum=0.9)
    return FlaxNetwork(kind(nnx.Rngs(1)), optimizer, batches(kind))


# ReLU's homogeneity; a scale-free kernel before BatchNorm, whose eps follows; q against k.
SYMMETRY = {
    Perceptron: {
        "first.kernel": 4.0,
        "first.bias": 4.0,
        "second.kernel": 0.25,
    },
    Images: {
        "conv.kernel": 4.0,
        "conv.bias": 4.0,
        "norm.eps": 16.0,
        "norm.mean": 4.0,
        "norm.var": 16.0,
    },
    Words: {
        "attend.query.kernel": 4.0,
        "attend.query.bias": 4.0,
        "attend.key.kernel": 0.25,
        "attend.key.bias": 0.25,
    },
}
KINDS = pytest.mark.parametrize("kind", SYMMETRY)


def transported(net, factors):
    """The settings of the same run: the gradient's factor is 1 / c, coupled decay's is 1 / c²."""
    moved = {}
    for name, own in net.settings.items():
        c = factors.get(name, 1.0)
        if net.optimizer == "sgd":
            own = {"learning_rate": own["learning_rate"] * c**2, "weight_decay": 0.01 / c**2}
        else:
            own = {
                "learning_rate": own["learning_rate"] * c,
                "weight_decay": own["weight_decay"] / c,
                "eps": own["eps"] / c,
            }
        moved[name] = own
    return moved


def test_tensors_come_in_the_order_of_definition_with_constants_and_eps_last():
    names = list(network(Perceptron).tensors)
    assert names == [
        "input",
        *("second.kernel", "second.bias", "first.kernel", "first.bias"),
        *("out.kernel", "out.bias", "gain"),
    ]
    images = network(Images)
    assert list(images.tensors)[-1] == "norm.eps"
    assert set(images.statistics) == {"norm.mean", "norm.var"}
    assert "input" not in network(Words).tensors


def test_a_tied_tensor_comes_once_where_it_is_first_defined():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.zebra = nnx.Linear(6, 6, rngs=rngs)
            self.middle = nnx.Linear(6, 6, rngs=rngs)
            self.ape = self.zebra

        def __call__(self, x):
            return self.ape(self.middle(self.zebra(x)))

    net = FlaxNetwork(Tied(nnx.Rngs(0)), Optimizer("sgd", 0.1), batches(Perceptron))
    kernels = [name for name in net.tensors if name.endswith("kernel")]
    assert kernels == ["ape.kernel", "middle.kernel"]  # the state's name, the first one's place


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_derivatives_are_finite_differences_of_the_loss(kind, training):
    net = network(kind)
    slopes = net.derivatives(3, training)
    expected = {*net.tensors} | (set() if training else {*net.statistics})
    assert set(slopes) == expected
    for name, slope in slopes.items():
        up, down = (net.loss(3, {name: np.exp(step)}, training) for step in (STEP, -STEP))
        assert (up - down) / (2 * STEP) == pytest.approx(slope, abs=DIFFERENCE)


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_powers_of_two_along_a_symmetry_leave_every_bit_of_the_loss(kind, training):
    net, factors = network(kind), SYMMETRY[kind]
    here = net.loss(7, {}, training)
    assert net.loss(7, factors, training) == here
    first = next(iter(factors))
    broken = {**factors, "norm.eps": 1.0} if kind is Images else {first: factors[first]}
    assert net.loss(7, broken, training) != here


@KINDS
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("sgd", 0.125, 0.01, momentum=0.9),
        Optimizer("adamw", 0.01, 0.1, eps=1e-4),
    ],
    ids=lambda each: each.name,
)
def test_a_run_and_its_transported_one_agree_in_every_bit(kind, optimizer):
    net, factors = network(kind, optimizer), SYMMETRY[kind]
    runs = [net.start({}, net.settings), net.start(factors, transported(net, factors))]
    for _ in range(STEPS):
        one, other = (run.step() for run in runs)
        assert one.loss.tobytes() == other.loss.tobytes()
        assert (one.correct, one.dead) == (other.correct, other.dead)
    tensors, moved = (run.tensors() for run in runs)
    for name, value in tensors.items():
        assert (value * np.float32(factors.get(name, 1))).tobytes() == moved[name].tobytes(), name
    assert runs[0].outputs().tobytes() == runs[1].outputs().tobytes()
    compiled: Any = net.train_step
    assert compiled._cache_size() == 1  # both runs are the same program


@KINDS
def test_apply_is_what_start_starts_from(kind):
    model, optimizer = kind(nnx.Rngs(1)), Optimizer("sgd", 0.1, 0.01, momentum=0.9)
    net = FlaxNetwork(model, optimizer, batches(kind))
    factors = {name: 3.0 for name in (*net.tensors, *net.statistics) if name != "input"}
    settings = transported(net, factors)
    before = net.start(factors, settings)
    losses = [before.step().loss for _ in range(3)]
    net.apply(factors, settings)
    again = FlaxNetwork(model, optimizer, batches(kind))
    for run in (again.start({}, again.settings), net.start({}, net.settings)):
        assert [run.step().loss for _ in range(3)] == losses
    assert again.settings == net.settings == settings


def test_nothing_but_apply_alters_the_model():
    model = Images(nnx.Rngs(1))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    net = FlaxNetwork(model, Optimizer("sgd", 0.1), batches(Images))
    net.start({"conv.kernel": 2.0, "norm.eps": 3.0}, net.settings).step()
    net.derivatives(0, training=False)
    net.gradients({}, 2)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert model.norm.epsilon == 1e-5


def test_running_statistics_move_on_as_the_models_own_do():
    net, model = network(Images), Images(nnx.Rngs(1))
    resting = {name: {**own, "learning_rate": 0.0} for name, own in net.settings.items()}
    run = net.start({}, resting)
    model.train()
    for inputs, _ in net.batches[:2]:
        run.step()
        model(inputs)
    for name in ("mean", "var"):  # float32, compiled here and there in another order
        own = getattr(model.norm, name).get_value()
        np.testing.assert_allclose(run.tensors()[f"norm.{name}"], own, rtol=1e-5, atol=1e-6)


def test_curvature_products_are_differences_of_gradients():
    net = network(Perceptron)
    model, loss, step = net.model, net.loss_function, 1e-3
    values, eps = model.values(), model.eps()
    vector = {name: np.ones_like(values[name]) for name in net.settings}

    def gradient(size):
        def mean(trained):
            losses = [
                loss(model.run({**values, **trained}, eps, x, training=True)[0], y)
                for x, y in net.batches[:2]
            ]
            return sum(losses) / 2

        return jax.grad(mean)({n: values[n] + size * v for n, v in vector.items()})

    up, down, product = gradient(step), gradient(-step), net.hessian_product({}, 2, vector)
    for name in vector:  # float32: rounding 1e-7 / h is 1e-4 of gradients of size 1
        np.testing.assert_allclose(product[name], (up[name] - down[name]) / (2 * step), atol=2e-3)


def test_gradients_are_root_mean_squares_over_batches():
    net = network(Perceptron)
    rows = [
        FlaxNetwork(Perceptron(nnx.Rngs(1)), Optimizer("sgd", 0.1), [batch]).gradients({}, 1)
        for batch in net.batches[:2]
    ]
    for name, value in net.gradients({}, 2).items():
        np.testing.assert_allclose(
            value, np.sqrt((rows[0][name] ** 2 + rows[1][name] ** 2) / 2), rtol=1e-6
        )


def test_frozen_tensors_stay_and_have_no_settings():
    net = network(Perceptron, Optimizer("sgd", 0.1, frozen=("first.kernel",)))
    assert "first.kernel" not in net.settings
    run = net.start({}, net.settings)
    before = run.tensors()["first.kernel"]
    run.step()
    assert run.tensors()["first.kernel"].tobytes() == before.tobytes()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "adam"])
def test_the_optax_transformation_steps_as_a_run_does(name):
    rates = {"first.kernel": 0.02, "*": 0.01}
    optimizer = Optimizer(name, rates, 0.1, frozen=("out.bias",))
    net = network(Perceptron, optimizer)
    run = net.start({}, net.settings)
    run.step()
    model, (inputs, targets) = Perceptron(nnx.Rngs(1)), net.batches[0]
    users = nnx.Optimizer(model, optimizer.optax(net.model.parameters), wrt=nnx.Param)
    users.update(model, nnx.grad(lambda m: net.loss_function(m(inputs), targets))(model))
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        # A step of at most 0.02 in float32, whose rate is a constant of the program or traced.
        expected = run.tensors()[".".join(map(str, path))]
        np.testing.assert_allclose(leaf.get_value(), expected, rtol=1e-6, atol=1e-7)


def test_rectifiers_are_found_within_what_wraps_them():
    def function(x, shift):
        first = jax.jit(jax.nn.relu)(x + shift)
        second = jax.checkpoint(lambda x: jnp.maximum(x - 9, 0))(first)
        variance = jnp.maximum(0, x.var(0))
        return {"out": nnx.relu6(second) + variance}

    x = jnp.asarray([[1.0, -1.0, -1.0], [-1.0, -1.0, 12.0]])
    shift = jnp.zeros(3)
    outputs, relus = with_relus(function, x, shift)
    assert len(relus) == 3
    np.testing.assert_array_equal(outputs["out"], function(x, shift)["out"])
    shares = dead_units(function, x, shift)
    assert {name: round(float(share) * 3) for name, share in shares.items()} == {
        "relu1": 1,
        "relu2": 2,
        "relu3": 2,
    }


def test_a_normalisation_is_no_rectifier():
    assert list(network(Images).start({}, network(Images).settings).step().dead) == ["relu1"]


def test_batches_are_read_when_needed_and_come_again():
    read = []

    def loader():
        for batch in batches(Perceptron):
            read.append(batch)
            yield batch

    net = FlaxNetwork(Perceptron(nnx.Rngs(1)), Optimizer("sgd", 0.0), loader())
    assert len(read) == 1
    run = net.start({}, net.settings)
    losses = [float(run.step().loss) for _ in range(6)]
    assert len(read) == 3
    assert losses[:3] == losses[3:]
    assert len(set(losses)) == 3


def test_a_model_that_casts_to_float32_is_refused():
    class Casting(Perceptron):
        def __call__(self, x):
            return super().__call__(x).astype(jnp.float32)

    net = FlaxNetwork(Casting(nnx.Rngs(1)), Optimizer("sgd", 0.1), batches(Perceptron))
    with pytest.raises(ValueError, match="dtype=None"):
        net.derivatives(0, training=True)


def test_layers_told_a_lower_precision_are_differentiated_in_float64():
    plain, told = (
        FlaxNetwork(Words(nnx.Rngs(1), dtype), Optimizer("sgd", 0.1), batches(Words))
        for dtype in (None, jnp.bfloat16)
    )
    assert told.derivatives(2, training=False) == plain.derivatives(2, training=False)


def given(**change):
    return {
        "model": Perceptron(nnx.Rngs(1)),
        "optimizer": Optimizer("sgd", 0.1),
        "batches": list(batches(Perceptron)),
        **change,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda x: x}, "nnx.Module"),
        ({"optimizer": optax.sgd(0.1)}, "jaxmlp.Optimizer"),
        (
            {"optimizer": nnx.Optimizer(Perceptron(nnx.Rngs(1)), optax.sgd(0.1), wrt=nnx.Param)},
            "jaxmlp.Optimizer",
        ),
        ({"optimizer": Optimizer("sgd", {"frist.kernel": 1.0, "*": 0.1})}, "frist.kernel.*second"),
        ({"optimizer": Optimizer("sgd", 0.1, frozen=("frist.kernel",))}, "frist.kernel"),
        ({"optimizer": Optimizer("sgd", {"out.bias": 1.0})}, "second.kernel is missing"),
        ({"batches": []}, "no batches"),
        ({"batches": 3}, "int"),
        ({"batches": [np.zeros((4, 6))]}, "pairs"),
        ({"batches": [(np.zeros((4, 5), np.float32), np.zeros(4, int))]}, r"refuses .*\(4, 5\)"),
        ({"loss": lambda outputs, targets: outputs.sum(1)}, "one number"),
        ({"loss": lambda outputs, targets: outputs.sum() * jnp.nan}, "finite"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        FlaxNetwork(**given(**change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "muon"}, "muon"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"weight_decay": {"*": -1.0}}, "weight_decay"),
        ({"eps": 1e-8}, "eps"),
        ({"beta1": 0.9}, "beta1"),
        ({"momentum": 1.5}, "momentum"),
    ],
)
def test_an_optimizers_settings_have_their_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**{"name": "sgd", "learning_rate": 0.1, **arguments})


@pytest.mark.parametrize("cell", [nnx.GRUCell, nnx.SimpleCell])
def test_recurrent_cells_run_in_float64(cell):
    model = FlaxModel(nnx.RNN(cell(3, 2, rngs=nnx.Rngs(0))))
    with jax.enable_x64(True):
        values = {
            name: value.astype("float64") if jnp.issubdtype(value.dtype, jnp.floating) else value
            for name, value in model.values().items()
        }
        inputs = jnp.ones((4, 5, 3), "float64")
        outputs, _ = model.run(values, {}, inputs, training=True, double=True)
    assert outputs.dtype == "float64"
