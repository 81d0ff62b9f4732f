"""What a fleet will cost, before it starts: memory from the compiler, and the fastest chunk by measurement (chunk='auto')."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.training import programs, stream
from mia_jax.types import Learner, Pool


class Cost(NamedTuple):
    """`bytes` the program needs on one device, `seconds` a step and model, `compile_seconds`; `steps` an epoch, `parameters` of one model."""

    bytes: int
    seconds: float
    compile_seconds: float
    steps: int
    parameters: int


def expected(*, learner: Learner, pool: Pool, rows_K: np.ndarray, weight_K: np.ndarray, chunk: int) -> Cost:
    """The cost of a whole epoch as the compiler sees it, without running it; the persistent compile cache keeps the program for the run itself."""
    program, shapes = programs.make(learner=learner, chunk=chunk), _shapes(learner, pool, rows_K, weight_K, chunk)
    start = time.perf_counter()
    run = program.run.lower(*shapes).compile()
    return _cost(run, shapes, pool, chunk, seconds=float("nan"), compile_seconds=time.perf_counter() - start)


def measured(*, learner: Learner, pool: Pool, rows_K: np.ndarray, weight_K: np.ndarray, chunk: int, probe_steps: int = 4) -> Cost:
    """Compiles and runs `probe_steps` steps of `chunk` models on the first device, for at least .3 s: nothing is kept."""
    program = programs.make(learner=learner, chunk=chunk)
    keys = programs.model_keys(seed=0, models=np.zeros(chunk))
    index, weight = program.plan(keys, jnp.uint32(1), *(np.broadcast_to(a, (chunk, len(rows_K))) for a in (rows_K, weight_K)))
    steps = index.shape[1]
    index, weight = index[:, :probe_steps], weight[:, :probe_steps]
    used, local = np.unique(np.asarray(index), return_inverse=True)
    index = jnp.asarray(local.reshape(index.shape).astype(np.int32))
    part = jax.device_put(stream.bare(pool, used))
    state = program.init(keys, stream.bare(pool, np.arange(1)))
    start = time.perf_counter()
    run = program.run.lower(state, part, index, weight).compile()
    compile_seconds = time.perf_counter() - start
    shapes = (state, part, jax.ShapeDtypeStruct((chunk, steps, *index.shape[2:]), jnp.int32), weight)
    state, _ = jax.block_until_ready(run(state, part, index, weight))
    start, repeats = time.perf_counter(), 0
    while repeats < 3 or (time.perf_counter() - start < 0.3 and repeats < 50):
        state, _ = jax.block_until_ready(run(state, part, index, weight))
        repeats += 1
    seconds = (time.perf_counter() - start) / (repeats * index.shape[1] * chunk)
    return _cost(run, shapes, pool, chunk, seconds=seconds, compile_seconds=compile_seconds)


def _shapes(learner: Learner, pool: Pool, rows_K, weight_K, chunk: int) -> tuple:
    """The arguments of `run` for one epoch of a chunk, as shapes."""
    program, whole = programs.make(learner=learner, chunk=chunk), stream.bare(pool)
    keys = jax.eval_shape(lambda: programs.model_keys(seed=0, models=np.zeros(chunk)))
    rows, weight = (jax.ShapeDtypeStruct((chunk, len(rows_K)), a.dtype) for a in (rows_K, weight_K))
    index, weight = jax.eval_shape(program.plan, keys, jax.ShapeDtypeStruct((), jnp.uint32), rows, weight)
    pool_shape = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), whole)
    state = jax.eval_shape(program.init, keys, stream.bare(pool, np.arange(1)))
    return state, pool_shape, index, weight


def _cost(run, shapes: tuple, pool: Pool, chunk: int, *, seconds: float, compile_seconds: float) -> Cost:
    state, _, index, _ = shapes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"])) // chunk
    memory, needed = run.memory_analysis(), stream.num_bytes(pool)
    if memory is not None:
        needed = max(needed, memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes)
    return Cost(int(needed), seconds, compile_seconds, index.shape[1], parameters)


def best_chunk(*, learner: Learner, pool: Pool, rows_K, weight_K, models: int, memory_bytes: int, largest: int = 64, log=print) -> tuple[int, Cost]:
    """The chunk of 1, 2, 4, ... <= min(models, largest) with the fewest seconds a step and model; larger chunks must win by 3%.

    Stops at the first chunk that does not fit in `memory_bytes` or is 1.5 times slower than the best so far.
    """
    best: tuple[int, Cost] | None = None
    chunk = 1
    while chunk <= min(models, largest):
        found = measured(learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K, chunk=chunk)
        log(f"chunk {chunk}: {found.seconds * 1e3:.3g} ms a step and model, {found.bytes / 1e6:.3g} MB")
        if best is not None and found.bytes > memory_bytes:
            break
        if best is None or found.seconds < 0.97 * best[1].seconds:
            best = (chunk, found)
        elif found.seconds > 1.5 * best[1].seconds:
            break
        chunk *= 2
    return best


def memory_bytes() -> int:
    """Half of the memory of the first device: its own limit where the backend tells, else of this machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] // 2
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024 // 2
