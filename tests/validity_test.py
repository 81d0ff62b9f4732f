"""Can the numbers be trusted? Records, nulls, membership, power: each check is quiet when all is well and loud when something planted is wrong."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from mia_jax import registry, stages
from mia_jax.metrics import blind, bootstrap, cross_target, membership, power, records, roc, summary
from mia_jax.report import trust, validity, vulnerability
from tests import planted

# ------------------------------------------------------------------------------------------------ per-record vulnerability


def test_the_null_distribution_is_exact():
    rng = np.random.default_rng(0)
    for inside, outside in ((1, 1), (3, 5), (8, 8)):
        pmf = records.distribution(inside, outside)
        assert pmf.sum() == pytest.approx(1) and pmf == pytest.approx(pmf[::-1])
        a, b = rng.normal(size=inside), rng.normal(size=outside)
        exact = stats.mannwhitneyu(a, b, alternative="greater", method="exact")
        assert pmf[int(exact.statistic) :].sum() == pytest.approx(exact.pvalue)
    assert records.distribution(16, 16)[-1] == pytest.approx(math.factorial(16) ** 2 / math.factorial(32), rel=1e-12)  # deep tails keep their digits


def scored_fleet(rng, units, num_records, mu, sd=1.0):
    member = np.zeros((2 * units, num_records), bool)
    member[::2] = rng.random((units, num_records)) < 0.5
    member[1::2] = ~member[::2]
    noise = rng.normal(size=member.shape)
    return rng.normal(size=num_records) + np.where(member, mu + sd * noise, noise), member, np.arange(2 * units) // 2


def test_records_are_pair_counting_within_folds():
    score, member, unit = scored_fleet(np.random.default_rng(1), 8, 40, 1.0)
    score[:, :20] = np.round(score[:, :20])
    score[0, 3] = np.nan  # not scored
    evaluated = np.ones_like(member)
    evaluated[2, 5] = False
    fold = records.folds(unit)
    assert fold.tolist() == [0, 0, 1, 1] * 4
    found = records.vulnerability(score, member, evaluated, fold)
    for n in range(40):
        won = pairs = 0
        for a in range(16):
            for b in range(16):
                usable = all(evaluated[t, n] and not np.isnan(score[t, n]) for t in (a, b))
                if usable and fold[a] == fold[b] and member[a, n] and not member[b, n]:
                    won, pairs = won + (score[a, n] > score[b, n]) + 0.5 * (score[a, n] == score[b, n]), pairs + 1
        assert found.auc_N[n] == pytest.approx(won / pairs)
    assert (found.low_N <= found.auc_N).all() and (found.auc_N <= found.high_N).all()
    assert found.q_N == pytest.approx(stats.false_discovery_control(found.p_N))
    for n in (20, 25, 39):  # no ties: twice the smaller of the folds' exact p-values
        own = [[score[(fold == f) & s[:, n], n] for s in (member, ~member)] for f in (0, 1)]
        exact = [stats.mannwhitneyu(*sides, alternative="greater", method="exact").pvalue for sides in own]
        assert found.p_N[n] == pytest.approx(min(1, 2 * min(exact)))
    assert found.inside_N[3] + found.outside_N[3] == 15 == found.inside_N[5] + found.outside_N[5]
    one_sided = records.vulnerability(score, np.ones_like(member), evaluated, fold)
    assert np.isnan(one_sided.auc_N).all() and np.isnan(one_sided.p_N).all() and np.isnan(one_sided.q_N).all()


@pytest.mark.parametrize("units, mu, sd", [(8, 0, 1), (8, 1, 1), (16, 2.5, 1), (16, 1, 2), (32, 4, 1)])
def test_intervals_of_records_cover(units, mu, sd):
    score, member, unit = scored_fleet(np.random.default_rng([2, units]), units, 2000, mu, sd)
    found = records.vulnerability(score, member, np.ones_like(member), records.folds(unit))
    truth = stats.norm.cdf(mu / np.hypot(1, sd))
    assert np.mean((found.low_N <= truth) & (truth <= found.high_N)) >= 0.92
    assert np.mean((found.low_2N <= truth) & (truth <= found.high_2N)) >= 0.92
    assert truth > 0.9 or np.mean(found.high_2N - found.low_2N) < 1.3 * 3.92 * found.auc_2N.std()
    assert np.mean(found.high_N - found.low_N) < np.mean(found.high_2N - found.low_2N) * 1.05  # no wider than one fold's


def test_large_folds_use_the_normal_tail():
    rng = np.random.default_rng(3)
    score, member, unit = scored_fleet(rng, 80, 300, 0.3)
    found = records.vulnerability(score, member, np.ones_like(member), records.folds(unit))
    assert member[unit % 2 == 0].sum(0).min() ** 2 > records.EXACT
    null, member, unit = scored_fleet(rng, 80, 2000, 0.0)
    p = records.vulnerability(null, member, np.ones_like(member), records.folds(unit)).p_N
    assert 0.03 < np.mean(p <= 0.05) < 0.06 and np.nanmedian(found.p_N) < 0.1


def measured(seed, mu, models=32, examples=150):
    design = registry.make("designs", "halves", dict(models=models), num_examples=examples, seed=seed)
    attack = registry.make("attacks", "lira", dict(variance="per_example"))
    fleet = planted.fleet(design, "rescaled_logit", mu=mu, seed=seed)
    return vulnerability.measure(attack=attack, fleet=fleet, scores=stages.scores, key=jax.random.key(0), seed=seed), fleet, attack


def null_fleets(count):
    """Over fleets whose signals carry nothing: mean AUC of a record, discoveries, ranked and held-out AUC, share of p <= .05, coverage of .5; and the
    mean AUC when the other targets are the shadows."""
    found = []
    for seed in range(count):
        (table, arrays), fleet, attack = measured(seed, mu=0.0)
        known = ~np.isnan(arrays["auc_N"])
        winner, design = table["most_exposed"], fleet.design
        score = stages.scores(attack, fleet, design.targets, jax.random.key(0))
        naive = records.vulnerability(score, design.member_MN, design.evaluated_MN, np.zeros(len(score), int)).auc_N
        held = (arrays["low_N"] <= 0.5) & (0.5 <= arrays["high_N"])
        one = (table["mean_auc"], table["significant"] > 0, winner["ranked_auc"], winner["held_out_auc"], np.mean((arrays["p_N"] <= 0.05)[known]))
        found.append((*one, held[known].mean(), np.nanmean(naive)))
    return np.array(found).T


def test_noise_exposes_no_record_and_its_highest_records_are_forgotten():
    """Mean AUC of a record .5 in LiRA's scores of noise; with the other targets as shadows it is below .5. The records that half of the targets rank
    highest are at .5 in the other half; the other fold would not do for that: each fold is the other's evidence."""
    means, discoveries, ranked, held, share, cover, naive = null_fleets(16)
    error = lambda values: 4 * np.std(values, ddof=1) / np.sqrt(len(values))  # noqa: E731
    assert abs(np.mean(means) - 0.5) < min(error(means), 0.01) and np.mean(naive) < 0.49
    assert abs(np.mean(held) - 0.5) < error(held) and np.mean(ranked) > 0.75
    assert discoveries.sum() <= 3 and np.mean(share) < 0.07 and np.mean(cover) >= 0.92


