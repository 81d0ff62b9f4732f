"""Bounds of ratios of proportions: published numbers, formulas by hand, coverage, and which choices of a threshold keep it."""

import numpy as np
import pytest
from scipy import stats

from mia_jax.metrics import ratio_bounds as rb

# (k1, n1, k0, n0) at alpha .05; values of ci.prat of the R package asbio (Aho and Bowyer 2015), as printed by TensorFlow Privacy's tests
PUBLISHED = {
    (473, 984, 755, 1705): dict(katz_log=1.01166194, adjusted_log=1.01189079, bailey=1.01148934, inverse_sinh=1.01167669),
    (2, 699, 213, 526): dict(katz_log=0.00220470, adjusted_log=0.00310880, bailey=0.00162322, inverse_sinh=0.00233503),
    (1000, 1010, 10, 10010): dict(katz_log=589.27335593, adjusted_log=568.32659563, bailey=613.58766147, inverse_sinh=592.63264572),
    (0, 511, 755, 1705): dict(katz_log=0.0, adjusted_log=0.00021568, bailey=0.0, inverse_sinh=0.0),
    (2, 699, 0, 313): dict(katz_log=0.13325535, adjusted_log=0.17571862, bailey=0.18481008, inverse_sinh=0.08081083),
    (0, 10, 0, 10000): dict(katz_log=0.0, adjusted_log=0.0, bailey=0.0, inverse_sinh=0.0),
    (473, 473, 755, 1705): dict(katz_log=2.15959024, adjusted_log=2.15883995, bailey=2.15787013, inverse_sinh=2.15959827),
    (2, 699, 213, 213): dict(katz_log=0.00089568, adjusted_log=0.00126522, bailey=0.00066016, inverse_sinh=0.00094821),
    (1000, 1000, 10, 10): dict(katz_log=0.93375356, adjusted_log=0.93686007, bailey=0.93591485, inverse_sinh=0.93381958),
}


@pytest.mark.parametrize("counts", PUBLISHED)
def test_published_numbers(counts):
    for method, value in PUBLISHED[counts].items():
        assert rb.lower(*counts, method=method) == pytest.approx(value, abs=1e-7), method


def test_katz_and_clopper_pearson_by_hand():
    z = stats.norm.ppf(0.95)
    assert rb.lower(30, 100, 10, 80, method="katz_log") == pytest.approx(0.3 / 0.125 * np.exp(-z * np.sqrt(0.7 / 30 + 0.875 / 10)))
    low = stats.binomtest(30, 100).proportion_ci(0.95, "exact").low
    high = stats.binomtest(10, 80).proportion_ci(0.95, "exact").high
    assert rb.lower(30, 100, 10, 80) == pytest.approx(low / high)
    assert np.log(rb.lower(500, 500, 0, 500, alpha=0.01)) == pytest.approx(4.54, abs=0.005)  # the ceiling of Jagielski et al. 2020, section 4
    assert rb.lower(0, 10, 3, 10) == 0


def test_arrays_broadcast_and_methods_agree_on_large_counts():
    k1, k0 = np.array([5000, 6000, 7000]), np.array([4000, 4000, 5000])
    for method in rb.METHODS:
        found = rb.lower(k1, 10**4, k0, 10**4, method=method)
        assert found.shape == (3,) and found == pytest.approx(k1 / k0, rel=0.06) and (found < k1 / k0).all()


def test_a_bailey_bound_that_does_not_exist_is_zero():
    assert rb.lower(5, 100, 1, 100, method="bailey", alpha=1e-6) == 0  # 1 - z^2 q/9 < 0
    assert rb.lower(5, 100, 1, 100, method="bailey", alpha=0.05) > 0


@pytest.mark.parametrize("n1, p1, n0, p0", [(40, 0.3, 50, 0.1), (60, 0.05, 60, 0.05), (30, 0.9, 30, 0.02)])
def test_coverage_by_enumeration(n1, p1, n0, p0):
    k1, k0 = np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1), indexing="ij")
    probability = stats.binom.pmf(k1, n1, p1) * stats.binom.pmf(k0, n0, p0)
    cover = {m: probability[rb.lower(k1, n1, k0, n0, method=m) <= p1 / p0].sum() for m in rb.METHODS}
    assert cover["clopper_pearson"] >= 0.95
    assert min(cover.values()) > 0.88, cover


@pytest.mark.parametrize(
    "call, message",
    [
        (dict(k1=3, n1=2, k0=1, n0=2), r"k1=3\.0 of n1=2\.0"),
        (dict(k1=1, n1=2, k0=1, n0=0), r"k0=1\.0 of n0=0\.0"),
        (dict(k1=1, n1=2, k0=1, n0=2, alpha=0.5), "alpha=0.5 must lie in"),
        (dict(k1=1, n1=2, k0=1, n0=2, method="baily"), "Did you mean 'bailey'"),
    ],
)
def test_bad_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        rb.lower(**call)


