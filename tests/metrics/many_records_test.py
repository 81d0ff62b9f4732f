"""Many records: groups of records share counts, and ROC curves are redrawn in rank bins.

The twin of every fast form is the exact form with the counts of the groups written out.
"""

import dataclasses

import numpy as np
import pytest

from mia_jax.metrics import (
    bootstrap,
    components,
    cross_target,
    jackknife,
    outcomes,
    placements,
    rank_bins,
    record_groups,
    roc,
    sorted_scores,
    summary,
    thresholds,
)

FPRS = (0.001, 0.01, 0.1)
T, N = 5, 30_000


def scored(ties: bool, seed: int = 0):
    """Returns (score_TN, member_TN, evaluated_TN)."""
    rng = np.random.default_rng(seed)
    member, evaluated = rng.random((T, N)) < 0.5, rng.random((T, N)) < 0.9
    score = rng.normal(size=(T, N)) + member * np.abs(rng.normal(size=N))
    return np.round(score, 1) if ties else score, member, evaluated


@pytest.fixture(scope="module", params=[False, True], ids=["distinct", "tied"])
def many(request):
    arrays = scored(request.param)
    draws = bootstrap.make(N, np.arange(T), draws=40, seed=3)
    stratified = summary.of_targets(draws, *arrays[1:])
    done = sorted_scores.sort(
        *arrays, targets=range(T), draws=draws, fprs=FPRS, stratified=stratified
    )
    return arrays, draws, stratified, done


def exact_rows(arrays, t: int):
    score, member, evaluated = (array[t] for array in arrays)
    at = np.flatnonzero(evaluated)
    curve = roc.roc(score[at], member[at])
    return curve, bootstrap.ranked(score[at], member[at], t * N + at)


def test_records_have_their_own_counts_up_to_the_stated_number_and_share_them_above():
    for records in (10, record_groups.EXACT):
        assert isinstance(bootstrap.make(records, np.arange(6), draws=40).record_NR, np.ndarray)
    counts = bootstrap.make(record_groups.EXACT + 1, np.arange(6), draws=40).record_NR
    assert isinstance(counts, record_groups.Grouped)
    size_G = np.bincount(counts.group_N)
    assert len(size_G) == record_groups.GROUPS and set(size_G) <= {4, 5}
    size = bootstrap.resample_size(record_groups.GROUPS)
    assert (counts.count_GR.sum(0) == size).all() and counts.shape == (20_001, 40)


def test_a_sum_over_groups_is_the_sum_over_their_records():
    rng = np.random.default_rng(0)
    counts = bootstrap.make(25_000, np.arange(6), draws=40).record_NR
    value_TN, flag_TN = rng.normal(size=(3, 25_000)), rng.random((3, 25_000)) < 0.1
    for array in (value_TN, flag_TN):
        np.testing.assert_allclose(
            record_groups.totals(array, counts), array @ counts.expanded(), rtol=1e-5, atol=1e-3
        )


def test_the_variance_of_draws_of_groups_is_that_of_draws_of_records():
    value_N = np.random.default_rng(0).exponential(size=40_000)
    value_N -= value_N.mean()
    counts = bootstrap.make(40_000, np.arange(6), draws=2000).record_NR
    drawn_R = record_groups.totals(value_N[None], counts)[0]
    assert np.var(drawn_R) == pytest.approx(np.sum(value_N**2), rel=0.12)  # 4 sigma
    folded_G = counts.fold(value_N)
    assert np.sum(folded_G**2) == pytest.approx(np.sum(value_N**2), rel=0.09)


def test_stratified_groups_keep_sides_apart_and_draw_no_other_record():
    _, member, evaluated = scored(False)
    counts = bootstrap.stratified(1, member[0], evaluated[0], 40).expanded()
    assert (counts[~evaluated[0]] == 0).all()
    for side in (member[0], ~member[0]):
        total_R = counts[evaluated[0] & side].sum(0)
        assert np.ptp(total_R) / total_R.mean() < 0.02  # groups differ by one record in size


