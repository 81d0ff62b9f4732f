"""Offset, population, reference, base, several signals, class thresholds, privacy risk, ensemble,
range, trajectory, dataset usage.
"""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from mia_jax import registry
from mia_jax.attacks import (
    _probability,
    base,
    class_threshold,
    ensemble,
    lira,
    multi_signal,
    offset,
    population,
    privacy_risk_score,
    reference,
    rmia,
    threshold,
    trajectory,
)
from mia_jax.attacks import range as range_attack
from mia_jax.designs import bernoulli, blocks, disjoint, halves, two_way
from mia_jax.fitting import logistic, moments
from mia_jax.metrics import dataset_usage, roc
from mia_jax.runtime.stacks import Stack
from mia_jax.threat_model import FleetSignals
from tests import planted

KEY = jax.random.key(0)
LOSS_BASE = dict(name="base", signal="loss", temperature=1.0)


def small(
    *names: str,
    models: int = 10,
    mu: float = 1.0,
    query_views: int = 2,
    num_examples: int = 60,
    **fields,
) -> FleetSignals:
    design = halves.make(num_examples=num_examples, seed=0, models=models, population=0.2)
    return planted.fleet(design, *names, mu=mu, seed=0, query_views=query_views, **fields)


def use(fleet: FleetSignals, t: int) -> list[int]:
    """The shadows of t."""
    return [
        m
        for m in range(len(fleet.design.member_MN))
        if fleet.design.unit_M[m] != fleet.design.unit_M[t]
    ]


def check(fleet: FleetSignals, attack, expected, targets=(0, 3), **tolerance) -> None:
    """`expected(t, n)` is the attack's score, one target at a time and all at once."""
    all_TN = attack.score_all(fleet, KEY) if attack.score_all else None
    for t in targets:
        score_N, e = (
            attack.score(fleet.evidence_against(t, attack.needs), KEY),
            np.flatnonzero(fleet.design.evaluated_MN[t]),
        )
        np.testing.assert_allclose(
            score_N[e], [expected(t, n) for n in e], **(dict(rtol=1e-9, atol=1e-12) | tolerance)
        )
        assert np.isnan(score_N[~fleet.design.evaluated_MN[t]]).all()
        if all_TN is not None:
            np.testing.assert_allclose(all_TN[t], score_N, rtol=1e-9, atol=1e-12)


# ---- offset ----


@pytest.mark.parametrize("center", ["mean", "median"])
@pytest.mark.parametrize("side", ["out", "in", "both"])
def test_offset_equals_a_naive_loop(side, center):
    fleet, middle = small("loss"), getattr(np, center)
    s_MAN, d = -fleet.signal["loss"].astype(np.float64), fleet.design

    def expected(t, n):
        total = 0.0
        for a in (0, 1):
            sides = [
                middle([s_MAN[m, a, n] for m in use(fleet, t) if d.member_MN[m, n] == inside])
                for inside in (False, True)
            ]
            total += (
                s_MAN[t, a, n] - (dict(out=sides[0], both=np.mean(sides)) | {"in": sides[1]})[side]
            )
        return total / 2

    attack = offset.make(side=side, center=center)
    check(fleet, attack, expected)
    assert set(attack.needs[1:]) == dict(out={"shadow_out"}, both={"shadow_in", "shadow_out"}).get(
        side, {"shadow_in"}
    )


def test_offset_fills_missing_sides():
    design = bernoulli.make(num_examples=300, seed=0, models=4, population=0.0)
    fleet = planted.fleet(design, "loss", mu=3.0, seed=0, spread=5.0)
    s_MN, inside_MN = -fleet.signal["loss"][:, 0].astype(np.float64), design.member_MN[1:]
    lone = inside_MN.all(0)
    mean = [s_MN[1:][~inside_MN].mean(), s_MN[1:][inside_MN].mean()]
    assert lone.sum() > 10
    expected_N = s_MN[0] - (s_MN[1:].mean(0) - (mean[1] - mean[0]))
    np.testing.assert_allclose(
        offset.make(side="both").score_all(fleet, KEY)[0, lone],
        (expected_N + s_MN[0] - s_MN[1:].mean(0))[lone] / 2,
    )
    np.testing.assert_allclose(
        offset.make().score_all(fleet, KEY)[0, lone], (s_MN[0] - mean[0])[lone]
    )


# ---- population and reference ----


