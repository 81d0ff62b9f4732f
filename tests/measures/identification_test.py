"""The section `identification` of report.json."""

import json

import numpy as np
import pytest

from mia_jax.measures import identification
from mia_jax.metrics import conformal
from mia_jax.report import tables
from mia_jax.report.sections import identification as section

RNG = np.random.default_rng(0)
MEMBER_TN = RNG.random((6, 900)) < 0.5
EVALUATED_TN = RNG.random((6, 900)) < 0.9
ATTACKS = {
    "nothing": dict(score_TN=RNG.normal(size=MEMBER_TN.shape)),
    "leak": dict(score_TN=RNG.normal(size=MEMBER_TN.shape) + 4 * MEMBER_TN),
}
SHARED = dict(targets=[0, 1, 2, 3, 4, 7], seed=5)


def measured(order=("leak", "nothing"), **more):
    return identification.measure(ATTACKS, MEMBER_TN, EVALUATED_TN, order=order, **(SHARED | more))


def test_a_leak_is_named_with_few_false_ones_and_nothing_is_not():
    table = measured()
    leak, nothing = table["attacks"]["leak"], table["attacks"]["nothing"]
    assert leak["identified"] > 300 and leak["targets_with_any"] == 6
    assert leak["realized_share"] < 2 * table["expected_share"] < 0.1
    assert nothing["identified"] < 10
    text = section.text(identification=table)
    amount = tables.amount(leak["identified"])
    assert f"`leak`, the attack ranked first, identifies {amount} records" in text
    assert "identifies most" not in text
    turned = dict(table, attacks=dict(nothing=nothing, leak=leak))
    assert (
        f"`leak` identifies most, {amount}, but was selected for this afterwards."
        in section.text(identification=turned)
    )
    assert "No attack identifies" in section.text(identification=measured(["nothing"]))


def test_the_numbers_of_a_target_are_those_of_its_split():
    table = measured(["leak"])
    nonmember_TN = EVALUATED_TN & ~MEMBER_TN
    named = []
    for t, target in enumerate(SHARED["targets"]):
        known, other = conformal.split(nonmember_TN[t], (SHARED["seed"], target))
        score, rows = ATTACKS["leak"]["score_TN"][t], other | (EVALUATED_TN & MEMBER_TN)[t]
        named.append(conformal.identify(score[rows], score[known], share=0.1).named_K.sum())
    assert table["attacks"]["leak"]["identified"] == np.mean(named)
    half = nonmember_TN.sum(1) / 2
    assert table["calibration"] == pytest.approx(half.mean(), abs=0.5)
    assert table["candidates"] + table["calibration"] == EVALUATED_TN.sum(1).mean()


def test_the_split_has_a_key_and_is_the_same_for_all_attacks():
    assert measured() == measured() != measured(seed=6)
    assert measured()["attacks"]["leak"] == measured(["leak"])["attacks"]["leak"]


def test_attacks_that_are_left_out_are_counted():
    table = measured(most=1)
    assert list(table["attacks"]) == ["leak"] and table["left_out"] == 1
    assert "1 ranked lower is left out" in section.text(identification=table)
    assert json.loads(json.dumps(table)) == table


def test_without_attacks_or_non_members_there_is_nothing():
    assert measured([]) is None
    none = np.ones_like(MEMBER_TN)
    assert identification.measure(ATTACKS, none, EVALUATED_TN, order=["leak"], **SHARED) is None
