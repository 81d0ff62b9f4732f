"""Attacks without groups of units, and the standard errors that are made from them."""

import dataclasses

import jax
import numpy as np
import pytest

from mia_jax.attacks import attack_model, lira, threshold
from mia_jax.designs import bernoulli, disjoint, halves
from mia_jax.metrics import (
    bootstrap,
    comparisons,
    components,
    intervals,
    jackknife,
    roc,
    summary,
)
from mia_jax.pipeline import attack as attack_stage
from mia_jax.pipeline import reruns
from tests import planted

KEY = jax.random.key(0)


def planted_fleet(models: int = 12, maker=halves, **fields):
    design = maker.make(num_examples=60, seed=0, models=models, **fields)
    return planted.fleet(design, "rescaled_logit", "loss", mu=1.0, seed=0)


def scores_without(attack, fleet, groups: int) -> list[tuple]:
    scored = tuple(range(len(fleet.design.member_MN)))
    common = dict(scored=scored, groups=groups, scores=attack_stage.scores, key=KEY)
    return reruns.each(attack, fleet, measure=lambda design, score_MN: (design, score_MN), **common)


@pytest.mark.parametrize("maker", [halves, bernoulli])
@pytest.mark.parametrize("center", ["mean", "median"])
def test_a_rerun_is_the_attack_on_the_smaller_fleet(maker, center):
    fleet, attack = planted_fleet(maker=maker), lira.make(center=center)
    actual_MN = scores_without(attack, fleet, 3)
    assert len(actual_MN) == 3
    for design, score_MN in actual_MN:
        kept = list(design.targets)
        cut = {n: getattr(design, n)[kept] for n in ("member_MN", "evaluated_MN", "unit_M")}
        cut |= dict(shadow_MM=design.shadow_MM[np.ix_(kept, kept)], targets=tuple(range(len(kept))))
        signal = {name: value[kept] for name, value in fleet.signal.items()}
        smaller = dataclasses.replace(
            fleet, design=dataclasses.replace(fleet.design, remake=None, **cut), signal=signal
        )
        expected = attack_stage.scores(attack, smaller, smaller.design.targets, KEY)
        np.testing.assert_allclose(score_MN[kept], expected, rtol=1e-9, atol=1e-9)
        assert np.isnan(np.delete(score_MN, kept, axis=0)).all()


def test_groups_hold_whole_units_and_their_share_of_targets_and_shadows():
    design = planted_fleet(models=20).design
    group_M = reruns.grouped(design, 4)
    for unit in np.unique(design.unit_M):
        assert len(set(group_M[design.unit_M == unit])) == 1
    assert np.bincount(group_M).tolist() == [6, 6, 4, 4]
    design = disjoint.make(num_examples=200, seed=0, models=16, targets=6)
    group_M, targets = reruns.grouped(design, 3), list(design.targets)
    assert np.bincount(group_M[targets]).tolist() == [2, 2, 2]
    shadows_M = design.shadow_MM[targets].any(0)
    shadows_M[targets] = False
    assert (np.bincount(group_M[shadows_M], minlength=3) >= 3).all()
    assert (reruns.grouped(design, 99)[targets] >= 0).all()


def test_which_attacks_are_rerun():
    """Those on shadows that score all targets at once, if there are units enough to resample."""
    design, few = planted_fleet(models=10).design, planted_fleet(models=8).design
    assert reruns.applies(lira.make(), design, groups=8)
    assert not reruns.applies(lira.make(), design, groups=0)
    assert not reruns.applies(lira.make(), few, groups=8)
    assert not reruns.applies(lira.make(), dataclasses.replace(design, balance=True), groups=8)
    assert not reruns.applies(threshold.make(signal="loss"), design, groups=8)
    assert not reruns.applies(attack_model.make(), design, groups=8)


def test_an_attack_that_cannot_do_without_a_group_has_no_reruns():
    def scores(attack, fleet, scored, key):
        raise ValueError("no usable shadow is IN")

    common = dict(scored=range(12), groups=4, scores=scores, key=KEY, measure=lambda *parts: parts)
    assert reruns.each(lira.make(), planted_fleet(), **common) == []


def scored(seed: int = 0, targets: int = 6, records: int = 300):
    rng = np.random.default_rng(seed)
    member = rng.random((targets, records)) < 0.5
    return rng.normal(size=member.shape) + 0.7 * member, member


