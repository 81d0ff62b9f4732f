"""Stops the training of one model early, as a pure update of its `Stop` state; a fleet vmaps it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Stop, Stopping


def make(
    *,
    monitor: str = "loss",
    mode: str = "auto",
    min_delta: float = 0.0,
    patience: int = 0,
    baseline: float | None = None,
    restore_best: bool = False,
) -> Stopping:
    """Returns the rule that stops `patience` epochs after the last improvement.

    It stops at the first epoch at which `patience` epochs have passed without an improvement. A
    patience of 0 or 1 stops at the first epoch without one. Epochs are 1-based. The semantics are
    those of Keras' EarlyStopping, with `best` moving at every improvement.

    Args:
        monitor: the metric to watch.
        mode: 'min', 'max', or 'auto', which is 'max' if the name of the monitor contains 'acc' and
            'min' otherwise.
        min_delta: d = |min_delta|. An epoch improves if value + d < best (mode 'min') or value - d
            > best ('max'); then best = value and the wait starts again.
        patience: the number of epochs to wait.
        baseline: the initial best; None for the worst possible value.
        restore_best: whether the model gets the variables of its best epoch. A model that never
            improved keeps its last ones.
    """
    checks.one_of(("auto", "min", "max"), mode=mode)
    checks.at_least(0, patience=patience)
    largest = mode == "max" or (mode == "auto" and "acc" in monitor)
    sign, delta = (-1.0 if largest else 1.0), abs(min_delta)

    def init(variables) -> Stop:
        best = jnp.inf if baseline is None else sign * baseline
        zero = jnp.int32(0)
        kept = jax.tree.map(jnp.array, variables) if restore_best else None
        return Stop(jnp.float32(best), zero, zero, zero, jnp.bool_(False), kept)

    def update(stop: Stop, value, epoch, variables) -> Stop:
        value = sign * jnp.asarray(value, jnp.float32)
        improved = value + delta < stop.best
        wait = jnp.where(improved, 0, stop.wait + 1)
        done = ~improved & (wait >= patience)
        kept = (
            jax.tree.map(
                lambda new, old: jnp.where(improved, new, old), variables, stop.best_variables
            )
            if restore_best
            else None
        )
        new = Stop(
            best=jnp.where(improved, value, stop.best),
            wait=wait,
            best_epoch=jnp.where(improved, epoch, stop.best_epoch).astype(jnp.int32),
            stopped_epoch=jnp.where(done, epoch, 0).astype(jnp.int32),
            done=done,
            best_variables=kept,
        )
        return jax.tree.map(lambda old, new: jnp.where(stop.done, old, new), stop, new)

    return Stopping(monitor, init, update, restore_best)


def best_variables(stop: Stop | None, variables):
    """Returns the variables of a model after training.

    They are those of its best epoch if they were kept and there was one, and the last ones
    otherwise.
    """
    if stop is None or stop.best_variables is None:
        return variables
    return jax.tree.map(
        lambda best, last: jnp.where(stop.best_epoch > 0, best, last),
        stop.best_variables,
        variables,
    )
