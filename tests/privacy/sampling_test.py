"""Tests the plans of private training: which units take part, and how often.

A plan must be a function of (key, epoch) only.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mia_jax.privacy import sampling

K, STEPS = 60, 5
ROWS, WEIGHT = jnp.arange(100, 100 + K), jnp.ones(K)


def drawn(plan, epochs=200, weight=WEIGHT, key=0):
    """Returns how often each row is in each step with weight > 0, [epochs, steps, K]."""
    index, real = jax.jit(jax.vmap(lambda e: plan(jax.random.key(key), e, ROWS, weight)))(
        jnp.arange(epochs)
    )
    count = np.zeros((*index.shape[:2], K), int)
    np.add.at(count, (*np.indices(index.shape)[:2], np.asarray(index) - 100), np.asarray(real) > 0)
    return count


def make(name, **more):
    return sampling.plan(sampling=name, **dict(rate=0.2, size=30, steps=STEPS) | more)


def test_poisson_rows_are_independent_bernoullis():
    count = drawn(make("poisson"))
    assert count.max() == 1  # no row twice in a step
    trials = count.shape[0] * STEPS
    each_K = count.sum((0, 1))
    assert stats.chisquare(each_K, np.full(K, each_K.mean())).pvalue > 1e-4
    assert abs(each_K.sum() - 0.2 * trials * K) < 4 * np.sqrt(0.16 * trials * K)
    size = count.sum(2).ravel()
    assert (
        abs(size.var() / (K * 0.16) - 1) < 0.2
        and abs(np.corrcoef(count[:, :, 0].ravel(), count[:, :, 1].ravel())[0, 1]) < 0.13
    )
    assert abs(np.corrcoef(count[:, 0].ravel(), count[:, 1].ravel())[0, 1]) < 0.04  # steps neither
    wrong = drawn(make("poisson", rate=0.25))  # and another rate would be seen
    assert abs(wrong.sum() - 0.2 * trials * K) > 4 * np.sqrt(0.16 * trials * K)


def test_a_rate_of_one_takes_everybody_and_an_empty_batch_is_a_batch():
    assert (drawn(make("poisson", rate=1.0, size=K), epochs=3) == 1).all()
    index, weight = make("poisson", rate=1e-9)(jax.random.key(0), 0, ROWS, WEIGHT)
    assert index.shape == (STEPS, 30) and (weight == 0).all()


def test_too_many_units_overflow_or_are_cut_to_a_uniform_subset():
    _, weight = make("poisson", rate=0.5, size=10)(jax.random.key(0), 0, ROWS, WEIGHT)
    assert np.isnan(weight).all(1).all()
    count = drawn(make("poisson", rate=0.5, size=10, cap=True))
    assert count.sum(2).max() == 10
    assert stats.chisquare(count.sum((0, 1)), np.full(K, count.sum() / K)).pvalue > 1e-4


@pytest.mark.parametrize("name, size, each", [("shuffle", 12, 1), ("balls_in_bins", 30, 1)])
def test_every_row_takes_part_once_an_epoch(name, size, each):
    count = drawn(make(name, size=size))
    assert (count.sum(1) == each).all()
    step_share = count.mean((0, 2))
    np.testing.assert_allclose(step_share, 1 / STEPS, atol=0.03)
    assert (count.sum(2).std() > 1) == (name == "balls_in_bins")  # fixed batches, or binomial ones


def test_batches_without_replacement_are_fresh_every_step():
    count = drawn(make("without_replacement", size=12))
    assert (count.sum(2) == 12).all() and count.max() == 1
    assert abs(np.corrcoef(count[:, 0].ravel(), count[:, 1].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize("name", ["poisson", "shuffle", "balls_in_bins"])
def test_padding_is_never_drawn(name):
    weight = WEIGHT.at[40:].set(0)
    count = drawn(make(name, size=30), weight=weight, epochs=50)
    assert count[..., 40:].sum() == 0 and (count[..., :40].sum((0, 1)) > 0).all()


@pytest.mark.parametrize("name", ["poisson", "shuffle", "balls_in_bins", "without_replacement"])
def test_a_plan_is_addressed_by_key_and_epoch(name):
    plan = make(name, size=30)
    first = plan(jax.random.key(3), 7, ROWS, WEIGHT)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(first, plan(jax.random.key(3), 7, ROWS, WEIGHT), strict=True)
    )
    assert not np.array_equal(first[0], plan(jax.random.key(3), 8, ROWS, WEIGHT)[0])
    assert not np.array_equal(first[0], plan(jax.random.key(4), 7, ROWS, WEIGHT)[0])


def test_slots_are_overrun_as_rarely_as_they_should_be():
    size = sampling.slots(
        sampling="poisson", num_units=1000, rate=0.1, expected_batch=100, steps=500, cap=None
    )
    assert (
        stats.binom.sf(size, 1000, 0.1) * 500
        <= sampling.OVERFLOW
        < stats.binom.sf(size - 3, 1000, 0.1) * 500
    )
    assert (
        sampling.slots(
            sampling="shuffle", num_units=1000, rate=0.1, expected_batch=100, steps=9, cap=None
        )
        == 100
    )


def test_spread_slots_hold_the_same_rows_in_other_places():
    plain, other = (
        make("poisson", spread=s)(jax.random.key(0), 0, ROWS, WEIGHT) for s in (False, True)
    )
    for step in range(STEPS):
        rows = [set(np.asarray(i[step])[np.asarray(w[step]) > 0]) for i, w in (plain, other)]
        assert rows[0] == rows[1]
    assert not np.array_equal(plain[1] > 0, other[1] > 0)


def test_repeats_and_rounding_keep_the_real_rows():
    index, weight = make("shuffle", size=12)(jax.random.key(0), 0, ROWS, WEIGHT)
    twice = sampling.repeated(make("shuffle", size=12), 2)(jax.random.key(0), 0, ROWS, WEIGHT)
    assert np.array_equal(twice[0][:, ::2], index) and np.array_equal(twice[0][:, 1::2], index)
    padded = sampling.rounded(make("shuffle", size=12), 8)(jax.random.key(0), 0, ROWS, WEIGHT)
    assert (
        padded[0].shape == (STEPS, 16)
        and np.array_equal(padded[1][:, :12], weight)
        and (padded[1][:, 12:] == 0).all()
    )


def test_a_user_brings_a_few_of_its_own_rows_of_this_model():
    group_N = np.arange(200) // 7  # rows 100..159 belong to users 14..22
    plan = sampling.of_groups(make("poisson", rate=0.4, size=29), group_N=group_N, rows_each=3)
    weight_K = WEIGHT.at[:5].set(0)  # rows 100..104 are not this model's: user 14 has none left
    index, weight = plan(jax.random.key(1), 0, ROWS, weight_K)
    assert index.shape == (STEPS, 29 * 3)
    seen = set()
    for i, w in zip(
        np.asarray(index).reshape(STEPS, 29, 3),
        np.asarray(weight).reshape(STEPS, 29, 3),
        strict=True,
    ):
        users = [
            set(group_N[rows[real > 0]])
            for rows, real in zip(i, w, strict=True)
            if (real > 0).any()
        ]
        assert all(len(u) == 1 for u in users)  # one user a unit
        flat = [u for unit_users in users for u in unit_users]
        assert len(flat) == len(set(flat))  # and a user once a step
        real = i[w > 0]
        assert len(real) == len(set(real)) and real.min() >= 105
        seen |= set(flat)
    assert seen and 14 not in seen
