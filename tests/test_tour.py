"""docs/tour.ipynb: it runs whole; what is committed holds its outputs, and no machine's names."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parent.parent / "docs" / "tour.ipynb"
SECONDS = 600  # for one cell; the slowest takes 40 on two cores


def tour() -> Any:
    """The notebook as it is committed."""
    nbformat = pytest.importorskip("nbformat", reason="comes with jaxmlp[notebook]")
    return nbformat.read(TOUR, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, but for warnings, which are a machine's own."""
    return [each.output_type for each in cell.outputs if each.get("name") != "stderr"]


def text(notebook: Any) -> str:
    """Everything that the cells printed."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "\n".join(output.get("text", "") for output in outputs)


def check_claims(printed: str) -> None:
    """What the question's answer comes to."""
    assert re.search(r"^Dead: in every batch from step \d+ on all 300 hidden units", printed, re.M)
    assert "effective learning rate 255 times too large" in printed
    assert "Fails: it diverges and does not recover" in printed
    assert "16 times too large, and no allowed knob alters it" in printed
    assert re.search(r"^repaired, inputs × 255: Trained: ", printed, re.M)
    assert len(re.findall(r"^IDENTICAL in every bit: ", printed, re.M)) == 2
    assert re.search(r"^(torch|jax): 5 tensors, sgd, inputs × 255$", printed, re.M)


def test_the_committed_notebook_is_valid_and_shows_what_every_cell_gave():
    notebook = tour()
    import nbformat  # which is there, as that did not skip

    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert shown(cell), cell.source
        assert "error" not in shown(cell)
        assert [each for each in cell.outputs if each.get("name") == "stderr"] == []
        assert cell.metadata.get("execution") is None  # the times of a person's machine
    check_claims(text(notebook))
    assert "CIFAR-10 prepared by TFDS" in text(notebook)  # not the stand-in


def test_the_committed_notebook_names_no_place_on_a_machine():
    assert re.findall(r"(?<![\w:/.])/(?:\w+/)+[\w.]+", text(tour())) == []
    assert set(tour().metadata["language_info"]) == {"name"}


def test_a_sentence_stands_before_every_code_cell():
    kinds = [cell.cell_type for cell in tour().cells]
    assert all(kinds[i - 1] == "markdown" for i, kind in enumerate(kinds) if kind == "code")


def test_the_own_network_is_a_flax_one_where_torch_is_absent(monkeypatch, capsys):
    import numpy as np

    import jaxmlp

    monkeypatch.setitem(sys.modules, "torch", None)
    names = {"jaxmlp": jaxmlp, "np": np, "data": jaxmlp.load_data("synthetic", train_size=1000)}
    for cell in code_cells(tour())[-2:]:
        exec(compile(cell.source, str(TOUR), "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("jax: 5 tensors, sgd, inputs × 255\n\nFree rescalings: 2 ")
    assert "IDENTICAL in every bit: 20 losses" in printed


@pytest.mark.slow
def test_the_notebook_runs_whole_and_comes_to_the_same(monkeypatch, tmp_path):
    notebook, committed = tour(), tour()
    nbclient = pytest.importorskip("nbclient", reason="comes with jaxmlp[notebook]")
    pytest.importorskip("ipykernel", reason="comes with jaxmlp[notebook]")
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parent.parent))
    for cell in code_cells(notebook):
        cell.outputs = []
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", coalesce_streams=True
    )
    client.execute(cwd=str(tmp_path))  # raises what a cell raises
    ran, before = (list(map(shown, code_cells(each))) for each in (notebook, committed))
    # The second loads the data, and says more where they are not at hand.
    assert ran[1].pop() == before[1].pop()
    assert ran[0] + ran[2:] == before[0] + before[2:]
    check_claims(text(notebook))
