"""Forward passes and gradients: every tensor, from the same weights and inputs."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from parity_tests import problems, sides, truth
from parity_tests.bounds import UNIT, Bounded
from parity_tests.comparison import Comparison, Judged, adjudicated, derived

Tensors = Iterator[tuple[str, Judged]]


def forward(quick: bool = False) -> Iterator[Comparison]:
    """Hidden activations, logits and loss."""
    yield from _level("forward", _forward, quick)


def gradients(quick: bool = False) -> Iterator[Comparison]:
    """The gradient of every tensor, and the activations whose signs are its ReLU masks."""
    yield from _level("gradients", _gradients, quick)


def _level(level: str, tensors_of, quick: bool) -> Iterator[Comparison]:
    for problem in problems.networks(quick):
        pooled: dict[str, list[Judged]] = defaultdict(list)
        for tensor, judged in tensors_of(problem):
            where = (level, problem.name, tensor)
            yield derived(where, *judged)
            pooled[tensor.split()[-1]].append(judged)
        if problem.experiment.precision == "float32":
            for tensor, samples in pooled.items():
                yield adjudicated((level, problem.name, tensor), samples)


def _samples(problem: problems.Problem) -> Iterator[tuple]:
    """For both sides the same: scaled initial weights, a batch of inputs, its labels."""
    experiment, dataset = problem.experiment, problem.dataset
    dtype, widths = sides.numpy_dtype(experiment), sides.widths(experiment, dataset)
    size = experiment.batch_size
    batches = len(dataset.train_labels) // size
    for number in range(problem.samples):
        weights = sides.torch_weights(experiment.seed + number, widths, experiment.bias, dtype)
        weights = sides.torch_scaled_weights(experiment, weights)
        indices = np.arange(size) + size * (number % batches)
        inputs, labels = sides.torch_inputs(experiment, dataset, indices)
        true = truth.forward(weights, inputs, UNIT[experiment.precision])
        yield f"sample {number} " if problem.samples > 1 else "", weights, inputs, labels, true


def _forward(problem: problems.Problem) -> Tensors:
    for prefix, weights, inputs, labels, true in _samples(problem):
        jax_hidden, jax_logits = sides.jax_forward(problem.experiment, weights, inputs)
        torch_hidden, torch_logits = sides.torch_forward(problem.experiment, weights, inputs)
        for i, rows in enumerate(zip(jax_hidden, torch_hidden, true.hidden, strict=True)):
            yield f"{prefix}hidden{i + 1}", _alike(*rows)
        yield f"{prefix}logits", _alike(jax_logits, torch_logits, true.logits)
        losses = [
            side(problem.experiment, weights, inputs, labels).loss
            for side in (sides.jax_gradients, sides.torch_gradients)
        ]
        yield f"{prefix}loss", _alike(*losses, truth.cross_entropy(true.logits, labels)[0])


def _alike(jax, torch, value: Bounded) -> Judged:
    return Judged(jax, torch, value, value)


def _gradients(problem: problems.Problem) -> Tensors:
    """Each side is judged with its own mask: near 0 either answer is right, see `backward`."""
    for prefix, weights, inputs, labels, true in _samples(problem):
        _, delta = truth.cross_entropy(true.logits, labels)
        jax = sides.jax_gradients(problem.experiment, weights, inputs, labels)
        torch = sides.torch_gradients(problem.experiment, weights, inputs, labels)
        for i, value in enumerate(true.hidden):
            yield f"{prefix}hidden{i + 1}", _alike(jax.hidden[i], torch.hidden[i], value)
        truths = [
            truth.backward(weights, inputs, true, delta, [layer > 0 for layer in side.hidden])
            for side in (jax, torch)
        ]
        for i, layer in enumerate(weights):
            for name in layer:
                both = (side.grads[i][name] for side in (jax, torch))
                judges = (side[i][name] for side in truths)
                yield f"{prefix}layer{i + 1}.{name}", Judged(*both, *judges)