def test_numbers_are_those_of_the_report_and_react_as_the_draws_do():
    score, member = scored()
    everyone, threshold_T = np.ones_like(member), np.full(6, 0.4)
    draws, fprs, kept = bootstrap.make(300, np.arange(6), seed=1), (0.01, 0.1), {}
    attack = dict(score_TN=score, threshold_T=threshold_T, knows="nothing")
    rows = summary.rows({"a": attack}, member, everyone, draws=draws, fprs=fprs, keep=kept)
    rows = {(r["target"], r["metric"]): r["value"] for r in rows}
    numbers = jackknife.numbers(
        score, threshold_T, member_TN=member, evaluated_TN=everyone, fprs=fprs
    )
    metrics = ("auc", "tpr@0.01", "tpr@0.1", "advantage", "balanced_accuracy")
    assert set(numbers) == {(scope, metric) for scope in (None, "pooled") for metric in metrics}
    for key, number in numbers.items():
        assert number.value == pytest.approx(rows[key]), key
    parts = kept["a"][None, "auc"].parts
    linear_R = numbers[None, "auc"].pull_N @ draws.record_NR / draws.record_NR.mean()
    assert np.corrcoef(linear_R, components.whole(parts))[0, 1] > 0.99
    assert linear_R.std() == pytest.approx(components.whole(parts).std(), rel=0.05)


def test_a_mean_over_units_is_jackknifed_by_its_groups():
    """For an attack that knows no shadows a rerun is the same scores of the other targets."""
    score, member = scored(targets=8)
    everyone, draws = np.ones_like(member), bootstrap.make(300, np.arange(8), seed=1)
    without = []
    for g in range(4):
        left_T = np.arange(8) // 2 == g
        sides = dict(member_TN=member[~left_T], evaluated_TN=everyone[~left_T], fprs=())
        without.append(jackknife.Rerun(left_T, jackknife.numbers(score[~left_T], None, **sides)))
    attack, kept = dict(score_TN=score, without=without), {}
    left = jackknife.parts(attack, member, everyone, draws=draws, fprs=())[None, "auc"]
    summary.rows(
        {"a": dict(score_TN=score, knows="nothing")},
        member,
        everyone,
        draws=draws,
        fprs=(),
        keep=kept,
    )
    grouped = components.grouped(kept["a"][None, "auc"].parts, left.group_U)
    np.testing.assert_allclose(left.value_G, grouped.value_G)
    np.testing.assert_allclose(left.apart_GR.std(1), grouped.apart_GR.std(1), rtol=0.05)


def test_a_jackknife_counts_both_roles_of_a_model():
    """Means over pairs (target, shadow) of a_t + c a_s: the rule without reruns knows c = 1
    alone.
    """
    for c in (0.0, 1.0):
        values, errors = [], []
        for repeat in range(300):
            a_U = np.random.default_rng(repeat).normal(size=8)
            value = a_U.mean() * (1 + c)
            without_U = np.array([np.delete(a_U, u).mean() * (1 + c) for u in range(8)])
            left = components.Left(
                value + 7 * (value - without_U), np.zeros((8, 3)), np.full(8, 1 / 8), np.arange(8)
            )
            values.append(value)
            errors.append(components.left_error(left).deviation ** 2)
        assert np.mean(errors) ** 0.5 == pytest.approx(np.std(values), rel=0.1)


def jackknifed(
    rng, *, units_sd: float, own_sd: float, records_sd: float, groups: int = 8
) -> components.Left:
    """A number without each group, whose parts A, E and B have these standard deviations."""
    between_sd = float(np.hypot(units_sd, own_sd))
    return components.Left(
        value_G=groups**0.5 * between_sd * rng.normal(size=groups),
        apart_GR=groups**0.5 * own_sd * rng.normal(size=(groups, 60)),
        share_G=np.full(groups, 1 / groups),
        group_U=np.arange(groups),
        whole_R=np.hypot(records_sd, own_sd) * np.tile([-1.0, 1.0], 30),
    )


def test_where_records_explain_far_more_than_shows_the_records_alone_count():
    left = jackknifed(np.random.default_rng(0), units_sd=0.0, own_sd=1.0, records_sd=1.0)
    nearly_equal = left._replace(value_G=left.value_G / 20)
    expected = np.std(left.whole_R)
    error = components.left_error(nearly_equal)
    assert error.deviation == pytest.approx(expected, rel=1e-3) and error.freedom > 500
    nothing = nearly_equal._replace(whole_R=np.zeros(60))
    assert components.left_error(nothing) == components.Error(0.0)


