"""Three of the four stages over one workdir (REPORT is reporting.py). Each reads plain files, writes plain files, and skips what is there."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import answers, jobs, views, workdir
from mia_jax.designs import _failed
from mia_jax.privacy import canary_scores
from mia_jax.progress import Progress, duration, size
from mia_jax.report import stale
from mia_jax.training import checkpoint, failures, fleet, measure, memory, probing, trajectory
from mia_jax.training import oracle as oracles
from mia_jax.training import query as queries
from mia_jax.training.spread import cores, default_lanes

Path = pathlib.Path
AUTO = ("auto", 0)  # config.run.chunk: measure the fastest
VALIDATION = ("none", "nonmembers", "members", "population")


def say(text: str) -> None:
    """A line for people, on stderr if that takes it."""
    jobs.say(text)


def devices(audit) -> list:
    """The local devices that the run may use (config.run.devices; 0 = all)."""
    found, wanted = jax.local_devices(), audit.config["run"]["devices"]
    if wanted > len(found):
        raise ValueError(f"run.devices={wanted} but this machine has {len(found)} ({found[0].platform}).")
    return found[: wanted or len(found)]


def all_models(audit) -> list[int]:
    """0..M-1 without those that failed."""
    return [m for m in range(len(audit.design.member_MN)) if m not in audit.failed]


def without_failed(audit, *, folder: Path):
    """The audit without the models that failed, as recorded in the workdir; FloatingPointError if nothing is left to be audited."""
    failed = failures.known(folder / "train", range(len(audit.rows_MK)))
    if not failed:
        return audit
    left = dataclasses.replace(audit, design=_failed.without(audit.design, failed), failed=failed)
    if not left.own_models:
        raise FloatingPointError(failures.refusal(failed, why=f"all {len(failed)} models failed"))
    if not left.design.targets:
        raise FloatingPointError(
            failures.refusal(failed, why=f"{len(failed)} of {len(audit.rows_MK)} models failed and no target with shadows is left")
        )
    return left


def nothing() -> None:
    """The default of `begin` and `pause`."""


def train(audit, *, folder: Path, task: tuple[int, int] | None = None, pause: Callable = nothing, begin: Callable = nothing) -> None:
    """TRAIN: the models that are not on disk yet; of a `task` (i, n) those of its share, whole chunks dealt out in turn.

    In every stage `begin()` is called before the first file is written, and not at all if there is nothing to do.
    """
    chunk = audit.config["run"]["chunk"]
    if task is not None and chunk in AUTO:
        raise ValueError(f"task={task[0]}/{task[1]} needs a number in run.chunk: tasks that measure the fastest chunk would not share one fleet.")
    own = jobs.share(audit.own_models, task, block=1 if task is None else chunk)
    whose, trained = "of this task " * (task is not None), False
    while True:  # again for every further attempt at the models that failed
        failed = failures.known(folder / "train", own)
        attempts = failures.attempts(failed, audit.config["run"]["retries"])
        todo = sorted(set(own) - set(checkpoint.finished(folder / "train", own)) - (set(failed) - set(attempts)))
        if not todo:
            break
        trained = True
        begin()
        for m in attempts:
            say(f"train: model {m} failed and is trained anew with another key (attempt {attempts[m] + 1}).")
            failures.forget(folder, m)
        plan = fleet_plan(audit, folder=folder, models=len(todo))
        with jobs.deferred(pause):
            fleet.train(
                learner=audit.learner,
                pool=audit.pool,
                rows_MK=audit.rows_MK,
                weight_MK=audit.weight_MK,
                validation=validation_rows(audit),
                seed=audit.seed,
                models=todo,
                folder=folder / "train",
                run=audit.run,
                chunk=plan["chunk"],
                devices=devices(audit),
                lanes=plan["lanes"],
                checkpoint_every=audit.config["run"]["checkpoint_every"],
                pool_bytes=audit.config["run"]["pool_bytes"],
                on_epoch=hooks(audit, folder=folder),
                metrics_file=folder / "metrics.jsonl",
                pause=pause,
                attempts=attempts,
            )
    if not trained and len(own) > len(failed):
        say(f"train: all {len(own) - len(failed)} models {whose}are on disk.")
    if task is None:
        without_failed(audit, folder=folder)  # enough are left
    if failed:
        say(
            f"warning: {len(failed)} of {len(own)} models {whose}failed and the run goes on without them: {'; '.join(failures.sentences(failed)[:3])}"
            f"{'; ...' * (len(failed) > 3)}. run.retries=1 trains each anew with another key; the usual remedy is a lower "
            "learner.learning_rate (with another workdir)."
        )


def hooks(audit, *, folder: Path) -> list[Callable]:
    """What is kept after epochs: snapshots of the variables, scores of watched canaries."""
    section = audit.config["learner"]
    found = [trajectory.saver(folder / "train", section["snapshots"], audit.learner.released, run=audit.run)] if section["snapshots"] else []
    if section["watch"]:
        rows = np.flatnonzero(audit.design.coin_N >= 0)

        def write(name: str, m: int, value_AN: np.ndarray) -> None:
            workdir.write_npy(queries.signal_file(folder / "signal", name, m), value_AN, probing.place(audit.run, name, m))

        found.append(canary_scores.saver(rows, len(audit.pool.y), write))
    return found


def fleet_plan(audit, *, folder: Path, models: int) -> dict:
    """train/plan.json: the chunk (measured once if it is 'auto'), steps, parameters and memory; printed before the first step.

    `lanes`, which change no result, are not on disk: as many as are wanted, or by default as cores feed and memory allows. OutOfMemory if one does
    not fit.
    """
    path, run, here = folder / "train" / "plan.json", audit.config["run"], devices(audit)
    wanted, limit, count = run["chunk"], memory_limit(audit), len(here)
    common = dict(learner=audit.learner, pool=audit.pool, rows_K=audit.rows_MK[0], weight_K=audit.weight_MK[0], pool_bytes=run["pool_bytes"])
    lanes_of = lambda chunk: min(run["lanes"] or default_lanes(here), -(-models // chunk))  # noqa: E731
    plan = read_plan(path, run=audit.run)
    if plan is None or (wanted not in AUTO and wanted != plan["chunk"]):
        if wanted in AUTO:
            check_memory(audit, measure.least(**common, chunk=1), chunk=1, lanes=run["lanes"] or 1, limit=limit)
            say("measuring the fastest chunk (kept in train/plan.json) ...")
            share = 1 if here[0].platform != "cpu" else count
            chunk, cost = measure.best_chunk(**common, models=models, memory_bytes=limit.bytes // (share * lanes_of(1)), log=say)
        else:
            chunk = int(wanted)
            check_memory(audit, measure.least(**common, chunk=chunk), chunk=chunk, lanes=lanes_of(chunk) if run["lanes"] else 1, limit=limit)
            cost = measure.expected(**common, chunk=chunk)
        plan = dict(chunk=chunk, steps=cost.steps, parameters=cost.parameters, bytes=cost.bytes, seconds=cost.seconds if wanted in AUTO else None)
        plan |= dict(shared=cost.shared)
        workdir.write_json(path, plan | dict(run=audit.run), seal=True)
    cost = measure.Cost(plan["bytes"], 0.0, 0.0, plan["steps"], plan["parameters"], plan.get("shared", 0))
    lanes = lanes_of(plan["chunk"])
    if not run["lanes"]:
        lanes = max((n for n in range(1, lanes + 1) if needed_bytes(audit, cost, lanes=n) <= limit.bytes), default=1)
    check_memory(audit, cost, chunk=plan["chunk"], lanes=lanes, limit=limit)
    say(
        f"plan: {models} model{'s' * (models > 1)} to train x {audit.learner.epochs} epochs x {plan['steps']} steps, "
        f"{plan['parameters']:,} parameters each; chunk {plan['chunk']}, {lanes} at a time on {platform(here)}, "
        f"about {size(needed_bytes(audit, cost, lanes=lanes) / (count if here[0].platform == 'cpu' else 1))} on each"
    )
    if plan["seconds"]:
        seconds = plan["seconds"] * plan["steps"] * audit.learner.epochs * models / count
        say(f"about {duration(seconds)} by the measured step (an upper bound if models stop early)")
    return plan | dict(lanes=lanes)


def platform(devices: Sequence) -> str:
    """'1 device (cpu, 2 cores)', '4 devices (gpu, NVIDIA H100)'."""
    one, count = devices[0], len(devices)
    kind = f"{cores()} core{'s' * (cores() > 1)}" if one.platform == "cpu" else one.device_kind
    return f"{count} device{'s' * (count > 1)} ({one.platform}, {kind})"


def memory_limit(audit) -> memory.Limit:
    """What the training may use: config.run.memory_bytes, or what is available."""
    given = audit.config["run"]["memory_bytes"]
    return memory.Limit(given, "config.run.memory_bytes") if given else memory.available(devices(audit)[0])


def needed_bytes(audit, cost: measure.Cost, *, lanes: int) -> int:
    """What a plan needs of one memory: chunks on a device share its examples, devices that are parts of a CPU share their memory."""
    here = devices(audit)
    share = len(here) if here[0].platform == "cpu" else 1
    return share * (cost.bytes + (lanes - 1) * (cost.bytes - cost.shared))


def check_memory(audit, cost: measure.Cost, *, chunk: int, lanes: int, limit: memory.Limit) -> None:
    """OutOfMemory, before anything is trained, if a plan needs more memory than there is."""
    run, needed = audit.config["run"], needed_bytes(audit, cost, lanes=lanes)
    if needed <= limit.bytes:
        return
    one = (cost.bytes - cost.shared) / chunk
    raise memory.OutOfMemory(
        f"the plan needs about {size(needed)} and {size(limit.bytes)} are left ({limit.source}): chunk {chunk} x {lanes} chunks at a time x "
        f"{size(one)} per model of {cost.parameters:,} parameters, and examples of {size(cost.shared or min(run['pool_bytes'], cost.bytes))}. Lower "
        "run.chunk or run.lanes (how many chunks train at a time), or run.pool_bytes, the size from which examples are "
        "streamed; or take a smaller model. If this computation is mistaken, run.memory_bytes=... is taken for what there is."
    )


def read_plan(path: Path, *, run: str) -> dict | None:
    """The plan of this run in train/plan.json; None if there is none. ValueError if it is damaged."""
    if not path.exists():
        return None
    plan = workdir.read_json(path, needs=dict(chunk=int, steps=int, parameters=int, bytes=int, seconds=int | float | None))
    if plan["chunk"] < 1:
        raise ValueError(workdir.damaged(path, ValueError(f"chunk is {plan['chunk']}")))
    if plan.get("run", run) != run:
        say(f"{path} belongs to another run; it is measured anew.")
        return None
    return plan


def fleet_chunk(audit, *, folder: Path) -> int:
    """The chunk that the fleet was trained with; config.run.chunk where plan.json is gone."""
    path, wanted = folder / "train" / "plan.json", audit.config["run"]["chunk"]
    plan = read_plan(path, run=audit.run)
    return plan["chunk"] if plan is not None else (1 if wanted in AUTO else int(wanted))


def validation_rows(audit) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows_MV, weight_MV) of config.learner.validation: a model's evaluated non-members or members, or the population rows; padded."""
    kind, design = audit.config["learner"]["validation"], audit.design
    if kind == "none":
        return None
    chosen_MN = dict(
        nonmembers=design.evaluated_MN & ~design.member_MN,
        members=design.member_MN,
        population=np.broadcast_to(design.population_N, design.member_MN.shape),
    )[kind]
    count_M = chosen_MN.sum(1)
    if not count_M.all():
        raise ValueError(f"learner.validation={kind!r}: model {int(np.argmin(count_M))} has no such row under the design {design.name!r}.")
    order_MV = np.argsort(~chosen_MN, axis=1, kind="stable")[:, : count_M.max()]
    weight_MV = np.arange(count_M.max())[None] < count_M[:, None]
    return np.where(weight_MV, order_MV, order_MV[:, :1]).astype(np.int32), weight_MV.astype(np.float32)