def test_a_thinned_curve_has_the_numbers_of_the_whole_curve(many):
    arrays, _, _, done = many
    pooled = summary.pool(*arrays)[0]
    curves = [(exact_rows(arrays, t)[0], done.curves[t]) for t in range(2)]
    for exact, thin in [*curves, (pooled, done.pooled)]:
        assert len(thin.fpr_V) <= len(exact.fpr_V)
        assert np.isin(thin.threshold_V, exact.threshold_V).all()
        assert roc.auc(thin) == pytest.approx(roc.auc(exact), abs=1e-12)
        assert roc.best_threshold(thin) == roc.best_threshold(exact)
        assert roc.best_accuracy(thin) == roc.best_accuracy(exact)
        assert roc.advantage(thin) == roc.advantage(exact)
        assert roc.mann_whitney(thin) == pytest.approx(roc.mann_whitney(exact))
        assert roc.auc(roc.hull(thin)) == pytest.approx(roc.auc(roc.hull(exact)), abs=1e-4)
        for fpr in FPRS:
            for convention in ("step", "strict"):
                point = roc.tpr_at_fpr(thin, fpr, convention)
                assert point == roc.tpr_at_fpr(exact, fpr, convention)
            steps = int(fpr * exact.n_nonmember)
            assert roc.slope_at(thin, steps) == roc.slope_at(exact, steps)
            assert roc.tpr_between(thin, fpr) == roc.tpr_between(exact, fpr)
            assert roc.partial_auc(thin, fpr) == pytest.approx(
                roc.partial_auc(exact, fpr), abs=1e-4
            )
            assert roc.bend_at([thin], fpr) == pytest.approx(roc.bend_at([exact], fpr), rel=1e-2)


def test_draws_in_bins_are_the_draws_row_by_row(many):
    arrays, draws, stratified, done = many
    counts, steps = draws.record_NR.expanded(), [1, 5, 14, 50, 135, 1350]
    score, member, evaluated = arrays
    for t in range(2):
        rank = exact_rows(arrays, t)[1]
        area_R, _, _ = bootstrap.redraw(rank, counts, None, [], low=False)
        np.testing.assert_allclose(done.area_TR[t], area_R, atol=2e-4)
        own = np.ascontiguousarray(stratified[t].expanded())
        area_R, *ends = bootstrap.redraw(rank, own, None, steps)
        np.testing.assert_allclose(done.single[t].auc_R, area_R, atol=2e-4)
        read = [outcomes.allowed(fpr, rank.nonmember_J.size) for fpr in FPRS]
        exact = bootstrap.redraw(rank, own, None, read)[1:]
        np.testing.assert_allclose(done.single[t].ends(read), exact, atol=1e-3)
        rows = sorted_scores.falling(score[t], member[t], evaluated[t])
        cuts = rank_bins.cut(sorted_scores.rising(rows)[1])
        bins = sorted_scores.drawn_bins(rows, cuts, stratified[t])
        binned = rank_bins.drawn_ends(bins, steps)
        for exact_FR, binned_FR in zip(ends, binned, strict=True):
            # few false positives are drawn row by row
            np.testing.assert_allclose(binned_FR[:4], exact_FR[:4], atol=1e-12)
            np.testing.assert_allclose(binned_FR, exact_FR, atol=1e-3)
            assert np.abs(binned_FR - exact_FR).mean() < 1e-4
    _, rank = summary.pool(*arrays)
    _, *ends = bootstrap.redraw(rank, counts, draws.unit_TR, steps)
    binned = rank_bins.drawn_ends(done.pooled_bins, steps)
    for exact_FR, binned_FR in zip(ends, binned, strict=True):
        np.testing.assert_allclose(binned_FR[:4], exact_FR[:4], atol=1e-12)
        np.testing.assert_allclose(binned_FR, exact_FR, atol=1e-3)
        assert np.abs(binned_FR - exact_FR).mean() < 1e-4


