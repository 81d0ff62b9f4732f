"""Tests what each design promises in addition to the laws of conformance_test."""

import dataclasses

import numpy as np
import pytest

from mia_jax.attacks import lira
from mia_jax.designs import _rows, bernoulli, blocks, disjoint, folds, halves, holdout, two_way
from mia_jax.threat_model import SHADOW_NEEDS, FleetSignals
from tests.planted import auc


def count_auc(design) -> float:
    """Returns the mean AUC of an attacker whose score is the number of IN shadows."""
    auc_T = []
    for t in design.targets:
        e = design.evaluated_MN[t]
        auc_T.append(auc(design.member_MN[design.shadow_MM[t]].sum(0)[e], design.member_MN[t, e]))
    return float(np.mean(auc_T))


def test_halves_are_complementary_pairs_and_an_odd_row_goes_to_the_population():
    d = halves.make(num_examples=1797, seed=3, models=8)
    assert d.population_N.sum() == 181 and d.num_rows == 808
    np.testing.assert_array_equal(
        d.member_MN[0::2] ^ d.member_MN[1::2], np.tile(~d.population_N, (4, 1))
    )
    assert (d.member_MN.sum(1) == 808).all()
    assert d.targets == tuple(range(8)) and d.supports == set(SHADOW_NEEDS)
    np.testing.assert_array_equal(
        d.shadow_MM[2], [True, True, False, False, True, True, True, True]
    )


def test_leaving_only_the_target_out_of_halves_would_give_the_answer_away():
    d = halves.make(num_examples=200, seed=0, models=8)
    assert count_auc(d) == 0.5
    leaky = dataclasses.replace(d, shadow_MM=~np.eye(8, dtype=bool))
    assert count_auc(leaky) == 0.0  # IN count = M/2 - member: the attacker reads it backwards


def test_two_halves_have_no_shadow():
    d = halves.make(num_examples=100, seed=0, models=2)
    assert not d.supports and not d.shadow_MM.any()
    assert "complementary" in FleetSignals(design=d, signal={}, num_classes=2).refuse(
        lira.make(), "lira"
    )


@pytest.mark.parametrize("targets, expected", [(None, (0, 1, 2, 3)), (2, (0, 1)), ((3, 1), (3, 1))])
def test_targets_are_chosen(targets, expected):
    assert halves.make(num_examples=50, seed=0, models=4, targets=targets).targets == expected


def test_given_population_rows_count_toward_the_share():
    given_N = np.arange(100) < 30
    d = halves.make(num_examples=100, seed=0, models=2, population=0.1, given_population_N=given_N)
    np.testing.assert_array_equal(d.population_N, given_N)
    more = halves.make(
        num_examples=100, seed=0, models=2, population=0.5, given_population_N=given_N
    )
    assert more.population_N.sum() == 50 and more.population_N[given_N].all()


def test_blocks_are_the_rows_of_the_original_split():
    d = blocks.make(num_examples=100, seed=0, size=10, sources=2)
    for m in range(3):
        assert np.flatnonzero(d.member_MN[m]).tolist() == list(range(20 * m, 20 * m + 10))
        assert np.flatnonzero(d.evaluated_MN[m]).tolist() == list(range(20 * m, 20 * m + 20))
    np.testing.assert_array_equal(
        d.shadow_MM, [[False, True, True], [False, False, True], [False, True, False]]
    )
    assert d.targets == (0,) and d.num_rows == 10 and not d.population_N.any()


def test_halves_keep_extra_rows_from_all_models_and_targets_from_all_shadows():
    made = dict(num_examples=100, seed=0, models=8, population=0.1, targets=3)
    d = halves.make(**made, extra=0.2, apart=True)
    extra_N = d.extra_MN[0]
    assert extra_N.sum() == 20 and (d.extra_MN == extra_N).all()
    assert not (extra_N & (d.population_N | d.member_MN.any(0) | d.evaluated_MN.any(0))).any()
    np.testing.assert_array_equal(d.evaluated_MN[0], ~extra_N & ~d.population_N)
    assert (d.member_MN.sum(1) == 35).all()
    # Models 0, 1, 2 are audited; 3, the twin of 2, would show what 2 was not trained on.
    assert not d.shadow_MM[:, :4].any() and d.shadow_MM[:4, 4:].all()
    np.testing.assert_array_equal(d.shadow_MM[4:, 4:], np.kron([[0, 1], [1, 0]], np.ones((2, 2))))
    plain = halves.make(**made)
    assert plain.extra_MN is None and (plain.shadow_MM.sum(1) == 6).all()
    with pytest.raises(ValueError, match="apart=True with targets=7 leaves a model without"):
        halves.make(**(made | dict(targets=7)), apart=True)


