"""RUN: runs the requested stages of every seed of a config, in one workdir per seed."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax

from mia_jax import checks, trackers
from mia_jax.configuration.settings import Settings
from mia_jax.pipeline import build, execution, report
from mia_jax.pipeline.attack import attack
from mia_jax.pipeline.experiment import Experiment
from mia_jax.pipeline.place import Place
from mia_jax.pipeline.query import query, query_black_box, save_supplied
from mia_jax.pipeline.train import train
from mia_jax.runtime import (
    accelerators,
    distributed,
    files,
    jobs,
    machine,
    precision,
    provenance,
    remote,
)
from mia_jax.runtime.progress import size
from mia_jax.runtime.store import Store, seed_folder
from mia_jax.training import memory, tracking

Path = pathlib.Path
STAGES = ("train", "query", "attack", "report")


def run(
    config,
    *,
    workdir_path: str | Path,
    stages_wanted: Sequence[str] = STAGES,
    extend: bool = False,
    arrays: Mapping | None = None,
    notes: Sequence[str] | None = None,
    task: tuple[int, int] | None = None,
    pause: Callable = lambda: None,
    tracker=None,
) -> dict:
    """Runs the requested stages of every seed of the config.

    Finished stages are skipped. If there are several seeds, each has its own workdir, seed-<n>.

    Args:
      config: the result of configuration.complete, or of configuration.scores to audit
          user-supplied
        arrays.
      workdir_path: the folder of all files.
      stages_wanted: some of STAGES.
      extend: allows the fleet to grow; attacks and reports of the smaller fleet are set aside.
      arrays: user-supplied arrays in memory.
      notes: sentences about how these arrays were made from the user's models; None: they were
        not.
      task: (i, n) does the share of task i of n of one stage, the first of `stages_wanted`: models
        to train or to query, or attacks. A stage is shared when the one before it is done.
      pause: called at safe places; it may raise to end the run (mia_jax.runtime.jobs). Of several
        processes (runtime/distributed.py) all train, and the first one does the rest.
      tracker: what gets the training metrics besides metrics.jsonl (mia_jax.trackers.make).

    Returns:
      The report; that over all seeds if there are several.

    Raises:
      ValueError: the workdir belongs to another config; the message names the keys.
    """
    check_stage_names(stages_wanted)
    root, config = files.folder_at(workdir_path, argument="workdir_path"), plain(config)
    if not distributed.is_writer():
        root = files.Unwritten(root)
    seeds = checked_seeds(config.pop("seed"))
    reports, failed, numerics = {}, {}, precision.settings()
    if numerics["x64"]:
        jobs.say(
            "jax_enable_x64 is on: this run computes in 32 bits all the same, so that its results "
            "are those of a run without it."
        )
    if ambient := numerics["matmul_precision"]:
        jobs.say(
            f"jax_default_matmul_precision is {ambient}: this run computes its products at "
            "learner.precision and query.precision all the same."
        )
    with precision.single():
        for seed in seeds:
            folder = root if len(seeds) == 1 else seed_folder(root, seed)
            try:
                experiment = built(config, seed=seed, arrays=arrays, notes=notes)
                if isinstance(root, remote.Mirrored) and experiment.settings.target.black_box:
                    raise ValueError(
                        "target.black_box needs a local workdir, because each of its answers is "
                        "kept at once, which an object store cannot: use a folder, and copy it to "
                        "the store afterwards."
                    )
                store = Store(folder, experiment.run)
                if task is None:
                    trains = experiment.learner is not None
                    check_stages(store, stages_wanted=stages_wanted, trains=trains)
                reports[seed] = run_one(
                    experiment,
                    store=store,
                    stages_wanted=stages_wanted,
                    extend=extend,
                    task=task,
                    pause=pause,
                    numerics=numerics,
                    called=arrays is not None,
                    tracker=tracker,
                )
            except jobs.Paused:
                raise
            except Exception as error:
                if len(seeds) == 1 or distributed.here().count > 1:
                    raise  # other processes would wait for this one
                failed[seed] = error
                jobs.say(f"seed {seed} failed: {jobs.failure(error)}")
        if failed:
            raise_failed(failed, seeds=len(seeds))
        if not distributed.is_writer():
            return {}
        if len(seeds) > 1 and task is None and "report" in stages_wanted:
            return report.report_seeds(reports, report_files=Store(root).report)
    return reports[seeds[0]]


def built(
    config: Mapping, *, seed: int, arrays: Mapping | None, notes: Sequence[str] | None = None
) -> Experiment:
    """Returns the experiment of one seed of a plain config."""
    remedy = "Use fewer examples, or a smaller model."
    with in_memory("preparing the data, the design and the model", remedy):
        if "scores" in config:
            return build.build_supplied(config, seed=seed, arrays=arrays, notes=notes)
        return build.build(config, seed=seed)


def raise_failed(failed: Mapping[int, Exception], *, seeds: int) -> None:
    """Raises the error of a run of several seeds of which some failed.

    It is the error that all seeds share, or a ValueError that names each failed seed.
    """
    first = next(iter(failed.values()))
    if len(failed) == seeds and len({str(error) for error in failed.values()}) == 1:
        raise first
    reasons = "; ".join(
        f"seed {seed}: {' '.join(str(error).split()) or type(error).__name__}"
        for seed, error in failed.items()
    )
    raise ValueError(
        f"{len(failed)} of {seeds} seeds failed, the others are finished, and there is no report "
        f"over all seeds: {reasons}"
    ) from first


def check_stage_names(stages_wanted: Sequence[str]) -> None:
    """Raises ValueError unless there are stages and all of them exist."""
    if not stages_wanted:
        raise ValueError(f"stages_wanted= is empty; name some of {', '.join(STAGES)}.")
    for stage in stages_wanted:
        checks.one_of(STAGES, stage=stage)


def checked_seeds(given) -> tuple[int, ...]:
    """Returns the seeds of a config as a tuple.

    Raises:
      ValueError: they are not different whole numbers >= 0, or there is none.
    """
    seeds = tuple(given) if isinstance(given, tuple | list) else (given,)
    if (
        not seeds
        or len(set(seeds)) < len(seeds)
        or any(not isinstance(s, int) or s < 0 for s in seeds)
    ):
        raise ValueError(f"seed={seeds} must be different whole numbers >= 0, at least one.")
    return seeds


def check_stages(store: Store, *, stages_wanted: Sequence[str], trains: bool) -> None:
    """Raises ValueError if the workdir holds nothing of an earlier stage that is needed.

    The workdir is not changed.

    Args:
      store: the workdir.
      stages_wanted: the requested stages.
      trains: whether there are models to train and to query.
    """
    first = min(STAGES.index(stage) for stage in stages_wanted)
    needed = [stage for stage in STAGES[:first] if trains or stage == "attack"]
    missing = [stage for stage in needed if not store.holds(stage)]
    if missing:
        every = ",".join(dict.fromkeys([*missing, *stages_wanted]))
        raise ValueError(
            f"the stage {STAGES[first]} reads what earlier stages made, and {store.root} holds "
            f"nothing of {', '.join(missing)}: ask for all of them, stages_wanted={every}."
        )


def plain(config) -> dict:
    """Returns the config as nested dicts of plain values."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def run_one(
    experiment: Experiment,
    *,
    store: Store,
    stages_wanted: Sequence[str],
    extend: bool,
    task: tuple[int, int] | None,
    pause: Callable,
    numerics: Mapping,
    called: bool = False,
    tracker=None,
) -> dict:
    """Runs the requested stages of one seed in one workdir.

    Args:
      experiment: what is run.
      store: the workdir.
      stages_wanted, extend, task, pause: see `run`.
      numerics: the result of precision.settings, for run.json.
      called: whether a program called (mia_jax.audit). Then the progress of attacks and report is
        shown on a terminal only, and remedies name arguments, not flags.
      tracker: see `run`.

    Returns:
      The report; {} if it was not requested.
    """
    shared = next((stage for stage in STAGES if stage in stages_wanted), "")
    refuse_sharing(experiment, task=task, stage=shared, extend=extend)
    alone = distributed.here().count == 1
    if not distributed.is_writer():
        tracker = None
    tracked = trackers.make(tracker, place=lambda name: store.tracker(name, task))
    files.sweep(store.root)
    numerics = dict(numerics) | dict(precision=experiment.precisions)
    log = provenance.RunLog(store.log(task), seed=experiment.seed, numerics=numerics)
    place = Place(experiment, store=store, extend=extend, called=called, begin=log.begin)
    common = dict(store=store, begin=place.begin)
    lines = not called
    stages = dict(
        train=lambda: train_stage(
            experiment,
            task=task,
            pause=pause if alone else distributed.Together(pause),
            log=tracked.log if tracked else None,
            **common,
        ),
        query=lambda: query_stage(experiment, task=task, pause=pause, **common),
        attack=lambda: attack_stage(experiment, task=task, lines=lines, pause=pause, **common),
        report=lambda: report_stage(experiment, lines=lines, pause=pause, **common),
    )
    if task is not None:
        stages = {shared: stages[shared]}
    if not distributed.is_writer():
        stages = dict(train=stages["train"])
    results = {}
    try:
        for stage in (stage for stage in stages if stage in stages_wanted):
            pause()
            trains = experiment.learner is not None
            remedy = memory_remedy(stage, experiment.settings, trains=trains)
            with in_memory(f"running the stage {stage}", remedy):
                results[stage] = log.timed(stage, stages[stage])
    except jobs.Paused:
        raise
    except Exception:
        place.release()
        raise
    finally:
        tracked.close()
    place.write_config()
    return results.get("report", {})