@pytest.mark.slow
def test_benjamini_hochberg_errs_in_at_most_5_percent_of_200_null_fleets():
    _, discoveries, _, held, share, _, _ = null_fleets(200)
    assert discoveries.mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200) and np.mean(share) <= 0.055
    assert abs(np.mean(held) - 0.5) < 0.01


def test_exposed_records_are_found_and_their_rate_is_not_the_ranking_one():
    (table, arrays), _, _ = measured(0, mu=1.0, models=64)
    assert table["significant"] > 50 and table["mean_auc"] > 0.68
    winner = table["most_exposed"]
    assert winner["low"] < winner["held_out_auc"] < winner["high"] and winner["held_out_auc"] < winner["ranked_auc"] - 0.1
    assert len(table["listed"]) == vulnerability.LISTED
    best, fold, half = table["listed"][0], arrays["fold_T"], arrays["half_T"]
    assert best["ranked_auc"] >= table["listed"][-1]["ranked_auc"] and best["low"] <= best["auc"] <= best["high"]
    assert best["q"] == arrays["q_N"][best["record"]] and arrays["auc_2N"].shape == (2, 150)
    assert all(((fold == f) & (half == h)).sum() == 16 for f in (0, 1) for h in (0, 1)) and (fold[::2] == fold[1::2]).all()


