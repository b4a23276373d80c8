"""The question of a small convolutional network, in both frameworks: `reproduce.py --cnn`.

Two convolutions with ReLU and max-pool, and a linear layer, on the same images: trained as it is,
with inputs × 255, with these and what makes up for them, and with BatchNorm. Then whether the
transport to × 256 is the same run bit for bit, and which run × 255 makes of each network.
"""

import argparse
import importlib.util
import sys
from typing import Any

from jaxmlp.commands import exit_status, flags, invocation, output
from jaxmlp.commands.progress import Steps
from jaxmlp.commands.run_job import FRAMEWORKS, load
from jaxmlp.law.words import counted

FLAG = "--cnn"
PARTS = 7  # of a framework's work: five cases and two certificates


def asked(arguments: list[str] | None) -> bool:
    """Whether reproduce.py is to ask a CNN."""
    return FLAG in (sys.argv[1:] if arguments is None else arguments)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument(FLAG, action="store_true", help="what brought you here")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="both", help="(default: both)")
    parser.add_argument(
        "--images", type=int, metavar="N", help="to train on, the first ones (default: up to 10000)"
    )
    parser.add_argument("--epochs", type=int, default=2, metavar="N", help="(default: 2)")
    values = parser.parse_args(arguments)
    if values.epochs < 1:
        exit_status.fail("--epochs must be at least 1", exit_status.INPUT)
    with exit_status.one_line_errors("nothing is kept", for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    """Prints what was found in each framework that is installed."""
    from jaxmlp.device import compilation
    from jaxmlp.networks.cnn_cases import BATCH_SIZE, train_size

    dataset = load(values, output.to_stderr)
    images = train_size(values.images, dataset)
    compilation.use_compilation_cache()
    frameworks = [name for name in FRAMEWORKS[values.framework] if _installed(name)]
    epochs = counted(values.epochs, "epoch")
    print(f"{dataset.source}; {counted(images, 'image')}, {epochs}, batch {BATCH_SIZE}.")
    steps = Steps(PARTS * len(frameworks))
    for framework in frameworks:
        print("\n" + page(framework, dataset, images, values.epochs, steps))


def _installed(framework: str) -> bool:
    if framework == "jax" or importlib.util.find_spec("torch"):
        return True
    remedy = f"install it with {invocation.installing('torch')}"
    print(f"torch: skipped, for PyTorch is not installed; {remedy}")
    return False


def page(framework: str, dataset: Any, images: int, epochs: int, steps: Steps) -> str:
    """What a framework's CNN did, as Markdown."""
    from jaxmlp.networks import cnn_cases

    networks = cnn_cases.networks(framework, dataset, images)
    named = cnn_cases.cases(networks, cnn_cases.samples(framework, dataset, images))
    lines = [
        f"{framework}:\n",
        "| case | test accuracy | dead channels | outcome | foretold |",
        "|---|---|---|---|---|",
    ]
    for row in cnn_cases.rows(named, dataset, epochs, steps.under_way):
        steps.done(f"{framework} {row.case}: {row.outcome}, {row.test_accuracy:.3f}")
        numbers = f"{row.test_accuracy:.3f} | {row.dead:.2f}"
        lines.append(f"| {row.case} | {numbers} | {row.outcome} | {row.course} |")
    lines.append("")
    for name, network in networks.items():
        made = cnn_cases.certificate(network)
        steps.done(f"{framework} {name}: certificate")
        lines.append(f"{name}, × {cnn_cases.POWER_OF_TWO:g} repaired: {made}")
    lines.append("")
    for name, network in networks.items():
        lines.append(f"{name}, × {cnn_cases.SCALE:g}: {cnn_cases.reason(network)}")
        lines.append(f"Repaired by {cnn_cases.repair(network)}.")
    return "\n".join(lines)
