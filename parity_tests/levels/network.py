"""Forward passes and gradients: every tensor, from the same weights and inputs."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from parity_tests import problems, sides, truth
from parity_tests.bounds import UNIT, Bounded, exact
from parity_tests.comparison import Comparison, Judged, adjudicated, derived

Tensors = Iterator[tuple[str, Judged, Judged]]  # judged by its own operands; by the whole


def forward(quick: bool = False) -> Iterator[Comparison]:
    """Hidden activations, logits and loss."""
    yield from _level("forward", _forward, quick)


def gradients(quick: bool = False) -> Iterator[Comparison]:
    """The gradient of every tensor, and the activations whose signs are its ReLU masks."""
    yield from _level("gradients", _gradients, quick)


def _level(level: str, tensors_of, quick: bool) -> Iterator[Comparison]:
    """The derived bounds hold layer by layer, each from what that side put into it.

    So they stay narrow, and whatever enters a layer has been compared before. Against float64 the
    network is adjudicated as a whole.
    """
    for problem in problems.networks(quick):
        pooled: dict[str, list[Judged]] = defaultdict(list)
        for tensor, by_layer, as_whole in tensors_of(problem):
            yield derived((level, problem.name, tensor), *by_layer)
            pooled[tensor.split()[-1]].append(as_whole)
        if problem.experiment.precision == "float32":
            for tensor, samples in pooled.items():
                yield adjudicated((level, problem.name, tensor), samples)


def _samples(problem: problems.Problem) -> Iterator[tuple]:
    """For both sides the same: scaled initial weights, a batch of inputs, its labels."""
    experiment, dataset = problem.experiment, problem.dataset
    dtype, widths = sides.numpy_dtype(experiment), dataset.widths(experiment.hidden)
    size = experiment.batch_size
    batches = len(dataset.train_labels) // size
    for number in range(problem.samples):
        weights = sides.torch_weights(experiment.seed + number, widths, experiment.bias, dtype)
        weights = sides.torch_scaled_weights(experiment, weights)
        indices = np.arange(size) + size * (number % batches)
        inputs, labels = sides.torch_inputs(experiment, dataset, indices)
        yield f"sample {number} " if problem.samples > 1 else "", weights, inputs, labels


def _forward(problem: problems.Problem) -> Tensors:
    experiment = problem.experiment
    unit = UNIT[experiment.precision]
    for prefix, weights, inputs, labels in _samples(problem):
        found = [
            side(experiment, weights, inputs) for side in (sides.jax_forward, sides.torch_forward)
        ]
        whole = truth.forward(weights, inputs, unit)
        own = [truth.forward(weights, inputs, unit, hidden) for hidden, _ in found]
        for i, value in enumerate(whole.hidden):
            arrays = [hidden[i] for hidden, _ in found]
            judges = [judge.hidden[i] for judge in own]
            yield f"{prefix}hidden{i + 1}", *_judged(arrays, judges, value)
        logits, judges = [logits for _, logits in found], [judge.logits for judge in own]
        yield f"{prefix}logits", *_judged(logits, judges, whole.logits)
        results = [
            side(experiment, weights, inputs, labels)
            for side in (sides.jax_gradients, sides.torch_gradients)
        ]
        losses = [result.loss for result in results]
        own = [truth.forward(weights, inputs, unit, result.hidden) for result in results]
        judges = [truth.cross_entropy(judge.logits, labels)[0] for judge in own]
        value, _ = truth.cross_entropy(whole.logits, labels)
        yield f"{prefix}loss", *_judged(losses, judges, value)


def _judged(
    arrays: list[np.ndarray], judges: list[Bounded], whole: Bounded
) -> tuple[Judged, Judged]:
    """Both sides, each by its own operands' truth, and both by that of the whole network."""
    jax, torch = arrays
    return Judged(jax, torch, judges[0], judges[1]), Judged(jax, torch, whole, whole)


def _gradients(problem: problems.Problem) -> Tensors:
    """Each side is judged with its own mask: near 0 either answer is right, see `backward`."""
    experiment = problem.experiment
    unit = UNIT[experiment.precision]
    for prefix, weights, inputs, labels in _samples(problem):
        whole = truth.forward(weights, inputs, unit)
        _, delta = truth.cross_entropy(whole.logits, labels)
        found = [
            side(experiment, weights, inputs, labels)
            for side in (sides.jax_gradients, sides.torch_gradients)
        ]
        by_layer, as_whole, own = [], [], []
        for side in found:
            masks = [layer > 0 for layer in side.hidden]
            own.append(truth.forward(weights, inputs, unit, side.hidden))
            _, own_delta = truth.cross_entropy(own[-1].logits, labels)
            below = [exact(array, unit) for array in (inputs, *side.hidden)]
            by_layer.append(truth.backward(weights, below, own_delta, masks))
            below = [exact(inputs, unit), *whole.hidden]
            as_whole.append(truth.backward(weights, below, delta, masks))
        for i, value in enumerate(whole.hidden):
            arrays = [side.hidden[i] for side in found]
            judges = [judge.hidden[i] for judge in own]
            yield f"{prefix}hidden{i + 1}", *_judged(arrays, judges, value)
        for i, layer in enumerate(weights):
            for name in layer:
                jax, torch = (side.grads[i][name] for side in found)
                layer_truths, whole_truths = (
                    [judge[i][name] for judge in judges] for judges in (by_layer, as_whole)
                )
                yield (
                    f"{prefix}layer{i + 1}.{name}",
                    Judged(jax, torch, layer_truths[0], layer_truths[1]),
                    Judged(jax, torch, whole_truths[0], whole_truths[1]),
                )