@pytest.mark.parametrize("per_class", [False, True])
def test_population_is_a_p_value_among_population_rows(per_class):
    fleet = small("loss", classes=3)
    s_MAN, z = -fleet.signal["loss"].astype(np.float64), np.flatnonzero(fleet.design.population_N)

    def expected(t, n):
        among = [k for k in z if not per_class or fleet.y[k] == fleet.y[n]] or z
        return np.mean(
            [
                1 - (1 + sum(s_MAN[t, a, k] >= s_MAN[t, a, n] for k in among)) / (len(among) + 1)
                for a in (0, 1)
            ]
        )

    attack = population.make(per_class=per_class)
    check(fleet, attack, expected)
    assert attack.needs == ("loss", "population", "y")[: 2 + per_class]
    diagnosis = attack.diagnose(fleet.evidence_against(0, attack.needs))
    assert diagnosis["resolution"] == 1 / 13 and 0 < diagnosis["top_tie_share"] < 1


def test_population_p_values_keep_their_level():
    """Non-members are exchangeable with population rows.

    Rejecting at score >= 1 - alpha therefore has a false-positive rate of at most alpha.
    """
    rates = []
    for seed in range(40):
        design = halves.make(num_examples=500, seed=seed, models=2, population=0.4, targets=1)
        fleet = planted.fleet(design, "loss", mu=2.0, seed=seed)
        score_N = population.make().score(fleet.evidence_against(0, ("loss", "population")), KEY)
        rates.append(
            [
                (score_N[design.evaluated_MN[0] & ~design.member_MN[0]] >= 1 - alpha - 1e-12).mean()
                for alpha in (0.01, 0.1)
            ]
        )
    low, high = np.mean(rates, 0)
    assert low <= 0.013 and high <= 0.11 and high > 0.08


def test_reference_counts_equal_a_naive_loop():
    fleet = small("loss")
    s_MAN, d = -fleet.signal["loss"].astype(np.float64), fleet.design

    def expected(t, n):
        out = [m for m in use(fleet, t) if not d.member_MN[m, n]]
        return np.mean(
            [
                1 - (1 + sum(s_MAN[m, a, n] >= s_MAN[t, a, n] for m in out)) / (len(out) + 1)
                for a in (0, 1)
            ]
        )

    check(fleet, reference.make(quantile="count"), expected)


def test_smooth_reference_equals_a_naive_loop(monkeypatch):
    fleet = small("loss", query_views=1)
    s_MN, d = -fleet.signal["loss"][:, 0].astype(np.float64), fleet.design

    def outside(t, n):
        return np.array([s_MN[m, n] for m in use(fleet, t) if not d.member_MN[m, n]])

    def expected(t, n):
        residuals = [
            v - v.mean() for v in (outside(t, k) for k in np.flatnonzero(d.evaluated_MN[t]))
        ]
        sd = np.sqrt(sum((r**2).sum() for r in residuals) / sum(len(r) - 1 for r in residuals))
        out = outside(t, n)
        return -np.log(np.mean(norm.cdf((out - s_MN[t, n]) / (sd * (4 / (3 * len(out))) ** 0.2))))

    check(fleet, reference.make(), expected, targets=(1,))
    monkeypatch.setattr(reference, "EXACT", 10)  # of many examples, tails are added up
    monkeypatch.setattr(moments, "BLOCK", 16)
    check(fleet, reference.make(), expected, targets=(1,))
    monkeypatch.setattr(reference, "TINY", 0.2)  # and logarithms where they are tiny
    check(fleet, reference.make(), expected, targets=(1,))


def test_one_out_shadow_ranks_by_the_difference():
    fleet = small("loss", models=4, query_views=1)
    s_MN, d = -fleet.signal["loss"][:, 0], fleet.design
    out_N = np.where(d.member_MN[2], s_MN[3], s_MN[2])
    score_N, e = (
        reference.make().score(fleet.evidence_against(0, reference.make().needs), KEY),
        d.evaluated_MN[0],
    )
    np.testing.assert_array_equal(np.argsort(score_N[e]), np.argsort((s_MN[0] - out_N)[e]))
    lone = planted.fleet(bernoulli.make(num_examples=200, seed=0, models=3), "loss", mu=5.0, seed=0)
    assert planted.mean_auc(lone, planted.scores(lone, reference.make(), KEY)) > 0.8


# ---- base ----


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_base_equals_a_naive_log_sum_exp(mode):
    fleet = small("logits", models=8)
    z, d = fleet.signal["logits"].astype(np.float64) / 2.0, fleet.design
    log_p = np.take_along_axis(
        z - logsumexp(z, -1, keepdims=True), fleet.y[None, None, :, None], -1
    )[..., 0]

    def expected(t, n):
        shadows = [m for m in use(fleet, t) if mode == "online" or not d.member_MN[m, n]]
        log_mean = [logsumexp(log_p[shadows, a, n]) - np.log(len(shadows)) for a in (0, 1)]
        log_mean = (
            [np.log(((1 + 0.33) * np.exp(v) + 1 - 0.33) / 2) for v in log_mean]
            if mode == "offline"
            else log_mean
        )
        return np.mean(log_p[t, :, n] - log_mean)

    check(fleet, base.make(mode=mode), expected)


