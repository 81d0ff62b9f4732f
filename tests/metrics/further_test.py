"""Conventions, partial areas, exact and adjusted tests, calibration: by hand on tied scores, and
beside independent implementations.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mia_jax.metrics import bootstrap, further, intervals, multiple, roc, summary, thresholds

TIED = np.array([0.9, 0.9, 0.8, 0.7, 0.5, 0.2, 0.9, 0.6, 0.5, 0.4, 0.3, 0.1])
SIX = np.arange(12) < 6
quick = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def scored(draw, most=14):
    n = draw(st.integers(2, most))
    score = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=n, max_size=n))
    member = draw(
        st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda m: 0 < sum(m) < len(m))
    )
    return np.array(score), np.array(member)


def test_tied_scores_by_hand():
    """Members .9 .9 .8 .7 .5 .2, non-members .9 .6 .5 .4 .3 .1: a tie at the top is one vertex, so
    no row is flagged at FPR 0.
    """
    curve = roc.roc(TIED, SIX)
    assert roc.auc(curve) == pytest.approx(17 / 24)
    zero = roc.tpr_at_zero(curve)
    assert (zero.tpr, zero.fpr, zero.true_positives, zero.threshold) == (0, 0, 0, np.inf)
    points = {c: roc.tpr_at_fpr(curve, 1 / 6, c) for c in roc.CONVENTIONS}
    assert {c: round(6 * p.tpr) for c, p in points.items()} == dict(
        step=4, strict=0, linear=4, hull=4
    )
    assert [points[c].fpr for c in ("step", "strict", "linear")] == [
        pytest.approx(1 / 6),
        0,
        pytest.approx(1 / 6),
    ]
    between = {c: roc.tpr_at_fpr(curve, 0.25, c).tpr for c in roc.CONVENTIONS}
    assert between == pytest.approx(
        dict(step=4 / 6, strict=4 / 6, linear=4 / 6, hull=4 / 6 + (1 / 4 - 1 / 6) * 0.5)
    )
    assert roc.hull(curve).fpr_V.tolist() == pytest.approx([0, 1 / 6, 5 / 6, 1]) and roc.auc(
        roc.hull(curve)
    ) == pytest.approx(7 / 9)
    assert all(
        roc.tpr_at_fpr(curve, 1.0, c).tpr == pytest.approx(1) for c in ("step", "linear", "hull")
    )
    assert all(roc.tpr_at_fpr(curve, 0.16, c) is None for c in roc.CONVENTIONS)
    with pytest.raises(ValueError, match="Did you mean 'strict'"):
        roc.tpr_at_fpr(curve, 0.5, "strikt")


def test_equal_scores_under_every_convention():
    curve = roc.roc(np.zeros(200), np.arange(200) < 80)
    assert {c: roc.tpr_at_fpr(curve, 0.3, c).tpr for c in roc.CONVENTIONS} == dict(
        step=0, strict=0, linear=pytest.approx(0.3), hull=pytest.approx(0.3)
    )
    assert (
        roc.mann_whitney(curve) == 1.0
        and roc.partial_auc(curve, 0.1) == pytest.approx(0.05)
        and roc.auc(roc.hull(curve)) == 0.5
    )
    assert roc.tpr_at_zero(curve).tpr == 0 and roc.best_accuracy(curve) == (
        np.inf,
        pytest.approx(0.6),
    )


def hull_by_hand(x, y, at):
    """The highest chord between any two vertices at one abscissa."""
    best = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            if x[i] <= at <= x[j]:
                best = max(
                    best,
                    max(y[i], y[j])
                    if x[i] == x[j]
                    else y[i] + (at - x[i]) / (x[j] - x[i]) * (y[j] - y[i]),
                )
    return best


@quick
@given(scored(), st.sampled_from([0.2, 1 / 3, 0.5, 0.77, 1.0]))
def test_conventions_are_what_they_say(data, fpr):
    curve = roc.roc(*data)
    if not roc.resolvable(fpr, curve.n_nonmember):
        return
    value = {c: roc.tpr_at_fpr(curve, fpr, c) for c in roc.CONVENTIONS}
    below = curve.fpr_V < fpr * (1 - 1e-9)
    assert value["strict"].tpr == curve.tpr_V[below].max() and value["strict"].fpr < fpr
    assert value["hull"].tpr == pytest.approx(hull_by_hand(curve.fpr_V, curve.tpr_V, fpr))
    assert (
        value["strict"].tpr
        <= value["step"].tpr
        <= value["linear"].tpr + 1e-12
        <= value["hull"].tpr + 2e-12
    )
    assert value["linear"].true_positives == pytest.approx(value["linear"].tpr * curve.n_member)


@quick
@given(scored())
def test_accuracy_and_mann_whitney_beside_naive_twins(data):
    score, member = data
    curve = roc.roc(score, member)
    threshold, accuracy = roc.best_accuracy(curve)
    rules = [((score >= t) == member).mean() for t in [np.inf, *score]]
    assert accuracy == pytest.approx(max(rules)) and (
        (score >= threshold) == member
    ).mean() == pytest.approx(accuracy)
    if len(set(score)) > 1:
        oracle = stats.mannwhitneyu(
            score[member], score[~member], alternative="greater", method="asymptotic"
        ).pvalue
        assert roc.mann_whitney(curve) == pytest.approx(oracle, abs=1e-12)


def test_partial_area_agrees_with_scikit_learn_and_hull_with_scipy():
    rng = np.random.default_rng(0)
    member = rng.random(700) < 0.4
    score = np.round(rng.normal(size=700) + member, 1)
    curve = roc.roc(score, member)
    for fpr in (0.02, 0.1, 0.37, 1.0):
        standardized = sk.roc_auc_score(
            member, score, max_fpr=fpr
        )  # McClish: guessing .5, perfect 1
        area, least = roc.partial_auc(curve, fpr) * fpr, fpr**2 / 2
        assert 0.5 * (1 + (area - least) / (fpr - least)) == pytest.approx(standardized)
    points = np.stack([curve.fpr_V, curve.tpr_V], 1)
    from scipy.spatial import ConvexHull

    upper = ConvexHull(np.concatenate([points, [[1.0, 0.0]]])).volume
    assert roc.auc(roc.hull(curve)) == pytest.approx(upper)
    with pytest.raises(ValueError, match=r"fpr=0\.0 must be > 0"):
        roc.partial_auc(curve, 0.0)


def study(units=6, records=300, seed=0, mu=0.8):
    rng = np.random.default_rng(seed)
    member = np.zeros((2 * units, records), bool)
    for u in range(units):
        member[2 * u, rng.permutation(records)[: records // 2]] = True
        member[2 * u + 1] = ~member[2 * u]
    unit = np.arange(2 * units) // 2
    score = np.round(rng.normal(size=records) + mu * member + rng.normal(size=member.shape), 2)
    return score, member, unit, unit[:, None] != unit[None]


def naive_threshold(score, member, shadow, fpr):
    """Returns the lowest threshold that flags at most fpr of the shadows' non-members."""
    outside = score[shadow][~member[shadow]]
    good = [
        t
        for t in np.append(np.unique(outside), np.nextafter(outside.max(), np.inf))
        if (outside >= t).mean() <= fpr * (1 + 1e-9)
    ]
    return min(good)


