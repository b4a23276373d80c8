"""Proves that a run and its transport are one run: trains both side by side and compares the bits.

`python scripts/certify.py --to 256` trains the baseline and both its repairs for inputs × 256.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from jaxmlp.commands import exit_status, flags
from jaxmlp.commands import run_job as job
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import Experiment
from jaxmlp.law.transport import SCHEMES, transport
from jaxmlp.law.words import counted
from jaxmlp.train.certificate import Certificate, Epoch

FRAMEWORKS = job.FRAMEWORKS
SCHEMES = {scheme: (scheme,) for scheme in SCHEMES} | {"both": SCHEMES}


def torch_epochs(experiment: Experiment, moved: Experiment, dataset: Dataset) -> Iterator[Epoch]:
    """The same as certificate.certify, with torchref."""
    import torch

    from jaxmlp.commands.run_torch import TorchRun
    from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
    from jaxmlp.train.certificate import factors, ulps, underflows
    from torchref import model, train

    scales = factors(experiment, moved)
    runs = [TorchRun(experiment, dataset), TorchRun(moved, dataset)]
    images = [run.loaders[0].dataset for run in runs]
    generator = TorchGenerator(experiment.seed)
    initial_weights(generator, dataset.widths(experiment.hidden), experiment.bias)
    order = batch_order(generator, runs[0].train_size, experiment.batch_size)
    columns = [
        [
            (name, parameter.detach())
            for layer in run.model.layers
            for name, parameter in model.named(layer)
        ]
        for run in runs
    ]
    layers = [i for i, layer in enumerate(runs[0].model.layers) for _ in model.named(layer)]

    def apart() -> tuple[int, float, int]:
        largest, distance, underflowed = 0, 0.0, 0
        for layer, (name, before), (_, after) in zip(layers, *columns, strict=True):
            expected = before * scales[name][layer]
            if torch.equal(expected, after):
                continue
            lost = underflows(expected.numpy(), after.numpy(), scales[name][layer])
            underflowed += int(lost.sum())
            after = torch.where(torch.from_numpy(lost), expected, after)
            if not torch.equal(expected, after):
                largest = max(largest, int(ulps(expected.numpy(), after.numpy()).max()))
                relative = float(torch.linalg.norm(after - expected) / torch.linalg.norm(expected))
                distance = max(distance, math.inf if math.isnan(relative) else relative)
        return largest, distance, underflowed

    for _ in range(experiment.epochs):
        losses, found = [], []
        for indices in next(order):
            steps = [
                train.train_step(run.model, run.optimizers, run.schedulers, *of[indices])
                for run, of in zip(runs, images, strict=True)
            ]
            losses.append([step.loss.numpy() for step in steps])
            found.append(apart())
        pair = np.array(losses).T
        weight, distance, lost = map(np.array, zip(*found, strict=True))
        tests = [train.evaluate(run.model, run.loaders[1]) for run in runs]
        first, second = (test.correct / len(dataset.test_labels) for test in tests)
        yield Epoch(pair, ulps(*pair), weight, distance, lost, (first, second))


def report(found: Certificate) -> str:
    """The certificate in words."""
    first, second = found.accuracies
    lost = ""
    if found.nonfinite_step is not None:
        lost = f" (not finite from step {found.nonfinite_step} on: nothing is shown from there)"
    if found.underflow_step is not None:
        lost = (
            f", but for {counted(found.underflowed, 'parameter')} that underflow"
            f"{'s' * (found.underflowed == 1)} from step {found.underflow_step} on{lost}"
        )
    if found.identical:
        return (
            f"IDENTICAL in every bit: {found.steps:,} losses, and {found.parameters:,} rescaled "
            f"parameters after each step{lost}; test accuracy {first:.2%} and {second:.2%}"
        )
    where = []
    if found.weight_step is not None:
        where.append(f"step {found.weight_step} (weights)")
    if found.loss_step is not None:
        where.append(f"step {found.loss_step} (losses)")
    bit = max(found.first_ulps.bit_length() - 1, 0)
    return (
        f"part at {' and '.join(where)}, by {found.first_distance:.1e} (bit {bit} from the last at "
        f"most){lost}; then losses at most {found.loss_distance:.1e} apart, weights "
        f"{found.weight_distance:.1e} after {found.steps:,} steps; "
        f"test accuracy {first:.2%} and {second:.2%}"
    )


def certify(
    framework: str,
    experiment: Experiment,
    moved: Experiment,
    dataset: Dataset,
    show: Callable[[int], None] = lambda epoch: None,
) -> Certificate:
    """The certificate of two experiments on one side.

    Args:
        show: called after each epoch, counted from 1.
    """
    from jaxmlp.train import certificate

    pair = certificate.certify if framework == "jax" else torch_epochs
    epochs: list[Epoch] = []
    for epoch in pair(experiment, moved, dataset):
        epochs.append(epoch)
        show(len(epochs))
    widths = dataset.widths(experiment.hidden)
    parameters = sum((a + experiment.bias) * b for a, b in itertools.pairwise(widths))
    return certificate.summary(epochs, parameters)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.parser(__doc__ or "")
    flags.add_data_flags(parser)
    own = parser.add_argument_group("certificate")
    own.add_argument(
        "--to",
        type=float,
        default=256.0,
        metavar="S",
        help="the other run's input scale (default: 256, a power of two)",
    )
    own.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="both",
        help="where the weights make up for it (default: both)",
    )
    own.add_argument("--framework", choices=FRAMEWORKS, default="jax", help="(default: jax)")
    values = parser.parse_args(arguments)
    try:
        case, experiment = flags.experiment(values)
        if not 0 < values.to < math.inf:
            raise ValueError(f"--to {values.to:g} must be a positive number")
        moved = {
            scheme: transport(experiment, values.to, scheme=scheme)
            for scheme in SCHEMES[values.scheme]
        }
    except ValueError as error:
        exit_status.fail(error, exit_status.INPUT)
    with exit_status.one_line_errors("nothing is certified", for_good=arguments is None):
        run(values, case, experiment, moved)


def run(
    values: argparse.Namespace, case: str, experiment: Experiment, moved: dict[str, Experiment]
) -> None:
    from jaxmlp.data.dataset import first_images
    from jaxmlp.device import compilation
    from jaxmlp.train import certificate

    if "jax" in FRAMEWORKS[values.framework]:
        compilation.use_compilation_cache()
    dataset = job.load(values, lambda text: print(text, file=sys.stderr))
    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    job.check_memory(experiment, dataset)
    print(
        f"{case}, inputs × {experiment.input_scale:g} against × {values.to:g}: {dataset.source}, "
        f"{counted(experiment.epochs, 'epoch')}, {experiment.precision}",
        flush=True,
    )
    frameworks = FRAMEWORKS[values.framework]
    steps = Steps(len(frameworks) * len(moved) * experiment.epochs)
    broken = False
    for framework in frameworks:
        for scheme, other in moved.items():
            began, pair = time.perf_counter(), f"{framework} {scheme}"
            steps.under_way(f"{pair}: compiling, and the first epoch")

            def show(epoch: int, pair: str = pair) -> None:
                steps.done(f"{pair}: epoch {epoch} of {experiment.epochs}")

            found = certify(framework, experiment, other, dataset, show)
            seconds = time.perf_counter() - began
            print(f"{framework:5} {scheme:11} {report(found)} ({seconds:.0f} s)", flush=True)
            exact = all(
                math.frexp(factor)[0] == 0.5
                for own in certificate.factors(experiment, other).values()
                for factor in own
            )
            if not exact:
                print("      (factors that are no powers of two: they part by rounding)")
            elif not found.identical and found.nonfinite_step is None:
                broken = True
    if broken:
        exit_status.fail("runs that should have every bit in common part", exit_status.TROUBLE)
