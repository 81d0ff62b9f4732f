"""Agreement of attacks: hand-computed sets, and the limits of the Jaccard index."""

import numpy as np
import pytest

from mia_jax.metrics import agreement, roc

MEMBER = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)


def two(first, second, fpr=0.25):
    scores = [np.array([first], float), np.array([second], float)]
    return agreement.measure(scores, MEMBER[None], np.ones((1, 8), bool), fpr=fpr)


def test_the_counts_of_a_case_by_hand():
    # one false positive allowed: the first flags members 0 1 2 and row 4, the second 1 3 and row 5
    measured = two([9, 8, 7, 1, 6, 2, 1, 1], [1, 9, 1, 8, 2, 7, 1, 3])
    assert measured.identified_A.tolist() == [3, 2] and measured.false_A.tolist() == [1, 1]
    assert measured.only_A.tolist() == [2, 1] and measured.only_false_A.tolist() == [1, 1]
    assert measured.jaccard_AA.tolist() == [[1, 0.25], [0.25, 1]]
    # rates 3/4 and 1/2: 3/8 in both, 7/8 in either
    assert measured.chance_AA[0, 1] == pytest.approx(3 / 7)
    assert (measured.union, measured.union_false) == (4, 2)
    assert (measured.union_tpr, measured.union_fpr) == (1, 0.5)
    assert measured.first_tpr == 0.75  # with 2 false positives it still misses member 3


def test_equal_attacks_agree_and_disjoint_ones_do_not():
    score = [9, 8, 1, 1, 7, 2, 2, 2]
    same = two(score, np.array(score) ** 3.0)
    assert (same.jaccard_AA == 1).all() and same.union == 2 and same.union_fpr == 0.25
    assert same.only_A.tolist() == [0, 0]
    assert two(score, [1, 1, 9, 8, 7, 2, 2, 2]).jaccard_AA[0, 1] == 0


def test_without_a_member_the_index_is_unknown_on_that_target_alone():
    none, some = [0, 0, 0, 0, 9, 8, 7, 6], [9, 0, 0, 0, 8, 7, 7, 7]
    assert np.isnan(two(none, none).jaccard_AA).all()
    scores = [np.array([none, some], float)] * 2
    member_TN = np.array([MEMBER, MEMBER])
    measured = agreement.measure(scores, member_TN, np.ones((2, 8), bool), fpr=0.25)
    assert (measured.jaccard_AA == 1).all() and measured.identified_A.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_independent_attacks_agree_by_chance(p):
    flagged = np.random.default_rng(0).random((2, 200_000)) < p
    expected = p / (2 - p)
    assert agreement.jaccard(flagged)[0, 1] == pytest.approx(expected, abs=0.005)
    assert agreement.by_chance([p, p])[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize("fpr", [0.01, 0.1])
def test_identified_members_are_those_of_the_tpr(fpr):
    rng = np.random.default_rng(1)
    member = rng.random(500) < 0.5
    score = np.round(rng.normal(size=500) + member, 1)  # ties
    measured = agreement.measure([score[None]], member[None], np.ones((1, 500), bool), fpr=fpr)
    point = roc.tpr_at_fpr(roc.roc(score, member), fpr)
    assert measured.identified_A[0] == pytest.approx(point.tpr * member.sum())
    assert measured.false_A[0] / (~member).sum() == pytest.approx(point.fpr) and point.fpr <= fpr


def test_rows_that_are_not_evaluated_are_not_read():
    rng = np.random.default_rng(2)
    scores, member = rng.normal(size=(3, 1, 60)), rng.random((1, 60)) < 0.5
    evaluated = rng.random((1, 60)) < 0.7
    hidden = np.where(evaluated, scores, np.nan)
    seen = agreement.measure(scores[:, :, evaluated[0]], *(a[:, evaluated[0]] for a in
                             (member, evaluated)), fpr=0.2)  # fmt: skip
    for value, same in zip(agreement.measure(hidden, member, evaluated, fpr=0.2), seen):
        np.testing.assert_array_equal(value, same)


def test_a_rate_below_a_single_false_positive_is_refused():
    with pytest.raises(ValueError, match=r"fpr=0\.1 is below one false positive of 4 non-members"):
        two(range(8), range(8), fpr=0.1)
    with pytest.raises(ValueError, match="at least one attack"):
        agreement.measure([], MEMBER[None], np.ones((1, 8), bool))
