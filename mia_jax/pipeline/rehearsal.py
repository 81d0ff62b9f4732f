"""Rehearses the stages of a run on a small part of it, to know what the whole will take.

Each function runs the code of a stage in a temporary folder, on few models, epochs or examples, and
returns what a unit of its work takes. Nothing is written into a workdir. The time of the first
compilation is kept apart, because it is spent once however long the run is.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import optimize

from mia_jax.configuration.settings import ReportSettings, RunSettings
from mia_jax.metrics import record_groups
from mia_jax.pipeline import execution
from mia_jax.pipeline.attack import SignalReader, attack
from mia_jax.pipeline.execution import devices
from mia_jax.pipeline.miniature import few_rows
from mia_jax.pipeline.plan import FleetPlan, Questions, Subject, TrainedHere
from mia_jax.pipeline.query import Asked, save_supplied
from mia_jax.pipeline.report import report
from mia_jax.pipeline.train import train_models
from mia_jax.query import forward, interactive
from mia_jax.query.snapshots import SIGNAL as TRAJECTORY
from mia_jax.runtime import provenance
from mia_jax.runtime.store import Store
from mia_jax.threat_model import PlannedAttack
from mia_jax.training import checkpoint, cost, flops, mesh, programs, stream
from mia_jax.training.devices import default_lanes
from mia_jax.types import Design

Path = pathlib.Path
SHORT = 2e10  # FLOPs of a part of an epoch, of all lanes, that a CPU core does in some seconds
SECONDS = 2.0  # of steady work that are measured, of every stage
# (target, record, attack) triples of a rehearsal of attack and report of many records
PAIRS = 4_500_000
FEW, MANY = 600, 4_000  # records of a rehearsal of attack and report, at least and at most
ANSWERS = 2**28  # bytes of the answers of that rehearsal


class Pace(NamedTuple):
    """Holds what a unit of a stage's work takes, all lanes at work.

    Attributes:
        seconds: the wall-clock time of a unit.
        cpu_seconds: its processor time, over all threads of this process.
        once: the wall-clock time that is spent once, most of it compilation.
        once_cpu: its processor time.
        bytes: the bytes that the stage holds in memory.
    """

    seconds: float
    cpu_seconds: float
    once: float
    once_cpu: float
    bytes: int = 0


class Clock:
    """Reads wall-clock and processor time together; `since(earlier)` are the seconds of both."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def since(self, earlier: Clock) -> tuple[float, float]:
        """Returns (seconds, processor seconds) from the earlier reading to this one."""
        return self.wall - earlier.wall, self.cpu - earlier.cpu


class Enough(Exception):
    """Ends a rehearsal: enough was measured."""


class Watch:
    """Reads the clock at every safe place of a stage, and ends the stage when it has seen enough.

    Args:
        lanes: the threads that work at the same time.
        warm: the calls of each thread before its work is steady.
        pause: the pause of the run, which is called first.
    """

    def __init__(self, *, lanes: int, warm: int, pause: Callable[[], None]):
        self.lanes, self.warm, self.pause = lanes, warm, pause
        self.begin, self.steady, self.last = Clock(), None, Clock()
        self.calls: dict[int, int] = {}
        self.before = self.units = 0
        self.lock = threading.Lock()

    def __call__(self) -> None:
        """Counts a unit of work that begins; raises Enough after SECONDS of steady work."""
        self.pause()
        with self.lock:
            me = threading.get_ident()
            self.calls[me] = self.calls.get(me, 0) + 1
            self.last = Clock()
            if self.steady is None:
                self.before += 1
                if len(self.calls) == self.lanes and min(self.calls.values()) >= self.warm:
                    self.steady = self.last
                return
            self.units += 1
            enough = self.last.wall - self.steady.wall > SECONDS and self.units >= 2 * self.lanes
        if enough:
            raise Enough

    def pace(self, *, per_unit: float) -> Pace | None:
        """Returns the pace; None if the work ended before it was steady.

        Args:
            per_unit: how many units of the result one call is.
        """
        if self.steady is None or not self.units:
            return None
        wall, cpu = self.last.since(self.steady)
        wall, cpu = wall / self.units, cpu / self.units
        first, first_cpu = self.steady.since(self.begin)
        done = self.before - self.lanes  # the others had begun
        once, once_cpu = (
            max(0.0, total - done * each) for total, each in ((first, wall), (first_cpu, cpu))
        )
        return Pace(wall / per_unit, cpu / per_unit, once, once_cpu)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Returns a context in which progress is not shown: it is that of a rehearsal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


