"""Holds a port to its original: `python scripts/parity.py --torch a.py:setup --jax b.py:setup`.

Either function returns (model, optimizer, batches) or (model, optimizer, batches, loss): a
torch.nn.Module and a torch optimizer; a flax.nnx.Module and jaxmlp.Optimizer, or an optax
transformation. Each runs in a process of its own. Weights are matched and copied; every layer gets
what the original put into it, and has to give what the original gave: outputs, gradients,
statistics, steps. docs/your-own-port.md tells how to read what is printed.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags
from jaxmlp.commands.progress import Steps
from jaxmlp.record import run_record as record

if TYPE_CHECKING:
    from parity_tests.ports.judge import Held
    from parity_tests.ports.port import Report

EPILOG = """\
bounds: float64 (1e-9 of the tensor's largest number); derived (float32: rounding-error bounds,
element by element); compared (float32: neither side more than eight times as far from float64 as
the other). share: the worst error over its bound; at most 1 passes.

The file of --pairs is JSON, the original's tensor by the port's: {"head.kernel": "fc.weight"}.
"""
FLAGS = ("--torch", "--jax")


def asked(arguments: list[str] | None) -> bool:
    """Whether the command is to look at a user's port."""
    words = sys.argv[1:] if arguments is None else arguments
    return any(word in FLAGS or word.startswith(("--torch=", "--jax=")) for word in words)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "", EPILOG)
    for flag, side in zip(FLAGS, ("original", "port"), strict=True):
        parser.add_argument(
            flag, metavar="FILE:FUNCTION", help=f"the function that sets the {side} up"
        )
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help="tensors that are not found by themselves"
    )
    parser.add_argument(
        "--save-weights",
        type=Path,
        metavar="FILE",
        help="the original's weights as the port has them, in safetensors",
    )
    parser.add_argument(
        "--examples", type=int, default=4, metavar="N", help="of each batch, at most (default: 4)"
    )
    parser.add_argument(
        "--steps", type=int, default=50, metavar="N", help="of training (default: 50)"
    )
    parser.add_argument(
        "--stop", action="store_true", help="where something differs look no further"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("runs/port"),
        help="for parity.json and parity.md (default: runs/port)",
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing was written", for_good=arguments is None):
        passed = run(values)
    raise SystemExit(0 if passed else exit_status.TROUBLE)


def run(values: argparse.Namespace) -> bool:
    """Whether the port is the original."""
    for flag, given in zip(FLAGS, (values.torch, values.jax), strict=True):
        if given is None:  # argparse would say so before it names a flag that is misspelt
            raise ValueError(f"{flag} is missing; give {flag} FILE:FUNCTION")
    for name in ("examples", "steps"):
        if getattr(values, name) < 1:
            raise ValueError(f"--{name} {getattr(values, name)} must be at least 1")
    if values.out.exists() and not (values.out / "parity.json").is_file():
        raise ValueError(f"{values.out} holds something else; choose another --out")
    hints = pairs(values.pairs) if values.pairs else {}
    save = _saver(values.save_weights) if values.save_weights else None
    from parity_tests.ports.port import compare

    doing = Steps(1)
    report = compare(
        values.torch,
        values.jax,
        hints,
        values.examples,
        values.steps,
        values.stop,
        doing.under_way,
    )
    rows = summary(report.held)
    for note in report.notes:
        print(f"note: {note}")
    matched = len(report.matching.links)
    print(f"{matched} tensors matched, {report.layers} layers\n")
    print("\n".join(line(row) for row in rows))
    print(f"\n{verdict(report)}")
    if save is not None:
        save(report.weights)
        print(f"weights: {values.save_weights}")
    write(values.out, report, rows)
    return report.passed


def pairs(path: Path) -> dict[str, str]:
    """What the user says of tensors.

    Raises:
        ValueError: it is no JSON object of names.
    """
    try:
        given = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"--pairs {path} cannot be read as JSON: {error}") from None
    names = isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
    if not names:
        raise ValueError(f'--pairs {path} has to be like {{"head.kernel": "fc.weight"}}')
    return given


