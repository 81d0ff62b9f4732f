"""What an audit returns: short and long text, tables for other programs, records, comparisons."""

import csv
import io
import re
import sys

import numpy as np
import pytest

import mia_jax
from mia_jax.metrics import rows as result_rows
from tests.answered import QUICK, arrays

EVIL = "=cmd|'/c calc'!A1<img src=x onerror=\"alert(1)\">"


def single(gain=2.0, rows=200, seed=0, **more):
    """One model whose loss is lower on its members by `gain` standard deviations."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(rows) < rows // 2
    return mia_jax.audit(
        loss=rng.normal(size=rows) - gain * member, member=member, draws=40, **more
    )


def fleet(gain=1.0, models=8, rows=200, seed=0, noise=0, **more):
    """Complementary models; `noise` seeds the losses, `seed` the membership."""
    rng, member = np.random.default_rng(seed), np.zeros((models, rows), bool)
    for m in range(0, models, 2):
        member[m, rng.permutation(rows)[: rows // 2]] = True
        member[m + 1] = ~member[m]
    noises = np.random.default_rng([noise, 1])
    hard = np.random.default_rng(99).normal(size=rows)
    loss = hard + 0.3 * noises.normal(size=member.shape) - gain * member
    return mia_jax.audit(
        shadow_loss=loss, shadow_member=member, attacks="threshold_loss", draws=40, **more
    )


def test_the_name_is_found_where_it_was_and_where_it_is():
    from mia_jax import api, results

    assert mia_jax.Results is api.Results is results.Results


def test_repr_is_short_and_the_verdict_comes_first():
    results = mia_jax.audit(
        arrays(), attacks="lira, threshold_loss, gap, reference, threshold_entropy", **QUICK
    )
    lines = repr(results).splitlines()
    assert lines[0] == results.summary().splitlines()[0] and lines[0].startswith("LEAK SHOWN")
    assert lines[1].startswith("checks: ")
    ranked = results.report["verdict"]["ranked"]
    assert [line.split()[0] for line in lines[3:6]] == ranked[:3]
    row = results.row(ranked[0], "auc")
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in lines[3]
    assert lines[-1] == f"{len(results.scores) - 3} more attacks: summary()" and len(lines) == 7


def test_a_withheld_verdict_is_the_first_line_of_repr():
    rng = np.random.default_rng(0)
    member = rng.permutation(300) < 150
    results = mia_jax.audit(
        loss=rng.normal(size=300),
        member=member,
        x=rng.normal(size=(300, 2)) + 3 * member[:, None],
        labels=np.zeros(300, int),
        attacks="threshold_loss",
        draws=40,
    )
    assert repr(results).startswith("VERDICT WITHHELD, check failed: blind baseline")
    assert "VERDICT WITHHELD" in results._repr_html_()


def test_html_holds_no_tag_that_comes_from_a_name():
    """The names of attacks and groups come from users; a notebook shows them and runs nothing."""
    results = single(attacks="threshold_loss")
    for row in results.table:
        row["attack"] = EVIL
    results.report["verdict"] = None
    text = results._repr_html_()
    assert "<img" not in text and "&lt;img src=x onerror=&quot;" in text
    assert not re.search(r"<script|\son\w+=\"|https?://", text)
    assert set(re.findall(r"<(\w+)", text)) <= {
        "div", "p", "b", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    table = mia_jax.results.Table([{EVIL: EVIL}], note=EVIL)
    assert "<img" not in table._repr_html_()
    assert "\x1b" not in repr(mia_jax.results.Table([dict(a="\x1b[31m")], note="\x1b[31m"))


def test_csv_is_the_table_and_runs_no_formula(tmp_path):
    results = single()
    path = tmp_path / "results.csv"
    text = results.to_csv(path)
    assert path.read_text() == text == results.to_csv()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == len(results.table) and list(lines[0])[: len(result_rows.COLUMNS)] == list(
        result_rows.COLUMNS
    )
    assert float(lines[0]["value"]) == results.table[0]["value"]
    results.table[0]["attack"] = EVIL
    first = next(csv.DictReader(io.StringIO(results.to_csv())))
    assert first["attack"] == "'" + EVIL
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        results.to_csv(path)
    results.to_csv(path, overwrite=True)
    assert EVIL[:6] in path.read_text()


def test_latex_is_the_report_s_table(tmp_path):
    results = single(folder=tmp_path / "w")
    path = tmp_path / "mine.tex"
    assert results.to_latex(path) == path.read_text()
    assert path.read_text() == (tmp_path / "w" / "report" / "table.tex").read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        results.to_latex(path)


def test_a_frame_has_every_row():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    results = single()
    frame = results.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(results.table)
    assert list(frame.columns[: len(result_rows.COLUMNS)]) == list(result_rows.COLUMNS)
    at = frame[(frame.attack == "threshold_loss") & (frame.metric == "auc") & frame.target.isna()]
    assert at.value.item() == results.value("threshold_loss", "auc")


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install pandas.*to_csv\(path\)"):
        single().to_frame()


def test_the_most_exposed_records_are_those_that_leak():
    """Rows 0..9 lose 9 standard deviations where they are members; no other row loses any."""
    rng, models, rows = np.random.default_rng(0), 64, 60
    member = np.zeros((models, rows), bool)
    for m in range(0, models, 2):
        member[m, rng.permutation(rows)[: rows // 2]] = True
        member[m + 1] = ~member[m]
    loss = rng.normal(size=member.shape) - 9 * member * (np.arange(rows) < 10)
    results = mia_jax.audit(
        shadow_loss=loss, shadow_member=member, attacks="threshold_loss", draws=40
    )
    table = results.records(10)
    assert sorted(row["record"] for row in table) == list(range(10))
    assert all(row["flag"] == "exposed" and row["low"] > 0.5 for row in table)
    assert re.match(r"\d+ of 60 records are significantly exposed under threshold_loss", table.note)
    assert len(results.records(3)) == 3 and results.records(3)[0] == table[0]
    order = [(row["p"], -row["exposure"], row["record"]) for row in results.records(60)]
    assert order == sorted(order)
    assert len(results.records(1000)) == rows
    lines = repr(table).splitlines()
    assert lines[0] == table.note and lines[1].split()[0] == "record"


def test_records_of_which_none_is_significant_are_returned_and_that_is_said():
    results = fleet(gain=0.0, models=16)
    table = results.records(5)
    assert len(table) == 5 and table.note.startswith("None of the records is significantly exposed")
    assert [row["p"] for row in table] == sorted(row["p"] for row in table)


def test_records_of_one_target_are_its_highest_members_and_no_proof():
    results = single()
    table = results.records(4)
    score, member = results.target_scores("threshold_loss")[0], results.evidence["member_TN"][0]
    want = np.flatnonzero(member)[np.argsort(-score[member])][:4]
    assert [row["record"] for row in table] == want.tolist()
    assert "No single record was tested" in table.note and "no proof of exposure" in table.note
    for wrong, message in ((dict(k=0), "k=0 must be at least 1"), (dict(attack="x"), "attack='x'")):
        with pytest.raises(ValueError, match=message):
            results.records(**wrong)


def test_audits_of_the_same_rows_and_training_sets_are_compared_in_pairs():
    """The hardness of the records is the same in both; what differs is the gain and fresh noise.
    The paired interval holds the difference and is narrower than that of independent studies.
    """
    strong, weak = fleet(gain=1.0), fleet(gain=0.8, noise=1)
    paired = strong.compare(weak)[0]
    other = strong.compare(fleet(gain=0.8, noise=1, seed=5))
    assert paired["paired"] and not other[0]["paired"]
    assert paired["difference"] == pytest.approx(
        strong.value("threshold_loss", "auc") - weak.value("threshold_loss", "auc")
    )
    assert paired["low"] > 0
    assert paired["high"] - paired["low"] < 0.7 * (other[0]["high"] - other[0]["low"])
    assert "Not paired, because the models have other training sets" in other.note
    assert "method" not in repr(other) and "square and add" in other[0]["method"]
    same = strong.compare(strong)
    assert all(row["difference"] == 0 and row["low"] <= 0 <= row["high"] for row in same)
    assert {row["metric"] for row in same} >= {"auc", "tpr@0.1"}


def test_what_cannot_be_compared_is_refused_or_said(tmp_path):
    results = single()
    results.save(tmp_path / "saved")
    again = mia_jax.Results.load(tmp_path / "saved")
    assert results.compare(again)[0]["paired"]
    assert (
        "Only in one of them: attack_model_target"
        in single(attacks="threshold_loss").compare(results).note
    )
    assert "Not paired, because other rows" in results.compare(single(rows=100)).note or (
        "Not paired, because the models have other training sets"
        in results.compare(single(rows=100)).note
    )
    with pytest.raises(ValueError, match="other is a dict and must be the Results"):
        results.compare(results.report)
    with pytest.raises(ValueError, match=r"levels 0\.95 and 0\.9"):
        results.compare(single(report=dict(level=0.9)))
    with pytest.raises(ValueError, match="no attack in common"):
        single(attacks="threshold_loss").compare(single(attacks="attack_model_target"))


def test_a_gate_of_results_is_that_of_their_report(tmp_path):
    """Also after they were saved and loaded: the answer is a function of report.json."""
    audited = single()
    audited.save(tmp_path / "saved")
    for results in (audited, mia_jax.Results.load(tmp_path / "saved")):
        codes = [results.gate(f"auc <= {most}").exit_code for most in (0.999, 0.6)]
        assert codes == [0, 1]
    row = audited.row("threshold_loss", "auc")
    (decision,) = audited.gate(f"auc <= {row['value']}", attack="threshold_loss").decisions
    assert (decision.decision, decision.low, decision.high) == (
        "undecided",
        row["low"],
        row["high"],
    )
    with pytest.raises(ValueError, match="Metrics of this report: auc"):
        audited.gate("auc")
