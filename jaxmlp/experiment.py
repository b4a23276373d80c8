"""Experiment: everything a user asks of one run, validated here and nowhere else."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    # SGD: the question's. The others: torch's own defaults; Lion: Chen et al. 2023, section 4.
    "sgd": {"learning_rate": (0.02,), "momentum": 0.9, "dampening": 0.0},
    "adam": {"learning_rate": (1e-3,), "beta1": 0.9, "beta2": 0.999, "eps": (1e-8,)},
    "adamw": {"learning_rate": (1e-3,), "beta1": 0.9, "beta2": 0.999, "eps": (1e-8,)},
    "rmsprop": {"learning_rate": (1e-2,), "alpha": 0.99, "momentum": 0.0, "eps": (1e-8,)},
    "adagrad": {"learning_rate": (1e-2,), "eps": (1e-10,)},
    "lion": {"learning_rate": (1e-4,), "beta1": 0.9, "beta2": 0.99},
}
TENSORS = ("kernel", "bias")  # of a layer; these settings can differ between the two:
PER_TENSOR = ("init_scale", "learning_rate", "weight_decay", "eps")
SCALED = ("input_scale", *PER_TENSOR, *(f"bias_{name}" for name in PER_TENSOR))
NETWORK = ("hidden", "bias", "optimizer")  # runs that differ in one of these cannot be compared
OPTIMIZER_OPTIONS = ("momentum", "dampening", "beta1", "beta2", "alpha", "eps")
DECOUPLED = ("adamw", "lion")  # these shrink the weight itself; all others add decay * weight
SCHEDULES = ("constant", "cosine", "step", "exponential")
PREPROCESSING = ("unit", "center", "standardize")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
FLOAT32_MAX = 3.4028234663852886e38
FLOAT32_MIN = 1.1754943508222875e-38  # smallest normal; XLA flushes what is smaller to zero

Check = tuple[Callable[[Any], bool], str]  # what a value has to be, and the same in words
POSITIVE: Check = (
    lambda value: FLOAT32_MIN <= value <= FLOAT32_MAX,
    "must be a positive number that float32 can hold (1.2e-38 to 3.4e38)",
)
NOT_NEGATIVE: Check = (
    lambda value: value == 0 or FLOAT32_MIN <= value <= FLOAT32_MAX,
    "must be 0 or a positive number that float32 can hold (1.2e-38 to 3.4e38)",
)
FRACTION: Check = (lambda value: 0 <= value < 1, "must lie in [0, 1)")
COUNT: Check = (lambda value: 1 <= value < 2**31, "must be at least 1, and below 2^31")


def full_name(tensor: str, name: str) -> str:
    """The field of Experiment with a setting of PER_TENSOR for one of TENSORS."""
    return name if tensor == "kernel" else f"bias_{name}"


def _setting(default: Any, section: str, help: str, **rules: Any) -> Any:  # noqa: A002
    """A field with what the command line and the validation need to know of it."""
    return field(default=default, metadata={"section": section, "help": help, **rules})


@dataclass(frozen=True)
class Experiment:
    """One run, as asked for. Immutable, hashable, JSON round trip.

    Per-layer settings are tuples: one value for all layers, or one per layer, first layer first.
    A tuple of equal values is stored as one value, so that equal experiments compare equal.
    A setting that is None takes the optimizer's default; one that the optimizer does not have
    stays None, and giving it is an error.

    Raises:
        ValueError: a setting breaks its rule. One line: value, rule, remedy.
    """

    hidden: tuple[int, ...] = _setting(
        (300,),
        "network",
        "widths of the hidden ReLU layers; no value: a linear model",
        kind=int,
        rule=COUNT,
    )
    bias: bool = _setting(False, "network", "give every layer a bias")
    init_scale: tuple[float, ...] = _setting(
        (1.0,),
        "network",
        "factor on PyTorch's default initialisation",
        per_layer=True,
        kind=float,
        rule=POSITIVE,
    )
    input_scale: float = _setting(
        1.0, "input", "factor on the preprocessed pixels", kind=float, rule=POSITIVE
    )
    preprocessing: str = _setting(
        "unit",
        "input",
        "pixels in [0, 1]; less the channel means; or less the means, over the deviations",
        kind=str,
        choices=PREPROCESSING,
    )
    train_size: int | None = _setting(
        None, "input", "train on the first N images (default: all)", kind=int, rule=COUNT
    )
    optimizer: str = _setting(
        "sgd",
        "optimizer",
        "with PyTorch's semantics; Lion's are its paper's",
        kind=str,
        choices=tuple(OPTIMIZER_DEFAULTS),
    )
    learning_rate: tuple[float, ...] | None = _setting(
        None,
        "optimizer",
        "(default: 0.02 for sgd, torch's own for the others)",
        per_layer=True,
        kind=float,
        rule=NOT_NEGATIVE,
    )
    weight_decay: tuple[float, ...] = _setting(
        (1e-4,),
        "optimizer",
        "coupled to the gradient; decoupled for adamw and lion",
        per_layer=True,
        kind=float,
        rule=NOT_NEGATIVE,
    )
    momentum: float | None = _setting(
        None, "optimizer", "sgd, rmsprop (default: 0.9, 0)", kind=float, rule=FRACTION
    )
    dampening: float | None = _setting(
        None, "optimizer", "sgd (default: 0)", kind=float, rule=FRACTION
    )
    nesterov: bool = _setting(False, "optimizer", "sgd: Nesterov's momentum")
    beta1: float | None = _setting(
        None, "optimizer", "adam, adamw, lion (default: 0.9)", kind=float, rule=FRACTION
    )
    beta2: float | None = _setting(
        None,
        "optimizer",
        "adam, adamw, lion (default: 0.999, 0.999, 0.99)",
        kind=float,
        rule=FRACTION,
    )
    alpha: float | None = _setting(
        None, "optimizer", "rmsprop's averaging (default: 0.99)", kind=float, rule=FRACTION
    )
    eps: tuple[float, ...] | None = _setting(
        None,
        "optimizer",
        "adam, adamw, rmsprop, adagrad; added outside the root as in PyTorch",
        per_layer=True,
        kind=float,
        rule=POSITIVE,
    )
    bias_init_scale: tuple[float, ...] | None = _setting(
        None,
        "biases",
        "the biases' own init_scale (default: as the weights')",
        per_layer=True,
        kind=float,
        rule=POSITIVE,
    )
    bias_learning_rate: tuple[float, ...] | None = _setting(
        None,
        "biases",
        "the biases' own learning_rate (default: as the weights')",
        per_layer=True,
        kind=float,
        rule=NOT_NEGATIVE,
    )
    bias_weight_decay: tuple[float, ...] | None = _setting(
        None,
        "biases",
        "the biases' own weight_decay (default: as the weights')",
        per_layer=True,
        kind=float,
        rule=NOT_NEGATIVE,
    )
    bias_eps: tuple[float, ...] | None = _setting(
        None,
        "biases",
        "the biases' own eps (default: as the weights')",
        per_layer=True,
        kind=float,
        rule=POSITIVE,
    )
    schedule: tuple[str, ...] = _setting(
        ("constant",),
        "schedule",
        "what the rate does after its warm-up",
        per_layer=True,
        kind=str,
        choices=SCHEDULES,
    )
    warmup_epochs: tuple[float, ...] = _setting(
        (0.0,),
        "schedule",
        "epochs of linear warm-up",
        per_layer=True,
        kind=float,
        rule=(lambda value: 0 <= value <= 1e6, "must lie in [0, 1e6]"),
    )
    milestones: tuple[int, ...] = _setting(
        (),
        "schedule",
        "schedule step: multiply the rate by gamma after each of these epochs",
        kind=int,
        rule=COUNT,
    )
    gamma: tuple[float, ...] = _setting(
        (0.1,),
        "schedule",
        "schedules step (each milestone) and exponential (each epoch)",
        per_layer=True,
        kind=float,
        rule=POSITIVE,
    )
    batch_size: int = _setting(250, "run", "images per step", kind=int, rule=COUNT)
    epochs: int = _setting(20, "run", "passes over the training images", kind=int, rule=COUNT)
    seed: int = _setting(
        0,
        "run",
        "as in torch.manual_seed: weights and batch order, bit for bit",
        kind=int,
        rule=(lambda value: 0 <= value < 2**64, "must lie in [0, 2^64)"),
    )
    precision: str = _setting(
        "float32",
        "run",
        "tf32 and bfloat16 loosen the matrix products on GPU and TPU",
        kind=str,
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = _validated(setting, getattr(self, setting.name))
            if setting.metadata.get("per_layer") and value is not None:
                # Counted before it is shortened: three equal values are too many for two layers.
                self._check_count(setting.name, value)
                value = value[:1] if len(set(value)) == 1 else value
            object.__setattr__(self, setting.name, value)
        self._resolve_optimizer()
        self._resolve_biases()
        self._check_combinations()

    def _resolve_optimizer(self) -> None:
        defaults = OPTIMIZER_DEFAULTS[self.optimizer]
        for name in ("learning_rate", *OPTIMIZER_OPTIONS):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                having = ", ".join(
                    kind for kind, options in OPTIMIZER_DEFAULTS.items() if name in options
                )
                raise ValueError(
                    f"{name} does not apply to the optimizer {self.optimizer}; "
                    f"leave it out, or choose one that has it: {having}"
                )

    def _resolve_biases(self) -> None:
        """Settings of the biases that say what the weights' say are stored as None."""
        for name in PER_TENSOR:
            of_biases = getattr(self, f"bias_{name}")
            if of_biases is None:
                continue
            if not self.bias:
                raise ValueError(
                    f"bias_{name} {_plain(of_biases)}: the network has no biases; leave it out, or "
                    "give them with bias"
                )
            if getattr(self, name) is None:
                raise ValueError(
                    f"bias_{name} does not apply to the optimizer {self.optimizer}; leave it out"
                )
            if self.per_layer(f"bias_{name}") == self.per_layer(name):
                object.__setattr__(self, f"bias_{name}", None)

    def _check_count(self, name: str, values: tuple[Any, ...]) -> None:
        if len(values) not in (1, self.layers):
            raise ValueError(
                f"{name} has {len(values)} values; the network has {self.layers} "
                f"layer{'s' * (self.layers > 1)}: give one value for all or one per layer"
            )

    def _check_combinations(self) -> None:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(
                f"nesterov does not apply to the optimizer {self.optimizer}; "
                "leave it out, or choose sgd"
            )
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError(
                f"nesterov with momentum {self.momentum} and dampening {self.dampening}: it needs "
                "a momentum above 0 and no dampening; change these or leave nesterov out"
            )
        if self.dampening and not self.momentum:
            raise ValueError(
                f"dampening {self.dampening} does nothing without momentum; "
                "set a momentum or leave dampening out"
            )
        if "step" in self.schedule and not self.milestones:
            raise ValueError("schedule step needs milestones; give the epochs, such as 10 15")
        if self.milestones and "step" not in self.schedule:
            raise ValueError(
                f"milestones {_plain(self.milestones)} belong to the schedule step; "
                "choose that schedule or leave them out"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(
                f"milestones {_plain(self.milestones)} must rise; sort them and drop doubles"
            )

    @property
    def layers(self) -> int:
        """Number of linear layers: the hidden ones and the output layer."""
        return len(self.hidden) + 1

    def per_layer(self, name: str) -> tuple[Any, ...]:
        """The per-layer setting `name`, one value per layer, first layer first.

        The biases' settings (`bias_learning_rate`, ...) are the weights' where they are not given.
        """
        values: Any = getattr(self, name)
        if values is None and name.startswith("bias_"):
            return self.per_layer(name.removeprefix("bias_"))
        assert values is not None, name
        return values * self.layers if len(values) == 1 else values

    @property
    def tensors(self) -> tuple[str, ...]:
        """The kinds of tensor that a layer has: its kernel, and perhaps a bias."""
        return TENSORS if self.bias else TENSORS[:1]

    def per_tensor(self, name: str) -> dict[str, tuple[float, ...]]:
        """A setting of PER_TENSOR per layer, for each kind of tensor that a layer has."""
        return {tensor: self.per_layer(full_name(tensor, name)) for tensor in self.tensors}

    def steps_per_epoch(self, images: int) -> int:
        """Batches in an epoch over `images` training images.

        Raises:
            ValueError: the batch size does not divide them.
        """
        size = self.batch_size
        if images % size == 0:
            return images // size
        divisors = [each for each in range(1, images + 1) if images % each == 0]
        below = max((each for each in divisors if each < size), default=1)
        above = min((each for each in divisors if each > size), default=images)
        which = f"{below} and {above} do" if below != above else f"{below} does"
        fewer = f", or take --train-size {images - images % size}" if images > size else ""
        raise ValueError(
            f"batch size {size} does not divide {images} training images; {which}{fewer}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; `from_json` gives an equal experiment back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Experiment":
        """The experiment that `to_json` wrote.

        Raises:
            ValueError: a name is unknown, or a value breaks its rule.
        """
        names = {setting.name for setting in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(
                f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(names))}"
            )
        return cls(**values)

    @property
    def sha256(self) -> str:
        """Fingerprint of the experiment: equal experiments, equal fingerprints."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def parse_number(word: str) -> float:
    """The float that a decimal word means.

    Raises:
        ValueError: it means none; or a number so small that it would silently become 0.
    """
    value = float(word)
    if value == 0 and re.search("[1-9]", re.split("[eE]", word)[0]):
        raise ValueError(f"{word} is too small for a float")
    return value


def _plain(values: tuple[Any, ...]) -> str:
    return " ".join(f"{value}" for value in values)


def _validated(setting: dataclasses.Field, value: Any) -> Any:
    """`value` in the setting's own type."""
    if value is None and setting.default is None:
        return None
    if isinstance(setting.default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{setting.name} {value!r} must be true or false")
        return value
    if "tuple" not in str(setting.type):
        return _checked(setting, value)
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(_checked(setting, item) for item in values)


def _checked(setting: dataclasses.Field, value: Any) -> Any:
    name, rules = setting.name, setting.metadata
    if choices := rules.get("choices"):
        if value not in choices:
            raise ValueError(f"{name} {value!r} is not known; choose from {', '.join(choices)}")
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)  # which Python counts as one
    if not (whole or (rules["kind"] is float and isinstance(value, float))):
        wanted = "a whole number" if rules["kind"] is int else "a number"
        raise ValueError(f"{name} {value!r} must be {wanted}")
    holds, rule = rules["rule"]
    if not (holds(value) and (whole or math.isfinite(value))):
        raise ValueError(f"{name} {value!r} {rule}")
    return rules["kind"](value) + 0  # -0.0 and 0 are one setting, and so one fingerprint