def scores(rng, eps, n=200, tied=False):
    """Randomized response with an exact ratio: the best threshold has TPR/FPR = TNR/FNR = e^eps; fine scores order each answer at random."""
    member = np.arange(2 * n) < n
    said = rng.random(2 * n) < np.where(member, np.exp(eps) / (1 + np.exp(eps)), 1 / (1 + np.exp(eps)))
    return said.astype(float) + (0 if tied else 0.5 * rng.random(2 * n)), member


def test_explicit_threshold_by_hand():
    score, member = np.array([3.0, 2, 1, 0, 2, 1, 0, 0]), np.arange(8) < 4
    found = rb.eps_from_rates_heuristic(score, member, selection="explicit", threshold=1.5, method="katz_log")
    assert found.counts == (2, 4, 1, 4) and found.ratio == "TPR/FPR" and found.threshold == 1.5
    assert found.value == max(0, np.log(rb.lower(2, 4, 1, 4, method="katz_log")))
    strong = np.arange(400) >= 200
    two = rb.eps_from_rates_heuristic(strong + 0.0, strong, selection="explicit", threshold=0.5, sides=2)
    assert two.value == pytest.approx(np.log(rb.lower(200, 200, 0, 200, alpha=0.025)))
    mirrored = rb.eps_from_rates_heuristic(np.where(strong, 1.0, np.arange(400) < 20), strong, selection="explicit", threshold=0.5, sides=2)
    assert mirrored.ratio == "TNR/FNR" and mirrored.counts == (180, 200, 0, 200)


def test_bonferroni_ranks_are_fixed_by_the_numbers_of_rows():
    rng = np.random.default_rng(0)
    member = np.arange(150) < 50
    score = rng.permutation(150).astype(float)
    at = rb._candidates(score, member, 0, fixed=True)
    assert [(score[~member] >= t).sum() for t in at] == [0, 1, 2, 4, 8, 16, 32]
    below = rb._candidates(score, member, 1, fixed=True)
    assert [(score[member] < t).sum() for t in below] == [0, 1, 2, 4, 8, 16]
    found = rb.eps_from_rates_heuristic(score + 1000 * member, member)
    assert found.value == pytest.approx(np.log(rb.lower(50, 50, 0, 100, alpha=0.05 / 7))) and "over 7 ranks" in found.method


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("selection", ["split", "multi_split", "bonferroni"])
def test_honest_selections_exceed_the_truth_rarely_and_see_something(selection, tied):
    found = []
    for seed in range(120):
        score, member = scores(np.random.default_rng(seed), 1.0, tied=tied)
        found.append(rb.eps_from_rates_heuristic(score, member, sides=2, selection=selection, splits=11, seed=seed).value)
    assert np.mean(np.array(found) > 1.0) <= 0.05 and np.mean(found) > 0.3


def test_the_best_of_all_thresholds_exceeds_the_truth_often():
    """What the name says: with Bailey's bound, whose left tail is thin, and no correction, noise alone passes for leakage."""
    exceeded = {}
    for selection in ("best_of_all_uncorrected", "bonferroni"):
        found = []
        for seed in range(100):
            rng = np.random.default_rng(seed)
            member = np.arange(400) < 200
            found.append(rb.eps_from_rates_heuristic(rng.normal(size=400), member, method="bailey", sides=2, selection=selection).value)
        exceeded[selection] = np.mean(np.array(found) > 0)
    assert exceeded["best_of_all_uncorrected"] > 0.3 and exceeded["bonferroni"] <= 0.06


def test_words_and_sides_are_checked():
    score, member = scores(np.random.default_rng(0), 1.0)
    for call, message in [
        (dict(selection="best"), "selection='best' is not one of"),
        (dict(selection="explicit"), "needs a threshold that was fixed beforehand"),
        (dict(sides=3), "sides=3 is not one of"),
        (dict(method="wald"), "method='wald' is not one of"),
        (dict(selection="split", splits=0), "splits=0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            rb.eps_from_rates_heuristic(score, member, **call)
    with pytest.raises(ValueError, match="2 rows a side"):
        rb.eps_from_rates_heuristic([1.0, 2.0, 3.0], [True, False, False], selection="split")
    assert rb.eps_from_rates_heuristic(np.zeros(100), np.arange(100) < 50).value == 0
    many = rb.eps_from_rates_heuristic(score, member, selection="multi_split", splits=5)
    assert many.threshold is None and many.counts is None and "5 halvings" in many.method
    assert many == rb.eps_from_rates_heuristic(score, member, selection="multi_split", splits=5)
