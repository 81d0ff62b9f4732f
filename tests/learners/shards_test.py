"""Tests learner.shards: the shards of a batch are added in order, and together they are the batch.

tests/training/mesh_test.py has the same on several devices.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.learners import _shards, backprop, balanced_pairs
from mia_jax.models import lenet_bn
from mia_jax.objectives import cross_entropy
from mia_jax.pipeline import build
from mia_jax.training import programs
from tests import toys

PRIVATE = dict(gradient="private", privacy=dict(noise_multiplier=1.0), sample=toys.pool())


def trained(*, weight=None, **fields):
    """Trains a model of the toy network for two epochs; returns (state, sums of each epoch)."""
    made = toys.learner(**dict(epochs=2) | fields)
    rows, all_of_it = toys.halves()
    weight = all_of_it[0] if weight is None else weight
    pool, key = toys.pool(), programs.model_keys(seed=0, models=[0])[0]
    state, sums, epoch = jax.jit(made.init)(key, pool), [], jax.jit(made.epoch)
    for number in (1, 2):
        state, part = epoch(state, pool, *made.plan(state.key, jnp.uint32(number), rows[0], weight))
        sums.append(part)
    return state, sums


CASES = dict(
    mean=dict(l1=0.01, l2=0.02, optimizer=dict(name="sgd", momentum=0.9), model=toys.mlp(rate=0.3)),
    private=PRIVATE | dict(privacy=dict(physical_batch=2, clipping="adaptive", count_std=1.0)),
    padded=dict(padded=True, ema=0.5, weight=np.r_[np.ones(13), np.zeros(17)].astype(np.float32)),
    whole=dict(plan="full_batch", trainable="Dense_1", shards=3),
    private_whole=PRIVATE,
)
QUICK = ("mean", "private")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]
)
def test_the_shards_of_a_batch_are_the_batch(case):
    """Loss, metrics, updates and noise; slots keep their keys, so dropout masks do as well."""
    fields = dict(shards=4) | CASES[case]
    whole, of_whole = trained(**fields | dict(shards=1))
    state, of_shards = trained(**fields)
    for a, b in zip(
        jax.tree.leaves((whole.variables, whole.opt, of_whole)),
        jax.tree.leaves((state.variables, state.opt, of_shards)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_shards_are_added_in_order():
    """((1e8 + 1) - 1e8) + 1 is 1 in float32; in other orders it is 0 or 2."""
    rows = jnp.array([1e8, 1.0, -1e8, 1.0], jnp.float32)
    total, joined = jax.jit(
        lambda rows, scale: _shards.summed(
            lambda part, scale: (scale * part.sum(), 2 * part),
            rows,
            scale,
            shards=4,
            turns=_shards.once(toys.pool()),
        )
    )(rows, jnp.float32(1))
    assert float(total) == 1 and joined.tolist() == (2 * rows).tolist()


def test_a_step_needs_the_memory_of_a_shard():
    def bytes_of(shards):
        made = toys.learner(num_rows=4096, model=toys.mlp(width=64), batch_size=4096, shards=shards)
        pool = toys.pool(examples=4096)
        state = jax.eval_shape(made.init, jax.random.key(0), pool)
        index = jax.ShapeDtypeStruct((1, 4096), jnp.int32)
        weight = jax.ShapeDtypeStruct((1, 4096), jnp.float32)
        compiled = jax.jit(made.epoch).lower(state, pool, index, weight).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(8) < bytes_of(1) / 3


def test_pairs_are_cut_into_shards():
    model = toys.mlp()
    common = dict(model=model, loss=cross_entropy.make(model=model), num_rows=30, batch_size=8)
    with pytest.raises(ValueError, match=r"learner\.shards=3 must divide the batch of 8"):
        balanced_pairs.make(**common, labels_N=toys.pool().y, shards=3)


@pytest.mark.parametrize("fields", [dict(batch_size=8), dict(plan="full_batch"), dict(PRIVATE)])
def test_shards_that_do_not_divide_the_batch_are_refused(fields):
    """The batches of private training have empty slots, which fill the last shard."""
    if "sample" in fields:
        made = toys.learner(**fields, shards=7)
        index, weight = made.plan(jax.random.key(0), 1, *(a[0] for a in toys.halves()))
        assert index.shape[1] % 7 == 0 and weight.sum() < index.size
        return
    batch = 8 if "batch_size" in fields else 30
    with pytest.raises(ValueError, match=rf"shards=7 must divide the batch of {batch} rows: 1, 2"):
        toys.learner(**fields, shards=7)


def test_statistics_of_batches_are_refused():
    model = lenet_bn.make(num_classes=3)
    images = toys.pool(features=28 * 28)
    images = dataclasses.replace(images, x=images.x.reshape(-1, 28, 28, 1))
    common = dict(model=model, loss=cross_entropy.make(model=model), num_rows=30, shards=2)
    for sample in (images, None):
        with pytest.raises(ValueError, match=r"statistics of a batch.*model\.norm='group'"):
            made = backprop.make(**common, sample=sample, batch_size=10)
            jax.eval_shape(made.init, jax.random.key(0), images)


def config(**learner):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=2),
        design=dict(name="halves", models=4),
        model=dict(name="linear"),
        learner=learner,
        attacks=dict(loss=dict(name="threshold", signal="loss")),
    )


def test_shards_are_in_the_hash_only_where_there_are_several():
    """A workdir of an older version has models of this one."""
    plain, cut = (
        build.build(config(epochs=1, batch_size=10, **more).to_dict(), seed=0)
        for more in ({}, dict(shards=5))
    )
    assert "shards" not in plain.train_config["learner"]
    assert cut.train_config["learner"]["shards"] == 5 and cut.run != plain.run


def test_learning_rules_without_shards_say_why():
    with pytest.raises(
        ValueError, match=r"'least_squares' does not cut .*all rows at once.*backprop and balanced"
    ):
        build.build(config(name="least_squares", shards=2).to_dict(), seed=0)
