"""`mia-jax compare`: what it reads, what it writes and what it refuses."""

import json
import shutil

import numpy as np
import pytest

import mia_jax
from mia_jax import commands
from mia_jax.commands import compare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two workdirs in a folder as a grid has them, a third run of it that has no report, and saved
    Results of the first one.
    """
    folder = tmp_path_factory.mktemp("audits")
    member = np.arange(200) < 100
    for name, gain in (("leaky", 1.0), ("tight", 0.3)):
        loss = np.random.default_rng(0).normal(size=200) - gain * member
        results = mia_jax.audit(
            loss=loss,
            member=member,
            attacks="threshold_loss",
            draws=40,
            folder=folder / "grid" / name,
        )
        results.save(folder / f"saved-{name}")
    (folder / "grid" / "broken").mkdir()
    shutil.copy(folder / "grid" / "leaky" / "config.json", folder / "grid" / "broken")
    return folder


def test_a_grid_stands_for_its_runs_and_what_has_no_report_is_named(folder, capsys):
    assert compare.main([str(folder / "grid")]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].split()[0] == "run"
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["leaky", "tight"]
    assert "broken has no report and is left out" in text
    assert "tight and leaky: paired" in text


def test_workdirs_and_saved_results_have_the_same_differences(folder, tmp_path, capsys):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    workdirs = [str(folder / "grid" / name) for name in ("leaky", "tight")]
    saved = [str(folder / f"saved-{name}") for name in ("leaky", "tight")]
    assert compare.main([*workdirs, "-o", str(first)]) == 0
    assert compare.main([*saved, "-o", str(second)]) == 0
    rows = []
    for path in (first, second):
        rows.append(json.loads(path.read_text())["differences"])
        assert all(row.pop("run").endswith("tight") for row in rows[-1])
    assert rows[0] == rows[1] and any(row["paired"] for row in rows[0])
    assert capsys.readouterr().out.count("comparison: ") == 2


@pytest.mark.parametrize(
    "ending, first",
    [("html", "<!DOCTYPE html>"), ("md", "# Comparison of 2 audits"), ("json", "{")],
)
def test_the_ending_chooses_the_form(folder, tmp_path, ending, first):
    path = tmp_path / f"compare.{ending}"
    for _ in range(2):  # an older file is replaced
        assert compare.main([str(folder / "grid"), "-o", str(path)]) == 0
    assert path.read_text(encoding="utf-8").startswith(first)


def test_what_cannot_be_compared_is_refused_in_a_sentence(folder, tmp_path, capsys):
    leaky, tight = (str(folder / "grid" / name) for name in ("leaky", "tight"))
    seeds = tmp_path / "seeds.json"
    report = json.loads((folder / "saved-leaky" / "report.json").read_text())
    seeds.write_text(json.dumps(report | dict(seeds=[3, 4])))
    refused = {
        (leaky, str(folder / "absent")): "no report: there is no",
        (leaky, str(folder / "grid" / "leaky" / "report")): "are the same report",
        (str(folder / "grid"), tight): "are the same report",
        (leaky,): "stands for 1 report; a comparison needs two or more",
        (leaky, str(seeds)): "over several seeds and has no intervals of its own; name the folders "
        "of single seeds, such as seed-3",
        (leaky, tight, "-o", "x.pdf"): "--output='x.pdf' must end in .html, .md or .json",
    }
    for arguments, message in refused.items():
        assert commands.run("compare", arguments) == commands.MISTAKE
        captured = capsys.readouterr()
        assert message in captured.err and not captured.out, (arguments, captured.err)
    assert commands.run("compare", []) == commands.MISTAKE


def test_results_of_a_workdir_are_those_that_were_saved(folder):
    """`Results.load` reads both, with every score and table."""
    there, saved = (mia_jax.Results.load(folder / place) for place in ("grid/leaky", "saved-leaky"))
    assert there.report == saved.report and there.records_csv == saved.records_csv
    assert there.markdown == saved.markdown and set(there.scores) == set(saved.scores)
    assert np.array_equal(
        there.target_scores("threshold_loss"), saved.target_scores("threshold_loss")
    )
    assert {k: v.tolist() for k, v in there.evidence.items()} == {
        k: v.tolist() for k, v in saved.evidence.items()
    }
    with pytest.raises(FileNotFoundError, match="holds no audit"):
        mia_jax.Results.load(folder)


def test_scores_of_a_fleet_that_has_grown_are_not_those_of_the_report(folder, tmp_path):
    from mia_jax.report import source

    shutil.copytree(folder / "grid" / "leaky", tmp_path / "grown")
    path = tmp_path / "grown" / "report" / "report.json"
    report = json.loads(path.read_text())
    report["design"]["models"] += 2
    path.write_text(json.dumps(report))
    runs, _ = source.runs([tmp_path / "grown", folder / "grid" / "tight"])
    assert not runs[0].audit.evidence and runs[1].audit.evidence
