"""The section `agreement` of report.json."""

import json

import numpy as np

from mia_jax.measures import agreement
from mia_jax.report.sections import agreement as section

RNG = np.random.default_rng(0)
MEMBER_TN = RNG.random((3, 400)) < 0.5
EVALUATED_TN = RNG.random((3, 400)) < 0.9
STRONG_TN = RNG.normal(size=MEMBER_TN.shape) + 3 * MEMBER_TN
ATTACKS = {
    "strong": dict(score_TN=STRONG_TN),
    "same": dict(score_TN=np.exp(STRONG_TN)),
    "near": dict(score_TN=STRONG_TN + 0.5 * RNG.normal(size=MEMBER_TN.shape)),
    "weak": dict(score_TN=RNG.normal(size=MEMBER_TN.shape)),
    "apart": dict(score_TN=STRONG_TN),
}


def measured(order, **more):
    return agreement.measure(ATTACKS, MEMBER_TN, EVALUATED_TN, order=order, **more)


def test_attacks_alike_share_a_place_so_that_other_attacks_are_compared():
    """A monotone copy is named by the attack that it copies, and takes no place of its own."""
    table = measured(["strong", "same", "weak", "near"], most=3)
    assert list(table["attacks"]) == ["strong", "weak", "near"] and table["left_out"] == 0
    assert table["alike"] == {"strong": ["same"]}
    assert np.array(table["jaccard"])[np.triu_indices(3, 1)].max() < table["same"] == 0.95
    text = section.text(agreement=table)
    assert "`strong`" in text and "`same`" in text and "almost the same members" in text
    alone = measured(["strong", "same"])
    assert list(alone["attacks"]) == ["strong"] and alone["jaccard"] == [[1]]
    assert alone["union"]["fpr"] <= 0.01 and "alone has" not in section.text(agreement=alone)


def test_attacks_that_identify_nobody_are_alike():
    """Two constants flag no record; their Jaccard index is not defined."""
    score_TN = np.zeros(MEMBER_TN.shape)
    table = agreement.measure(
        dict(a=dict(score_TN=score_TN), b=dict(score_TN=score_TN + 1), strong=ATTACKS["strong"]),
        MEMBER_TN,
        EVALUATED_TN,
        order=["a", "strong", "b"],
    )
    assert table["alike"] == {"a": ["b"]} and list(table["attacks"]) == ["a", "strong"]


def test_a_report_of_an_older_version_has_no_groups():
    table = {k: v for k, v in measured(["strong", "weak"]).items() if k not in ("same", "alike")}
    assert "stands for" not in section.text(agreement=table)


def test_the_union_has_a_false_positive_rate_of_its_own():
    union = measured(["strong", "weak"])["union"]
    assert 0.01 < union["fpr"] <= 0.02 and union["first_tpr"] > 0
    text = section.text(agreement=measured(["strong", "weak"]))
    assert f"own FPR of {100 * union['fpr']:.1f}%" in text


def test_only_the_first_attacks_of_the_order_are_compared_and_the_others_counted():
    table = measured(["weak", "strong", "near"], most=2)
    assert list(table["attacks"]) == ["weak", "strong"] and table["left_out"] == 1
    assert "1 ranked lower is left out" in section.text(agreement=table)
    assert json.loads(json.dumps(table)) == table
    assert measured(["strong"]) is None


def test_too_few_non_members_are_a_reason_and_no_figure():
    table = measured(["strong", "weak"], fpr=1e-4)
    assert table["why"].startswith("a false-positive rate of 0.01% is below one false ")
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
