"""Predicts the cost of a fleet before training: its memory, its time and the fastest program.

Memory comes from the compiler. The fastest chunk and form ('auto') are measured on the device.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.training import memory, mesh, programs, stream
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
        cpu_seconds: the processor time of this process per step and model; NaN if not measured.
    """

    bytes: int
    seconds: float
    compile_seconds: float
    steps: int
    parameters: int
    shared: int = 0
    cpu_seconds: float = float("nan")


class Candidate(NamedTuple):
    """Holds a program that was timed: its form, its chunk and their cost."""

    form: str
    chunk: int
    cost: Cost


class Fastest(NamedTuple):
    """Holds the fastest program, and all candidates that were timed."""

    form: str
    chunk: int
    cost: Cost
    timed: tuple[Candidate, ...]


WHOLE = 2**62  # As pool_bytes: a pool of any size stays on the device.


def expected(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    pool_bytes: int = WHOLE,
    program: programs.Programs | None = None,
    device=None,
) -> Cost:
    """Returns the cost of an epoch as the compiler predicts it, without running the epoch.

    If the pool is larger than `pool_bytes` it is streamed, and the cost is that of a part of an
    epoch.

    Args:
        learner: the learning rule.
        pool: all examples.
        rows_K: the rows of one model.
        weight_K: the weights of these rows.
        chunk: the number of models that train together.
        pool_bytes: a pool larger than this is streamed.
        program: the programs with which the models will be trained on `device`. They are compiled
            once: training then runs what was compiled here, with or without a cache on disk.
        device: the device, or a group (training/mesh.py); None for the first one.
    """
    return compiled(
        learner=learner,
        pool=pool,
        rows_K=rows_K,
        weight_K=weight_K,
        chunk=chunk,
        pool_bytes=pool_bytes,
        program=program or programs.make(learner=learner, chunk=chunk, devices=mesh.over(device)),
        device=device or jax.local_devices()[0],
    ).cost


class Compiled(NamedTuple):
    """Holds a compiled program, its cost and the steps that it runs."""

    cost: Cost
    run: Any
    steps: int


def compiled(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    pool_bytes: int,
    program: programs.Programs,
    device,
    platform: str | None = None,
) -> Compiled:
    """Compiles an epoch of `program`, or a part of one, for a device, which need not be there.

    Args:
        learner, pool, rows_K, weight_K, chunk, pool_bytes, program, device: see `expected`.
        platform: what JAX calls the platform of a device that is not there; None for one that is.
    """
    shapes, steps = _shapes(learner, pool, rows_K, weight_K, chunk, pool_bytes, program)
    start = time.perf_counter()
    placed = _placed(shapes, device)
    if platform is None:
        lowered = program.run.lower(*placed)
    else:
        lowered = program.run.trace(*placed).lower(lowering_platforms=(platform,))
    run = lowered.compile()
    price = _cost(
        run,
        shapes,
        chunk,
        steps=steps,
        streamed=stream.num_bytes(pool) > pool_bytes,
        compile_seconds=time.perf_counter() - start,
    )
    return Compiled(price, run, shapes[2].shape[1])


def least(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    pool_bytes: int = WHOLE,
    device=None,
) -> Cost:
    """Returns a lower bound of the cost, from shapes only: the states, the plan and the examples.

    Nothing is compiled or allocated. On a group of devices it is that of each of them.
    """
    shapes, steps = _shapes(learner, pool, rows_K, weight_K, chunk, pool_bytes)
    shared = 0 if stream.num_bytes(pool) > pool_bytes else _size(shapes[1])
    state, *rest = shapes
    needed = _size(rest) + _size(_on_each(state, device))
    return Cost(needed, float("nan"), 0.0, steps, _parameters(state, chunk), shared)


