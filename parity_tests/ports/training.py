"""Steps of training: each from the original's tensors, so that no difference grows."""

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from parity_tests.bounds import UNIT, Bounded, constant, exact
from parity_tests.ports import judge
from parity_tests.ports.exact import gradients
from parity_tests.ports.judge import SAME, Held
from parity_tests.ports.wire import Arrays, by_tensor
from parity_tests.truth import Settings, optimizer_step

if TYPE_CHECKING:
    from parity_tests.ports.port import Port

MANY = 1_000_000  # parameters: of larger networks not every step is held
HELD = (*range(1, 6), *range(10, 10_001, 10))  # those of them that are
IN_FLOAT32 = 3  # steps: the bounds of an optimizer's buffers grow with their number
KEPT = 5  # steps, to look for what went wrong
KNOWN = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "lion")  # by truth.py


def steps(port: "Port", count: int) -> Iterator[Held]:
    """So many steps in float64, and a few in float32."""
    runs = {"float64": count}
    if port.told[0]["optimizer"]["name"] in KNOWN:
        runs["float32"] = min(IN_FLOAT32, count)
    large = sum(array.size for array in port.start.values()) > MANY
    for dtype, number in runs.items():
        port.torch.ask("train", {"dtype": dtype})
        told = {"dtype": dtype, "alone": large}
        began = port.jax.ask("train", told, arrays=port.ported(port.start))
        sparse = began["known"] and large
        before = {
            name: array.astype(dtype) if array.dtype.kind == "f" else array
            for name, array in port.start.items()
        }
        buffers: dict[str, dict[str, Bounded]] = {}
        made, state = 0, {}
        for step in range(1, number + 1):
            if sparse and step not in HELD and step < number:
                continue
            if left_out := step - 1 - made:
                port.torch.ask("step", {"steps": left_out})
                before, state = before | port.torch.read("tensor"), _state_of(port)
            made = step
            if dtype == "float64":
                before = yield from _exact(port, step, before, state, sparse)
            else:
                before = yield from _rounded(port, step, before, state, buffers)
            state = {}


def _state_of(port: "Port") -> Arrays:
    """What the original's optimizer keeps, as the port takes it."""
    theirs, found = port.torch.read("state"), {}
    for kind in {key.split(".")[1] for key in theirs}:
        ported = port.matching.to_jax(by_tensor(theirs, f"state.{kind}"))
        found |= {f"state.{kind}.{name}": array for name, array in ported.items()}
    return found


def _stepped(port: "Port", step: int, before: Arrays, state: Arrays) -> tuple[Arrays, Any]:
    """A step of both: the original's gradients, and both losses.

    The port's is from the original's tensors (and state, if given), with its gradients.
    """
    theirs = port.torch.ask("step").arrays["loss"]
    gradients = port.torch.read("gradient")
    own = by_tensor(gradients, "gradient")
    given = port.matching.to_jax({n: own[n] for n in port.linked if n in own})
    arrays = port.ported(before) | {f"gradient.{n}": array for n, array in given.items()}
    number = (step - 1) % port.told[0]["batches"]
    told = port.jax.ask("step", {"number": step}, arrays=arrays | port.batch(number) | state)
    return gradients, (theirs, told.arrays["loss"])


def _exact(
    port: "Port", step: int, before: Arrays, state: Arrays, sparse: bool
) -> Generator[Held, None, Arrays]:
    """One sort of arrays at a time; gives the original's tensors afterwards."""
    phase = f"step {step}"
    theirs, losses = _stepped(port, step, before, state)
    if step <= (1 if sparse else KEPT):
        port.history.append((before, theirs))
    yield judge.same("loss", "loss", phase, *losses)
    yield from gradients(port, theirs, port.jax.read("gradient"), phase)
    del theirs
    after = port.torch.read("tensor")
    held = list(_tensors(port, phase, before, after))
    yield from held
    if sparse and all(each.passed for each in held):
        port.history.clear()  # of a large network nothing is kept that fits
    yield from _state(port, phase)
    return before | after


def _tensors(port: "Port", phase: str, before: Arrays, after: Arrays) -> Iterator[Held]:
    """The change of each that is trained, and running statistics."""
    mine = port.matching.to_torch(by_tensor(port.jax.read("tensor"), "tensor"))
    owners = port.owners()
    kept = {each["name"] for each in port.told[0]["tensors"] if each["sort"] != "parameter"}
    for name, array in by_tensor(after, "tensor").items():
        if name not in mine:
            continue
        if name in kept:
            yield judge.same(owners.get(name, name), name, phase, array, mine[name])
            continue
        # The change is what is held; of it the tensor's own rounding hides a part.
        start = before[f"tensor.{name}"]
        hidden = 4 * UNIT["float64"] * float(np.abs(start).max(initial=0.0)) / SAME
        changes = array - start, mine[name] - start
        yield judge.same("optimizer", f"change of {name}", phase, *changes, size=hidden)


def _state(port: "Port", phase: str) -> Iterator[Held]:
    """What the optimizer keeps, as far as both keep it under names that are known."""
    theirs, ours = port.torch.read("state"), port.jax.read("state")
    for kind in sorted({key.split(".")[1] for key in ours}):
        mine = port.matching.to_torch(by_tensor(ours, f"state.{kind}"))
        for name, array in by_tensor(theirs, f"state.{kind}").items():
            if name in mine:
                what = f"{kind} of {name}"
                yield judge.same("optimizer", what, phase, array, mine[name])


def _rounded(
    port: "Port",
    step: int,
    before: Arrays,
    state: Arrays,
    buffers: dict[str, dict[str, Bounded]],
) -> Generator[Held, None, Arrays]:
    """Each tensor within its bound; gives the original's tensors afterwards."""
    told = port.told[0]["optimizer"]
    theirs, _ = _stepped(port, step, before, state)
    after = port.torch.read("tensor")
    mine = port.matching.to_torch(by_tensor(port.jax.read("tensor"), "tensor"))
    for name, settings in told["settings"].items():
        if name not in mine or f"gradient.{name}" not in theirs:
            continue
        # The two round in different places, as truth.py says: a doubled unit.
        unit = 2 * UNIT["float32"]
        rules = Settings(
            told["name"],
            settings["weight_decay"],
            settings.get("eps", 0.0),
            _options(told["options"]),
            corrected_in_type=not port.told[1]["optimizer"]["name"],  # optax' own
        )
        weight = exact(before[f"tensor.{name}"], unit)
        bounded, buffers[name] = optimizer_step(
            rules,
            weight,
            theirs[f"gradient.{name}"],
            buffers.get(name, {}),
            constant(settings["learning_rate"], unit),
            step,
        )
        phase, both = f"step {step}, float32", (after[f"tensor.{name}"], mine[name])
        yield judge.within("optimizer", name, phase, *both, bounded)
    return before | after


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"momentum": 0.0, "dampening": 0.0, "nesterov": False} | dict(options)
