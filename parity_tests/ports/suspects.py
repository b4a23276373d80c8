from typing import NamedTuple


class Guilt(NamedTuple):
    place: str
    what: str
    phase: str
    share: float


def first(port, held, points, truth, rec):
    for h in held:
        if not h.passed:
            return Guilt(h.place, h.what, h.phase, h.share)
