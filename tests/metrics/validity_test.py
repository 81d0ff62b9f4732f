"""Can the numbers be trusted?

Records, nulls, membership, power: each check is quiet when all is well and loud when something
planted is wrong.
"""

import math

import numpy as np
import pytest
from scipy import stats

from mia_jax import registry
from mia_jax.measures import validity
from mia_jax.metrics import blind, bootstrap, cross_target, membership, power, roc, summary
from mia_jax.report import trust
from tests import planted

# --------------------------------------------------------------------------------
# membership

DESIGNS = dict(
    halves=dict(models=16),
    bernoulli=dict(models=16),
    disjoint=dict(models=16, targets=4),
    blocks=dict(size=40, sources=3),
)
DESIGNS |= dict(two_way=dict(size=100), folds=dict(folds=5))


def matrix(design, **changes):
    fields = {
        k: getattr(design, k)
        for k in ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M", "targets")
    }
    return membership.check(**fields | changes)


@pytest.mark.parametrize("name", DESIGNS)
def test_counting_shadows_tells_nothing_or_the_design_refuses(name):
    design = registry.make("designs", name, DESIGNS[name], num_examples=400, seed=0)
    carries = bool(design.supports & {"shadow_in", "shadow_out"})
    checked = matrix(design, counts_matter=carries)
    assert checked["problems"] == []
    if carries:
        assert 0.45 <= checked["count_auc"] <= 0.55
        assert membership.counted(
            design.member_MN, design.evaluated_MN, design.shadow_MM, design.targets
        ) == pytest.approx(
            [
                planted.auc(
                    design.member_MN[design.shadow_MM[t]]
                    .sum(0)[design.evaluated_MN[t]]
                    .astype(float),
                    design.member_MN[t, design.evaluated_MN[t]],
                )
                for t in design.targets
            ]
        )
    else:
        assert checked["count_auc"] is None


def test_what_is_wrong_with_a_membership_matrix_is_said():
    rng = np.random.default_rng(0)
    halves = registry.make("designs", "halves", dict(models=8), num_examples=200, seed=0)
    assert (lambda f: (f["twins"], f["copies"], f["constant"], f["paired"], f["column_sums"]))(
        matrix(halves)
    ) == (4, 0, True, True, [4, 4])
    with_twin = matrix(halves, shadow_MM=~np.eye(8, dtype=bool))
    assert (
        any("shadow of its twin" in p for p in with_twin["problems"])
        and with_twin["count_auc"] == 0.0
    )
    assert any(
        "number of shadows that trained on a record reveals" in p for p in with_twin["problems"]
    )
    apart = matrix(halves, unit_M=np.arange(8))
    assert any("twins but resampled separately (4 such pairs)" in p for p in apart["problems"])
    fixed = rng.random((8, 200)).argsort(0) < 4
    common = dict(
        evaluated_MN=np.ones_like(fixed),
        population_N=np.zeros(200, bool),
        unit_M=np.arange(8),
        targets=range(8),
    )
    counts = membership.check(member_MN=fixed, shadow_MM=~np.eye(8, dtype=bool), **common)
    assert (
        counts["count_auc"] == 0.0
        and counts["constant"]
        and not counts["paired"]
        and len(counts["problems"]) == 1
    )
    copied = fixed.copy()
    copied[5] = copied[2]
    assert any(
        "models (2, 5) have the same members" in p
        for p in matrix(halves, member_MN=copied, evaluated_MN=common["evaluated_MN"])["problems"]
    )
    spoiled = matrix(halves, population_N=np.arange(200) < 50)
    assert (
        any("population rows are members" in p for p in spoiled["problems"])
        and "population rows are evaluated" in spoiled["problems"]
    )


# --------------------------------------------------------------------------------
# nulls


def fleet_scores(rng, units=8, num_records=200, mu=1.0):
    member = np.zeros((2 * units, num_records), bool)
    member[::2] = rng.random((units, num_records)) < 0.5
    member[1::2] = ~member[::2]
    unit = np.arange(2 * units) // 2
    score = rng.normal(size=num_records) + mu * member + rng.normal(size=member.shape)
    return score, member, unit, bootstrap.make(num_records, unit, draws=100)


