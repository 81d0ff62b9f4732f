"""The site of the documentation is built without a warning."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_site_is_built_and_has_the_reference_of_the_functions(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package, reason="pip install mia_jax[docs]")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | dict(NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
    )
    # --quiet would hide the warnings from --strict as well
    assert built.returncode == 0, built.stderr[-3000:]
    assert "WARNING" not in built.stderr
    reference = (tmp_path / "api" / "audit" / "index.html").read_text()
    assert "mia_jax.api.audit" in reference and "Raises" in reference
    assert 'class="gp"' in reference  # the examples of docstrings are shown as code
    results = (tmp_path / "results" / "index.html").read_text()
    assert 'src="../quickstart_roc.png"' in results and (tmp_path / "quickstart_roc.png").exists()