def test_thresholds_for_a_rate_come_from_the_shadows_alone():
    score, member, _, shadow = study()
    threshold_FT = thresholds.shadow_thresholds_at(
        score, member, np.ones_like(member), shadow, (0.01, 0.1, 1.0)
    )
    for t, use in enumerate(shadow):
        outside = score[use][~member[use]]
        for f, fpr in enumerate((0.01, 0.1)):
            naive = naive_threshold(score, member, use, fpr)
            assert (outside >= threshold_FT[f, t]).sum() == (
                outside >= naive
            ).sum() and threshold_FT[f, t] <= naive
        assert threshold_FT[2, t] == -np.inf
    changed = score.copy()
    changed[:2] = 100 * np.random.default_rng(1).normal(
        size=changed[:2].shape
    )  # model 0 and its twin
    again = thresholds.shadow_thresholds_at(
        changed, member, np.ones_like(member), shadow, (0.01, 0.1)
    )
    assert np.array_equal(again[:, :2], threshold_FT[:2, :2]) and not np.array_equal(
        again[:, 2:], threshold_FT[:2, 2:]
    )


def test_thresholds_for_a_rate_that_do_not_exist():
    score, member, _, shadow = study(units=2, records=20)
    assert np.isnan(
        thresholds.shadow_thresholds_at(score, member, np.ones_like(member), shadow, (0.001,))
    ).all()
    assert np.isnan(
        thresholds.shadow_thresholds_at(
            score, member, np.ones_like(member), np.zeros_like(shadow), (0.5,)
        )
    ).all()
    tied = thresholds.shadow_thresholds_at(
        np.zeros_like(score), member, np.ones_like(member), shadow, (0.5,)
    )
    assert (tied > 0).all() and (
        tied < 1e-300
    ).all()  # just above the tie that would name everybody
    with pytest.raises(ValueError, match="shadow_MM has shape"):
        thresholds.shadow_thresholds_at(score, member, np.ones_like(member), shadow[:2], (0.5,))