def _saver(path: Path) -> Callable[[dict[str, Any]], None]:
    """What writes weights to a file.

    Raises:
        ValueError: the file cannot be one, or safetensors is not there.
    """
    if not path.parent.is_dir():
        raise ValueError(f"--save-weights {path}: there is no directory {path.parent}; make it")
    if path.exists() and not path.is_file():
        raise ValueError(f"--save-weights {path} is no file; choose another name")
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ValueError(
            "--save-weights needs safetensors; install it with pip install -e '.[weights]'"
        ) from None

    def write(tensors: Mapping[str, Any]) -> None:
        # What is transposed lies in memory as it did before; safetensors takes the memory.
        whole = {name: tensor.copy(order="C") for name, tensor in tensors.items()}
        atomic.replace(path, save(whole))

    return write


# ---- what is printed


def summary(held: Sequence["Held"]) -> list[dict[str, Any]]:
    """A row for each phase and kind of bound; steps together."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for each in held:
        phase = each.phase
        if phase.startswith("step "):
            phase = "steps, float32" if phase.endswith("float32") else "steps"
        groups.setdefault((phase, each.kind), []).append(each)
    return [
        {
            "check": phase,
            "bound": kind,
            "tensors": len(members),
            "share": max(member.share for member in members),
            "result": "pass" if all(member.passed for member in members) else "FAIL",
        }
        for (phase, kind), members in groups.items()
    ]


def line(row: Mapping[str, Any]) -> str:
    share = f"{row['share']:.2g}" if row["share"] else "0"
    return (
        f"{row['check']:24}{row['bound']:12}{row['tensors']:>8,} tensors   share {share:10}"
        f"{row['result']}"
    )


def verdict(report: "Report") -> str:
    """Whether they are equal; else where they part first, how, and what would explain it."""
    if report.passed:
        return (
            "The port is the original: every output, gradient, statistic and step within its bound."
        )
    guilt = report.guilt
    assert guilt is not None
    past = "" if math.isinf(guilt.share) else f", {guilt.share:.2g} times what is allowed"
    lines = [f"They part first at {guilt.place}: {guilt.what} ({guilt.phase}){past}."]
    if guilt.pattern:
        lines.append(
            f"  It differs {guilt.pattern}."
            if guilt.pattern[:2] in ("by", "on", "at", "in")
            else f"  {guilt.pattern[0].upper()}{guilt.pattern[1:]}."
        )
    lines += [f"  What fits: {words} ({suspect})." for suspect, words in guilt.suspects]
    # Gradients of a step are those of the whole network: what went wrong before shows in them.
    others = dict.fromkeys(
        each.place
        for each in report.held
        if not each.passed and (each.place == "optimizer" or not each.phase.startswith("step"))
    )
    others.pop(guilt.place, None)
    if others:
        shown = ", ".join(list(others)[:5]) + (", ..." if len(others) > 5 else "")
        lines.append(f"  Others that part by themselves: {shown}.")
    return "\n".join(lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "| check | bound | tensors | worst share | result |"
    body = [
        f"| {row['check']} | {row['bound']} | {row['tensors']:,} | {row['share']:.2g} "
        f"| {row['result']} |"
        for row in rows
    ]
    return "\n".join([head, "|---" * 5 + "|", *body])


def write(out: Path, report: "Report", rows: Sequence[Mapping[str, Any]]) -> None:
    """parity.json and parity.md, each whole or not at all."""
    matched = [
        {
            "original": link.torch,
            "port": link.jax,
            "layout": link.layout.words,
            "part": [link.part, link.parts] if link.parts > 1 else None,
        }
        for link in report.matching.links
    ]
    worst: dict[tuple[str, str, str], float] = {}
    for each in report.held:
        key = each.place, each.what, each.phase
        worst[key] = max(worst.get(key, 0.0), each.share)
    result = {
        "passed": report.passed,
        "notes": report.notes,
        "summary": rows,
        "first": report.guilt and report.guilt._asdict(),
        "tensors": matched,
        "shares": [[*key, share] for key, share in worst.items()],
    }
    plain = json.loads(record.encode(result))
    atomic.make_directory(out)
    atomic.replace(out / "parity.md", f"{markdown(rows)}\n\n{verdict(report)}\n".encode())
    atomic.replace(out / "parity.json", json.dumps(plain, indent=1).encode())
    print(f"written: {out}/parity.json, parity.md")
