"""Steps of training: each from the original's tensors, so that no difference grows."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from parity_tests.bounds import UNIT, Bounded, constant, exact
from parity_tests.ports import judge
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
    for dtype, number in (("float64", count), ("float32", min(IN_FLOAT32, count))):
        port.torch.ask("train", {"dtype": dtype})
        began = port.jax.ask("train", {"dtype": dtype}, arrays=port.ported(port.start))
        parameters = sum(array.size for array in port.start.values())
        sparse = began["known"] and parameters > MANY
        before = {
            name: array.astype(dtype) if array.dtype.kind == "f" else array
            for name, array in port.start.items()
        }
        buffers: dict[str, dict[str, Bounded]] = {}
        port.torch.begin("step")
        state: Arrays = {}
        for step in range(1, number + 1):
            theirs = port.torch.answer().arrays
            if step < number:
                port.torch.begin("step")  # meanwhile
            if sparse and step not in HELD and step < number:
                before, state = before | _only(theirs, "tensor"), _state_of(port, theirs)
                continue
            ours = _step(port, before, theirs, step, state)
            if dtype == "float64":
                if step <= (1 if sparse else KEPT):
                    port.history.append((before, _only(theirs, "gradient")))
                yield from _exact(port, step, before, theirs, ours)
            else:
                yield from _rounded(port, step, before, theirs, ours, buffers)
            before, state = before | _only(theirs, "tensor"), {}


def _state_of(port: "Port", theirs: Arrays) -> dict[str, np.ndarray]:
    """What the original's optimizer keeps, as the port takes it."""
    found = {}
    for kind in {key.split(".")[1] for key in theirs if key.startswith("state.")}:
        ported = port.matching.to_jax(by_tensor(theirs, f"state.{kind}"))
        found |= {f"state.{kind}.{name}": array for name, array in ported.items()}
    return found


def _step(port: "Port", before: Arrays, theirs: Arrays, step: int, state: Arrays) -> Arrays:
    """The port's step from the original's tensors (and state, if given), with its gradients."""
    given = port.ported(before)
    gradients = {n: theirs[f"gradient.{n}"] for n in port.linked if f"gradient.{n}" in theirs}
    given |= {f"gradient.{n}": a for n, a in port.matching.to_jax(gradients).items()}
    number = (step - 1) % port.told[0]["batches"]
    arrays = given | port.batch(number) | state
    return port.jax.ask("step", {"number": step}, arrays=arrays).arrays


def _exact(port: "Port", step: int, before: Arrays, theirs: Arrays, ours: Arrays) -> Iterator[Held]:
    phase = f"step {step}"
    loss = theirs["loss"], ours["loss"]
    yield judge.same("loss", "loss", phase, *loss)
    mine = {sort: port.matching.to_torch(by_tensor(ours, sort)) for sort in ("gradient", "tensor")}
    owners = port.owners()
    kept = {each["name"] for each in port.told[0]["tensors"] if each["sort"] != "parameter"}
    for name, array in by_tensor(theirs, "gradient").items():
        if name in mine["gradient"]:
            place, what = owners.get(name, name), f"gradient of {name}"
            size = port.sizes.get(name, 0.0)
            yield judge.same(place, what, phase, array, mine["gradient"][name], size)
    for name, array in by_tensor(theirs, "tensor").items():
        if name not in mine["tensor"]:
            continue
        start = before[f"tensor.{name}"]
        if name in kept:
            yield judge.same(owners.get(name, name), name, phase, array, mine["tensor"][name])
            continue
        # The change is what is held; of it the tensor's own rounding hides a part.
        hidden = 4 * UNIT["float64"] * float(np.abs(start).max(initial=0.0)) / SAME
        changes = array - start, mine["tensor"][name] - start
        yield judge.same("optimizer", f"change of {name}", phase, *changes, size=hidden)
    yield from _state(port, theirs, ours, phase)


def _state(port: "Port", theirs: Arrays, ours: Arrays, phase: str) -> Iterator[Held]:
    """What the optimizer keeps, as far as both keep it under names that are known."""
    kinds = {key.split(".")[1] for key in ours if key.startswith("state.")}
    for kind in sorted(kinds):
        mine = port.matching.to_torch(by_tensor(ours, f"state.{kind}"))
        for name, array in by_tensor(theirs, f"state.{kind}").items():
            if name in mine:
                what = f"{kind} of {name}"
                yield judge.same("optimizer", what, phase, array, mine[name])


def _rounded(
    port: "Port",
    step: int,
    before: Arrays,
    theirs: Arrays,
    ours: Arrays,
    buffers: dict[str, dict[str, Bounded]],
) -> Iterator[Held]:
    told = port.told[0]["optimizer"]
    if told["name"] not in KNOWN:
        return
    mine = port.matching.to_torch(by_tensor(ours, "tensor"))
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
        after, buffers[name] = optimizer_step(
            rules,
            weight,
            theirs[f"gradient.{name}"],
            buffers.get(name, {}),
            constant(settings["learning_rate"], unit),
            step,
        )
        phase, both = f"step {step}, float32", (theirs[f"tensor.{name}"], mine[name])
        yield judge.within("optimizer", name, phase, *both, after)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"momentum": 0.0, "dampening": 0.0, "nesterov": False} | dict(options)


def _only(found: Arrays, sort: str) -> Arrays:
    return {name: array for name, array in found.items() if name.startswith(f"{sort}.")}
