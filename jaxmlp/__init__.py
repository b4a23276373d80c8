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
    from jaxmlp.law.canonical import canonical
    from jaxmlp.law.difference import difference
    from jaxmlp.networks.adapt import network
    from jaxmlp.networks.optimizer import Optimizer
    from jaxmlp.pages.report import report
    from jaxmlp.record.result import Result
    from jaxmlp.verbs import certify, explain, forecast, repair, transport

__all__ = [
    "Experiment",
    "Optimizer",
    "Result",
    "canonical",
    "certify",
    "difference",
    "explain",
    "forecast",
    "load_data",
    "network",
    "repair",
    "report",
    "sweep",
    "train",
    "transport",
]

_ROOMS = {
    "Experiment": "experiment",
    "Optimizer": "networks.optimizer",
    "Result": "record.result",
    "canonical": "law.canonical",
    "certify": "verbs",
    "difference": "law.difference",
    "explain": "verbs",
    "forecast": "verbs",
    "load_data": "data.loading",
    "network": "networks.adapt",
    "repair": "verbs",
    "report": "pages.report",
    "sweep": "api",
    "train": "api",
    "transport": "verbs",
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
