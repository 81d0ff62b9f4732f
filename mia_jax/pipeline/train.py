"""TRAIN: trains the models that are not on disk yet, in chunks that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from mia_jax.configuration.settings import RunSettings
from mia_jax.pipeline.plan import FleetPlan
from mia_jax.privacy import canary_scores
from mia_jax.query import interactive, snapshots
from mia_jax.runtime import files, jobs, precision
from mia_jax.runtime.progress import duration, size
from mia_jax.runtime.store import Store, Trained
from mia_jax.training import checkpoint, cost, failures, fleet, memory, tracking
from mia_jax.training.devices import cores, default_lanes
from mia_jax.types import Design

AUTO = ("auto", 0)  # run.chunk: measure the fastest
VALIDATION = ("none", "nonmembers", "members", "population")


def nothing() -> None:
    """Does nothing: the default of `begin` and `pause`."""


def train(
    plan: FleetPlan,
    *,
    store: Store,
    run: RunSettings,
    models: Sequence[int],
    task: tuple[int, int] | None = None,
    pause: Callable = nothing,
    begin: Callable = nothing,
    log: tracking.Log | None = None,
) -> None:
    """Trains those of `models` that are not on disk.

    In every stage `begin()` is called before the first file is written; it is not called if there
    is nothing to do.

    Args:
      plan: what is trained.
      store: the workdir.
      run: the settings of chunk, devices, memory and retries.
      models: the models of this run that have not failed in an earlier stage.
      task: (i, n) trains the share of task i of n: whole chunks, dealt out in turn.
      pause: called at safe places; it may raise to end the run.
      begin: claims the workdir.
      log: log(epoch, values) of trackers; None for no trackers.
    """
    if task is not None and run.chunk in AUTO:
        raise ValueError(
            f"task={task[0]}/{task[1]} needs a number in run.chunk: tasks that measure the fastest "
            "chunk would not share one fleet."
        )
    block = 1 if task is None else int(run.chunk)
    share = jobs.share(list(models), task, block=block)
    whose, trained = "of this task " * (task is not None), False
    tracked: tracking.FleetMetrics | None = None
    while True:  # again for every further attempt at the models that failed
        failed = failures.known(store.train.folder, share)
        attempts = failures.attempts(failed, run.retries)
        finished = set(checkpoint.finished(store.train.folder, share))
        todo = sorted(set(share) - finished - (set(failed) - set(attempts)))
        if not todo:
            break
        trained = True
        begin()
        for m in attempts:
            jobs.say(
                f"train: model {m} failed and is trained again with another key "
                f"(attempt {attempts[m] + 1})."
            )
            failures.forget(store, m)
        if log is not None and tracked is None:
            earlier = store.training_metrics
            known = files.read_jsonl(earlier) if earlier.exists() else []
            tracked = tracking.FleetMetrics(log, share, known)
        with precision.products(plan.precision):
            chunk, lanes = chunk_and_lanes(plan, store=store, run=run, models=len(todo))
        with precision.products(plan.precision), jobs.deferred(pause):
            fleet.train(
                learner=plan.learner,
                pool=plan.pool,
                rows_MK=plan.rows_MK,
                weight_MK=plan.weight_MK,
                validation=plan.validation,
                seed=plan.seed,
                models=todo,
                folder=store.train.folder,
                run=store.run,
                chunk=chunk,
                devices=devices(run),
                lanes=lanes,
                checkpoint_every=run.checkpoint_every,
                pool_bytes=run.pool_bytes,
                on_epoch=hooks(plan, store=store),
                metrics_file=store.training_metrics,
                track=None if tracked is None else tracked.record,
                pause=pause,
                attempts=attempts,
            )
    if tracked is not None:
        tracked.finish()
    if not trained and len(share) > len(failed):
        jobs.say(f"train: all {len(share) - len(failed)} models {whose}are on disk.")
    if failed:
        reasons = "; ".join(failures.sentences(failed)[:3]) + "; ..." * (len(failed) > 3)
        jobs.say(
            f"warning: {len(failed)} of {len(share)} models {whose}failed and the run goes on "
            f"without them: {reasons}. run.retries=1 trains each again with another key; the usual "
            "remedy is a lower learner.learning_rate (with another workdir)."
        )


def devices(run: RunSettings) -> list:
    """Returns the local devices that the run may use.

    There are run.devices of them, or all if that is 0.

    Raises:
      ValueError: the machine has fewer devices.
    """
    available = jax.local_devices()
    if run.devices > len(available):
        raise ValueError(
            f"run.devices={run.devices} but this machine has {len(available)} "
            f"({available[0].platform})."
        )
    return available[: run.devices or len(available)]


def hooks(plan: FleetPlan, *, store: Store) -> list[Callable]:
    """Returns the functions that are called after epochs and keep snapshots or canary scores."""
    kept = []
    if plan.snapshots:
        released = plan.learner.released
        kept.append(snapshots.saver(store.train.folder, plan.snapshots, released, run=store.run))
    if plan.watched_rows is not None:

        def write(name: str, m: int, value_AN: np.ndarray) -> None:
            path = interactive.signal_file(store.answers.folder, name, m)
            files.write_npy(path, value_AN, interactive.place(store.run, name, m))

        kept.append(canary_scores.saver(plan.watched_rows, len(plan.pool.y), write))
    return kept


def chunk_and_lanes(
    plan: FleetPlan, *, store: Store, run: RunSettings, models: int
) -> tuple[int, int]:
    """Returns (chunk, lanes): how many models train together, and how many chunks at a time.

    The choice is printed. train/plan.json keeps the chunk (measured once if it is 'auto'), the
    steps, the parameters and the memory. Lanes change no result and are not kept: there are as many
    as configured, or by default as many as the cores can serve and the memory allows.

    Raises:
      OutOfMemory: the plan does not fit; nothing has been trained yet.
    """
    here, limit = devices(run), memory_limit(run)
    count = len(here)
    common = dict(learner=plan.learner, pool=plan.pool, rows_K=plan.rows_MK[0])
    common |= dict(weight_K=plan.weight_MK[0], pool_bytes=run.pool_bytes)

    def lanes_of(chunk: int) -> int:
        return min(run.lanes or default_lanes(here), -(-models // chunk))

    known = read_plan(store.train, run=store.run)
    if known is None or (run.chunk not in AUTO and run.chunk != known["chunk"]):
        if run.chunk in AUTO:
            chunk_cost = cost.least(**common, chunk=1)
            check_memory(run, chunk_cost, chunk=1, lanes=run.lanes or 1, limit=limit)
            jobs.say("measuring the fastest chunk (kept in train/plan.json) ...")
            share = (1 if here[0].platform != "cpu" else count) * lanes_of(1)
            bytes_each = limit.bytes // share
            chunk, chunk_cost = cost.best_chunk(
                **common, models=models, memory_bytes=bytes_each, log=jobs.say
            )
        else:
            chunk = int(run.chunk)
            lanes = lanes_of(chunk) if run.lanes else 1
            chunk_cost = cost.least(**common, chunk=chunk)
            check_memory(run, chunk_cost, chunk=chunk, lanes=lanes, limit=limit)
            chunk_cost = cost.expected(**common, chunk=chunk)
        known = dict(
            chunk=chunk,
            steps=chunk_cost.steps,
            parameters=chunk_cost.parameters,
            bytes=chunk_cost.bytes,
        )
        known |= dict(
            seconds=chunk_cost.seconds if run.chunk in AUTO else None, shared=chunk_cost.shared
        )
        files.write_json(store.train.plan, known | dict(run=store.run), seal=True)
    chunk_cost = cost.Cost(
        known["bytes"], 0.0, 0.0, known["steps"], known["parameters"], known.get("shared", 0)
    )
    lanes = lanes_of(known["chunk"])
    if not run.lanes:
        fitting = (
            n for n in range(1, lanes + 1) if needed_bytes(run, chunk_cost, n) <= limit.bytes
        )
        lanes = max(fitting, default=1)
    check_memory(run, chunk_cost, chunk=known["chunk"], lanes=lanes, limit=limit)
    each = needed_bytes(run, chunk_cost, lanes) / (count if here[0].platform == "cpu" else 1)
    epochs = plan.learner.epochs
    jobs.say(
        f"plan: {models} model{'s' * (models > 1)} to train x {epochs} epochs x {known['steps']} "
        f"steps, {known['parameters']:,} parameters each; chunk {known['chunk']}, {lanes} at a "
        f"time on {platform(here)}, about {size(each)} on each, in "
        f"{precision.described(plan.precision, here[0].platform)}"
    )
    if known["seconds"]:
        seconds = known["seconds"] * known["steps"] * epochs * models / count
        jobs.say(
            f"about {duration(seconds)} by the measured step (an upper bound if models stop early)"
        )
    return known["chunk"], lanes


def platform(here: Sequence) -> str:
    """Returns the devices as text, such as '4 devices (gpu, NVIDIA H100)'."""
    first, count = here[0], len(here)
    kind = f"{cores()} core{'s' * (cores() > 1)}" if first.platform == "cpu" else first.device_kind
    return f"{count} device{'s' * (count > 1)} ({first.platform}, {kind})"


def memory_limit(run: RunSettings) -> memory.Limit:
    """Returns the memory that training may use: run.memory_bytes, or what is available."""
    if run.memory_bytes:
        return memory.Limit(run.memory_bytes, "config.run.memory_bytes")
    return memory.available(devices(run)[0])


def needed_bytes(run: RunSettings, chunk_cost: cost.Cost, lanes: int) -> int:
    """Returns the bytes that a plan needs of one memory.

    Chunks on the same device share its examples. Devices that are parts of a CPU share their
    memory.
    """
    here = devices(run)
    share = len(here) if here[0].platform == "cpu" else 1
    return share * (chunk_cost.bytes + (lanes - 1) * (chunk_cost.bytes - chunk_cost.shared))


def check_memory(
    run: RunSettings, chunk_cost: cost.Cost, *, chunk: int, lanes: int, limit: memory.Limit
) -> None:
    """Raises OutOfMemory if a plan needs more memory than there is, before anything is trained."""
    needed = needed_bytes(run, chunk_cost, lanes)
    if needed <= limit.bytes:
        return
    model = size((chunk_cost.bytes - chunk_cost.shared) / chunk)
    examples = size(chunk_cost.shared or min(run.pool_bytes, chunk_cost.bytes))
    raise memory.OutOfMemory(
        f"the plan needs about {size(needed)} and {size(limit.bytes)} are left ({limit.source}): "
        f"chunk {chunk} x {lanes} chunks at a time x {model} per model of "
        f"{chunk_cost.parameters:,} parameters, and examples of {examples}. Lower run.chunk or "
        "run.lanes (how many chunks train at a time), or run.pool_bytes, the size from which "
        "examples are streamed; or take a smaller model. If this computation is mistaken, "
        "run.memory_bytes=... is taken for what there is."
    )


def read_plan(train: Trained, *, run: str) -> dict | None:
    """Returns the training plan of this run on disk; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = train.plan
    if not path.exists():
        return None
    needs = dict(chunk=int, steps=int, parameters=int, bytes=int, seconds=int | float | None)
    plan = files.read_json(path, needs=needs)
    if plan["chunk"] < 1:
        raise ValueError(files.damaged(path, ValueError(f"chunk is {plan['chunk']}")))
    if plan.get("run", run) != run:
        jobs.say(f"{path} belongs to another run; it is measured again.")
        return None
    return plan


