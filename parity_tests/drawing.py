"""Random experiments from (family, index) alone: the same on every machine.

Every experiment is drawn at random and then pushed to one edge, index modulo their number: as many
experiments as there are edges reach all of them. Rates are mild, so that most runs stay stable; a
draw with inputs × s is one with inputs × 1 whose first layer makes up for s.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from parity_tests import problems

STEPS = 330  # of a run at most, but for the edge that asks for more
PER_EPOCH = (1, 2, 7, 13, 41, 49, 82, 98, 300)  # steps; count / 49 is the rounded one's trap
RATES = {  # decades of the mild ones
    "sgd": (-2.2, -1.0),
    "adam": (-3.5, -2.3),
    "adamw": (-3.5, -2.3),
    "rmsprop": (-3.7, -2.7),
    "adagrad": (-2.5, -1.3),
    "lion": (-4.5, -3.3),
}


class Data(NamedTuple):
    """Made images; steps an epoch, not images, are drawn."""

    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    test: int
    seed: int


@dataclass(frozen=True)
class Drawn:
    """A random experiment, and on what data."""

    family: int
    index: int
    edge: str
    experiment: Experiment
    data: Data
    train: int  # images there; the experiment can ask for fewer
    also: str  # what is compared beside the two commands' runs: "", sweep, certificate, ...

    @property
    def name(self) -> str:
        e = self.experiment
        return (
            f"{self.index} {self.edge}: {e.optimizer}, {e.layers} layers, "
            f"{self.steps_per_epoch} steps × {e.epochs}, inputs × {e.input_scale:g}"
        )

    @property
    def steps_per_epoch(self) -> int:
        return (self.experiment.train_size or self.train) // self.experiment.batch_size

    def dataset(self) -> Dataset:
        """All images; the first `train_size` of them are the experiment's."""
        shape, classes, test, seed = self.data
        return problems.made(self.train, test, shape, classes, seed)


class Draft:
    """An experiment in the making: an edge changes what was drawn before the numbers are."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        pick, whole = chance.choice, chance.randint
        self.layers = whole(1, 6)
        self.optimizer = pick(list(OPTIMIZER_DEFAULTS))
        self.bias = chance.random() < 0.7
        self.shape = (whole(1, 4), whole(2, 6), whole(2, 6))
        self.classes, self.test = whole(2, 12), whole(13, 140)
        self.per_epoch, self.batch = pick(PER_EPOCH), whole(2, 9)
        self.epochs = max(1, min(whole(1, 12), STEPS // self.per_epoch))
        self.scale = 1.0 if chance.random() < 0.4 else decade(chance, -4, 4)
        self.schedules: list[str] | None = None  # None: a random one for each layer
        self.milestones: int | None = None  # how many; None: a few
        self.warmup = (0.0, 1.5)  # epochs, from and to
        self.gamma = (-1.3, 0.0)  # decades
        self.decay = (-6.0, -3.0)  # decades of a rate times its decay
        self.eps = (-9.0, -3.0)  # decades
        self.own = chance.random() < 0.7  # biases have settings of their own
        self.boost = 1.0  # on the learning rates
        self.zeros = 0.15  # how many rates and decays are 0
        self.settings: dict[str, Any] = {}  # of Experiment, as they are
        self.also = ""
        self.extra = 0  # training images beyond train_size

    def run_for(self, per_epoch: int, epochs: int, batch: int | None = None) -> None:
        self.per_epoch, self.epochs, self.batch = per_epoch, epochs, batch or self.batch

    def each(self, draw: Callable[[], Any]) -> tuple[Any, ...]:
        """One value per layer, or now and then one for all."""
        if self.chance.random() < 0.15:
            return (draw(),)
        return tuple(draw() for _ in range(self.layers))

    def rates(self, power: int) -> dict[str, Any]:
        """Rates, decays, inits and eps of one kind of tensor; the first layer makes up for s."""
        chance = self.chance
        low, high = RATES[self.optimizer]
        centre = self.boost * 10 ** chance.uniform(low, high)
        made: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for layer in range(self.layers):
            c = self.scale ** -(power * (layer == 0))  # W' / W
            degree = 2 if self.optimizer == "sgd" else 1
            rate = centre * 10 ** chance.uniform(-0.4, 0.4)
            decay = 10 ** chance.uniform(*self.decay) / rate
            gain = 10 ** chance.uniform(-0.15, 0.35)
            made["learning_rate"].append(chance.random() >= self.zeros and rate * c**degree)
            coupled = 1 if self.optimizer in ("adamw", "lion") else 2
            made["weight_decay"].append(chance.random() >= self.zeros and decay / c**coupled)
            made["init_scale"].append(gain * c)
            made["eps"].append(10 ** chance.uniform(*self.eps) / c)
        if not any(made["learning_rate"]):
            made["learning_rate"][-1] = centre
        if OPTIMIZER_DEFAULTS[self.optimizer].get("eps") is None:
            del made["eps"]
        return {name: tuple(map(short, values)) for name, values in made.items()}

    def experiment(self) -> Experiment:
        chance = self.chance
        made: dict[str, Any] = self.rates(1)
        if self.bias and self.own:
            made |= {f"bias_{name}": values for name, values in self.rates(0).items()}
        elif self.bias:  # a bias has no part in the inputs' scale, and so no setting to share
            made |= {
                f"bias_{name}": values for name, values in self.rates(0).items() if self.scale != 1
            }
        kinds = self.schedules or ["constant", "cosine", "step", "exponential"]
        schedule = self.each(lambda: chance.choice(kinds))
        if "step" in schedule:
            count = self.milestones or min(chance.randint(1, 3), self.epochs)
            last = max(self.epochs, count)
            made["milestones"] = tuple(sorted(chance.sample(range(1, last + 1), count)))
        warm = [chance.random() < 0.5 and chance.uniform(*self.warmup) for _ in range(self.layers)]
        return Experiment(
            **{
                "hidden": tuple(chance.randint(3, 9) for _ in range(self.layers - 1)),
                "bias": self.bias,
                "optimizer": self.optimizer,
                "input_scale": self.scale,
                "preprocessing": chance.choice(["unit", "center", "standardize"]),
                "schedule": schedule,
                "warmup_epochs": tuple(map(short, warm)),
                "gamma": self.each(lambda: decade(chance, *self.gamma)),
                "batch_size": self.batch,
                "epochs": self.epochs,
                "seed": seed(chance),
                "precision": "float64",
                **made,
                **options(chance, self.optimizer),
                **self.settings,
            }
        )


SETTINGS = ("init_scale", "learning_rate", "weight_decay", "eps")


def short(value: float) -> float:
    """Three digits: no machine's own last place of a power."""
    return float(f"{value:.3g}")


