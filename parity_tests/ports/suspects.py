"""The first layer that parts from the original, in which way, and what would explain it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from parity_tests.ports import hypotheses, patterns, steps
from parity_tests.ports.hypotheses import Hypothesis
from parity_tests.ports.judge import Held
from parity_tests.ports.layouts import activations, layouts
from parity_tests.ports.pairing import Point
from parity_tests.ports.precision import of_precision

if TYPE_CHECKING:
    from parity_tests.ports.port import Pass, Port

MOST_SUSPECTS = 4


class Guilt(NamedTuple):
    """What parts first."""

    place: str  # a layer, `between A and B`, `loss`, `optimizer`
    what: str  # output, input, gradient of ...
    phase: str
    share: float  # of what is allowed
    pattern: str  # how it differs
    suspects: list[tuple[str, str]]  # short word and sentence; what fits


def first(port: "Port", held: Sequence[Held]) -> Guilt | None:
    """The first that does not pass, from the ground up; None if all do."""
    failed = [each for each in held if not each.passed]
    if not failed:
        return None
    wrong = failed[0]
    pattern = ""
    if wrong.torch is not None and wrong.jax is not None:
        of_weights = f"tensor.{wrong.what.split()[-1]}" in port.start
        pattern = patterns.words(wrong.torch, wrong.jax, of_weights)
    place, moved = _elsewhere(port, wrong)
    found = [*moved, *declared(port, wrong), *_found(port, wrong, pattern)]
    if "residual" in [suspect for suspect, _ in found]:
        # A function before a sum and not behind it: the sum is seen where it comes next.
        after = [each for each in failed[1:] if each.what == "input" and each.phase == wrong.phase]
        for next_ in after[:1]:
            found = [each for each in _found(port, next_) if each[0] == "order"] + found
    suspects = list(dict(reversed(found)).items())[::-1][:MOST_SUSPECTS]
    return Guilt(place, wrong.what, wrong.phase, wrong.share, pattern, suspects)


def _found(port: "Port", wrong: Held, pattern: str = "") -> list[tuple[str, str]]:
    """What would explain a difference, by its numbers."""
    if wrong.torch is None or wrong.jax is None:
        return []
    torch, jax = wrong.torch.astype(np.float64), wrong.jax.astype(np.float64)
    fits = [each for each in _hypotheses(port, wrong) if _fits(each.value, torch, jax)]
    if fits:
        return [(each.suspect, each.words) for each in fits]
    factor = patterns.ratio(torch, jax) if torch.size > 1 else None
    if factor is not None and wrong.place == "optimizer":
        words = f"multiplied by {factor:.6g}: another learning rate, or a schedule of it"
        return [("learning rate", words)]
    told = list(_by_pattern(pattern, torch, jax))
    return told if factor is not None else [*of_precision(torch, wrong.jax), *told]


def _elsewhere(port: "Port", wrong: Held) -> tuple[str, list[tuple[str, str]]]:
    """Whether a layer runs at another place in the port, or not at all; else where it was seen."""
    if wrong.what not in ("input", "outputs") or "training" not in wrong.phase:
        return wrong.place, []
    run = port.passes["training"]
    point = next((p for p in run.points if wrong.place.endswith(f" and {p.label}")), None)
    if point is not None and wrong.torch is not None and wrong.torch.dtype.kind in "iu":
        return point.label, [("positions", "other whole numbers go in")]
    end = len(run.truth["points"]) if point is None else point.place
    layers = [each for each in run.points if each.unit]
    start = max((each.place for each in layers if each.place < end), default=-1)
    kinds = {each["owner"]: each["kind"] for each in port.told[0]["tensors"]}
    for path, place in port.unseen(run).items():
        if start < place < end:
            sort = "missing norm" if kinds[path] in hypotheses.NORMS else "missing layer"
            return path, [(sort, f"{path} does not run in the port")]
    if point is None or point.unit is None:
        return wrong.place, []
    for other in layers:
        if (point.place < other.place) != (point.jax_place < other.jax_place) and other != point:
            way = "behind" if point.place < other.place else "before"
            return point.label, [("order", f"{point.label} runs {way} {other.label} in the port")]
    return wrong.place, []


def _fits(value: np.ndarray, torch: np.ndarray, jax: np.ndarray) -> bool:
    """Whether a hypothesis gives the port's array; in any layout, if its shape is another."""
    if torch.shape == jax.shape or value.size != jax.size:
        return patterns.close(value, jax)
    ways = activations(value.shape, jax.shape)
    return any(patterns.close(way.to_jax(value), jax) for way in ways)


