"""Proves that a run and its transport are one run: trains both side by side and compares the bits.

`python scripts/certify.py --to 256` trains the baseline and both its repairs for inputs × 256.

For your own network, in torch or Flax: --model FILE:FUNCTION (with it --help lists its flags).
"""

import argparse
import math
import sys
import time

from jaxmlp.commands import exit_status, flags, user_network
from jaxmlp.commands import run_job as job
from jaxmlp.commands.progress import Steps
from jaxmlp.experiment import Experiment
from jaxmlp.law.transport import SCHEMES, transport
from jaxmlp.law.words import counted

FRAMEWORKS = job.FRAMEWORKS
SCHEMES = {scheme: (scheme,) for scheme in SCHEMES} | {"both": SCHEMES}


def main(arguments: list[str] | None = None) -> None:
    if user_network.asked(arguments):
        user_network.certify(arguments)
        return
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
    with exit_status.one_line_errors("nothing is certified", for_good=arguments is None):
        case, experiment = flags.experiment(values)
        if not 0 < values.to < math.inf:
            raise ValueError(f"--to {values.to:g} must be a positive number")
        moved = {
            scheme: transport(experiment, values.to, scheme=scheme)
            for scheme in SCHEMES[values.scheme]
        }
        run(values, case, experiment, moved)


def run(
    values: argparse.Namespace, case: str, experiment: Experiment, moved: dict[str, Experiment]
) -> None:
    """Loads, trains each pair, prints its certificate; ends with an error if one is broken."""
    from jaxmlp.commands import torch_side
    from jaxmlp.data.dataset import first_images
    from jaxmlp.device import compilation
    from jaxmlp.training import certificate

    pair_epochs = {"jax": certificate.pair_epochs, "torch": torch_side.pair_epochs}
    frameworks = FRAMEWORKS[values.framework]
    if "jax" in frameworks:
        compilation.use_compilation_cache()
    if "torch" in frameworks:
        torch_side.check_installed()
    dataset = job.load(values, lambda text: print(text, file=sys.stderr))
    if experiment.train_size:
        dataset = first_images(dataset, experiment.train_size)
    job.check_memory(experiment, dataset)
    print(
        f"{case}, inputs × {experiment.input_scale:g} against × {values.to:g}: {dataset.source}, "
        f"{counted(experiment.epochs, 'epoch')}, {experiment.precision}",
        flush=True,
    )
    steps = Steps(len(frameworks) * len(moved) * experiment.epochs)
    broken = False
    for framework in frameworks:
        for scheme, other in moved.items():
            began, name = time.perf_counter(), f"{framework} {scheme}"
            steps.under_way(f"{name}: compiling, and the first epoch")

            def show(epoch: int, name: str = name) -> None:
                steps.done(f"{name}: epoch {epoch} of {experiment.epochs}")

            made = certificate.certify(experiment, other, dataset, show, pair_epochs[framework])
            seconds = time.perf_counter() - began
            print(f"{framework:5} {scheme:11} {made} ({seconds:.0f} s)", flush=True)
            if not certificate.exact(experiment, other):
                print("      (factors that are no powers of two: they part by rounding)")
            elif not made.identical and made.nonfinite_step is None:
                broken = True
    if broken:
        exit_status.fail("runs that should have every bit in common part", exit_status.TROUBLE)