def query(audit, *, folder: Path, views: Sequence[Callable], pause: Callable = nothing, begin: Callable = nothing) -> None:
    """QUERY: every signal of every model; signals that were brought are written as they are."""
    answers.save_given(audit, folder=folder, begin=begin)
    models = audit.own_models
    if not models:
        return
    missing = sorted(set(models) - set(checkpoint.finished(folder / "train", models)))
    bad: dict[int, str] = {}
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(models)} models are not trained (the first is {missing[0]}); add the stage: stages_wanted=train,query,..."
        )
    answers.claim_signals(audit, folder=folder, begin=begin)
    common = dict(
        model=audit.learner.model,
        pool=audit.pool,
        views=views,
        models=models,
        chunk=audit.config["run"]["query_chunk"] or fleet_chunk(audit, folder=folder),
        batch_size=min(audit.config["query"]["batch_size"], len(audit.pool.y)),
        devices=devices(audit),
        pause=pause,
        on_bad=bad.setdefault,
        begin=begin,
        run=audit.run,
    )
    probes = {name: signal for name, signal in audit.signals.items() if signal.ask is not None}
    rows = {name: answers.wanted_rows(audit, name) for name in probes}
    passes = {name: signal for name, signal in audit.signals.items() if signal.ask is None}
    queries.query(signals=passes, models_folder=folder / "train", folder=folder / "signal", **common)
    common["models"] = answering(models, bad)
    if probes:
        own = common | dict(batch_size=audit.config["query"]["ask_batch_size"], seed=audit.seed)
        with jobs.deferred(pause):
            probing.query(signals=probes, rows=rows, design=audit.design, models_folder=folder / "train", folder=folder / "signal", **own)
        common["models"] = answering(models, bad)
    if audit.trajectory:
        ask = functools.partial(queries.query, signals={"loss": audit.signals["loss"]}, **common)
        snapshots = audit.config["learner"]["snapshots"]
        own = dict(train_folder=folder / "train", folder=folder / "signal", run=audit.run, begin=begin)
        trajectory.query(epochs=snapshots, models=common["models"], ask=ask, bad=bad, **own)
        common["models"] = answering(models, bad)
    if audit.config["report"]["epochs"]:
        query_snapshots(audit, folder=folder, **common)
        answering(models, bad)
    for m, reason in sorted(bad.items()):
        say(f"query: model {m} has failed, it {reason}; the run goes on without it.")
        failures.record(folder / "train", m, stage="query", reason=reason, attempt=attempt_of(folder, m))
    audit = without_failed(audit, folder=folder)
    if audit.config["target"]["oracle"]:
        ask_oracle(audit, folder=folder, views=views, begin=begin)


