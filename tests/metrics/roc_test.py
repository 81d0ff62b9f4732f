"""ROC curves: naive twins, ties by hand, the step rule, thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as sk

from mia_jax.metrics import bootstrap, roc, thresholds

LEVELS = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, np.inf])
quick = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def scored(draw, most=12):
    n = draw(st.integers(2, most))
    score = draw(st.lists(LEVELS, min_size=n, max_size=n))
    member = draw(
        st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda m: 0 < sum(m) < len(m))
    )
    return np.array(score), np.array(member)


def pair_count(score, member):
    """AUC by looking at every pair."""
    a, b = score[member][:, None], score[~member][None]
    return ((a > b) + 0.5 * (a == b)).mean()


def brute_step(score, member, fpr):
    """Returns the largest TPR of any rule 'score >= t' (or no row) whose FPR is at most fpr."""
    best = 0.0
    for t in set(score):
        if (score[~member] >= t).mean() <= fpr * (1 + 1e-9):
            best = max(best, (score[member] >= t).mean())
    return best


@quick
@given(scored())
def test_auc_is_pair_counting_and_infinities_are_ordered(data):
    assert roc.auc(roc.roc(*data)) == pytest.approx(pair_count(*data), abs=1e-12)


@quick
@given(scored(), st.sampled_from([0.05, 0.2, 0.29, 1 / 3, 0.5, 0.7, 1.0]))
def test_tpr_at_fpr_is_the_step_rule(data, fpr):
    score, member = data
    point = roc.tpr_at_fpr(roc.roc(score, member), fpr)
    if fpr * (~member).sum() < 1 - 1e-9:
        assert point is None
        return
    assert point.tpr == pytest.approx(brute_step(score, member, fpr))
    assert point.fpr <= fpr * (1 + 1e-9)
    assert point.false_positives == pytest.approx(point.fpr * (~member).sum())
    if point.true_positives + point.false_positives:  # the threshold reproduces the point
        rates = roc.rates_at(score, member, point.threshold)
        assert (rates.tpr, rates.fpr) == pytest.approx((point.tpr, point.fpr))


@quick
@given(scored(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_and_weights_are_repeated_rows(data, random):
    score, member = data
    order = list(range(len(score)))
    random.shuffle(order)
    for a, b in zip(roc.roc(score, member), roc.roc(score[order], member[order])):
        np.testing.assert_array_equal(a, b)
    count = np.array([random.choice([1, 2, 3]) for _ in score])
    weighted, repeated = (
        roc.roc(score, member, count),
        roc.roc(np.repeat(score, count), np.repeat(member, count)),
    )
    for a, b in zip(weighted, repeated):
        np.testing.assert_array_equal(a, b)


@quick
@given(scored())
def test_best_threshold_is_the_best_and_reproduces_its_balanced_accuracy(data):
    score, member = data
    curve = roc.roc(score, member)
    threshold, balanced = roc.best_threshold(curve)
    assert balanced == pytest.approx(0.5 + 0.5 * (curve.tpr_V - curve.fpr_V).max())
    if np.isfinite(threshold) or not np.isinf(score).any():
        assert roc.rates_at(score, member, threshold).balanced_accuracy == pytest.approx(balanced)
    assert roc.advantage(curve) >= 2 * balanced - 1 - 1e-12


def test_ties_by_hand():
    score = np.array([0.9, 0.9, 0.8, 0.7, 0.5, 0.2, 0.9, 0.6, 0.5, 0.4, 0.3, 0.1])
    member = np.arange(12) < 6
    curve = roc.roc(score, member)
    assert roc.auc(curve) == pytest.approx(25.5 / 36)
    assert curve.true_V[:3].tolist() == [0, 2, 3] and curve.false_V[:3].tolist() == [0, 1, 1]
    assert roc.tpr_at_fpr(curve, 1 / 6)[:4] == (pytest.approx(4 / 6), pytest.approx(1 / 6), 4, 1)
    assert roc.tpr_at_fpr(curve, 0.0) is None and roc.tpr_at_fpr(curve, 0.16) is None
    assert roc.tpr_at_fpr(curve, 1.0).tpr == 1
    assert len(curve.fpr_V) == len(set(score)) + 1


def test_equal_scores_carry_nothing():
    curve = roc.roc(np.zeros(200), np.arange(200) < 80)
    assert roc.auc(curve) == 0.5
    assert all(roc.tpr_at_fpr(curve, f).tpr == 0 for f in (0.01, 0.1, 0.5, 0.999))
    assert roc.tpr_at_fpr(curve, 1.0).tpr == 1
    assert roc.advantage(curve) == 0 and roc.best_threshold(curve) == (np.inf, 0.5)


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    member = rng.random(500) < 0.4
    score = np.round(rng.normal(size=500) + member, 1)
    curve = roc.roc(score, member)
    fpr, tpr, threshold = sk.roc_curve(member, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr_V, fpr)
    np.testing.assert_allclose(curve.tpr_V, tpr)
    np.testing.assert_array_equal(curve.threshold_V, threshold)
    assert roc.auc(curve) == pytest.approx(sk.roc_auc_score(member, score))
    rates = roc.rates_at(score, member, 0.55)
    assert rates.balanced_accuracy == pytest.approx(
        sk.balanced_accuracy_score(member, score >= 0.55)
    )
    assert rates.precision == pytest.approx(sk.precision_score(member, score >= 0.55))
    assert roc.ppv(rates.tpr, rates.fpr, (~member).sum() / member.sum()) == pytest.approx(
        rates.precision
    )


def test_ppv_is_defined_where_no_row_is_flagged():
    assert roc.ppv(0.0, 0.0, 9.0) == pytest.approx(0.1)
    np.testing.assert_allclose(
        roc.ppv(np.array([0.5, 0.0]), np.array([0.05, 0.0]), 10.0), [0.5, 1 / 11]
    )


@pytest.mark.parametrize("count, null", [(50, 0.17), (200, 0.087), (1000, 0.039)])
def test_null_advantage_is_what_noise_reaches(count, null):
    rng, member = np.random.default_rng(1), np.arange(2 * count) < count
    curves = [roc.roc(rng.normal(size=2 * count), member) for _ in range(300)]
    assert roc.null_advantage(count, count) == pytest.approx(null, abs=0.005)
    assert np.mean([roc.advantage(c) for c in curves]) == pytest.approx(
        roc.null_advantage(count, count), rel=0.12
    )
    one_sided = np.mean([2 * roc.best_threshold(c)[1] - 1 for c in curves])
    assert one_sided == pytest.approx(roc.null_advantage(count, count, two_sided=False), rel=0.15)


def test_thresholds_between_neighboring_numbers():
    assert roc.between(1.0, 2.0) == 1.5
    assert roc.between(1.0, np.nextafter(1.0, 2)) == np.nextafter(1.0, 2)
    assert roc.between(-np.inf, 3.0) == 3.0 and roc.between(0.0, np.inf) == np.inf
    assert roc.between(-1e308, 1.7e308) == pytest.approx(0.35e308)


@pytest.mark.parametrize(
    "score, member, message",
    [
        ([1.0, np.nan], [True, False], "score has 1 of 2 values"),
        ([1.0, 2.0], [True, True], "2 members among 2 rows"),
        ([1.0, 2.0, 3.0], [True, False], "axis N has length"),
    ],
)
def test_bad_input_is_refused(score, member, message):
    with pytest.raises(ValueError, match=message):
        roc.roc(score, member)


def test_bad_weights_are_refused():
    with pytest.raises(ValueError, match=r"smallest_weight=-1\.0"):
        roc.roc([1.0, 2.0], [True, False], [1, -1])
    with pytest.raises(ValueError, match=r"weight_of_nonmembers=0\.0"):
        roc.roc([1.0, 2.0], [True, False], [1, 0])


def fleet(models=8, records=40, seed=0):
    rng = np.random.default_rng(seed)
    member = np.zeros((models, records), bool)
    for m in range(0, models, 2):
        member[m, rng.permutation(records)[: records // 2]] = True
        member[m + 1] = ~member[m]
    shadow = ~np.kron(np.eye(models // 2), np.ones((2, 2))).astype(bool)
    evaluated = np.broadcast_to(np.arange(records) >= 4, member.shape)
    return np.round(rng.normal(size=member.shape) + member, 1), member, evaluated, shadow


def test_shadow_thresholds_are_the_best_over_the_shadows_alone():
    score, member, evaluated, shadow = fleet()
    threshold_M = thresholds.shadow_thresholds(score, member, evaluated, shadow)
    for t, use in enumerate(shadow):
        expected = roc.best_threshold(
            roc.roc(score[use][evaluated[use]], member[use][evaluated[use]])
        )[0]
        assert threshold_M[t] == expected
    changed = score.copy()
    changed[:2] = 100.0  # model 0 and its twin
    assert thresholds.shadow_thresholds(changed, member, evaluated, shadow)[0] == threshold_M[0]


@pytest.mark.parametrize("bend", [0.25, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("nonmembers", [100, 150, 1000])
def test_the_bend_of_a_mean_roc_and_its_tpr_are_exact_for_a_power_of_the_fpr(bend, nonmembers):
    j = np.arange(1, nonmembers + 1)
    tpr = 0.3 * np.exp(special.gammaln(j + bend) - special.gammaln(j)) / (nonmembers + 1) ** bend
    tpr = np.append(np.minimum(tpr, 1.0), 1.0)
    false = np.arange(nonmembers + 1.0)
    curve = roc.Roc(false / nonmembers, tpr, -false, false, 400 * tpr, 400.0, float(nonmembers))
    assert roc.bend_at([curve, curve], 0.01) == pytest.approx(bend)
    mean = roc.tpr_between(curve, 0.01)
    found = roc.between_true(mean, 0.01, nonmembers, bend)
    assert found == pytest.approx(0.3 * 0.01**bend)


def test_a_roc_without_members_above_its_non_members_bends_like_guessing():
    curve = roc.roc(np.append(np.zeros(50), np.ones(50)), np.arange(100) < 50)
    assert roc.bend_at([curve], 0.02) == 1.0


def test_shadow_thresholds_skip_models_without_scores_and_say_when_there_are_none():
    score, member, evaluated, shadow = fleet()
    score[4:] = np.nan
    threshold_M = thresholds.shadow_thresholds(score, member, evaluated, shadow)
    np.testing.assert_array_equal(
        threshold_M[0],
        roc.best_threshold(roc.roc(score[2:4][evaluated[2:4]], member[2:4][evaluated[2:4]]))[0],
    )
    without_shadows = thresholds.shadow_thresholds(score, member, evaluated, np.zeros_like(shadow))
    assert np.isnan(without_shadows).all()
    useless = thresholds.shadow_thresholds(-1.0 * member, member, evaluated, shadow)
    assert (useless == np.inf).all()


@quick
@given(scored(20), st.integers(0, 10**6))
def test_curve_of_a_draw_is_the_curve_of_repeated_rows(data, seed):
    score, member = data
    count = np.random.default_rng(seed).integers(0, 4, (len(score), 7)).astype(np.float32)
    count[np.flatnonzero(member)[0]] = count[np.flatnonzero(~member)[0]] = 1
    rank = bootstrap.ranked(score, member, np.arange(len(score)))
    outside = int((~member).sum())
    allowed = sorted({0, 1, outside - 1})
    auc, tpr = bootstrap.curve_draws(rank, lambda rows: count[rows], allowed)
    for r in range(7):
        curve = roc.roc(score, member, count[:, r])
        assert auc[r] == pytest.approx(roc.auc(curve))
        for f, k in enumerate(allowed):
            limit = (k + 0.5) / outside * curve.n_nonmember
            assert tpr[f, r] == pytest.approx(curve.tpr_V[curve.false_V <= limit].max())
