"""Draws the batches of private training: plans that match the accounting.

A plan is a pure function (key, epoch, rows_K, weight_K) -> (index_SB, weight_SB), so the batches of
any epoch can be computed directly. Batches have a fixed number of slots; weight 0 marks empty ones.
If a step has more units than slots and `cap` is not part of the mechanism, all its weights are NaN.
The learner counts such steps, and the run stops.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import stats

from mia_jax import checks
from mia_jax.privacy.mechanism import SAMPLINGS
from mia_jax.types import Plan

GROUPS_KEY = np.uint32(2**32 - 4)  # of the groups, which no epoch has for its number
OVERFLOW = 1e-9  # The largest probability that any step of a run has more units than slots.


def slots(
    *,
    sampling: str,
    num_units: int,
    rate: float,
    expected_batch: int,
    steps: int,
    cap: int | None,
    chance: float = OVERFLOW,
) -> int:
    """Returns the number of slots of a batch.

    It is `cap`, or the fixed size of a batch, or as many slots as are needed for a run of `steps`
    steps to overflow with a probability below `chance`.
    """
    if cap is not None:
        return min(cap, num_units)
    if sampling in ("shuffle", "without_replacement"):
        return min(expected_batch, num_units)
    return int(min(num_units, stats.binom.isf(chance / max(1, steps), num_units, rate) + 1))


def plan(
    *,
    sampling: str,
    rate: float,
    size: int,
    steps: int,
    cap: bool = False,
    spread: bool = False,
    groups: int = 1,
) -> Plan:
    """Returns the plan of `steps` batches per epoch with `size` slots each.

    Rows of weight 0 are never drawn. The kinds of sampling:

    - 'poisson': every row with probability `rate` in every step, independently. Beyond `size` rows
      a uniform subset is kept if `cap`; otherwise it is an overflow.
    - 'cyclic_poisson': every row is in one of `groups` groups, which is drawn once for all epochs,
      uniformly and independently. Step t, counted from the first step of epoch 1, takes every row
      of group t mod groups with probability rate * groups, independently.
    - 'balls_in_bins': every row in one uniform step of the epoch.
    - 'without_replacement': `size` uniform rows, drawn again every step.
    - 'shuffle': a new permutation every epoch, in consecutive batches.

    `spread` puts the rows into uniform slots among the empty ones (for clipping of groups of
    slots).
    """
    checks.one_of(SAMPLINGS, sampling=sampling)
    cyclic = sampling == "cyclic_poisson"
    chance = rate * groups if cyclic else rate

    def draw(key, epoch, rows_K, weight_K):
        more = max(0, size - len(rows_K))  # A batch can have more slots than there are rows.
        rows_K, weight_K = jnp.pad(rows_K, (0, more), mode="edge"), jnp.pad(weight_K, (0, more))
        group_K = (
            jax.random.randint(
                jax.random.fold_in(key, GROUPS_KEY), rows_K.shape, 0, groups, jnp.int32
            )
            if cyclic
            else None
        )
        key, real_K = jax.random.fold_in(key, epoch), weight_K > 0
        if sampling == "shuffle":
            order_K = jnp.argsort(
                jnp.where(real_K, _bits(key, len(rows_K)), jnp.iinfo(jnp.int32).max)
            )
            padding = steps * size - len(rows_K)
            chosen = jnp.concatenate([order_K, jnp.zeros(max(0, padding), order_K.dtype)])[
                : steps * size
            ].reshape(steps, size)
            weight = jnp.concatenate(
                [weight_K[order_K], jnp.zeros(max(0, padding), weight_K.dtype)]
            )[: steps * size].reshape(steps, size)
            return rows_K[chosen], weight
        bin_K = (
            jax.random.randint(jax.random.fold_in(key, steps), rows_K.shape, 0, steps, jnp.int32)
            if sampling == "balls_in_bins"
            else None
        )

        def step(s):
            step_key = jax.random.fold_in(key, s)
            bits_K = _bits(step_key, len(rows_K))
            if sampling == "poisson" or cyclic:
                drawn_K = real_K & (
                    (bits_K < np.int32(min(2**31 - 1, round(chance * 2**31)))) | (chance >= 1)
                )
                if cyclic:
                    step_of_run = (jnp.asarray(epoch).astype(jnp.int32) - 1) * steps + s
                    drawn_K &= group_K == step_of_run % groups
            else:
                drawn_K = real_K & (bin_K == s) if sampling == "balls_in_bins" else real_K
            # A uniform subset, in random order.
            smallest, chosen_B = lax.top_k(
                jnp.where(drawn_K, -1 - (bits_K >> 1), jnp.iinfo(jnp.int32).min), size
            )
            taken_B = smallest > jnp.iinfo(jnp.int32).min
            weight_B = jnp.where(taken_B, weight_K[chosen_B], 0.0)
            if sampling != "without_replacement" and not cap:
                weight_B = jnp.where(drawn_K.sum() > size, jnp.nan, weight_B)
            if spread:
                order_B = jax.random.permutation(
                    jax.random.fold_in(step_key, 1), jnp.arange(size, dtype=jnp.int32)
                )
                chosen_B, weight_B = chosen_B[order_B], weight_B[order_B]
            return rows_K[chosen_B], weight_B

        return lax.map(step, jnp.arange(steps, dtype=jnp.int32))

    return draw


def _bits(key, size: int):
    """Returns uniform integers in 0..2^31-1."""
    return (jax.random.bits(key, (size,), jnp.uint32) >> 1).astype(jnp.int32)


def repeated(plan: Plan, times: int) -> Plan:
    """Returns the plan with every slot repeated `times` times, next to each other.

    The copies are the views of one example under augmentation multiplicity.
    """

    def draw(key, epoch, rows_K, weight_K):
        return tuple(jnp.repeat(a, times, axis=1) for a in plan(key, epoch, rows_K, weight_K))

    return draw if times > 1 else plan


def rounded(plan: Plan, multiple: int) -> Plan:
    """Returns the plan with empty slots at the end of every batch, up to a multiple of `multiple`.

    A multiple of 0 leaves the plan unchanged.
    """

    def draw(key, epoch, rows_K, weight_K):
        index_SB, weight_SB = plan(key, epoch, rows_K, weight_K)
        more = -index_SB.shape[1] % multiple
        return jnp.pad(index_SB, ((0, 0), (0, more)), mode="edge"), jnp.pad(
            weight_SB, ((0, 0), (0, more))
        )

    return draw if multiple else plan


def of_groups(plan: Plan, *, group_N: np.ndarray, rows_each: int) -> Plan:
    """Returns a plan of users: `plan` draws users, who contribute up to `rows_each` rows each.

    The rows of a user are a uniform subset of its rows in this model, drawn again each epoch. The
    result has size * rows_each slots. A user without a row of weight > 0 is never drawn.

    Args:
        plan: the plan that draws users.
        group_N: the number of each row's user, 0..G-1, [N].
        rows_each: the largest number of rows of a user.
    """
    count = int(group_N.max()) + 1
    group = np.asarray(group_N, np.int32)

    def draw(key, epoch, rows_K, weight_K):
        order_K = jnp.argsort(
            _bits(jax.random.fold_in(jax.random.fold_in(key, epoch), 2**31 - 3), len(rows_K))
        )
        user_K = jnp.where(weight_K > 0, jnp.asarray(group)[rows_K], count)[order_K]
        order_K = order_K[jnp.argsort(user_K, stable=True)]
        user_K = jnp.sort(user_K)
        rank_K = jnp.arange(len(rows_K), dtype=jnp.int32) - jnp.searchsorted(user_K, user_K)
        place = (user_K, rank_K)
        index_GJ = (
            jnp.full((count, rows_each), rows_K[0], rows_K.dtype)
            .at[place]
            .set(rows_K[order_K], mode="drop")
        )
        weight_GJ = (
            jnp.zeros((count, rows_each), weight_K.dtype)
            .at[place]
            .set(weight_K[order_K], mode="drop")
        )
        user_SB, drawn_SB = plan(
            key,
            epoch,
            jnp.arange(count, dtype=jnp.int32),
            (weight_GJ > 0).any(1).astype(weight_K.dtype),
        )
        weight = drawn_SB[:, :, None] * weight_GJ[user_SB]
        return index_GJ[user_SB].reshape(len(user_SB), -1), weight.reshape(len(user_SB), -1)

    return draw
