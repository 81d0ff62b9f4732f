"""`mia-jax render`: the pages of a report.json again, without data, models or jax."""

import json
import pathlib
import shutil
import subprocess
import sys
import webbrowser

import numpy as np
import pytest

import mia_jax
from mia_jax import commands


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of saved Results."""
    rng = np.random.default_rng(0)
    member = np.arange(200) % 2 < 1
    results = mia_jax.audit(loss=rng.normal(size=200) + 3 - member, member=member, draws=40)
    folder = tmp_path_factory.mktemp("render") / "saved"
    results.save(folder)
    return folder


def test_it_makes_the_pages_again_from_report_json_alone(saved, tmp_path, capsys):
    (tmp_path / "report.json").write_bytes((saved / "report.json").read_bytes())
    assert commands.run("render", [str(tmp_path / "report.json")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_it_loads_no_jax(saved, tmp_path):
    code = (
        "import sys; from mia_jax import commands; "
        f"assert commands.run('render', [{str(saved)!r}, '-o', {str(tmp_path / 'o')!r}]) == 0; "
        "assert not {'jax', 'flax', 'optax'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "o" / "report.html").is_file()


def test_it_does_not_replace_the_pages_of_another_report(saved, tmp_path, capsys):
    report = json.loads((saved / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert commands.run("render", [str(saved), "-o", str(tmp_path)]) == commands.MISTAKE
    assert "holds the report of another run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_open_shows_the_page(saved, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert commands.run("render", [str(saved), "-o", str(tmp_path), "--open"]) == 0
    assert opened == [(pathlib.Path(tmp_path) / "report.html").resolve().as_uri()]


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert commands.run("render", [str(tmp_path)]) == commands.MISTAKE
    assert "report.json" in capsys.readouterr().err


def test_a_workdir_stays_finished(tmp_path, capsys):
    """The record of a report's files follows: the same run has nothing to do."""
    member = np.arange(120) % 2 < 1
    loss = np.random.default_rng(0).normal(size=120) + 3 - member
    arrays = dict(loss=loss, member=member)
    common = dict(attacks="threshold_loss", draws=40, folder=tmp_path / "w")
    mia_jax.audit(arrays, **common)
    shutil.rmtree(tmp_path / "w" / "report" / "figures", ignore_errors=True)
    (tmp_path / "w" / "report" / "report.html").write_text("changed")
    assert commands.run("render", [str(tmp_path / "w")]) == 0
    capsys.readouterr()
    mia_jax.audit(arrays, **common)
    assert "nothing changed since it was written" in capsys.readouterr().err
    assert not (tmp_path / "w" / "report.1").exists()