@pytest.mark.parametrize("nats", [100.0, 2_500.0, 1e6])
def test_attacks_that_compare_probabilities_do_so_in_logarithms(nats):
    """Losses of a sequence: exp(-nats) is 0 in float64.

    A constant added to every loss changes no difference.
    """
    design = bernoulli.make(num_examples=300, seed=0, models=8, population=0.2)
    rng = np.random.default_rng(0)
    loss_MN = (
        rng.normal(size=(8, 300)) + rng.normal(size=300) - 1.5 * design.member_MN
    )  # float32 holds them to 1e-7; so they stay float64
    fields = dict(signal="loss", temperature=1.0)
    for attack in (
        base.make(**fields),
        rmia.make(population_p="out", **fields),
        range_attack.make(attack=LOSS_BASE),
    ):
        aucs = []
        for level in (30.0, nats):
            fleet = FleetSignals(
                design=design, signal=dict(loss=level + loss_MN[:, None]), num_classes=2
            )
            aucs.append(planted.mean_auc(fleet, attack.score_all(fleet, KEY)))
        assert aucs[0] == pytest.approx(aucs[1], abs=5e-3) and aucs[0] > 0.7


def test_offline_base_on_long_sequences_is_its_formula():
    design = bernoulli.make(num_examples=100, seed=0, models=8)
    rng = np.random.default_rng(0)
    loss_MN = 2_500 + rng.normal(size=(8, 100)) - 5.0 * design.member_MN
    fleet = FleetSignals(design=design, signal=dict(loss=loss_MN[:, None]), num_classes=2)
    score_N = base.make(signal="loss", temperature=1.0, mode="offline").score_all(fleet, KEY)[0]
    e = design.evaluated_MN[0]
    np.testing.assert_allclose(
        score_N[e], (-loss_MN[0] - np.log(0.67 / 2))[e], rtol=1e-12
    )  # 1.33 out is nothing beside .67


def test_the_mean_of_equal_values_is_that_value_whatever_their_number():
    rng = np.random.default_rng(0)
    value_N = np.concatenate([rng.normal(size=50), [-2_500.0, 0.1, 1 / 3, 1e100, -745.2]])
    for models in range(1, 12):
        value_MN, everyone = np.tile(value_N, (models, 1)), np.ones((models, len(value_N)), bool)
        np.testing.assert_array_equal(_probability.log_mean(value_MN, everyone), value_N)
        side = moments.moments(value_MN, everyone)
        np.testing.assert_array_equal(side.center, value_N)
        np.testing.assert_array_equal(side.m2, 0)
    two_MN = np.array([[-800.0, 0.0], [-801.0, np.nan]])
    found_N = _probability.log_mean(two_MN, ~np.isnan(two_MN))
    np.testing.assert_allclose(found_N, [-800 + np.log((1 + np.exp(-1)) / 2), 0.0])
    assert np.isnan(_probability.log_mean(two_MN, np.zeros((2, 2), bool))).all()


# ---- several signals ----


def test_multi_signal_is_the_sum_of_liras():
    fleet = small("rescaled_logit", "hinge", models=12)
    for fields in (dict(variance="pooled"), dict(mode="offline"), {}):
        attack = multi_signal.make(**fields)
        parts = [
            lira.make(signal=name, **(dict(variance="shrunk") | fields))
            for name in ("rescaled_logit", "hinge")
        ]
        expected_TN = sum(part.score_all(fleet, KEY) for part in parts)
        np.testing.assert_allclose(attack.score_all(fleet, KEY), expected_TN, rtol=1e-12)
        np.testing.assert_allclose(
            planted.scores(fleet, attack, KEY), expected_TN, rtol=1e-8, atol=1e-9
        )


def test_joint_signals_are_views_of_one_attack():
    fleet = small("rescaled_logit", "loss", models=12)
    attack = multi_signal.make(signals=("rescaled_logit", "loss"), joint="multivariate")
    stacked = np.concatenate([fleet.signal["rescaled_logit"], -fleet.signal["loss"]], 1)
    whole = dataclasses.replace(fleet, signal=dict(rescaled_logit=stacked))
    expected_TN = planted.scores(whole, lira.make(views="multivariate"), KEY)
    np.testing.assert_allclose(planted.scores(fleet, attack, KEY), expected_TN, rtol=1e-12)
    with pytest.raises(ValueError, match="at least 2 signals"):
        multi_signal.make(signals=("loss",))
    with pytest.raises(ValueError, match="signal 'logits' has sign=0"):
        multi_signal.make(signals=("loss", "logits"))


