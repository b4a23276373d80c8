"""The two sides share no code: what each loads, in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
JAX_SIDE = (
    "experiment question torch_rng data.dataset record.run_record training.model "
    "training.optimizer training.preprocessing training.step commands.run_job commands.flags"
)


def loaded(imports: str, work: str = "") -> set[str]:
    """Top-level names of the modules that a fresh process holds after these imports and work."""
    code = f"{imports}\n{work}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_reference_loads_nothing_of_jax_or_of_the_system():
    names = loaded(
        "import torchref.model, torchref.data, torchref.train, torchref.run",
        "torchref.data.import_torchvision()\nmodel = torchref.model.MLP((3, 2), bias=True)",
    )
    assert "torch" in names
    assert "torchvision" in names
    assert not names & {"jax", "jaxlib", "flax", "optax", "jaxmlp"}


def test_the_system_loads_no_torch():
    imports = "\n".join(f"import jaxmlp.{name}" for name in JAX_SIDE.split())
    names = loaded(imports)
    assert "jax" in names
    assert not names & {"torch", "torchvision", "torchref"}


def test_a_run_of_the_reference_loads_no_jax():
    names = loaded(
        "from jaxmlp.commands import torch_side",
        "import numpy as np\n"
        "from jaxmlp.data.dataset import Dataset\n"
        "from jaxmlp.experiment import Experiment\n"
        "images, labels = np.zeros((4, 3, 2, 2), np.uint8), np.arange(4, dtype=np.int32)\n"
        "dataset = Dataset('d', 'd', images, labels, images, labels, '', 4)\n"
        "run = torch_side.TorchTrainer(Experiment(batch_size=2, epochs=1, hidden=(3,)), dataset)\n"
        "assert len(list(run.epochs())) == 1",
    )
    assert "torchref" in names
    assert not names & {"jax", "jaxlib", "flax", "optax"}


def test_the_judge_loads_neither_side():
    judge = ["truth", "comparison", "ports.formulas"]
    names = loaded("\n".join(f"import parity_tests.{name}" for name in judge))
    assert not names & {"jax", "torch", "jaxmlp", "torchref"}
