"""QUERY: measures every signal of every model, and writes user-supplied signals as they are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax.configuration.settings import RunSettings, TargetSettings
from mia_jax.pipeline.execution import devices, fleet_chunk
from mia_jax.pipeline.plan import Questions
from mia_jax.pipeline.train import nothing
from mia_jax.query import black_box, forward, interactive, snapshots
from mia_jax.runtime import files, jobs, precision
from mia_jax.runtime.store import Answers, Store
from mia_jax.training import checkpoint, failures
from mia_jax.types import Design, Model, Pool

REMEDY = (
    "Use another workdir, or delete the folder signal/ to ask again (and attack/, report/ with it)."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Holds the models that are asked, and the examples about which they are asked.

    Args:
      model: the network.
      pool: the examples.
      design: who trains on what.
      models: the models that were trained here and have not failed.
    """

    model: Model
    pool: Pool
    design: Design
    models: tuple[int, ...]


def query(
    asked: Asked,
    questions: Questions,
    *,
    store: Store,
    run: RunSettings,
    task: tuple[int, int] | None = None,
    pause: Callable = nothing,
    begin: Callable = nothing,
) -> dict[int, str]:
    """Asks the models for every signal that is not on disk.

    Args:
      asked: the models and the examples.
      questions: what the models are asked.
      store: the workdir.
      run: the settings of chunk and devices.
      task: (i, n) asks the share of task i of n: whole chunks, dealt out in turn.
      pause: called at safe places; it may raise to end the run.
      begin: claims the workdir.

    Returns:
      {model: what happened} of the models whose answers are not finite; they are recorded as
      failed.

    Raises:
      FileNotFoundError: a model is not trained.
      ValueError: no model gives finite answers, or the answers on disk belong to other questions.
    """
    models, train = list(asked.models), store.train.folder
    missing = sorted(set(models) - set(checkpoint.finished(train, models)))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(models)} models are not trained (the first is {missing[0]}); "
            "add the stage: stages_wanted=train,query,..."
        )
    chunk = run.query_chunk or fleet_chunk(store, run)
    models = jobs.share(models, task, block=chunk)
    if not models:
        return {}
    claim_signals(questions, store=store, begin=begin)
    bad: dict[int, str] = {}
    common = dict(
        model=asked.model,
        pool=asked.pool,
        views=questions.view_functions,
        models=models,
        chunk=chunk,
        batch_size=min(questions.batch_size, len(asked.pool.y)),
        devices=devices(run),
        pause=pause,
        on_bad=bad.setdefault,
        begin=begin,
        run=store.run,
    )
    folders = dict(models_folder=train, folder=store.answers.folder)
    forward.query(signals=questions.passes, **folders, **common)
    common["models"] = answering(models, bad, task)
    if questions.probes:
        probing_fields = common | dict(batch_size=questions.ask_batch_size, seed=questions.seed)
        with jobs.deferred(pause):
            interactive.query(
                signals=questions.probes,
                rows={name: questions.rows[name] for name in questions.probes},
                design=asked.design,
                available=max(set(asked.models) - set(bad)) + 1,
                **folders,
                **probing_fields,
            )
        common["models"] = answering(models, bad, task)
    if questions.trajectory:
        losses = {"loss": questions.signals["loss"]}
        snapshots.query(
            epochs=questions.snapshots,
            models=common["models"],
            ask=functools.partial(forward.query, signals=losses, **common),
            bad=bad,
            train_folder=train,
            folder=store.answers.folder,
            run=store.run,
            begin=begin,
        )
        common["models"] = answering(models, bad, task)
    if questions.asked_epochs:
        query_snapshots(questions, store=store, **common)
        answering(models, bad, task)
    for m, reason in sorted(bad.items()):
        jobs.say(f"query: model {m} has failed, it {reason}; the run goes on without it.")
        attempt = attempt_of(store, m)
        failures.record(train, m, stage="query", reason=reason, attempt=attempt)
    return bad


def answering(
    models: Sequence[int], bad: Mapping[int, str], task: tuple[int, int] | None
) -> list[int]:
    """Returns the models without those in `bad`.

    Args:
      models: the models that were asked.
      bad: {model: what happened} of the models whose answers are not finite.
      task: the task whose share `models` are; other tasks may have models that are left.

    Raises:
      ValueError: no model is left, of all.
    """
    left = [m for m in models if m not in bad]
    if not left and task is None:
        m = min(bad)
        raise ValueError(
            f"no model gives finite answers; {len(bad)} of {len(bad)} fail, the first is model {m}:"
            f" {bad[m]}. Leave that signal out, or train with a lower learner.learning_rate in "
            "another workdir."
        )
    return left