def test_pooled_areas_and_slices_are_those_of_single_records(many):
    (score, member, evaluated), draws, _, done = many
    counts = draws.record_NR.expanded()
    w = placements.weights(evaluated & member, evaluated & ~member, counts)
    exact = summary.pooled_area_parts(score, w, draws)
    binned = components.parts(*done.pooled_area, draws.index_T)
    np.testing.assert_allclose(binned.value_U, exact.value_U, atol=1e-5)
    np.testing.assert_allclose(binned.drawn_UR, exact.drawn_UR, atol=1e-5)
    part_N = np.arange(N) % 5 == 0
    sides = (evaluated & member & part_N, evaluated & ~member & part_N)
    by_group, by_record = (
        placements.weights(*sides, of_records) for of_records in (draws.record_NR, counts)
    )
    named = score > 0.5
    for a, b in zip(placements.shares(named, by_group), placements.shares(named, by_record)):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    place = np.random.default_rng(0).random((T, N))
    areas = [placements.auc_draws(np.full(T, 0.6), place, w) for w in (by_group, by_record)]
    np.testing.assert_allclose(*areas, atol=1e-3)
    at = np.flatnonzero(sides[0] | sides[1])
    rank = bootstrap.ranked(score.ravel()[at], member.ravel()[at], at)
    _, *ends = bootstrap.redraw(rank, counts, draws.unit_TR, [3, 40])
    for drawn, exact in zip(placements.tpr_draws(rank, draws, [3, 40], None, None), ends):
        np.testing.assert_allclose(drawn, exact, atol=1e-12)


def test_the_jackknife_of_groups_is_that_of_records(many):
    (score, member, evaluated), draws, _, _ = many
    shared = dict(member_TN=member, evaluated_TN=evaluated, fprs=FPRS)
    exact = jackknife.numbers(score, np.full(T, 0.4), **shared)
    grouped = jackknife.numbers(score, np.full(T, 0.4), counts=draws.record_NR, **shared)
    assert exact.keys() == grouped.keys()
    for key, number in exact.items():
        assert grouped[key].value == pytest.approx(number.value, abs=1e-12)
        scale = np.abs(grouped[key].pull_N).max()
        folded_G = draws.record_NR.fold(number.pull_N)
        np.testing.assert_allclose(grouped[key].pull_N, folded_G, atol=1e-3 * scale)


def test_rows_of_many_records_are_those_of_the_exact_form(monkeypatch):
    arrays = [array[:, :6000] for array in scored(False)]
    attack = dict(score_TN=arrays[0], threshold_T=np.full(T, 0.5))
    monkeypatch.setattr(record_groups, "EXACT", 5000)
    monkeypatch.setattr(record_groups, "GROUPS", 1000)

    def rows():
        draws = bootstrap.make(6000, np.arange(T), draws=40, seed=1)
        table = summary.rows({"a": attack}, *arrays[1:], draws=draws)
        return {(row["target"], row["metric"]): row for row in table}

    grouped = rows()
    monkeypatch.setattr(record_groups, "EXACT", 6000)
    exact = rows()
    assert grouped.keys() == exact.keys()
    for key, row in exact.items():
        other = grouped[key]
        assert other["value"] == pytest.approx(row["value"], abs=1e-9)
        assert other["method"] == row["method"]
        if row["low"] is not None and row["method"] != "Clopper-Pearson":
            width = row["high"] - row["low"]  # 40 draws: sqrt(1/80) = 11% and crossed noise
            assert other["high"] - other["low"] == pytest.approx(width, rel=0.9), key


def test_scores_that_are_missing_are_named():
    arrays = [array[:, :21_000] for array in scored(False)]
    arrays[0][2, np.flatnonzero(arrays[2][2])[5]] = np.nan
    with pytest.raises(ValueError, match="attack 'a', target 2: "):
        summary.rows({"a": dict(score_TN=arrays[0])}, *arrays[1:])


def test_a_sample_keeps_the_scored_records_and_the_share_of_the_others():
    evaluated = np.arange(90_000) % 3 > 0
    assert record_groups.sample(evaluated[:30_000], 64, seed=0) is None
    record_K = record_groups.sample(evaluated, 64, seed=0)
    assert len(np.unique(record_K)) == len(record_K)
    assert evaluated[record_K].sum() == record_groups.SAMPLE
    assert (~evaluated[record_K]).sum() == record_groups.SAMPLE // 2
    np.testing.assert_array_equal(record_K, record_groups.sample(evaluated, 64, seed=0))
    assert record_groups.sample(evaluated, 8, seed=0) is None  # 8 targets: up to 2^16 records


