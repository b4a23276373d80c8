"""Which tensor of the port is which of the original, and which layers they make together."""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from parity_tests.ports.layouts import Layout, layouts

Tensor = dict[str, Any]  # what a side tells of it: name, shape, sort, owner, local, kind, config
Arrays = Mapping[str, np.ndarray]

ROLES = {
    "kernel": "weight",
    "embedding": "weight",
    "weight": "weight",
    "scale": "scale",
    "bias": "bias",
    "mean": "mean",
    "running_mean": "mean",
    "var": "var",
    "running_var": "var",
}
MOST_PARTS = 4  # of a fused tensor: a recurrent layer has four gates
# Costs of a pair: what speaks against it.
OTHER_ROLE, OTHER_WEIGHT, OTHER_PLACE, OTHER_NAME, OTHER_RANK = 3.0, 2.0, 1.0, 1.5, 0.5


class Link(NamedTuple):
    """One tensor of the port and what it is of the original."""

    torch: str
    jax: str
    layout: Layout
    part: int = 0  # of torch's first axis, cut into so many parts
    parts: int = 1
    jax_part: int = 0  # of an axis of the port's
    jax_parts: int = 1
    jax_axis: int = -1  # 0 of layers that are stacked, to be scanned over


class Matching(NamedTuple):
    links: list[Link]
    only_torch: list[Tensor]
    only_jax: list[Tensor]

    def to_jax(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """The port's tensors (or gradients) out of the original's, where all their parts are."""
        pieces: dict[str, dict[int, np.ndarray]] = {}
        for link in self.links:
            if link.torch not in tensors:
                continue
            part = _part(tensors[link.torch], link.part, link.parts, 0)
            pieces.setdefault(link.jax, {})[link.jax_part] = link.layout.to_jax(part)
        whole = {link.jax: link for link in self.links}
        return {
            n: _joined(p, whole[n].jax_axis)
            for n, p in pieces.items()
            if len(p) == whole[n].jax_parts
        }

    def to_torch(self, tensors: Arrays) -> dict[str, np.ndarray]:
        """The original's tensors (or gradients) out of the port's, where all their parts are."""
        pieces: dict[str, dict[int, np.ndarray]] = {}
        for link in self.links:
            if link.jax in tensors:
                array = tensors[link.jax]
                part = _part(array, link.jax_part, link.jax_parts, link.jax_axis)
                pieces.setdefault(link.torch, {})[link.part] = link.layout.to_torch(part)
        whole = {link.torch: link.parts for link in self.links}
        return {n: _joined(p, 0) for n, p in pieces.items() if len(p) == whole[n]}


def _part(array: np.ndarray, number: int, parts: int, axis: int) -> np.ndarray:
    return array if parts == 1 else np.split(array, parts, axis)[number]  # one number has no axis


def _joined(pieces: Mapping[int, np.ndarray], axis: int) -> np.ndarray:
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    return np.concatenate([pieces[place] for place in sorted(pieces)], axis)


# ---- tensors


def match(
    torch: Sequence[Tensor], jax: Sequence[Tensor], hints: Mapping[str, str] | None = None
) -> Matching:
    """Pairs tensors by their size, role, name and place.

    Args:
        torch, jax: in the order in which their layers run.
        hints: of the port's tensors by name, the original's.

    Raises:
        ValueError: a hint names what is not there, or pairs different sizes.
    """
    links = _hinted(torch, jax, hints or {})
    left = [each for each in torch if each["name"] not in {link.torch for link in links}]
    right = [each for each in jax if each["name"] not in {link.jax for link in links}]
    left = [each for each in left if each["sort"] != "constant"]
    right = [each for each in right if each["sort"] != "constant"]
    places = [_places(torch), _places(jax)]
    links += _stacked(left, right, places)
    # Weights first: a norm or a bias is known by the weight that runs before it. Sizes that are as
    # frequent on both sides first; of others only the best pairs: what is left may be in parts.
    weights = [[each for each in side if role(each) == "weight"] for side in (left, right)]
    found = _all_pairs(weights[0], weights[1], places, lambda a, b: 0.0)
    for link_ in found:
        left = [each for each in left if each["name"] != link_.torch]
        right = [each for each in right if each["name"] != link_.jax]
    links += found
    links += _all_pairs(left, right, places, _after_others(torch, jax, links))
    order = {each["name"]: place for place, each in enumerate(torch)}
    links.sort(key=lambda each: (order[each.torch], each.part))
    return Matching(links, left, right)


Cost = Callable[[Tensor, Tensor], float]


def _all_pairs(
    left: list[Tensor], right: list[Tensor], places: Sequence[Mapping[str, float]], more: Cost
) -> list[Link]:
    """Pairs, which are taken out of what is left."""
    links = _pairs_by_size(left, right, places, more, alone=False)
    links += _pairs_by_size(left, right, places, more, alone=True)
    return links + _fused(left, right)


def _after_others(torch: Sequence[Tensor], jax: Sequence[Tensor], links: Sequence[Link]) -> Cost:
    """What it costs if the weights that run before two tensors are not one another."""
    before = [_weights_before(side) for side in (torch, jax)]
    partners = {(link.torch, link.jax) for link in links}

    def cost(a: Tensor, b: Tensor) -> float:
        both = before[0][a["name"]], before[1][b["name"]]
        return 0.0 if both in partners or both == ("", "") else OTHER_WEIGHT

    return cost


def _weights_before(tensors: Sequence[Tensor]) -> dict[str, str]:
    last, found = "", {}
    for each in tensors:
        last = each["name"] if role(each) == "weight" else last
        found[each["name"]] = last
    return found


def _places(tensors: Sequence[Tensor]) -> dict[str, float]:
    return {each["name"]: place / len(tensors) for place, each in enumerate(tensors)}


def _pairs_by_size(
    left: list[Tensor],
    right: list[Tensor],
    places: Sequence[Mapping[str, float]],
    more: Cost,
    alone: bool,
) -> list[Link]:
    """Pairs of tensors of one size, which are taken out of what is left.

    Args:
        alone: also where one side has more of them than the other.
    """
    links = []
    for size in sorted({_size(each) for each in left}, reverse=True):
        ours, theirs = ([each for each in side if _size(each) == size] for side in (left, right))
        if theirs and (alone or len(ours) == len(theirs)):
            for a, b in _assigned(ours, theirs, places, more):
                links.append(link(a, b))
                left.remove(a)
                right.remove(b)
    return links


def _size(tensor: Tensor) -> tuple[str, int]:
    sort = "statistic" if tensor["sort"] == "statistic" else "parameter"
    return sort, math.prod(tensor["shape"])


def _hinted(torch: Sequence[Tensor], jax: Sequence[Tensor], hints: Mapping[str, str]) -> list[Link]:
    by_name = [{each["name"]: each for each in side} for side in (torch, jax)]
    links = []
    for port, original in hints.items():
        for name, known, side in ((original, by_name[0], "original"), (port, by_name[1], "port")):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0)
                raise ValueError(
                    f"the pairs name {name}, which the {side} does not have; is {near[0]} meant?"
                )
        a, b = by_name[0][original], by_name[1][port]
        if row := next((row for row in _rows(torch, b) if a in row), None):
            links += _stack(row, b)
            continue
        if _size(a)[1] != _size(b)[1]:
            raise ValueError(
                f"the pairs say that {port} {tuple(b['shape'])} is {original} "
                f"{tuple(a['shape'])}, but these are not as many numbers"
            )
        links.append(link(a, b))
    return links


