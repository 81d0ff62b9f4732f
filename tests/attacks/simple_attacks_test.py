"""LiRA, threshold and gap against naive loops, analytic truth, and the few-shadow cases; fits
against NumPy.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from mia_jax.attacks import gap, lira, threshold
from mia_jax.designs import bernoulli, blocks, disjoint, folds, halves, two_way
from mia_jax.fitting import moments
from mia_jax.threat_model import FleetSignals
from tests import planted

KEY = jax.random.key(0)


# ---- fits ----


@pytest.mark.parametrize("center", ["mean", "median"])
def test_moments_equal_numpy(center):
    rng = np.random.default_rng(0)
    value_MN = rng.normal(size=(9, 50)) + 1e4
    where_MN = rng.random((9, 50)) < 0.5
    where_MN[:, 0], where_MN[:, 1] = False, True
    actual = moments.moments(np.where(where_MN, value_MN, np.nan), where_MN, center)
    for n in range(1, 50):
        kept = value_MN[where_MN[:, n], n]
        middle = np.mean(kept) if center == "mean" else np.median(kept)
        np.testing.assert_allclose(
            [f[n] for f in actual],
            [len(kept), middle, ((kept - middle) ** 2).sum()],
            rtol=1e-12,
            atol=1e-15,
        )
    assert [f[0] for f in actual] == [0, 0, 0]


def test_leave_unit_out_moments_equal_direct_ones_without_cancellation():
    rng = np.random.default_rng(0)
    value_MN = rng.normal(size=(10, 7)) * 0.05 + 25
    where_MN, unit_M = rng.random((10, 7)) < 0.6, np.array([4, 4, 0, 0, 1, 7, 7, 7, 2, 2])
    actual = moments.leave_unit_out_moments(value_MN, where_MN, unit_M)
    for row, u in enumerate(np.unique(unit_M)):
        direct = moments.moments(value_MN[unit_M != u], where_MN[unit_M != u])
        for a, b in zip(actual, direct, strict=True):
            np.testing.assert_allclose(a[row], b, rtol=1e-9, atol=1e-14)


def test_a_unit_has_no_bit_of_influence_on_its_own_row():
    rng = np.random.default_rng(0)
    value_MN, where_MN, unit_M = (
        rng.normal(size=(6, 40)),
        rng.random((6, 40)) < 0.5,
        np.arange(6) // 2,
    )
    before = moments.leave_unit_out_moments(value_MN, where_MN, unit_M)
    value_MN[2:4], where_MN[2:4] = np.nan, ~where_MN[2:4]
    value_MN[2] = 1e30
    after = moments.leave_unit_out_moments(value_MN, where_MN, unit_M)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
        assert (a[0] != b[0]).any()


def test_blocks_do_not_change_moments(monkeypatch):
    rng = np.random.default_rng(0)
    value_MN, where_MN = rng.normal(size=(5, 33)), rng.random((5, 33)) < 0.5
    whole = moments.moments(value_MN, where_MN)
    monkeypatch.setattr(moments, "BLOCK", 7)
    assert [s for s in moments.blocks(15, 7)] == [slice(0, 7), slice(7, 14), slice(14, 15)]
    for a, b in zip(whole, moments.moments(value_MN, where_MN), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- LiRA against a loop that reads like the paper ----


def naive_lira(
    fleet: FleetSignals,
    t: int,
    n: int,
    *,
    mode: str,
    offline_score: str,
    variance: str,
    center: str,
) -> float:
    d, total = fleet.design, 0.0
    use = [m for m in range(len(d.member_MN)) if d.unit_M[m] != d.unit_M[t]]
    middle = np.mean if center == "mean" else np.median
    for a in range(fleet.signal["rescaled_logit"].shape[1]):
        s_MN = fleet.signal["rescaled_logit"][:, a].astype(np.float64)

        def side(n, inside, s_MN=s_MN):
            return np.array([s_MN[m, n] for m in use if d.member_MN[m, n] == inside])

        def gaussian(inside, side=side):
            kept = side(n, inside)
            squares, dof = ((kept - middle(kept)) ** 2).sum(), len(kept) - 1
            if variance == "pooled":
                sides = [side(k, inside) for k in np.flatnonzero(d.evaluated_MN[t])]
                squares, dof = (
                    sum(((v - middle(v)) ** 2).sum() for v in sides),
                    sum(len(v) - 1 for v in sides),
                )
            return norm(middle(kept), np.sqrt(squares / dof))

        target_score, out = s_MN[t, n], gaussian(False)
        if mode == "online":
            total += gaussian(True).logpdf(target_score) - out.logpdf(target_score)
        else:
            total += (
                out.logcdf(target_score)
                if offline_score == "log_cdf"
                else -out.logpdf(target_score) - np.log(2 * np.pi) / 2
            )
    return total / fleet.signal["rescaled_logit"].shape[1]


@pytest.mark.parametrize(
    "mode, offline_score", [("online", "log_cdf"), ("offline", "log_cdf"), ("offline", "log_pdf")]
)
@pytest.mark.parametrize("variance", ["per_example", "pooled"])
@pytest.mark.parametrize("center", ["mean", "median"])
def test_lira_equals_a_naive_loop(mode, offline_score, variance, center):
    options = dict(mode=mode, offline_score=offline_score, variance=variance, center=center)
    attack = lira.make(**options)
    fleet = planted.fleet(
        halves.make(num_examples=30, seed=0, models=12),
        "rescaled_logit",
        mu=1.0,
        seed=0,
        query_views=2,
    )
    for t in (0, 5):
        score_N = attack.score(fleet.evidence_against(t, attack.needs), KEY)
        for n in np.flatnonzero(fleet.design.evaluated_MN[t])[::5]:
            np.testing.assert_allclose(
                score_N[n], naive_lira(fleet, t, n, **options), rtol=1e-9, atol=1e-12
            )
        assert np.isnan(score_N[~fleet.design.evaluated_MN[t]]).all()


@pytest.mark.parametrize("maker", [halves, bernoulli])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(mode="offline"),
        dict(mode="offline", offline_score="log_pdf"),
        dict(center="median"),
    ],
)
@pytest.mark.parametrize("models", [4, 6, 20])
def test_score_all_equals_one_target_at_a_time(maker, fields, models, monkeypatch):
    monkeypatch.setattr(moments, "BLOCK", 64)  # several blocks
    attack = lira.make(**fields)
    fleet = planted.fleet(
        maker.make(num_examples=150, seed=0, models=models),
        "rescaled_logit",
        mu=1.0,
        seed=0,
        query_views=2,
    )
    np.testing.assert_allclose(
        attack.score_all(fleet, KEY), planted.scores(fleet, attack, KEY), rtol=1e-9, atol=1e-9
    )


def test_score_all_of_a_design_with_other_shadows_scores_each_target():
    attack = lira.make(mode="offline")
    fleet = planted.fleet(
        disjoint.make(num_examples=200, seed=0, models=10, targets=4),
        "rescaled_logit",
        mu=1.0,
        seed=0,
    )
    np.testing.assert_array_equal(attack.score_all(fleet, KEY), planted.scores(fleet, attack, KEY))
    fewer_MM = fleet.design.shadow_MM.copy()
    fewer_MM[:, 7:] = False
    fewer = dataclasses.replace(fleet, design=dataclasses.replace(fleet.design, shadow_MM=fewer_MM))
    assert not np.array_equal(
        attack.score_all(fewer, KEY), attack.score_all(fleet, KEY), equal_nan=True
    )


def test_roc_tends_to_the_analytic_one():
    """Signals N(d_n + mu member, 1): the likelihood ratio test has TPR = Phi(mu + Phi^-1(FPR)) and
    AUC = Phi(mu / sqrt 2).
    """
    mu = 1.5
    design = halves.make(num_examples=4000, seed=0, models=256, population=0.0, targets=12)
    fleet = planted.fleet(design, "rescaled_logit", mu=mu, seed=0, spread=3.0)
    for fields in (dict(variance="pooled"), dict(variance="per_example"), dict(mode="offline")):
        score_TN = lira.make(**fields).score_all(fleet, KEY)
        member_TN = design.member_MN[:12]
        assert abs(planted.mean_auc(fleet, score_TN) - ndtr(mu / np.sqrt(2))) < 0.006
        for fpr in (0.01, 0.1):
            tpr = np.mean(
                [
                    (s[i] > np.quantile(s[~i], 1 - fpr)).mean()
                    for s, i in zip(score_TN, member_TN, strict=True)
                ]
            )
            assert abs(tpr - ndtr(mu + ndtri(fpr))) < 0.015, (fields, fpr, tpr)


# ---- few shadows ----


def test_with_one_shadow_per_side_the_score_is_the_distance_to_the_centers():
    fleet = planted.fleet(
        halves.make(num_examples=100, seed=0, models=4), "rescaled_logit", mu=1.0, seed=0
    )
    s_MN, e = fleet.signal["rescaled_logit"][:, 0].astype(float), fleet.design.evaluated_MN[0]
    np.testing.assert_allclose(
        lira.make(variance="gaussian").score_all(fleet, KEY)[0, e],
        (s_MN[0] - (s_MN[2] + s_MN[3]) / 2)[e],
        rtol=1e-12,
    )
    outside_N = np.where(fleet.design.member_MN[2], s_MN[3], s_MN[2])
    np.testing.assert_allclose(
        lira.make(mode="offline").score_all(fleet, KEY)[0, e], (s_MN[0] - outside_N)[e], rtol=1e-12
    )


@pytest.mark.parametrize("models, same_as", [(32, "pooled"), (34, "per_example")])
def test_gaussian_variance_is_pooled_below_16_shadows_per_side(models, same_as):
    fleet = planted.fleet(
        halves.make(num_examples=100, seed=0, models=models), "rescaled_logit", mu=1.0, seed=0
    )
    gaussian = lira.make(variance="gaussian")
    np.testing.assert_array_equal(
        gaussian.score_all(fleet, KEY), lira.make(variance=same_as).score_all(fleet, KEY)
    )
    assert "16 shadows" in gaussian.note and "signal minus the center" in gaussian.note


@pytest.mark.parametrize("models", [4, 8, 16, 40])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_the_variance_is_shrunk_by_default(models, mode):
    fleet = planted.fleet(
        halves.make(num_examples=100, seed=0, models=models), "rescaled_logit", mu=1.0, seed=0
    )
    plain, shrunk = (lira.make(mode=mode, **fields) for fields in ({}, dict(variance="shrunk")))
    np.testing.assert_array_equal(plain.score_all(fleet, KEY), shrunk.score_all(fleet, KEY))
    assert plain.note == shrunk.note and "variances shrunk" in plain.note
    sides = [
        lira.make(variance_side="both", **fields).score_all(fleet, KEY)
        for fields in ({}, dict(variance="gaussian"))
    ]
    np.testing.assert_array_equal(*sides)  # shrinkage fits each side's own prior


def test_examples_without_in_or_out_shadows_take_a_shifted_center():
    design = bernoulli.make(num_examples=300, seed=0, models=5, population=0.0)
    fleet = planted.fleet(design, "rescaled_logit", mu=3.0, seed=0, spread=5.0)
    score_TN = lira.make(variance="pooled").score_all(fleet, KEY)
    count_N = design.member_MN[1:].sum(0)
    assert {0, 4} <= set(count_N.tolist()) and np.isfinite(score_TN).all()
    s_MN, in_MN = fleet.signal["rescaled_logit"][:, 0].astype(float), design.member_MN[1:]
    shift = s_MN[1:][in_MN].mean() - s_MN[1:][~in_MN].mean()
    for only, side in ((0, -1), (4, 1)):
        rows = count_N == only
        center_N = (
            s_MN[1:][:, rows].mean(0) - side * shift / 2
        )  # half-way between the known and the shifted center
        assert planted.auc(score_TN[0, rows], design.member_MN[0, rows]) > 0.85
        assert np.corrcoef(score_TN[0, rows], s_MN[0, rows] - center_N)[0, 1] > 0.95
    offline_TN = lira.make(mode="offline").score_all(fleet, KEY)
    assert np.isfinite(offline_TN).all()


def test_two_bernoulli_models_leave_one_shadow():
    fleet = planted.fleet(
        bernoulli.make(num_examples=300, seed=0, models=2), "rescaled_logit", mu=4.0, seed=0
    )
    for attack in (lira.make(), lira.make(mode="offline")):
        assert planted.mean_auc(fleet, attack.score_all(fleet, KEY)) > 0.8


def test_the_message_says_that_there_is_no_out_shadow():
    fleet = planted.fleet(
        bernoulli.make(num_examples=40, seed=0, models=4), "rescaled_logit", mu=1.0, seed=0
    )
    full_MN = fleet.design.member_MN.copy()
    full_MN[1:] = fleet.design.evaluated_MN[1:]
    fleet = dataclasses.replace(
        fleet, design=dataclasses.replace(fleet.design, member_MN=full_MN, targets=(0,))
    )
    for attack in (lira.make(), lira.make(mode="offline")):
        with pytest.raises(ValueError, match="no usable shadow is OUT on any evaluated row"):
            attack.score(fleet.evidence_against(0, attack.needs), KEY)
        with pytest.raises(ValueError, match="no usable shadow is OUT"):
            attack.score_all(fleet, KEY)


# ---- numerics ----


def test_log_cdf_orders_what_float32_ties():
    """One-sided scores 5.4 to 37 sd above the OUT mean: log(cdf) in float32 is 0 for all of
    them.
    """
    n = 60
    design = halves.make(num_examples=n, seed=0, models=40, population=0.0, targets=1)
    z_N = np.linspace(5.5, 37, n)
    signal = np.zeros((40, 1, n), np.float32)
    signal[2:] = np.tile([1.0, 1.0, -1.0, -1.0], 10)[
        :38, None, None
    ]  # both models of a pair agree: 10 OUT values are 1, 9 are -1
    signal[0] = z_N
    fleet = FleetSignals(design=design, signal=dict(rescaled_logit=signal), num_classes=2)
    score_N = lira.make(mode="offline", variance="per_example").score_all(fleet, KEY)[0]
    assert (np.log(ndtr(z_N.astype(np.float32))) == 0).all()
    assert len(np.unique(score_N)) == n and (score_N < 0).all()
    np.testing.assert_allclose(
        score_N,
        norm.logcdf((signal[0, 0].astype(float) - 1 / 19) / np.sqrt((19 - 1 / 19) / 18)),
        rtol=1e-9,
    )


@pytest.mark.parametrize("constant", [0.0, 1.0, -1e30])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(mode="offline"),
        dict(mode="offline", offline_score="log_pdf"),
        dict(variance="pooled"),
    ],
)
def test_constant_signals_tie(constant, fields):
    design = halves.make(num_examples=50, seed=0, models=12)
    signal = np.full((12, 1, 50), constant, np.float32)
    score_TN = lira.make(**fields).score_all(
        FleetSignals(design=design, signal=dict(rescaled_logit=signal), num_classes=2), KEY
    )
    kept = score_TN[design.evaluated_MN]
    assert np.isfinite(kept).all() and len(np.unique(kept)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(mode="offline"),
        dict(mode="offline", offline_score="log_pdf"),
        dict(variance="pooled"),
    ],
)
def test_shadows_that_agree_exactly_give_finite_scores(fields):
    design = halves.make(num_examples=50, seed=0, models=12)
    signal = (0.5 * design.member_MN[:, None]).astype(np.float32)
    score_TN = lira.make(**fields).score_all(
        FleetSignals(design=design, signal=dict(rescaled_logit=signal), num_classes=2), KEY
    )
    assert np.isfinite(score_TN[design.evaluated_MN]).all()
    assert (
        planted.auc(
            score_TN[0][design.evaluated_MN[0]], design.member_MN[0][design.evaluated_MN[0]]
        )
        == 1.0
    )


# ---- threshold and gap ----


def test_threshold_is_the_signed_mean_over_views_or_one_view():
    fleet = planted.fleet(
        halves.make(num_examples=40, seed=0, models=4), "loss", mu=1.0, seed=0, query_views=3
    )
    evidence = fleet.evidence_against(1, ("loss",))
    e = evidence.evaluated_N
    value_AN = fleet.signal["loss"][1].astype(np.float64)
    np.testing.assert_array_equal(threshold.make().score(evidence, KEY)[e], -value_AN.mean(0)[e])
    np.testing.assert_array_equal(threshold.make(view=2).score(evidence, KEY)[e], -value_AN[2][e])
    np.testing.assert_array_equal(
        threshold.make(sign=1).score(evidence, KEY)[e], value_AN.mean(0)[e]
    )
    assert (
        threshold.make().knows == "nothing"
        and np.isnan(threshold.make().score(evidence, KEY)[~e]).all()
    )
    with pytest.raises(ValueError, match=r"view=3 .* there are 3 views"):
        threshold.make(view=3).score(evidence, KEY)


def test_gap_accuracy_is_the_generalization_gap():
    design = blocks.make(num_examples=1000, seed=0, size=200)
    rng = np.random.default_rng(0)
    correct = (rng.random((2, 1, 1000)) < np.where(design.member_MN, 0.9, 0.6)[:, None]).astype(
        np.float32
    )
    attack = gap.make()
    score_N = attack.score(
        FleetSignals(design=design, signal=dict(correct=correct), num_classes=2).evidence_against(
            0, attack.needs
        ),
        KEY,
    )
    train, test = correct[0, 0, :200].mean(dtype=float), correct[0, 0, 200:400].mean(dtype=float)
    e = design.evaluated_MN[0]
    accuracy = ((score_N[e] >= 1) == design.member_MN[0, e]).mean()
    assert abs(100 * accuracy - (50 + 50 * (train - test))) < 1e-9


# ---- refusals and bad arguments ----


@pytest.mark.parametrize(
    "maker, attack, reason",
    [
        (blocks, lira.make(), "shadow_in.*no source trains on a target's rows"),
        (disjoint, lira.make(), "shadow_in.*another part of the pool"),
        (
            two_way,
            lira.make(),
            "shadow_in, shadow_out.*the source was trained on the rows that the target",
        ),
        (
            two_way,
            lira.make(mode="offline"),
            "shadow_out.*the source was trained on the rows that the target",
        ),
        (folds, lira.make(mode="offline"), "shadow_out.*member of all others"),
        (blocks, lira.make(mode="offline"), ""),
        (disjoint, lira.make(mode="offline"), ""),
        (halves, lira.make(), ""),
        (bernoulli, lira.make(), ""),
        (folds, threshold.make(), ""),
        (two_way, gap.make(), ""),
    ],
)
def test_designs_refuse_what_they_cannot_carry(maker, attack, reason):
    design = maker.make(num_examples=10_000, seed=0)
    refusal = FleetSignals(design=design, signal={}, num_classes=2).refuse(attack, "it")
    assert bool(refusal) == bool(reason) and re.search(reason, refusal)


def test_offline_lira_on_blocks_sees_only_sources():
    fleet = planted.fleet(
        blocks.make(num_examples=2000, seed=0, size=100, sources=9),
        "rescaled_logit",
        mu=2.0,
        seed=0,
        spread=3.0,
    )
    attack = lira.make(mode="offline")
    assert planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)) > 0.85
    fleet_of_blocks = planted.fleet(
        blocks.make(num_examples=400, seed=0, size=100),
        "rescaled_logit",
        mu=3.0,
        seed=0,
        spread=3.0,
    )
    score_N = attack.score(fleet_of_blocks.evidence_against(0, attack.needs), KEY)
    s_MN = fleet_of_blocks.signal["rescaled_logit"][:, 0].astype(float)
    np.testing.assert_allclose(score_N[:200], (s_MN[0] - s_MN[1])[:200], rtol=1e-12)


@pytest.mark.parametrize(
    "maker, fields, message",
    [
        (lira, dict(mode="on"), "mode='on' is not one of .*online"),
        (lira, dict(offline_score="cdf"), "offline_score='cdf'"),
        (lira, dict(variance="fixed"), "variance='fixed'"),
        (lira, dict(center="mode"), "center='mode'"),
        (lira, dict(signal="logits"), "signal 'logits' has sign=0"),
        (lira, dict(signal="lossy"), "there is no 'lossy'.*Did you mean 'loss'"),
        (threshold, dict(signal="logits"), "signal 'logits' has sign=0"),
        (threshold, dict(sign=2), "signal 'loss' has sign=2"),
    ],
)
def test_messages_name_the_bad_argument(maker, fields, message):
    with pytest.raises(ValueError, match=message):
        maker.make(**fields)


def test_a_vector_signal_is_refused():
    fleet = planted.fleet(halves.make(num_examples=40, seed=0, models=8), "logits", mu=1.0, seed=0)
    for attack in (lira.make(signal="logits", sign=1), threshold.make(signal="logits", sign=1)):
        with pytest.raises(ValueError, match="signal 'logits' has shape"):
            attack.score(fleet.evidence_against(0, attack.needs), KEY)