def answering(models: Sequence[int], bad: Mapping[int, str]) -> list[int]:
    """The models without those whose answers are not finite, `bad` {model: what happened}; ValueError if that are all."""
    left = [m for m in models if m not in bad]
    if not left:
        m = min(bad)
        raise ValueError(
            f"no model gives finite answers; {len(bad)} of {len(bad)} fail, the first is model {m}: {bad[m]}. Leave that signal out, or train with a "
            "lower learner.learning_rate in another workdir."
        )
    return left


def attempt_of(folder: Path, m: int) -> int:
    """Which attempt a finished model is; 0 is the first."""
    return int(checkpoint.load_history(folder / "train", m).get("summary/attempt", 0))


def query_snapshots(audit, *, folder: Path, **common) -> None:
    """epoch/<epoch>/signal: what the attacks of config.report.epochs read, of every model as it was after each epoch of learner.snapshots."""
    part = dataclasses.replace(audit, signals={name: audit.signals[name] for name in snapshot_signals(audit)})
    snapshots = dict(epochs=audit.config["learner"]["snapshots"], models=common["models"], run=audit.run)
    ask = queries.program(signals=part.signals, **{k: common[k] for k in ("model", "views", "batch_size", "chunk")})
    for epoch, own in trajectory.complete(**snapshots, train_folder=folder / "train").items():
        answers.claim_signals(part, folder=epoch_folder(folder, epoch), begin=common["begin"])
        answered = dict(models_folder=own, folder=epoch_folder(folder, epoch) / "signal", epoch=epoch)
        queries.query(signals=part.signals, **answered, **common, ask=ask, title=f"query after epoch {epoch}")