def _by_pattern(pattern: str, torch: np.ndarray, jax: np.ndarray) -> Iterator[tuple[str, str]]:
    if "another order" in pattern:
        yield "order", "the same numbers are taken or joined in another order"
    elif "a bias" in pattern:
        yield "missing bias", "a bias is left out, or added twice"
    elif "padding" in pattern:
        yield "padding", "only what padding reaches differs"
    elif "constant factor" in pattern:
        yield from _factor(patterns.ratio(torch, jax) or 1.0, torch)


def _factor(factor: float, like: np.ndarray) -> Iterator[tuple[str, str]]:
    """What a constant factor may be: the root of a width, or a count."""
    names = {f"{size}": float(size) for size in like.shape if size > 1}
    names |= {f"√{size}": float(size) ** 0.5 for size in like.shape if size > 1}
    for words, size in names.items():
        for told, value in ((words, size), (f"1/{words}", 1 / size)):
            if abs(factor / value - 1) < patterns.NEAR:
                yield "scale", f"multiplied by {told}, of the shape {like.shape}"
                return
    yield "scale", f"multiplied by {factor:.6g}"


# ---- by where it is


def _hypotheses(port: "Port", wrong: Held) -> Iterator[Hypothesis]:
    if wrong.phase.startswith("step") and wrong.place == "optimizer":
        yield from _of_optimizer(port, wrong)
        return
    run = port.passes.get("evaluation" if "evaluation" in wrong.phase else "training")
    if run is None or "float32" in wrong.phase:
        return
    if wrong.what == "loss":
        outputs, targets = run.truth.arrays["outputs"], port.tensors[0]["targets.0"]
        yield from hypotheses.of_loss(outputs, targets, float(run.truth.arrays["loss"]))
    elif wrong.phase == "statistics":
        yield from _of_statistic(port, wrong, run)
    elif wrong.what == "output":
        point = next((each for each in run.points if each.label == wrong.place), None)
        if point is not None:
            yield from _of_point(port, point, run)
    elif wrong.what in ("input", "outputs"):
        yield from _of_gap(port, wrong, run)


def _of_point(port: "Port", point: Point, run: "Pass") -> Iterator[Hypothesis]:
    inputs = [run.truth.arrays[f"point.{slot.torch}"] for slot in point.inputs]
    if not inputs:
        return
    tensors = local_tensors(port, point)
    yield from hypotheses.of_layer(point.kind, point.config, tensors, inputs)
    if point.kind == "lstm":
        yield from hypotheses.of_lstm(inputs[0], tensors)
    yield from _without_layer(point, inputs)


def _without_layer(point: Point, inputs: Sequence[np.ndarray]) -> Iterator[Hypothesis]:
    if point.unit is None:
        yield Hypothesis("activation", "nothing is done", inputs[0])


def local_tensors(port: "Port", point: Point) -> dict[str, np.ndarray]:
    """A layer's tensors at the start, by their names in it."""
    if point.unit is None:
        return {}
    return {
        point.unit.local(name): port.start[f"tensor.{name}"].astype(np.float64)
        for name in (*point.unit.tensors, *port.statistics_of(point.unit.torch))
    }