def fleet_chunk(store: Store, run: RunSettings) -> int:
    """Returns the chunk with which the fleet was trained; run.chunk if there is no plan on disk."""
    plan = read_plan(store.train, run=store.run)
    if plan is not None:
        return plan["chunk"]
    return 1 if run.chunk in AUTO else int(run.chunk)


def validation_rows(kind: str, design: Design) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (rows_MV, weight_MV) of learner.validation, padded; None for 'none'.

    Args:
      kind: 'nonmembers' or 'members' (the evaluated rows of each model), 'population', or 'none'.
      design: who trains on what.

    Raises:
      ValueError: a model has no such row.
    """
    if kind == "none":
        return None
    chosen_MN = dict(
        nonmembers=design.evaluated_MN & ~design.member_MN,
        members=design.member_MN,
        population=np.broadcast_to(design.population_N, design.member_MN.shape),
    )[kind]
    count_M = chosen_MN.sum(1)
    if not count_M.all():
        raise ValueError(
            f"learner.validation={kind!r}: model {int(np.argmin(count_M))} has no such row under "
            f"the design {design.name!r}."
        )
    order_MV = np.argsort(~chosen_MN, axis=1, kind="stable")[:, : count_M.max()]
    weight_MV = np.arange(count_M.max())[None] < count_M[:, None]
    rows_MV = np.where(weight_MV, order_MV, order_MV[:, :1]).astype(np.int32)
    return rows_MV, weight_MV.astype(np.float32)