def snapshot_signals(audit) -> list[str]:
    """The signals that the models of learner.snapshots are asked for config.report.epochs."""
    if not audit.config["report"]["epochs"] or audit.learner is None:
        return []
    wanted = {signal for name in audit.config["report"]["epochs"] for signal in answers.read_by(audit, name)} | {"loss", "correct"}
    return [name for name in audit.signals if name in wanted]


def epoch_folder(folder: Path, epoch: int) -> Path:
    """Where the answers of the models after an epoch are."""
    return folder / "epoch" / f"{epoch:05d}"


def ask_oracle(audit, *, folder: Path, views: Sequence[Callable], begin: Callable = nothing) -> None:
    """The label-only signals of the black box, the design's last model; its query log is signal/oracle/log."""
    section, own, m = audit.config["target"], folder / "signal" / "oracle", len(audit.design.member_MN) - 1
    if not (own / "config.json").exists():
        begin()
    workdir.claim(own, dict(oracle=section["oracle"]), remedy="Use another workdir for another black box, or delete that folder to ask anew.")
    answer = oracles.answering(section["oracle"], folder=own)
    settings = dict(rate=section["rate"], batch_size=section["batch_size"], name=section["oracle"])
    box = oracles.Oracle(answer, num_classes=audit.pool.num_classes, log=own / "log", **settings)
    rows = {name: answers.wanted_rows(audit, name)[m] for name in audit.signals}
    common = dict(seed=audit.seed, batch_size=audit.config["query"]["ask_batch_size"], folder=folder / "signal", begin=begin, run=audit.run)
    template = jax.eval_shape(audit.learner.model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *audit.pool.x.shape[1:]), np.float32))

    def shadows(count: int, index_B: np.ndarray):
        own = probing.own_models(audit.design, m, count, len(audit.rows_MK))
        variables = checkpoint.load_models(folder / "train", own.tolist(), template, run=audit.run)
        return probing.shadows_of(audit.learner.model, variables, audit.design.member_MN[own][:, index_B])

    try:
        oracles.query(oracle=box, m=m, pool=audit.pool, signals=audit.signals, views=views, rows=rows, shadows=shadows, **common)
    finally:
        say(f"query: the black box was asked {box.asked:,} times in this run; {box.known:,} answers are in {own / 'log'}")


