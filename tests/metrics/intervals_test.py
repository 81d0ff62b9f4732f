"""Intervals: closed forms by hand, coverage of every interval that a report prints, and that none
covers by being vacuous.
"""

import time

import numpy as np
import pytest
from scipy import stats

from mia_jax.metrics import bootstrap, intervals, outcomes, roc, summary

FPRS = (0.01, 0.05)
CUT = 0.8  # the fixed threshold of the simulations


def draw_fleet(rng, units, records, *, mu=0.6, spread=1.0, by_unit=0.25, by_record=0.5, mean=0.0):
    """Scores of 2 x units complementary targets: hardness of a record + (mu + unit + record) x
    member + noise.
    """
    member = np.zeros((2 * units, records), bool)
    for u in range(units):
        member[2 * u, rng.permutation(records)[: records // 2]] = True
        member[2 * u + 1] = ~member[2 * u]
    hardness, gain = mean + spread * rng.normal(size=records), by_record * rng.normal(size=records)
    shift = np.repeat(by_unit * rng.normal(size=units), 2)
    return hardness + (mu + shift[:, None] + gain) * member + rng.normal(size=member.shape), member


def truth(*, mu=0.6, spread=1.0, by_unit=0.25, by_record=0.5, ratio=10.0):
    """The metrics of a population of such records, averaged over units (Gauss-Hermite)."""
    x, w = np.polynomial.hermite_e.hermegauss(61)
    w, mu = w / w.sum(), mu + by_unit * x
    out_sd, in_sd = np.hypot(spread, 1), np.sqrt(spread**2 + 1 + by_record**2)
    tpr, fpr = stats.norm.sf((CUT - mu) / in_sd), stats.norm.sf(CUT / out_sd) + 0 * mu
    values = {"auc": stats.norm.cdf(mu / np.hypot(out_sd, in_sd))}
    values |= {f"tpr@{f:g}": stats.norm.sf((out_sd * stats.norm.isf(f) - mu) / in_sd) for f in FPRS}
    values |= outcomes.at_threshold(tpr, fpr, ratio)
    pooled = outcomes.at_threshold(w @ tpr, w @ fpr, ratio)
    mean = {metric: float(w @ v) for metric, v in values.items()}
    return {(None, m): v for m, v in mean.items()} | {
        ("pooled", m): float(pooled.get(m, mean[m])) for m in mean
    }


def simulate(repeats, units, records, seed=0, single=False, **model):
    """{(target, metric): (coverage, mean width / (2 x 1.96 sd of the estimates), interval,
    methods)} over `repeats` fresh fleets.
    """
    expected, intervals_of = truth(**model), {}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        score, member = draw_fleet(rng, units, records, **model)
        score, member = (score[:1], member[:1]) if single else (score, member)
        unit = np.arange(len(score)) // 2
        draws = bootstrap.make(records, unit, seed=repeat + 10**6)
        attack = dict(
            score_TN=score, threshold_T=np.full(len(score), CUT), knows="nothing"
        )  # no shadow makes these scores
        for row in summary.rows(
            {"a": attack},
            member,
            np.ones_like(member),
            draws=draws,
            fprs=FPRS,
            ppv_ratio=10.0,
            detail=1,  # the intervals of single targets are not counted here
        ):
            if row["low"] is not None and (row["target"], row["metric"]) in expected:
                intervals_of.setdefault((row["target"], row["metric"]), []).append(
                    (row["value"], row["low"], row["high"], row["interval"], row["method"])
                )
    report = {}
    for key, values in intervals_of.items():
        value, low, high = np.array([v[:3] for v in values]).T
        assert ((low <= value) & (value <= high)).all(), key
        cover = ((low <= expected[key]) & (expected[key] <= high)).mean()
        report[key] = (
            cover,
            (high - low).mean() / (3.92 * value.std()),
            values[0][3],
            {v[4] for v in values},
        )
    return report


def assert_covers(report, *, least, widest):
    for key, (cover, width, interval, _) in report.items():
        assert cover >= least, f"{key}: {interval} interval covers {cover:.3f}"
        limit = widest * (1.6 if key[1].startswith(("tpr@", "ppv@")) else 1)
        assert 0.75 < width < limit, (
            f"{key}: {interval} interval is {width:.2f} times what a known variance would need"
        )


# name: (model of the simulation, how the auc row and the tpr@0.01 row are made, widest interval
# over 2 x 1.96 standard deviations)
SETTINGS = {
    "crossed": (dict(units=8, records=300), "crossed", "8 units of models x records", 1.5),
    "many targets": (dict(units=24, records=200), "crossed", "24 units of models x records", 1.9),
    "units differ most": (
        dict(units=6, records=200, by_unit=0.4, by_record=0.0, spread=0.2),
        "crossed",
        "6 units of models x records",
        2.4,
    ),
    "few units": (dict(units=2, records=300, by_unit=0.0), "records", "2 of the 5 units", 1.3),
    "one target": (
        dict(units=1, records=1200, single=True, by_unit=0.0),
        "records",
        "stratified bootstrap",
        1.3,
    ),
    "one target, few records": (
        dict(units=1, records=300, single=True, by_unit=0.0),
        "records",
        "box: threshold band",
        1.3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crossed", "few units", "one target", "one target, few records"])
def test_intervals_cover_and_are_not_vacuous(name):
    model, interval, how, widest = SETTINGS[name]
    report = simulate(60, **model)
    assert_covers(report, least=0.88, widest=widest)
    assert report[None, "auc"][2] == report["pooled", "tpr@0.01"][2] == interval
    assert any(how in method for method in report[None, "tpr@0.01"][3])


@pytest.mark.slow
@pytest.mark.timeout(3000)  # up to 20 seconds of one quiet core
@pytest.mark.parametrize("name", SETTINGS)
def test_every_interval_covers_in_200_simulations(name):
    model, _, _, widest = SETTINGS[name]
    assert_covers(simulate(200, seed=1, **model), least=0.92, widest=widest)


@pytest.mark.parametrize("n, p", [(7, 0.3), (40, 0.02), (200, 0.5)])
def test_clopper_pearson_covers_exactly(n, p):
    k = np.arange(n + 1)
    low, high = intervals.clopper_pearson(k, n)
    probability = stats.binom.pmf(k, n, p)
    assert probability[(low <= p) & (p <= high)].sum() >= 0.95
    assert (probability * (high - low)).sum() < 1.3 * 3.92 * np.sqrt(p * (1 - p) / n) + 1 / n
    for count in (0, n // 2, n):
        exact = stats.binomtest(count, n).proportion_ci(0.95, "exact")
        assert intervals.clopper_pearson(count, n) == pytest.approx((exact.low, exact.high))


def test_clopper_pearson_by_hand_and_bad_counts():
    assert intervals.clopper_pearson(0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert intervals.clopper_pearson(20, 20, level=0.9) == (pytest.approx(0.05 ** (1 / 20)), 1.0)
    with pytest.raises(ValueError, match=r"k=3\.0 of n=2\.0"):
        intervals.clopper_pearson(3, 2)
    with pytest.raises(ValueError, match=r"level=1\.0"):
        intervals.clopper_pearson(1, 2, level=1.0)


@pytest.mark.parametrize(
    "p1, n1, p0, n0", [(0.07, 60, 0.01, 60), (0.5, 30, 0.5, 200), (0.9, 40, 0.2, 25)]
)
def test_difference_and_ratio_of_two_proportions_cover(p1, n1, p0, n0):
    k1, k0 = np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1), indexing="ij")
    probability = stats.binom.pmf(k1, n1, p1) * stats.binom.pmf(k0, n0, p0)
    likely = np.argwhere(probability > 1e-6)
    true_ppv = p1 / (p1 + 3 * p0)
    inside = outside = ppv_inside = ppv_outside = 0.0
    for i, j in likely:
        low, high = intervals.difference(i, n1, j, n0)
        inside += probability[i, j] * (low <= p1 - p0 <= high)
        outside += probability[i, j] * (high - low)
        low, high = intervals.precision(i, n1, j, n0, 3.0)
        assert 0 <= low <= roc.ppv(i / n1, j / n0, 3.0) <= high <= 1 or i == j == 0
        ppv_inside += probability[i, j] * (low <= true_ppv <= high)
        ppv_outside += probability[i, j] * (high - low)
    assert inside >= 0.94 and ppv_inside >= 0.95
    assert outside < 1.5 * 3.92 * np.sqrt(p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0)
    sd = true_ppv * (1 - true_ppv) * np.sqrt((1 - p1) / (p1 * n1) + (1 - p0) / (p0 * n0))
    assert ppv_outside < 1.2 * 3.92 * sd


def test_box_covers_with_one_false_positive_and_with_ties():
    rng, member = np.random.default_rng(3), np.arange(300) < 150
    hits, tied, width = 0, 0, []
    for _ in range(200):
        score = rng.normal(size=300) + 2.0 * member
        low, high = intervals.box(score, member, 1 / 150)
        hits += low <= stats.norm.sf(stats.norm.isf(1 / 150) - 2.0) <= high
        width.append(high - low)
        whole = np.round(
            score
            # no whole number has an FPR between P(z >= 2.5) = .0062 and P(z >= 1.5): TPR = P(z + 2
            # >=
            # 2.5)
        )
        low, high = intervals.box(whole, member, 1 / 150)
        tied += low <= stats.norm.sf(0.5) <= high
    assert min(hits, tied) >= 186 and np.mean(width) < 0.75
    low, high = intervals.box(np.zeros(300), member, 0.01)
    assert low == 0 and 0 < high < 0.03


def test_logit_interval_where_no_draw_differs():
    u = 1 - 0.025 ** (1 / 20)
    assert intervals.logit(0.5, 0.0, 20) == pytest.approx((0.5 - u / 2, 0.5 + u / 2))  # all tied
    assert intervals.logit(1.0, 0.0, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert intervals.logit(0.0, 0.0, 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    low, high = intervals.logit(0.5, 0.02, 400)
    assert (low, high) == (pytest.approx(0.461, abs=1e-3), pytest.approx(0.539, abs=1e-3))


def test_a_difference_of_rates_on_the_angular_scale():
    t = intervals.t_half(1.0, 0.95, 9)
    # without dependence the moves are V1 and V2 over the root of their sum
    low, high = intervals.angular_difference((0.5, 0.003), (0.4, 0.004), (0.005, 9))
    assert (low, high) == pytest.approx((0.1 - 0.005 * t, 0.1 + 0.005 * t), abs=2e-5)
    # the rate that varies alone decides: its own interval minus the constant
    low, high = intervals.angular_difference((0.05, 0.02), (0.02, 0.0), (0.02, 9))
    own = intervals.angular(0.05, 0.02, freedom=9)
    assert (low, high) == pytest.approx((own[0] - 0.02, own[1] - 0.02))
    # the other way round it is the mirror image
    other = intervals.angular_difference((0.02, 0.0), (0.05, 0.02), (0.02, 9))
    assert other == pytest.approx((-high, -low))
    same = intervals.angular_difference((0.05, 0.02), (0.05, 0.02), (0.0, np.inf))
    assert same == (0.0, 0.0)
    edge = intervals.angular_difference((0.05, 0.02), (0.0, 0.0), (0.02, 9))
    assert edge == pytest.approx((0.05 - 0.02 * t, 0.05 + 0.02 * t))


def test_percentile_leaves_nan_out():
    low, high = intervals.percentile(np.append(np.arange(1, 200), np.nan))
    assert (low, high) == pytest.approx((5.0, 195.0))


def test_draws_are_counts_shared_and_repeatable():
    a, b = (bootstrap.make(500, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], draws=60, seed=4) for _ in range(2))
    np.testing.assert_array_equal(a.record_NR, b.record_NR)
    np.testing.assert_array_equal(a.unit_TR[0], a.unit_TR[1])  # twins together
    assert (a.record_NR.sum(0) == bootstrap.resample_size(500)).all()
    assert a.resampling == "crossed" and a.units == 5
    few = bootstrap.make(500, [0, 0, 1, 1], seed=4)
    assert few.unit_TR is None and few.resampling == "records" and "2 of the 5 units" in few.method
    assert [bootstrap.resample_size(n) for n in (1, 2, 5, 8, 32, 1000)] == [1, 1, 2, 5, 29, 997]


def test_blocks_of_draws_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    score, member = draw_fleet(rng, 6, 60)
    draws = bootstrap.make(60, np.arange(12) // 2, draws=50)
    _, rank = summary.pool(score, member, np.ones_like(member))
    whole = bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, [1, 7, 30])
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * score.size)
    for a, b in zip(whole, bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, [1, 7, 30])):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_redraw_with_unit_weights_is_the_curve_itself():
    score, member = draw_fleet(np.random.default_rng(0), 1, 400)
    curve, rank = summary.pool(score, member, np.ones_like(member))
    unit_NR = np.ones((400, 1), np.float32)
    auc, low, high = bootstrap.redraw(rank, unit_NR, None, [4, 40])
    assert auc[0] == pytest.approx(roc.auc(curve))
    assert high[:, 0] == pytest.approx([roc.tpr_at_fpr(curve, f).tpr for f in (0.01, 0.1)])
    assert (low <= high).all()


def test_speed_and_memory_of_a_whole_quickstart():
    rng = np.random.default_rng(0)
    score, member = draw_fleet(rng, 32, 1617)
    attacks = {f"a{i}": dict(score_TN=score, threshold_T=np.full(64, CUT)) for i in range(2)}
    started = time.thread_time()
    rows = summary.rows(attacks, member, np.ones_like(member), unit_T=np.arange(64) // 2)
    assert time.thread_time() - started < 6  # .6 s on one quiet core
    assert len(rows) == 2 * (2 * 11 + 64 * 6)


@pytest.mark.parametrize("tied", [False, True])
def test_draw_by_draw_is_the_same_as_all_draws_at_once(tied):
    rng = np.random.default_rng(3)
    member_N = rng.random(300) < 0.4
    score_N = rng.normal(size=300) + member_N
    score_N = np.round(score_N) if tied else score_N
    evaluated_N = rng.random(300) < 0.9
    rank = bootstrap.ranked(
        score_N[evaluated_N], member_N[evaluated_N], np.flatnonzero(evaluated_N)
    )
    record_NR = bootstrap.stratified(5, member_N, evaluated_N, 50)
    assert (record_NR[~evaluated_N] == 0).all() and (
        record_NR[member_N].sum(0) == record_NR[member_N].sum(0)[0]
    ).all()
    alone = bootstrap.redraw(rank, record_NR, None, [1, 4, 20])
    together = bootstrap.redraw(rank, np.ascontiguousarray(record_NR, np.float32), None, [1, 4, 20])
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_draws_in_blocks_are_the_draws_of_one_call(monkeypatch):
    """Blocks bound memory and the length of a call; they change no number."""
    n, draws = 37, 53
    at = (
        np.random.default_rng(3).integers(n, size=(draws, bootstrap.resample_size(n)))
        + n * np.arange(draws)[:, None]
    )
    whole = np.bincount(at.ravel(), minlength=n * draws).reshape(draws, n).T
    for block in (1, 100, 1 << 22):
        monkeypatch.setattr(bootstrap, "SHORT", block)
        monkeypatch.setattr(bootstrap, "BLOCK", block)
        member, named = (
            np.arange(2 * n).reshape(2, n) % 2 == 0,
            np.arange(2 * n).reshape(2, n) % 3 == 0,
        )
        weights = bootstrap.side_weights(
            member, np.ones((2, n), bool), named, whole.astype(np.float32)
        )
        assert np.array_equal(weights[0], (member & named).astype(int) @ whole) and np.array_equal(
            weights[1], (~member & named).astype(int) @ whole
        )
        blocks = bootstrap.counts(np.random.default_rng(3), n, draws)
        assert (
            blocks.dtype == np.float32
            and blocks.flags.c_contiguous
            and np.array_equal(blocks, whole)
        )