# ---- class thresholds and privacy risk ----


def test_class_thresholds_equal_the_best_of_each_class():
    fleet = small("modified_entropy", classes=3, num_examples=90)
    s_MN, d = -fleet.signal["modified_entropy"].astype(np.float64).mean(1), fleet.design

    def expected(t, n):
        rows = d.evaluated_MN[t] & (fleet.y == fleet.y[n])
        value = np.concatenate([s_MN[m, rows] for m in use(fleet, t)])
        member = np.concatenate([d.member_MN[m, rows] for m in use(fleet, t)])
        return s_MN[t, n] - roc.best_threshold(roc.roc(value, member))[0]

    check(fleet, class_threshold.make(), expected)
    attack_on_view = class_threshold.make(view=1)
    only = dataclasses.replace(
        fleet, signal=dict(modified_entropy=fleet.signal["modified_entropy"][:, 1:])
    )
    np.testing.assert_array_equal(
        attack_on_view.score_all(fleet, KEY), class_threshold.make().score_all(only, KEY)
    )
    with pytest.raises(ValueError, match=r"view=2 .* there are 2 views"):
        class_threshold.make(view=2).score(fleet.evidence_against(0, attack_on_view.needs), KEY)


def test_a_class_without_a_threshold_takes_the_pooled_one():
    member_MN = np.array([[True, False, True, False]] * 2)
    value_MN = np.array([[1.0, 0.0, 3.0, 9.0]] * 2)  # class 1: non-members above members
    everyone = np.ones((2, 2), bool)
    found_MC = class_threshold.learned(
        value_MN, member_MN, member_MN | True, everyone, np.array([0, 0, 1, 1]), 3
    )
    np.testing.assert_array_equal(found_MC, [[0.5, 0.5, 0.5]] * 2)
    worse = class_threshold.learned(
        -value_MN, ~member_MN, member_MN | True, everyone, np.array([0, 0, 1, 1]), 2
    )
    assert np.isfinite(worse).all()
    with pytest.raises(ValueError, match="2 shadows have 0 evaluated members and 8 non-members"):
        class_threshold.learned(
            value_MN, member_MN & False, member_MN | True, everyone, np.array([0, 0, 1, 1]), 2
        )


def test_attacks_on_own_rows_run_on_blocks_and_disjoint():
    for design in (
        blocks.make(num_examples=200, seed=0, size=20, sources=3),
        disjoint.make(num_examples=200, seed=0, models=8, targets=2),
    ):
        for attack in (class_threshold.make(), privacy_risk_score.make(), trajectory.make()):
            fleet = planted.fleet(design, *planted.signal_names(attack), mu=5.0, seed=0)
            assert (
                not fleet.refuse(attack, "it")
                and planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)) > 0.85
            )
    nothing = planted.fleet(
        two_way.make(num_examples=100, seed=0, drawn=True), "loss", mu=5.0, seed=0
    )
    assert "the source was trained on the rows that the target" in nothing.refuse(
        privacy_risk_score.make(), "privacy_risk_score"
    )


def test_privacy_risk_scores_by_hand():
    """Losses 1e-4 .. 1 in 4 bins with inner edges 1e-3, 1e-2, .1."""
    loss = np.array([1e-4, 2e-4, 5e-3, 0.5, 1.0, 0.2, 5e-3, 3e-4])
    member = np.array([True, True, True, True, False, False, False, False])
    bin_of = privacy_risk_score._binning(loss, 4)
    np.testing.assert_array_equal(
        bin_of(np.array([1e-9, 1e-4, 9e-4, 1.1e-3, 0.02, 0.5, 7.0])), [0, 0, 0, 1, 2, 3, 3]
    )
    found_CB = privacy_risk_score.posteriors(bin_of(loss), member, np.zeros(8, int), 4, 1)
    np.testing.assert_allclose(found_CB, [[2 / 3, 1 / 2, 1 / 2, 1 / 3]])
    per_class = privacy_risk_score.posteriors(
        bin_of(loss), member, np.array([0, 0, 0, 0, 0, 0, 0, 1]), 4, 2
    )
    np.testing.assert_allclose(per_class, [[1, 3 / 7, 1 / 2, 3 / 11], [2 / 3, 1 / 2, 1 / 2, 1 / 3]])


