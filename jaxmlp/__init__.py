"""Input-scaling experiments with a small MLP: run one, ask which run it really is, repair it.

The API: a handful of verbs, each imported from its room when it is first used. docs/api.md shows
them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmlp.api import sweep, train
    from jaxmlp.data.loading import load_data
    from jaxmlp.experiment import Experiment
    from jaxmlp.forecasting.rehearsal import forecast
    from jaxmlp.law.canonical import canonical
    from jaxmlp.law.difference import difference
    from jaxmlp.law.explanation import explain
    from jaxmlp.law.repair import repair
    from jaxmlp.law.transport import transport
    from jaxmlp.record.result import Result
    from jaxmlp.training.certificate import certify

__all__ = [
    "Experiment",
    "Result",
    "canonical",
    "certify",
    "difference",
    "explain",
    "forecast",
    "load_data",
    "repair",
    "sweep",
    "train",
    "transport",
]

_ROOMS = {
    "Experiment": "experiment",
    "Result": "record.result",
    "canonical": "law.canonical",
    "certify": "training.certificate",
    "difference": "law.difference",
    "explain": "law.explanation",
    "forecast": "forecasting.rehearsal",
    "load_data": "data.loading",
    "repair": "law.repair",
    "sweep": "api",
    "train": "api",
    "transport": "law.transport",
}


def __getattr__(name: str) -> Any:
    """A verb of the API, from its room."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'jaxmlp' has no attribute {name!r}")
    verb = getattr(import_module(f"jaxmlp.{_ROOMS[name]}"), name)
    globals()[name] = verb  # so that it is asked for once
    return verb


def __dir__() -> list[str]:
    return __all__
