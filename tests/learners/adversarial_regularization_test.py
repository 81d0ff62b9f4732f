"""Tests adversarial regularization and who sees which rows.

Without the gain it is ordinary training; with it, members look less like members.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, types
from mia_jax.designs import blocks
from mia_jax.learners import adversarial_regularization as advreg
from mia_jax.pipeline import build
from tests import toys

ROWS, EXTRA = np.arange(40, dtype=np.int32), np.arange(40, 80, dtype=np.int32)


def trained(pool, *, epochs: int, **fields):
    """Returns (state, last metrics) of one model on ROWS, with EXTRA as extra rows."""
    fields = dict(batch_size=8, learning_rate=0.01) | fields
    learner = advreg.make(
        model=toys.mlp(width=32), num_rows=40, num_extra=40, epochs=epochs, **fields
    )
    state, run = learner.init(jax.random.key(0), pool), jax.jit(learner.epoch)
    rows, weight = jnp.concatenate([ROWS, EXTRA]), jnp.concatenate([jnp.ones(40), jnp.zeros(40)])
    for epoch in range(1, epochs + 1):
        state, sums = run(state, pool, *learner.plan(jax.random.key(1), epoch, rows, weight))
    return state, {name: float(value / sums["weight"]) for name, value in sums.items()}


@pytest.mark.slow
def test_without_its_gain_it_trains_as_backprop_does():
    pool = toys.pool(examples=80)
    state, _ = trained(pool, epochs=3, strength=0.0)
    plain = toys.learner(
        num_rows=40,
        model=toys.mlp(width=32),
        batch_size=8,
        learning_rate=0.01,
        optimizer=dict(name="adam", eps=1e-7),
    )
    other = plain.init(jax.random.key(0), pool)
    for epoch in range(1, 4):
        other, _ = jax.jit(plain.epoch)(
            other, pool, *plain.plan(jax.random.key(1), epoch, jnp.asarray(ROWS), jnp.ones(40))
        )
    for a, b in zip(
        jax.tree.leaves(state.variables), jax.tree.leaves(other.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_the_gain_closes_the_gap_between_members_and_others():
    """Labels are random, so only memorization distinguishes members from non-members."""
    rng = np.random.default_rng(0)
    pool = toys.pool(examples=80)
    pool = pool.__class__(
        x=rng.normal(size=(80, 5)).astype(np.float32),
        y=rng.integers(0, 3, 80).astype(np.int32),
        task=types.classification(3),
    )
    gap, attack = {}, {}
    for strength in (0.0, 3.0):
        state, metrics = trained(pool, epochs=50, strength=strength, attack_steps=2)
        p = jax.nn.softmax(toys.mlp(width=32).apply(state.variables, pool.x)[0])[
            np.arange(80), pool.y
        ]
        gap[strength], attack[strength] = (
            float(p[:40].mean() - p[40:].mean()),
            metrics["attack_accuracy"],
        )
    assert gap[0.0] > 0.15 and attack[0.0] > 0.7
    assert gap[3.0] < 0.6 * gap[0.0] and attack[3.0] < attack[0.0]


def test_the_attacker_sees_own_rows_and_extra_rows_alone():
    plan = advreg.opponents_beside(num_rows=40, batch_size=8, attack_steps=3)
    weight = jnp.concatenate([jnp.ones(30), jnp.zeros(50)])  # rows 30..39 are padding
    index, weight = plan(jax.random.key(0), 1, jnp.arange(80), weight)
    assert index.shape == weight.shape == (5, 8 * 7)
    assert not weight[:, 8:].any() and weight.sum() == 30
    opponents = np.asarray(index[:, 8:]).reshape(5, 3, 2, 8)
    assert opponents[:, :, 0].max() < 30 and opponents[:, :, 1].min() >= 40


def test_it_needs_rows_beside_the_training_set():
    with pytest.raises(ValueError, match="extra=True"):
        advreg.make(model=toys.mlp(), num_rows=40)


def test_every_model_has_its_own_block_of_opponents(tmp_path):
    np.savez(
        tmp_path / "d.npz",
        x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32),
        y=np.arange(60) % 3,
    )
    config = configuration.complete(
        data=dict(name="npz", path=str(tmp_path / "d.npz")),
        design=dict(name="blocks", size=10, extra=True),
        model=dict(name="mlp", widths=(4,)),
        learner=dict(name="adversarial_regularization", epochs=1),
        attacks=dict(gap=dict()),
    )
    audit = build.build(config.to_dict(), seed=0)
    design = blocks.make(num_examples=60, seed=0, size=10, extra=True)
    assert audit.config["learner"]["objective"] == configuration.OWN
    assert not (
        design.extra_MN.any(0) & (design.member_MN | design.evaluated_MN).any(0)
    ).any()  # nobody's members, and evaluated for nobody
    np.testing.assert_array_equal(
        np.sort(audit.rows_MK[:, 10:]), [np.flatnonzero(extra_N) for extra_N in design.extra_MN]
    )
    np.testing.assert_array_equal(audit.weight_MK, np.tile([1.0] * 10 + [0.0] * 10, (2, 1)))