def test_rows_are_what_they_say():
    score, member, unit, shadow = study()
    evaluated, fprs = np.ones_like(member), (0.001, 0.05)
    shared = (score, member, evaluated, shadow)
    attack = dict(
        score_TN=score,
        threshold_T=thresholds.shadow_thresholds(*shared),
        threshold_FT=thresholds.shadow_thresholds_at(*shared, fprs),
    )
    draws = bootstrap.make(300, unit, draws=80)
    rows = further.rows({"a": attack}, member, evaluated, draws=draws, fprs=fprs)
    by = {(r["target"], r["metric"]): r for r in rows}
    assert len(by) == len(rows)
    curves = [roc.roc(*pair) for pair in zip(score, member)]
    for convention in ("strict", "linear", "hull"):
        want = np.mean([roc.tpr_at_fpr(c, 0.05, convention).tpr for c in curves])
        assert by[None, f"{convention}_tpr@0.05"]["value"] == pytest.approx(want)
        assert (
            by[None, f"{convention}_tpr@0.05"]["convention"] == convention
            and by[None, f"{convention}_tpr@0.001"]["value"] is None
        )
    pooled, _ = summary.pool(score, member, evaluated)
    assert by["pooled", "hull_tpr@0.001"]["value"] == pytest.approx(
        roc.tpr_at_fpr(pooled, 0.001, "hull").tpr
    )
    assert by[None, "partial_auc@0.05"]["value"] == pytest.approx(
        np.mean([roc.partial_auc(c, 0.05) for c in curves])
    )
    assert by[None, "mann_whitney_p"]["value"] == pytest.approx(
        min(1, 2 * np.median([roc.mann_whitney(c) for c in curves]))
    )
    named = score >= attack["threshold_T"][:, None]
    each = dict(
        precision=sk.precision_score,
        recall=sk.recall_score,
        f1=sk.f1_score,
        accuracy=sk.accuracy_score,
    )
    for metric, function in each.items():
        row = by[None, metric]
        assert row["value"] == pytest.approx(
            np.mean([function(m, n) for m, n in zip(member, named)])
        )
        assert row["low"] < row["value"] < row["high"] and row["interval"] == "crossed"
    real = by[None, "fpr_at_shadow@0.05"]
    assert real["value"] == pytest.approx(
        np.mean((score >= attack["threshold_FT"][1][:, None])[~member]), abs=1e-9
    )
    assert real["calibrated"] is True and by[None, "tpr_at_shadow@0.05"]["value"] > 0.05
    assert (
        by[None, "best_accuracy"]["knows"] == "oracle_threshold"
        and "optimistic" in by[None, "best_accuracy"]["method"]
    )
    eps = by[None, "eps_from_rates_heuristic"]
    assert (
        "not a bound on differential privacy" in eps["method"]
        and eps["low"] is None
        and eps["value"] >= 0
    )


