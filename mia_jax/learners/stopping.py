"""Early stopping of one model as a pure update of its `Stop` state; a fleet vmaps it."""

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
    """Stop at the first epoch that ends `patience` epochs after the last improvement (patience 0
    and 1: at the first epoch without one).

    An epoch improves if value + d < best (mode 'min') or value - d > best ('max'), d = |min_delta|;
    then best = value and the wait starts anew. best starts at `baseline`, or at the worst possible
    value. 'auto' is 'max' if the monitor's name contains 'acc', else 'min'. With `restore_best` the
    variables of the best epoch are the model's; a model that never improved keeps its last ones.
    Epochs are 1-based. Semantics of Keras' EarlyStopping, with `best` moving at every improvement.
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
    """The model's variables after training: those of its best epoch where they were kept and there
    was one, else the last.
    """
    if stop is None or stop.best_variables is None:
        return variables
    return jax.tree.map(
        lambda best, last: jnp.where(stop.best_epoch > 0, best, last),
        stop.best_variables,
        variables,
    )
