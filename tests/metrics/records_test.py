"""Per-record vulnerability: exact tests, intervals that cover, nothing found in noise, and the
winner's curse undone.
"""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from mia_jax import registry
from mia_jax.measures import exposed_records
from mia_jax.metrics import power, records
from mia_jax.pipeline.attack import scores
from mia_jax.report.sections import records as records_section
from mia_jax.report.sections import trust
from tests import planted


def test_the_null_distribution_is_exact():
    rng = np.random.default_rng(0)
    for inside, outside in ((1, 1), (3, 5), (8, 8)):
        pmf = records.distribution(inside, outside)
        assert pmf.sum() == pytest.approx(1) and pmf == pytest.approx(pmf[::-1])
        a, b = rng.normal(size=inside), rng.normal(size=outside)
        exact = stats.mannwhitneyu(a, b, alternative="greater", method="exact")
        assert pmf[int(exact.statistic) :].sum() == pytest.approx(exact.pvalue)
    assert records.distribution(16, 16)[-1] == pytest.approx(
        math.factorial(16) ** 2 / math.factorial(32), rel=1e-12
    )  # deep tails keep their digits


def scored_fleet(rng, units, num_records, mu, sd=1.0):
    member = np.zeros((2 * units, num_records), bool)
    member[::2] = rng.random((units, num_records)) < 0.5
    member[1::2] = ~member[::2]
    noise = rng.normal(size=member.shape)
    return (
        rng.normal(size=num_records) + np.where(member, mu + sd * noise, noise),
        member,
        np.arange(2 * units) // 2,
    )


def test_records_are_pair_counting_within_folds():
    score, member, unit = scored_fleet(np.random.default_rng(1), 8, 40, 1.0)
    score[:, :20] = np.round(score[:, :20])
    score[0, 3] = np.nan  # not scored
    evaluated = np.ones_like(member)
    evaluated[2, 5] = False
    fold = records.folds(unit)
    assert fold.tolist() == [0, 0, 1, 1] * 4
    exposure = records.vulnerability(score, member, evaluated, fold)
    for n in range(40):
        won = pairs = 0
        for a in range(16):
            for b in range(16):
                usable = all(evaluated[t, n] and not np.isnan(score[t, n]) for t in (a, b))
                if usable and fold[a] == fold[b] and member[a, n] and not member[b, n]:
                    won, pairs = (
                        won + (score[a, n] > score[b, n]) + 0.5 * (score[a, n] == score[b, n]),
                        pairs + 1,
                    )
        assert exposure.auc_N[n] == pytest.approx(won / pairs)
    assert (exposure.low_N <= exposure.auc_N).all() and (exposure.auc_N <= exposure.high_N).all()
    assert exposure.q_N == pytest.approx(stats.false_discovery_control(exposure.p_N))
    for n in (20, 25, 39):  # no ties: twice the smaller of the folds' exact p-values
        sides_of_fold = [
            [score[(fold == f) & s[:, n], n] for s in (member, ~member)] for f in (0, 1)
        ]
        exact = [
            stats.mannwhitneyu(*sides, alternative="greater", method="exact").pvalue
            for sides in sides_of_fold
        ]
        assert exposure.p_N[n] == pytest.approx(min(1, 2 * min(exact)))
    assert (
        exposure.inside_N[3] + exposure.outside_N[3]
        == 15
        == exposure.inside_N[5] + exposure.outside_N[5]
    )
    one_sided = records.vulnerability(score, np.ones_like(member), evaluated, fold)
    assert (
        np.isnan(one_sided.auc_N).all()
        and np.isnan(one_sided.p_N).all()
        and np.isnan(one_sided.q_N).all()
    )


@pytest.mark.parametrize(
    "units, mu, sd", [(8, 0, 1), (8, 1, 1), (16, 2.5, 1), (16, 1, 2), (32, 4, 1)]
)
def test_intervals_of_records_cover(units, mu, sd):
    score, member, unit = scored_fleet(np.random.default_rng([2, units]), units, 2000, mu, sd)
    exposure = records.vulnerability(score, member, np.ones_like(member), records.folds(unit))
    truth = stats.norm.cdf(mu / np.hypot(1, sd))
    assert np.mean((exposure.low_N <= truth) & (truth <= exposure.high_N)) >= 0.92
    assert np.mean((exposure.low_2N <= truth) & (truth <= exposure.high_2N)) >= 0.92
    assert (
        truth > 0.9
        or np.mean(exposure.high_2N - exposure.low_2N) < 1.3 * 3.92 * exposure.auc_2N.std()
    )
    assert (
        np.mean(exposure.high_N - exposure.low_N)
        < np.mean(exposure.high_2N - exposure.low_2N) * 1.05
    )  # no wider than one fold's


def test_large_folds_use_the_normal_tail():
    rng = np.random.default_rng(3)
    score, member, unit = scored_fleet(rng, 80, 300, 0.3)
    exposure = records.vulnerability(score, member, np.ones_like(member), records.folds(unit))
    assert member[unit % 2 == 0].sum(0).min() ** 2 > records.EXACT
    null, member, unit = scored_fleet(rng, 80, 2000, 0.0)
    p = records.vulnerability(null, member, np.ones_like(member), records.folds(unit)).p_N
    assert 0.03 < np.mean(p <= 0.05) < 0.06 and np.nanmedian(exposure.p_N) < 0.1