def test_a_threshold_that_does_not_carry_over_is_reported():
    score, member, _, shadow = study(mu=0.0)
    shifted = score + 3.0 * (np.arange(12) < 2)[:, None]  # two models answer on another scale
    shared = (shifted, member, np.ones_like(member), shadow)
    at = thresholds.shadow_thresholds_at(*shared, (0.05,))
    attack = dict(score_TN=shifted[:1], threshold_FT=at[:, :1])
    draws = bootstrap.make(300, [0])
    by = {
        r["metric"]: r
        for r in further.rows(
            {"a": attack}, member[:1], np.ones_like(member[:1]), draws=draws, fprs=(0.05,)
        )
        if r["target"] is None
    }
    row = by["fpr_at_shadow@0.05"]
    assert (
        row["calibrated"] is False and row["interval"] == "fixed_threshold" and row["value"] > 0.3
    )
    count = round(row["value"] * (~member[0]).sum())
    assert (row["low"], row["high"]) == pytest.approx(
        intervals.clopper_pearson(count, (~member[0]).sum())
    )
    assert by["precision"]["value"] is None and by["precision"]["method"] == further.NO_SHADOW
    assert by["mann_whitney_p"]["value"] == pytest.approx(
        roc.mann_whitney(roc.roc(shifted[0], member[0]))
    )


def test_holm_and_benjamini_hochberg_by_hand_and_beside_naive_twins():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = np.round(rng.random(8) ** 2, 2)
        order, worst = np.argsort(p), 0.0
        expected = np.empty(8)
        for i, at in enumerate(order):
            worst = max(worst, min(1, (8 - i) * p[at]))
            expected[at] = worst
        np.testing.assert_allclose(multiple.holm(p), expected)
        np.testing.assert_allclose(multiple.benjamini_hochberg(p), stats.false_discovery_control(p))
    np.testing.assert_array_equal(multiple.benjamini_hochberg([np.nan, 0.02]), [np.nan, 0.02])
    assert multiple.holm([]).shape == (0,)


SETTINGS = {"crossed": (8, 300, False), "few units": (2, 300, False), "one target": (1, 600, True)}


def coverage(name, repeats, cut=0.8, mu=0.7):
    """{metric: share of intervals that hold the population's value} at a fixed threshold."""
    units, count, single = SETTINGS[name]
    tpr, fpr = (float(stats.norm.sf((cut - m) / np.sqrt(2))) for m in (mu, 0.0))
    truth = {
        m: float(v) for m, v in further.at_threshold(np.array(tpr), np.array(fpr), 1.0).items()
    }
    truth |= {"tpr_at_shadow@0.3": tpr, "fpr_at_shadow@0.3": fpr}
    hits = {}
    for seed in range(repeats):
        score, member, unit, _ = study(units, count, seed=[11, seed], mu=mu)
        score, member, unit = (
            (a[:1] for a in (score, member, unit)) if single else (score, member, unit)
        )
        score = score + 1e-3  # study rounds to hundredths: no tie with the threshold
        at = np.full(len(score), cut)
        attack, draws = (
            dict(score_TN=score, threshold_T=at, threshold_FT=at[None]),
            bootstrap.make(count, unit, seed=seed, draws=120),
        )
        for row in further.rows(
            {"a": attack}, member, np.ones_like(member), draws=draws, fprs=(0.3,)
        ):
            if row["low"] is not None:
                hits.setdefault(row["metric"], []).append(
                    row["low"] <= truth[row["metric"]] <= row["high"]
                )
    assert set(hits) == set(truth)
    return {metric: np.mean(values) for metric, values in hits.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_at_thresholds_cover(name):
    assert min(coverage(name, 40).values()) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_interval_at_thresholds_covers_in_200_simulations(name):
    share_of = coverage(name, 200)
    assert min(share_of.values()) >= 0.92, share_of