def measured(
    *,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    form: str = "",
    probe_steps: int = 4,
    pool_bytes: int = WHOLE,
    memory_bytes: int | None = None,
    known: set[str] | None = None,
    lanes: int = 1,
    choice=None,
    device=None,
) -> Cost | None:
    """Measures the cost of `chunk` models on the first device; the models are not kept.

    Compiles a program of `probe_steps` steps and runs it for at least 0.3 s.

    Args:
        learner: the learning rule.
        pool: all examples.
        rows_K: the rows of one model.
        weight_K: the weights of these rows.
        chunk: the number of models that train together.
        form: one of programs.FORMS; '' for that of the platform.
        probe_steps: the number of steps.
        pool_bytes: a pool larger than this is streamed.
        memory_bytes: a program that needs more by the compiler's account is not run, and its
            seconds are NaN.
        known: digests of programs that were measured before; that of this program is added.
        lanes: how many chunks train at the same time. The seconds are those in which one model of
            all lanes advances by a step.
        choice: the programs of the layers, for the form 'layers'.
        device: a group of devices (training/mesh.py) that trains; None for the first device.

    Returns:
        The cost; None if the program was measured before.
    """

    def put(tree):
        return jax.device_put(tree) if device is None else mesh.put(tree, device)

    program = programs.make(
        learner=learner, chunk=chunk, form=form, choice=choice, devices=mesh.over(device)
    )
    keys = put(programs.model_keys(seed=0, models=np.zeros(chunk)))
    rows = (np.broadcast_to(a, (chunk, len(rows_K))) for a in (rows_K, weight_K))
    index, weight = program.plan(keys, np.uint32(1), *rows)
    steps = index.shape[1]
    index, weight = index[:, :probe_steps], weight[:, :probe_steps]
    used, local = np.unique(np.asarray(index), return_inverse=True)
    index = put(local.reshape(index.shape).astype(np.int32))
    part = put(stream.bare(pool, used))
    state = program.init(keys, stream.bare(pool, np.arange(1)))
    start = time.perf_counter()
    lowered = program.run.lower(state, part, index, weight)
    if known is not None:
        digest = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        if digest in known:
            return None
        known.add(digest)
    run = lowered.compile()
    compile_seconds = time.perf_counter() - start
    shapes = (
        state,
        part,
        jax.ShapeDtypeStruct((chunk, steps, *index.shape[2:]), jnp.int32),
        weight,
    )
    cost = _cost(run, shapes, chunk, steps=steps, streamed=True, compile_seconds=compile_seconds)
    whole = min(stream.num_bytes(pool), pool_bytes)
    cost = cost._replace(
        bytes=cost.bytes - _size(part) + whole, shared=whole if whole <= pool_bytes else 0
    )
    if memory_bytes is not None and cost.bytes > memory_bytes:
        return cost

    def step(state):
        return memory.wait(run(state, part, index, weight))[0]

    with concurrent.futures.ThreadPoolExecutor(lanes) as threads:
        more = [program.init(keys, stream.bare(pool, np.arange(1))) for _ in range(lanes - 1)]
        states = [step(each) for each in (state, *more)]
        every = threads.map if lanes > 1 else map
        start, used, repeats = time.perf_counter(), time.process_time(), 0
        while repeats < 3 or (time.perf_counter() - start < 0.3 and repeats < 50):
            states = list(every(step, states))
            repeats += 1
        done = repeats * index.shape[1] * chunk * lanes
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
    return cost._replace(seconds=seconds / done, cpu_seconds=cpu / done)


def _shapes(
    learner: Learner,
    pool: Pool,
    rows_K,
    weight_K,
    chunk: int,
    pool_bytes: int = WHOLE,
    program: programs.Programs | None = None,
) -> tuple[tuple, int]:
    """Returns (shapes of the arguments of `run`, steps per epoch) for a chunk of models.

    The shapes are those of an epoch, or of a part of it if the pool is streamed.
    """
    program = program or programs.make(learner=learner, chunk=chunk)
    whole = stream.bare(pool)
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