def scored_models(audit) -> tuple[int, ...]:
    """The targets and everything that is a shadow of one: a threshold for a target is chosen on its shadows' scores."""
    shadows_M = audit.design.shadow_MM[list(audit.design.targets)].any(0)
    return tuple(sorted({*audit.design.targets, *np.flatnonzero(shadows_M).tolist()}))


def attack(audit, *, folder: Path, lines: bool = True, begin: Callable = nothing) -> None:
    """ATTACK: attack/<name>/scores.npz, the scores of every target and every shadow, with the digests of what they were made from.

    `lines`: of progress.Progress.
    """
    set_aside_scores(audit, folder=folder, begin=begin)
    progress = Progress(title="attack", total=len(audit.attacks), unit="attack", lines=lines)
    measured, digests = {}, {}
    scored = scored_models(audit)
    membership = workdir.digest(audit.design.member_MN)
    needed = sorted({n for a in audit.attacks.values() for n in a.needs if n in audit.asked})
    for done, (name, one) in enumerate(audit.attacks.items()):
        progress.advance(min(done, 1), name)
        own, claim = folder / "attack" / name, attack_claim(audit, name)
        workdir.check_claim(own, claim, remedy=attack_remedy(own))
        if (own / "scores.npz").exists():
            continue
        behind = answers.defense_of(audit, name)
        if behind not in measured:
            names = needed if not behind[0] else [n for a in audit.attacks if answers.defense_of(audit, a) == behind for n in audit.attacks[a].needs]
            measured[behind] = answers.load_fleet(audit, folder=folder, names=sorted(set(names) & audit.asked), attack=name)
        score_TN = scores(one, measured[behind], scored, answers.key_of(audit, name))
        finite_or_raise(score_TN, audit.design.evaluated_MN, scored, name)
        for signal in set(answers.read_by(audit, name)) - set(digests):
            digests[signal] = stale.of_signal(folder / "signal", signal, len(audit.design.member_MN))
        inputs = dict(signals={signal: digests[signal] for signal in answers.read_by(audit, name)}, membership=membership)
        begin()
        workdir.claim(own, claim, remedy=attack_remedy(own))
        workdir.write_npz(own / "scores.npz", score_place(audit, name) | inputs, score_TN=score_TN, models=np.asarray(scored))
    progress.close()
    if measured:
        attacks, targets = len(audit.attacks), len(audit.design.targets)
        say(f"attack: {attacks} attack{'s' * (attacks > 1)} on {targets} target{'s' * (targets > 1)}")


