"""Two models in two frameworks, held together: `compare("original.py:setup", "port.py:setup")`.

Each runs in a process of its own. Weights are matched and copied; then, layer by layer, the port
gets what the original put into that layer, and has to give what the original gave: in float64 to
1e-9, in float32 within the bounds that follow from rounding.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity_tests.ports import exact, matching, pairing, rounded, setups, suspects, training, wire
from parity_tests.ports.judge import Held
from parity_tests.ports.matching import WHOLE, Matching, Unit
from parity_tests.ports.pairing import Point
from parity_tests.ports.process import Side
from parity_tests.ports.wire import Arrays

EXAMPLES = 4  # of each batch: few are quick, and no layer asks for more
STEPS = 50


class Report(NamedTuple):
    """What was found."""

    matching: Matching
    held: list[Held]
    notes: list[str]  # on the set-ups
    guilt: suspects.Guilt | None  # the first that parts; None if nothing does
    layers: int
    weights: dict[str, np.ndarray]  # the original's, as the port has them
    outputs: tuple[np.ndarray, np.ndarray]  # of both, in float64: the first batch's, in evaluation
    # (in training, if it was stopped before)

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
            jaxmlp.Optimizer or an optax transformation.
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
        weights = wire.by_tensor(self.ported(self.start), "tensor")
        guilt = suspects.first(self, held)
        run = self.passes.get("evaluation") or self.passes["training"]
        outputs = run.truth.arrays["outputs"], run.outputs
        return Report(self.matching, held, self.notes, guilt, len(self.units), weights, outputs)

    def _stages(self, steps: int) -> Iterator[tuple[str, Callable[[], Iterable[Held]]]]:
        yield "float64, training", lambda: self._in_float64("training")
        yield "float64, evaluation", lambda: self._in_float64("evaluation")
        yield "float32", lambda: rounded.check(self)
        yield f"{steps} steps", lambda: training.steps(self, steps)

    def _in_float64(self, mode: str) -> Iterator[Held]:
        """A pass in a mode; before the first what the set-ups show by themselves."""
        is_training = mode == "training"
        if is_training:
            yield from setups.held(self.told, self.tensors, self.matching, self.units)
        self.passes[mode] = self.both(is_training)
        found = list(exact.check(self, self.passes[mode], mode))
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
            own = [point for point in points if point.unit == unit]
            if exact.fits(own, truth, port):
                continue
            for better in self._candidates(unit):
                before, self.matching = self.matching, better
                tried = self.port("float64", training_mode, points, truth)
                if exact.fits(own, truth, tried):
                    port = tried
                    self.notes.append(self._said(before, better))
                    break
                self.matching = before
        return port

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