@pytest.mark.parametrize("units_sd", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("own_sd", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("groups", [pytest.param(5, marks=pytest.mark.slow), 8])
def test_errors_from_few_groups_cover_whether_units_differ_or_not(units_sd, own_sd, groups):
    """That J lies below E may be chance: normal intervals over records alone would cover less."""
    rng, hits = np.random.default_rng(1), []
    parts = dict(units_sd=units_sd, own_sd=own_sd, records_sd=1.0)
    for _ in range(800):
        error = components.left_error(jackknifed(rng, groups=groups, **parts))
        miss = rng.normal() * sum(sd**2 for sd in parts.values()) ** 0.5
        hits.append(abs(miss) <= intervals.t_half(error.deviation, 0.95, error.freedom))
    assert 0.94 <= np.mean(hits) <= 0.99


def test_a_t_stands_for_a_mixture_of_normal_distributions():
    assert components.like_t(np.full(9, 4.0)) == components.Error(pytest.approx(2.0))
    for degrees in (2, 6, 30):
        degrees_fitted = components.like_t(9.0 * components.true_over_estimated(degrees))
        assert degrees_fitted.deviation == pytest.approx(3.0, rel=0.01)
        assert degrees_fitted.freedom == pytest.approx(degrees, rel=0.1)
    variance_K = 1 + np.maximum(0, 2 * components.true_over_estimated(6) - 2)
    degrees_fitted = components.like_t(variance_K)
    drawn = np.random.default_rng(0).normal(size=(20000, 64)) * np.sqrt(variance_K)
    half = intervals.t_half(degrees_fitted.deviation, 0.95, degrees_fitted.freedom)
    assert np.mean(np.abs(drawn) <= half) == pytest.approx(0.95, abs=0.001)


def test_a_difference_is_jackknifed_if_every_attack_on_shadows_was_rerun():
    """An attack that knows nothing needs no rerun; an attack on shadows without one makes the rule
    without reruns count.
    """
    score, member = scored(targets=8)
    everyone, draws = np.ones_like(member), bootstrap.make(300, np.arange(8), seed=1)
    without = []
    for u in range(8):
        left_T = np.arange(8) == u
        sides = dict(member_TN=member[~left_T], evaluated_TN=everyone[~left_T], fprs=(0.1,))
        without.append(
            jackknife.Rerun(left_T, jackknife.numbers(score[~left_T], np.zeros(7), **sides))
        )
    zero = dict(threshold_T=np.zeros(8))
    attacks = dict(
        rerun=dict(score_TN=score, without=without, **zero),
        alone=dict(
            score_TN=score + np.random.default_rng(5).normal(size=score.shape),
            knows="nothing",
            **zero,
        ),
        dear=dict(score_TN=score + np.random.default_rng(6).normal(size=score.shape), **zero),
    )
    kept = {}
    rows = summary.rows(attacks, member, everyone, draws=draws, fprs=(0.1,), keep=kept)
    how = {r["attack"]: r["method"] for r in rows if (r["target"], r["metric"]) == (None, "auc")}
    assert "rerun without each of 8 groups of units" in how["rerun"]
    assert "rerun" not in how["alone"] + how["dear"]
    pairs = comparisons.rows(kept, list(attacks))
    pairs += comparisons.accuracies(attacks, member, everyone, names=list(attacks), draws=draws)
    assert {r["metric"] for r in pairs} == {"auc", "tpr@0.1", "balanced_accuracy"}
    for row in pairs:
        expected = {row["attack"], row["versus"]} == {"rerun", "alone"}
        assert ("rerun without" in row["method"]) == expected, row


@pytest.mark.parametrize("bend", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("nonmembers", [100, 150])
def test_a_mean_tpr_at_few_false_positives_allows_for_the_bend_of_the_roc(bend, nonmembers):
    """TPR = FPR^bend: the TPR at a high non-member's threshold is on average below that at its mean
    FPR.
    """
    rng, means = np.random.default_rng(0), []
    for _ in range(20):
        curves = []
        for _ in range(100):
            inside, outside = 1 - rng.random(400) ** (1 / bend), 1 - rng.random(nonmembers)
            curves.append(
                roc.roc(np.concatenate([inside, outside]), np.arange(400 + nonmembers) < 400)
            )
        mean = np.mean([roc.tpr_between(curve, 0.01) for curve in curves])
        means.append(roc.between_true(mean, 0.01, nonmembers, roc.bend_at(curves, 0.01)))
    assert np.mean(means) == pytest.approx(0.01**bend, rel=0.03)