def set_aside_scores(audit, *, folder: Path, begin: Callable = nothing) -> None:
    """Renames attack/ and report/ if their scores were computed without other failed models than this audit's; nothing is overwritten."""
    claims = [workdir.read_json(path, needs={}).get("failed", []) for path in sorted((folder / "attack").glob("*/config.json"))]
    if any(claim != sorted(audit.failed) for claim in claims):
        begin()
        for stale_part in ("attack", "report"):
            moved = workdir.set_aside(folder / stale_part)
            if moved:
                say(f"{stale_part} of another set of failed models is kept in {moved.name}/")


def attack_remedy(own: Path) -> str:
    """What to do about scores of another config."""
    return f"Give the attack another name in the config, or delete {own} to run it anew."


def score_place(audit, name: str) -> dict:
    """The record of the scores of one attack, apart from their inputs."""
    return dict(run=audit.run, attack=name)


def attack_claim(audit, name: str) -> dict:
    """What decides the scores of an attack, beside the signals: its config, the views, and who trained on what, with labels and columns."""
    d, pool = audit.design, audit.pool
    evidence = workdir.digest(d.member_MN, d.evaluated_MN, d.shadow_MM, d.population_N, d.unit_M)
    data = workdir.digest(np.asarray(pool.y), {k: np.asarray(v).tolist() for k, v in sorted(pool.columns.items())})
    common = dict(query=audit.config["query"]["views"], models=len(d.member_MN), design=evidence, data=data, scored=scored_models(audit))
    common |= dict(failed=sorted(audit.failed)) if audit.failed else {}
    return dict(attack=answers.without_defaults(audit.config["attacks"][name])) | common