def _of_statistic(port: "Port", wrong: Held, run: "Pass") -> Iterator[Hypothesis]:
    before = port.start[f"tensor.{wrong.what}"].astype(np.float64)
    after = run.truth.arrays[f"statistic.{wrong.what}"]
    told = next(each for each in port.told[0]["tensors"] if each["name"] == wrong.what)
    momentum = told["momentum"]
    if momentum:
        count = 0
        for point in run.points:
            if point.unit and point.unit.torch == wrong.place and point.inputs:
                entering = run.truth.arrays[f"point.{point.inputs[0].torch}"]
                count = entering.size // entering.shape[1]
        yield from hypotheses.of_statistic(wrong.what, before, after, momentum, count)


# ---- between layers


def _of_gap(port: "Port", wrong: Held, run: "Pass") -> Iterator[Hypothesis]:
    """What lies between two layers, if one thing in it were otherwise."""
    target = wrong.torch
    assert target is not None
    target = target.astype(np.float64)
    place = next((p.place for p in run.points if wrong.place.endswith(f" and {p.label}")), None)
    yield from _of_functions(run, target, place)
    yield from _of_sources(port, run, target, place)


def _of_functions(run: "Pass", target: np.ndarray, place: int | None) -> Iterator[Hypothesis]:
    """The original's own functions there, by what is made of their outputs."""
    told = run.truth["points"]
    end = len(told) if place is None else place
    start = max((each.place for each in run.points if each.place < end and each.unit), default=-1)
    for number in range(start + 1, end):
        point = told[number]
        output = run.truth.arrays.get(f"point.{number}.out.0")
        if point["path"] is not None or output is None:
            continue
        inputs = _inputs(run, number)
        ways = [
            each
            for each in layouts(output.shape, target.shape)
            if np.array_equal(each.to_jax(output), target)
        ]
        for layout in layouts(output.shape, target.shape):
            yield Hypothesis("order", "joined in another order", layout.to_jax(output))
        if output.size == target.size:
            yield Hypothesis(
                "order", "joined without a transposition", output.reshape(target.shape)
            )
        for each in _of_function(point, inputs):
            for way in ways[:1]:
                if each.value.shape == output.shape:
                    yield each._replace(value=way.to_jax(each.value))


def _inputs(run: "Pass", number: int) -> list[np.ndarray]:
    found = []
    while (array := run.truth.arrays.get(f"point.{number}.in.{len(found)}")) is not None:
        found.append(array)
    return found


def _of_function(point: Mapping[str, Any], inputs: Sequence[np.ndarray]) -> Iterator[Hypothesis]:
    yield from hypotheses.of_layer(point["kind"], point["config"], {}, inputs)
    if point["kind"] == "scaled_dot_product" and len(inputs) >= 3:
        queries, keys, values = inputs[:3]
        yield from hypotheses.of_attention(queries, keys, values, point["config"])
    if point["kind"] == "gelu":
        x = inputs[0]
        yield Hypothesis("approximate", "by a sigmoid", x * hypotheses.logistic(1.702 * x))
    yield Hypothesis("activation", f"without the {point['kind']}", inputs[0])


