"""Decides how a fleet is trained: in which form, how many models at a time, and on what.

The choice is made once, before the first step, and kept in train/plan.json, because form and chunk
decide the last bits of the models: resuming, extending and the tasks of a job array read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mia_jax import registry
from mia_jax.configuration.settings import RunSettings
from mia_jax.models.kernels.candidates import Table
from mia_jax.pipeline.plan import FleetPlan
from mia_jax.runtime import distributed, files, jobs, machine, precision
from mia_jax.runtime.progress import duration, size
from mia_jax.runtime.store import Store, Trained
from mia_jax.training import cost, layerwise, memory, mesh, programs
from mia_jax.training.devices import default_lanes
from mia_jax.types import Learner

AUTO = ("auto", 0)  # run.chunk: measure the fastest
FORMS = ("", "auto", *programs.FORMS)  # run.form
NO_LAYERS = Table()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """Says how a fleet is trained; the content of train/plan.json.

    Attributes:
        chunk: the number of models that a program trains together.
        form: one of training.programs.FORMS; '' in a plan of an older version.
        block: the models that the tasks of a job array deal out together. It is the chunk that was
            planned first, also if memory ran out and `chunk` was halved.
        asked: run.chunk and run.form of the command that planned.
        precision: learner.precision, at which networks train.
        steps: the steps of an epoch.
        parameters: the parameters of one model.
        bytes: the bytes that a chunk needs on one device, including its examples.
        shared: the part of `bytes` that all chunks on a device share.
        seconds: the seconds of a step and model; None if they were not measured.
        measured: the candidates that were timed, {form, chunk, seconds, bytes}.
        machine: on what it was planned; None in a plan of an older version.
        layers: of the form 'layers', the program of every function of every convolution.
        units: how many units of a private step are computed together, chosen for
            privacy.physical_batch='auto'; else 0.
        mesh: run.mesh, if a chunk was planned for several devices; it decides `bytes`, and no bit
            of a model unless parameters are spread.
    """

    chunk: int
    form: str
    block: int
    asked: Mapping[str, Any]
    precision: str
    steps: int
    parameters: int
    bytes: int
    shared: int = 0
    seconds: float | None = None
    measured: tuple[Mapping[str, Any], ...] = ()
    machine: machine.Machine | None = None
    layers: Table = NO_LAYERS
    units: int = 0
    mesh: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Returns the content of train/plan.json."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | dict(
            asked=dict(self.asked),
            measured=[dict(row) for row in self.measured],
            machine=None if self.machine is None else self.machine.plain(),
            layers=self.layers.plain(),
            mesh=None if self.mesh is None else dict(self.mesh),
        )

    @property
    def cost(self) -> cost.Cost:
        """Returns the memory and the size of the plan, as `training.cost` says them."""
        return cost.Cost(self.bytes, 0.0, 0.0, self.steps, self.parameters, self.shared)

    def answers(self, run: RunSettings) -> bool:
        """Returns whether this is the plan for these settings, as they were asked or decided."""
        chunk = run.chunk in AUTO or run.chunk in (self.chunk, self.asked.get("chunk"))
        return chunk and run.form in ("", "auto", self.form, self.asked.get("form"))


class Planned(NamedTuple):
    """Holds what trains a fleet.

    Attributes:
        execution: the plan.
        program: its programs, of which the largest may be compiled.
        lanes: how many chunks train at a time on a device; it changes no result.
    """

    execution: Execution
    program: programs.Programs
    lanes: int


def planned(
    plan: FleetPlan, *, store: Store, run: RunSettings, models: int, first: bool = True
) -> Planned:
    """Returns how the fleet is trained, and prints it.

    train/plan.json decides if it is there and answers these settings. Else a plan is made and
    written; of several tasks that do so at the same time one is first, and all use its plan.

    Args:
      plan: what is trained.
      store: the workdir.
      run: the settings of chunk, form, devices and memory.
      models: how many models are trained now.
      first: whether the plan is printed.

    Raises:
      OutOfMemory: the plan does not fit; nothing has been trained yet.
      ValueError: the plan on disk is of another kind of device.
    """
    places, limit = groups(run, shards=plan.learner.shards), memory_limit(run)
    now = machine.here(mesh.members(places))
    known, program = distributed.read(lambda: read_plan(store.train, run=store.run)), None
    if known is not None:
        check_machine(known, now, path=store.train.plan)
    if known is None or not known.answers(run):
        new, program = chosen(plan, run=run, models=models, here=places, limit=limit)
        kept = new.plain() | dict(run=store.run)
        if known is not None:
            jobs.say(
                f"train: planned again with chunk {new.chunk} in the form {new.form}, no longer "
                f"{known.chunk}{f' in the form {known.form}' if known.form else ''}; models that "
                "are trained from here on can differ in their last bits from those of the first "
                "plan."
            )
            files.write_json(store.train.plan, kept, seal=True)
            first_here = distributed.is_writer()
        else:
            first_here = files.create_json(store.train.plan, kept, seal=True)
        distributed.wait()  # until the writer has written
        if first_here:
            known = new
        else:
            known = read_plan(store.train, run=store.run)
            if known is None or not known.answers(run):
                files.write_json(store.train.plan, kept, seal=True)
                known = new
            check_machine(known, now, path=store.train.plan)
        decided = lambda plan: (plan.chunk, plan.form, plan.layers, plan.units)  # noqa: E731
        if decided(known) != decided(new):
            program = None
    if known.mesh != meshed(run):  # another part of the state is on each device
        known, program = replanned(plan, known, run=run, place=places[0])
    lanes = min(run.lanes or default_lanes(places), -(-models // known.chunk))
    if distributed.here().count > 1:
        lanes = 1  # all processes train the same chunk at a time
    elif not run.lanes:
        fitting = (
            n for n in range(1, lanes + 1) if needed_bytes(run, known.cost, n) <= limit.bytes
        )
        lanes = max(fitting, default=1)
    check_memory(run, known.cost, chunk=known.chunk, lanes=lanes, limit=limit)
    if first:
        for line in lines(known, run=run, models=models, lanes=lanes, learner=plan.learner):
            jobs.say(line)
    return Planned(known, program or programs_of(plan, known, place=places[0]), lanes)


def chosen(
    plan: FleetPlan, *, run: RunSettings, models: int, here: Sequence, limit: memory.Limit
) -> tuple[Execution, programs.Programs | None]:
    """Returns a new plan, measured where run.chunk or run.form is 'auto', and its programs.

    Programs are returned if they are compiled.
    """
    common = dict(learner=plan.learner, pool=plan.pool, rows_K=plan.rows_MK[0])
    common |= dict(weight_K=plan.weight_MK[0])
    platform = here[0].platform
    forms = programs.candidates(platform) if run.form == "auto" else ()
    forms = forms or (run.form or programs.default_form(platform),)
    chunks = cost.ladder(models) if run.chunk in AUTO else (int(run.chunk),)
    most = -(-models // chunks[0])
    several = len(forms) * len(chunks) > 1 or run.chunk in AUTO
    if several and plan.learner.units:
        raise ValueError(
            f"learner.privacy.physical_batch='auto' is chosen for a given number of models, and "
            f"run.chunk={run.chunk!r} with run.form={run.form!r} is measured: name run.chunk and "
            "leave run.form out, or name learner.privacy.physical_batch."
        )
    least = cost.least(**common, chunk=chunks[0], pool_bytes=run.pool_bytes, device=here[0])
    program, timed, units = None, (), 0
    lanes = min(run.lanes, most) if run.lanes else 1
    check_memory(run, least, chunk=chunks[0], lanes=lanes, limit=limit)
    table = NO_LAYERS
    if "layers" in forms:
        table = layerwise.fastest(**common, log=jobs.say)
    common |= dict(pool_bytes=run.pool_bytes)
    if several:
        what = [w for w, some in (("form", forms), ("chunk", chunks)) if len(some) > 1] or ["chunk"]
        jobs.say(f"measuring the fastest {' and '.join(what)} (kept in train/plan.json) ...")
        share = 1 if platform != "cpu" else len(mesh.members(here))
        share *= min(run.lanes or default_lanes(here), most)
        form, chunk, price, timed = cost.fastest(
            **common,
            forms=forms,
            chunks=chunks,
            memory_bytes=limit.bytes // share,
            log=jobs.say,
            choice=table,
            device=here[0] if isinstance(here[0], mesh.Group) else None,
        )
    else:
        form, chunk = forms[0], chunks[0]
        fixed = dict(validation=plan.validation is not None, devices=mesh.over(here[0]))
        fixed |= dict(form=form, choice=table if form == "layers" else None)
        for units in unit_ladder(plan.learner.units):
            program = programs.make(learner=plan.learner, chunk=chunk, units=units, **fixed)
            price = cost.expected(**common, chunk=chunk, program=program, device=here[0])
            needed = needed_bytes(run, price, lanes)
            if units:
                jobs.say(
                    f"physical_batch='auto': {units} of {plan.learner.units} units at a time need "
                    f"{size(needed)} of {size(limit.bytes)}"
                )
            if needed <= limit.bytes:
                break
    execution = Execution(
        chunk=chunk,
        form=form,
        block=chunk,
        asked=dict(chunk=run.chunk, form=run.form),
        precision=plan.precision,
        steps=price.steps,
        parameters=price.parameters,
        bytes=price.bytes,
        shared=price.shared,
        seconds=price.seconds if timed else None,
        measured=tuple(
            dict(form=row.form, chunk=row.chunk, seconds=row.cost.seconds, bytes=row.cost.bytes)
            for row in timed
        ),
        machine=machine.here(mesh.members(here)),
        layers=table if form == "layers" else NO_LAYERS,
        units=units,
        mesh=meshed(run),
    )
    return execution, program


def unit_ladder(units: int) -> tuple[int, ...]:
    """Returns the numbers of units that are tried, the largest first: all, 1/2, 1/4, ... of them.

    >>> unit_ladder(10), unit_ladder(0)
    ((10, 5, 3, 2, 1), (0,))
    """
    tried = [-(-units // 2**k) for k in range(max(1, units).bit_length() + 1)]
    return tuple(dict.fromkeys(tried))


def replanned(
    plan: FleetPlan, known: Execution, *, run: RunSettings, place
) -> tuple[Execution, programs.Programs]:
    """Returns the plan for another mesh, of which chunk and form stay, and its programs."""
    program = programs_of(plan, known, place=place)
    price = cost.expected(
        learner=plan.learner,
        pool=plan.pool,
        rows_K=plan.rows_MK[0],
        weight_K=plan.weight_MK[0],
        chunk=known.chunk,
        pool_bytes=run.pool_bytes,
        program=program,
        device=place,
    )
    now = dict(bytes=price.bytes, shared=price.shared, seconds=None, mesh=meshed(run))
    return dataclasses.replace(known, **now), program


def meshed(run: RunSettings) -> dict[str, Any] | None:
    """Returns run.mesh with its defaults, as a plan keeps it; None if devices train alone."""
    if run.mesh is None or run.mesh.get("data", 1) == 1:
        return None
    return dict(model=1, data=1, parameters=False) | dict(run.mesh)


def programs_of(plan: FleetPlan, execution: Execution, *, place) -> programs.Programs:
    """Returns the programs of a plan on a device or a group; nothing is compiled yet."""
    return programs.make(
        learner=plan.learner,
        chunk=execution.chunk,
        validation=plan.validation is not None,
        form=execution.form,
        choice=execution.layers if execution.form == "layers" else None,
        devices=mesh.over(place),
        units=execution.units,
    )


def check_machine(known: Execution, now: machine.Machine, *, path) -> None:
    """Says what another number of cores or another version does to the bits of the models.

    Raises:
      ValueError: the plan was made on another kind of device.
    """
    if known.machine is None:
        return
    if machine.other_kind(known.machine, now):
        raise ValueError(
            f"{path} was planned on {known.machine.hardware}, and this run has {now.hardware}: "
            "another kind of device needs another plan and gives other bits. Continue on the first "
            "kind, or use another workdir. Models of both kinds can make one fleet, only not bit "
            "for bit the same as of one kind: for that, delete train/plan.json, and the rest is "
            "planned here."
        )
    changes = machine.other_bits(known.machine, now)
    if changes:
        jobs.say(f"train: this fleet was begun {changes}. {machine.ELSEWHERE}")


def halved(known: Execution, *, store: Store, error: str) -> Execution:
    """Returns the plan with half its chunk, after memory ran out, and writes it.

    Of a chunk of one model, half as many units are computed together where that is the plan's
    choice.
    """
    shown = f" ({error})" if error else ""
    if known.chunk == 1:
        new = dataclasses.replace(known, units=-(-known.units // 2))
        jobs.say(
            f"train: out of memory with {known.units} units at a time{shown}; they are halved to "
            f"{new.units} and training goes on from its checkpoints. Models that are trained from "
            "here on can differ in their last bits."
        )
        files.write_json(store.train.plan, new.plain() | dict(run=store.run), seal=True)
        return new
    new = dataclasses.replace(known, chunk=known.chunk // 2)
    jobs.say(
        f"train: out of memory with chunk {known.chunk}{shown}; the chunk is halved to {new.chunk} "
        "and training goes on from its checkpoints. Models that are trained from here on can "
        f"differ in their last bits from those of chunk {known.chunk}; run.chunk={new.chunk} asks "
        "for it from the start."
    )
    files.write_json(store.train.plan, new.plain() | dict(run=store.run), seal=True)
    return new


def exhausted(planned: Planned, *, run: RunSettings, error: Exception) -> memory.OutOfMemory:
    """Returns the error of a run for which half a chunk, or a chunk of one model, is too large."""
    known, lanes = planned.execution, planned.lanes
    less = [f"run.lanes below {lanes}"] if lanes > 1 else []
    less += [f"run.chunk below {known.chunk}"] if known.chunk > 1 else []
    if known.chunk > 1 and known.form not in ("turns", "layers"):
        less += ["run.form='turns' (the activations of one model at a time)"]
    less += [f"run.pool_bytes below {size(run.pool_bytes)} (examples are streamed)"]
    less += ["a smaller learner.batch_size (another training, in another workdir)"]
    half = f", half of the {known.chunk * 2} before" if known.chunk < known.block else ""
    return memory.OutOfMemory(
        memory.sentence(
            error,
            what=f"training {known.chunk} models in one program{half}",
            remedy=f"Set {', or '.join(less)}.",
            limit=memory_limit(run),
        )
    )


def lines(
    known: Execution, *, run: RunSettings, models: int, lanes: int, learner: Learner
) -> list[str]:
    """Returns the lines that say what is trained and where, and how long it takes if measured."""
    places = groups(run, shards=learner.shards)
    here, epochs = mesh.members(places), learner.epochs
    now, count = machine.here(here), len(places)
    each = needed_bytes(run, known.cost, lanes) / (len(here) if now.platform == "cpu" else 1)
    shared = ""
    if isinstance(places[0], mesh.Group):
        kept = "each with a part of the state, " if places[0].parameters else ""
        shared = (
            f"{count} group{'s' * (count > 1)} of {len(places[0].devices)} devices that share "
            f"batches of {learner.shards} shards, {kept}of "
        )
    usual = known.form in ("", programs.default_form(now.platform))
    usual |= known.chunk == 1 and known.form != "layers"
    form = "" if usual else f"form {known.form}, "
    text = [
        f"plan: {models} model{'s' * (models > 1)} to train x {epochs} epochs x {known.steps} "
        f"steps, {known.parameters:,} parameters each; chunk {known.chunk}, {lanes} at a time on "
        f"{shared}{now.hardware}, about {size(each)} on each, in "
        f"{precision.described(known.precision, now.platform)}; {form}{now.software}"
    ]
    if known.seconds:
        seconds = known.seconds * known.steps * epochs * models / count
        text.append(
            f"about {duration(seconds)} by the measured step (an upper bound if models stop early)"
        )
    return text


def devices(run: RunSettings) -> list:
    """Returns the local devices that the run may use.

    There are run.devices of them, or all if that is 0; of several processes each has one.

    Raises:
      ValueError: the machine has fewer devices.
    """
    available = jax.local_devices()
    if run.devices > len(available):
        raise ValueError(
            f"run.devices={run.devices} but this machine has {len(available)} "
            f"({available[0].platform})."
        )
    if distributed.here().count > 1:
        return available[:1]
    return available[: run.devices or len(available)]


def groups(run: RunSettings, *, shards: int) -> list:
    """Returns the devices on which a fleet is trained, or with run.mesh the groups of them.

    Raises:
      ValueError: the mesh does not fit to the devices, to learner.shards or to other fields.
    """
    if run.mesh is None:
        return devices(run)
    if run.devices:
        raise ValueError(
            f"run.devices={run.devices} and run.mesh both say which devices are used; leave "
            "run.devices out."
        )
    count = distributed.here().count
    made = registry.call(
        mesh.make,
        "run.mesh",
        run.mesh,
        devices=jax.devices() if count > 1 else jax.local_devices(),
        shards=shards,
    )
    if not isinstance(made[0], mesh.Group):
        return made if count == 1 else devices(run)
    if run.lanes > 1:
        raise ValueError(
            f"run.lanes={run.lanes}: the devices of a group (run.mesh.data) train one chunk at a "
            "time; leave run.lanes out."
        )
    if count > 1:
        if (len(made), len(mesh.members(made))) != (1, len(jax.devices())):
            raise ValueError(
                f"run.mesh of {count} processes: all their {len(jax.devices())} devices are one "
                f"group, model=1 and data={len(jax.devices())}, not {dict(run.mesh)}. Fleets of "
                "several groups are trained by tasks."
            )
        if run.chunk in AUTO or run.form in ("auto", "layers"):
            raise ValueError(
                f"run.chunk={run.chunk!r}, run.form={run.form!r}: nothing is measured on a mesh of "
                "several processes; name a chunk, and leave run.form out."
            )
    return made


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
    count = len(here) if run.mesh is None else run.mesh.get("model", 1) * run.mesh.get("data", 1)
    share = count if here[0].platform == "cpu" else 1
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


def read_plan(train: Trained, *, run: str) -> Execution | None:
    """Returns the training plan of this run on disk; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = train.plan
    if not path.exists():
        return None
    needs = dict(chunk=int, steps=int, parameters=int, bytes=int, seconds=int | float | None)
    plan = files.read_json(path, needs=needs)
    form = plan.get("form", "")
    if plan["chunk"] < 1:
        raise ValueError(files.damaged(path, ValueError(f"chunk is {plan['chunk']}")))
    if form not in ("", *programs.FORMS):
        raise ValueError(files.damaged(path, ValueError(f"form is {form!r}")))
    try:
        table = Table.of(plan.get("layers", ()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(files.damaged(path, error)) from error
    if plan.get("run", run) != run:
        jobs.say(f"{path} belongs to another run; it is measured again.")
        return None
    return Execution(
        chunk=plan["chunk"],
        form=form,
        block=int(plan.get("block", plan["chunk"])),
        asked=plan.get("asked", {}),
        precision=plan.get("precision", precision.DEFAULT),
        steps=plan["steps"],
        parameters=plan["parameters"],
        bytes=plan["bytes"],
        shared=plan.get("shared", 0),
        seconds=plan["seconds"],
        measured=tuple(plan.get("measured", ())),
        machine=machine.of(plan.get("machine")),
        layers=table,
        units=int(plan.get("units", 0)),
        mesh=plan.get("mesh"),
    )


def fleet_chunk(store: Store, run: RunSettings) -> int:
    """Returns the chunk with which the fleet was trained; run.chunk if there is no plan on disk."""
    plan = read_plan(store.train, run=store.run)
    if plan is not None:
        return plan.chunk
    return 1 if run.chunk in AUTO else int(run.chunk)