def decade(chance: random.Random, low: float, high: float) -> float:
    return short(10 ** chance.uniform(low, high))


def seed(chance: random.Random) -> int:
    """Of every size, up to the largest there is."""
    return chance.choice(
        [chance.randrange(2**16), chance.randrange(2**33), chance.randrange(2**64)]
    )


def options(chance: random.Random, optimizer: str) -> dict[str, Any]:
    """The optimizer's own. A beta close to 1 is not among them: torch's 1 - beta^t cancels."""
    pick = chance.choice
    if optimizer == "sgd":
        momentum = pick([0.0, 0.3, 0.8, 0.9])
        made: dict[str, Any] = {"momentum": momentum}
        if momentum:
            made |= pick([{}, {"nesterov": True}, {"dampening": pick([0.1, 0.5, 0.9])}])
        return made
    if optimizer in ("adam", "adamw"):
        return {"beta1": pick([0.0, 0.5, 0.9]), "beta2": pick([0.9, 0.95, 0.999, 0.9999])}
    if optimizer == "lion":
        return {"beta1": pick([0.0, 0.5, 0.9]), "beta2": pick([0.0, 0.9, 0.99])}
    if optimizer == "rmsprop":
        return {"alpha": pick([0.9, 0.99]), "momentum": pick([0.0, 0.5, 0.9])}
    return {}


# ---- the edges


def deep(draft: Draft) -> None:
    """Seven and eight layers: dead units of the sixth hidden layer, Nesterov everywhere."""
    draft.layers, draft.optimizer = draft.chance.randint(7, 8), "sgd"
    draft.bias, draft.zeros, draft.scale = True, 0.0, 1.0
    draft.run_for(13, 8)
    draft.schedules = ["constant"]
    draft.settings |= {"momentum": 0.9, "nesterov": True, "dampening": 0.0}


def many_schedules(draft: Draft) -> None:
    draft.layers, draft.zeros, draft.gamma = draft.chance.randint(5, 6), 0.0, (-0.7, -0.1)
    draft.schedules = ["step", "exponential"]
    draft.optimizer = draft.chance.choice(["sgd", "adam"])
    draft.run_for(7, draft.chance.randint(6, 12))