def _of_sources(
    port: "Port", run: "Pass", target: np.ndarray, place: int | None
) -> Iterator[Hypothesis]:
    """Sums with, and without, what came before: residual connections, positions, a mean."""
    sources = list(_sources(run, target, place))
    relu = _relu
    for name, source in sources:
        yield Hypothesis("residual", f"without the sum with {name}", target - source)
        yield Hypothesis("residual", f"with {name} added", target + source)
        for words, factor in (("√", target.shape[-1] ** 0.5), ("1/√", target.shape[-1] ** -0.5)):
            words = f"{name} multiplied by {words}{target.shape[-1]}"
            yield Hypothesis("scale", words, target + (factor - 1) * source)
        yield Hypothesis("activation", f"{name} as it is", source)
        yield Hypothesis("activation", f"relu of {name}", relu(source))
        for other_name, other in sources:
            if name < other_name:
                for words, value in (
                    (f"{name} + {other_name}", source + other),
                    (f"relu of {name} + {other_name}", relu(source + other)),
                ):
                    yield Hypothesis("residual", words, value)
            if name != other_name:
                words = f"(relu of {name}) + {other_name}: before the sum"
                yield Hypothesis("order", words, relu(source) + other)
                if np.allclose(relu(source + other), target):
                    yield Hypothesis("residual", f"relu of {name} alone", relu(source))
    yield from _of_loose(port, target)
    yield from _of_means(run, target, place)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _sources(
    run: "Pass", target: np.ndarray, place: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The last arrays before a place that have its shape."""
    end = len(run.truth["points"]) if place is None else place
    near = [each for each in run.points if each.place < end][-12:]
    for point in near:
        for words, slots in (("what enters", point.inputs), ("the output of", point.outputs)):
            for slot in slots[:1]:
                array = run.truth.arrays[f"point.{slot.torch}"]
                if array.shape == target.shape and array.dtype.kind == "f":
                    yield f"{words} {point.label}", array


def _of_loose(port: "Port", target: np.ndarray) -> Iterator[Hypothesis]:
    """Without a tensor of the whole model's that is added, such as positions."""
    owned = port.owners()
    for key, tensor in port.start.items():
        name = key.removeprefix("tensor.")
        if name in owned or tensor.dtype.kind != "f" or tensor.ndim > target.ndim:
            continue
        try:
            added = np.broadcast_to(tensor, target.shape)
        except ValueError:
            continue
        yield Hypothesis("positions", f"without {name}", target - added)
        for words, moved in _reordered(target - added):
            yield Hypothesis("order", f"{words}, before {name} is added", moved + added)
        for axis in range(1, target.ndim - 1):
            one = np.zeros_like(target)
            first = [slice(None)] * target.ndim
            first[axis] = slice(0, 1)
            one[tuple(first)] = added[tuple(first)]
            yield Hypothesis("positions", f"without {name} at the first place", target - one)
            moved = np.roll(added, -1, axis) - added
            yield Hypothesis("positions", f"with {name} off by one", target + moved)
            back = np.roll(added, 1, axis) - added
            yield Hypothesis("positions", f"with {name} off by one", target + back)


def _reordered(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Places along axis 1 in another order: one at the other end, or a grid's columns for rows."""
    if array.ndim != 3:
        return
    yield "the first place at the end", np.roll(array, -1, 1)
    yield "the last place at the front", np.roll(array, 1, 1)
    for first in (0, 1):
        side = round((array.shape[1] - first) ** 0.5)
        if side > 1 and side * side == array.shape[1] - first:
            grid = array[:, first:].reshape(len(array), side, side, -1).swapaxes(1, 2)
            turned = grid.reshape(len(array), side * side, -1)
            yield "places column by column", np.concatenate([array[:, :first], turned], 1)


def _of_means(run: "Pass", target: np.ndarray, place: int | None) -> Iterator[Hypothesis]:
    """Of the last layer's output: a mean, a sum, the largest, or one place, as pooling does."""
    end = len(run.truth["points"]) if place is None else place
    before = [each for each in run.points if each.place < end and each.outputs]
    if not before:
        return
    array = run.truth.arrays[f"point.{before[-1].outputs[0].torch}"]
    for axis in range(1, array.ndim):
        ways = {
            "the mean": array.mean(axis),
            "the sum": array.sum(axis),
            "the largest": array.max(axis),
            "the first": array.take(0, axis),
            "the last": array.take(-1, axis),
        }
        for words, value in ways.items():
            yield Hypothesis("pooling", f"{words} over axis {axis}", value)


# ---- the optimizer


def declared(port: "Port", wrong: Held) -> Iterator[tuple[str, str]]:
    """Where the two set-ups say other things themselves."""
    if wrong.what.startswith("tensors without"):
        names = wrong.what.partition(": ")[2]
        whole = "layer" in wrong.what
        yield ("missing layer" if whole else "missing bias"), f"nothing there takes {names}"
        if "bias_hh" in names:
            yield "two biases", "torch sums two and trains both; a port with one takes their sum"
    if wrong.what.startswith("gradient of "):
        yield from _padded(port, wrong)
    if wrong.what == "dropout":
        rates = [told["dropout"] for told in port.told]
        yield "dropout", f"its rates are {_said(rates[1])} in the port, {_said(rates[0])} here"
    if wrong.place != "optimizer":
        return
    ours, theirs = (told["optimizer"] for told in port.told)
    if not theirs["name"]:  # optax' own: nothing can be read
        return
    if ours["name"] != theirs["name"]:
        words = f"{theirs['name']} in the place of {ours['name']}"
        both = {ours["name"], theirs["name"]}
        yield ("decay" if both == {"adam", "adamw"} else "optimizer"), words
    for option, value in ours["options"].items():
        other = theirs["options"].get(option)
        if other is not None and other != value:
            yield option, f"{option} {other} in the place of {value}"
    yield from _settings(port, ours["settings"], theirs["settings"])


def _said(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates.values()) or "0"


WORDS = {"weight_decay": "decay", "learning_rate": "learning rate", "eps": "eps"}


def _settings(port: "Port", ours: Any, theirs: Any) -> Iterator[tuple[str, str]]:
    """Settings of tensors that differ; of many tensors the first is named."""
    seen: dict[tuple[str, float, float], list[str]] = {}
    for link in port.matching.links:
        for key, value in ours.get(link.torch, {}).items():
            other = theirs.get(link.jax, {}).get(key, value)
            if abs(other - value) > patterns.NEAR * abs(value):
                seen.setdefault((key, other, value), []).append(link.torch)
    for (key, other, value), names in seen.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        words = f"{key} {other:g} in the place of {value:g}, of {names[0]}{more}"
        yield WORDS[key], words


def _padded(port: "Port", wrong: Held) -> Iterator[tuple[str, str]]:
    """An embedding's row without gradient, which has one in the port."""
    configs = {f"gradient of {each['name']}": each["config"] for each in port.told[0]["tensors"]}
    row = configs.get(wrong.what, {}).get("padding_idx")
    if row is not None and wrong.torch is not None and wrong.jax is not None:
        differs = (~np.isclose(wrong.torch, wrong.jax)).any(axis=1)
        if np.flatnonzero(differs).tolist() == [row]:
            yield "padding_idx", f"row {row} has a gradient there; the original's is padding"


def _of_optimizer(port: "Port", wrong: Held) -> Iterator[Hypothesis]:
    name, told = wrong.what.partition("change of ")[2], port.told[0]["optimizer"]
    count = int(wrong.phase.split()[1])
    history = port.history[:count]
    if not name or len(history) < count:
        return
    starts = [before[f"tensor.{name}"] for before, _ in history]
    zero = np.zeros_like(starts[0])
    gradients = [after.get(f"gradient.{name}", zero) for _, after in history]
    if name not in told["settings"]:
        words = "its gradient is added: optax.masked lets what is not its own pass as it is"
        yield Hypothesis("frozen", words, gradients[-1])
        return
    settings = told["settings"][name]
    rules = steps.Rules(
        told["name"],
        settings["learning_rate"],
        settings["weight_decay"],
        told["options"],
        settings.get("eps", 0.0),
    )
    if f"gradient.{name}" not in history[-1][1]:
        words = "it has a gradient of 0, and the original none, which leaves a tensor as it is"
        yield Hypothesis("no gradient", words, steps.changes(rules, starts, gradients))
        return
    yield from steps.fitting(rules, starts, gradients)
    norms = [steps.norm(after, told["settings"]) for _, after in history]
    yield from steps.clipped(rules, starts, gradients, norms)
