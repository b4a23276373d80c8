"""Two models in two frameworks, held together: `compare("original.py:setup", "port.py:setup")`.

Each runs in a process of its own. Weights are matched and copied; then, layer by layer, the port
gets what the original put into that layer, and has to give what the original gave: in float64 to
1e-9, in float32 within the bounds that follow from rounding.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.bounds import UNIT
from parity_tests.ports import formulas, judge, matching, pairing, setups, suspects, training, wire
from parity_tests.ports.judge import Held
from parity_tests.ports.matching import WHOLE, Matching, Unit
from parity_tests.ports.pairing import Point
from parity_tests.ports.process import Side

EXAMPLES = 4  # of each batch: few are quick, and no layer asks for more
STEPS = 50
Arrays = dict[str, np.ndarray]


class Report(NamedTuple):
    """What was found."""

    matching: Matching
    held: list[Held]
    notes: list[str]  # on the set-ups
    guilt: suspects.Guilt | None  # the first that parts; None if nothing does
    layers: int
    weights: dict[str, np.ndarray]  # the original's, as the port has them
    outputs: tuple[np.ndarray, np.ndarray]  # of both, in evaluation, float64: the first batch's

    @property
    def passed(self) -> bool:
        return self.guilt is None


def compare(
    torch: str,
    jax: str,
    hints: Mapping[str, str] | None = None,
    examples: int = EXAMPLES,
    steps: int = STEPS,
    stop: bool = False,
    progress: Callable[[str], None] = lambda doing: None,
) -> Report:
    """Holds a port to its original.

    Args:
        torch, jax: FILE:FUNCTION, which returns (model, optimizer, batches) or (model, optimizer,
            batches, loss); the model a torch.nn.Module, or a flax.nnx.Module with
            jaxmlp.Optimizer.
        hints: of the port's tensors by name, the original's, where they are not found.
        examples: of each batch, at most.
        steps: of training, in float64.
        stop: where something differs look no further.

    Raises:
        ValueError: a set-up is wrong; the message says which and how.
    """
    with both(torch, jax) as sides:
        progress("setting up")
        return Port(*sides, hints or {}, examples, progress).report(steps, stop)


@contextlib.contextmanager
def both(torch: str, jax: str) -> Iterator[tuple[Side, Side]]:
    """The two processes."""
    with (
        Side("parity_tests.ports.torch_side", torch, "the original") as original,
        Side("parity_tests.ports.jax_side", jax, "the port") as port,
    ):
        yield original, port


class Pass(NamedTuple):
    """A pass in float64 on both sides."""

    points: list[Point]
    truth: Any  # what the original told
    port: Any
    outputs: np.ndarray  # of the port, nothing put in its way; as torch has them

    def lighter(self) -> "Pass":
        """Without the arrays of its points, in which nothing has to be looked for."""
        told = {name: self.truth.arrays[name] for name in ("outputs", "loss")}
        return self._replace(truth=wire.Message(self.truth, told), port=None)


class Port:
    """A port and its original, set up and matched."""

    def __init__(
        self,
        torch: Side,
        jax: Side,
        hints: Mapping[str, str],
        examples: int,
        progress: Callable[[str], None],
    ) -> None:
        self.torch, self.jax, self.progress, self.examples = torch, jax, progress, examples
        for side in (torch, jax):
            side.begin("setup", {"given": side.setup, "examples": examples})
        self.told = [side.answer() for side in (torch, jax)]
        self.tensors = values_of(torch), values_of(jax)
        calls = self.calls = torch.ask("order")["order"], jax.ask("order")["order"]
        listed = [
            in_order(told["tensors"], called) for told, called in zip(self.told, calls, strict=True)
        ]
        self.matching = matching.match(listed[0], listed[1], hints)
        self.notes = setups.check(self.told, self.tensors, self.matching)
        self.layout, more = setups.inputs(*self.tensors, self.told)
        self.notes += more
        self.units = matching.units(self.matching, listed[0], listed[1], calls)
        if not self.units:
            raise ValueError(
                "no layer of the original is one of the port: their tensors have other sizes"
            )
        self.linked = {link.torch for link in self.matching.links}
        self.sizes: dict[str, float] = {}  # of the terms of each tensor's gradient
        self.passes: dict[str, Pass] = {}
        self.history: list[tuple[Arrays, Arrays]] = []  # of steps: tensors before, what was told

    def redrawn(self, seed: int) -> "Port":
        """This with the weights and batches that the original's set-up draws from a seed.

        The matching stays, and the port's programs need not be compiled again.
        """
        told = {"given": self.torch.setup, "examples": self.examples, "seed": seed}
        self.torch.ask("setup", told)
        self.tensors = values_of(self.torch), self.tensors[1]
        self.passes, self.history, self.sizes = {}, [], {}
        return self

    # ---- what is asked of the sides

    @property
    def start(self) -> dict[str, np.ndarray]:
        """The original's tensors at the start."""
        return {n: t for n, t in self.tensors[0].items() if n.startswith("tensor.")}

    def ported(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """Tensors of the original, as the port takes them."""
        own = {name.removeprefix("tensor."): array for name, array in tensors.items()}
        known = {n: own[n] for n in self.linked if n in own}
        return {f"tensor.{n}": array for n, array in self.matching.to_jax(known).items()}

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """The original's batch, as the port takes it."""
        inputs, targets = (self.tensors[0][f"{n}.{number}"] for n in ("inputs", "targets"))
        layout = self.layout._replace(torch=inputs.shape, jax=(len(inputs), *self.layout.jax[1:]))
        return {"inputs": layout.to_jax(inputs), "targets": targets}

    def original(self, dtype: str, training_mode: bool) -> Any:
        """A pass of the original."""
        units = [unit.torch for unit in self.units]
        told = {"dtype": dtype, "training": training_mode, "number": 0, "units": units}
        return self.torch.ask("record", told)

    def forward(self, training_mode: bool) -> Any:
        """A pass of the port, nothing put in its way."""
        arrays = self.ported(self.start) | self.batch(0)
        told = {"training": training_mode, "units": [unit.jax for unit in self.units]}
        return self.jax.ask("forward", told, arrays=arrays)

    def port(self, dtype: str, training_mode: bool, points: Sequence[Point], given: Any) -> Any:
        """A pass of the port with the original's numbers put in its way at every point."""
        arrays = self.ported(self.start) | self.batch(0)
        for point in points:
            for slot in (*point.inputs, *point.outputs):
                for end in ("", ".gradient"):
                    if (array := given.arrays.get(f"point.{slot.torch}{end}")) is not None:
                        arrays[f"point.{slot.jax}{end}"] = slot.layout.to_jax(array)
        if self.output is not None:
            for name in ("outputs", "outputs.gradient"):
                if name in given.arrays:
                    arrays[name] = self.output.to_jax(given.arrays[name])
        told = {"dtype": dtype, "training": training_mode}
        told["units"] = [unit.jax for unit in self.units]
        return self.jax.ask("record", told, arrays=arrays)

    # ---- what is held

    def report(self, steps: int, stop: bool = False) -> Report:
        """Everything, from the ground up.

        Args:
            stop: where something differs look no further.
        """
        held: list[Held] = []
        for doing, stage in self._stages(steps):
            self.progress(doing)
            held += stage()
            if stop and not all(each.passed for each in held):
                break
        weights = tensors_of(self.ported(self.start), "tensor")
        guilt = suspects.first(self, held)
        run = self.passes.get("evaluation") or self.passes["training"]
        outputs = run.truth.arrays["outputs"], run.outputs
        return Report(self.matching, held, self.notes, guilt, len(self.units), weights, outputs)

    def _stages(self, steps: int) -> Iterator[tuple[str, Callable[[], Iterable[Held]]]]:
        yield "float64, training", lambda: self._in_float64("training")
        yield "float64, evaluation", lambda: self._in_float64("evaluation")
        yield "float32", lambda: self.rounded(self.passes["training"].points)
        yield f"{steps} steps", lambda: training.steps(self, steps)

    def _in_float64(self, mode: str) -> Iterator[Held]:
        """A pass in a mode; before the first what the set-ups show by themselves."""
        is_training = mode == "training"
        if is_training:
            yield from setups.held(self.told, self.tensors, self.matching, self.units)
        self.passes[mode] = self.both(is_training)
        found = list(self.exact(self.passes[mode], mode))
        yield from (each for each in found if is_training or each.phase != "statistics")
        if all(each.passed for each in found):
            self.passes[mode] = self.passes[mode].lighter()

    def both(self, training_mode: bool) -> Pass:
        """A pass in float64: the original's, and the port's beside it."""
        truth, free = self.original("float64", training_mode), self.forward(training_mode)
        self.output = pairing.likeliest(truth.arrays["outputs"], free.arrays["outputs"])
        sides = [(side["points"], side.arrays) for side in (truth, free)]
        points = pairing.pair(self.units, sides[0], sides[1])
        port = self.port("float64", training_mode, points, truth)
        before = self.matching
        port = self._other_layouts(truth, port, points, training_mode)
        if self.matching is not before:
            free = self.forward(training_mode)
        ours = free.arrays["outputs"]
        outputs = ours if self.output is None else self.output.to_torch(ours)
        return Pass(points, truth, port, outputs)

    def _other_layouts(
        self, truth: Any, port: Any, points: Sequence[Point], training_mode: bool
    ) -> Any:
        """Where a layer does not fit and its weight could lie otherwise, the layout that fits."""
        for unit in self.units:
            wrong = self._misfit(unit, truth, port, points)
            if not wrong:
                continue
            for better in self._candidates(unit):
                before, self.matching = self.matching, better
                tried = self.port("float64", training_mode, points, truth)
                if not self._misfit(unit, truth, tried, points):
                    port = tried
                    self.notes.append(self._said(before, better))
                    break
                self.matching = before
        return port

    def _misfit(self, unit: Unit, truth: Any, port: Any, points: Sequence[Point]) -> bool:
        return any(
            not held.passed
            for point in points
            if point.unit == unit
            for held in self._outputs(point, truth, port, "")
        )

    def _candidates(self, unit: Unit) -> Iterator[Matching]:
        """Other layouts of a layer's weights; of layers that Flax itself has they are known."""
        shapes = {each["name"]: each for each in self.told[0]["tensors"]}
        library = {each["name"]: each["library"] for each in self.told[1]["tensors"]}
        for number, link in enumerate(self.matching.links):
            if link.torch not in unit.tensors or len(link.layout.torch) < 2 or library[link.jax]:
                continue
            tensor = {**shapes[link.torch], "shape": list(link.layout.torch)}
            for layout in matching.likely(tensor, link.layout.jax)[1:6]:
                links = list(self.matching.links)
                links[number] = link._replace(layout=layout)
                yield self.matching._replace(links=links)

    def _said(self, before: Matching, after: Matching) -> str:
        changed = [b for a, b in zip(before.links, after.links, strict=True) if a != b]
        return "; ".join(
            f"{link.jax} fits as {link.torch} with {link.layout.words or 'its axes as they are'}"
            for link in changed
        )

    def exact(self, run: Pass, mode: str) -> Iterator[Held]:
        """A pass in float64: forward, loss, statistics, and backward."""
        points, truth, port, _ = run
        yield from self._forward(points, truth, port, f"forward, {mode}")
        yield from self._statistics(points, truth, port)
        yield from self._backward(points, truth, port, f"backward, {mode}")

    def _forward(self, points: Any, truth: Any, port: Any, phase: str) -> Iterator[Held]:
        before = "the inputs"
        for point in points:
            place = between(before, point.label)
            if not point.inputs:
                yield from shapes_differ(point, "in", place, phase, truth, port)
            for slot in point.inputs:
                yield judge.same(place, "input", phase, *arrays(slot, truth, port))
            yield from self._outputs(point, truth, port, phase)
            before = point.label
        if self.output is not None:
            place = between(before, "the outputs")
            ours = self.output.to_torch(port.arrays["outputs"])
            yield judge.same(place, "outputs", phase, truth.arrays["outputs"], ours)
        loss = truth.arrays["loss"], port.arrays["loss"]
        yield judge.same("loss", "loss", phase, *loss, size=float(np.abs(loss[0])))

    def _outputs(self, point: Point, truth: Any, port: Any, phase: str) -> Iterator[Held]:
        if not point.outputs:
            yield from shapes_differ(point, "out", point.label, phase, truth, port)
        for slot in point.outputs:
            yield judge.same(point.label, "output", phase, *arrays(slot, truth, port))

    def _statistics(self, points: Any, truth: Any, port: Any) -> Iterator[Held]:
        names = ("statistic", "statistics")
        ours = self.matching.to_torch(tensors_of(port.arrays, names[0]))
        owners = self.owners()
        for name, array in tensors_of(truth.arrays, names[0]).items():
            if name in ours:
                yield judge.same(owners.get(name, name), name, names[1], array, ours[name])

    def _backward(self, points: Any, truth: Any, port: Any, phase: str) -> Iterator[Held]:
        if self.output is not None and "outputs.gradient" in truth.arrays:
            ours = self.output.to_torch(port.arrays["outputs.gradient"])
            what = "gradient of the outputs"
            yield judge.same("loss", what, phase, truth.arrays["outputs.gradient"], ours)
        after = "the outputs"
        sizes = self.sizes
        for point in reversed(points):
            arriving = 0.0
            for slot in point.outputs:
                both_sides = gradients(slot, truth, port)
                if both_sides is not None:
                    arriving = max(arriving, largest(both_sides[0]))
                    place = between(point.label, after)
                    yield judge.same(place, "gradient of the output", phase, *both_sides)
            for slot in point.inputs:
                both_sides = gradients(slot, truth, port)
                if both_sides is not None:
                    what = "gradient of the input"
                    yield judge.same(point.label, what, phase, *both_sides, size=arriving)
            if point.unit:
                for name in point.unit.tensors:
                    sizes[name] = max(sizes.get(name, 0.0), arriving)
            after = point.label
        yield from self._tensor_gradients(truth, port, phase, sizes)

    def _tensor_gradients(
        self, truth: Any, port: Any, phase: str, sizes: dict[str, float]
    ) -> Iterator[Held]:
        theirs = tensors_of(truth.arrays, "gradient")
        # Of a layer that is not seen (inside of a scan) the terms of its sums are not known.
        most = max(map(largest, theirs.values()), default=0.0)
        ours = self.matching.to_torch(tensors_of(port.arrays, "gradient"))
        owners = self.owners()
        for name, array in theirs.items():
            if name in ours:
                what, size = f"gradient of {name}", sizes.setdefault(name, most)
                yield judge.same(owners.get(name, name), what, phase, array, ours[name], size)

    def rounded(self, points: Sequence[Point]) -> Iterator[Held]:
        """A pass in float32. The port sees at every point what the original saw.

        So it does in float64, which is exact beside it.
        """
        torch = self.original("float32", True)
        jax, exact = (self.port(dtype, True, points, torch) for dtype in ("float32", "float64"))
        for point in points:
            passed = self._formula(point, torch)
            yield from self._rounded_forward(point, torch, jax, exact, passed)
        for point in reversed(points):
            passed = self._formula(point, torch)
            yield from self._rounded_backward(point, torch, jax, exact, passed)
        yield from self._rounded_loss(torch, jax, exact)

    def _rounded_loss(self, torch: Any, jax: Any, exact: Any) -> Iterator[Held]:
        """The loss and its gradient; by the formula of cross-entropy, if none was given."""
        outputs, targets = torch.arrays["outputs"], self.tensors[0]["targets.0"]
        ours, theirs, true = (side.arrays["loss"] for side in (torch, jax, exact))
        passed = None
        if self.told[0]["default_loss"]:
            one, unit = np.ones((), np.float32), UNIT["float32"]
            passed = formulas.run("cross_entropy", {}, {}, [outputs, targets], one, unit)
        phase = "forward, float32"
        if passed is not None and judge.covers(passed.output, true):
            yield judge.within("loss", "loss", phase, ours, theirs, passed.output)
        else:
            terms = outputs.size
            yield judge.compared("loss", "loss", phase, ours, theirs, true, terms=terms)
        if self.output is None or "outputs.gradient" not in torch.arrays:
            return
        what, phase = "gradient of the outputs", "backward, float32"
        ours = torch.arrays["outputs.gradient"]
        theirs, true = (
            self.output.to_torch(side.arrays["outputs.gradient"]) for side in (jax, exact)
        )
        bound = passed.input_gradients[0] if passed is not None else None
        if bound is not None and judge.covers(bound, true):
            yield judge.within("loss", what, phase, ours, theirs, bound)
        else:
            yield judge.compared("loss", what, phase, ours, theirs, true)

    def _formula(self, point: Point, torch: Any) -> Any:
        """The layer's pass with its bounds, if there is a formula."""
        inputs = [torch.arrays.get(f"point.{slot.torch}") for slot in point.inputs]
        if not inputs or not point.outputs:
            return None
        tensors = {
            name: tensor.astype(np.float32)
            for name, tensor in suspects.local_tensors(self, point).items()
        }
        cotangent = torch.arrays.get(f"point.{point.outputs[0].torch}.gradient")
        return formulas.run(point.kind, point.config, tensors, inputs, cotangent, UNIT["float32"])

    def _rounded_forward(
        self, point: Point, torch: Any, jax: Any, exact: Any, passed: Any
    ) -> Iterator[Held]:
        phase = "forward, float32"
        for slot in point.inputs:
            ours, theirs = arrays(slot, torch, jax)
            true = arrays(slot, torch, exact)[1]
            yield judge.compared(f"before {point.label}", "input", phase, ours, theirs, true)
        for number, slot in enumerate(point.outputs):
            both_sides = arrays(slot, torch, jax)
            true = arrays(slot, torch, exact)[1]
            if number == 0 and passed is not None and judge.covers(passed.output, true):
                yield judge.within(point.label, "output", phase, *both_sides, passed.output)
            else:
                yield judge.compared(point.label, "output", phase, *both_sides, true)

    def _rounded_backward(
        self, point: Point, torch: Any, jax: Any, exact: Any, passed: Any
    ) -> Iterator[Held]:
        phase, arriving, total = "backward, float32", 0.0, 0.0
        for slot in point.outputs:
            both_sides, true = gradients(slot, torch, jax), gradients(slot, torch, exact)
            if both_sides is not None and true is not None:
                arriving = max(arriving, largest(both_sides[0]))
                total += float(np.abs(both_sides[0]).sum())
                what = "gradient of the output"
                yield judge.compared(f"after {point.label}", what, phase, *both_sides, true[1])
        for number, slot in enumerate(point.inputs):
            both_sides, true = gradients(slot, torch, jax), gradients(slot, torch, exact)
            if both_sides is None or true is None:
                continue
            bound = passed.input_gradients[number] if passed and passed.input_gradients else None
            what = "gradient of the input"
            if bound is not None and judge.covers(bound, true[1]):
                yield judge.within(point.label, what, phase, *both_sides, bound)
            else:
                yield judge.compared(point.label, what, phase, *both_sides, true[1], size=arriving)
        if point.unit is None:
            return
        sides = [self.matching.to_torch(tensors_of(s.arrays, "gradient")) for s in (jax, exact)]
        for name in point.unit.tensors:
            own = torch.arrays.get(f"gradient.{name}")
            if own is None or name not in sides[0]:
                continue
            local, what = point.unit.local(name), f"gradient of {name}"
            bound = passed.gradients.get(local) if passed else None
            if bound is not None and judge.covers(bound, sides[1][name]):
                yield judge.within(point.label, what, phase, own, sides[0][name], bound)
            else:
                ours, true = sides[0][name], sides[1][name]
                summed = total / max(own.size, 1)  # for each of its numbers
                yield judge.compared(point.label, what, phase, own, ours, true, summed)

    def unseen(self, run: Pass) -> dict[str, float]:
        """Layers of the original that have a partner which does not run in the port; their places.

        Of those that the port only uses the weights of, nothing is known.
        """
        called = {unit.torch for unit in self.units}
        if "" in called:
            return {}
        owners = {each["owner"] for each in self.told[0]["tensors"]}
        order = {path: place for place, path in enumerate(self.calls[0])}
        places = {each.unit.torch: each.place for each in run.points if each.unit}
        found = {}
        for path in owners & set(order) - called:
            before = [places[p] for p in places if order[p] < order[path]]
            inside = any(other.startswith(f"{path}.") or not path for other in called)
            if not inside and not any(path.startswith(f"{other}.") for other in called):
                found[path] = max(before, default=-1) + 0.5
        return found

    def statistics_of(self, layer: str) -> list[str]:
        """Names of the running statistics that a layer keeps."""
        told = self.told[0]["tensors"]
        return [t["name"] for t in told if t["sort"] == "statistic" and t["owner"] == layer]

    def owners(self) -> dict[str, str]:
        """Of each tensor: the layer that it belongs to."""
        return {name: unit.torch or WHOLE for unit in self.units for name in unit.tensors}


def in_order(tensors: Sequence[Any], called: Sequence[str]) -> list[Any]:
    """Tensors in the order in which their layers run."""
    places = {path: place for place, path in enumerate(called)}
    return sorted(tensors, key=lambda each: places.get(each["owner"], -1))


def values_of(side: Side) -> dict[str, np.ndarray]:
    return side.ask("values").arrays


def between(before: str, after: str) -> str:
    return f"between {before} and {after}"


def tensors_of(found: Arrays, sort: str) -> dict[str, np.ndarray]:
    """Those arrays whose keys begin with gradient, statistic, tensor or state, by tensor."""
    start = f"{sort}."
    return {n.removeprefix(start): a for n, a in found.items() if n.startswith(start)}


def arrays(slot: pairing.Slot, torch: Any, jax: Any) -> tuple[np.ndarray, np.ndarray]:
    """A slot's array on both sides, as torch has it."""
    ours = jax.arrays[f"point.{slot.jax}"]
    return torch.arrays[f"point.{slot.torch}"], slot.layout.to_torch(ours)


def gradients(slot: pairing.Slot, torch: Any, jax: Any) -> tuple[np.ndarray, np.ndarray] | None:
    theirs = torch.arrays.get(f"point.{slot.torch}.gradient")
    ours = jax.arrays.get(f"point.{slot.jax}.gradient")
    if theirs is None or ours is None:
        return None
    return theirs, slot.layout.to_torch(ours)


def largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0.0))


def shapes_differ(
    point: Point, side: str, place: str, phase: str, truth: Any, port: Any
) -> Iterator[Held]:
    """What has other shapes on the two sides, in whatever layout; nothing is noted of no array."""
    theirs = truth.arrays.get(f"point.{point.place}.{side}.0")
    ours = port.arrays.get(f"point.{point.jax_place}.{side}.0")
    if theirs is not None and ours is not None:
        what = "output" if side == "out" else "input"
        yield Held(place, what, phase, "float64", np.inf, theirs, ours)
