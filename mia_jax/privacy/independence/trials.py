"""Runs a loss on small batches and compares bits to find out whether a network mixes examples.

This can show that a network mixes the examples of a batch, never that it does not.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.types import Batch, Loss, Model, Pool

# The program runs a few times only, so most of its cost is its compilation.
QUICK = {"xla_backend_optimization_level": 0}
ROWS = 3  # The number of rows of a trial batch.
MOST = 16  # The number of examples of the sample that are used.
FAR = 30.0  # In standard deviations, so that gates on a mean over the batch open and close.


class Trial(NamedTuple):
    """Holds the result of a trial.

    Attributes:
        mixes: whether a loss changed with other rows.
        batches: the number of batches that were compared.
        unable: why none could be compared; '' if some were.
    """

    mixes: bool
    batches: int
    unable: str


def tried(*, model: Model, loss: Loss, sample: Pool, rounds: int) -> Trial:
    """Compares, bit by bit, the loss of every row when the other rows of its batch change.

    Inputs, labels, weights and row numbers of the other rows change. Each round draws parameters,
    none of them zero, and rows similar to those of `sample` (a Pool of a few examples): its rows
    with noise of their spread, or integers within their range. The other rows are replaced by new
    rows, by rows far away on both sides, and by NaN.
    """
    if isinstance(sample.x, jax.core.Tracer) or isinstance(sample.y, jax.core.Tracer):
        return Trial(False, 0, "the examples are being traced")
    # A learner may be built while a program is traced. NaN is among the rows on purpose, even if a
    # debugging session forbids it.
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False):
        return _tried(model=model, loss=loss, sample=sample, rounds=rounds)


def _tried(*, model: Model, loss: Loss, sample: Pool, rounds: int) -> Trial:
    """Runs the rounds of `tried`."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(sample.x[:1]))
    sample = dataclasses.replace(
        sample, x=np.asarray(sample.x[:MOST]), y=np.asarray(sample.y[:MOST])
    )

    def losses(variables, batch):
        return loss(variables, batch, key_B=jax.random.split(jax.random.key(0), ROWS), train=True)[
            0
        ]

    program = jax.jit(losses, compiler_options=QUICK if jax.default_backend() == "cpu" else None)
    compared = 0
    for r in range(rounds):
        rng = np.random.default_rng(r)
        variables = jax.tree.map(lambda leaf, rng=rng: _parameter(rng, leaf), shapes)
        base = _rows(rng, sample) | dict(
            weight_B=np.ones(ROWS, np.float32), index_B=np.arange(ROWS, dtype=np.int32)
        )
        expected = _bits(program(variables, Batch(**base, task=sample.task)))
        if expected != _bits(program(variables, Batch(**base, task=sample.task))):
            return Trial(False, 0, "the same batch gives other bits when it is run again")
        usable = [
            b for b in range(ROWS) if np.isfinite(np.frombuffer(expected[b], np.float32)).all()
        ]
        for others in _replacements(rng, sample):
            for b in usable:
                rows = {
                    name: np.concatenate([value[:b], base[name][b : b + 1], value[b + 1 :]])
                    for name, value in others.items()
                }
                compared += 1
                if _bits(program(variables, Batch(**rows, task=sample.task)))[b] != expected[b]:
                    return Trial(True, compared, "")
    return Trial(False, compared, "" if compared else "no loss of a trial batch is finite")


def _bits(loss_B) -> list[bytes]:
    """Returns the bytes of each loss."""
    return [value.tobytes() for value in np.asarray(loss_B, np.float32)]


def _parameter(rng, leaf) -> np.ndarray:
    """Returns random normal parameters that preserve the scale of what passes through.

    Biases and scales are drawn in the same way, so they are far from 0 and 1.
    """
    fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 2
    return (rng.standard_normal(leaf.shape, np.float32) * (1.5 / fan_in) ** 0.5).astype(leaf.dtype)


def _rows(rng, sample: Pool) -> dict[str, np.ndarray]:
    """Returns {x, y} of a trial batch similar to the sample."""
    chosen = rng.integers(0, len(sample.y), ROWS)
    return dict(x=_like(rng, np.asarray(sample.x), chosen), y=_labels(rng, sample, chosen))


def _like(rng, x: np.ndarray, chosen) -> np.ndarray:
    """Returns inputs of a trial batch similar to the sample."""
    if x.dtype == bool:
        return rng.integers(0, 2, (ROWS, *x.shape[1:])).astype(bool)
    if x.dtype.kind in "iu":
        drawn = rng.integers(
            min(0, int(x.min())), max(1, int(x.max())) + 1, (ROWS, *x.shape[1:])
        ).astype(x.dtype)
        real = rng.integers(0, 2, (ROWS, *(1,) * (x.ndim - 1))).astype(bool)
        return np.where(real, x[chosen], drawn)
    spread = float(np.std(np.asarray(x, np.float32))) or 1.0
    return (
        np.asarray(x[chosen], np.float32)
        + spread * rng.standard_normal((ROWS, *x.shape[1:]), np.float32)
    ).astype(x.dtype)


def _labels(rng, sample: Pool, chosen) -> np.ndarray:
    """Returns labels of a trial batch similar to the sample."""
    y = np.asarray(sample.y)
    if sample.num_classes:
        return rng.integers(0, sample.num_classes, (ROWS, *y.shape[1:])).astype(y.dtype)
    return (y[chosen] + rng.standard_normal((ROWS, *y.shape[1:]))).astype(y.dtype)


def _replacements(rng, sample: Pool):
    """Yields batches {x, y, weight_B, index_B} whose rows replace the other rows."""
    ones, index = np.ones(ROWS, np.float32), np.arange(ROWS, dtype=np.int32)
    yield _rows(rng, sample) | dict(weight_B=ones, index_B=index)
    yield _rows(rng, sample) | dict(weight_B=0 * ones, index_B=index[::-1] + ROWS)
    if jnp.issubdtype(jnp.asarray(sample.x[:1]).dtype, jnp.floating):
        spread = FAR * (float(np.std(np.asarray(sample.x, np.float32))) or 1.0)
        for shift in (-spread, spread, np.nan):
            rows = _rows(rng, sample)
            yield rows | dict(
                x=(rows["x"] + np.float32(shift)).astype(rows["x"].dtype),
                weight_B=ones,
                index_B=index,
            )
