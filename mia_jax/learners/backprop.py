"""Gradient descent on a per-example objective: any objective x optimizer x penalty x augmentation x plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mia_jax import checks
from mia_jax.data import augment as augmentation
from mia_jax.learners import plan as plans
from mia_jax.learners import schedules
from mia_jax.types import Batch, Learner, Loss, Model, Pool, Stopping, TrainState


def make(
    *,
    model: Model,
    loss: Loss,
    num_rows: int,
    padded: bool = False,
    stopping: Stopping | None = None,
    epochs: int = 100,
    batch_size: int = 32,
    plan: str = "permutation",
    drop_last: bool = False,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    schedule: str = "constant",
    warmup_epochs: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    penalize: str = r"Dense_\d+/kernel$",
    augment: Sequence[str] = (),
) -> Learner:
    """A step follows the gradient of sum(weight_B * loss_B) / sum(weight_B) + l1 * sum|w| + l2 * sum w^2.

    The penalties run over the parameters whose path matches `penalize` (default: the kernels of dense layers) and are part of the monitored
    loss. `num_rows` is K, the rows of one model; `padded` says that some of them have weight 0 (an empty batch then changes nothing). `plan` is
    'permutation' or 'full_batch'. Step s draws from fold_in(state.key, s), example slot b from fold_in(that, b).
    """
    checks.at_least(0, epochs=epochs, l1=l1, l2=l2)
    checks.one_of(("permutation", "full_batch"), plan=plan)
    rows_plan = plans.full_batch() if plan == "full_batch" else plans.permutation(batch_size=batch_size, drop_last=drop_last)
    steps = 1 if plan == "full_batch" else plans.steps_per_epoch(num_rows=num_rows, batch_size=batch_size, drop_last=drop_last)
    warmup = round(warmup_epochs * steps)
    rate = schedules.learning_rate(schedule=schedule, peak=learning_rate, total_steps=max(1, epochs * steps), warmup_steps=warmup)
    tx = schedules.optimizer(name=optimizer, rate=rate, momentum=momentum, nesterov=nesterov, epsilon=epsilon, weight_decay=weight_decay)
    transform = augmentation.augmentation(tuple(augment)) if augment else None
    penalty = weight_penalty(l1=l1, l2=l2, penalize=penalize)

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        penalty(variables["params"])
        stop = stopping.init(variables) if stopping else None
        return TrainState(jnp.int32(0), variables, tx.init(variables["params"]), train_key, stop)

    def step(state: TrainState, pool: Pool, index_B, weight_B):
        key_B = slot_keys(jax.random.fold_in(state.key, state.step), index_B.shape[0])
        batch = rows(pool, index_B, weight_B)
        if transform is not None:
            batch = Batch(x=transform(batch.x, key_B), y=batch.y, weight_B=weight_B, index_B=index_B)

        def objective(params):
            loss_B, aux = loss({**state.variables, "params": params}, batch, key_B=key_B, train=True)
            total = weight_B.sum()
            return (weight_B * loss_B).sum() / jnp.maximum(total, 1e-12) + penalty(params), (aux, total)

        (value, (aux, total)), gradient = jax.value_and_grad(objective, has_aux=True)(state.variables["params"])
        updates, opt = tx.update(gradient, state.opt, state.variables["params"])
        variables = {"params": optax.apply_updates(state.variables["params"], updates)}
        if aux.stats:
            variables["stats"] = aux.stats
        if padded:  # an empty batch must not move momentum or statistics
            variables, opt = jax.tree.map(lambda new, old: jnp.where(total > 0, new, old), (variables, opt), (state.variables, state.opt))
        sums = dict(loss=total * value, weight=total) | {name: (weight_B * value_B).sum() for name, value_B in aux.metrics.items()}
        return TrainState(state.step + 1, variables, opt, state.key, state.stop), sums

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(lambda s, iw: step(s, pool, *iw), state, (index_SB, weight_SB))
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    return Learner(init, epoch, evaluation(loss=loss, penalty=penalty), rows_plan, epochs, stopping, model)


def evaluation(*, loss: Loss, penalty: Callable, batch_size: int = 512) -> Callable:
    """evaluate(variables, pool, rows_K, weight_K) -> weighted sums of loss (with its penalty) and metrics in inference mode."""

    def evaluate(variables, pool: Pool, rows_K, weight_K):
        size = min(batch_size, rows_K.shape[0])
        padding = -rows_K.shape[0] % size
        index_SB = jnp.concatenate([rows_K, jnp.broadcast_to(rows_K[:1], (padding,))]).reshape(-1, size)
        weight_SB = jnp.concatenate([weight_K, jnp.zeros(padding, weight_K.dtype)]).reshape(-1, size)
        extra = penalty(variables["params"])

        def one(_, iw):
            loss_B, aux = loss(variables, rows(pool, *iw), train=False)
            per_example = dict(loss=loss_B + extra, weight=jnp.ones_like(loss_B)) | aux.metrics
            return None, {name: (iw[1] * value_B).sum() for name, value_B in per_example.items()}

        return jax.tree.map(lambda a: a.sum(0), lax.scan(one, None, (index_SB, weight_SB))[1])

    return evaluate


def rows(pool: Pool, index_B, weight_B) -> Batch:
    """The named rows of a pool as a batch."""
    return Batch(x=jnp.asarray(pool.x)[index_B], y=jnp.asarray(pool.y)[index_B], weight_B=weight_B, index_B=index_B)


def slot_keys(key, size: int):
    """One key an example slot: fold_in(key, slot), [B]."""
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(jnp.arange(size))


def weight_penalty(*, l1: float, l2: float, penalize: str) -> Callable:
    """penalty(params) = l1 * sum|w| + l2 * sum w^2 over the leaves whose path (a/b/c) matches the pattern; ValueError if none does."""
    if not (l1 or l2):
        return lambda params: jnp.float32(0)

    def penalty(params):
        leaves = {"/".join(str(k.key) for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        chosen = [leaf for path, leaf in leaves.items() if re.search(penalize, path)]
        if not chosen:
            raise ValueError(f"penalize={penalize!r} matches no parameter; the paths are {', '.join(leaves)}.")
        return sum(l1 * jnp.abs(w).sum() + l2 * (w**2).sum() for w in chosen)

    return penalty