def test_privacy_risk_is_a_calibrated_probability():
    design = halves.make(num_examples=4000, seed=0, models=8, targets=4)
    fleet = planted.fleet(design, "rescaled_logit", mu=1.0, seed=0)
    fleet = dataclasses.replace(fleet, signal=dict(loss=np.exp(-fleet.signal["rescaled_logit"])))
    for attack in (privacy_risk_score.make(), privacy_risk_score.make(per_class=True, bins=5)):
        score_TN, e = planted.scores(fleet, attack, KEY), design.evaluated_MN[:4]
        score_K, member_K = score_TN[e], design.member_MN[:4][e]
        for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.95)):
            inside = (score_K > low) & (score_K <= high)
            assert abs(member_K[inside].mean() - score_K[inside].mean()) < 0.03
    member_MN = np.zeros_like(design.member_MN)
    member_MN[0] = design.member_MN[0]
    nobody = dataclasses.replace(fleet, design=dataclasses.replace(design, member_MN=member_MN))
    with pytest.raises(
        ValueError, match="6 shadows have 0 evaluated members and 21600 non-members"
    ):
        privacy_risk_score.make().score(nobody.evidence_against(0, ("loss", "shadow_own")), KEY)


# ---- logistic regression and the ensemble ----


def test_logistic_equals_scikit_learn():
    rng = np.random.default_rng(0)
    member_K = rng.random(400) < 0.3
    x_KF = rng.normal(size=(400, 3)) + member_K[:, None] * [1.0, -0.5, 0.0]
    weight_F, intercept = logistic.balanced(x_KF, member_K, ridge=0.01)
    peer = LogisticRegression(
        C=1 / (0.01 * 400), class_weight="balanced", tol=1e-12, max_iter=10_000
    ).fit(x_KF, member_K)
    np.testing.assert_allclose(weight_F, peer.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(intercept, peer.intercept_[0], rtol=1e-5)


def test_logistic_ends_on_separable_and_on_constant_data():
    member_K = np.arange(10) < 5
    weight_F, intercept = logistic.balanced(
        np.where(member_K, 1.0, -1.0)[:, None], member_K, ridge=1e-6
    )
    assert np.isfinite(weight_F).all() and weight_F[0] > 5 and abs(intercept) < 1e-6
    weight_F, intercept = logistic.balanced(np.zeros((10, 2)), member_K)
    assert (weight_F == 0).all() and abs(intercept) < 1e-9
    with pytest.raises(ValueError, match="10 member and 0 non-member rows"):
        logistic.balanced(np.zeros((10, 2)), member_K | True)
    with pytest.raises(ValueError, match="features has 2 of 20 values that are NaN"):
        logistic.balanced(
            np.where(np.arange(10)[:, None] == 3, np.nan, np.zeros((10, 2))), member_K
        )


PARTS = dict(
    a=dict(name="threshold", signal="loss"),
    b=dict(name="offset", signal="hinge"),
    c=dict(name="lira", variance="pooled"),
)


def test_ensemble_equals_a_fit_on_the_first_shadows():
    fleet = small("loss", "hinge", "rescaled_logit", models=8, num_examples=100)
    attack = ensemble.make(attacks=PARTS, shadows=3)
    parts, d = (
        [
            registry.make("attacks", p["name"], {k: v for k, v in p.items() if k != "name"})
            for p in PARTS.values()
        ],
        fleet.design,
    )

    def features(t, rest):
        shadow_MM = np.zeros_like(d.shadow_MM)
        shadow_MM[t, rest] = True
        reduced = dataclasses.replace(fleet, design=dataclasses.replace(d, shadow_MM=shadow_MM))
        scores = [
            p.score(reduced.evidence_against(t, p.needs), KEY)[d.evaluated_MN[t]] for p in parts
        ]
        return np.stack(
            [
                np.clip(
                    (s - np.median(s)) / (np.diff(np.quantile(s, [0.25, 0.75]))[0] / 1.349), -10, 10
                )
                for s in scores
            ],
            1,
        )

    rest = use(fleet, 0)
    inner = [
        (
            features(j, [m for m in rest if d.unit_M[m] != d.unit_M[j]]),
            d.member_MN[j, d.evaluated_MN[j]],
        )
        for j in rest[:3]
    ]
    x_KF, member_K = (np.concatenate([pair[i] for pair in inner]) for i in (0, 1))
    peer = LogisticRegression(
        C=1 / (1e-3 * len(x_KF)), class_weight="balanced", tol=1e-12, max_iter=10_000
    ).fit(x_KF, member_K)
    expected_K = peer.decision_function(features(0, rest))
    found_K = attack.score(fleet.evidence_against(0, attack.needs), KEY)[d.evaluated_MN[0]]
    np.testing.assert_allclose(found_K, expected_K, rtol=1e-4, atol=1e-5)


def test_ensemble_finds_the_attack_that_works():
    fleet = small("loss", "rescaled_logit", models=12, num_examples=400, mu=2.0)
    noise = np.random.default_rng(1).normal(size=fleet.signal["loss"].shape).astype(np.float32)
    fleet = dataclasses.replace(fleet, signal=dict(fleet.signal, loss=noise))
    parts = dict(noise=dict(name="threshold"), lira=dict(name="lira", variance="shrunk"))
    auc = planted.mean_auc(fleet, planted.scores(fleet, ensemble.make(attacks=parts), KEY))
    assert auc > planted.mean_auc(fleet, lira.make(variance="shrunk").score_all(fleet, KEY)) - 0.01


def test_ensemble_without_shadows_of_shadows_averages():
    fleet = small("loss", "hinge", "rescaled_logit", models=4)
    attack, e = ensemble.make(attacks=PARTS), fleet.design.evaluated_MN[0]
    parts = [
        registry.make("attacks", p["name"], {k: v for k, v in p.items() if k != "name"})
        for p in PARTS.values()
    ]
    expected_K = np.mean(
        [ensemble.standardized(p.score(fleet.evidence_against(0, p.needs), KEY)[e]) for p in parts],
        0,
    )
    np.testing.assert_allclose(
        attack.score(fleet.evidence_against(0, attack.needs), KEY)[e], expected_K, rtol=1e-12
    )


def test_ensemble_refuses_what_it_cannot_stack():
    with pytest.raises(ValueError, match="at least 2 attacks"):
        ensemble.make(attacks=dict(a=dict(name="gap")))
    with pytest.raises(ValueError, match=r"there is no 'lirra'.*Did you mean 'lira'"):
        ensemble.make(attacks=dict(a=dict(name="gap"), b=dict(name="lirra")))
    with pytest.raises(ValueError, match="half_of_target_members"):
        ensemble.make(attacks=dict(a=dict(name="gap"), b=dict(name="attack_model", fit="target")))
    design = blocks.make(num_examples=200, seed=0, size=20, sources=3)
    assert "shadow_in" in FleetSignals(design=design, signal={}, num_classes=2).refuse(
        ensemble.make(), "ensemble"
    )


# ---- range ----


def test_range_is_the_trimmed_mean_over_views():
    fleet = small("loss", query_views=5)
    attack, s_MAN = (
        range_attack.make(attack=dict(name="threshold")),
        -fleet.signal["loss"].astype(np.float64),
    )
    check(fleet, attack, lambda t, n: np.mean(np.sort(s_MAN[t, :, n])[2:]))
    middle = range_attack.make(attack=dict(name="offset"), low=0.2, high=0.6)
    whole = [
        offset.make().score_all(
            dataclasses.replace(fleet, signal=dict(loss=fleet.signal["loss"][:, a : a + 1])), KEY
        )
        for a in range(5)
    ]
    np.testing.assert_allclose(
        middle.score_all(fleet, KEY), np.sort(whole, 0)[1:3].mean(0), rtol=1e-12
    )
    np.testing.assert_allclose(
        planted.scores(fleet, middle, KEY), middle.score_all(fleet, KEY), rtol=1e-9
    )


@pytest.mark.parametrize(
    "low, high, kept",
    [
        (0.4, 1.0, [4, 5, 6, 7, 8, 9]),
        (0.0, 1.0, range(10)),
        (0.99, 1.0, [9]),
        (0.0, 0.05, [0]),
        (0.25, 0.5, [2, 3, 4]),
    ],
)
def test_which_views_are_kept(low, high, kept):
    score_AN = np.random.default_rng(0).permutation(10.0 * np.arange(10))[:, None]
    assert range_attack.trimmed_mean(score_AN, low, high)[0] == np.mean(10.0 * np.asarray(kept))
    assert range_attack.trimmed_mean(score_AN[:1], low, high) == score_AN[0]


def test_a_range_with_no_width_is_refused():
    with pytest.raises(ValueError, match=r"low=0\.5 must be below high=0\.5"):
        range_attack.make(low=0.5, high=0.5)
    assert threshold.make().needs == range_attack.make(attack=dict(name="threshold")).needs
    assert range_attack.make(attack=dict(name="threshold")).knows == "nothing"


# ---- trajectory ----


def test_trajectory_equals_scikit_learn():
    fleet = small("loss_trajectory", models=6, num_examples=200)
    attack, d = trajectory.make(shadows=3), fleet.design
    x_MNE = -np.log(fleet.signal["loss_trajectory"].astype(np.float64)).mean(1)
    evaluated_N = d.evaluated_MN[0]
    x_KE = np.concatenate([x_MNE[m, evaluated_N] for m in use(fleet, 0)[:3]])
    center_E, sd_E = x_KE.mean(0), x_KE.std(0)
    member_K = np.concatenate([d.member_MN[m, evaluated_N] for m in use(fleet, 0)[:3]])
    peer = LogisticRegression(
        C=1 / (1e-3 * len(x_KE)), class_weight="balanced", tol=1e-12, max_iter=10_000
    ).fit((x_KE - center_E) / sd_E, member_K)
    score_N = attack.score(fleet.evidence_against(0, attack.needs), KEY)
    np.testing.assert_allclose(
        score_N[evaluated_N],
        peer.decision_function((x_MNE[0, evaluated_N] - center_E) / sd_E),
        rtol=1e-4,
        atol=1e-5,
    )
    assert np.isnan(score_N[~evaluated_N]).all()


def test_trajectory_of_one_epoch_ranks_by_the_loss():
    fleet = small("loss_trajectory", mu=2.0)
    last = dataclasses.replace(
        fleet, signal=dict(loss_trajectory=fleet.signal["loss_trajectory"][..., -1:])
    )
    score_N, e = (
        trajectory.make().score(last.evidence_against(0, trajectory.make().needs), KEY),
        fleet.design.evaluated_MN[0],
    )
    mean_N = -np.log(last.signal["loss_trajectory"][0, :, :, 0].astype(np.float64)).mean(0)
    np.testing.assert_array_equal(np.argsort(score_N[e]), np.argsort(mean_N[e]))
    with pytest.raises(ValueError, match=r"needs \[..,A,N,E\] with E >= 1"):
        flat = dataclasses.replace(
            fleet, signal=dict(loss_trajectory=fleet.signal["loss_trajectory"][..., :0])
        )
        trajectory.make().score(flat.evidence_against(0, trajectory.make().needs), KEY)


def test_trajectory_lira_is_multivariate_over_epochs():
    fleet = small("loss_trajectory", models=8, query_views=1)
    attack = trajectory.make(form="lira", mode="offline")
    as_views = -np.log(fleet.signal["loss_trajectory"][:, 0].astype(np.float64)).swapaxes(1, 2)
    whole = dataclasses.replace(fleet, signal=dict(rescaled_logit=as_views))
    expected_TN = planted.scores(whole, lira.make(mode="offline", views="multivariate"), KEY)
    np.testing.assert_allclose(planted.scores(fleet, attack, KEY), expected_TN, rtol=1e-9)
    assert attack.needs == ("loss_trajectory", "shadow_out")


@pytest.mark.parametrize("fields", [dict(), dict(form="lira")])
def test_a_trajectory_that_stays_in_its_files_gives_the_same_bits(fields):
    fleet, attack = small("loss_trajectory", models=8), trajectory.make(**fields)
    value = fleet.signal["loss_trajectory"]
    stack = Stack(list(value), shape=value.shape, dtype=value.dtype)
    mapped = dataclasses.replace(fleet, signal=dict(loss_trajectory=stack))
    scores = [planted.scores(f, attack, KEY) for f in (fleet, mapped)]
    np.testing.assert_array_equal(*scores)


def test_the_whole_trajectory_leaks_more_than_its_end():
    fleet = small("loss_trajectory", models=8, mu=1.5, num_examples=600, query_views=1)
    last = dataclasses.replace(
        fleet, signal=dict(loss_trajectory=fleet.signal["loss_trajectory"][..., -1:])
    )
    whole, end = (
        planted.mean_auc(f, planted.scores(f, trajectory.make(), KEY)) for f in (fleet, last)
    )
    assert whole > end + 0.02


# ---- how much of a data set was used ----


def test_shares_by_hand():
    """TPR 3/4, FPR 1/4 over two shadows; 5 of 8 rows named: (5/8 - 1/4) / (1/2) = 3/4."""
    member = np.array([[True] * 4 + [False] * 4, [False] * 4 + [True] * 4])
    shadow = np.array([[1.0, 1, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1, 1, 0]])
    fields = dict(
        threshold=0.5, rows_N=np.ones(8, bool), shadow_score_SN=shadow, shadow_member_SN=member
    )
    usage = dataset_usage.usage(np.array([1.0, 1, 1, 1, 1, 0, 0, 0]), **fields)
    assert (usage.share, usage.tpr, usage.fpr, usage.named, usage.rows, usage.shadows) == (
        0.75,
        0.75,
        0.25,
        0.625,
        8,
        2,
    )
    assert usage.method == "shadows" and 0 <= usage.low <= usage.share <= usage.high <= 1
    twins = dataset_usage.usage(
        np.array([1.0, 1, 1, 1, 1, 0, 0, 0]), **fields, unit_S=[0, 0], level=0.4
    )
    variance = 0.625 * 0.375 / 8 + 0.75**2 * 0.1875 / 8 + 0.25**2 * 0.1875 / 8
    assert twins.method == "records" and twins.low == pytest.approx(
        0.75 - norm.ppf(0.7) * np.sqrt(variance) / 0.5
    )


def used(seed: int, *, models: int = 14, offset: float = 0.3) -> dict:
    """Returns a usage estimate on 150 rows, a random share of which are the target's members.

    Scores of a model share a random offset.
    """
    rng = np.random.default_rng(seed)
    d = halves.make(num_examples=400, seed=seed, models=models)
    score_MN = (
        rng.normal(size=(models, 400))
        + 0.7 * rng.normal(size=400)
        + 1.5 * d.member_MN
        + offset * rng.normal(size=(models, 1))
    )
    inside = int(150 * rng.uniform(0.1, 0.9))
    rows_N = np.zeros(400, bool)
    rows_N[rng.permutation(np.flatnonzero(d.member_MN[0]))[:inside]] = True
    rows_N[rng.permutation(np.flatnonzero(d.evaluated_MN[0] & ~d.member_MN[0]))[: 150 - inside]] = (
        True
    )
    fields = dict(targets=[0], threshold_M=np.full(models, 0.75), rows_N=rows_N, unit_M=d.unit_M)
    return dataset_usage.table(score_MN, d.member_MN, d.evaluated_MN, d.shadow_MM, **fields)[0]


def test_shares_are_unbiased_and_their_intervals_cover():
    usages = [used(seed) for seed in range(200)]
    error = np.array([row["unbiased"] - row["true_share"] for row in usages])
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(200)
    assert np.mean([row["low"] <= row["true_share"] <= row["high"] for row in usages]) >= 0.92
    assert {row["method"] for row in usages} == {"shadows"} and usages[0]["rows"] == 150


def test_a_share_lies_within_its_interval_or_there_is_none():
    """Random scores on few rows: the quotient often leaves [0, 1].

    A target unlike its shadows leaves it for certain.
    """
    outside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shadow_SN, member_SN = rng.normal(size=(6, 60)), rng.random((6, 60)) < 0.5
        try:
            usage = dataset_usage.usage(
                rng.normal(size=60),
                threshold=0.3,
                rows_N=np.ones(60, bool),
                shadow_score_SN=shadow_SN,
                shadow_member_SN=member_SN,
            )
        except ValueError:
            continue  # TPR is not above FPR
        outside += not 0 <= usage.unbiased <= 1
        assert usage.share is None or 0 <= usage.low <= usage.share <= usage.high <= 1
    assert outside > 10
    rng = np.random.default_rng(0)
    member_SN = rng.random((12, 400)) < 0.5
    shadow_SN = 4.0 * member_SN + rng.normal(size=(12, 400))
    fields = dict(
        threshold=2.0,
        rows_N=np.ones(400, bool),
        shadow_score_SN=shadow_SN,
        shadow_member_SN=member_SN,
    )
    unlike = dataset_usage.usage(np.where(np.arange(400) < 20, 5.0, -9.0), **fields)
    assert (
        0 <= unlike.low <= unlike.share <= unlike.high <= 1 and unlike.high < 0.2
    )  # 5% flagged: few members, or none at the shadows' FPR
    fields["shadow_score_SN"] = np.where(member_SN, 4.0, rng.random((12, 400)) < 0.3) + 0.0
    fields["threshold"] = 1.0
    nothing = dataset_usage.usage(
        np.full(400, -9.0), **fields
    )  # no row is flagged where the shadows flag 30% of their non-members
    assert nothing.unbiased < -0.3 and (nothing.share, nothing.low, nothing.high) == (
        None,
        None,
        None,
    )


def test_an_uninformative_attack_gives_no_share():
    rows, member = np.ones(4, bool), np.array([[True, True, False, False]])
    with pytest.raises(ValueError, match="TPR=0 is not above their FPR=1"):
        dataset_usage.usage(
            np.zeros(4),
            threshold=0.5,
            rows_N=rows,
            shadow_score_SN=~member * 1.0,
            shadow_member_SN=member,
        )
    with pytest.raises(ValueError, match="1 shadows have 0 known members and 4 known non-members"):
        dataset_usage.usage(
            np.zeros(4),
            threshold=0.5,
            rows_N=rows,
            shadow_score_SN=np.zeros((1, 4)),
            shadow_member_SN=member & False,
        )
    with pytest.raises(ValueError, match="none of the 4 rows has a score"):
        dataset_usage.usage(
            np.full(4, np.nan),
            threshold=0.5,
            rows_N=rows,
            shadow_score_SN=np.zeros((1, 4)),
            shadow_member_SN=member,
        )