def refuse_sharing(
    experiment: Experiment, *, task: tuple[int, int] | None, stage: str, extend: bool
) -> None:
    """Raises ValueError if tasks cannot share this stage."""
    what = ""
    if extend:
        what = "extend=True: grow the fleet first, without a task"
    elif stage == "report":
        what = "the report, which is not shared: leave the task out when all tasks are done"
    elif experiment.learner is None and stage != "attack":
        what = "no training: of arrays that you supplied only the stage attack is shared"
    if task is not None and what:
        raise ValueError(f"task={task[0]}/{task[1]} does not go with {what}.")


def train_stage(
    experiment: Experiment,
    *,
    store: Store,
    task,
    pause: Callable,
    begin: Callable,
    log: tracking.Log | None = None,
) -> None:
    """Runs TRAIN if there are models to train, and checks that enough models are left to audit."""
    # A process of several that stopped elsewhere than the others would leave them waiting.
    in_step = jobs.deferred(pause) if distributed.here().count > 1 else contextlib.nullcontext()
    with in_step:
        if experiment.learner is not None:
            train(
                experiment.fleet_plan(),
                store=store,
                run=experiment.settings.run,
                models=experiment.trained_models,
                task=task,
                pause=pause,
                begin=on_platform(experiment.settings, begin),
                log=log,
            )
    if task is None:
        experiment.without_failed(store)


