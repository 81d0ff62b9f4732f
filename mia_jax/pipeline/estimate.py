"""PLAN: says what a run will take before it starts: seconds, memory, disk, and what is short first.

The stages are rehearsed in a temporary folder (pipeline/rehearsal.py), so the workdir is read and
not changed. The words are those of report/estimate.py.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mia_jax import checks
from mia_jax.configuration.settings import RunSettings, settings_of
from mia_jax.pipeline import execution, miniature, rehearsal
from mia_jax.pipeline.experiment import Experiment
from mia_jax.pipeline.place import Place
from mia_jax.pipeline.rehearsal import Answered, Audited, Pace
from mia_jax.pipeline.run import built, checked_seeds, plain
from mia_jax.pipeline.train import nothing
from mia_jax.query import interactive
from mia_jax.runtime import files, jobs, machine, precision
from mia_jax.runtime.store import Store, seed_folder
from mia_jax.training import checkpoint, compilers, memory, programs, stream

Path = pathlib.Path
# What a user can set where a stage is short of something.
FIELDS = {
    "device": "run.chunk, run.lanes, run.pool_bytes, run.form='turns', learner.batch_size",
    "query": "run.query_chunk, query.batch_size",
    "attack": "fewer attacks or query.views, design.targets",
    "report": "fewer attacks, report.draws, design.targets",
    "disk": "query.save_logits, query.signals, query.views, learner.snapshots, another workdir",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Holds what one stage of the run will take.

    Attributes:
        stage: its name.
        units: what it works on, in words.
        seconds: wall-clock time on this machine as it is now; None if not measured.
        cpu_seconds: processor time.
        memory: the bytes that it holds, on the device where it has one of its own.
        disk: the bytes that it writes and that stay.
    """

    stage: str
    units: str
    seconds: float | None
    cpu_seconds: float | None
    memory: int
    disk: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """Compares what is needed with what there is.

    Attributes:
        what: 'memory' or 'disk'.
        stage: the stage that needs most of it; '' for all.
        needed: bytes.
        available: bytes.
        source: where that number comes from.
        fields: the fields of the config by which less is needed.
    """

    what: str
    stage: str
    needed: int
    available: int
    source: str
    fields: str

    @property
    def share(self) -> float:
        """Returns which part of what there is is needed."""
        return self.needed / max(1, self.available)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Holds what is trained, in numbers.

    Attributes:
        models: all models; `on_disk` of them are trained already.
        on_disk: see `models`.
        parameters: of one model.
        epochs: of one model, at most.
        steps: of an epoch.
        chunk: models that train together in one program.
        form: how, one of training.programs.FORMS.
        lanes: programs at a time on a device.
        precision: at which networks train.
        step_flops: the FLOPs of a step of one model.
        flops: those of all models that are still to train.
    """

    models: int
    on_disk: int
    parameters: int
    epochs: int
    steps: int
    chunk: int
    form: str
    lanes: int
    precision: str
    step_flops: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Holds what a run will take; the content of --plan --json.

    Attributes:
        workdir: the folder of the run.
        seeds: the number of seeds; the numbers below are those of all.
        machine: on what it was measured.
        training: None if nothing is trained.
        stages: what each stage will take.
        demands: what is needed of what there is, the scarcest first.
        notes: sentences about what the numbers leave out.
    """

    workdir: str
    seeds: int
    machine: machine.Machine
    training: Training | None
    stages: tuple[Stage, ...]
    demands: tuple[Demand, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Returns whether nothing is short."""
        return all(demand.share <= 1 for demand in self.demands)

    def plain(self) -> dict[str, Any]:
        """Returns the estimate as JSON values."""
        fields = dataclasses.asdict(dataclasses.replace(self, machine=None))
        demands = [dataclasses.asdict(d) | dict(share=d.share) for d in self.demands]
        fields |= dict(machine=self.machine.plain(), demands=demands, fits=self.fits)
        return fields | dict(stages=[dataclasses.asdict(stage) for stage in self.stages])


def estimate(
    config, *, workdir_path: str | Path, pause: Callable = nothing, arrays: Mapping | None = None
) -> Estimate:
    """Returns what the run of a config in a workdir will take; nothing is written there.

    Of several seeds the first one is measured.

    Args:
        config: the result of configuration.complete, or of configuration.scores.
        workdir_path: the folder of the run. What is in it is not counted again.
        pause: called at safe places; it may raise to end the measurement.
        arrays: user-supplied arrays in memory.

    Raises:
        ValueError: the workdir belongs to another config, or was planned on another kind of device.
    """
    root, config = files.folder_at(workdir_path, argument="workdir_path"), plain(config)
    seeds = checked_seeds(config.pop("seed"))
    folder = root if len(seeds) == 1 else seed_folder(root, seeds[0])
    with precision.single(), tempfile.TemporaryDirectory(prefix="mia_jax-plan-") as scratch:
        experiment = built(config, seed=seeds[0], arrays=arrays)
        store = Store(folder, experiment.run)
        Place(experiment, store=store, extend=True, called=False, begin=nothing)
        part = _Parts(experiment, store, Path(scratch), len(seeds), pause)
        return part.estimate(root)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Holds a program for an accelerator as its compiler describes it.

    Attributes:
        form: one of training.programs.FORMS.
        chunk: models that train together.
        bytes: what it needs on the device, with the examples.
        bytes_per_model: the same without the examples, per model.
        traffic: bytes that a step of a model moves between memory and units.
        launches: kernels of a step of all models of the chunk.
        seconds: the least time of a step and model.
        bound: what that time is bound by: 'memory', 'arithmetic' or 'launches'.
        fits: whether the device has the memory.
        compile_seconds: what compiling took here.
    """

    form: str
    chunk: int
    bytes: int
    bytes_per_model: float
    traffic: float
    launches: float
    seconds: float
    bound: str
    fits: bool
    compile_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Holds what the training takes on an accelerator that is not here; the content of
    --plan=h100 --json.

    Attributes:
        workdir: the folder of the run.
        seeds: the number of seeds.
        target: the name of the accelerator.
        kind: its device kind.
        memory: the bytes that programs may use; `memory_note` says which.
        memory_note: see `memory`.
        training: what is trained, in the form and chunk that are advised.
        rows: the programs that were compiled.
        default: the form that the run takes if nothing else is asked for.
        seconds: the least time of the training on one device; None if no program fits.
        notes: sentences.
    """

    workdir: str
    seeds: int
    target: str
    kind: str
    memory: int
    memory_note: str
    training: Training
    rows: tuple[Row, ...]
    default: str
    seconds: float | None
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Returns whether one of the programs fits."""
        return self.seconds is not None

    def plain(self) -> dict[str, Any]:
        """Returns the estimate as JSON values."""
        return dataclasses.asdict(self) | dict(fits=self.fits)


def elsewhere(config, *, workdir_path: str | Path, target: str, pause: Callable = nothing):
    """Returns what the training of a config takes on an accelerator that is not here.

    Its programs are compiled and not run (training/compilers.py). Nothing is written.

    Args:
        config: the result of configuration.complete.
        workdir_path: the folder of the run.
        target: the name of the accelerator, one of compilers.TARGETS.
        pause: called before each compilation; it may raise to end it.

    Raises:
        ValueError: the compiler is not installed, nothing is trained, or the run asks for another
            platform.
    """
    checks.one_of(compilers.TARGETS, plan=target)
    goal = compilers.TARGETS[target]
    root, config = files.folder_at(workdir_path, argument="workdir_path"), plain(config)
    seeds = checked_seeds(config.pop("seed"))
    if "scores" in config:
        raise ValueError(
            f"plan={target!r} says what a training takes, but nothing is trained here: leave the "
            "name of the accelerator out."
        )
    asked = settings_of(config).run.platform
    if asked not in ("", goal.platform):
        raise ValueError(
            f"run.platform={asked!r}, but plan={target!r} is about a {goal.platform} "
            f"({goal.kind}): leave run.platform out, or plan on a machine of that platform."
        )
    device = compilers.device_of(goal)
    with precision.single():
        experiment = built(config, seed=seeds[0], arrays=None)
        folder = root if len(seeds) == 1 else seed_folder(root, seeds[0])
        store = Store(folder, experiment.run)
        Place(experiment, store=store, extend=True, called=False, begin=nothing)
        return _elsewhere(experiment, store, goal, device, root=root, seeds=len(seeds), pause=pause)


def _elsewhere(
    experiment: Experiment, store: Store, goal, device, *, root: Path, seeds: int, pause: Callable
) -> Elsewhere:
    """Compiles the programs of an experiment for a target."""
    plan, run = experiment.fleet_plan(), experiment.settings.run
    models, work = len(experiment.trained_models), rehearsal.step_flops(plan)
    default = programs.default_form(goal.platform)
    rows, steps, parameters = [], 0, 0
    for form, chunk in pairs_of(run, models=models, platform=goal.platform):
        pause()
        jobs.say(f"plan: compiling chunk {chunk}, {form}, for {goal.name} ...")
        with machine.compiling_for(goal.platform), precision.products(plan.precision):
            row = compilers.compiled(
                goal,
                device=device,
                learner=plan.learner,
                pool=plan.pool,
                rows_K=plan.rows_MK[0],
                weight_K=plan.weight_MK[0],
                chunk=chunk,
                form=form,
                work=work,
                precision=plan.precision,
                pool_bytes=run.pool_bytes,
            )
        rows.append(row)
        steps, parameters = row.steps, row.parameters
    chosen = compilers.best(rows, goal)
    epochs, shown = plan.learner.epochs, chosen or rows[0]
    notes = []
    known = execution.read_plan(store.train, run=store.run)
    if known is not None and known.machine is not None:
        if (known.machine.platform, known.machine.device_kind) != (goal.platform, goal.kind):
            notes.append(
                f"{store.train.plan} was planned on {known.machine.hardware}: on a {goal.kind} "
                "that workdir is refused; use another one there"
            )
    if chosen is not None and chosen.chunk > 1 and chosen.form != (run.form or default):
        notes.append(
            f"run.form='{chosen.form}' has the lower bound; without it the run takes "
            f"{run.form or default}, and run.form='auto' times them on the device"
        )
    return Elsewhere(
        workdir=str(root),
        seeds=seeds,
        target=goal.name,
        kind=goal.kind,
        memory=goal.memory,
        memory_note=goal.memory_note,
        training=Training(
            models=models * seeds,
            on_disk=0,
            parameters=parameters,
            epochs=epochs,
            steps=steps,
            chunk=shown.chunk,
            form=shown.form,
            lanes=1,
            precision=plan.precision,
            step_flops=work,
            flops=work * steps * epochs * models * seeds,
        ),
        rows=tuple(
            Row(
                form=row.form,
                chunk=row.chunk,
                bytes=row.bytes,
                bytes_per_model=row.per_model,
                traffic=row.traffic,
                launches=row.launches,
                seconds=row.seconds,
                bound=row.bound,
                fits=row.bytes <= goal.memory,
                compile_seconds=row.compile_seconds,
            )
            for row in rows
        ),
        default=default,
        seconds=None if chosen is None else chosen.seconds * steps * epochs * models * seeds,
        notes=tuple(notes),
    )


def pairs_of(run: RunSettings, *, models: int, platform: str) -> list[tuple[str, int]]:
    """Returns the (form, chunk) that are compiled for an accelerator, its default form first.

    Patches are left out on a TPU, where they move about ten times the bytes (docs/scale.md).
    A chunk of one model has the same program in every form.
    """
    forms = programs.candidates(platform) if run.form in ("", "auto", "layers") else (run.form,)
    forms = tuple(form for form in forms if form != "layers") or ("turns",)
    if len(forms) > 1 and platform == "tpu":
        forms = tuple(form for form in forms if form != "patches")
    chunks = [1, 8] if run.chunk in execution.AUTO else [int(run.chunk)]
    chunks = [min(chunk, models) for chunk in chunks]
    return list(
        dict.fromkeys(
            (forms[0] if chunk == 1 else form, chunk) for chunk in chunks for form in forms
        )
    )


class _Parts:
    """Rehearses the stages of one seed and puts their numbers together."""

    def __init__(
        self, experiment: Experiment, store: Store, scratch: Path, seeds: int, pause: Callable
    ):
        self.experiment, self.store, self.scratch = experiment, store, scratch
        self.run: RunSettings = experiment.settings.run
        self.seeds, self.pause = seeds, pause
        self.stages: list[Stage] = []
        self.demands: list[Demand] = []
        self.notes: list[str] = []
        self.training: Training | None = None

    def estimate(self, root: Path) -> Estimate:
        """Returns the estimate of all stages."""
        here = execution.devices(self.run)
        answered = None
        if self.experiment.learner is not None:
            planned = self._planned()
            if planned is not None:
                self._train(planned)
                answered = self._query(planned)
        if self.experiment.learner is None or answered is not None:
            self._audit(answered)
        self._disk(root)
        return Estimate(
            workdir=str(root),
            seeds=self.seeds,
            machine=machine.here(here),
            training=self.training,
            stages=tuple(self.stages),
            demands=tuple(sorted(self.demands, key=lambda demand: -demand.share)),
            notes=tuple(self.notes),
        )

    def _planned(self) -> execution.Planned | None:
        """Returns how the fleet will be trained; None if that does not fit."""
        jobs.say("plan: compiling the training ...")
        plan = self.experiment.fleet_plan()
        known = execution.read_plan(self.store.train, run=self.store.run)
        limit = execution.memory_limit(self.run)
        if known is not None:
            now = machine.here(execution.devices(self.run))
            execution.check_machine(known, now, path=self.store.train.plan)
        try:
            with precision.products(plan.precision):
                planned = execution.planned(
                    plan,
                    store=dataclasses.replace(self.store, root=self._scratch(known)),
                    run=self.run,
                    models=max(1, len(self._untrained())),
                    first=False,
                )
        except memory.OutOfMemory as error:
            self.notes.append(f"the training does not fit, and nothing was measured: {error}")
            self.demands.append(
                Demand(
                    what="memory",
                    stage="train",
                    needed=2 * limit.bytes,
                    available=limit.bytes,
                    source=limit.source,
                    fields=FIELDS["device"],
                )
            )
            return None
        return planned

    def _scratch(self, known: execution.Execution | None = None) -> Path:
        """Returns a new temporary workdir, with the plan of the real one if that is given."""
        root = Path(tempfile.mkdtemp(dir=self.scratch))
        if known is not None:
            there = Store(root, self.store.run).train.plan
            files.write_json(there, known.plain() | dict(run=self.store.run), seal=True)
        return root

    def _untrained(self) -> list[int]:
        """Returns the models that are not on disk."""
        models = self.experiment.trained_models
        return sorted(set(models) - set(checkpoint.finished(self.store.train.folder, models)))

    def _train(self, planned: execution.Planned) -> None:
        """Measures the training."""
        jobs.say("plan: rehearsing the training ...")
        experiment, known = self.experiment, planned.execution
        plan, todo = experiment.fleet_plan(), self._untrained()
        every = experiment.trained_models
        epochs = plan.learner.epochs
        work = rehearsal.step_flops(plan)
        with precision.products(plan.precision):
            pace = rehearsal.training(
                plan,
                planned,
                run=self.run,
                models=todo or every,
                folder=self._scratch(),
                work=work,
                pause=self.pause,
            )
        self.training = Training(
            models=len(every) * self.seeds,
            on_disk=(len(every) - len(todo)) * self.seeds,
            parameters=known.parameters,
            epochs=epochs,
            steps=known.steps,
            chunk=known.chunk,
            form=known.form,
            lanes=planned.lanes,
            precision=known.precision,
            step_flops=work,
            flops=work * known.steps * epochs * len(todo) * self.seeds,
        )
        needed = execution.needed_bytes(self.run, known.cost, planned.lanes)
        limit = execution.memory_limit(self.run)
        self._stage(
            "train",
            f"{len(todo)} models x {epochs} epochs x {known.steps} steps",
            pace,
            len(todo) * max(1, epochs),
            memory_=needed,
            disk=self._model_bytes() * len(todo) * (1 + len(plan.snapshots)),
        )
        self._demand("train", needed, limit, FIELDS["device"])
        if plan.learner.stopping:
            self.notes.append("models may stop early (learner.stop): training takes at most this")

    def _model_bytes(self) -> int:
        """Returns the bytes of the variables of one model."""
        learner, pool = self.experiment.learner, self.experiment.pool
        sample = stream.bare(pool, np.arange(1))
        state = jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0)), sample)
        leaves = jax.tree.leaves(state.variables)
        return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)

    def _query(self, planned: execution.Planned) -> Answered:
        """Measures the questions."""
        jobs.say("plan: rehearsing the questions ...")
        experiment = self.experiment
        questions, asked = experiment.questions(), experiment.asked()
        chunk = self.run.query_chunk or planned.execution.chunk
        with precision.products(experiment.settings.query.precision):
            answered = rehearsal.asking(
                experiment.fleet_plan(),
                asked,
                questions,
                run=self.run,
                chunk=chunk,
                store=Store(self._scratch(), experiment.run),
                pause=self.pause,
            )
        total, views = len(asked.pool.y), len(questions.views)
        todo = [m for m in asked.models if not self._answered(m, questions.passes)]
        times = questions.rounds
        units = len(todo) * total * (times if questions.passes else 0)
        pace = answered.passes
        seconds = [pace.seconds * units + pace.once, pace.cpu_seconds * units + pace.once_cpu]
        for name, probe in answered.probes.items():
            left = [m for m in asked.models if not self._answered(m, [name])]
            batches = rehearsal.batches_of(questions, name, models=left, chunk=chunk)
            seconds[0] += probe.seconds * batches + probe.once
            seconds[1] += probe.cpu_seconds * batches + probe.once_cpu
        disk = sum(
            value[0].nbytes // value.shape[2] * total * len(todo)
            for value in answered.values.values()
        )
        disk += disk * (times - 1) // max(1, len(questions.signals))
        self._stage(
            "query",
            f"{len(todo)} models x {total:,} examples x {views} views",
            Pace(0.0, 0.0, *seconds),
            0,
            memory_=answered.device_bytes,
            disk=disk,
        )
        here = execution.devices(self.run)
        limit = memory.available(here[0])
        self._demand("query", answered.device_bytes, limit, FIELDS["query"])
        if experiment.settings.target.black_box:
            self.notes.append(
                "the black box (target.black_box) was not asked: its time comes on top"
            )
        return answered

    def _answered(self, m: int, names) -> bool:
        """Returns whether a model has answered these signals."""
        folder = self.store.answers.folder
        return all(interactive.signal_file(folder, name, m).exists() for name in names)

    def _audit(self, answered: Answered | None) -> None:
        """Measures attack and report."""
        jobs.say("plan: rehearsing attacks and report ...")
        experiment, rng = self.experiment, np.random.default_rng(1)
        values = dict(experiment.supplied) if answered is None else answered.values
        try:
            audited = rehearsal.auditing(
                experiment.attacks,
                experiment.design,
                record_bytes=sum(value[0, :, 0].nbytes for value in values.values()),
                audit_of=lambda rows_K, models: miniature.build(
                    experiment, rows_K, values, models=models, rng=rng
                ),
                folder=self._scratch(),
                pause=self.pause,
            )
        except (ValueError, OSError, FloatingPointError) as error:
            self.notes.append(f"attack and report were not measured: {jobs.failure(error)}")
            return
        self._noted(audited)
        targets, count = len(experiment.design.targets), len(experiment.attacks)
        limit = memory.available()
        for stage, pace, disk in (
            ("attack", audited.attack, audited.score_bytes),
            ("report", audited.report, audited.report_bytes),
        ):
            words = f"{count} attack{'s' * (count > 1)} x {targets} target{'s' * (targets > 1)}"
            self._stage(stage, words, pace, 1, memory_=pace.bytes, disk=disk)
            self._demand(stage, pace.bytes, limit, FIELDS[stage])

    def _noted(self, audited: Audited) -> None:
        """Adds what the numbers of attack and report leave out."""
        experiment, settings = self.experiment, self.experiment.settings.report
        text = f"attack and report: extrapolated from {audited.records:,} records"
        if audited.targets < len(experiment.design.targets):
            text += f" and {audited.targets} targets, in proportion to the targets"
        self.notes.append(text)
        left = [name for name in ("epochs", "groups", "sections") if getattr(settings, name)]
        if settings.audit is not None or experiment.design.coin_N is not None:
            left.append("audit")
        if left:
            self.notes.append(f"not measured: {', '.join(f'report.{name}' for name in left)}")

    def _disk(self, root: Path) -> None:
        """Compares what the stages write with the room on the disk of the workdir."""
        there = next(
            folder for folder in (root.resolve(), *root.resolve().parents) if folder.exists()
        )
        needed = sum(stage.disk for stage in self.stages)
        available = shutil.disk_usage(there).free
        most = max(self.stages, key=lambda stage: stage.disk, default=None)
        self.demands.append(
            Demand(
                what="disk",
                stage=most.stage if most else "",
                needed=needed,
                available=available,
                source=f"free on the disk of {there}",
                fields=FIELDS["disk"],
            )
        )

    def _stage(
        self, stage: str, units: str, pace: Pace, count: int, *, memory_: int, disk: int
    ) -> None:
        """Adds a stage of `count` units of work."""
        self.stages.append(
            Stage(
                stage=stage,
                units=units,
                seconds=self.seeds * (pace.seconds * count + pace.once),
                cpu_seconds=self.seeds * (pace.cpu_seconds * count + pace.once_cpu),
                memory=memory_,
                disk=self.seeds * disk,
            )
        )

    def _demand(self, stage: str, needed: int, limit: memory.Limit, fields: str) -> None:
        """Adds what a stage needs of memory."""
        self.demands.append(
            Demand(
                what="memory",
                stage=stage,
                needed=int(needed),
                available=limit.bytes,
                source=limit.source,
                fields=fields,
            )
        )