def _placed(shapes, device):
    """Returns the shapes as those of arrays on a device, which compile to the program of a run.

    Arrays have the types of the device (float32 for float64) and say where they are; a program that
    is compiled for shapes without a place is another one to every cache.
    """

    def placed(a, place):
        dtype = jax.dtypes.canonicalize_dtype(a.dtype, allow_extended_dtype=True)
        weak = getattr(a, "weak_type", False)
        return jax.ShapeDtypeStruct(a.shape, dtype, sharding=place, weak_type=weak)

    state, *rest = shapes
    state = jax.tree.map(lambda a: placed(a, mesh.state_sharding(device, a)), state)
    return state, *jax.tree.map(lambda a: placed(a, mesh.sharding(device)), rest)


def _on_each(state, device):
    """Returns the shapes of the part of a state that every device of a group keeps."""
    if not isinstance(device, mesh.Group):
        return state
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            mesh.state_sharding(device, a).shard_shape(a.shape), a.dtype
        ),
        state,
    )


def _cost(
    run,
    shapes: tuple,
    chunk: int,
    *,
    steps: int,
    streamed: bool,
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
        float("nan"),
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


def ladder(models: int, largest: int = 64) -> tuple[int, ...]:
    """Returns the chunks that are worth a measurement: 1, 2, 4, ... <= min(models, largest).

    >>> ladder(10)
    (1, 2, 4, 8)
    """
    return tuple(2**k for k in range(max(1, min(models, largest)).bit_length()))


def fastest(
    *,
    learner: Learner,
    pool: Pool,
    rows_K,
    weight_K,
    forms: Sequence[str],
    chunks: Sequence[int],
    memory_bytes: int,
    pool_bytes: int = WHOLE,
    log=print,
    choice=None,
    device=None,
) -> Fastest:
    """Measures candidates and returns the fastest: that with the fewest seconds per step and model.

    A later candidate must win by 3%. The chunks of a form are tried in their order, until one does
    not fit in `memory_bytes`, runs out of memory, or is 1.5 times slower than the best one so far.
    Forms that compile to a program that was measured already (without convolutions, or of a single
    model) are not measured again. Until a candidate has run, one that exceeds `memory_bytes` by the
    compiler's account is run nevertheless.

    Args:
        learner, pool, rows_K, weight_K, pool_bytes: see `measured`.
        forms: some of programs.FORMS; '' is that of the platform.
        chunks: numbers of models, the smallest first.
        memory_bytes: the memory that a chunk may use.
        log: is told each measurement.
        choice: the programs of the layers, for the form 'layers'.
        device: see `measured`.

    Raises:
        Exception: the error of the first candidate, if all ran out of memory.
    """
    best: Candidate | None = None
    timed: list[Candidate] = []
    failure: Exception | None = None
    known: set[str] = set()
    common = dict(
        learner=learner, pool=pool, rows_K=rows_K, weight_K=weight_K, pool_bytes=pool_bytes
    )
    common |= dict(device=device)
    for form in forms:
        for chunk in chunks:
            name = f"chunk {chunk}" + (f", {form}" if len(forms) > 1 else "")
            if best is not None and least(**common, chunk=chunk).bytes > memory_bytes:
                break
            most = None if best is None else memory_bytes
            try:
                cost = measured(
                    **common,
                    chunk=chunk,
                    form=form,
                    memory_bytes=most,
                    known=known,
                    choice=choice if form == "layers" else None,
                )
            except Exception as error:
                if not memory.ran_out(error):
                    raise
                log(f"{name}: out of memory")
                failure = failure or error
                break
            if cost is None:
                continue
            if math.isnan(cost.seconds):
                log(f"{name}: needs {cost.bytes / 1e6:.3g} MB, more than there is; not tried")
                break
            log(f"{name}: {cost.seconds * 1e3:.3g} ms a step and model, {cost.bytes / 1e6:.3g} MB")
            timed.append(Candidate(form, chunk, cost))
            if best is not None and cost.bytes > memory_bytes:
                break
            if best is None or cost.seconds < 0.97 * best.cost.seconds:
                best = timed[-1]
            elif cost.seconds > 1.5 * best.cost.seconds:
                break
    if best is None:
        raise failure
    return Fastest(best.form, best.chunk, best.cost, tuple(timed))