def test_another_models_scores_know_nothing_and_a_leak_between_targets_is_seen():
    covered = excluded = 0
    for seed in range(30):
        score, member, unit, draws = fleet_scores(np.random.default_rng([4, seed]))
        null = cross_target.check(
            {"a": dict(score_TN=score)}, member, np.ones_like(member), unit_T=unit, draws=draws
        )
        interval = null["attacks"]["a"]
        partner = cross_target.partners(unit)
        assert interval["auc"] == pytest.approx(
            np.mean([planted.auc(score[p], m) for p, m in zip(partner, member)])
        )
        covered, excluded = (
            covered + (interval["low"] <= 0.5 <= interval["high"]),
            excluded + bool(null["excluded"]),
        )
    assert covered >= 27 and excluded <= 2
    leaking = (
        score + 1.0 * member[np.argsort(partner)]
    )  # each score knows the members of the target that it will be tried on
    null = cross_target.check(
        {"a": dict(score_TN=score), "b": dict(score_TN=leaking)},
        member,
        np.ones_like(member),
        unit_T=unit,
        draws=draws,
    )
    assert null["excluded"] == ["b"] and null["attacks"]["b"]["auc"] > 0.6
    check = trust.check("cross_target", null)
    assert check.status == trust.BAD and "corrected for 2 attacks: b" in check.text


def test_partners_are_of_another_unit_and_one_unit_has_none():
    unit = np.array([0, 0, 1, 1, 2])
    partner = cross_target.partners(unit)
    assert (unit[partner] != unit).all() and sorted(partner[:2]) == [2, 3]
    _, member, _, draws = fleet_scores(np.random.default_rng(5), units=1)
    assert (
        "no second independent target"
        in cross_target.check({}, member, np.ones_like(member), unit_T=[0, 0], draws=draws)["why"]
    )
    evaluated = np.zeros_like(member)
    evaluated[0, :100] = evaluated[1, 100:] = True
    assert (
        "share no evaluated rows"
        in cross_target.check({}, member, evaluated, unit_T=[0, 1], draws=draws)["why"]
    )
    folds = registry.make("designs", "folds", dict(folds=5), num_examples=100, seed=0)
    constant = membership.check(
        **{
            k: getattr(folds, k)
            for k in ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M", "targets")
        },
        counts_matter=False,
    )
    assert (
        "depend on each other"
        in validity.of_other_targets(constant, {}, folds.member_MN, folds.evaluated_MN)["why"]
    )


