"""The notebooks of docs/notebooks run, and are kept with their outputs."""

import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs_and_without_errors(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert len(cells) >= 5 and "error" not in kinds and all(c["execution_count"] for c in cells)
    text = json.dumps(cells)
    assert "verdict" in text.lower() or "LEAK" in text
    assert str(pathlib.Path.home()) not in text and str(ROOT) not in text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install mia_jax[docs]")
    nbformat = pytest.importorskip("nbformat", reason="pip install mia_jax[docs]")
    pytest.importorskip("ipykernel", reason="pip install mia_jax[docs]")
    if "pytorch" in path.stem:
        pytest.importorskip("torch", reason="pip install torch==2.13.0")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    notebook = nbformat.read(path, as_version=4)
    resources = dict(metadata=dict(path=str(tmp_path)))
    nbclient.NotebookClient(
        notebook, timeout=800, kernel_name="python3", resources=resources
    ).execute()  # raises the first error of a cell
