"""Predicts the cost of a fleet before training: its memory, its time and the fastest chunk.

Memory comes from the compiler. The fastest chunk (chunk='auto') is measured.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.training import memory, programs, stream
from mia_jax.types import Learner, Pool


class Cost(NamedTuple):
    """Holds what training a chunk of models costs.

    Attributes:
        bytes: the bytes that the program needs on one device, including its examples.
        seconds: the seconds per step and model; NaN if not measured.
        compile_seconds: the seconds to compile the program.
        steps: the number of steps per epoch.
        parameters: the number of parameters of one model.
        shared: the part of `bytes` that all chunks on a device share.
    """

    bytes: int
    seconds: float
    compile_seconds: float
    steps: int
    parameters: int
    shared: int = 0


WHOLE = 2**62  # As pool_bytes: a pool of any size stays on the device.


def expected(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    pool_bytes: int = WHOLE,
) -> Cost:
    """Returns the cost of an epoch as the compiler predicts it, without running the epoch.

    If the pool is larger than `pool_bytes` it is streamed, and the cost is that of a part of an
    epoch. The persistent compilation cache keeps the program for the training itself.
    """
    program = programs.make(learner=learner, chunk=chunk)
    shapes, steps = _shapes(learner, pool, rows_K, weight_K, chunk, pool_bytes)
    start = time.perf_counter()
    state, pool_shape, index, weight = shapes
    pool_shape = jax.tree.map(_on_device, pool_shape)
    run = program.run.lower(state, pool_shape, index, weight).compile()
    return _cost(
        run,
        shapes,
        chunk,
        steps=steps,
        streamed=stream.num_bytes(pool) > pool_bytes,
        compile_seconds=time.perf_counter() - start,
    )


def least(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    pool_bytes: int = WHOLE,
) -> Cost:
    """Returns a lower bound of the cost, from shapes only: the states, the plan and the examples.

    Nothing is compiled or allocated.
    """
    shapes, steps = _shapes(learner, pool, rows_K, weight_K, chunk, pool_bytes)
    shared = 0 if stream.num_bytes(pool) > pool_bytes else _size(shapes[1])
    return Cost(_size(shapes), float("nan"), 0.0, steps, _parameters(shapes[0], chunk), shared)


def measured(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    probe_steps: int = 4,
    pool_bytes: int = WHOLE,
) -> Cost:
    """Measures the cost of `chunk` models on the first device; the models are not kept.

    Compiles a program of `probe_steps` steps and runs it for at least 0.3 s.
    """
    program = programs.make(learner=learner, chunk=chunk)
    keys = programs.model_keys(seed=0, models=np.zeros(chunk))
    index, weight = program.plan(
        keys, jnp.uint32(1), *(np.broadcast_to(a, (chunk, len(rows_K))) for a in (rows_K, weight_K))
    )
    steps = index.shape[1]
    index, weight = index[:, :probe_steps], weight[:, :probe_steps]
    used, local = np.unique(np.asarray(index), return_inverse=True)
    index = jnp.asarray(local.reshape(index.shape).astype(np.int32))
    part = jax.device_put(stream.bare(pool, used))
    state = program.init(keys, stream.bare(pool, np.arange(1)))
    start = time.perf_counter()
    run = program.run.lower(state, part, index, weight).compile()
    compile_seconds = time.perf_counter() - start
    shapes = (
        state,
        part,
        jax.ShapeDtypeStruct((chunk, steps, *index.shape[2:]), jnp.int32),
        weight,
    )
    state, _ = memory.wait(run(state, part, index, weight))
    start, repeats = time.perf_counter(), 0
    while repeats < 3 or (time.perf_counter() - start < 0.3 and repeats < 50):
        state, _ = memory.wait(run(state, part, index, weight))
        repeats += 1
    seconds = (time.perf_counter() - start) / (repeats * index.shape[1] * chunk)
    cost = _cost(
        run,
        shapes,
        chunk,
        steps=steps,
        streamed=True,
        seconds=seconds,
        compile_seconds=compile_seconds,
    )
    whole = min(stream.num_bytes(pool), pool_bytes)
    return cost._replace(
        bytes=cost.bytes - _size(part) + whole, shared=whole if whole <= pool_bytes else 0
    )


def _shapes(
    learner: Learner, pool: Pool, rows_K, weight_K, chunk: int, pool_bytes: int = WHOLE
) -> tuple[tuple, int]:
    """Returns (shapes of the arguments of `run`, steps per epoch) for a chunk of models.

    The shapes are those of an epoch, or of a part of it if the pool is streamed.
    """
    program, whole = programs.make(learner=learner, chunk=chunk), stream.bare(pool)
    keys = jax.eval_shape(lambda: programs.model_keys(seed=0, models=np.zeros(chunk)))
    rows, weight = (jax.ShapeDtypeStruct((chunk, len(rows_K)), a.dtype) for a in (rows_K, weight_K))
    index, weight = jax.eval_shape(
        program.plan, keys, jax.ShapeDtypeStruct((), jnp.uint32), rows, weight
    )
    state = jax.eval_shape(program.init, keys, stream.bare(pool, np.arange(1)))
    steps, rows = index.shape[1], len(pool.y)
    if stream.num_bytes(pool) > pool_bytes:
        length, rows = stream.part_size(pool=pool, shape_MSB=index.shape, limit=pool_bytes)
        index, weight = (
            jax.ShapeDtypeStruct((chunk, length, *a.shape[2:]), a.dtype) for a in (index, weight)
        )
    pool_shape = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), whole)
    return (state, pool_shape, index, weight), steps


def _on_device(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns the shape with the type that a device gives to it, such as float32 for float64."""
    return jax.ShapeDtypeStruct(shape.shape, jax.dtypes.canonicalize_dtype(shape.dtype))


