"""By which powers an optimizer's settings move when its weights are rescaled."""

from typing import NamedTuple


class Rule(NamedTuple):
    """Powers of c = W' / W by which a tensor's settings move; None: it has no such setting."""

    learning_rate: int
    weight_decay: int
    eps: int | None = None
    clip: int = -1  # threshold on the norm of the tensor's own gradient
    decoupled: bool = False  # decay shrinks the weight itself


# Derived: let u(g) be the step's direction and p its degree, u(g / c) = u(g) / c^p. A step
# rate·u(g) has to grow by c, so the rate moves by 1 + p (2 for SGD, 1 where the direction is
# normalised, 0 where it is scaled by the weight itself: LARS, LAMB). Coupled decay stands beside
# the gradient: -2; decoupled decay in rate·decay·W has to undo the rate. eps stands beside the
# gradient's size, where PyTorch adds it (LAMB, Muon, LARS, Lion, signSGD, Yogi, NovoGrad: optax).
RULES: dict[str, Rule] = {
    "sgd": Rule(2, -2),
    "adam": Rule(1, -2, -1),
    "adamw": Rule(1, -1, -1, decoupled=True),
    "rmsprop": Rule(1, -2, -1),
    "adagrad": Rule(1, -2, -1),
    "lion": Rule(1, -1, decoupled=True),
    "amsgrad": Rule(1, -2, -1),
    "adabelief": Rule(1, -2, -1),
    "yogi": Rule(1, -2, -1),
    "signsgd": Rule(1, -1, decoupled=True),
    "lars": Rule(0, -2, -1),
    "lamb": Rule(0, -1, -1, decoupled=True),
    "muon": Rule(1, -1, -1, decoupled=True),
    "novograd": Rule(1, -1, -1, decoupled=True),
}
FURTHER_RULES = {  # of optimizers that no Experiment and no template has, but users' own runs may
    "nadam": Rule(1, -2, -1),
    "nadamw": Rule(1, -1, -1, decoupled=True),
    "adamax": Rule(1, -2, -1),
}
UNMOVABLE = {
    "radam": "its first steps follow the plain momentum and the others its direction, which scale "
    "differently; choose adam, with a warm-up",
    "adadelta": "its one eps stands beside the squared gradients and beside the squared steps, "
    "which scale in opposite ways; choose another optimizer",
}

GLOBAL_NORM = (
    "clipping by the global norm mixes the tensors: after a rescaling their gradients have another "
    "norm together, so no settings make the two the same run; clip each tensor by its own norm"
)


def scaling_rule(optimizer: str) -> Rule:
    """The powers by which an optimizer's settings move.

    Raises:
        ValueError: it is not known, or cannot be moved exactly.
    """
    if optimizer in UNMOVABLE:
        raise ValueError(f"{optimizer} cannot be moved exactly: {UNMOVABLE[optimizer]}")
    rules = RULES | FURTHER_RULES
    if optimizer not in rules:
        raise ValueError(f"optimizer {optimizer!r} is not known; choose from {', '.join(RULES)}")
    return rules[optimizer]


def power(optimizer: str, setting: str) -> int:
    """By which power of c a tensor's setting moves."""
    return 1 if setting == "init_scale" else getattr(scaling_rule(optimizer), setting)
