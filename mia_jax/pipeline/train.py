"""TRAIN: trains the models that are not on disk yet, in chunks that fit the memory."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mia_jax.configuration.settings import RunSettings
from mia_jax.pipeline import execution
from mia_jax.pipeline.plan import FleetPlan
from mia_jax.privacy import canary_scores
from mia_jax.query import interactive, snapshots
from mia_jax.runtime import distributed, files, jobs, precision
from mia_jax.runtime.store import Store
from mia_jax.training import checkpoint, failures, fleet, memory, profiling, tracking
from mia_jax.types import Design

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
    block = 1
    if task is not None:
        block = task_block(plan, store=store, run=run, models=models, begin=begin)
    share = jobs.share(list(models), task, block=block)
    together = distributed.here().count
    if together > 1 and run.mesh is None:
        jobs.say(
            f"note: {together} processes train the same models, each all of them: run.mesh (with "
            "learner.shards) shares the batches of a model, tasks share the models of a fleet."
        )
    whose, trained, halved = "of this task " * (task is not None), False, False
    tracked: tracking.FleetMetrics | None = None
    traced = run.profile if distributed.is_writer() else ()
    profiler = profiling.Profiler(traced, store.profile)
    while True:  # again for every further attempt at the models that failed
        failed, finished = distributed.read(lambda: on_disk(store, share))
        attempts = failures.attempts(failed, run.retries)
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
            earlier = store.all_training_metrics()
            known = [record for path in earlier for record in files.read_jsonl(path)]
            tracked = tracking.FleetMetrics(log, share, known)
        with precision.products(plan.precision):
            planned = execution.planned(plan, store=store, run=run, models=len(todo))
        short = ""  # what an error says that ran out of the device's memory
        with precision.products(plan.precision), jobs.deferred(pause):
            try:
                train_models(
                    plan,
                    planned,
                    settings=run,
                    models=todo,
                    folder=store.train.folder,
                    pause=pause,
                    run=store.run,
                    on_epoch=hooks(plan, store=store),
                    metrics_file=store.training_metrics(task),
                    track=None if tracked is None else tracked.record,
                    attempts=attempts,
                    profiler=profiler,
                )
            except jax.errors.JaxRuntimeError as error:
                if not memory.ran_out(error):
                    raise
                # other processes did not run out
                known = planned.execution
                smallest = known.chunk == 1 and known.units < 2
                if halved or together > 1 or smallest:
                    raise execution.exhausted(planned, run=run, error=error) from error
                short = memory.first_line(error)
        if short:  # After the error is gone, so that its frames hold no arrays on the device.
            execution.halved(planned.execution, store=store, error=short)
            halved = True
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


def train_models(
    plan: FleetPlan,
    planned: execution.Planned,
    *,
    settings: RunSettings,
    models: Sequence[int],
    folder: pathlib.Path,
    pause: Callable,
    **options,
) -> None:
    """Trains models as it is planned.

    Args:
        plan: what is trained.
        planned: how; its programs may be compiled.
        settings: those of devices and memory.
        models: the numbers of the models.
        folder: where they are written.
        pause: called at safe places; it may raise to end the training.
        options: further arguments of `fleet.train`, of what a run records.
    """
    fleet.train(
        learner=plan.learner,
        pool=plan.pool,
        rows_MK=plan.rows_MK,
        weight_MK=plan.weight_MK,
        validation=plan.validation,
        seed=plan.seed,
        models=models,
        folder=folder,
        chunk=planned.execution.chunk,
        program=planned.program,
        devices=execution.groups(settings, shards=plan.learner.shards),
        lanes=planned.lanes,
        checkpoint_every=settings.checkpoint_every,
        checkpoint_minutes=settings.checkpoint_minutes,
        pool_bytes=settings.pool_bytes,
        pause=pause,
        **options,
    )


def on_disk(store: Store, models: Sequence[int]) -> tuple[dict[int, dict], set[int]]:
    """Returns ({model: record} of those that failed, those that are finished)."""
    folder = store.train.folder
    return failures.known(folder, models), set(checkpoint.finished(folder, models))


def task_block(
    plan: FleetPlan, *, store: Store, run: RunSettings, models: Sequence[int], begin: Callable
) -> int:
    """Returns how many models the tasks of a job array deal out together.

    If run.chunk is 'auto', each task that finds no plan measures one, and the plan of the first is
    that of all; nobody waits for a task that may not have started.
    """
    if run.chunk not in execution.AUTO:
        return int(run.chunk)
    known = execution.read_plan(store.train, run=store.run)
    if known is None:
        begin()
        with precision.products(plan.precision):
            planned = execution.planned(plan, store=store, run=run, models=len(models), first=False)
        known = planned.execution
    return known.block


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
