"""LiRA beyond the plain Gaussian: shrinkage, the sides' variances, several views at once, few
shadows, and the test of normality.
"""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, ndtr, polygamma

from mia_jax import configuration, registry, threat_model
from mia_jax.attacks import _multivariate, _normality, _shrinkage, _sides, _student, lira
from mia_jax.designs import bernoulli, disjoint, halves
from mia_jax.fitting import moments, variances
from mia_jax.measures import shadow_curve
from mia_jax.pipeline import run
from mia_jax.query import forward
from mia_jax.threat_model import FleetSignals
from tests import planted

KEY = jax.random.key(0)


def uneven(design, *, seed: int, query_views: int = 1, mu: float = 1.0) -> FleetSignals:
    """Returns a fleet from which shrinkage has something to learn.

    Difficulties are N(0, 4), variances differ by example and leaks grow with difficulty.
    """
    rng = np.random.default_rng(seed)
    m, n = design.member_MN.shape
    hard_N = rng.normal(size=n)
    sd_N = np.exp(0.4 * hard_N + 0.3 * rng.normal(size=n))
    leak_N = mu * np.maximum(1 + hard_N + 0.3 * rng.normal(size=n), 0)
    noise = rng.normal(size=(m, query_views, n)) * sd_N
    signal = (-2 * hard_N + noise + leak_N * design.member_MN[:, None]).astype(np.float32)
    return FleetSignals(
        design=design,
        signal=dict(rescaled_logit=signal),
        num_classes=2,
        x=rng.normal(size=(n, 2)),
        y=np.zeros(n, np.int32),
    )