def scores(one, measured: views.Fleet, scored: Sequence[int], key) -> np.ndarray:
    """score_TN of the models `scored`, NaN on rows that are not evaluated, for models that the attack cannot reach without shadows, and for shadows
    that cannot be attacked as if they were targets (`attackable`): a threshold is then chosen on the others.
    """
    design = measured.design
    score_TN = np.full((len(scored), design.member_MN.shape[1]), np.nan)
    needs_shadows = any(need in views.SHADOW_NEEDS for need in one.needs)
    reachable = [t for t in scored if not needs_shadows or design.shadow_MM[t].any()]
    reachable = [t for t in reachable if t in design.targets or attackable(one, design, t)]
    if one.score_all is not None and reachable and not design.balance:
        found = one.score_all(dataclasses.replace(measured, design=dataclasses.replace(design, targets=tuple(reachable))), key)
        score_TN[[scored.index(t) for t in reachable]] = found
    else:
        for t in reachable:
            score_TN[scored.index(t)] = one.score(measured.view(t, one.needs, one.knows), key)
    return np.where(design.evaluated_MN[list(scored)], score_TN, np.nan)


FEWEST = 3  # members and non-members that an attack learns from, of each half where it is cross-fitted


def attackable(one, design, t: int) -> bool:
    """Whether an attack finds what it needs if shadow t is taken for a target: reference models that saw no scored row, or all, lack a side."""
    evaluated_N, others = design.evaluated_MN[t], design.shadow_MM[t]
    inside_MN, outside_MN = design.member_MN[others], ~design.member_MN[others]
    least = np.min if design.balance else np.max  # where shadows are hidden, the row with the fewest decides for all
    for need, side_MN in (("shadow_in", inside_MN), ("shadow_out", outside_MN)):
        if need in one.needs and not least(side_MN.sum(0)[evaluated_N], initial=0 if least is np.max else len(others)):
            return False
    if "shadow_own" in one.needs and min(int((side_MN & design.evaluated_MN[others]).sum()) for side_MN in (inside_MN, outside_MN)) < FEWEST:
        return False
    own = [int((side_N & evaluated_N).sum()) for side_N in (design.member_MN[t], ~design.member_MN[t])]
    return "member" not in one.needs or min(own) >= 2 * FEWEST


def finite_or_raise(score_TN: np.ndarray, evaluated_MN: np.ndarray, scored: Sequence[int], name: str) -> None:
    """NaN in the score of an evaluated example is an attack's bug or a broken input: it stops the run and says where."""
    bad = np.isnan(score_TN) & evaluated_MN[list(scored)] & ~np.isnan(score_TN).all(1, keepdims=True)
    if bad.any():
        t, n = np.argwhere(bad)[0]
        raise ValueError(
            f"attack {name!r} scores example {n} of model {scored[t]} as NaN ({int(bad.sum())} such scores). The answers that it reads are finite, "
            "so this is a fault of the attack, not of the model: run without this attack, the others do not depend on it."
        )


def read_scores(audit, *, folder: Path, name: str) -> np.ndarray:
    """score_MN over all models of the design, NaN where an attack has no score."""
    path = folder / "attack" / name / "scores.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run the attack stage first (stages_wanted=attack,report).")
    workdir.check_claim(path.parent, attack_claim(audit, name), remedy=attack_remedy(path.parent))
    stored = workdir.read_npz(path, record=score_place(audit, name))
    score_MN = np.full(audit.design.member_MN.shape, np.nan)
    lacking = [key for key in ("models", "score_TN") if key not in stored]
    if lacking or stored["models"].tolist() != list(scored_models(audit)) or not _fits(stored["score_TN"], score_MN[stored["models"]]):
        shapes = {key: array.shape for key, array in stored.items()}
        raise ValueError(workdir.damaged(path, ValueError(f"it does not hold the scores of the models of this design; it has {shapes}")))
    score_MN[stored["models"]] = stored["score_TN"]
    return score_MN


def _fits(score_TN: np.ndarray, like_TN: np.ndarray) -> bool:
    return score_TN.shape == like_TN.shape and score_TN.dtype.kind == "f"