def query_stage(
    experiment: Experiment, *, store: Store, task, pause: Callable, begin: Callable
) -> None:
    """Runs QUERY for all models, for user-supplied arrays and for a black box.

    Of several tasks, the first one has the arrays and the black box.
    """
    left, first = experiment.without_failed(store), task is None or task[0] == 0
    if first:
        save_supplied(left.supplied, design=left.design, store=store, begin=begin)
    if not left.trained_models:
        return
    run_settings = left.settings.run
    common = dict(store=store, begin=on_platform(left.settings, begin))
    with precision.products(left.settings.query.precision):
        query(left.asked(), left.questions(), run=run_settings, task=task, pause=pause, **common)
        left = left.without_failed(store)
        if first and left.settings.target.black_box:
            target = left.settings.target
            query_black_box(left.asked(), left.questions(), target=target, store=store, begin=begin)


def on_platform(settings: Settings, begin: Callable) -> Callable:
    """Returns begin(), which first refuses to compute on another platform than run.platform.

    What is on disk already is used wherever it was made, and attacks and reports run anywhere.
    """

    def begun() -> None:
        if settings.run.platform:
            unused = accelerators.unused()
            machine.require(settings.run.platform, remedy=unused)
        begin()

    return begun


def attack_stage(
    experiment: Experiment, *, store: Store, task, lines: bool, pause: Callable, begin: Callable
) -> None:
    """Runs ATTACK without the models that failed."""
    left = experiment.without_failed(store)
    attack(left.attacks, left.reader(store), task=task, lines=lines, begin=begin, pause=pause)