def _assigned(
    torch: Sequence[Tensor],
    jax: Sequence[Tensor],
    places: Sequence[Mapping[str, float]],
    more: Cost,
) -> list[tuple[Tensor, Tensor]]:
    """The cheapest pairs of tensors of one size; those that cannot be one another stay single."""
    costs = np.full((len(torch), len(jax)), 100.0)
    # Their rank among those of their size tells more than their place among all.
    for (i, a), (j, b) in itertools.product(enumerate(torch), enumerate(jax)):
        if layouts(a["shape"], b["shape"]):
            apart = abs(i / len(torch) - j / len(jax)) if len(torch) == len(jax) else 0.0
            apart += abs(places[0][a["name"]] - places[1][b["name"]])
            costs[i, j] = OTHER_PLACE * apart + OTHER_NAME * (1 - alike(a, b))
            costs[i, j] += OTHER_ROLE * (role(a) != role(b)) + more(a, b)
            costs[i, j] += OTHER_RANK * (len(a["shape"]) != len(b["shape"]))
    rows, columns = linear_sum_assignment(costs)
    return [(torch[i], jax[j]) for i, j in zip(rows, columns, strict=True) if costs[i, j] < 100.0]


def role(tensor: Tensor) -> str:
    """weight, scale, bias, mean, var; or its own name."""
    local = re.split(r"[._]", tensor["local"])[-1] if tensor["local"] else ""
    found = ROLES.get(tensor["local"], ROLES.get(local, local))
    return "scale" if found == "weight" and len(tensor["shape"]) == 1 else found


SYNONYMS = {
    "q": "query",
    "k": "key",
    "v": "value",
    "o": "out",
    "fc": "linear",
    "dense": "linear",
    "norm": "bn",
    "batchnorm": "bn",
    "ln": "bn",
    "embed": "embedding",
    "wte": "embedding",
    "attn": "attention",
    "downsample": "shortcut",
}


