"""Rates per record: every record has the FPR, no score is compared with its own model, intervals
cover, and finite pools of models and of records are bounded.
"""

import numpy as np
import pytest
from scipy import stats

from benchmarks import record_rates as benchmark
from mia_jax.fitting import variances
from mia_jax.metrics import record_rates


def scored(score, member):
    unit = np.arange(len(score)) // 2
    return record_rates.Scored(score, member, ~member, unit, unit % 2)


def test_a_non_members_p_value_is_uniform_for_every_record_however_few_models_there_are():
    """Records of any mean and spread; with 3 other models and a variance of their own."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=4000))  # shrunk: the prior is wrong for single records
    member = np.stack([rng.random((8, 4000)) < 0.5] * 2, 1).reshape(16, -1)
    member[1::2] = ~member[::2]
    score = 50 * rng.normal(size=4000) + spread * rng.normal(size=member.shape)
    p, count = record_rates.calibrated(scored(score, member))
    assert (count == 3).all() and not np.isnan(p).any()
    assert stats.kstest(p[:4][~member[:4]], "uniform").pvalue > 1e-3
    equal, _ = record_rates.calibrated(scored(score / spread, member))  # 1 unit of each side
    high = equal[0::4][~member[0::4]]
    assert abs(np.mean(high <= 0.01) - 0.01) < 0.004


def test_a_p_value_is_students_predictive_of_the_other_units():
    rng = np.random.default_rng(1)
    member = rng.random((24, 30)) < 0.5
    score = rng.normal(size=30) * 3 + rng.gamma(0.4, size=30) * rng.normal(size=(24, 30))
    of = scored(score, member)
    p, count = record_rates.calibrated(of)
    rows = of.fold_T == 0
    outside = np.where(member[rows], np.nan, score[rows])
    n = (~np.isnan(outside)).sum(0)
    v0, d0 = variances.prior(np.nanvar(outside, 0) * n, n - 1)
    assert np.isfinite(d0)
    for t, record in ((0, 3), (5, 17), (8, 29)):
        others = rows & (of.unit_T != of.unit_T[t]) & ~member[:, record]
        values, k = score[others, record], others.sum()
        v = (d0 * v0 + values.var() * k) / (d0 + k - 1)
        z = (score[t, record] - values.mean()) / np.sqrt(v * (1 + 1 / k))
        assert count[t, record] == k
        assert p[t, record] == pytest.approx(stats.t.sf(z, d0 + k - 1))


def test_no_score_is_compared_with_its_own_unit_or_the_other_fold():
    rng = np.random.default_rng(2)
    member = rng.random((16, 20)) < 0.5
    score = rng.normal(size=(16, 20))
    fixed = dict(seed=0, fprs=(0.1,))
    before, _ = record_rates.calibrated(scored(score, member))
    moved = score.copy()
    moved[2:4] += 1e6  # unit 1, of fold 1
    after, _ = record_rates.calibrated(scored(moved, member))
    fold = np.arange(16) // 2 % 2
    assert np.array_equal(before[fold == 0], after[fold == 0], equal_nan=True)
    # among its own unit the mean would follow it, and 1e6 be no deviation
    assert (after[2:4][~np.isnan(after[2:4])] < 1e-3).all()
    hidden = score.copy()
    hidden[5, 7] = np.nan
    sides = (hidden, member, np.ones_like(member))
    unit = np.arange(16) // 2
    rates = record_rates.measure(*sides, unit_T=unit, fold_T=unit % 2, **fixed)
    assert rates["records"] == 20 and rates["rates"][0]["per_record"]["tpr"] is not None


def test_variances_have_the_prior_from_which_they_were_drawn():
    rng = np.random.default_rng(3)
    true = 4.0 * 6 / rng.chisquare(6, size=20000)  # scaled inverse chi-squared, 6 degrees
    variance, dof = variances.prior(true * rng.chisquare(3, size=20000), np.full(20000, 3))
    assert variance == pytest.approx(4.0, rel=0.05) and dof == pytest.approx(6, rel=0.25)
    assert variances.prior(2.0 * rng.chisquare(3, size=500), np.full(500, 3))[1] > 30
    assert variances.prior(np.zeros(5), np.full(5, 3)) == (0.0, np.inf)


def estimates(name, count, fprs=(0.01, 0.1)):
    """Pooled and per-record TPR [R,F,2] of a case, and whether their intervals cover."""
    case = benchmark.CASES[name]
    true = [[benchmark.pooled(case, f), benchmark.of_k_models(case, f)] for f in fprs]
    values, covers = [], []
    for repeat in range(count):
        fleet = benchmark.fleet(np.random.default_rng([1, repeat]), case)
        rows = benchmark.measured(*fleet, fprs, seed=repeat)["rates"]
        rates = [[row["pooled"], row["per_record"]] for row in rows]
        values.append([[rate["tpr"] for rate in pair] for pair in rates])
        covers.append(
            [
                [rate["low"] <= at <= rate["high"] for rate, at in zip(*both, strict=True)]
                for both in zip(rates, true, strict=True)
            ]
        )
    return np.array(values), np.array(covers), np.array(true)


def test_pooled_rates_are_not_those_of_records_and_intervals_contain_both():
    """A threshold on signals of records of unlike difficulty: pooled 2.7%, per record 6.9%."""
    values, covers, true = estimates("threshold, 16 targets", 20)
    assert true[0].round(3).tolist() == [0.027, 0.069]
    assert np.abs(values.mean(0) / true - 1).max() < 0.15
    assert covers.mean() >= 0.9 and covers.mean((0, 1)).min() >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in benchmark.CASES if "likelihood" not in n])
def test_intervals_of_both_rates_cover_in_200_simulations(name):
    values, covers, true = estimates(name, 200)
    spread = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - true) < 4 * spread + 0.02 * true).all()
    assert covers.mean(0).min() >= 0.87 and covers.mean() >= 0.92


def test_comparing_with_the_own_model_finds_what_is_not_there():
    """Without any leak: an FPR of 1% gives a TPR of 1%, with the own model included 5.5%."""
    case = benchmark.CASES["null, 16 targets"]
    own, calibrated = [], []
    for repeat in range(10):
        score, member = benchmark.fleet(np.random.default_rng([1, repeat]), case, records=1000)
        own.append(benchmark.own_included(score, member, 0.01))
        p, _ = record_rates.calibrated(scored(score, member))
        calibrated.append(np.mean(p[member] <= np.quantile(p[~member], 0.01)))
    assert np.mean(own) > 0.045 and abs(np.mean(calibrated) - 0.01) < 0.002


def test_few_models_cost_power_and_never_add_any():
    """Neyman and Pearson: below the rate of known distributions, the nearer the more models."""
    few, many = (benchmark.CASES[f"threshold, {n} targets"] for n in (16, 64))
    for fpr in (0.001, 0.01, 0.1):
        rates = benchmark.of_k_models(few, fpr), benchmark.of_k_models(many, fpr)
        assert rates[0] < rates[1] < benchmark.ideal(many, fpr) == benchmark.ideal(few, fpr)
    likelihood = benchmark.CASES["likelihood ratio, 64 targets"]
    assert benchmark.pooled(likelihood, 0.01) > benchmark.ideal(likelihood, 0.01) + 0.02


def test_constant_scores_and_too_few_models_give_no_rate():
    member = np.arange(16)[:, None] % 2 == np.zeros(12)
    unit = np.arange(16) // 2
    of = dict(unit_T=unit, fold_T=unit % 2, fprs=(0.0, 0.01, 0.5))
    made = record_rates.measure(np.ones((16, 12)), member, np.ones_like(member), **of)
    assert [row["fpr"] for row in made["rates"]] == [0.01, 0.5]
    unresolved, constant = made["rates"]
    assert unresolved["per_record"]["tpr"] is None and unresolved["again"] is None
    assert constant["per_record"]["tpr"] == constant["pooled"]["tpr"] == 0.0
    few = record_rates.measure(
        np.ones((4, 12)),
        member[:4],
        np.ones((4, 12)),
        unit_T=unit[:4],
        fold_T=unit[:4] % 2,
        fprs=(0.1,),
    )
    assert "compared with 2 models" in few["why"]


def test_halves_of_a_pool_make_records_easier_to_tell_apart_than_new_records():
    """A mean of 20 records is released; a record's score is its value in its own direction. In
    halves of one pool the other records vary by half as much, and the bound is exact.
    """
    rng, size, repeats = np.random.default_rng(4), 20, 4000
    pool = rng.normal(size=2 * size)
    pool = (pool - pool.mean()) / pool.std()
    own = 5.0  # what the record adds to the sum
    halves = np.array([pool[rng.permutation(2 * size)[:size]].sum() for _ in range(repeats)])
    new = rng.normal(size=(repeats, size)).sum(1)
    aucs = [
        stats.mannwhitneyu(others[::2] + own, others[1::2]).statistic / (repeats / 2) ** 2
        for others in (halves, new)
    ]
    assert aucs[0] > aucs[1] + 0.05
    assert record_rates.outside_pool(aucs[0], 0.5) == pytest.approx(aucs[1], abs=0.03)
    with pytest.raises(ValueError, match=r"fraction=1.0 must lie in \[0, 1\)"):
        record_rates.outside_pool(0.7, 1.0)
