"""Scores canaries during training by comparing their gradients with the update of each step.

This is a white-box auditor, which sees every update of the parameters. It runs inside the training
program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax import checks
from mia_jax.types import Batch, Learner, Loss, Pool, Task, TrainState

SIGNALS = ("update_alignment", "update_change")  # A higher score indicates a member.


class Watch(NamedTuple):
    """Holds the optimizer state of a watched learner.

    Attributes:
        opt: the state of the optimizer itself.
        previous: the last update of the parameters.
        alignment_C: the sum of the alignments of the steps so far, [C].
        change_C: the sum of the squared changes of the steps so far, [C].
    """

    opt: Any
    previous: Any
    alignment_C: jax.Array
    change_C: jax.Array

    def signals(self) -> dict[str, jax.Array]:
        """Returns {signal: [...,C]} of the state of one model or of several."""
        return dict(zip(SIGNALS, (self.alignment_C, self.change_C), strict=True))


def watched(
    learner: Learner,
    *,
    loss: Loss,
    x: np.ndarray,
    y: np.ndarray,
    clip_norm: float = np.inf,
    size: int = 64,
) -> Learner:
    """Returns the learner with canary scores in its optimizer state; training does not change.

    With g_c the clipped gradient of canary c before step t (in inference mode) and u_t = parameters
    before - parameters after, the state accumulates two sums over the steps:

    - alignment_c = sum_t <g_c, u_t>, the matched filter of a canary that took part (Nasr et al.
      2023, arXiv:2302.07956, section 5.2).
    - change_c = sum_t <g_c, u_t - u_{t-1}>^2. Noise that is the same in every step cancels here,
      and what remains shows which units entered and left. The final weights cannot show such noise,
      because it accumulates in them and hides more.

    A step costs C additional gradients and no transfer to the host.

    Args:
        learner: the learner to watch.
        loss: its loss.
        x: the inputs of the canaries, [C,...].
        y: the labels of the canaries, [C].
        clip_norm: the norm to which the canaries' gradients are clipped.
        size: the number of canaries whose gradients are in memory at a time.
    """
    checks.positive(clip_norm=clip_norm)
    canaries = len(y)
    batch_of = jnp.asarray(x), jnp.asarray(y)

    def init(key, pool: Pool) -> TrainState:
        state = learner.init(key, pool)
        zero = jax.tree.map(jnp.zeros_like, state.variables["params"])
        return state._replace(
            opt=Watch(
                state.opt, zero, jnp.zeros(canaries, jnp.float32), jnp.zeros(canaries, jnp.float32)
            )
        )

    def step(state: TrainState, pool: Pool, index_1B, weight_1B):
        watch, before = state.opt, state.variables
        new, sums = learner.epoch(state._replace(opt=watch.opt), pool, index_1B, weight_1B)
        update = jax.tree.map(jnp.subtract, before["params"], new.variables["params"])
        change = jax.tree.map(jnp.subtract, update, watch.previous)

        def products(xy):
            gradient = jax.grad(
                lambda params: _single(loss, before | {"params": params}, *xy, task=pool.task)
            )(before["params"])
            norm = jnp.sqrt(_dot(gradient, gradient))
            factor = jnp.where(
                jnp.isfinite(norm), jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-30)), 0.0
            )
            safe = jax.tree.map(lambda g: jnp.where(jnp.isfinite(norm), g, 0), gradient)
            return factor * _dot(safe, update), factor * _dot(safe, change)

        align_C, change_C = lax.map(products, batch_of, batch_size=min(size, canaries))
        first = state.step == 0  # There is no update before the first step.
        change_C = jnp.where(first, 0.0, jnp.square(change_C))
        return new._replace(
            opt=Watch(new.opt, update, watch.alignment_C + align_C, watch.change_C + change_C)
        ), sums

    return by_steps(learner, init=init, step=step)


def by_steps(learner: Learner, *, init: Callable, step: Callable) -> Learner:
    """Returns the learner with the state of a watcher around that of its optimizer.

    Args:
        learner: the learner to watch.
        init: init(key, pool) -> state, whose `opt` holds the optimizer's own state as `opt.opt`.
        step: step(state, pool, index_1B, weight_1B) -> (state, sums) of one batch.
    """

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(
            lambda s, iw: step(s, pool, iw[0][None], iw[1][None]), state, (index_SB, weight_SB)
        )
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    if learner.released is None:
        return learner._replace(init=init, epoch=epoch)
    return learner._replace(
        init=init,
        epoch=epoch,
        released=lambda state: learner.released(state._replace(opt=state.opt.opt)),
    )


def _single(loss: Loss, variables, x, y, *, task: Task):
    """Returns the loss of one example, as a batch of one (a model always sees a batch axis)."""
    batch = Batch(
        x=x[None],
        y=y[None],
        task=task,
        weight_B=jnp.ones(1, jnp.float32),
        index_B=jnp.zeros(1, jnp.int32),
    )
    return loss(variables, batch, train=False)[0][0]


def _dot(a, b) -> jax.Array:
    """Returns <a, b> over all leaves, in float32."""
    parts = jax.tree.map(
        lambda p, q: jnp.vdot(
            p.astype(jnp.float32), q.astype(jnp.float32), precision=lax.Precision.HIGHEST
        ),
        a,
        b,
    )
    return sum(jax.tree.leaves(parts))


def scores(state: TrainState) -> dict[str, np.ndarray]:
    """Returns {signal: [M,C]} of the state of a chunk, whose optimizer state has `signals()`."""
    return jax.device_get(state.opt.signals())


def saver(rows: np.ndarray, num_examples: int, write: Callable) -> Callable:
    """Returns an `on_epoch` hook of the fleet that writes the scores after every epoch.

    The hook calls write(signal, m, value_AN), where value_AN is [1,N] with the score of canary c in
    row rows[c] and 0 elsewhere.
    """

    def hook(models, epoch, state, metrics) -> None:
        del epoch, metrics
        for name, value_MC in scores(state).items():
            for i, m in enumerate(models):
                value_AN = np.zeros((1, num_examples), np.float32)
                value_AN[0, rows] = value_MC[i]
                write(name, m, value_AN)

    return hook
