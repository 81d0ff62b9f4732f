"""Tests canaries: their coins are fair and independent, and all other rows are always in.

Each kind of canary must be what its name says.
"""

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.data import _canaries
from mia_jax.designs import bernoulli, canaries, halves
from mia_jax.pipeline import build
from mia_jax.types import Pool, classification


def pool(examples=300, shape=(6, 6, 1), classes=5, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.linspace(1.0, 0.01, int(np.prod(shape)))
    x = (rng.normal(size=(examples, int(np.prod(shape)))) * scale).astype(np.float32)
    return Pool(
        x=x.reshape(examples, *shape),
        y=rng.integers(0, classes, examples).astype(np.int32),
        name="toy",
        task=classification(classes),
    )


def test_coins_are_fair_independent_and_not_fixed_counts():
    d = canaries.make(num_examples=5000, seed=0, models=40, canaries=2000)
    assert (d.coin_N >= 0).sum() == 2000 and sorted(d.coin_N[d.coin_N >= 0]) == list(range(2000))
    inside_MN = d.member_MN[:, d.coin_N >= 0]
    assert abs(inside_MN.mean() - 0.5) < 4 / np.sqrt(4 * inside_MN.size)
    correlation = np.corrcoef(inside_MN)[~np.eye(40, dtype=bool)]
    assert abs(correlation).max() < 5 / np.sqrt(2000) and abs(correlation.mean()) < 0.003
    between_rows = np.corrcoef(inside_MN[:, :200].T)[~np.eye(200, dtype=bool)]
    assert abs(between_rows.mean()) < 0.01 and 0.85 < between_rows.std() * np.sqrt(39) < 1.15
    for axis, trials in ((0, 40), (1, 2000)):
        sums = inside_MN.sum(axis)
        assert (
            len(set(sums.tolist())) > 5 and 0.5 < sums.var() / (trials / 4) < 1.7
        )  # binomial, not constant


def test_all_other_rows_are_in_every_model_and_only_canaries_are_evaluated():
    d = canaries.make(num_examples=500, seed=1, models=6, canaries=100, population=0.2)
    others_N = (d.coin_N < 0) & ~d.population_N
    assert d.population_N.sum() == 100 and others_N.sum() == 300 and d.member_MN[:, others_N].all()
    np.testing.assert_array_equal(d.evaluated_MN, np.tile(d.coin_N >= 0, (6, 1)))
    np.testing.assert_array_equal(d.shadow_MM, ~np.eye(6, dtype=bool))
    assert (
        canaries.make(num_examples=500, seed=2, models=2, canaries=100, population=0.2).num_rows
        == d.num_rows
    )  # public: no draw decides about it


def test_one_of_two_has_equally_many_rows_in_every_model():
    d = canaries.make(num_examples=400, seed=0, models=8, canaries=100, pairs=True, population=0.0)
    assert (d.member_MN.sum(1) == 350).all() and d.num_rows == 350
    assert (np.bincount(d.coin_N[d.coin_N >= 0]) == 2).all()
    for coin in range(50):
        a, b = np.flatnonzero(d.coin_N == coin)
        assert (d.member_MN[:, a] ^ d.member_MN[:, b]).all()


def test_coins_exist_only_where_they_are_fair_and_independent():
    assert halves.make(num_examples=100, seed=0, models=4).coin_N is None
    assert bernoulli.make(num_examples=100, seed=0, models=4, probability=0.4).coin_N is None
    d = bernoulli.make(num_examples=100, seed=0, models=4)
    assert (d.coin_N[d.population_N] == -1).all() and sorted(d.coin_N[~d.population_N]) == list(
        range(90)
    )


def test_rows_that_the_data_marks_are_the_canaries():
    marked = np.arange(200) % 4 == 1
    d = canaries.make(num_examples=200, seed=0, models=2, given_canary_N=marked)
    np.testing.assert_array_equal(d.coin_N >= 0, marked)
    given = np.arange(200) % 4 == 2
    d = canaries.make(
        num_examples=200,
        seed=0,
        models=2,
        given_canary_N=marked,
        given_population_N=given,
        population=0.3,
    )
    assert (
        d.population_N[given].all()
        and d.population_N.sum() == 60
        and not d.population_N[marked].any()
    )


def test_mislabeled_canaries_have_another_label_drawn_evenly_and_all_else_stays():
    before = pool(3000)
    after = _canaries.insert(before, kind="mislabeled", count=1000, seed=3)
    chosen = after.columns["canary"]
    assert chosen.sum() == 1000 and (after.y[chosen] != before.y[chosen]).all()
    np.testing.assert_array_equal(after.y[~chosen], before.y[~chosen])
    np.testing.assert_array_equal(after.x, before.x)
    shift = np.bincount((after.y - before.y)[chosen] % 5, minlength=5)
    assert shift[0] == 0 and abs(shift[1:] - 250).max() < 4 * np.sqrt(250)


def test_gradient_aligned_canaries_lie_where_nothing_else_does():
    before = pool(400)
    after = _canaries.insert(before, kind="gradient_aligned", count=8)
    chosen = after.columns["canary"]
    inserted, others = after.x[chosen].reshape(8, -1), after.x[~chosen].reshape(392, -1)
    np.testing.assert_allclose(
        np.linalg.norm(inserted, axis=1), np.linalg.norm(others, axis=1).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        inserted @ inserted.T / (inserted[0] @ inserted[0]), np.eye(8), atol=1e-5
    )
    unit = inserted / np.linalg.norm(inserted, axis=1, keepdims=True)
    assert ((others @ unit.T) ** 2).mean(0).max() < 0.05 * (others**2).mean(0).max()
    again = _canaries.insert(before, kind="natural", count=8)
    np.testing.assert_array_equal(again.x, before.x)
    np.testing.assert_array_equal(again.columns["canary"], chosen)


def test_a_config_names_them():
    fields = dict(model=dict(name="mlp"), learner=dict(epochs=1), attacks=dict(gap=dict()))
    config = configuration.complete(
        data=dict(name="digits", canaries=dict(kind="mislabeled", count=200)),
        design=dict(name="canaries", models=2),
        **fields,
    )
    audit = build.build(config.to_dict() | dict(seed=0), seed=0)
    np.testing.assert_array_equal(audit.design.coin_N >= 0, audit.pool.columns["canary"])
    config.data.canaries = dict(kindd="natural")
    with pytest.raises(
        ValueError,
        match=r"data.canaries has no field 'kindd'. Did you mean 'kind'. Fields: kind, count, seed",
    ):
        build.build(config.to_dict() | dict(seed=0), seed=0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: canaries.make(num_examples=60, seed=0, models=1), "models=1 must be at least 2"),
        (
            lambda: canaries.make(num_examples=60, seed=0, canaries=61),
            "canaries=61 but only 60 of 60",
        ),
        (
            lambda: canaries.make(num_examples=60, seed=0, canaries=7, pairs=True),
            "even number of canaries and there are 7",
        ),
        (
            lambda: canaries.make(
                num_examples=60, seed=0, canaries=3, given_canary_N=np.arange(60) < 9
            ),
            "canaries=3 but the data marks 9",
        ),
        (
            lambda: canaries.make(
                num_examples=60,
                seed=0,
                given_canary_N=np.arange(60) < 9,
                given_population_N=np.arange(60) < 2,
            ),
            "2 of the rows that the data marks as canaries are population rows",
        ),
        (
            lambda: canaries.make(num_examples=60, seed=0, population=1.0),
            r"population=1.0 must lie in \[0, 1\)",
        ),
        (lambda: canaries.make(num_examples=60, seed=0, canaries=1), "coins=1 must be at least 2"),
        (lambda: _canaries.insert(pool(), kind="ghost"), "kind='ghost' is not one of"),
        (
            lambda: _canaries.insert(pool(), count=300),
            "count=300 canaries must be fewer than the 300 rows",
        ),
        (
            lambda: _canaries.insert(pool(), kind="gradient_aligned", count=40),
            "count=40 .* 36 features",
        ),
        (
            lambda: _canaries.insert(_canaries.insert(pool(), count=5), count=5),
            "already has a column 'canary'",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_other_kinds_are_what_their_names_say():
    before = pool(400)
    made = {
        kind: _canaries.insert(before, kind=kind, count=count, **more)
        for kind, count, more in (
            ("blank", 5, {}),
            ("out_of_distribution", 60, {}),
            ("adversarial_input", 60, dict(strength=0.5)),
            ("poisoned", 60, dict(copies=3)),
            ("dirac", 60, {}),
        )
    }
    natural_N = _canaries.insert(before, kind="natural", count=60).columns["canary"]
    for kind, after in made.items():
        chosen_N = after.columns["canary"]
        touched_N = chosen_N | after.columns.get("poison", False)
        np.testing.assert_array_equal(after.x[~touched_N], before.x[~touched_N])
        np.testing.assert_array_equal(after.y[~touched_N], before.y[~touched_N])
        if kind != "blank":
            np.testing.assert_array_equal(chosen_N, natural_N)
    blank = made["blank"]
    assert not blank.x[blank.columns["canary"]].any()
    assert sorted(blank.y[blank.columns["canary"]]) == list(range(5))
    low, high = before.x.min(0), before.x.max(0)
    noise = made["out_of_distribution"].x[natural_N]
    assert ((noise >= low) & (noise <= high)).all()
    spread = ((noise - low) / (high - low)).std()
    assert spread == pytest.approx(np.sqrt(1 / 12), rel=0.05)  # of a uniform distribution
    moved = made["adversarial_input"]
    np.testing.assert_array_equal(moved.y, before.y)
    change = np.abs(moved.x[natural_N] - before.x[natural_N])
    assert (change <= 0.5 * (high - low) + 1e-6).all() and (change > 0).mean() > 0.9
    # A linear classifier of the other rows takes every canary less for its own class than before.
    flat = before.x.reshape(400, -1)
    targets = np.eye(5)[before.y[~natural_N]]
    weights = np.linalg.lstsq(flat[~natural_N], targets, rcond=None)[0]
    own = np.eye(5, dtype=bool)[before.y[natural_N]]
    lead_before, lead_after = (
        score[own] - np.where(own, -np.inf, score).max(1)
        for score in (x[natural_N].reshape(60, -1) @ weights for x in (before.x, moved.x))
    )
    assert (lead_after < lead_before).mean() > 0.95
    poisoned = made["poisoned"]
    np.testing.assert_array_equal(poisoned.x[natural_N], before.x[natural_N])
    poison_N = poisoned.columns["poison"]
    assert poison_N.sum() == 180 and not (poison_N & natural_N).any()
    for x, y in zip(poisoned.x[natural_N], poisoned.y[natural_N], strict=True):
        copy_N = (poisoned.x == x).all((1, 2, 3)) & poison_N
        assert (
            copy_N.sum() == 3 and len(set(poisoned.y[copy_N])) == 1 and y not in poisoned.y[copy_N]
        )
    np.testing.assert_array_equal(made["dirac"].x, before.x)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(kind="blank", count=6), "the data has 5 classes; use kind='out_of_distribution'"),
        (dict(kind="poisoned", count=100, copies=4), "need 500 of the 300 rows"),
        (dict(kind="adversarial_input", count=5, strength=0.0), "strength"),
    ],
)
def test_kinds_that_the_data_cannot_have_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        _canaries.insert(pool(), **fields)