def test_records_need_enough_targets():
    (table, arrays), _, _ = measured(0, mu=1.0, models=12)
    assert arrays == {} and "6 independent targets; two folds of 4 are needed" in table["why"]
    design = registry.make("designs", "halves", dict(models=16), num_examples=60, seed=0)
    shadow = records.other_fold(design.shadow_MM, design.targets, records.folds(design.unit_M))
    fold = records.folds(design.unit_M)
    assert not (shadow & (fold[:, None] == fold)).any() and (shadow == (design.shadow_MM & (fold[:, None] != fold))).all()
    apart = registry.make("designs", "disjoint", dict(models=20, targets=16), num_examples=400, seed=0)
    assert np.array_equal(records.other_fold(apart.shadow_MM, apart.targets, records.folds(apart.unit_M[:16])), apart.shadow_MM)


# ------------------------------------------------------------------------------------------------ membership

DESIGNS = dict(halves=dict(models=16), bernoulli=dict(models=16), disjoint=dict(models=16, targets=4), blocks=dict(size=40, sources=3))
DESIGNS |= dict(two_way=dict(size=100), folds=dict(folds=5))


def matrix(design, **changes):
    fields = {k: getattr(design, k) for k in ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M", "targets")}
    return membership.check(**fields | changes)


@pytest.mark.parametrize("name", DESIGNS)
def test_counting_shadows_tells_nothing_or_the_design_refuses(name):
    design = registry.make("designs", name, DESIGNS[name], num_examples=400, seed=0)
    carries = bool(design.supports & {"shadow_in", "shadow_out"})
    found = matrix(design, counts_matter=carries)
    assert found["problems"] == []
    if carries:
        assert 0.45 <= found["count_auc"] <= 0.55
        assert membership.counted(design.member_MN, design.evaluated_MN, design.shadow_MM, design.targets) == pytest.approx(
            [
                planted.auc(design.member_MN[design.shadow_MM[t]].sum(0)[design.evaluated_MN[t]].astype(float), design.member_MN[t, design.evaluated_MN[t]])
                for t in design.targets
            ]
        )
    else:
        assert found["count_auc"] is None


def test_what_is_wrong_with_a_membership_matrix_is_said():
    rng = np.random.default_rng(0)
    halves = registry.make("designs", "halves", dict(models=8), num_examples=200, seed=0)
    assert (lambda f: (f["twins"], f["copies"], f["constant"], f["paired"], f["column_sums"]))(matrix(halves)) == (4, 0, True, True, [4, 4])
    with_twin = matrix(halves, shadow_MM=~np.eye(8, dtype=bool))
    assert any("shadow of its twin" in p for p in with_twin["problems"]) and with_twin["count_auc"] == 0.0
    assert any("number of shadows that trained on a record tells" in p for p in with_twin["problems"])
    apart = matrix(halves, unit_M=np.arange(8))
    assert any("twins but resampled apart (4 such pairs)" in p for p in apart["problems"])
    fixed = rng.random((8, 200)).argsort(0) < 4
    common = dict(evaluated_MN=np.ones_like(fixed), population_N=np.zeros(200, bool), unit_M=np.arange(8), targets=range(8))
    counts = membership.check(member_MN=fixed, shadow_MM=~np.eye(8, dtype=bool), **common)
    assert counts["count_auc"] == 0.0 and counts["constant"] and not counts["paired"] and len(counts["problems"]) == 1
    copied = fixed.copy()
    copied[5] = copied[2]
    assert any("models (2, 5) have the same members" in p for p in matrix(halves, member_MN=copied, evaluated_MN=common["evaluated_MN"])["problems"])
    spoiled = matrix(halves, population_N=np.arange(200) < 50)
    assert any("population rows are members" in p for p in spoiled["problems"]) and "population rows are evaluated" in spoiled["problems"]


# ------------------------------------------------------------------------------------------------ nulls


def fleet_scores(rng, units=8, num_records=200, mu=1.0):
    score, member, unit = scored_fleet(rng, units, num_records, mu)
    return score, member, unit, bootstrap.make(num_records, unit, draws=100)


def test_another_models_scores_know_nothing_and_a_leak_between_targets_is_seen():
    covered = excluded = 0
    for seed in range(30):
        score, member, unit, draws = fleet_scores(np.random.default_rng([4, seed]))
        found = cross_target.check({"a": dict(score_TN=score)}, member, np.ones_like(member), unit_T=unit, draws=draws)
        one = found["attacks"]["a"]
        partner = cross_target.partners(unit)
        assert one["auc"] == pytest.approx(np.mean([planted.auc(score[p], m) for p, m in zip(partner, member)]))
        covered, excluded = covered + (one["low"] <= 0.5 <= one["high"]), excluded + bool(found["excluded"])
    assert covered >= 27 and excluded <= 2
    leaking = score + 1.0 * member[np.argsort(partner)]  # each score knows the members of the target that it will be tried on
    found = cross_target.check({"a": dict(score_TN=score), "b": dict(score_TN=leaking)}, member, np.ones_like(member), unit_T=unit, draws=draws)
    assert found["excluded"] == ["b"] and found["attacks"]["b"]["auc"] > 0.6
    text = trust.cross_target(found)
    assert text[0] == trust.BAD and "corrected for 2 attacks: `b`" in text[1]


def test_partners_are_of_another_unit_and_one_unit_has_none():
    unit = np.array([0, 0, 1, 1, 2])
    partner = cross_target.partners(unit)
    assert (unit[partner] != unit).all() and sorted(partner[:2]) == [2, 3]
    score, member, _, draws = fleet_scores(np.random.default_rng(5), units=1)
    assert "no second independent target" in cross_target.check({}, member, np.ones_like(member), unit_T=[0, 0], draws=draws)["why"]
    evaluated = np.zeros_like(member)
    evaluated[0, :100] = evaluated[1, 100:] = True
    assert "share no evaluated rows" in cross_target.check({}, member, evaluated, unit_T=[0, 1], draws=draws)["why"]
    folds = registry.make("designs", "folds", dict(folds=5), num_examples=100, seed=0)
    constant = membership.check(
        **{k: getattr(folds, k) for k in ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M", "targets")}, counts_matter=False
    )
    assert "depend on each other" in validity.of_other_targets(constant, {}, folds.member_MN, folds.evaluated_MN)["why"]


def test_blind_baseline_is_quiet_in_noise_and_sees_shifts():
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p.append(blind.baseline(rng.normal(size=(300, 6)), rng.integers(0, 3, 300), rng.random(300) < 0.5, seed=seed)["p_value"])
    assert np.mean(np.array(p) <= 0.05) <= 0.15 and np.median(p) > 0.2
    rng = np.random.default_rng(0)
    member, y = np.arange(400) < 200, rng.integers(0, 3, 400)
    x = rng.normal(size=(400, 6))
    linear, ring = x + 0.5 * member[:, None], x * np.where(member, 2.0, 1.0)[:, None]
    for shifted in (linear, ring):
        found = blind.baseline(shifted, y, member)
        assert found["p_value"] < 1e-4 and found["auc"] > 0.65 and found["rows"] == 400
    labels = blind.baseline(np.zeros((400, 0)), np.where(member, y, 3 * y // 2), member)
    assert labels["p_value"] < 0.01
    images = blind.baseline(rng.normal(size=(400, 6, 6, 3)) + 0.2 * member[:, None, None, None], y, member, most_rows=200)
    assert images["rows"] == 200 and images["features"] == blind.FEATURES + 3 and images["p_value"] < 0.01
    assert blind.baseline(linear, y, member) == blind.baseline(linear, y, member)  # repeatable
    assert "10 of each are needed" in blind.baseline(x[:12], y[:12], np.arange(12) < 6)["why"]
    assert "all alike" in blind.baseline(np.ones((40, 2)), np.zeros(40, int), np.arange(40) < 20)["why"]
    assert trust.blind(found)[0] == trust.BAD and trust.blind(dict(why="drawn at random", drawn=True))[0] == trust.GOOD


# ------------------------------------------------------------------------------------------------ power

STUDIES = [(1, 400, "auc"), (1, 1500, "tpr@0.01"), (1, 400, "tpr@0.1"), (8, 150, "auc"), (8, 150, "tpr@0.1")]


@pytest.mark.parametrize("units, side, metric", STUDIES)
def test_power_is_what_simulations_see(units, side, metric):
    """The claimed smallest effect is seen with a probability near or above 80%, a fourth of it is not."""
    resampling, fprs, guess = ("crossed" if units >= 5 else "records"), (() if metric == "auc" else (float(metric[4:]),)), 0.5
    if metric == "auc":
        effect = power.smallest_auc(side, side, units=units, resampling=resampling)
    else:
        guess = fprs[0]
        effect = power.smallest_tpr(guess, side, side, units=units, resampling=resampling)
    seen = {}
    for share in (1.0, 0.25):
        wanted = guess + share * (effect - guess)
        mu = math.sqrt(2) * stats.norm.ppf(wanted) if metric == "auc" else stats.norm.ppf(wanted) - stats.norm.ppf(guess)
        found = []
        for repeat in range(40):
            rng = np.random.default_rng([6, repeat])
            member = np.zeros((2 * units, 2 * side), bool)
            for u in range(units):
                member[2 * u, rng.permutation(2 * side)[:side]] = True
                member[2 * u + 1] = ~member[2 * u]
            score, member = (mu * member + rng.normal(size=member.shape))[: 2 * units if units > 1 else 1], member[: 2 * units if units > 1 else 1]
            draws = bootstrap.make(2 * side, np.arange(len(score)) // 2, seed=repeat, draws=100)
            rows = summary.rows({"a": dict(score_TN=score)}, member, np.ones_like(member), draws=draws, fprs=fprs)
            found.append(next(r["low"] for r in rows if r["target"] is None and r["metric"] == metric) > guess)
        seen[share] = np.mean(found)
    assert seen[1.0] >= 0.6 and seen[0.25] <= 0.5, seen


def test_power_grows_with_rows_and_targets_and_says_what_is_needed():
    auc = [power.smallest_auc(n, n, units=u) for n, u in ((50, 1), (500, 1), (500, 10))]
    assert auc == sorted(auc, reverse=True) and power.smallest_auc(1, 1) == 1.0
    assert power.smallest_auc(100, 100, units=9, resampling="crossed") > power.smallest_auc(100, 100, units=9)
    assert power.smallest_tpr(0.001, 500, 500) is None and power.smallest_tpr(0.001, 500, 500, units=8, pooled=True) is not None
    table = power.table(808, 808, units=32, resampling="crossed")
    by = {row["metric"]: row for row in table}
    assert by["auc"]["units_needed"] == 32 and by["tpr@0.001"]["pooled"] and by["tpr@0.001"]["units_needed"] > 32
    more = power.table(808, 808, units=by["tpr@0.001"]["units_needed"], resampling="crossed")
    assert next(r for r in more if r["metric"] == "tpr@0.001")["smallest"] <= 0.002 * 1.01
    rows = by["tpr@0.001"]["rows_needed"]
    assert next(r for r in power.table(rows, rows, units=32, resampling="crossed") if r["metric"] == "tpr@0.001")["smallest"] <= 0.002 * 1.01
    assert power.fewest(lambda n: n >= 1000, 3) in range(1000, 1060) and power.fewest(lambda n: False, 3) is None
    for bad, message in ((dict(n_member=0), "n_member=0 must be > 0"), (dict(units=0), "units=0"), (dict(resampling="x"), "resampling='x'")):
        with pytest.raises(ValueError, match=message):
            power.smallest_auc(**dict(n_member=5, n_nonmember=5) | bad)


def test_power_for_a_single_record():
    few, many = power.records(1600, 16), power.records(1600, 64)
    assert few["p_smallest"] == pytest.approx(2 / math.comb(8, 4)) and few["p_smallest"] > few["p_needed"]
    assert many["p_smallest"] < many["p_needed"] == pytest.approx(0.05 / 1600)
    assert power.records(1600, few["targets_needed"])["p_smallest"] <= few["p_needed"]
    assert "would not be seen" in trust.lone(few) and "would be seen: 64 targets" in trust.lone(many)


def test_the_curve_of_a_known_model_is_the_one_the_power_assumes():
    """Phi(mu + Phi^-1(FPR)): the analytic ROC of normal scores."""
    rng = np.random.default_rng(8)
    member = np.arange(40000) < 20000
    curve = roc.roc(rng.normal(size=40000) + 1.3 * member, member)
    for fpr in (0.01, 0.1):
        assert roc.tpr_at_fpr(curve, fpr).tpr == pytest.approx(stats.norm.cdf(1.3 + stats.norm.ppf(fpr)), abs=0.015)
