"""explain, transport and certify for a user's own network: `--model my_run.py:setup`.

The file's function returns (model, optimizer, batches), or (model, optimizer, batches, loss): the
run as it is with unscaled inputs. docs/your-own-network.md shows one for each framework.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from jaxmlp.commands import exit_status, output, setup_file
from jaxmlp.commands.progress import Steps
from jaxmlp.law import screen

FLAG = "--model"


def asked(arguments: list[str] | None) -> bool:
    """Whether a command is to look at a user's network."""
    words = sys.argv[1:] if arguments is None else arguments
    return any(word == FLAG or word.startswith(f"{FLAG}=") for word in words)


# ---- the three commands


def explain(arguments: list[str] | None) -> None:
    parser = _parser("Says what may be rescaled, which run this is, and what would repair it.")
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="KNOB", help="repair it with these knobs alone"
    )
    parser.add_argument("--no-forecast", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing was explained", for_good=arguments is None):
        from jaxmlp.commands.explain import show
        from jaxmlp.networks.explanation import explain as explained
        from jaxmlp.networks.forecast import forecast
        from jaxmlp.networks.group import find

        scale = _scale(1.0 if values.input_scale is None else values.input_scale)
        network = load(values)
        under_way, foretold = Steps(1).under_way, None
        under_way("what may be rescaled: a pass for each tensor")
        find(network)
        if not values.no_forecast:
            foretold = forecast(network, scale, progress=under_way)
        explanation = explained(network, scale, foretold, values.allow)
        if values.json:
            numbers = explanation.to_json() | {"forecast": foretold and foretold.to_json()}
            print(json.dumps(numbers, indent=2))
            return
        show(output.console(width=screen.WIDTH), explanation)


def transport(arguments: list[str] | None) -> None:
    parser = _parser("Prints the settings that make it train on scaled inputs as on unscaled ones.")
    parser.add_argument("--emit", choices=("torch", "optax", "json"), help="(default: its own)")
    _add_scheme(parser)
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing was printed", for_good=arguments is None):
        from jaxmlp.networks.transport import transport as moved

        if values.input_scale is None:
            raise ValueError("--input-scale is missing; give what the inputs are multiplied by")
        network = load(values)
        own = "torch" if network.framework == "torch" else "optax"
        result = moved(network, _scale(values.input_scale), values.scheme)
        print(result.emit(values.emit or own), end="")


def certify(arguments: list[str] | None) -> None:
    parser = _parser(
        "Trains it and its transport side by side and compares the bits.", scaled=False
    )
    parser.add_argument("--to", type=float, default=256.0, metavar="S", help="(default: 256)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="(default: 50)")
    _add_scheme(parser)
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing is certified", for_good=arguments is None):
        from jaxmlp.networks.certificate import compare, exact
        from jaxmlp.networks.transport import transport as moved

        network = load(values)
        change = moved(network, _scale(values.to), values.scheme).change
        made = compare(network, change, values.steps, _steps(values.steps))
        print(f"{network.framework} {values.scheme}, inputs × {values.to:g}: {made}")
        if exact(change) and not made.identical:
            raise SystemExit(exit_status.TROUBLE)


# ---- flags


def _parser(purpose: str, scaled: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"{purpose}\n\n{(__doc__ or '').partition('`.')[2].strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: exit_status.fail(f"{message}; --help lists the flags", 2)
    parser.add_argument(
        FLAG, required=True, metavar="FILE:FUNCTION", help="the function that sets the run up"
    )
    parser.add_argument(
        "--clip-global-norm", type=float, metavar="X", help="what your loop clips all gradients to"
    )
    if scaled:
        parser.add_argument(
            "--input-scale", type=float, metavar="S", help="what the inputs are multiplied by"
        )
    return parser


def _add_scheme(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scheme",
        choices=("fewest", "alike"),
        default="fewest",
        help="which tensors make up for the scale (default: fewest)",
    )


def _scale(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"an input scale of {value:g} must be a positive number")
    return value


def _steps(total: int) -> Callable[[int], None]:
    steps = Steps(1)
    return lambda step: steps.under_way(f"step {step} of {total}")


# ---- the user's file


def load(values: argparse.Namespace) -> Any:
    """The network that the user's function sets up.

    Raises:
        ValueError: the file cannot be imported, or its function gives something else.
    """
    from jaxmlp.networks.adapt import network

    return network(*setup_file.parts(values.model, FLAG), clip_global_norm=values.clip_global_norm)