def sides_of(fleet: FleetSignals, t: int) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Returns the signals of query view 0: the target's, and the shadows' per side and example."""
    d = fleet.design
    use = [m for m in range(len(d.member_MN)) if d.unit_M[m] != d.unit_M[t]]
    s_MN, rows = (
        fleet.signal["rescaled_logit"][:, 0].astype(np.float64),
        np.flatnonzero(d.evaluated_MN[t]),
    )
    return s_MN[t, rows], [
        [np.array([s_MN[m, n] for m in use if d.member_MN[m, n] == inside]) for n in rows]
        for inside in (False, True)
    ]


# ---- shrinkage against a loop over examples ----


def naive_prior(x_NK, side) -> tuple[np.ndarray, float]:
    """(prior variance of every example, prior degrees of freedom) by Smyth's moments about a
    least-squares trend.
    """
    dof = np.array([len(v) - 1 for v in side])
    log_N = np.array([np.log(np.var(v, ddof=1)) for v in side]) - digamma(dof / 2) + np.log(dof / 2)
    coefficients = np.linalg.lstsq(x_NK, log_N, rcond=None)[0]
    spread = ((log_N - x_NK @ coefficients) ** 2).sum() / (len(log_N) - 3) - polygamma(
        1, dof / 2
    ).mean()
    spread -= 2 * np.sqrt((polygamma(3, dof / 2) + 2 * polygamma(1, dof / 2) ** 2).sum()) / len(dof)
    if spread <= 0:
        return np.exp(x_NK @ coefficients), np.inf
    half = brentq(lambda h: polygamma(1, h) - spread, 1e-3, 1e6, xtol=1e-12)
    return np.exp(x_NK @ coefficients + digamma(half) - np.log(half)), 2 * half


def naive_shrunk(own_N, sides, form: str) -> np.ndarray:
    center = [np.array([v.mean() for v in side]) for side in sides]
    u_N = np.mean(center, 0) - np.mean([np.concatenate(side).mean() for side in sides])
    x_N3 = np.stack(
        [u_N**k if len(sides) == 2 else np.ones_like(u_N) * (k == 0) for k in range(3)], 1
    )
    variance, dof, count = [], [], []
    for side in sides:
        prior_N, prior_dof = naive_prior(x_N3, side)
        n_N, m2_N = (
            np.array([len(v) for v in side]),
            np.array([((v - v.mean()) ** 2).sum() for v in side]),
        )
        variance.append(
            prior_N if np.isinf(prior_dof) else (prior_dof * prior_N + m2_N) / (prior_dof + n_N - 1)
        )
        dof.append(prior_dof + n_N - 1)
        count.append(n_N)
    if len(sides) == 1:
        z = (own_N - center[0]) / np.sqrt(variance[0] * (1 + 1 / count[0]))
        law = stats.t(dof[0]) if np.isfinite(dof[0]).all() else stats.norm
        return (
            law.logcdf(z)
            if form == "log_cdf"
            else -(law.logpdf(z) - np.log(np.sqrt(variance[0] * (1 + 1 / count[0]))))
        )
    difference_N = center[1] - center[0]
    raw = [np.array([np.var(v, ddof=1) / len(v) for v in side]) for side in sides]
    coefficients = np.linalg.lstsq(x_N3, difference_N, rcond=None)[0]
    prior_N = x_N3 @ coefficients
    tau2 = ((difference_N - prior_N) ** 2).sum() / (len(own_N) - 3) - np.mean(raw[0] + raw[1])
    assert tau2 > 0.01
    score_N = np.zeros(len(own_N))
    for n in range(len(own_N)):
        k, v = [c[n] for c in count], [w[n] for w in variance]
        precision = np.array(
            [[k[0] / v[0] + 1 / tau2, -1 / tau2], [-1 / tau2, k[1] / v[1] + 1 / tau2]]
        )
        right = [
            k[0] / v[0] * center[0][n] - prior_N[n] / tau2,
            k[1] / v[1] * center[1][n] + prior_N[n] / tau2,
        ]
        mean, cover = np.linalg.solve(precision, right), np.linalg.inv(precision)
        law = [stats.t(dof[i][n], mean[i], np.sqrt(v[i] + cover[i, i])) for i in (0, 1)]
        score_N[n] = law[1].logpdf(own_N[n]) - law[0].logpdf(own_N[n])
    return score_N


@pytest.mark.parametrize(
    "fields", [{}, dict(mode="offline"), dict(mode="offline", offline_score="log_pdf")]
)
@pytest.mark.parametrize("models", [8, 20])
def test_shrunk_equals_a_naive_loop(fields, models):
    fleet = uneven(halves.make(num_examples=120, seed=0, models=models), seed=1)
    attack = lira.make(variance="shrunk", **fields)
    own_N, sides = sides_of(fleet, 2)
    if fields:
        sides, offset = (
            sides[:1],
            np.log(np.sqrt(2 * np.pi)) * (fields.get("offline_score") == "log_pdf"),
        )
    expected_N = naive_shrunk(own_N, sides, fields.get("offline_score", "log_cdf")) - (
        offset if fields else 0
    )
    found_N = attack.score(fleet.evidence_against(2, attack.needs), KEY)[
        fleet.design.evaluated_MN[2]
    ]
    np.testing.assert_allclose(found_N, expected_N, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "maker, models",
    [(halves, 4), (halves, 6), (halves, 14), (bernoulli, 3), (bernoulli, 5), (bernoulli, 12)],
)
@pytest.mark.parametrize(
    "fields",
    [dict(variance="shrunk"), dict(variance="shrunk", mode="offline"), dict(variance="global")],
)
def test_score_all_equals_one_target_at_a_time(maker, models, fields, monkeypatch):
    monkeypatch.setattr(moments, "BLOCK", 64)
    fleet = uneven(maker.make(num_examples=150, seed=0, models=models), seed=0, query_views=2)
    attack = lira.make(**fields)
    np.testing.assert_allclose(
        attack.score_all(fleet, KEY), planted.scores(fleet, attack, KEY), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("shadows", ["all others", "one half", "their own"])
@pytest.mark.parametrize(
    "fields", [dict(), dict(variance="global"), dict(variance="gaussian", mode="offline"),
               dict(center="median")],
)  # fmt: skip
def test_many_examples_are_scored_together(fields, shadows, offset, monkeypatch):
    """float64 signals about an offset, and targets that share their shadows or have their own."""
    monkeypatch.setattr(moments, "BLOCK", 64)
    fleet = uneven(bernoulli.make(num_examples=150, seed=0, models=8), seed=0, query_views=2)
    values = {name: offset + value.astype(np.float64) for name, value in fleet.signal.items()}
    design, shadow_MM = fleet.design, fleet.design.shadow_MM.copy()
    if shadows == "one half":
        shadow_MM[:4, :4] = shadow_MM[4:, 4:] = False
    if shadows == "their own":
        shadow_MM[np.arange(8), np.arange(8) - 1] = False
    fleet = dataclasses.replace(
        fleet, signal=values, design=dataclasses.replace(design, shadow_MM=shadow_MM)
    )
    attack = lira.make(**fields)
    expected = planted.scores(fleet, attack, KEY)
    monkeypatch.setattr(_sides, "EXACT", 100)
    monkeypatch.setattr(_sides, "score_evidence", None)
    np.testing.assert_allclose(attack.score_all(fleet, KEY), expected, rtol=1e-6, atol=1e-6)


def test_the_prior_is_recovered():
    """Variances from a scaled inverse chi-squared distribution with 6 degrees of freedom around
    exp(1 + u / 2).
    """
    rng = np.random.default_rng(0)
    n, k, d0 = 20_000, 5, 6.0
    u_N = rng.normal(size=n)
    variance_N = np.exp(1 + u_N / 2) * d0 / rng.chisquare(d0, size=n)
    sides = [
        moments.moments(u_N + shift + rng.normal(size=(k, n)) * 1e-9, np.ones((k, n), bool))
        for shift in (0.0, 3.0)
    ]
    sides = [s._replace(m2=variance_N * rng.chisquare(k - 1, size=n)) for s in sides]
    pools = np.array(
        [[np.sum(s.count * s.center), np.sum(s.count), np.sum(s.m2), n * (k - 1)] for s in sides]
    )
    sums = [_shrinkage._unpack(row) for row in _shrinkage.regressions(u_N, sides, [pools])]
    for side in sums[:2]:
        coefficients, dof = _shrinkage._variance_prior(side)
        np.testing.assert_allclose(dof, d0, rtol=0.1)
        np.testing.assert_allclose(coefficients, [1, 0.5, 0], atol=0.05)


@pytest.mark.parametrize("value", [1e-6, 1e-3, 0.1, 1.0, 50.0, 1e6])
def test_inverse_trigamma(value):
    np.testing.assert_allclose(polygamma(1, variances.inverse_trigamma(value)), value, rtol=1e-9)


def test_equal_variances_shrink_to_the_pooled_gaussian():
    """Many shadows with equal variances and leaks: the score reaches the analytic ROC.

    No per-example variance reaches it with so few shadows.
    """
    design = halves.make(num_examples=4000, seed=0, models=10, population=0.0, targets=4)
    fleet = planted.fleet(design, "rescaled_logit", mu=1.5, seed=0, spread=3.0)
    shrunk, plain = (
        planted.mean_auc(fleet, lira.make(variance=v).score_all(fleet, KEY))
        for v in ("shrunk", "per_example")
    )
    limit = ndtr(1.5 / np.sqrt(2) / np.sqrt(1 + 1 / 8))  # a midpoint known from 8 shadows
    assert abs(shrunk - limit) < 0.012 and shrunk > plain + 0.01


# ---- few shadows ----


@pytest.mark.parametrize("models, side", [(4, 1), (6, 2), (8, 3), (10, 4), (18, 8)])
@pytest.mark.parametrize(
    "make_fleet",
    [
        uneven,
        lambda design, seed: planted.fleet(design, "rescaled_logit", mu=1.0, seed=seed, spread=2.0),
    ],
)
def test_shrinkage_is_no_worse_than_the_distance_to_the_centers(models, side, make_fleet):
    gain = {name: [] for name in ("distance", "per_example", "pooled")}
    for seed in range(6):
        design = halves.make(num_examples=600, seed=seed, models=models, targets=4)
        fleet = make_fleet(design, seed=seed)
        d, s_MN = design, fleet.signal["rescaled_logit"][:, 0].astype(np.float64)
        distance_TN = []
        for t in d.targets:
            rest = d.unit_M != d.unit_M[t]
            centers = [
                np.where(d.member_MN[rest] == inside, s_MN[rest], 0).sum(0) / side
                for inside in (False, True)
            ]
            distance_TN.append(s_MN[t] - np.mean(centers, 0))
        shrunk = planted.mean_auc(fleet, lira.make(variance="shrunk").score_all(fleet, KEY))
        gain["distance"].append(shrunk - planted.mean_auc(fleet, np.stack(distance_TN)))
        for variance in ("per_example", "pooled"):
            gain[variance].append(
                shrunk - planted.mean_auc(fleet, lira.make(variance=variance).score_all(fleet, KEY))
            )
    assert np.mean(gain["distance"]) > -0.005, gain
    assert np.mean(gain["per_example"]) > -0.002 and np.mean(gain["pooled"]) > -0.005, gain
    if side in (2, 3, 4):
        assert np.mean(gain["per_example"]) > 0.03, gain


@pytest.mark.slow
def test_on_digits_more_shadows_never_hurt(tmp_path):
    """Plain LiRA's curve over shadows dips where per-example variances begin.

    The shrunk curve rises, and is above every other at 2 to 8.
    """
    config = configuration.complete(
        data=dict(name="digits", flat=True),
        design=dict(name="halves", models=20),
        model=dict(name="mlp", widths=(128,)),
        learner=dict(learning_rate=3e-3, batch_size=32, epochs=40),
        attacks=dict(lira=dict()),
        report=dict(draws=40, figures=False, shadow_curve=()),
        run=dict(chunk=10),
    )
    run.run(config, workdir_path=tmp_path, stages_wanted=("train", "query"))
    signal = forward.load(tmp_path / "signal", "rescaled_logit", range(20))
    design = halves.make(num_examples=signal.shape[2], seed=0, models=20)
    fleet = FleetSignals(design=design, signal=dict(rescaled_logit=signal), num_classes=10)

    def curve(**fields) -> list[float]:
        attack = lira.make(**fields)
        parts = [
            [(part, attack.score_all(part, KEY)) for part in shadow_curve.cut(fleet, count)]
            for count in (2, 4, 8, 18)
        ]
        return [
            float(np.mean([planted.mean_auc(part, score_TN) for part, score_TN in score_part]))
            for score_part in parts
        ]

    shrunk, plain, pooled = (
        curve(variance="shrunk"),
        curve(variance="per_example"),
        curve(variance="pooled"),
    )
    assert (np.diff(shrunk) > -0.003).all(), shrunk
    assert plain[1] < plain[0] - 0.01, plain  # the dip
    assert (np.array(shrunk[:3]) > np.maximum(plain, pooled)[:3] + 0.003).all(), (
        shrunk,
        plain,
        pooled,
    )


def test_one_shadow_per_side_learns_where_the_leak_is():
    """Signals leak on the hard half only.

    The trend of the differences reveals it; the distance to the centers does not.
    """
    design = halves.make(num_examples=1000, seed=0, models=4)
    rng = np.random.default_rng(0)
    hard_N = rng.random(1000) < 0.5
    value = (
        np.where(hard_N, -10.0, 10.0)
        + rng.normal(size=(4, 1, 1000))
        + 2.0 * (hard_N & design.member_MN)[:, None]
    )
    fleet = FleetSignals(
        design=design, signal=dict(rescaled_logit=value.astype(np.float32)), num_classes=2
    )
    shrunk_TN, plain_TN = (
        lira.make(variance="shrunk").score_all(fleet, KEY),
        lira.make(variance="gaussian").score_all(fleet, KEY),
    )
    assert planted.mean_auc(fleet, shrunk_TN) > planted.mean_auc(fleet, plain_TN) + 0.02
    assert (
        np.abs(shrunk_TN[0, ~hard_N & design.evaluated_MN[0]]).max()
        < 0.2 * np.abs(shrunk_TN[0, hard_N & design.evaluated_MN[0]]).max()
    )


def test_an_example_without_in_shadows_takes_the_trend():
    design = bernoulli.make(num_examples=400, seed=0, models=5, population=0.0)
    fleet = planted.fleet(design, "rescaled_logit", mu=3.0, seed=0, spread=5.0)
    score_TN = lira.make(variance="shrunk").score_all(fleet, KEY)
    assert np.isfinite(score_TN).all()
    for count in (0, 4):
        rows = design.member_MN[1:].sum(0) == count
        assert rows.sum() > 10 and planted.auc(score_TN[0, rows], design.member_MN[0, rows]) > 0.85


# ---- which variance ----


@pytest.mark.parametrize("variance_side", ["in", "out", "both"])
@pytest.mark.parametrize("variance", ["per_example", "pooled"])
def test_the_variance_of_one_side_or_both_serves_both(variance_side, variance):
    fleet = uneven(halves.make(num_examples=60, seed=0, models=12), seed=0)
    own_N, sides = sides_of(fleet, 0)
    attack = lira.make(variance=variance, variance_side=variance_side)
    chosen = dict(out=[0], both=[0, 1]) | {"in": [1]}
    residuals = [
        [
            ((sides[i][n] - sides[i][n].mean()) ** 2, len(sides[i][n]) - 1)
            for i in chosen[variance_side]
        ]
        for n in range(len(own_N))
    ]
    per_example_N = np.array(
        [sum(r.sum() for r, _ in pairs) / sum(dof for _, dof in pairs) for pairs in residuals]
    )
    pooled = sum(r.sum() for pairs in residuals for r, _ in pairs) / sum(
        dof for pairs in residuals for _, dof in pairs
    )
    sd_N = np.sqrt(per_example_N if variance == "per_example" else np.full(len(own_N), pooled))
    out_N, in_N = (np.array([v.mean() for v in side]) for side in sides)
    expected_N = stats.norm(in_N, sd_N).logpdf(own_N) - stats.norm(out_N, sd_N).logpdf(own_N)
    np.testing.assert_allclose(
        attack.score(fleet.evidence_against(0, attack.needs), KEY)[fleet.design.evaluated_MN[0]],
        expected_N,
        rtol=1e-8,
        atol=1e-9,
    )


@pytest.mark.parametrize("fields", [{}, dict(mode="offline")])
def test_global_variance_is_the_variance_of_all_values(fields):
    fleet = uneven(halves.make(num_examples=60, seed=0, models=12), seed=0)
    own_N, sides = sides_of(fleet, 0)
    law = [
        stats.norm([v.mean() for v in side], np.std(np.concatenate(side), ddof=1)) for side in sides
    ]
    expected_N = law[0].logcdf(own_N) if fields else law[1].logpdf(own_N) - law[0].logpdf(own_N)
    attack = lira.make(variance="global", **fields)
    np.testing.assert_allclose(
        attack.score(fleet.evidence_against(0, attack.needs), KEY)[fleet.design.evaluated_MN[0]],
        expected_N,
        rtol=1e-8,
        atol=1e-9,
    )


# ---- several views at once ----


def test_one_view_is_the_plain_shrunk_attack():
    fleet = uneven(halves.make(num_examples=100, seed=0, models=10), seed=0)
    for mode in ("online", "offline"):
        single, many = (
            lira.make(mode=mode, variance="shrunk"),
            lira.make(mode=mode, views="multivariate"),
        )
        np.testing.assert_allclose(
            planted.scores(fleet, many, KEY),
            planted.scores(fleet, single, KEY),
            rtol=1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize(
    "fields", [dict(), dict(variance="pooled"), dict(mode="offline"), dict(center="median")]
)
@pytest.mark.parametrize("models", [3, 8])
def test_several_views_of_many_examples_are_read_in_blocks(fields, models, monkeypatch):
    """Of 3 models some sides have no residuals; float64 signals are measured from an origin."""
    fleet = uneven(bernoulli.make(num_examples=150, seed=0, models=models), seed=0, query_views=3)
    attack = lira.make(views="multivariate", **fields)
    for dtype in (np.float32, np.float64):
        signal = {name: value.astype(dtype) for name, value in fleet.signal.items()}
        kept = dataclasses.replace(fleet, signal=signal)
        expected = planted.scores(kept, attack, KEY)
        with monkeypatch.context() as patched:
            patched.setattr(_multivariate, "EXACT", 10)
            patched.setattr(_multivariate, "score", None)
            patched.setattr(moments, "BLOCK", 64)
            found = planted.scores(kept, attack, KEY)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_two_equal_views_add_no_information():
    fleet_of_one = uneven(halves.make(num_examples=100, seed=0, models=10), seed=0)
    two = dataclasses.replace(
        fleet_of_one,
        signal=dict(rescaled_logit=np.repeat(fleet_of_one.signal["rescaled_logit"], 2, 1)),
    )
    for fields in (dict(variance="pooled"), dict(variance="pooled", mode="offline")):
        attack = lira.make(views="multivariate", **fields)
        e = fleet_of_one.design.evaluated_MN[0]
        once_N, twice_N = (
            attack.score(f.evidence_against(0, attack.needs), KEY)[e] for f in (fleet_of_one, two)
        )
        assert (
            np.corrcoef(once_N, twice_N)[0, 1] > 0.9999
            and 0.95 < twice_N.std() / once_N.std() < 1.05
        )


def test_noise_that_views_share_cancels():
    """View 1 is the noise of view 0: together they reveal what the mean of their scores cannot."""
    design = halves.make(num_examples=400, seed=0, models=20, targets=6)
    rng = np.random.default_rng(0)
    shared_MN = rng.normal(size=(20, 400)) * 3
    views_MAN = np.stack(
        [shared_MN + rng.normal(size=(20, 400)) * 0.5 + design.member_MN, shared_MN], 1
    )
    fleet = FleetSignals(
        design=design, signal=dict(rescaled_logit=views_MAN.astype(np.float32)), num_classes=2
    )
    auc = {
        v: planted.mean_auc(
            fleet, planted.scores(fleet, lira.make(views=v, variance="pooled"), KEY)
        )
        for v in ("mean", "multivariate")
    }
    assert auc["mean"] < 0.65 and abs(auc["multivariate"] - ndtr(2 / np.sqrt(2))) < 0.03


def test_one_shadow_per_side_and_no_residuals_is_the_mean_distance():
    fleet = uneven(halves.make(num_examples=100, seed=0, models=4), seed=0, query_views=3)
    attack, plain = (
        lira.make(views="multivariate", variance="pooled"),
        lira.make(variance="gaussian"),
    )
    np.testing.assert_allclose(
        planted.scores(fleet, attack, KEY), planted.scores(fleet, plain, KEY), rtol=1e-12
    )


# ---- Student's t ----


def test_student_densities_equal_scipy():
    z, dof = np.linspace(-40, 40, 81), np.array([0.7, 3.0, 30.0, 900.0])[:, None]
    gaussian = np.log(2 * np.pi) / 2
    np.testing.assert_allclose(
        _student.log_density(z**2, dof), stats.t(dof).logpdf(z) + gaussian, rtol=1e-9, atol=1e-11
    )
    law = stats.t(dof)
    expected = np.where(
        z > 0,
        np.log1p(-law.sf(np.maximum(z, 0))),
        np.log(np.maximum(law.cdf(z), np.finfo(float).tiny)),
    )
    np.testing.assert_allclose(_student.log_cdf(z, dof), expected, rtol=1e-7)
    np.testing.assert_allclose(
        _student.log_density(z**2, np.inf), stats.norm.logpdf(z) + gaussian, atol=1e-12
    )
    np.testing.assert_allclose(
        _student.log_cdf(z, np.array([np.inf])), stats.norm.logcdf(z), rtol=1e-12
    )
    x = np.array([[0.3, -1.2, 2.0]])
    expected = stats.multivariate_t(np.zeros(3), np.eye(3), df=5).logpdf(x) + 3 * gaussian
    np.testing.assert_allclose(_student.log_density((x**2).sum(1), 5.0, 3), expected, rtol=1e-12)


def test_the_upper_tail_of_log_cdf_does_not_tie():
    z = np.linspace(5, 200, 50)
    assert len(np.unique(_student.log_cdf(z, 20.0))) == 50


# ---- normality ----


def test_p_values_equal_scipy():
    rng = np.random.default_rng(0)
    value_MN, where_MN = rng.normal(size=(40, 30)) ** 2, rng.random((40, 30)) < 0.7
    where_MN[:, 0], where_MN[7:, 1], value_MN[:, 2] = False, False, 3.0
    found_N = _normality.p_values(np.where(where_MN, value_MN, np.nan), where_MN)
    assert np.isnan(found_N[:3]).all()
    for n in range(3, 30):
        np.testing.assert_allclose(
            found_N[n], stats.normaltest(value_MN[where_MN[:, n], n]).pvalue, rtol=1e-9
        )


@pytest.mark.parametrize("shadows_a_side", [8, 31])
def test_normality_is_diagnosed(shadows_a_side):
    design = halves.make(num_examples=3000, seed=0, models=2 * shadows_a_side + 2)
    attack = lira.make()
    fleet = planted.fleet(design, "rescaled_logit", mu=1.0, seed=0)
    diagnosis = attack.diagnose(fleet.evidence_against(0, attack.needs))
    assert (
        diagnosis["out_normality_tested"]
        == diagnosis["in_normality_tested"]
        == design.evaluated_MN[0].sum()
    )
    assert (
        0.03 < diagnosis["out_normality_rejected"] < 0.09
        and 0.03 < diagnosis["in_normality_rejected"] < 0.09
    )
    skewed = dataclasses.replace(
        fleet, signal=dict(rescaled_logit=np.exp(fleet.signal["rescaled_logit"]))
    )
    assert attack.diagnose(skewed.evidence_against(0, attack.needs))["out_normality_rejected"] > 0.3
    offline = lira.make(mode="offline")
    assert set(offline.diagnose(fleet.evidence_against(0, offline.needs))) == {
        "out_normality_tested",
        "out_normality_rejected",
    }


def test_too_few_shadows_are_not_tested():
    attack = lira.make()
    fleet = planted.fleet(
        halves.make(num_examples=50, seed=0, models=8), "rescaled_logit", mu=1.0, seed=0
    )
    assert attack.diagnose(fleet.evidence_against(0, attack.needs)) == dict(
        out_normality_tested=0, in_normality_tested=0
    )


# ---- refusals ----


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(variance="shrunken"), "variance='shrunken' is not one of .*Did you mean 'shrunk'"),
        (dict(variance_side="left"), "variance_side='left'"),
        (dict(variance_side="in", mode="offline"), "sees OUT shadows alone"),
        (dict(variance_side="both", variance="shrunk"), "each side's own prior"),
        (dict(views="first"), "views='first'"),
        (
            dict(views="multivariate", variance="per_example"),
            "variance='per_example' is not one of",
        ),
    ],
)
def test_messages_name_the_bad_argument(fields, message):
    with pytest.raises(ValueError, match=message):
        lira.make(**fields)


def test_missing_sides_are_counted():
    fleet = planted.fleet(
        bernoulli.make(num_examples=40, seed=0, models=4), "rescaled_logit", mu=1.0, seed=0
    )
    none_MN = fleet.design.member_MN.copy()
    none_MN[1:] = False
    fleet = dataclasses.replace(
        fleet, design=dataclasses.replace(fleet.design, member_MN=none_MN, targets=(0,))
    )
    for fields in (dict(variance="shrunk"), dict(views="multivariate")):
        attack = lira.make(**fields)
        with pytest.raises(
            ValueError, match=r"no usable shadow is IN on any evaluated row \(0 of 3 shadows"
        ):
            attack.score(fleet.evidence_against(0, attack.needs), KEY)


def test_shrinkage_takes_designs_with_other_shadows():
    fleet = planted.fleet(
        disjoint.make(num_examples=200, seed=0, models=10, targets=4),
        "rescaled_logit",
        mu=4.0,
        seed=0,
    )
    attack = registry.make("attacks", "lira", dict(mode="offline", variance="shrunk"))
    assert not threat_model.FleetSignals(design=fleet.design, signal={}, num_classes=2).refuse(
        attack, "lira"
    )
    np.testing.assert_array_equal(attack.score_all(fleet, KEY), planted.scores(fleet, attack, KEY))
    assert planted.mean_auc(fleet, attack.score_all(fleet, KEY)) > 0.9
