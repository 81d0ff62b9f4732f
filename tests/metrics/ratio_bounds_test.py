"""The heuristic epsilon of rates: its bound by hand and by enumeration, and thresholds that are
fixed by the numbers of rows.
"""

import numpy as np
import pytest
from scipy import stats

from mia_jax.metrics import ratio_bounds


def test_clopper_pearson_by_hand():
    low = stats.binomtest(30, 100).proportion_ci(0.95, "exact").low
    high = stats.binomtest(10, 80).proportion_ci(0.95, "exact").high
    assert ratio_bounds.lower(30, 100, 10, 80) == pytest.approx(low / high)
    assert np.log(ratio_bounds.lower(500, 500, 0, 500, alpha=0.01)) == pytest.approx(
        4.54, abs=0.005
    )  # the ceiling of Jagielski et al. 2020, section 4
    assert ratio_bounds.lower(0, 10, 3, 10) == 0


def test_arrays_broadcast():
    k1, k0 = np.array([5000, 6000, 7000]), np.array([4000, 4000, 5000])
    bound = ratio_bounds.lower(k1, 10**4, k0, 10**4)
    assert (
        bound.shape == (3,)
        and bound == pytest.approx(k1 / k0, rel=0.06)
        and (bound < k1 / k0).all()
    )


@pytest.mark.parametrize(
    "n1, p1, n0, p0", [(40, 0.3, 50, 0.1), (60, 0.05, 60, 0.05), (30, 0.9, 30, 0.02)]
)
def test_coverage_by_enumeration(n1, p1, n0, p0):
    k1, k0 = np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1), indexing="ij")
    probability = stats.binom.pmf(k1, n1, p1) * stats.binom.pmf(k0, n0, p0)
    assert probability[ratio_bounds.lower(k1, n1, k0, n0) <= p1 / p0].sum() >= 0.95


@pytest.mark.parametrize(
    "call, message",
    [
        (dict(k1=3, n1=2, k0=1, n0=2), r"k=3\.0 of n=2\.0"),
        (dict(k1=1, n1=2, k0=1, n0=0), r"k=1\.0 of n=0\.0"),
        (dict(k1=1, n1=2, k0=1, n0=2, alpha=1.0), "must lie in"),
    ],
)
def test_bad_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        ratio_bounds.lower(**call)


def scores(rng, eps, n=200, tied=False):
    """Randomized response with an exact ratio: the best threshold has TPR/FPR = e^eps; fine scores
    order each answer at random.
    """
    member = np.arange(2 * n) < n
    answer = rng.random(2 * n) < np.where(
        member, np.exp(eps) / (1 + np.exp(eps)), 1 / (1 + np.exp(eps))
    )
    return answer.astype(float) + (0 if tied else 0.5 * rng.random(2 * n)), member


def test_bonferroni_ranks_are_fixed_by_the_numbers_of_rows():
    rng = np.random.default_rng(0)
    member = np.arange(150) < 50
    score = rng.permutation(150).astype(float)
    assert [
        (score[~member] >= t).sum() for t in ratio_bounds._thresholds(np.sort(score[~member]))
    ] == [
        0,
        1,
        2,
        4,
        8,
        16,
        32,
    ]
    heuristic = ratio_bounds.eps_from_rates_heuristic(score + 1000 * member, member)
    assert (
        heuristic.value == pytest.approx(np.log(ratio_bounds.lower(50, 50, 0, 100, alpha=0.05 / 7)))
        and "over 7 ranks" in heuristic.method
    )
    assert heuristic.counts == (50, 50, 0, 100)


@pytest.mark.parametrize("tied", [False, True])
def test_it_exceeds_the_truth_rarely_and_sees_something(tied):
    values = [
        ratio_bounds.eps_from_rates_heuristic(
            *scores(np.random.default_rng(seed), 1.0, tied=tied)
        ).value
        for seed in range(120)
    ]
    assert np.mean(np.array(values) > 1.0) <= 0.05 and np.mean(values) > 0.3


def test_scores_that_carry_nothing_exceed_0_rarely():
    member = np.arange(400) < 200
    values = [
        ratio_bounds.eps_from_rates_heuristic(
            np.random.default_rng(seed).normal(size=400), member
        ).value
        for seed in range(100)
    ]
    assert np.mean(np.array(values) > 0) <= 0.06
    assert ratio_bounds.eps_from_rates_heuristic(np.zeros(100), np.arange(100) < 50).value == 0
