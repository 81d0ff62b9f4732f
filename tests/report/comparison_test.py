"""Pages of a comparison: the numbers of report.json, safe from what names hold."""

import json
import re
import shutil

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import comparison as measure
from mia_jax.report import comparison, source
from tests.report.html_test import EVIL, LONG, Reader, evil_study

HOSTILE = "<script>alert(1)</script>"


def audit(gain, *, rows=200, folder=None, labels=True):
    """One model whose classifier is surer of members by `gain`."""
    rng = np.random.default_rng(0)
    member, label = np.arange(rows) % 2 < 1, rng.integers(0, 3, rows)
    logit = rng.normal(size=(rows, 3))
    logit[np.arange(rows), label] += 1 + gain * member
    return mia_jax.audit(
        logits=logit,
        labels=label,
        member=member,
        attacks="threshold_loss, attack_model_target",
        draws=40,
        folder=folder,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workdir, saved Results, a report.json alone, and a report of other data."""
    folder = tmp_path_factory.mktemp("audits")
    audit(2.0, folder=folder / "workdir")
    audit(0.5).save(folder / HOSTILE.replace("/", "|"))
    (folder / "alone").mkdir()
    shutil.copy(folder / "workdir" / "report" / "report.json", folder / "alone" / "copy.json")
    audit(1.0, rows=120).save(folder / "fewer")
    return folder


@pytest.fixture(scope="module")
def compared(folder):
    paths = [folder / "workdir", folder / HOSTILE.replace("/", "|"), folder / "alone" / "copy.json"]
    runs, _ = source.runs([*paths, folder / "fewer"])
    return measure.compare(runs), runs


def test_names_are_the_shortest_ends_of_paths(compared):
    names = [run.name for run in compared[1]]
    assert names == ["workdir", HOSTILE.replace("/", "|"), "copy.json", "fewer"]


def test_a_run_without_scores_has_no_paired_difference_and_one_of_other_data_none(compared):
    made, _ = compared
    assert [run.scores for run in made.runs] == [True, True, False, True]
    hostile, alone, fewer = made.pairings
    assert hostile.paired
    assert alone.why == "the scores of one of them are missing" and not alone.none
    assert fewer.none == "the examples differ"
    assert {row.run for row in made.differences} == {hostile.run, alone.run}
    by_run = {row.run: row.paired for row in made.differences if row.metric == "auc"}
    assert by_run == {hostile.run: True, alone.run: False}


def test_the_page_has_the_numbers_of_the_reports(compared):
    """Every number of the headline and of the best attacks is that of the report's rows."""
    made, runs = compared
    page = comparison.page_html(made, runs)
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.S)[1])
    for run, row in zip(runs, data["tables"]["runs"]["rows"], strict=True):
        shown = dict(zip(data["tables"]["runs"]["columns"], row, strict=True))
        report = run.audit.report
        assert (shown["run"], shown["strongest"]) == (run.name, report["verdict"]["strongest"])
        assert shown["validation_accuracy"] == report["models"][0]["validation_accuracy"]
        for metric in ("auc", "tpr@0.01"):
            (row,) = (
                row
                for row in report["results"]
                if (row["attack"], row["metric"], row["target"], row["slice"])
                == (shown["strongest"], metric, None, "all")
            )
            ends = [shown[f"{metric}{end}"] for end in ("", "_low", "_high")]
            assert ends == [row[key] for key in ("value", "low", "high")]
    text = " ".join(Reader(page).texts)
    for run in made.runs:
        auc = run.rows["auc"]
        assert f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in text
    names = {entry.attack for entry in made.best}
    assert names == {"threshold_loss", "attack_model_target"}
    for label, curve in zip(data["attacks"], data["curves"].values(), strict=True):
        run, _, attack = label.rpartition(": ")
        (report,) = (r.audit.report for r in runs if r.name == run)
        assert curve == report["curves"][attack]
    downloads = data["tables"]["differences"]
    assert [dict(zip(downloads["columns"], row, strict=True)) for row in downloads["rows"]] == (
        made.to_json()["differences"]
    )


def test_the_markdown_has_the_same_tables_and_no_markup_of_names(compared):
    text = comparison.markdown(*compared)
    auc = compared[0].runs[0].rows["auc"]
    assert f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in text
    assert text.count("\n## ") == 4
    outside_of_code = re.sub(r"`[^`]*`", "", text)
    assert "<script" not in outside_of_code and "not paired, because the scores" in text


def test_json_is_read_again(compared):
    read = json.loads(comparison.to_json(compared[0]))
    assert [run["run"] for run in read["runs"]] == [run.name for run in compared[1]]


def test_hostile_names_of_runs_attacks_and_data_are_text():
    """Also of 10,000 letters; a comparison with itself has no difference and one place."""
    evil, plain = evil_study(), evil_study()
    evil["about"] |= dict(pool="p")
    plain["about"] |= dict(pool="p")
    runs = [
        measure.Run(name, measure.two_audits.Audit(report, {}, {}), {field: at})
        for at, (name, field, report) in enumerate(((EVIL[0], LONG, evil), (LONG, EVIL[3], plain)))
    ]
    made = measure.compare(runs)
    page = Reader(comparison.page_html(made, runs))
    scripts = [dict(attrs) for tag, attrs in page.elements if tag == "script"]
    assert len(scripts) == 3
    assert not any("onerror" in attrs or attrs.get("src") == "x" for _, attrs in page.elements)
    text = comparison.markdown(made, runs)
    outside_of_code = re.sub(r"`[^`]*`", "", text)
    assert "<script" not in outside_of_code and "<img" not in outside_of_code
    assert max(map(len, comparison.terminal(made, runs).splitlines())) < 2_000


def test_what_is_the_same_in_all_runs_is_no_setting(compared):
    made, runs = compared
    assert not made.configs  # one of them is a report.json alone
    only = measure.compare([run._replace(settings=dict(seed=1)) for run in runs])
    assert only.configs and not only.settings
    assert 'data-testid="no-settings"' in comparison.page_html(only, runs)
