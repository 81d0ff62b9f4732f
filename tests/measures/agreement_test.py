"""The section `agreement` of report.json."""

import json

import numpy as np
import pytest

from mia_jax.measures import agreement
from mia_jax.report.sections import agreement as section

RNG = np.random.default_rng(0)
MEMBER_TN = RNG.random((3, 400)) < 0.5
EVALUATED_TN = RNG.random((3, 400)) < 0.9
STRONG_TN = RNG.normal(size=MEMBER_TN.shape) + 3 * MEMBER_TN
ATTACKS = {
    "strong": dict(score_TN=STRONG_TN),
    "same": dict(score_TN=np.exp(STRONG_TN)),
    "weak": dict(score_TN=RNG.normal(size=MEMBER_TN.shape)),
    "apart": dict(score_TN=STRONG_TN),
}


def measured(order, **more):
    return agreement.measure(ATTACKS, MEMBER_TN, EVALUATED_TN, order=order, **more)


def test_a_monotone_copy_agrees_and_adds_nothing_to_the_union():
    table = measured(["strong", "same"])
    assert table["jaccard"] == [[1, 1], [1, 1]]
    assert table["union"]["identified"] == pytest.approx(
        table["attacks"]["strong"]["identified"], abs=1e-3
    )
    assert table["union"]["fpr"] <= 0.01 and table["attacks"]["same"]["only"] == 0
    assert "gains nothing" in section.text(agreement=table)


def test_the_union_has_a_false_positive_rate_of_its_own():
    union = measured(["strong", "weak"])["union"]
    assert 0.01 < union["fpr"] <= 0.02 and union["first_tpr"] > 0
    text = section.text(agreement=measured(["strong", "weak"]))
    assert f"own FPR of {100 * union['fpr']:.1f}%" in text


def test_only_the_first_attacks_of_the_order_are_compared_and_the_others_counted():
    table = measured(["weak", "strong", "same"], most=2)
    assert list(table["attacks"]) == ["weak", "strong"] and table["left_out"] == 1
    assert "1 weaker is left out" in section.text(agreement=table)
    assert json.loads(json.dumps(table)) == table
    assert measured(["strong"]) is None


def test_too_few_non_members_are_a_reason_and_no_figure():
    table = measured(["strong", "weak"], fpr=1e-4)
    assert table["why"].startswith("FPR 0.0001 is below one false positive of ")
    assert table["why"] in section.text(agreement=table)
    assert section.figure(agreement=table) is None


def test_the_figure_shows_every_pair_and_a_dash_where_no_member_is_identified():
    table = measured(["strong", "weak"])
    table["jaccard"][1][1] = None
    axes = section.figure(agreement=table).axes[0]
    assert [t.get_text() for t in axes.texts] == [
        "1.00",
        *[f"{table['jaccard'][0][1]:.2f}"] * 2,
        "–",
    ]
