"""What course a user's run will take, told before its first step.

The same two things are looked at as for the project's own network: the sharpness with the
optimizer's preconditioner, and a rehearsal on a copy. The logistic models were fitted to MLPs;
docs/your-own-network.md says how they do elsewhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmlp.experiment import OPTIMIZER_DEFAULTS, Experiment
from jaxmlp.forecasting.curvature import SAMPLE, largest_eigenvalue, stability_limit
from jaxmlp.forecasting.models import DIVERGES, FAILS, REHEARSAL, Sharpness, features
from jaxmlp.law import words
from jaxmlp.networks.protocol import INPUT, Arrays, Factors, Network, Settings, Step
from jaxmlp.record.outcomes import FAILS_FROM
from jaxmlp.training.optimizer import direction

# Parameters times images whose products take a quarter of a minute on 2 cores: a large network's
# sharpness is taken on fewer images. S is then too large: of ResNet-18 it is 21 on 128 images, 14
# on 256, 11 on 384 and 6 on 896, and the rehearsal is what counts.
MOST_WORK = 3e9
RELUS_SHOWN = 5  # assumed: more is no sentence
# Those whose first step is that of another one, and whose limit is.
LIKE = {"amsgrad": "adam", "adamax": "adam", "nadam": "adam", "nadamw": "adamw"}


class NetworkForecast(NamedTuple):
    """What is known of a network's run before its first step."""

    sharpness: Sharpness | None  # None: the optimizer's preconditioner is not known
    loss: np.ndarray  # (steps,) of the rehearsal
    dead: Mapping[str, float]  # by ReLU, at the rehearsal's end: share of units off in a batch
    diverges: float  # probabilities
    fails: float | None  # None: outputs are no class scores, so that nobody can see it recover

    @property
    def course(self) -> str:
        if self.fails is not None and self.fails >= FAILS_FROM:
            return "fails"
        if self.diverges < 0.5:
            return "stable"
        return "recovers" if self.fails is not None else "diverges"

    def to_json(self) -> dict[str, Any]:
        ratio = self.sharpness and self.sharpness.ratio
        return {
            "sharpness": self.sharpness and self.sharpness.value,
            "limit": self.sharpness and self.sharpness.limit,
            "ratio": ratio,
            "rehearsed_steps": len(self.loss),
            "first_loss": float(self.loss[0]),
            "last_loss": float(self.loss[-1]),
            "dead": dict(self.dead),
            "diverges": self.diverges,
            "fails": self.fails,
            "course": self.course,
        }

    def __str__(self) -> str:
        """The forecast in words."""
        if self.sharpness is None or self.fails is None:
            course = "Stable" if self.diverges < 0.5 else "Unstable"
            text = f"{course} (it diverges with probability {words.percent(self.diverges)})."
        else:
            text = words.forecast(self.to_json())
        off = [f"{words.percent(share)} of {name}" for name, share in self.dead.items() if share]
        if not off:
            return text
        shown = ", ".join(off[:RELUS_SHOWN]) + ", ..." * (len(off) > RELUS_SHOWN)
        return f"{text} Units off after {len(self.loss)} rehearsed steps: {shown}."


def forecast(
    network: Network,
    input_scale: float = 1.0,
    steps: int = REHEARSAL,
    progress: Callable[[str], None] = lambda text: None,
) -> NetworkForecast:
    """The forecast of the network's run with its inputs × `input_scale`.

    Args:
        steps: of the rehearsal.
        progress: called with what is under way.
    """
    factors = {INPUT: input_scale} if input_scale != 1 else {}
    settings = network.settings
    progress("sharpness")
    found = sharpness(network, factors, settings)
    training, rehearsed = network.start(factors, settings), []
    for number in range(1, steps + 1):
        progress(f"rehearsal, step {number} of {steps}")
        rehearsed.append(training.step())
        if not np.isfinite(rehearsed[-1].loss):
            break
    has_classes = rehearsed[0].correct is not None
    return judge(found, rehearsed, training.outputs().shape[-1] if has_classes else None)


