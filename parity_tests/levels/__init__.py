"""The levels, from the ground up: each a function that yields the comparisons of its checks.

`quick` takes a few small problems of each kind: enough to notice a planted fault.
"""

from collections.abc import Callable, Iterator

from parity_tests.comparison import Comparison
from parity_tests.levels.exact import exact
from parity_tests.levels.network import forward, gradients
from parity_tests.levels.optimizers import optimizers, schedules
from parity_tests.levels.preprocessing import preprocessing
from parity_tests.levels.seeds import seeds
from parity_tests.levels.trajectories import runs, trajectories

LEVELS: dict[str, Callable[[bool], Iterator[Comparison]]] = {
    "seeds": seeds,
    "preprocessing": preprocessing,
    "exact": exact,
    "forward": forward,
    "gradients": gradients,
    "schedules": schedules,
    "optimizers": optimizers,
    "trajectories": trajectories,
    "runs": runs,
}