def test_thresholds_of_many_pairs_are_those_of_few(monkeypatch):
    rng = np.random.default_rng(0)
    for trial in range(150):
        shape = int(rng.integers(2, 7)), int(rng.integers(3, 60))
        member, evaluated = rng.random(shape) < rng.random(), rng.random(shape) < 0.8
        score = rng.normal(size=shape) + member * rng.integers(0, 3)
        score = np.round(score * 2) if trial % 2 else score
        score[rng.random(shape) < 0.05 * (trial % 3)] = np.inf
        score[rng.random(shape) < 0.05 * (trial % 4)] = -np.inf
        score[rng.random(shape) < 0.1] = np.nan
        shadow = rng.random((shape[0],) * 2) < 0.7
        np.fill_diagonal(shadow, False)
        arrays = (score, member, evaluated, shadow)
        monkeypatch.setattr(thresholds, "BINS", int(rng.integers(1, 40)))
        limits = []
        for many in (1 << 60, 0):
            monkeypatch.setattr(thresholds, "MANY", many)
            limits.append(thresholds.shadow_thresholds(*arrays))
            limits.append(thresholds.shadow_thresholds_at(*arrays, (0.05, 0.1, 0.3, 1.0)))
            both = thresholds.chosen_on_shadows(*arrays, (0.05, 0.1, 0.3, 1.0))
            np.testing.assert_array_equal(both.best_M, limits[-2])
            np.testing.assert_array_equal(both.at_FM, limits[-1])
        np.testing.assert_array_equal(limits[0], limits[2])
        np.testing.assert_array_equal(limits[1], limits[3])


def test_scores_of_many_records_are_kept_in_32_bits_where_that_parts_them():
    rng = np.random.default_rng(0)
    few, many = (rng.normal(size=(3, n)) for n in (record_groups.EXACT, record_groups.EXACT + 1))
    assert record_groups.compact(few) is few
    many[0, :9], many[1, :100] = np.nan, many[2, :100]
    kept = record_groups.compact(many)
    assert kept.dtype == np.float32 and np.isnan(kept[0, :9]).all()
    assert (kept[1, :100] == kept[2, :100]).all()  # ties stay ties
    far = many + 1e8
    assert record_groups.compact(far) is far


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sorting_whole_numbers_sorts_scores(dtype):
    score = np.random.default_rng(0).normal(size=999).round(2).astype(dtype)
    score[:6] = [np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40]
    order = record_groups.falling_order(score)
    np.testing.assert_array_equal(score[order], np.sort(score)[::-1])
    np.testing.assert_array_equal(np.sort(order), np.arange(999))


def test_scores_of_32_bits_give_the_numbers_of_the_same_scores_in_64():
    score, member, evaluated = scored(False)
    draws = bootstrap.make(N, np.arange(T), draws=40, seed=3)
    rows = []
    for dtype in (np.float32, np.float64):
        attack = dict(score_TN=score.astype(np.float32).astype(dtype), threshold_T=[0.1] * T)
        attacks = {"attack": attack}
        rows.append(summary.rows(attacks, member, evaluated, draws=draws, fprs=FPRS))
    assert rows[0] == rows[1]


def test_the_cross_target_null_of_many_records_is_that_of_single_ones(many):
    (score, member, evaluated), draws, _, _ = many
    attacks = {"attack": dict(score_TN=score)}
    unit = np.arange(T)
    found = cross_target.check(attacks, member, evaluated, unit_T=unit, draws=draws)
    counts = draws.record_NR.expanded()
    one_by_one = dataclasses.replace(draws, record_NR=counts)
    exact = cross_target.check(attacks, member, evaluated, unit_T=unit, draws=one_by_one)
    for key, value in exact["attacks"]["attack"].items():
        assert found["attacks"]["attack"][key] == pytest.approx(value, abs=1e-4)