def past_256_steps(draft: Draft) -> None:
    draft.optimizer = draft.chance.choice(["adam", "adamw"])
    draft.run_for(*draft.chance.choice([(41, 7), (49, 6), (98, 3), (300, 1)]), batch=2)


def past_1000_steps(draft: Draft) -> None:
    """Of a momentum that counts its first step, and a rate that changes at every one."""
    draft.layers, draft.optimizer, draft.schedules = draft.chance.randint(1, 2), "sgd", ["cosine"]
    draft.settings |= {"momentum": 0.8, "dampening": 0.5, "nesterov": False}
    draft.run_for(*draft.chance.choice([(103, 10), (107, 10), (206, 5)]), batch=2)


def no_alpha(draft: Draft) -> None:
    """An average that forgets all; eps of the gradients' order keeps it mild."""
    draft.optimizer, draft.eps, draft.zeros = "rmsprop", (-2.0, -1.0), 0.0
    draft.settings["alpha"] = 0.0


def no_beta2(draft: Draft) -> None:
    """Likewise."""
    draft.optimizer = draft.chance.choice(["adam", "adamw"])
    draft.eps, draft.zeros = (-2.0, -1.0), 0.0
    draft.settings["beta2"] = 0.0


def tiny_eps(draft: Draft) -> None:
    """Gradients as small make it count: the first layer's are, behind inputs × 1e-8."""
    draft.optimizer = draft.chance.choice(["adam", "adamw", "adagrad", "rmsprop"])
    draft.scale, draft.eps, draft.zeros = decade(draft.chance, -9, -8), (-6.0, -4.0), 0.0


def tiny_decay(draft: Draft) -> None:
    """Rates that are large make it count: the first layer's are, behind inputs × 1e-4."""
    draft.scale, draft.decay, draft.zeros = decade(draft.chance, -4, -3), (-5.0, -4.0), 0.0
    draft.optimizer = draft.chance.choice(["sgd", "adam", "rmsprop"])


def short_warm_up(draft: Draft) -> None:
    """Less than half a step, which is none, before a clock that would show one."""
    draft.schedules, draft.zeros = ["cosine", "exponential"], 0.0
    draft.run_for(draft.chance.choice([1, 2, 7]), 10)
    draft.warmup = (0.55 / draft.per_epoch, 0.95 / draft.per_epoch)
    few = tuple(short(draft.chance.uniform(0.05, 0.45) / draft.per_epoch) for _ in range(8))
    draft.settings["warmup_epochs"] = few[: draft.layers]


def steep(draft: Draft) -> None:
    """An exponential schedule far below a thousandth."""
    draft.schedules, draft.gamma, draft.zeros = ["exponential"], (-4.0, -1.0), 0.0
    draft.boost = 2.0
    draft.run_for(draft.chance.choice([7, 13]), draft.chance.randint(8, 12))


def many_milestones(draft: Draft) -> None:
    draft.schedules, draft.gamma, draft.zeros = ["step"], (-0.5, -0.1), 0.0
    draft.run_for(draft.chance.choice([7, 13]), 12)
    draft.milestones = draft.chance.randint(6, 9)


def one_image(draft: Draft) -> None:
    draft.run_for(draft.chance.choice([41, 82]), 3, batch=1)


def gray(draft: Draft) -> None:
    draft.shape = (1, *draft.shape[1:])
    draft.settings["preprocessing"] = "center"


def large_test_set(draft: Draft) -> None:
    draft.shape, draft.test = (1, 3, 2), draft.chance.randint(5003, 6400)
    draft.run_for(13, 3)


def linear(draft: Draft) -> None:
    draft.layers, draft.bias, draft.own = 1, True, True
    draft.classes = draft.chance.randint(11, 12)
    draft.run_for(draft.chance.choice([7, 13]), draft.chance.randint(1, 12))


def trap(draft: Draft) -> None:
    """Steps per epoch at which a rounded reciprocal is a step late."""
    draft.schedules, draft.zeros = ["exponential"], 0.0
    draft.run_for(*draft.chance.choice([(49, 5), (98, 3), (103, 3)]), batch=2)
    draft.warmup = (0.0, 0.3)


def deep_signs(draft: Draft) -> None:
    draft.layers, draft.optimizer = draft.chance.randint(4, 6), "lion"


def deep_sums(draft: Draft) -> None:
    draft.layers, draft.optimizer = draft.chance.randint(4, 6), "adagrad"


def deep_adam(draft: Draft) -> None:
    draft.layers, draft.optimizer, draft.bias, draft.own = 6, "adamw", True, True
    draft.zeros = 0.0


