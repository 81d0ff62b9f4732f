"""`mia-jax gate`: exit codes, places of a report, formats; it never waits for jax."""

import json
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import mia_jax
from mia_jax import commands
from mia_jax.commands import gate

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The workdir of an audit of one attack: AUC about 0.76, in 400 rows."""
    folder = tmp_path_factory.mktemp("audit")
    member = np.arange(400) < 200
    loss = np.random.default_rng(0).normal(size=400) - member
    results = mia_jax.audit(
        loss=loss,
        member=member,
        labels=np.arange(400) % 2,
        attacks="threshold_loss",
        slices="class",
        draws=40,
        folder=folder / "workdir",
    )
    results.save(folder / "saved")
    return folder, results


@pytest.mark.parametrize("limit, code", [("auc <= 0.9", 0), ("auc <= 0.6", 1), ("auc <= 0.75", 2)])
def test_the_exit_code_is_the_decision(place, capsys, limit, code):
    folder, results = place
    assert gate.main([str(folder / "workdir"), "--limit", limit]) == code
    text = capsys.readouterr().out
    assert text.startswith(("GATE PASSED", "GATE FAILED", "GATE UNDECIDED")[code])
    assert results.gate(limit).exit_code == code and results.gate(limit).text() == text.strip()


@pytest.mark.parametrize(
    "name", ["workdir", "workdir/report", "workdir/report/report.json", "saved"]
)
def test_a_report_is_a_file_a_workdir_or_saved_results(place, name):
    assert gate.main([str(place[0] / name), "--limit", "auc <= 0.9"]) == 0


def test_attacks_and_slices_are_chosen_and_several_limits_are_one_answer(place, capsys):
    report = str(place[0] / "workdir")
    both = ["--limit", "auc <= 0.9", "--limit", "auc <= 0.6"]
    assert gate.main([report, *both]) == 1
    asked = ["--limit", "auc <= 0.99", "--slice", "class=0", "--slice", "class=1"]
    assert gate.main([report, *asked, "--attack", "threshold_loss"]) == 0
    assert "[class=1]" in capsys.readouterr().out


def test_formats_go_to_a_file_and_the_text_to_the_terminal(place, tmp_path, capsys):
    report, limit = str(place[0] / "workdir"), ["--limit", "auc <= 0.6"]
    path = tmp_path / "gate.xml"
    for _ in range(2):  # a build that runs again replaces its file
        assert gate.main([report, *limit, "--format", "junit", "-o", str(path)]) == 1
    assert ElementTree.parse(path).getroot().get("failures") == "1"
    assert capsys.readouterr().out.startswith("GATE FAILED")
    assert gate.main([report, *limit, "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["decision"] == "above"


def test_what_is_no_report_or_no_limit_is_a_sentence(place, tmp_path):
    limit = ["--limit", "auc <= 0.6"]
    with pytest.raises(FileNotFoundError, match=r"no report: there is no .*absent\. Name"):
        gate.main([str(tmp_path / "absent"), *limit])
    with pytest.raises(FileNotFoundError, match=r"report\.json or .*report\.json"):
        gate.main([str(tmp_path), *limit])
    (tmp_path / "report.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds a list, expected an object"):
        gate.main([str(tmp_path), *limit])
    with pytest.raises(ValueError, match="this report has no metric 'auk'"):
        gate.main([str(place[0] / "saved"), "--limit", "auk <= 1"])


def test_a_mistake_has_a_code_of_its_own(place, capsys):
    """A build must tell what was typed wrongly from an undecided study."""
    report = str(place[0] / "saved")
    wrong = ([report], [report, "--limit", "auc < 1"], ["absent", "--limit", "auc <= 1"])
    for arguments in wrong:
        assert commands.run("gate", arguments) == commands.MISTAKE == 64
        assert "error: " in capsys.readouterr().err
    assert commands.run("gate", [report, "--limit", "auc <= 0.75"]) == 2


@pytest.mark.parametrize(
    "typed, message",
    [
        (["--limit", "auc < 1"], "error: --limit='auc < 1' must be a metric"),
        (["--limit", "auc <= 1", "--attack", "los"], "error: --attack='los' is not one of"),
        (["--limit", "auc <= 1", "--slice", "old"], "error: --slice='old' is not one of"),
    ],
    ids=["limit", "attack", "slice"],
)
def test_a_refusal_names_the_option_that_was_typed(typed, message, place, capsys):
    assert commands.run("gate", [str(place[0] / "saved"), *typed]) == commands.MISTAKE
    assert message in capsys.readouterr().err


def test_a_gate_of_its_own_process_exits_with_its_code_and_without_jax(place):
    """The code reaches the shell, and neither jax nor matplotlib is loaded on the way."""
    program = (
        "import atexit, runpy, sys\n"
        "heavy = lambda: print({'jax', 'matplotlib', 'ml_collections'} & set(sys.modules))\n"
        "atexit.register(heavy)\nsys.argv[0] = 'mia-jax'\n"
        "runpy.run_module('mia_jax', run_name='__main__')"
    )
    arguments = ["gate", str(place[0] / "workdir"), "--limit", "auc <= 0.6"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1, run.stderr
    assert run.stdout.startswith("GATE FAILED") and run.stdout.endswith("set()\n")
    assert not run.stderr
