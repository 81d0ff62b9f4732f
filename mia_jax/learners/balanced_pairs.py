"""Trains by gradient descent on pairs of training rows.

In every batch, half of the pairs have two rows of one class, and half have rows of two classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax import checks
from mia_jax.learners import backprop
from mia_jax.types import Learner, Loss, Model, Plan, Pool, Stopping

EVALUATED = 2048  # The number of pairs of an evaluation, which are always the same.
ADAM = dict(name="adam", eps=1e-7)
ROWS = (2,)  # An example of a batch is a pair of rows of the pool: x [B,2,..], y [B,2].


def make(
    *,
    model: Model,
    loss: Loss,
    num_rows: int,
    labels_N: np.ndarray,
    padded: bool = False,
    stopping: Stopping | None = None,
    epochs: int = 30,
    pairs: int = 0,
    batch_size: int = 128,
    optimizer: str | Mapping = ADAM,
    learning_rate: float = 1e-3,
    schedule: str | Mapping = "constant_schedule",
    augment: Sequence[str] = (),
    shards: int = 1,
) -> Learner:
    """Returns backprop on batches x [B,2,..], y [B,2] of an objective over pairs.

    The objective is that of objectives/contrastive.py. New pairs are drawn every epoch from the
    training rows of the model (see `draw`), and `augment` changes each image of a pair separately.
    An evaluation uses 2,048 fixed pairs of the rows that it is given.

    Args:
        model: the model to train.
        loss: the objective over pairs.
        num_rows: the number of rows of a model.
        labels_N: the labels of all examples.
        padded: ignored, because every drawn row has weight 1.
        stopping: an early-stopping rule.
        epochs: the largest number of epochs.
        pairs: the number of pairs per epoch, rounded down to whole batches; 0 for the number of
            rows of a model.
        batch_size: the number of pairs per step, which must be even.
        optimizer: see backprop, as the next three.
        learning_rate: the largest learning rate.
        schedule: the schedule.
        augment: the augmentations.
        shards: see backprop.

    Raises:
        ValueError: for an odd batch or an objective over single examples.
    """
    del padded  # Every drawn row has weight 1.
    labels_N = np.asarray(labels_N)
    checks.at_least(2, batch_size=batch_size)
    checks.at_least(0, pairs=pairs)
    if batch_size % 2:
        raise ValueError(
            f"batch_size={batch_size} must be even: half of every batch are pairs of one class."
        )
    steps = max(1, (pairs or num_rows) // batch_size)
    descent = dict(
        optimizer=optimizer, learning_rate=learning_rate, schedule=schedule, augment=augment
    )
    inner = backprop.make(
        model=model,
        loss=loss,
        num_rows=steps * batch_size,
        stopping=stopping,
        epochs=epochs,
        batch_size=batch_size,
        shards=shards,
        **descent,
    )

    def init(key, pool: Pool):
        pool.task.require(
            ("classification",),
            of="the learning rule 'balanced_pairs'",
            remedy="set learner.name='backprop'",
        )
        state = inner.init(key, pool)
        sample = backprop.rows(pool, jnp.zeros((2, 2), jnp.int32), jnp.ones(2, jnp.float32))
        shape = jax.eval_shape(lambda variables: loss(variables, sample)[0], state.variables).shape
        if shape != (2,):
            raise ValueError(
                f"balanced_pairs needs a loss of pairs [B], not {shape}: "
                "learner.objective='contrastive'."
            )
        return state

    plan = balanced(labels_N=labels_N, steps=steps, batch_size=batch_size)
    return inner._replace(init=init, plan=plan, evaluate=evaluation(loss=loss))


def balanced(*, labels_N: np.ndarray, steps: int, batch_size: int) -> Plan:
    """Returns plan(key, epoch, rows_K, weight_K) -> (index_SB2, weight_SB).

    Each batch has B/2 pairs of one class, then B/2 pairs of two classes.
    """
    half = batch_size // 2

    def plan(key, epoch, rows_K, weight_K):
        same_P2, different_P2 = draw(
            jax.random.fold_in(key, epoch),
            jnp.asarray(labels_N)[rows_K],
            weight_K,
            count=steps * half,
        )
        index = jnp.concatenate(
            [rows_K[p].reshape(steps, half, 2) for p in (same_P2, different_P2)], axis=1
        )
        return index, jnp.ones((steps, batch_size), jnp.float32)

    return plan


def draw(key, label_K, weight_K, *, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns (same_P2, different_P2), `count` pairs of each kind as places in 0..K-1.

    Only rows of weight > 0 are drawn. The first row of a pair is uniform (for a pair of one class:
    over the rows whose class has another row). The second row is uniform over the other rows of its
    class, or over all rows of other classes. No row is paired with itself.
    """
    keys, real_K = jax.random.split(key, 4), weight_K > 0
    # Padding becomes a separate class, the last one.
    label_K = jnp.where(real_K, label_K, jnp.iinfo(jnp.int32).max)
    order_K = jnp.argsort(label_K)  # Sorted by class.
    sorted_K = label_K[order_K]
    start_K = jnp.searchsorted(sorted_K, label_K, side="left")
    size_K = jnp.searchsorted(sorted_K, label_K, side="right") - start_K
    rank_K = jnp.argsort(order_K) - start_K  # The number of a row within its class.
    total = real_K.sum()

    def uniform(key, allowed_K):
        return jnp.argsort(~allowed_K)[
            jax.random.randint(key, (count,), 0, jnp.maximum(allowed_K.sum(), 1), jnp.int32)
        ]

    first = uniform(keys[0], real_K & (size_K > 1))
    ahead = jax.random.randint(keys[1], (count,), 1, jnp.maximum(size_K[first], 2), jnp.int32)
    second = order_K[start_K[first] + (rank_K[first] + ahead) % size_K[first]]
    lone = uniform(keys[2], real_K & (size_K < total))
    place = jax.random.randint(
        keys[3], (count,), 0, jnp.maximum(total - size_K[lone], 1), jnp.int32
    )
    other = order_K[place + jnp.where(place >= start_K[lone], size_K[lone], 0)]
    return jnp.stack([first, second], axis=1), jnp.stack([lone, other], axis=1)


def evaluation(*, loss: Loss, batch_size: int = 512):
    """Returns evaluate(variables, pool, rows_K, weight_K) -> sums over 2,048 fixed balanced pairs.

    The pairs are drawn from those rows and evaluated in inference mode; the sums are 0 without
    rows.
    """

    def evaluate(variables, pool: Pool, rows_K, weight_K):
        both = draw(
            jax.random.key(0, impl="threefry2x32"),
            jnp.asarray(pool.y)[rows_K],
            weight_K,
            count=EVALUATED // 2,
        )
        index_SB2 = jnp.concatenate(
            [rows_K[p].reshape(-1, batch_size // 2, 2) for p in both], axis=1
        )

        def evaluate_batch(_, index_B2):
            loss_B, aux = loss(
                variables,
                backprop.rows(pool, index_B2, jnp.ones(batch_size, jnp.float32)),
                train=False,
            )
            return None, {
                name: value_B.sum()
                for name, value_B in (
                    dict(loss=loss_B, weight=jnp.ones_like(loss_B)) | aux.metrics
                ).items()
            }

        return jax.tree.map(lambda a: a.sum(0), lax.scan(evaluate_batch, None, index_SB2)[1])

    return evaluate