def measured(seed, mu, models=32, examples=150):
    design = registry.make(
        "designs", "halves", dict(models=models), num_examples=examples, seed=seed
    )
    attack = registry.make("attacks", "lira", dict(variance="per_example"))
    fleet = planted.fleet(design, "rescaled_logit", mu=mu, seed=seed)
    return (
        exposed_records.measure(
            attack=attack, fleet=fleet, scores=scores, key=jax.random.key(0), seed=seed
        ),
        fleet,
        attack,
    )


def null_fleets(count):
    """Measures `count` fleets with random signals.

    Returns for each fleet the mean AUC of a record, whether there are discoveries, the ranked and
    the held-out AUC, the share of p <= 0.05, the coverage of 0.5, and the mean AUC when the other
    targets are the shadows.
    """
    measurements = []
    for seed in range(count):
        (table, arrays), fleet, attack = measured(seed, mu=0.0)
        known = ~np.isnan(arrays["auc_N"])
        winner, design = table["most_exposed"], fleet.design
        score = scores(attack, fleet, design.targets, jax.random.key(0))
        naive = records.vulnerability(
            score, design.member_MN, design.evaluated_MN, np.zeros(len(score), int)
        ).auc_N
        held = (arrays["low_N"] <= 0.5) & (0.5 <= arrays["high_N"])
        numbers = (
            table["mean_auc"],
            table["significant"] > 0,
            winner["ranked_auc"],
            winner["held_out_auc"],
            np.mean((arrays["p_N"] <= 0.05)[known]),
        )
        measurements.append((*numbers, held[known].mean(), np.nanmean(naive)))
    return np.array(measurements).T


def test_noise_exposes_no_record_and_its_highest_records_are_forgotten():
    """Mean AUC of a record .5 in LiRA's scores of noise; with the other targets as shadows it is
    below .5. The records that half of the targets rank highest are at .5 in the other half; the
    other fold would not do for that: each fold is the other's evidence.
    """
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
    assert (
        winner["low"] < winner["held_out_auc"] < winner["high"]
        and winner["held_out_auc"] < winner["ranked_auc"] - 0.1
    )
    assert len(table["listed"]) == exposed_records.LISTED
    best, fold, half = table["listed"][0], arrays["fold_T"], arrays["half_T"]
    assert (
        best["ranked_auc"] >= table["listed"][-1]["ranked_auc"]
        and best["low"] <= best["auc"] <= best["high"]
    )
    assert best["q"] == arrays["q_N"][best["record"]] and arrays["auc_2N"].shape == (2, 150)
    assert (
        all(((fold == f) & (half == h)).sum() == 16 for f in (0, 1) for h in (0, 1))
        and (fold[::2] == fold[1::2]).all()
    )


def test_halves_without_both_sides_of_a_record_list_nothing():
    score, member, unit = scored_fleet(np.random.default_rng(7), 8, 30, 1.0)
    member[:, :] = (
        np.arange(16)[:, None] < 4
    )  # only the first two units trained on a record, so no fold's second half has both sides
    most_exposed, halves = records.most_exposed(score, member, np.ones_like(member), unit)
    assert most_exposed == dict(records=0, ranked_auc=None, held_out_auc=None, low=None, high=None)
    assert np.isnan(halves.held_N).all()
    table = dict(
        targets=16,
        tested=30,
        significant=2,
        mean_auc=0.5,
        level=0.95,
        most_exposed=most_exposed,
        listed=[],
    )
    text = records_section.text(records=dict(lira=table))
    assert text.endswith("the mean AUC over records is 0.500. All records are in records.csv.\n")


def test_records_need_enough_targets():
    (table, arrays), _, _ = measured(0, mu=1.0, models=12)
    assert arrays == {} and "6 independent targets; two folds of 4 are needed" in table["why"]
    design = registry.make("designs", "halves", dict(models=16), num_examples=60, seed=0)
    shadow = records.other_fold(design.shadow_MM, design.targets, records.folds(design.unit_M))
    fold = records.folds(design.unit_M)
    assert (
        not (shadow & (fold[:, None] == fold)).any()
        and (shadow == (design.shadow_MM & (fold[:, None] != fold))).all()
    )
    apart = registry.make(
        "designs", "disjoint", dict(models=20, targets=16), num_examples=400, seed=0
    )
    assert np.array_equal(
        records.other_fold(apart.shadow_MM, apart.targets, records.folds(apart.unit_M[:16])),
        apart.shadow_MM,
    )


def test_power_for_a_single_record():
    few, many = power.records(1600, 16), power.records(1600, 64)
    assert (
        few["p_smallest"] == pytest.approx(2 / math.comb(8, 4))
        and few["p_smallest"] > few["p_needed"]
    )
    assert many["p_smallest"] < many["p_needed"] == pytest.approx(0.05 / 1600)
    assert power.records(1600, few["targets_needed"])["p_smallest"] <= few["p_needed"]
    assert (
        "16 target models, a single exposed record would not be detected (that takes 37"
        in trust.single_record(few)
    )
    assert "64 target models are enough to detect even one exposed record" in trust.single_record(
        many
    )