def judge(
    found: Sharpness | None, rehearsed: Sequence[Step], classes: int | None
) -> NetworkForecast:
    """The forecast from the sharpness at the start and the first steps.

    Args:
        classes: None where outputs are no class scores.
    """
    loss = np.array([float(step.loss) for step in rehearsed])
    dead = np.array([list(step.dead.values()) for step in rehearsed]).reshape(len(loss), -1)
    correct = np.array([step.correct or 0.0 for step in rehearsed])
    seen = features(found.ratio if found else 1.0, loss, dead, correct, classes or 1)
    diverges = DIVERGES.probability(seen)
    fails = diverges * FAILS.probability(seen)
    if not np.isfinite(loss).all():  # it has happened
        diverges = fails = 1.0
    last = rehearsed[-1].dead
    return NetworkForecast(found, loss, last, diverges, None if classes is None else fails)


# ---- sharpness


def sharpness(network: Network, factors: Factors, settings: Settings) -> Sharpness | None:
    """S of a network's run at its start, on its first batches; None: not known for its optimizer.

    S is the largest eigenvalue of D^½ H D^½: H the Hessian, D the rates times the preconditioner.
    """
    kind = LIKE.get(network.optimizer, network.optimizer)
    if kind not in OPTIMIZER_DEFAULTS:
        return None
    known = OPTIMIZER_DEFAULTS[kind].keys() | {"nesterov"}
    options: Any = {name: value for name, value in network.options.items() if name in known}
    experiment = Experiment(optimizer=kind, **options)
    size = len(network.batches[0][1])
    parameters = sum(math.prod(network.tensors[name]) for name in settings)
    images = min(SAMPLE, int(MOST_WORK // max(1, parameters)))
    batches = min(max(1, images // size), len(network.batches))
    roots = _root_rates(network, experiment, factors, settings, batches)
    # In units of the largest, so that products neither under- nor overflow because of the rates.
    unit = max((float(root.max(initial=0.0)) for root in roots.values()), default=0.0) or 1.0
    roots = {name: root / unit for name, root in roots.items()}
    dtype = np.dtype(np.float32)

    def product(vector: np.ndarray) -> np.ndarray:
        tangent = _multiplied(_split(vector, roots), roots)
        result = network.hessian_product(factors, batches, tangent)
        return np.concatenate([each.ravel() for each in _multiplied(result, roots).values()])

    value = largest_eigenvalue(product, sum(root.size for root in roots.values()), dtype)
    return Sharpness(value * unit**2, stability_limit(experiment), size * batches)


def _root_rates(
    network: Network,
    experiment: Experiment,
    factors: Factors,
    settings: Settings,
    batches: int,
) -> Arrays:
    """D^½ of each trained tensor: what the first step makes of a gradient, times the rate."""
    if experiment.optimizer == "sgd":
        return {
            name: np.full(network.tensors[name], math.sqrt(of_tensor["learning_rate"]), np.float32)
            for name, of_tensor in settings.items()
        }
    roots = {}
    for name, grads in network.gradients(factors, batches).items():
        chain = direction(experiment, jnp.asarray(settings[name].get("eps", 0.0)))
        step = np.abs(np.asarray(chain.update(grads, chain.init(grads))[0], np.float64))
        known = np.divide(step, grads, out=np.zeros_like(step), where=grads > 0)
        roots[name] = np.sqrt(settings[name]["learning_rate"] * known).astype(np.float32)
    return roots


def _split(vector: np.ndarray, like: Arrays) -> Arrays:
    places = np.cumsum([each.size for each in like.values()])[:-1]
    parts = np.split(vector, places)
    return {
        name: p.reshape(each.shape) for p, (name, each) in zip(parts, like.items(), strict=True)
    }


def _multiplied(arrays: Arrays, roots: Arrays) -> Arrays:
    return {name: arrays[name] * root for name, root in roots.items()}
