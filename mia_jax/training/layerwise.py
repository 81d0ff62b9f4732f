"""Measures, for every convolution of a learning rule, which of its programs is the fastest.

The three functions of a convolution (forward, and the gradients of the images and of the kernel)
are timed one by one at the sizes with which a step calls them. train/plan.json keeps the choice,
because programs differ in the last bits.
"""

from __future__ import annotations

import collections
import time

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.models.kernels import candidates, convolution
from mia_jax.training import programs, stream
from mia_jax.types import Learner, Pool

SECONDS = 0.05  # The time for which a program is repeated.
INSIDE = 4  # The calls inside a program, one after the other as the steps of an epoch.


def layers(
    *, learner: Learner, pool: Pool, rows_K: np.ndarray, weight_K: np.ndarray
) -> list[convolution.Layer]:
    """Returns the convolutions with one kernel that an epoch calls; nothing is computed.

    1x1 windows are products everywhere and are left out.
    """
    recorder = candidates.Recorder()
    program = programs.make(learner=learner, chunk=1, form="layers", choice=recorder)
    keys = jax.eval_shape(lambda: programs.model_keys(seed=0, models=np.zeros(1)))
    rows, weight = (jax.ShapeDtypeStruct((1, len(rows_K)), a.dtype) for a in (rows_K, weight_K))
    epoch = jax.ShapeDtypeStruct((), jnp.uint32)
    index, weight = jax.eval_shape(program.plan, keys, epoch, rows, weight)
    state = jax.eval_shape(program.init, keys, stream.bare(pool, np.arange(1)))
    recorder.layers.clear()
    jax.eval_shape(program.run, state, stream.bare(pool), index, weight)
    return list(recorder.layers)


def fastest(
    *, learner: Learner, pool: Pool, rows_K: np.ndarray, weight_K: np.ndarray, log=print
) -> candidates.Table:
    """Returns the fastest program of each layer; another than the first must win by 5%."""
    pairs, every = [], layers(learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K)
    if every:
        log(f"measuring the fastest programs of {len(every)} functions of convolutions ...")
    for layer in every:
        best, shortest = "patches", seconds(layer, "patches")
        for name in candidates.names(layer)[1:]:
            taken = seconds(layer, name)
            if taken < (0.95 if best == "patches" else 1.0) * shortest:
                best, shortest = name, taken
        pairs.append((layer, best))
    counts = collections.Counter(name for _, name in pairs)
    if every:
        log(", ".join(f"{name} {count}" for name, count in counts.most_common()))
    return candidates.Table(pairs)


def seconds(layer: convolution.Layer, name: str) -> float:
    """Returns the seconds that a program of a layer takes, the least of several calls."""
    program = candidates.program(name, layer.what)
    rng = np.random.default_rng(0)
    given = [
        jnp.asarray(rng.standard_normal((INSIDE, *a.shape), np.float32), a.dtype)
        for a in layer.shapes()
    ]

    def repeated(a, b):
        out = jax.eval_shape(lambda a, b: program(layer.at, a, b), a[0], b[0])
        return jax.lax.scan(
            lambda _, ab: (program(layer.at, *ab), None), jnp.zeros(out.shape, out.dtype), (a, b)
        )[0]

    run = jax.jit(repeated).lower(*given).compile()
    run(*given).block_until_ready()
    least, start = np.inf, time.perf_counter()
    while time.perf_counter() - start < SECONDS or least == np.inf:
        before = time.perf_counter()
        run(*given).block_until_ready()
        least = min(least, time.perf_counter() - before)
    return least / INSIDE
