"""Determines the rows of each step of an epoch.

Plans are pure functions of (key, epoch, rows), so that a resumed run needs no replay.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Plan


def permutation(*, batch_size: int, drop_last: bool = False) -> Plan:
    """Returns the plan that visits every row once per epoch in a new random order.

    plan(key, epoch, rows_K, weight_K) -> (index_SB, weight_SB) with S = ceil(K / B). The last batch
    is padded with weight 0. With `drop_last` it is dropped, and S = floor(K / B) >= 1. Rows of
    weight 0 come last, so that batches stay full; a batch may then be empty.
    """
    checks.at_least(1, batch_size=batch_size)

    def plan(key, epoch, rows_K, weight_K):
        num_rows = rows_K.shape[0]
        steps = steps_per_epoch(num_rows=num_rows, batch_size=batch_size, drop_last=drop_last)
        size = min(batch_size, num_rows)
        bits_K = jax.random.bits(jax.random.fold_in(key, epoch), (num_rows,), jnp.uint32) >> 1
        order_K = jnp.argsort(jnp.where(weight_K > 0, bits_K, bits_K | jnp.uint32(1 << 31)))
        rows_K, weight_K = rows_K[order_K], weight_K[order_K]
        padding = max(0, steps * size - num_rows)
        index = jnp.concatenate([rows_K, jnp.broadcast_to(rows_K[:1], (padding,))])[: steps * size]
        weight = jnp.concatenate([weight_K, jnp.zeros(padding, weight_K.dtype)])[: steps * size]
        return index.reshape(steps, size), weight.reshape(steps, size)

    return plan


def full_batch() -> Plan:
    """Returns the plan of one step per epoch with all rows in order: (rows_1K, weight_1K)."""

    def plan(key, epoch, rows_K, weight_K):
        del key, epoch
        return rows_K[None], weight_K[None]

    return plan


def steps_per_epoch(*, num_rows: int, batch_size: int, drop_last: bool = False) -> int:
    """Returns ceil(K / B), or floor(K / B) if the last batch is dropped; never 0."""
    size = min(batch_size, num_rows)
    return num_rows // size if drop_last else -(-num_rows // size)


def part(plan: Plan, *, members: int, extra: bool) -> Plan:
    """Returns a plan over one part of a row list: the first `members` rows, or the extra ones.

    Extra rows follow a model's members with weight 0 (WORKSPACE.md) and are trained on like
    members if they are chosen.
    """

    def chosen(key, epoch, rows_K, weight_K):
        first, last = (members, len(rows_K)) if extra else (0, members)
        weight_K = jnp.ones_like(weight_K) if extra else weight_K
        return plan(key, epoch, rows_K[first:last], weight_K[first:last])

    return chosen


def phases(plan: Plan, *, members: int, first: int) -> Plan:
    """Returns a plan over the members in the first epochs, and over the extra rows in the others.

    The phase with fewer or smaller batches is padded by rows of weight 0.

    Args:
        plan: the plan of either part.
        members: the number of members, which the extra rows follow in a row list.
        first: the number of epochs over the members.
    """
    parts = [part(plan, members=members, extra=extra) for extra in (False, True)]

    def both(key, epoch, rows_K, weight_K):
        pairs = [chosen(key, epoch, rows_K, weight_K) for chosen in parts]
        shape = [max(pair[0].shape[axis] for pair in pairs) for axis in (0, 1)]

        def padded(a):
            return jnp.pad(a, [(0, size - has) for size, has in zip(shape, a.shape, strict=True)])

        return tuple(
            jnp.where(epoch <= first, padded(a), padded(b)) for a, b in zip(*pairs, strict=True)
        )

    return both