def attempt_of(store: Store, m: int) -> int:
    """Returns the number of the attempt that gave a finished model; 0 is the first."""
    return int(checkpoint.load_history(store.train.folder, m).get("summary/attempt", 0))


def query_snapshots(questions: Questions, *, store: Store, **common) -> None:
    """Asks the snapshots after each epoch the signals that the attacks of report.epochs read."""
    part = {name: questions.signals[name] for name in questions.repeated}
    repeated = dataclasses.replace(questions, signals=part)
    snapshot_fields = dict(epochs=questions.snapshots, models=common["models"], run=store.run)
    program_fields = {k: common[k] for k in ("model", "views", "batch_size", "chunk")}
    ask = forward.program(task=common["pool"].task, signals=part, **program_fields)
    complete = snapshots.complete(**snapshot_fields, train_folder=store.train.folder)
    for epoch, models_folder in complete.items():
        answers = store.after(epoch)
        _claim(repeated, folder=answers.folder, begin=common["begin"])
        forward.query(
            signals=part,
            models_folder=models_folder,
            folder=answers.folder,
            epoch=epoch,
            ask=ask,
            title=f"query after epoch {epoch}",
            **common,
        )


def save_supplied(
    signals: Mapping[str, np.ndarray], *, design: Design, store: Store, begin: Callable = nothing
) -> None:
    """Writes user-supplied signals [M,A,N,...] as the answers of the design's last models."""
    for name, value_MAN in signals.items():
        first = len(design.member_MN) - len(value_MAN)
        for i, value_AN in enumerate(value_MAN):
            path = interactive.signal_file(store.answers.folder, name, first + i)
            if not path.exists():
                begin()
                record = interactive.place(store.run, name, first + i)
                files.write_npy(path, value_AN, record)


def query_black_box(
    asked: Asked,
    questions: Questions,
    *,
    target: TargetSettings,
    store: Store,
    begin: Callable = nothing,
) -> None:
    """Asks the black box, the design's last model, the label-only signals, and logs it."""
    folder, m = store.answers.black_box, len(asked.design.member_MN) - 1
    if not files.claimed(folder):
        begin()
    remedy = "Use another workdir for another black box, or delete that folder to ask again."
    # the key of the claim has kept its first name, so that folders of older versions are continued
    files.claim(folder, dict(oracle=target.black_box), remedy=remedy)
    answer = black_box.answering(target.black_box, folder=folder)
    box = black_box.BlackBox(
        answer,
        num_classes=asked.pool.num_classes,
        log=store.answers.black_box_log,
        rate=target.rate,
        batch_size=target.batch_size,
        name=target.black_box,
    )
    net, train = asked.model, store.train.folder
    x = jax.ShapeDtypeStruct((1, *asked.pool.x.shape[1:]), asked.pool.x.dtype)
    template = jax.eval_shape(net.init, jax.random.key(0), x)
    trained_here = len(asked.design.member_MN) - 1

    def shadows(count: int, index_B: np.ndarray):
        chosen = interactive.attacker_models(asked.design, m, count, trained_here)
        variables = checkpoint.load_models(train, chosen.tolist(), template, run=store.run)
        return interactive.shadows_of(net, variables, asked.design.member_MN[chosen][:, index_B])

    try:
        black_box.query(
            black_box=box,
            m=m,
            pool=asked.pool,
            signals=questions.signals,
            views=questions.view_functions,
            rows={name: rows_MN[m] for name, rows_MN in questions.rows.items()},
            shadows=shadows,
            seed=questions.seed,
            batch_size=questions.ask_batch_size,
            folder=store.answers.folder,
            begin=begin,
            run=store.run,
        )
    finally:
        jobs.say(
            f"query: the black box was asked {box.asked:,} times in this run; {box.known:,} "
            f"answers are in {store.answers.black_box_log}"
        )


def claim_signals(questions: Questions, *, store: Store, begin: Callable = nothing) -> None:
    """Claims the folders of the answers.

    Raises:
      ValueError: the answers on disk belong to other questions.
    """
    _claim(questions, folder=store.answers.folder, begin=begin)


def _claim(questions: Questions, *, folder, begin: Callable) -> None:
    for part, config in claims(questions, folder=folder):
        if not files.claimed(part):
            begin()
        files.claim(part, config, remedy=REMEDY)


def claims(questions: Questions, *, folder) -> list[tuple]:
    """Returns pairs (folder, what determines its answers).

    The first pair is that of all signals; each interactive signal has one of its own.
    """
    common = dict(views=questions.views, batch_size=questions.batch_size)
    if questions.precision != precision.DEFAULT:  # older versions recorded none
        common |= dict(precision=questions.precision)
    asking = dict(ask_batch_size=questions.ask_batch_size)
    return [(folder, common), *((Answers(folder).of(name), asking) for name in questions.probes)]
