"""Whether the two set-ups are of the same run; what is wrong with them, in one line each."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from parity_tests.ports.judge import Held
from parity_tests.ports.layouts import Layout, activations
from parity_tests.ports.matching import WHOLE, Matching, Tensor, Unit
from parity_tests.ports.wire import Arrays

NAMES = ("the original", "the port")


def check(told: Sequence[Any], tensors: Sequence[Arrays], matching: Matching) -> list[str]:
    """Notes on what may be meant.

    Raises:
        ValueError: a weight has no partner, or the sides have other batches.
    """
    left = (matching.only_torch, matching.only_jax)
    for side, other in ((0, 1), (1, 0)):
        for tensor in left[side]:
            if len(tensor["shape"]) > 1:
                raise ValueError(_unmatched(tensor, side, told[other]["tensors"], left))
    sizes = [each["examples"] for each in told]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the original's first batch has {sizes[0]} examples, the port's {sizes[1]}; give both "
            "the same"
        )
    notes = [
        f"{NAMES[side]}'s {each['name']} {tuple(each['shape'])} has no partner in {NAMES[1 - side]}"
        for side in (0, 1)
        for each in left[side]
    ]
    if told[0]["dropout"] or told[1]["dropout"]:
        notes.append("dropout is switched off in the comparison: no two frameworks drop the same")
    modes = [each["training"] for each in told]
    if None not in modes and modes[0] != modes[1]:
        words = ["training" if mode else "evaluation" for mode in modes]
        notes.append(
            f"the original is set up in {words[0]} mode, the port in {words[1]} mode; they are "
            "compared in both"
        )
    return notes


def held(
    told: Sequence[Any], tensors: Sequence[Arrays], matching: Matching, units: Sequence[Unit]
) -> Iterator[Held]:
    """What the set-ups themselves show to be otherwise.

    Tensors without a partner, rates of dropout, and weights that the port holds already, if most
    of them are the original's: then it was meant to have them all.
    """
    for side, left in enumerate((matching.only_torch, matching.only_jax)):
        for owner in dict.fromkeys(each["owner"] for each in left):
            names = [each["name"] for each in left if each["owner"] == owner]
            of_owner = [t["name"] for t in told[side]["tensors"] if t["owner"] == owner]
            sort = "tensors without a partner" + (" (a layer)" if names == of_owner else "")
            yield Held(owner or WHOLE, f"{sort}: {', '.join(names)}", "set-up", "present", np.inf)
    rates = [sorted(each["dropout"].values()) for each in told]
    if rates[0] != rates[1]:
        paths = {unit.jax: unit.torch for unit in units}
        others = list(told[1]["dropout"]) or list(told[0]["dropout"])
        place = next((paths[p] for p in others if p in paths), others[0])
        yield Held(place, "dropout", "set-up", "present", np.inf)
    yield from _own_weights(tensors, matching, units)


def _own_weights(
    tensors: Sequence[Arrays], matching: Matching, units: Sequence[Unit]
) -> Iterator[Held]:
    known = {link.torch for link in matching.links}
    given = {name: tensors[0][f"tensor.{name}"] for name in known}
    converted = matching.to_jax(given)
    telling = [name for name, array in converted.items() if np.ptp(array) > 0]
    same = [n for n in telling if np.allclose(converted[n], tensors[1][f"tensor.{n}"])]
    if 2 * len(same) <= len(telling):
        return
    owners = {name: unit.torch or WHOLE for unit in units for name in unit.tensors}
    of_port = {link.jax: link.torch for link in matching.links}
    for name in telling:
        if name not in same:
            place = owners.get(of_port[name], of_port[name])
            own = tensors[1][f"tensor.{name}"]
            both = converted[name].astype(np.float64), own.astype(np.float64)
            what = f"the port's own {name}"
            yield Held(place, what, "set-up", "present", np.inf, *both)


def _unmatched(
    tensor: Tensor, side: int, others: Sequence[Tensor], left: Sequence[Sequence[Tensor]]
) -> str:
    """Says which tensor has no partner, and which could be meant."""
    one = (
        f"{NAMES[side]}'s {tensor['name']} {tuple(tensor['shape'])} has no partner in "
        f"{NAMES[1 - side]}"
    )
    own, single = (
        [each for each in left[which] if len(each["shape"]) > 1] for which in (side, 1 - side)
    )
    if single:
        near = single[min(own.index(tensor), len(single) - 1)]
        shape = tuple(near["shape"])
        return f"{one}: {near['name']} {shape}, which has none either, is of another size"
    return f"{one}: {len(others)} tensors there, each with one; a layer is missing, or one is tied"


# ---- batches


def inputs(original: Arrays, port: Arrays, told: Sequence[Any]) -> tuple[Layout, list[str]]:
    """How the original's inputs lie in the port's, and what is to be said of the batches.

    Raises:
        ValueError: no layout has these shapes, or examples come in another order.
    """
    a, b = original["inputs.0"], port["inputs.0"]
    found = activations(a.shape, b.shape)
    if not found:
        raise ValueError(
            f"the original's inputs are {a.shape}, the port's {b.shape}; no order of axes makes "
            "them alike"
        )
    for layout in found:
        if np.array_equal(layout.to_jax(a), b):
            _check_targets(original, port)
            return layout, _later(original, port, layout, told)
    if _same_examples(original["first"], port["first"], found):
        raise ValueError("the port's first batch has the original's examples in another order")
    apart = min(float(np.abs(each.to_jax(a) - b).max()) for each in found)
    return found[0], [
        f"the port's batches are others than the original's (by up to {apart:.3g}); the original's "
        "are given to both"
    ]


def _same_examples(a: np.ndarray, b: np.ndarray, layouts: Sequence[Layout]) -> bool:
    """Whether two batches hold the same examples, in whatever order."""
    if len(a) != len(b):
        return False

    def rows(batch: np.ndarray) -> list[Any]:
        return sorted(batch.reshape(len(batch), -1).tolist())

    shapes = {"torch": a.shape, "jax": b.shape}
    return rows(b) in [rows(each._replace(**shapes).to_jax(a)) for each in layouts]


def _check_targets(original: Arrays, port: Arrays) -> None:
    a, b = original["targets.0"], port["targets.0"]
    if a.shape != b.shape or not np.array_equal(a, b):
        raise ValueError(
            f"the first batch's inputs are the same on both sides, its targets {a.shape} are not "
            f"the port's {b.shape}"
        )


def _later(original: Arrays, port: Arrays, layout: Layout, told: Sequence[Any]) -> list[str]:
    """Whether later batches are the same, too."""
    for number in range(1, min(each["batches"] for each in told)):
        a, b = original[f"inputs.{number}"], port[f"inputs.{number}"]
        same = len(a) == len(b) and np.array_equal(
            layout._replace(torch=a.shape, jax=b.shape).to_jax(a), b
        )
        if not same:
            return [
                f"the first batch is the same on both sides, batch {number + 1} is not: the "
                "loaders shuffle differently; the original's batches are given to both"
            ]
    return []
