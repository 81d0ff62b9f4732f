"""A gate in words, JSON and JUnit XML; what it cannot be asked."""

import json
from xml.etree import ElementTree

import pytest

from mia_jax.report import gate
from tests.report.verdict_test import report_of, row, rows_of

LIRA = (0.60, 0.58, 0.62, 0.018, 0.006, 0.031)
LOSS = (0.573, 0.560, 0.585, 0.009, 0.004, 0.014, "nothing")
CHEAT = (0.9, 0.88, 0.92, 0.5, 0.4, 0.6, "half_of_target_members")


def report(**more):
    return report_of(rows_of(lira=LIRA, threshold_loss=LOSS, cheat=CHEAT), **more)


@pytest.mark.parametrize(
    "limits, decision, code",
    [
        ("auc <= 0.65", "within", 0),
        ("auc <= 0.57", "above", 1),
        ("auc <= 0.61", "undecided", 2),
        (["auc <= 0.65", "tpr@0.01 <= 0.04"], "within", 0),
        (["auc <= 0.65", "tpr@0.01 <= 0.02"], "undecided", 2),
        (["auc <= 0.57", "tpr@0.01 <= 0.02"], "above", 1),
    ],
)
def test_the_worst_limit_decides(limits, decision, code):
    outcome = gate.of(report(), limits)
    assert (outcome.decision, outcome.exit_code) == (decision, code)


def test_all_attacks_of_a_real_attacker_are_gated_and_others_only_by_name():
    outcome = gate.of(report(), "auc <= 0.65")
    assert {d.attack for d in outcome.decisions} == {"lira", "threshold_loss"}
    assert "knows more than a real attacker could: cheat" in outcome.notes[0]
    assert gate.of(report(), "auc <= 0.65", attack="cheat").exit_code == 1
    assert gate.of(report(), "auc <= 0.59", attack="threshold_loss").exit_code == 0
    assert gate.of(report(), "auc <= 0.59", attack=["threshold_loss", "lira"]).exit_code == 2


def test_the_text_names_the_worst_attack_its_interval_and_what_would_decide():
    passed = gate.of(report(), "tpr@0.01 <= 0.05").text().splitlines()
    assert passed[0] == "GATE PASSED: every interval is within its limit."
    assert passed[1] == "passed: tpr@0.01 <= 0.05, 2 of 2 attacks within it"
    assert passed[2] == "  lira: 1.8% [0.60, 3.1] (95% interval)"
    failed = gate.of(report(), "auc <= 0.56").text().splitlines()
    assert failed[0] == "GATE FAILED: a limit is exceeded."
    assert failed[2].startswith("  lira: 0.6 [0.58, 0.62] (95% interval), p < 0.001 after Holm's")
    undecided = repr(gate.of(report(), "auc <= 0.61")).splitlines()
    assert undecided[0].startswith("GATE UNDECIDED")
    assert "audited models or" in undecided[2] and "would decide" in undecided[2]


def test_a_slice_is_gated_by_its_rows():
    rows = [
        *rows_of(lira=LIRA),
        row("lira", "auc", 0.7, 0.66, 0.74) | dict(slice="class=3"),
    ]
    outcome = gate.of(report_of(rows), "auc <= 0.65", slice=["all", "class=3"])
    assert [d.decision for d in outcome.decisions] == ["within", "above"]
    assert "FAILED: auc <= 0.65 [class=3]" in outcome.text()


def test_json_and_junit_say_the_same():
    outcome = gate.of(report(), ["auc <= 0.65", "auc <= 0.57", "auc <= 0.61"])
    value = json.loads(outcome.to_json())
    assert value["exit_code"] == 1 and len(value["decisions"]) == 6
    assert {d["decision"] for d in value["decisions"]} == {"within", "above", "undecided"}
    root = ElementTree.fromstring(outcome.junit())
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    cases = root.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == ["auc <= 0.65", "auc <= 0.57", "auc <= 0.61"]
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"],
        ["failure"],
        ["error"],
    ]


def test_names_from_data_break_neither_xml_nor_a_terminal():
    evil = "x\x1b[31m<b>&\x00"
    outcome = gate.of(report_of(rows_of(**{evil: LIRA})), "auc <= 0.57")
    assert "\x1b" not in outcome.text() and "\x00" not in outcome.junit()
    assert "<b>&" in ElementTree.fromstring(outcome.junit())[0][0][0].text


def test_a_failed_check_is_undecided_whatever_the_numbers_say():
    bad = dict(auc=0.9, p_value=1e-9, method="forest", rows=300, features=2)
    for limit in ("auc <= 0.99", "auc <= 0.51"):
        outcome = gate.of(report(validity=dict(blind=bad)), limit)
        assert outcome.exit_code == 2
        assert "verdict is withheld, check failed: blind baseline" in outcome.text()
        assert "What to do: " in outcome.text()


@pytest.mark.parametrize(
    "asked, message",
    [
        (dict(limits=[]), "limit is empty"),
        (dict(limits="auc < 1"), "must be a metric, <= and a number"),
        (dict(limits="auc <= 0.6", attack="lyra"), r"attack='lyra' is not one of \['lira'"),
        (dict(limits="auc <= 0.6", slice="class=4"), r"slice='class=4' is not one of \['all'\]"),
        (dict(limits="epsilon <= 3"), "no metric 'epsilon'"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        gate.of(report(), asked.pop("limits"), **asked)


def test_reports_without_an_interval_of_their_own_or_a_real_attack_are_refused():
    with pytest.raises(ValueError, match="over several seeds"):
        gate.of(report(seeds=[0, 1]), "auc <= 0.6")
    only = report_of(rows_of(cheat=CHEAT))
    with pytest.raises(ValueError, match="name one with attack: cheat"):
        gate.of(only, "auc <= 0.6")