# Training
# --------------------------------------------------------------------------------


def step_flops(plan: FleetPlan) -> int:
    """Returns the FLOPs of a training step of one model (`training.flops`)."""
    learner, sample = plan.learner, stream.bare(plan.pool, np.arange(1))
    key, *batches = _epoch_shapes(plan)
    state = jax.eval_shape(learner.init, key, sample)
    one = [jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for a in batches]
    return flops.count(learner.epoch, state, sample, *one)


def _epoch_shapes(plan: FleetPlan) -> tuple:
    """Returns the shapes of (a key, the rows and the weights of the batches of an epoch)."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows, weight = (
        jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (plan.rows_MK, plan.weight_MK)
    )
    epoch = jax.ShapeDtypeStruct((), np.uint32)
    return key, *jax.eval_shape(plan.learner.plan, key, epoch, rows, weight)


def training(
    plan: FleetPlan,
    planned: execution.Planned,
    *,
    run: RunSettings,
    models: Sequence[int],
    folder: Path,
    work: int,
    pause: Callable[[], None],
) -> Pace:
    """Returns what an epoch of one model takes.

    Short epochs, or parts of epochs of a streamed pool, are trained as they are, by the programs of
    the run. Of long ones a few steps are timed, as for run.form='auto'.

    Args:
        plan: what is trained.
        planned: how; its programs may be compiled.
        run: the settings of devices and memory.
        models: the models that the run trains.
        folder: an empty folder.
        work: the FLOPs of a training step of one model.
        pause: may raise to end the rehearsal.
    """
    known, here = planned.execution, execution.groups(run, shards=plan.learner.shards)
    lanes = min(planned.lanes * len(here), -(-len(models) // known.chunk))
    some = list(models[: known.chunk * lanes])
    parts, steps = 1, known.steps
    if stream.num_bytes(plan.pool) > run.pool_bytes:
        index = _epoch_shapes(plan)[1]
        shape = (known.chunk, known.steps, *index.shape[1:])
        steps, _ = stream.part_size(pool=plan.pool, shape_MSB=shape, limit=run.pool_bytes)
        parts = -(-known.steps // steps)
    epochs = max(1, plan.learner.epochs)
    if work * steps * known.chunk * lanes <= SHORT and epochs * parts >= 4:
        watch = Watch(lanes=lanes, warm=3, pause=pause)
        with quietly(), contextlib.suppress(Enough):
            train_models(plan, planned, settings=run, models=some, folder=folder, pause=watch)
        pace = watch.pace(per_unit=known.chunk / parts)
        if pace is not None:
            return pace
    lanes = max(1, lanes // len(here))
    return _of_steps(plan, planned, run=run, lanes=lanes, over=len(here), place=here[0])


def _of_steps(
    plan: FleetPlan, planned: execution.Planned, *, run: RunSettings, lanes: int, over: int, place
) -> Pace:
    """Returns what an epoch of one model takes, by a few steps on the first of `over` places."""
    known = planned.execution
    price = cost.measured(
        learner=plan.learner,
        pool=plan.pool,
        rows_K=plan.rows_MK[0],
        weight_K=plan.weight_MK[0],
        chunk=known.chunk,
        form=known.form,
        pool_bytes=run.pool_bytes,
        lanes=lanes,
        choice=known.layers if known.form == "layers" else None,
        device=place if isinstance(place, mesh.Group) else None,
    )
    return Pace(
        price.seconds * known.steps / over,
        price.cpu_seconds * known.steps,
        price.compile_seconds,
        price.compile_seconds,
    )


# Questions
# --------------------------------------------------------------------------------


class Answered(NamedTuple):
    """Holds what asking takes, and answers of the models that were asked.

    Attributes:
        passes: the pace per model and example, all query views and signals of a forward pass.
        probes: {interactive signal: its pace per batch of a chunk of models}.
        values: {signal: [m,A,n,..]} of a few models and examples, drawn at random for what was not
            asked.
        device_bytes: the bytes that a program of forward passes needs on a device.
    """

    passes: Pace
    probes: Mapping[str, Pace]
    values: Mapping[str, np.ndarray]
    device_bytes: int


def asking(
    plan: FleetPlan,
    asked: Asked,
    questions: Questions,
    *,
    run: RunSettings,
    chunk: int,
    store: Store,
    pause: Callable[[], None],
) -> Answered:
    """Returns what the questions take, asked of models that are not trained.

    Args:
        plan: what is trained.
        asked: the models, and the examples.
        questions: what is asked.
        run: the settings of devices.
        chunk: the models that are asked at once.
        store: an empty workdir.
        pause: may raise to end the rehearsal.
    """
    here = devices(run)
    lanes = min(len(here) * default_lanes(here), -(-len(asked.models) // chunk))
    some = list(asked.models[: chunk * lanes])
    _untrained(plan, some, store=store)
    total = len(asked.pool.y)
    batch = min(questions.batch_size, total)
    common = dict(model=asked.model, views=questions.view_functions)
    ask = forward.program(
        task=asked.pool.task, signals=questions.passes, batch_size=batch, chunk=chunk, **common
    )
    common |= dict(models=some, models_folder=store.train.folder, run=store.run, devices=here)
    size, first, took = batch, Pace(0.0, 0.0, 0.0, 0.0), {}
    clock = int(here[0].platform == "cpu")  # processor time: other work may share the cores
    folder = store.answers.folder
    while questions.passes:
        pool = few_rows(asked.pool, np.arange(size))
        clocks = [Clock()]
        for folder in (store.after(2 * size).folder, store.after(2 * size + 1).folder):
            with quietly():
                forward.query(
                    pool=pool,
                    signals=questions.passes,
                    folder=folder,
                    chunk=chunk,
                    batch_size=batch,
                    ask=ask,
                    pause=pause,
                    on_bad=lambda m, reason: None,
                    **common,
                )
            clocks.append(Clock())
        took[size] = second = clocks[2].since(clocks[1])
        compiling = tuple(a - b for a, b in zip(clocks[1].since(clocks[0]), second))
        first = first if first.once else Pace(0.0, 0.0, *(max(0.0, s) for s in compiling))
        enough = second[clock] > SECONDS / 4
        if size >= min(total, 64 * batch) or (enough and len(took) > 1):
            break
        size = min(total, (2 if enough else 8) * size)
    wall, cpu = per_example(took, total, models=len(some))
    device = _bytes_of(ask, asked, questions, chunk=chunk, batch=batch, lanes=lanes)
    passes = Pace(wall, cpu, first.once, first.once_cpu, device)
    values = {name: _kept(folder, name, some, run=store.run) for name in questions.passes}
    values = {name: value for name, value in values.items() if value is not None}
    probes = {}
    for name in questions.probes:
        probes[name], answers = _probing(
            name, asked, questions, some=some, chunk=chunk, store=store, here=here, pause=pause
        )
        values[name] = _drawn(answers, size=size)
    scalar = next((value for value in values.values() if value.ndim == 3), None)
    if questions.snapshots and scalar is not None:
        values[TRAJECTORY] = np.stack([scalar] * len(questions.snapshots), -1)
    return Answered(passes, probes, values, device)


def per_example(
    took: Mapping[int, tuple[float, float]], total: int, *, models: int
) -> tuple[float, float]:
    """Returns (seconds, processor seconds) per model and example, if all examples are asked.

    A part of what a query takes, such as that of its files, does not grow with the examples.

    >>> [round(s, 9) for s in per_example({100: (3.0, 1.0), 200: (5.0, 1.0)}, 1_000, models=1)]
    [0.021, 0.001]

    Args:
        took: {examples: the seconds of asking the models about so many}; may be empty.
        total: the number of all examples.
        models: the number of the models that were asked.
    """
    if not took:
        return 0.0, 0.0
    wall, cpu = (fitted(list(took), values, total) for values in zip(*took.values(), strict=True))
    return wall / models / total, cpu / models / total


def _untrained(plan: FleetPlan, models: Sequence[int], *, store: Store) -> None:
    """Writes the initial variables of model 0 as those of all models."""
    learner, sample = plan.learner, stream.bare(plan.pool, np.arange(1))
    program = programs.make(learner=learner, chunk=1)
    state = program.init(programs.model_keys(seed=plan.seed, models=[0]), sample)
    released = learner.released or (lambda state: state.variables)
    variables = jax.tree.map(lambda a: a[0], jax.device_get(jax.vmap(released)(state)))
    for m in models:
        checkpoint.save_model(store.train.folder, m, variables, {}, run=store.run)


def _bytes_of(
    ask: Callable, asked: Asked, questions: Questions, *, chunk: int, batch: int, lanes: int
) -> int:
    """Returns the bytes that forward passes of a whole segment need on a device.

    The compiler says those of a batch; examples and answers grow with the segment.
    """
    pool = asked.pool
    x = jax.ShapeDtypeStruct((1, *pool.x.shape[1:]), pool.x.dtype)
    template = jax.eval_shape(asked.model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: jax.ShapeDtypeStruct((chunk, *a.shape), a.dtype), template)

    def part(length: int):
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((length, *a.shape[1:]), a.dtype), (pool.x, pool.y)
        )

    if not questions.passes:
        return 0
    analysis = ask.lower(variables, *part(batch)).compile().memory_analysis()
    length = forward.segment_length(pool=pool, batch_size=batch, limit=2**29 // lanes)
    answers = jax.eval_shape(ask, variables, *part(length))
    held = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves((variables, part(length), answers))
    )
    return lanes * (held + (0 if analysis is None else analysis.temp_size_in_bytes))


def _kept(folder: Path, name: str, models: Sequence[int], *, run: str) -> np.ndarray | None:
    """Returns the answers [m,A,n,..] of the models that gave finite ones; None if none did."""
    there = [m for m in models if interactive.signal_file(folder, name, m).exists()]
    if not there:
        return None
    parts = [forward.mapped(folder, name, m) for m in there]
    return np.stack(parts)


def _probing(
    name: str,
    asked: Asked,
    questions: Questions,
    *,
    some: Sequence[int],
    chunk: int,
    store: Store,
    here: Sequence,
    pause: Callable[[], None],
) -> tuple[Pace, np.ndarray]:
    """Returns what a batch of an interactive signal takes, and the answers [m,A,n,..].

    At least one batch of every lane is asked; what it takes includes the compilation if there is
    no second one.
    """
    batch = questions.ask_batch_size
    rows_MN = questions.rows[name].copy()
    for m in some:
        rows_MN[m] &= np.cumsum(rows_MN[m]) <= 4 * batch
    lanes = min(len(here) * default_lanes(here), -(-len(some) // chunk))
    watch = Watch(lanes=lanes, warm=2, pause=pause)
    begin = Clock()
    with quietly(), contextlib.suppress(Enough):
        interactive.query(
            model=asked.model,
            pool=asked.pool,
            signals={name: questions.signals[name]},
            views=questions.view_functions,
            rows={name: rows_MN},
            models=some,
            models_folder=store.train.folder,
            folder=store.answers.folder,
            seed=questions.seed,
            chunk=chunk,
            batch_size=batch,
            devices=list(here),
            design=asked.design,
            pause=watch,
            on_bad=lambda m, reason: None,
            run=store.run,
            available=max(some) + 1,
        )
    pace = watch.pace(per_unit=1)
    if pace is None:
        batches = max(1, watch.before)
        wall, cpu = Clock().since(begin)
        pace = Pace(wall / batches, cpu / batches, 0.0, 0.0)
    answers = _kept(store.answers.folder, name, some, run=store.run)
    if answers is None or not np.isfinite(answers).any():
        answers = (
            np.random.default_rng(0)
            .exponential(size=(1, len(questions.views), batch))
            .astype(np.float32)
        )
    return pace, answers


def _drawn(answers_MAN: np.ndarray, *, size: int) -> np.ndarray:
    """Returns answers about `size` examples, drawn from those that are finite."""
    finite_N = np.isfinite(answers_MAN).all(tuple(i for i in range(answers_MAN.ndim) if i != 2))
    rows = np.flatnonzero(finite_N) if finite_N.any() else np.arange(1)
    return np.nan_to_num(answers_MAN[:, :, np.resize(rows, size)])


# Attack and report
# --------------------------------------------------------------------------------


class Audited(NamedTuple):
    """Holds what attack and report of all records will take.

    Attributes:
        attack: the seconds of all attacks; `bytes` is what they hold in memory.
        report: the seconds of the report.
        score_bytes: the bytes of attack/ on disk.
        report_bytes: those of report/.
        records: the records of the largest rehearsal.
        targets: its targets.
    """

    attack: Pace
    report: Pace
    score_bytes: int
    report_bytes: int
    records: int
    targets: int


class Measured(NamedTuple):
    """Holds what a stage took for some records: (seconds, processor seconds), and bytes."""

    took: tuple[float, float]
    memory: int
    disk: int


def auditing(
    attacks: Sequence[PlannedAttack],
    design: Design,
    *,
    record_bytes: int,
    audit_of: Callable[[np.ndarray, int], Any],
    folder: Path,
    pause: Callable[[], None],
) -> Audited:
    """Returns what attack and report take, by those of a few records of the same models.

    All attacks score answers for several numbers of records, and the report is written for the
    fewest and the most. What grows with the records is extrapolated.

    Args:
        attacks: the attacks of the run.
        design: who trains on what.
        record_bytes: the bytes of all answers of one model about one record.
        audit_of: audit_of(rows_K, models) builds the audit of some records of the first models by
            these attacks (pipeline/miniature.py).
        folder: an empty folder.
        pause: may raise to end the rehearsal.
    """
    relevant = np.flatnonzero(design.evaluated_MN.any(0) | design.population_N)
    total = len(relevant)
    sizes, models = pieces_of(total, pairs=len(design.targets) * len(attacks), design=design)
    most = max(200, int(ANSWERS / max(1, record_bytes * models)))
    sizes = tuple(sorted({min(size, most) for size in sizes}))
    rng = np.random.default_rng(0)
    attacking: dict[int, Measured] = {}
    reporting: dict[int, Measured] = {}
    once = (0.0, 0.0)
    for i, size in enumerate((sizes[0], *sizes) if len(sizes) > 1 else sizes):
        rows_K = np.sort(rng.choice(relevant, size, replace=False))
        part = audit_of(rows_K, models)
        store = Store(Path(tempfile.mkdtemp(dir=folder)), part.run)
        save_supplied(part.supplied, design=part.design, store=store)
        reader = part.reader(store)
        made = _attacked(attacks, reader, pause=pause)
        if size in attacking:  # the first time is that of imports and compilations as well
            first = attacking[size].took
            once = max(0.0, first[0] - made.took[0]), max(0.0, first[1] - made.took[1])
        attacking[size] = made
        if size in (sizes[0], sizes[-1]) and (i or len(sizes) == 1):
            of = dict(settings=part.settings.report, subject=part.subject(), seed=part.seed)
            reporting[size] = _reported(attacks, reader, **of, pause=pause)
    targets = sum(t < models for t in design.targets)
    larger = len(design.targets) / max(1, targets)

    def whole(stage: Mapping[int, Measured], read: Callable, *, quadratic: bool = False) -> float:
        values = [read(made) for made in stage.values()]
        return fitted(list(stage), values, total, quadratic=quadratic)

    def pace(stage: Mapping[int, Measured], once: tuple[float, float], quadratic: bool) -> Pace:
        wall, cpu = (
            larger * whole(stage, lambda made, k=k: made.took[k], quadratic=quadratic)
            for k in (0, 1)
        )
        return Pace(wall, cpu, *once, int(larger * whole(stage, lambda made: made.memory)))

    return Audited(
        pace(attacking, once, len(sizes) > 2),  # some attacks compare all records with others
        pace(reporting, (0.0, 0.0), False),
        int(larger * whole(attacking, lambda made: made.disk)),
        int(whole(reporting, lambda made: made.disk)),
        sizes[-1],
        targets,
    )


def pieces_of(total: int, *, pairs: int, design: Design) -> tuple[tuple[int, ...], int]:
    """Returns (numbers of records, number of models) on which attack and report are rehearsed.

    The report of many records has another form (`record_groups.EXACT`), in which it is rehearsed,
    with fewer models if there are many attacks. All records are taken if there are few.

    Args:
        total: the records of the run.
        pairs: its targets x attacks.
        design: who trains on what.
    """
    models = len(design.member_MN)
    if total <= FEW:
        return (total,), models
    if total <= record_groups.EXACT:
        top = int(np.clip(total // 4, FEW, MANY))
        return (top // 4, top // 2, top), models
    top = min(total, 2 * record_groups.EXACT)
    fitting = max(8, int(models * PAIRS / (top * pairs)))
    if fitting < models and any(t < fitting for t in design.targets):
        models = fitting
    return (record_groups.EXACT + 500, top), models


def fitted(
    sizes: Sequence[int], values: Sequence[float], size: int, *, quadratic: bool = False
) -> float:
    """Returns a + b n (+ c n^2) at n = size, by non-negative least squares.

    >>> round(fitted([10, 20, 40], [3.0, 5.0, 9.0], 100), 6)
    21.0
    """
    if len(sizes) == 1:
        return float(values[0]) * size / sizes[0]
    scale = np.asarray(sizes) / size
    powers = np.stack([scale**k for k in range(3 if quadratic else 2)], -1)
    return float(optimize.nnls(powers, np.asarray(values, float))[0].sum())


def _attacked(
    attacks: Sequence[PlannedAttack], reader: SignalReader, *, pause: Callable[[], None]
) -> Measured:
    """Scores a small audit, and returns what it took."""
    begin = Clock()
    with quietly(), peak() as grown:
        attack(attacks, reader, lines=False, pause=pause)
    return Measured(Clock().since(begin), grown[0], _disk(reader.store.attacks))


def _reported(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    *,
    settings: ReportSettings,
    subject: Subject,
    seed: int,
    pause: Callable[[], None],
) -> Measured:
    """Writes the report of a small audit that was scored, and returns what it took."""
    versions = provenance.versions()
    begin = Clock()
    with quietly(), peak() as grown:
        report(
            attacks,
            reader,
            settings=settings,
            questions=None,
            subject=subject,
            trained=TrainedHere(),
            seed=seed,
            versions=versions,
            lines=False,
            pause=pause,
        )
    return Measured(Clock().since(begin), grown[0], _disk(reader.store.report.folder))


def _disk(folder: Path) -> int:
    """Returns the bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """Yields a list that holds, after the context, by how many bytes this process had grown."""
    grown, over = [0], threading.Event()
    start = _resident()

    def watch() -> None:
        while not over.wait(0.02):
            grown[0] = max(grown[0], _resident() - start)

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield grown
    finally:
        over.set()
        thread.join()
        grown[0] = max(grown[0], _resident() - start)


def _resident() -> int:
    """Returns the bytes of memory that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def batches_of(questions: Questions, name: str, *, models: Sequence[int], chunk: int) -> int:
    """Returns how many batches of an interactive signal are asked, of chunks of models."""
    groups = [list(models[i : i + chunk]) for i in range(0, len(models), chunk)]
    counts = (int(questions.rows[name][group].any(0).sum()) for group in groups)
    return sum(-(-count // questions.ask_batch_size) for count in counts)