def zeros(draft: Draft) -> None:
    draft.zeros, draft.optimizer = 0.5, draft.chance.choice(["sgd", "adam", "rmsprop"])
    if draft.optimizer != "adam":
        draft.settings |= {"momentum": 0.0}
    if draft.optimizer == "sgd":
        draft.settings |= {"nesterov": False, "dampening": 0.0}


def dying(draft: Draft) -> None:
    """Rates far too large: it collapses, or blows up, on both sides alike."""
    draft.layers, draft.optimizer, draft.boost = draft.chance.randint(3, 6), "sgd", 60.0
    draft.schedules = ["constant"]
    draft.run_for(13, 6)


def large_inputs(draft: Draft) -> None:
    draft.scale = decade(draft.chance, 5, 8)


def file(draft: Draft) -> None:
    draft.also, draft.shape = "file", (draft.chance.choice([1, 3]), 5, 4)


def commands(draft: Draft) -> None:
    draft.also, draft.extra = "commands", draft.chance.randint(1, 30)
    draft.shape = (draft.chance.choice([1, 3]), 5, 4)


def torchvision(draft: Draft) -> None:
    draft.also, draft.shape, draft.classes = "torchvision", (3, 32, 32), 10
    draft.layers = draft.chance.randint(1, 3)
    draft.run_for(draft.chance.choice([2, 7]), 3)
    draft.extra = draft.chance.randint(1, 9)
    draft.settings["preprocessing"] = draft.chance.choice(["center", "standardize"])


def tfds(draft: Draft) -> None:
    draft.also, draft.shape, draft.test = "tfds", (3, 4, 5), 3
    draft.run_for(draft.chance.choice([2, 7]), 4)


def sweep(draft: Draft) -> None:
    draft.also, draft.bias, draft.own, draft.zeros = "sweep", True, True, 0.0
    draft.layers, draft.scale = draft.chance.randint(2, 4), 1.0
    draft.optimizer = draft.chance.choice(["sgd", "adam", "rmsprop"])
    draft.run_for(draft.chance.choice([7, 13]), draft.chance.randint(5, 8))


def overflowing_bias(draft: Draft) -> None:
    """A single step, after which nothing but the biases of some of a sweep's runs is infinite."""
    sweep(draft)
    draft.also, draft.optimizer, draft.schedules = "overflowing sweep", "sgd", ["constant"]
    draft.run_for(1, 1)
    draft.settings |= {"warmup_epochs": (0.0,)}


def certificate(draft: Draft) -> None:
    draft.also, draft.bias, draft.own, draft.zeros = "certificate", True, True, 0.0
    draft.layers = draft.chance.randint(1, 4)
    draft.scale = 1.0
    draft.run_for(draft.chance.choice([2, 7, 13]), 3)


EDGES: dict[str, Callable[[Draft], None]] = {
    "deep": deep,
    "many schedules": many_schedules,
    "past 256 steps": past_256_steps,
    "past 1000 steps": past_1000_steps,
    "alpha of 0": no_alpha,
    "beta2 of 0": no_beta2,
    "tiny eps": tiny_eps,
    "tiny decay": tiny_decay,
    "short warm-up": short_warm_up,
    "steep": steep,
    "many milestones": many_milestones,
    "one image a batch": one_image,
    "gray": gray,
    "large test set": large_test_set,
    "linear": linear,
    "49 steps an epoch": trap,
    "deep, lion": deep_signs,
    "deep, adagrad": deep_sums,
    "deep, adamw": deep_adam,
    "zeros": zeros,
    "dying": dying,
    "large inputs": large_inputs,
    "a file": file,
    "commands": commands,
    "torchvision": torchvision,
    "TFDS": tfds,
    "sweep": sweep,
    "overflowing bias": overflowing_bias,
    "certificate": certificate,
}


def draw(family: int, index: int) -> Drawn:
    """The experiment of a family at an index; equal arguments, equal experiments."""
    chance = random.Random(f"{family}/{index}")
    edge = list(EDGES)[index % len(EDGES)]
    draft = Draft(chance)
    EDGES[edge](draft)
    if draft.extra:
        draft.settings["train_size"] = draft.per_epoch * draft.batch
    train = draft.per_epoch * draft.batch + draft.extra
    data = Data(draft.shape, draft.classes, draft.test, chance.randrange(2**31))
    return Drawn(family, index, edge, draft.experiment(), data, train, draft.also)
