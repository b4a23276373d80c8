"""Where the time of a training step goes: the parts of a run's compiled epoch, by JAX's profiler.

An epoch, evaluation included, is recorded after two to warm up (--epochs is not looked at), and its
parts are printed per training step: the shape that each makes, the operation that it came from, and
what the compiled program calls it. Parts that run at once count each for itself.
"""

import argparse
import operator
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxmlp.commands import exit_status, flags
from jaxmlp.data.loading import load_data
from jaxmlp.device.mesh import describe_devices, processor
from jaxmlp.training.run import Run

LEAST = 0.002  # of an epoch; smaller parts are summed
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>\(.*?\)|\S+) (?P<kind>[\w-]+)\((?P<rest>.*)$",
    re.MULTILINE,
)
HOLDS_OTHERS = ("while", "call", "conditional")


def instructions(program: str) -> dict[str, str]:
    """What to say of each instruction of a compiled program's text, by its name."""
    found = {}
    for line in INSTRUCTION.finditer(program):
        if line["kind"] not in HOLDS_OTHERS:
            shape = re.sub(r"\{[^}]*\}", "", line["shape"])
            found[line["name"]] = f"{shape:16} {operation(line['rest']):24} {line['name']}"
    return found


def operation(rest: str) -> str:
    """The operation that an instruction came from, if it says so, and whether for a gradient."""
    path = re.search(r'op_name="([^"]*)"', rest)
    if not path:
        return ""
    backward = " (gradient)" if "transpose(jvp" in path[1] else ""
    return path[1].rpartition("/")[2] + backward


def events(directory: Path) -> Iterator[tuple[str, float]]:
    """What ran, as a profile in that directory has it: the instruction, and its nanoseconds."""
    (file,) = directory.rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    for plane in [p for p in planes if p.name.startswith("/device:")] or planes:
        for line in plane.lines:
            for event in line.events:
                yield str(dict(event.stats).get("hlo_op", event.name)), event.duration_ns


def recorded_epoch(run: Run) -> tuple[float, dict[str, float]]:
    """Milliseconds a step of an epoch, and those of each instruction by what is said of it."""
    results = run.epochs()
    for _ in range(2):
        next(results)
    steps = run.start.steps_per_epoch
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            seconds = next(results).seconds
        parts: dict[str, float] = defaultdict(float)
        known = instructions(run.compiled.as_text())
        for name, nanoseconds in events(Path(directory)):
            if name in known:
                parts[known[name]] += nanoseconds / 1e6 / steps
    return 1000 * seconds / steps, parts


def table(whole: float, parts: dict[str, float]) -> str:
    ordered = sorted(parts.items(), key=operator.itemgetter(1), reverse=True)
    large = {name: ms for name, ms in ordered if ms >= LEAST * whole}
    together = sum(parts.values())
    rest = {f"{len(parts) - len(large)} smaller parts": together - sum(large.values())}
    if whole > together:
        rest["between them"] = whole - together
    where = f"{describe_devices()} ({processor()})"
    lines = [f"{where}; {whole:.2f} ms per step, evaluation included"]
    lines += [f"{ms:8.3f} ms {ms / whole:4.0%}  {name}" for name, ms in {**large, **rest}.items()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = flags.parser(__doc__ or "")
    flags.add_data_flags(parser)
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing is recorded"):
        print(table(*recorded_epoch(prepared(values))))


def prepared(values: argparse.Namespace) -> Run:
    """The run that the flags ask for, with as many epochs as are needed."""
    values.epochs = 3
    _, experiment = flags.experiment(values)
    return Run(experiment, load_data(values.data, values.data_dir))


if __name__ == "__main__":
    main()