@pytest.mark.slow
def test_blind_baseline_is_quiet_in_noise_and_sees_shifts():
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        p.append(
            blind.baseline(
                rng.normal(size=(200, 6)), rng.integers(0, 3, 200), rng.random(200) < 0.5, seed=seed
            )["p_value"]
        )
    assert np.mean(np.array(p) <= 0.05) <= 0.2 and np.median(p) > 0.2
    rng = np.random.default_rng(0)
    member, y = np.arange(400) < 200, rng.integers(0, 3, 400)
    x = rng.normal(size=(400, 6))
    linear, ring = x + 0.5 * member[:, None], x * np.where(member, 2.0, 1.0)[:, None]
    for shifted in (linear, ring):
        baseline = blind.baseline(shifted, y, member)
        assert baseline["p_value"] < 1e-4 and baseline["auc"] > 0.65 and baseline["rows"] == 400
    labels = blind.baseline(np.zeros((400, 0)), np.where(member, y, 3 * y // 2), member)
    assert (
        labels["p_value"] < 0.01
        and "of the labels alone" in labels["method"]
        and "labels alone" not in baseline["method"]
    )
    images = blind.baseline(
        rng.normal(size=(400, 6, 6, 3)) + 0.2 * member[:, None, None, None],
        y,
        member,
        most_rows=200,
    )
    assert (
        images["rows"] == 200
        and images["features"] == blind.FEATURES + 3
        and images["p_value"] < 0.01
    )
    assert blind.baseline(linear, y, member) == blind.baseline(linear, y, member)  # repeatable
    assert "10 of each are needed" in blind.baseline(x[:12], y[:12], np.arange(12) < 6)["why"]
    assert (
        "all alike"
        in blind.baseline(np.ones((40, 2)), np.zeros(40, int), np.arange(40) < 20)["why"]
    )
    assert (
        trust.check("blind", baseline).status == trust.BAD
        and trust.check("blind", dict(why="drawn at random", drawn=True)).status == trust.GOOD
    )


# --------------------------------------------------------------------------------
# power

STUDIES = [
    (1, 400, "auc"),
    (1, 1500, "tpr@0.01"),
    (1, 400, "tpr@0.1"),
    (8, 150, "auc"),
    (8, 150, "tpr@0.1"),
]


@pytest.mark.parametrize("units, side, metric", STUDIES)
def test_power_is_what_simulations_see(units, side, metric):
    """The claimed smallest effect is seen with a probability near or above 80%, a fourth of it is
    not.
    """
    resampling, fprs, guess = (
        ("crossed" if units >= 5 else "records"),
        (() if metric == "auc" else (float(metric[4:]),)),
        0.5,
    )
    if metric == "auc":
        effect = power.smallest_auc(side, side, units=units, resampling=resampling)
    else:
        guess = fprs[0]
        effect = power.smallest_tpr(guess, side, side, units=units, resampling=resampling)
    seen = {}
    for share in (1.0, 0.25):
        value = guess + share * (effect - guess)
        mu = (
            math.sqrt(2) * stats.norm.ppf(value)
            if metric == "auc"
            else stats.norm.ppf(value) - stats.norm.ppf(guess)
        )
        detected = []
        for repeat in range(40):
            rng = np.random.default_rng([6, repeat])
            member = np.zeros((2 * units, 2 * side), bool)
            for u in range(units):
                member[2 * u, rng.permutation(2 * side)[:side]] = True
                member[2 * u + 1] = ~member[2 * u]
            score, member = (
                (mu * member + rng.normal(size=member.shape))[: 2 * units if units > 1 else 1],
                member[: 2 * units if units > 1 else 1],
            )
            draws = bootstrap.make(2 * side, np.arange(len(score)) // 2, seed=repeat, draws=100)
            rows = summary.rows(
                {"a": dict(score_TN=score)}, member, np.ones_like(member), draws=draws, fprs=fprs
            )
            detected.append(
                next(r["low"] for r in rows if r["target"] is None and r["metric"] == metric)
                > guess
            )
        seen[share] = np.mean(detected)
    assert seen[1.0] >= 0.6 and seen[0.25] <= 0.5, seen


def test_power_grows_with_rows_and_targets_and_says_what_is_needed():
    auc = [power.smallest_auc(n, n, units=u) for n, u in ((50, 1), (500, 1), (500, 10))]
    assert auc == sorted(auc, reverse=True) and power.smallest_auc(1, 1) == 1.0
    assert power.smallest_auc(100, 100, units=9, resampling="crossed") > power.smallest_auc(
        100, 100, units=9
    )
    assert (
        power.smallest_tpr(0.001, 500, 500) is None
        and power.smallest_tpr(0.001, 500, 500, units=8, pooled=True) is not None
    )
    table = power.table(808, 808, units=32, resampling="crossed")
    by = {row["metric"]: row for row in table}
    assert (
        by["auc"]["units_needed"] == 32
        and by["tpr@0.001"]["pooled"]
        and by["tpr@0.001"]["units_needed"] > 32
    )
    more = power.table(808, 808, units=by["tpr@0.001"]["units_needed"], resampling="crossed")
    assert next(r for r in more if r["metric"] == "tpr@0.001")["smallest"] <= 0.002 * 1.01
    rows = by["tpr@0.001"]["rows_needed"]
    assert (
        next(
            r
            for r in power.table(rows, rows, units=32, resampling="crossed")
            if r["metric"] == "tpr@0.001"
        )["smallest"]
        <= 0.002 * 1.01
    )
    assert (
        power.fewest(lambda n: n >= 1000, 3) in range(1000, 1060)
        and power.fewest(lambda n: False, 3) is None
    )
    for bad, message in (
        (dict(n_member=0), "n_member=0 must be > 0"),
        (dict(units=0), "units=0"),
        (dict(resampling="x"), "resampling='x'"),
    ):
        with pytest.raises(ValueError, match=message):
            power.smallest_auc(**dict(n_member=5, n_nonmember=5) | bad)


def test_the_curve_of_a_known_model_is_the_one_the_power_assumes():
    """Phi(mu + Phi^-1(FPR)): the analytic ROC of normal scores."""
    rng = np.random.default_rng(8)
    member = np.arange(40000) < 20000
    curve = roc.roc(rng.normal(size=40000) + 1.3 * member, member)
    for fpr in (0.01, 0.1):
        assert roc.tpr_at_fpr(curve, fpr).tpr == pytest.approx(
            stats.norm.cdf(1.3 + stats.norm.ppf(fpr)), abs=0.015
        )


def test_the_cross_target_null_allows_for_levels_of_few_shadow_models():
    """With 4 pairs, which shadows saw a record shows in the others' scores: chance, and no leak."""
    unit, excluded = np.arange(8) // 2, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        half_UN = rng.random((4, 200)) < 0.5
        member = np.repeat(half_UN, 2, axis=0) ^ (np.arange(8) % 2 == 1)[:, None]
        level_TM = rng.normal(size=(8, 8)) * (unit[:, None] != unit[None])
        score = level_TM @ member + rng.normal(size=member.shape)
        draws = bootstrap.make(200, unit, draws=60, seed=seed)
        null = cross_target.check(
            dict(a=dict(score_TN=score)), member, np.ones_like(member), unit_T=unit, draws=draws
        )
        excluded += bool(null["excluded"])
    assert excluded <= 3