def test_extra_blocks_are_4_and_5_with_one_source_and_stay_when_sources_are_added():
    d = blocks.make(num_examples=120, seed=0, size=10, extra=True)
    assert [np.flatnonzero(row)[0] for row in d.extra_MN] == [40, 50]
    more = d.extend(4)
    np.testing.assert_array_equal(more.extra_MN[:2], d.extra_MN)
    used = np.concatenate([more.member_MN, more.evaluated_MN & ~more.member_MN, more.extra_MN])
    assert used.sum(0).max() == 1 and used.sum() == 4 * 3 * 10


@pytest.mark.parametrize("extra", [False, True])
def test_blocks_of_several_targets_are_disjoint_and_only_sources_serve_the_attacker(extra):
    d = blocks.make(
        num_examples=160, seed=0, size=10, targets=2, sources=3, extra=extra, scored_sources=4
    )
    parts = [d.member_MN, d.evaluated_MN & ~d.member_MN, *([d.extra_MN] if extra else [])]
    assert np.concatenate(parts).sum(0).max() == 1  # No row has two uses.
    assert d.targets == (0, 1) and d.evaluated_MN.sum(1).tolist() == [20, 20, 8, 8, 8]
    assert d.shadow_MM.sum(0).tolist() == [0, 0, 4, 4, 4] and not d.shadow_MM.diagonal().any()
    more, first = blocks.make(num_examples=160, seed=0, size=10, targets=2, extra=extra), slice(3)
    np.testing.assert_array_equal(more.extend(5).member_MN[first], more.member_MN)
    assert more.extend(5).targets == (0, 1)


def test_blocks_may_be_drawn_and_keep_population_rows():
    d = blocks.make(num_examples=100, seed=0, size=10, drawn=True, population=0.2)
    e = blocks.make(num_examples=100, seed=0, size=10, sources=3, drawn=True, population=0.2)
    assert d.population_N.sum() == 20 and (d.member_MN.sum(1) == 10).all()
    assert np.flatnonzero(d.member_MN[0]).tolist() != list(range(10))
    np.testing.assert_array_equal(e.population_N, d.population_N)
    fixed = blocks.make(num_examples=100, seed=0, size=10, population=0.2)
    assert np.flatnonzero(fixed.population_N).tolist() == list(range(80, 100))


def test_two_way_swaps_members_and_non_members():
    d = two_way.make(num_examples=61, seed=0)
    assert np.flatnonzero(d.member_MN[0]).tolist() == list(range(30))
    np.testing.assert_array_equal(d.member_MN[1], d.evaluated_MN[0] & ~d.member_MN[0])
    np.testing.assert_array_equal(d.evaluated_MN[0], d.evaluated_MN[1])
    assert not d.supports and d.shadow_MM[0, 1] and d.unit_M[0] == d.unit_M[1]
    drawn = two_way.make(num_examples=61, seed=0, size=20, drawn=True)
    assert drawn.num_rows == 20 and np.flatnonzero(drawn.member_MN[0]).tolist() != list(range(20))


def test_holdout_is_one_model_on_the_first_rows():
    d = holdout.make(num_examples=70, seed=0, members=60)
    assert (
        np.flatnonzero(d.member_MN[0]).tolist() == list(range(60))
        and d.evaluated_MN.all()
        and d.num_rows == 60
    )
    assert not d.supports and d.targets == (0,) and not d.shadow_MM.any()
    given = holdout.make(num_examples=70, seed=0, members=60, given_population_N=np.arange(70) < 5)
    assert np.flatnonzero(given.member_MN[0]).tolist() == list(range(5, 65))
    drawn = holdout.make(num_examples=70, seed=0, drawn=True)
    assert drawn.num_rows == 35 and np.flatnonzero(drawn.member_MN[0]).tolist() != list(range(35))


def test_bernoulli_coins_are_independent():
    d = bernoulli.make(num_examples=4000, seed=0, models=12, probability=0.3)
    member_MN = d.member_MN[:, ~d.population_N]
    assert len(set(member_MN.sum(1).tolist())) > 1
    assert abs(member_MN.mean() - 0.3) < 4 * np.sqrt(0.21 / member_MN.size)
    correlation = np.corrcoef(member_MN)[~np.eye(12, dtype=bool)]
    assert abs(correlation).max() < 5 / np.sqrt(3600)
    variance = member_MN.sum(0).var() / (12 * 0.21)
    assert 0.85 < variance < 1.15  # binomial counts, not constant ones


def test_bernoulli_rows_are_padded_to_a_length_that_does_not_depend_on_the_draw():
    first, second = (bernoulli.make(num_examples=500, seed=s, models=4) for s in (0, 1))
    assert first.num_rows == second.num_rows == _rows.k_max(450, 0.5)
    rows_MK, weight_MK = _rows.all_rows(first)
    assert (
        rows_MK.shape == weight_MK.shape == (4, first.num_rows)
        and rows_MK.dtype == np.int32
        and weight_MK.dtype == np.float32
    )
    for m in range(4):
        np.testing.assert_array_equal(
            np.sort(rows_MK[m][weight_MK[m] == 1]), np.flatnonzero(first.member_MN[m])
        )