def alike(a: Tensor, b: Tensor) -> float:
    """How similar two tensors' names are, from 0 to 1; numbers count most."""
    words, others = _words(a["name"]), _words(b["name"])
    ratio = difflib.SequenceMatcher(None, words, others, autojunk=False).ratio()
    letters = difflib.SequenceMatcher(None, "".join(words), "".join(others)).ratio()
    return (ratio + letters) / 2


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[a-zA-Z])|[._]", " ", name)
    words = [SYNONYMS.get(word, word) for word in spaced.lower().split()]
    return [ROLES.get(word, word) for word in words]


def link(a: Tensor, b: Tensor) -> Link:
    """Of two whole tensors, in the layout that their layers' kinds make likely."""
    return Link(a["name"], b["name"], likely(a, b["shape"], b["config"])[0])


def likely(
    a: Tensor, shape: Sequence[int], config: Mapping[str, Any] | None = None
) -> list[Layout]:
    """The layouts of a tensor of the original in the port, the likeliest first.

    Args:
        config: of the port's layer. A ConvTranspose with `transpose_kernel` reverses its kernel
            itself, and exchanges its channels.
    """
    given = tuple(a["shape"])
    space = tuple(range(2, len(given)))
    itself = (config or {}).get("transpose_kernel", False)
    transposed = a["kind"] == "conv_transposed" and len(given) > 2 and not itself
    usual: tuple[int, ...] = tuple(range(len(given)))
    if transposed:
        usual = (*space, 0, 1)
    elif a["kind"] in ("conv", "conv_transposed") and space:
        usual = (*space, 1, 0)
    elif a["kind"] != "embedding" and len(given) == 2:
        usual = (1, 0)
    same = given == tuple(shape) and a["kind"] not in MATRICES
    found = layouts(given, shape, space if transposed else ())

    def cost(layout: Layout) -> tuple[bool, bool]:
        wanted = tuple(range(len(given))) if same else usual
        return layout.order != wanted, bool(layout.reversed) != transposed

    return sorted(found, key=cost)


MATRICES = ("linear", "conv", "conv_transposed", "attention", "lstm", "gru", "rnn")


def _fused(left: list[Tensor], right: list[Tensor]) -> list[Link]:
    """Tensors that one side holds as one and the other in parts, such as query, key and value."""
    links = []
    for whole, parts, of_torch in ((left, right, True), (right, left, False)):
        for tensor in list(whole):
            found = _parts_of(tensor, parts)
            if not found:
                continue
            cuts = [_cut(tensor, p, place, len(found), of_torch) for place, p in enumerate(found)]
            if None in cuts:
                continue
            whole.remove(tensor)
            for part in found:
                parts.remove(part)
            links += [each for each in cuts if each is not None]
    return links


def _stacked(
    left: list[Tensor], right: list[Tensor], places: Sequence[Mapping[str, float]]
) -> list[Link]:
    """Tensors of like layers of the original that the port holds as one; taken out of both."""
    rows = {
        row[0]["name"]: row
        for tensor in right
        if not any(_size(each) == _size(tensor) for each in left)
        for row in _rows(left, tensor)
    }
    wholes = [{**row[0], "shape": [len(row), *row[0]["shape"]]} for row in rows.values()]
    links = []
    for whole, tensor in _assigned(wholes, list(right), places, lambda a, b: 0.0):
        row = rows[whole["name"]]
        if len(row) == tensor["shape"][0] and all(each in left for each in row):
            links += _stack(row, tensor)
            right.remove(tensor)
            for each in row:
                left.remove(each)
    return links


def _rows(torch: Sequence[Tensor], tensor: Tensor) -> list[list[Tensor]]:
    """Tensors that differ in one number of their names, as many as the port's has along axis 0.

    So layers are held that are scanned over.
    """
    count, *shape = tensor["shape"] or [0]
    rows: dict[tuple[str, str], list[Tensor]] = {}
    for each in torch:
        for number in re.finditer(r"(?<=\.)\d+(?=\.)", each["name"]):
            around = each["name"][: number.start()], each["name"][number.end() :]
            rows.setdefault(around, []).append(each)
    found: list[list[Tensor]] = []
    for row in rows.values():  # of several numbers in a name the first counts
        fits = len(row) == count > 1 and all(layouts(each["shape"], shape) for each in row)
        if fits and not any(each in other for each in row for other in found):
            found.append(row)
    return found


