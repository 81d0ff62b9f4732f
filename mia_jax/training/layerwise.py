"""Measures, for every convolution of a learning rule, which of its programs is the fastest.

The three functions of a convolution (forward, and the gradients of the images and of the kernel)
are timed one by one at the sizes with which a step calls them. train/plan.json keeps the choice,
because programs differ in the last bits.
"""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Sequence

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
    """Returns the fastest program of each layer of a learning rule (see `chosen`)."""
    every = layers(learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K)
    if not every:
        return candidates.Table()
    log(f"measuring the fastest programs of {len(every)} functions of convolutions ...")
    table = chosen(every)
    counts = collections.Counter(name for _, name in table)
    log(", ".join(f"{name} {count}" for name, count in counts.most_common()))
    return table


def chosen(every: Sequence[convolution.Layer]) -> candidates.Table:
    """Returns the fastest program of each layer; another than patches must win by 5%."""
    pairs = []
    for layer in every:
        taken = seconds(layer, candidates.names(layer))
        first, best = next(iter(taken)), min(taken, key=taken.get)
        pairs.append((layer, best if taken[best] < 0.95 * taken[first] else first))
    return candidates.Table(pairs)


def seconds(layer: convolution.Layer, names: Sequence[str]) -> dict[str, float]:
    """Returns the seconds of a call of each program of a layer: the least of several, in turns."""
    rng = np.random.default_rng(0)
    given = [
        jnp.asarray(rng.standard_normal((INSIDE, *a.shape), np.float32), a.dtype)
        for a in layer.shapes()
    ]
    compiled = {name: _repeated(layer, name, given) for name in names}
    least = dict.fromkeys(names, np.inf)
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or (time.perf_counter() - start < SECONDS * len(names) and rounds < 50):
        for name, run in compiled.items():
            before = time.perf_counter()
            run(*given).block_until_ready()
            least[name] = min(least[name], (time.perf_counter() - before) / INSIDE)
        rounds += 1
    return least


def _repeated(layer: convolution.Layer, name: str, given):
    """Returns the compiled function that calls a program of a layer for each row of `given`."""
    program = functools.partial(candidates.program(name, layer.what), layer.at)
    out = jax.eval_shape(program, *layer.shapes())

    def repeated(*rows):
        zero = jnp.zeros(out.shape, out.dtype)
        return jax.lax.scan(lambda _, row: (program(*row), None), zero, rows)[0]

    return jax.jit(repeated).lower(*given).compile()
