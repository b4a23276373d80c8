"""The question, asked of a small convolutional network: its cases, its certificate, and why."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from jaxmlp.data.dataset import Dataset
from jaxmlp.forecasting.models import REHEARSAL
from jaxmlp.networks.adapt import network as adapted
from jaxmlp.networks.certificate import Certificate, certify
from jaxmlp.networks.forecast import judge, sharpness
from jaxmlp.networks.group import find
from jaxmlp.networks.protocol import INPUT, Network, Step, Training
from jaxmlp.networks.run import Change
from jaxmlp.networks.transport import transport
from jaxmlp.networks.words import which_run
from jaxmlp.record.outcomes import outcome

SCALE, POWER_OF_TWO = 255.0, 256.0  # the question's, and the nearest at which nothing is rounded
BATCH_SIZE = 100
MOST_IMAGES = 100 * BATCH_SIZE  # a network keeps a hundred batches
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.02, 0.9, 1e-4  # the question's
CERTIFIED_STEPS = 50
SAMPLE_BATCHES = (
    2  # for the sharpness; measured: within 30 % of that of ten, in a fifth of the time
)
PLAIN, BATCH_NORM = "no normalisation", "BatchNorm"
SEED = 0


class Row(NamedTuple):
    """A case and what became of it."""

    case: str
    test_accuracy: float
    dead: float  # share of the channels that no test image activates, of the worse ReLU
    outcome: str  # as record/outcomes.py words it
    course: str  # foretold from the start and the first steps


class Case(NamedTuple):
    """A network, and the change with which it is trained."""

    network: Network
    sample: Network  # the same one with its first batches alone
    change: Change


def train_size(images: int | None, dataset: Dataset) -> int:
    """How many training images make an epoch; None asks for as many as can.

    Raises:
        ValueError: there are not so many, or they make no whole batches.
    """
    available = min(len(dataset.train_images), MOST_IMAGES)
    if images is None:
        return available - available % min(BATCH_SIZE, available)
    if not 1 <= images <= available:
        raise ValueError(f"{images} training images; choose 1 to {available}")
    if images % min(BATCH_SIZE, images):
        raise ValueError(f"{images} training images are no multiple of the batch, {BATCH_SIZE}")
    return images


def networks(framework: str, dataset: Dataset, images: int) -> dict[str, Network]:
    """The CNN without and with BatchNorm, to be trained on the first images.

    Raises:
        ValueError: the images are smaller than what is pooled twice.
    """
    shape = dataset.train_images.shape[1:]
    if min(shape[1:]) < 4:
        raise ValueError(f"images of {shape[1]} × {shape[2]} pixels; the CNN needs 4 × 4")
    return {
        name: _network(framework, dataset, images, batch_norm)
        for name, batch_norm in ((PLAIN, False), (BATCH_NORM, True))
    }


def samples(framework: str, dataset: Dataset, images: int) -> dict[str, Network]:
    """The same with their first batches alone."""
    return networks(framework, dataset, min(images, SAMPLE_BATCHES * BATCH_SIZE))


def _network(framework: str, dataset: Dataset, images: int, batch_norm: bool) -> Network:
    side = _side(framework)
    model = side.Cnn(dataset.train_images.shape[1:], dataset.classes, batch_norm, SEED)
    optimizer = side.optimizer(model, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
    arrays = dataset.train_images[:images], dataset.train_labels[:images]
    return adapted(model, optimizer, side.batches(*arrays, min(BATCH_SIZE, images)))


def _side(framework: str) -> Any:
    """The module with a framework's CNN."""
    if framework == "torch":
        from torchref import cnn
    else:
        from jaxmlp.networks import cnn
    return cnn


def cases(whole: dict[str, Network], first: dict[str, Network]) -> dict[str, Case]:
    """Those of the question that a CNN can be asked, and what the law adds.

    Args:
        whole: as `networks` returns them.
        first: as `samples` does.
    """
    plain, batch_norm = ((whole[name], first[name]) for name in (PLAIN, BATCH_NORM))
    scaled = f"inputs × {SCALE:g}"
    return {
        "baseline": Case(*plain, _scaled(plain[0], 1.0)),
        scaled: Case(*plain, _scaled(plain[0], SCALE)),
        f"{scaled}, repaired": Case(*plain, transport(plain[0], SCALE).change),
        BATCH_NORM: Case(*batch_norm, _scaled(batch_norm[0], 1.0)),
        f"{BATCH_NORM}, {scaled}": Case(*batch_norm, _scaled(batch_norm[0], SCALE)),
    }


def _scaled(network: Network, input_scale: float) -> Change:
    """Nothing but the inputs multiplied."""
    settings = {name: dict(of_tensor) for name, of_tensor in network.settings.items()}
    return Change(input_scale, {INPUT: Fraction(1)}, settings)


def rows(
    named: dict[str, Case],
    dataset: Dataset,
    epochs: int,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Trains each case.

    Args:
        progress: called with what is under way.
    """
    for name, (network, sample, change) in named.items():
        progress(f"{name}: sharpness")
        found = sharpness(sample, change.factors, change.settings)
        training, steps = network.start(change.factors, change.settings), []
        for epoch in range(1, epochs + 1):
            progress(f"{name}: epoch {epoch} of {epochs}")
            steps += [training.step() for _ in range(len(network.batches))]
        evaluate = _side(network.framework).evaluate
        test = evaluate(training, dataset.test_images, dataset.test_labels)
        ended = _outcome(training, steps, len(network.batches), test, dataset.classes)
        # The run is its own rehearsal: nothing after its first steps is looked at.
        course = judge(found, _rehearsed(steps), dataset.classes).course
        yield Row(name, test.accuracy, max(test.dead), ended, course)


def _outcome(
    training: Training, steps: Sequence[Step], of_epoch: int, test: Any, classes: int
) -> str:
    """How a run ended after these steps, `of_epoch` of them in its last epoch."""
    finite = all(np.isfinite(tensor).all() for tensor in training.tensors().values())
    loss = np.array([step.loss for step in steps])
    last = {
        "train_loss": float(loss[-of_epoch:].mean()),
        "test_loss": test.loss,
        "silent": test.silent,
    }
    return outcome(classes, {"loss": loss}, [last], finite)


def _rehearsed(steps: list[Step]) -> list[Step]:
    """The first steps, up to one that is not finite, as `forecast` takes them."""
    first = []
    for step in steps[:REHEARSAL]:
        first.append(step)
        if not np.isfinite(step.loss):
            break
    return first


def certificate(network: Network) -> Certificate:
    """Whether the network and its transport to inputs × 256 are one run, bit for bit."""
    return certify(network, POWER_OF_TWO, CERTIFIED_STEPS)


def reason(network: Network) -> str:
    """Which run inputs × 255 make of the network's, in a sentence."""
    return which_run(network, find(network), SCALE)


def repair(network: Network) -> str:
    """What makes up for inputs × 255, touching as few tensors as can be."""
    return "; ".join(str(transport(network, SCALE)).splitlines())