def _cost(
    run,
    shapes: tuple,
    chunk: int,
    *,
    steps: int,
    streamed: bool,
    seconds: float = float("nan"),
    compile_seconds: float,
) -> Cost:
    """Returns the cost of the compiled program `run` with these argument shapes."""
    state, pool, *_ = shapes
    analysis, needed = run.memory_analysis(), _size(pool)
    if analysis is not None:
        needed = max(
            needed,
            analysis.temp_size_in_bytes
            + analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            - analysis.alias_size_in_bytes,
        )
    return Cost(
        int(needed),
        seconds,
        compile_seconds,
        steps,
        _parameters(state, chunk),
        0 if streamed else _size(pool),
    )


def _parameters(state, chunk: int) -> int:
    """Returns the number of parameters of one model, given the state of a chunk."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"])) // chunk


def _size(tree) -> int:
    """Returns the number of bytes of the arrays (or shapes) of a pytree."""
    return sum(
        int(np.prod(leaf.shape, dtype=object)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def best_chunk(
    *,
    learner: Learner,
    pool: Pool,
    rows_K,
    weight_K,
    models: int,
    memory_bytes: int,
    pool_bytes: int = WHOLE,
    largest: int = 64,
    log=print,
) -> tuple[int, Cost]:
    """Returns the fastest chunk of 1, 2, 4, ... <= min(models, largest) and its cost.

    The fastest chunk has the fewest seconds per step and model. A larger chunk must win by 3%. The
    search stops at the first chunk that does not fit in `memory_bytes`, that runs out of memory, or
    that is 1.5 times slower than the best one. A chunk of one model is always measured, even if it
    exceeds `memory_bytes`.
    """
    best: tuple[int, Cost] | None = None
    chunk = 1
    common = dict(
        learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K, pool_bytes=pool_bytes
    )
    while chunk <= min(models, largest):
        if best is not None and least(**common, chunk=chunk).bytes > memory_bytes:
            break
        try:
            cost = measured(**common, chunk=chunk)
        except Exception as error:
            if best is None or not memory.ran_out(error):
                raise
            log(f"chunk {chunk}: out of memory")
            break
        log(
            f"chunk {chunk}: {cost.seconds * 1e3:.3g} ms a step and model, "
            f"{cost.bytes / 1e6:.3g} MB"
        )
        if best is not None and cost.bytes > memory_bytes:
            break
        if best is None or cost.seconds < 0.97 * best[1].seconds:
            best = (chunk, cost)
        elif cost.seconds > 1.5 * best[1].seconds:
            break
        chunk *= 2
    return best