def _stack(row: Sequence[Tensor], tensor: Tensor) -> list[Link]:
    count, *shape = tensor["shape"]
    return [
        Link(
            part["name"],
            tensor["name"],
            likely(part, shape)[0]._replace(jax=(1, *shape)),
            jax_part=place,
            jax_parts=count,
            jax_axis=0,
        )
        for place, part in enumerate(row)
    ]


def _parts_of(tensor: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
    """Two to four tensors of one place that together have its size; the likeliest."""
    best: tuple[float, list[Tensor]] = (0.0, [])
    for count in range(2, MOST_PARTS + 1):
        sort, size = _size(tensor)
        if size % count:
            continue
        fitting = [each for each in others if _size(each) == (sort, size // count)]
        for first in range(len(fitting) - count + 1):
            group = fitting[first : first + count]
            if len({each["owner"].rpartition(".")[0] for each in group}) > 1:
                continue
            if len({role(each) for each in group}) > 1:
                continue
            score = sum(alike(tensor, each) for each in group) / count
            if score > best[0]:
                best = score, group
    return best[1]


def _cut(tensor: Tensor, part: Tensor, place: int, count: int, of_torch: bool) -> Link | None:
    """A part's link; None if the axis that is cut is of another length."""
    if of_torch:
        first, *rest = tensor["shape"]
        cut = {**tensor, "shape": [first // count, *rest]}
        found = likely(cut, part["shape"])
        return Link(tensor["name"], part["name"], found[0], place, count) if found else None
    *rest, last = tensor["shape"]
    found = likely(part, [*rest, last // count])
    return Link(part["name"], tensor["name"], found[0], 0, 1, place, count) if found else None


# ---- layers


WHOLE = "the model"  # where it is one layer


class Unit(NamedTuple):
    """A layer on both sides: the smallest modules that hold the same tensors."""

    torch: str  # paths
    jax: str
    tensors: tuple[str, ...]  # torch's

    def local(self, name: str) -> str:
        """A tensor's name in the layer."""
        return name.removeprefix(f"{self.torch}.")


def units(
    matching: Matching,
    torch: Sequence[Tensor],
    jax: Sequence[Tensor],
    called: tuple[Sequence[str], Sequence[str]],
) -> list[Unit]:
    """The layers, in the order in which the original's run.

    Args:
        called: paths of the modules whose calls are seen on either side, in their order.
    """
    owners = [{each["name"]: each["owner"] for each in side} for side in (torch, jax)]
    groups = [
        ({owners[0][link.torch]}, {owners[1][link.jax]}, {link.torch}) for link in matching.links
    ]
    # What holds tensors beside other layers (a class token of the whole model) is no layer itself.
    holders = [set(side.values()) for side in owners]
    groups = [
        group
        for group in groups
        if not any(_holds(path, holders[side]) for side in (0, 1) for path in group[side])
    ]
    while True:
        paths = [_common(group, called) for group in groups]
        merged = _merged(groups, paths)
        if len(merged) == len(groups):
            break
        groups = merged
    order = {path: place for place, path in enumerate(called[0])}
    found = [
        Unit(a, b, tuple(sorted(group[2])))
        for group, (a, b) in zip(groups, paths, strict=True)
        if a in called[0] and b in called[1] and a and b
    ]
    if not found and matching.links:  # no layers within: the model is one
        found = [Unit("", "", tuple(sorted({link.torch for link in matching.links})))]
    return sorted(found, key=lambda unit: order[unit.torch])


def _holds(path: str, holders: set[str]) -> bool:
    return any(other != path and _within(other, path) for other in holders)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _common(group: Any, called: tuple[Sequence[str], Sequence[str]]) -> tuple[str, str]:
    """The innermost modules, of those whose calls are seen, that hold all of a group's owners."""
    found = []
    for side in (0, 1):
        first, *rest = (path.split(".") for path in sorted(group[side]))
        for other in rest:
            same = [a == b for a, b in zip(first, other, strict=False)]
            first = first[: [*same, False].index(False)]
        path = ".".join(first)
        while path and path not in called[side]:
            path = path.rpartition(".")[0]
        found.append(path)
    return found[0], found[1]


def _merged(groups: Any, paths: Sequence[tuple[str, str]]) -> Any:
    """Groups whose layers are one another's parts become one."""
    merged: list[Any] = []
    places: list[tuple[str, str]] = []
    for group, path in zip(groups, paths, strict=True):
        for place, other in enumerate(places):
            if any(_nested(path[side], other[side]) for side in (0, 1)):
                merged[place] = tuple(a | b for a, b in zip(merged[place], group, strict=True))
                break
        else:
            merged.append(group)
            places.append(path)
    return merged


def _nested(a: str, b: str) -> bool:
    return bool(a) and bool(b) and (_within(a, b) or _within(b, a))