def test_k_max_is_the_exact_binomial_tail():
    assert _rows.k_max(10, 1.0) == 10 and _rows.k_max(10, 0.0) == 0 and _rows.k_max(7, 0.5) == 7
    assert (
        25_000 + 6.5 * np.sqrt(12_500) < _rows.k_max(50_000, 0.5) < 25_000 + 7.5 * np.sqrt(12_500)
    )
    with pytest.raises(ValueError, match="3 rows but the design holds at most K=2"):
        _rows.rows(np.array([True, True, False, True]), 2)


def test_disjoint_shadows_never_touch_the_targets_part():
    d = disjoint.make(num_examples=203, seed=0, models=10, targets=4, population=0.0)
    assert d.targets == (0, 1, 2, 3) and d.num_rows == 50 and d.population_N.sum() == 3
    part_N, other_N = d.evaluated_MN[0], d.evaluated_MN[9]
    assert not (part_N & other_N).any() and part_N.sum() == other_N.sum() == 100
    assert not d.member_MN[4:][:, part_N].any() and not d.member_MN[:4][:, other_N].any()
    np.testing.assert_array_equal(d.member_MN[0] ^ d.member_MN[1], part_N)
    assert (d.shadow_MM[:4] == (np.arange(10) >= 4)).all() and not d.shadow_MM[5, 5]
    assert d.extend(14).targets == d.targets


def test_folds_split_the_rows():
    d = folds.make(num_examples=103, seed=0, folds=4)
    assert d.num_rows == 75 and d.population_N.sum() == 3
    np.testing.assert_array_equal((~d.member_MN & d.evaluated_MN).sum(0)[~d.population_N], 1)
    assert not d.shadow_MM.any() and not d.supports


@pytest.mark.parametrize(
    "maker, fields, message",
    [
        (halves, dict(models=7), "models=7: .* must be even .* use models=8"),
        (halves, dict(models=1), "use models=2"),
        (halves, dict(models=0), "use models=2"),
        (halves, dict(population=1.0), r"population=1.0 must lie in \[0, 1\)"),
        (halves, dict(models=4, targets=5), r"targets=5 must lie in 1\.\.4"),
        (halves, dict(models=4, targets=(0, 4)), r"targets=\(0, 4\)"),
        (halves, dict(models=4, targets=()), "targets="),
        (halves, dict(seed=-1), "seed=-1"),
        (halves, dict(num_examples=1), "num_examples=1 leaves"),
        (
            halves,
            dict(given_population_N=np.zeros(3, bool)),
            "axis N has length 3 in given_population but 60",
        ),
        (halves, dict(given_population_N=np.ones(60, bool)), "leaves 0 rows"),
        (halves, dict(labels_N=np.zeros(3, int)), "axis N has length 3 in labels"),
        (
            blocks,
            dict(size=20),
            "4 blocks of size=20 need 80 rows but the pool has 60 of 60 .* size <= 15",
        ),
        (
            blocks,
            dict(size=10, extra=True, sources=2),
            "9 blocks of size=10 need 90 rows but the pool has 60",
        ),
        (blocks, dict(size=5, sources=0), "sources=0 must be at least 1"),
        (holdout, dict(members=60), "members=60 leaves no non-member of the 60 rows"),
        (two_way, dict(size=31), "2 halves of size=31 need 62 rows but the pool has 60"),
        (bernoulli, dict(models=1), "models=1 must be at least 2"),
        (bernoulli, dict(probability=1.0), r"probability=1.0 must lie in \(0, 1\)"),
        (bernoulli, dict(models=64, probability=0.01), "drew 0 of 54 rows"),
        (disjoint, dict(targets=3), "use targets=4"),
        (disjoint, dict(models=8, targets=8), "models=8 leaves no shadow"),
        (folds, dict(folds=1), "folds=1 must be at least 2"),
        (folds, dict(folds=61), "leaves 0 rows"),
    ],
)
def test_bad_arguments_are_named(maker, fields, message):
    with pytest.raises(ValueError, match=message):
        maker.make(**(dict(num_examples=60, seed=0) | fields))


def test_a_class_without_a_member_is_named():
    labels_N = np.repeat(np.arange(4), 25)  # sorted by class: consecutive blocks are one class each
    with pytest.raises(
        ValueError, match=r"class 1 has no member in model 0 .*25 rows .*3 such classes"
    ):
        blocks.make(num_examples=100, seed=0, size=25, labels_N=labels_N)
    blocks.make(num_examples=100, seed=0, size=25, labels_N=labels_N, drawn=True)
    blocks.make(num_examples=100, seed=0, size=25)  # Regression labels are not passed.


@pytest.mark.parametrize("maker", [two_way, folds, holdout])
def test_designs_of_fixed_size_say_so(maker):
    d = maker.make(num_examples=60, seed=0)
    np.testing.assert_array_equal(d.extend(len(d.member_MN)).member_MN, d.member_MN)
    with pytest.raises(ValueError, match="models=9"):
        d.extend(9)
    with pytest.raises(ValueError, match="fewer than"):
        d.extend(0)
