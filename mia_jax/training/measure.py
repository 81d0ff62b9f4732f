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


def cost(*, learner: Learner, pool: Pool, rows_K: np.ndarray, weight_K: np.ndarray, chunk: int, probe_steps: int = 4, timed: bool = True) -> Cost:
    """Compiles `probe_steps` steps of `chunk` models on one device and runs them (not with timed=False): nothing is kept."""
    program = programs.make(learner=learner)
    keys = programs.model_keys(seed=0, models=np.zeros(chunk))
    rows, weight = np.broadcast_to(rows_K, (chunk, len(rows_K))), np.broadcast_to(weight_K, (chunk, len(rows_K)))
    index, weight = program.plan(keys, jnp.uint32(1), rows, weight)
    steps = index.shape[1]
    used = np.unique(np.asarray(index[:, :probe_steps]))
    index = jnp.asarray(np.searchsorted(used, np.asarray(index[:, :probe_steps])).astype(np.int32))
    part = stream.bare(pool, used)
    state = program.init(keys, stream.bare(pool, np.arange(1)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"])) // chunk
    start = time.perf_counter()
    run = program.run.lower(state, part, index, weight[:, :probe_steps]).compile()
    compiled = time.perf_counter() - start
    memory = run.memory_analysis()
    needed = stream.num_bytes(pool)
    if memory is not None:
        needed += memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    if not timed:
        return Cost(int(needed), float("nan"), compiled, steps, parameters)
    state, _ = jax.block_until_ready(run(state, part, index, weight[:, :probe_steps]))
    start, repeats = time.perf_counter(), 0
    while repeats < 3 or (time.perf_counter() - start < 0.3 and repeats < 50):
        state, _ = jax.block_until_ready(run(state, part, index, weight[:, :probe_steps]))
        repeats += 1
    seconds = (time.perf_counter() - start) / (repeats * index.shape[1] * chunk)
    return Cost(int(needed), seconds, compiled, steps, parameters)


def best_chunk(*, learner: Learner, pool: Pool, rows_K, weight_K, models: int, memory_bytes: int, largest: int = 64, log=print) -> tuple[int, Cost]:
    """The chunk of 1, 2, 4, ... <= min(models, largest) with the fewest seconds a step and model; larger chunks must win by 3%.

    Stops at the first chunk that does not fit in `memory_bytes` or is 1.5 times slower than the best so far.
    """
    best: tuple[int, Cost] | None = None
    chunk = 1
    while chunk <= min(models, largest):
        found = cost(learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K, chunk=chunk)
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