def report_stage(
    experiment: Experiment, *, store: Store, lines: bool, pause: Callable, begin: Callable
) -> dict:
    """Runs MEASURE and REPORT without the models that failed, and returns the report."""
    left = experiment.without_failed(store)
    return report.report(
        left.attacks,
        left.reader(store),
        settings=left.settings.report,
        questions=left.questions(),
        subject=left.subject(),
        trained=left.trained(),
        seed=left.seed,
        versions=provenance.versions() | trained_on(left, store=store),
        lines=lines,
        begin=begin,
        pause=pause,
    )


def trained_on(experiment: Experiment, *, store: Store) -> dict[str, str]:
    """Returns {'trained on': the machine in words}, which may not be that of the report.

    {} if nothing was trained here or the plan of the training is gone or damaged.
    """
    try:
        known = execution.read_plan(store.train, run=store.run)
    except ValueError:
        known = None
    if experiment.learner is None or known is None or known.machine is None:
        return {}
    how = f"chunk {known.chunk}, form {known.form}, {known.precision}"
    return {"trained_on": f"{known.machine}; {how}"}


@contextlib.contextmanager
def in_memory(what: str, remedy: str):
    """Returns a context that turns errors of exhausted memory into OutOfMemory.

    Args:
      what: what the run is doing, for the message.
      remedy: what the user can do about it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, memory.OutOfMemory) or not memory.ran_out(error):
            raise
        device = jax.local_devices()[0] if "stage" in what else None
        limit = memory.available(device)
        sentence = memory.sentence(error, what=what, remedy=remedy, limit=limit)
        raise memory.OutOfMemory(sentence) from error


def memory_remedy(stage: str, settings: Settings, *, trains: bool) -> str:
    """Returns how the user can lower the memory of a stage, with the values of this run."""
    run, query = settings.run, settings.query
    if not trains or stage in ("attack", "report"):
        return (
            "Use fewer attacks, examples or models, or fewer bootstrap draws "
            f"(draws={settings.report.draws})."
        )
    if stage == "query":
        chunk = run.query_chunk or "as run.chunk"
        return f"Lower run.query_chunk ({chunk}) or query.batch_size ({query.batch_size})."
    lanes = run.lanes or "one per core"
    return (
        f"Lower run.chunk ({run.chunk}), run.lanes ({lanes}) or run.pool_bytes "
        f"({size(run.pool_bytes)})."
    )


def model_summary(config) -> str:
    """Returns the table of the config's model: its layers, shapes and parameters.

    Raises:
      ValueError: the config has no model.
    """
    if "scores" in config:
        raise ValueError(
            "this config has no model, so there is no summary of one: nothing is trained."
        )
    with precision.single():
        fields = {k: v for k, v in plain(config).items() if k != "seed"}
        experiment = build.build(fields, seed=0)
        return experiment.model.summary(experiment.pool.x[:1])


def debug_config(config):
    """Returns the config of a tiny fleet, for --debug.

    It has 4 models (or as many as the design allows), 1 epoch and small chunks.

    Raises:
      ValueError: the config trains nothing.
    """
    if "scores" in config:
        raise ValueError(
            "this config trains nothing, so there is no tiny fleet of it for debugging."
        )
    config = type(config)(config).unlock()
    for field, small in dict(models=4, sources=1, targets=2).items():
        if isinstance(config.design.get(field), int):
            config.design[field] = min(config.design[field], small)
    config.learner.epochs = min(config.learner.epochs, 1)
    config.learner.snapshots = (1,) if config.learner.snapshots else ()
    config.run.profile = (1,) if config.run.profile else ()
    if "warmup_epochs" in config.learner:
        config.learner.warmup_epochs = 0
    if not isinstance(config.learner.get("schedule", ""), str):
        # its steps and epochs are those of the whole training
        config.learner.schedule = "constant_schedule"
    config.run.chunk = 2
    config.report.draws = 40
    return config
