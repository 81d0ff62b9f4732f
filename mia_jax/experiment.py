"""From a config to a finished run: the only file that knows ConfigDict. Below it there are plain keyword arguments."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import checks, jobs, precision, reporting, stages, workdir
from mia_jax.data import augment
from mia_jax.prepare import Audit, prepare, prepare_scores
from mia_jax.progress import size
from mia_jax.training import memory

Path = pathlib.Path
STAGES = ("train", "query", "attack", "report")


def run(
    config,
    *,
    workdir_path: str | Path,
    stages_wanted: Sequence[str] = STAGES,
    extend: bool = False,
    arrays: Mapping | None = None,
    task: tuple[int, int] | None = None,
    pause: Callable = lambda: None,
) -> dict:
    """Runs the wanted stages of every seed of the config; returns the report (of the seeds together if there are several).

    `config` is what configuration.complete made. Finished stages are skipped; a workdir of another config is a ValueError that names the keys.
    A config of configuration.scores audits arrays that were brought (`arrays`: from memory). With `extend` a fleet may grow; attacks and reports
    of the smaller one are set aside. Several seeds live in workdir/seed-<n>. A `task` (i, n) trains its share of the models and does nothing else;
    `pause()` is called at safe places and may raise to end the run (mia_jax.jobs).
    """
    check_wanted(stages_wanted)
    root = Path(workdir_path)
    config = plain(config)
    seeds = checked_seeds(config.pop("seed"))
    reports, failed, numerics = {}, {}, precision.settings()
    if numerics["x64"]:
        stages.say("jax_enable_x64 is on: this run computes in 32 bits all the same, so that its results are those of a run without it.")
    with precision.single():
        for seed in seeds:
            folder = root if len(seeds) == 1 else root / f"seed-{seed}"
            given = dict(folder=folder, wanted=stages_wanted, extend=extend, task=task, pause=pause, numerics=numerics)
            try:
                with in_memory("preparing the data, the design and the model", "Use fewer examples, or a smaller model."):
                    audit = prepare_scores(config, seed=int(seed), arrays=arrays) if "scores" in config else prepare(config, seed=int(seed))
                if task is None:
                    check_stages(folder, wanted=stages_wanted, trains=audit.model is not None)
                reports[seed] = run_one(audit, **given, called=arrays is not None)
            except jobs.Paused:
                raise
            except Exception as error:
                if len(seeds) == 1:
                    raise
                failed[seed] = error
                jobs.say(f"seed {seed} failed: {jobs.failure(error)}")
        if failed:
            raise_failed(failed, seeds=len(seeds))
        if len(seeds) > 1 and task is None and "report" in stages_wanted:
            return reporting.report_seeds(reports, folder=root / "report")
    return reports[seeds[0]]


def raise_failed(failed: Mapping[int, Exception], *, seeds: int) -> None:
    """The error of a run of several seeds of which some failed: the one that all share, or ValueError that names each seed."""
    first = next(iter(failed.values()))
    if len(failed) == seeds and len({str(error) for error in failed.values()}) == 1:
        raise first
    reasons = "; ".join(f"seed {seed}: {' '.join(str(error).split()) or type(error).__name__}" for seed, error in failed.items())
    raise ValueError(f"{len(failed)} of {seeds} seeds failed, the others are finished, and there is no report over all seeds: {reasons}") from first


def check_wanted(stages_wanted: Sequence[str]) -> None:
    """ValueError unless there are stages, and all exist."""
    if not stages_wanted:
        raise ValueError(f"stages_wanted= is empty; name some of {', '.join(STAGES)}.")
    for stage in stages_wanted:
        checks.one_of(STAGES, stage=stage)


def checked_seeds(given) -> tuple[int, ...]:
    """The seeds of a config; ValueError unless they are different whole numbers >= 0, at least one."""
    seeds = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not seeds or len(set(seeds)) < len(seeds) or any(not isinstance(s, int) or s < 0 for s in seeds):
        raise ValueError(f"seed={seeds} must be different whole numbers >= 0, at least one.")
    return seeds


def check_stages(folder: Path, *, wanted: Sequence[str], trains: bool) -> None:
    """ValueError that names every earlier stage of which a workdir holds nothing and which is not wanted, before the workdir is touched."""
    first = min(STAGES.index(stage) for stage in wanted)
    made = dict(train=folder / "train" / "model", query=folder / "signal", attack=folder / "attack")
    missing = [stage for stage in STAGES[:first] if not made[stage].exists() and (trains or stage == "attack")]
    if missing:
        raise ValueError(
            f"the stage {STAGES[first]} reads what earlier stages made, and {folder} holds nothing of {', '.join(missing)}: ask for all of them, "
            f"stages_wanted={','.join(dict.fromkeys([*missing, *wanted]))}."
        )


def plain(config) -> dict:
    """The config as nested dicts of plain values."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def run_one(
    audit: Audit,
    *,
    folder: Path,
    wanted: Sequence[str],
    extend: bool,
    task: tuple[int, int] | None,
    pause: Callable,
    numerics: Mapping,
    called: bool = False,
) -> dict:
    """The wanted stages of one seed in one workdir; `numerics` (precision.settings) go to run.json.

    `called` by a program (mia_jax.audit): progress of attacks and report is shown on a terminal only, and remedies are its arguments, not flags.
    """
    if task is not None and (audit.model is None or extend or "train" not in wanted):
        what = "extend=True: grow the fleet first, without a task" if extend else "no training: only the train stage is shared"
        raise ValueError(f"task={task[0]}/{task[1]} does not go with {what}.")
    workdir.sweep(folder)
    log = RunLog(folder / ("run.json" if task is None else f"run.task-{task[0]}-of-{task[1]}.json"), seed=audit.seed, numerics=numerics)
    place = Place(audit, folder=folder, extend=extend, called=called, begin=log.begin)
    asked = () if audit.model is None else augment.views(audit.config["query"]["views"])
    usable = lambda: stages.without_failed(audit, folder=folder)  # noqa: E731  (as it is when a stage begins)
    begin = place.begin
    todo = dict(
        train=lambda: stages.train(audit, folder=folder, task=task, pause=pause, begin=begin),
        query=lambda: stages.query(usable(), folder=folder, views=asked, pause=pause, begin=begin),
        attack=lambda: stages.attack(usable(), folder=folder, lines=not called, begin=begin),
        report=lambda: reporting.report(usable(), folder=folder, versions=versions(), lines=not called, begin=begin),
    )
    if task is not None:
        todo = dict(train=todo["train"])
    results = {}
    try:
        for stage in (stage for stage in todo if stage in wanted):
            pause()
            with in_memory(f"running the stage {stage}", remedy_of(stage, audit)):
                results[stage] = log.timed(stage, todo[stage])
    except jobs.Paused:
        raise
    except Exception:
        place.release()
        raise
    place.write_config()
    return results.get("report", {})


@contextlib.contextmanager
def in_memory(what: str, remedy: str):
    """Turns any error by which memory ran out into OutOfMemory, one message with the numbers and the remedy."""
    try:
        yield
    except Exception as error:
        if isinstance(error, memory.OutOfMemory) or not memory.ran_out(error):
            raise
        device = jax.local_devices()[0] if "stage" in what else None
        raise memory.OutOfMemory(memory.sentence(error, what=what, remedy=remedy, limit=memory.available(device))) from error


def remedy_of(stage: str, audit: Audit) -> str:
    """How the memory of a stage is lowered, with the numbers of this run."""
    run, query = audit.config["run"], audit.config["query"]
    if audit.model is None or stage in ("attack", "report"):
        return f"Use fewer attacks, examples or models, or fewer bootstrap draws (draws={audit.config['report']['draws']})."
    if stage == "query":
        return f"Lower run.query_chunk ({run['query_chunk'] or 'as run.chunk'}) or query.batch_size ({query['batch_size']})."
    lanes = run["lanes"] or "one per core"
    return f"Lower run.chunk ({run['chunk']}), run.lanes ({lanes}) or run.pool_bytes ({size(run['pool_bytes'])})."


class Place:
    """The workdir of one run. It is checked at once and becomes this run's with the first file that is written, by `begin()`.

    A run that fails before it has made anything lets go of it, so that another config can be tried in the same folder.
    """

    def __init__(self, audit: Audit, *, folder: Path, extend: bool, called: bool, begin: Callable):
        self.audit, self.folder, self.called, self.tell, self.begun, self.first = audit, folder, called, begin, False, False
        workdir.check_claim(folder / "train", audit.train_config, remedy=remedy(folder, called=called))
        self.grows = growing(audit, folder=folder, extend=extend, called=called)

    def begin(self) -> None:
        """Claims the folder, draws the membership, sets aside what belongs to a smaller fleet, and writes down the start; only once."""
        if self.begun:
            return
        self.first = workdir.claim(self.folder / "train", self.audit.train_config, remedy=remedy(self.folder, called=self.called))
        self.begun = True
        if self.grows:
            for stale in ("attack", "report"):
                moved = workdir.set_aside(self.folder / stale)
                if moved:
                    stages.say(f"{stale} of the smaller fleet is kept in {moved.name}/")
        path = membership_file(self.folder)
        if self.grows or not path.exists():
            workdir.write_npz(path, dict(run=self.audit.run), **membership_arrays(self.audit.design))
        self.write_config()
        self.tell()

    def write_config(self) -> None:
        """config.json, the whole config as it was typed last; unchanged on a disk that cannot be written if there was nothing to do."""
        path, config = self.folder / "config.json", dict(self.audit.config) | dict(seed=self.audit.seed)
        try:
            if path.exists() and not workdir.differences(workdir.read_json(path, needs={}), config):
                return
        except ValueError:
            pass  # damaged: nothing reads it, and it is written anew
        _unless_read_only(lambda: workdir.write_json(path, config), strict=self.begun)

    def release(self) -> None:
        """Lets go of the folder if this run was the first in it and has made nothing that another config could not use."""
        made = [p for p in self.folder.rglob("*") if p.is_file() and p.name not in ("config.json", "run.json", "metrics.jsonl")]
        if not self.first or set(made) - {membership_file(self.folder), self.folder / "train" / "plan.json"}:
            return
        workdir.set_aside(self.folder / "metrics.jsonl")
        for path in [*made, self.folder / "config.json", self.folder / "train" / "config.json"]:
            path.unlink(missing_ok=True)


def _unless_read_only(write: Callable, *, strict: bool) -> None:
    """write(); that the disk is read-only is only an error if the run has something to do (`strict`)."""
    try:
        write()
    except OSError as error:
        if strict or error.errno not in workdir.READ_ONLY:
            raise


class RunLog:
    """run.json: versions, devices, JAX's arithmetic and revision of every start in this workdir, and the seconds that each of its stages took."""

    def __init__(self, path: Path, *, seed: int, numerics: Mapping):
        self.path, self.begun, self.runs = path, False, None
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.run = versions() | dict(numerics=dict(numerics), seed=seed, started=started, seconds={})

    def begin(self) -> None:
        """Writes down the start of a run that has something to do."""
        self.begun = True
        self.write()

    def write(self) -> None:
        """The file with this start as its last entry; a damaged one is set aside."""
        if self.runs is None:
            try:
                self.runs = workdir.read_json(self.path, needs=dict(runs=list))["runs"] if self.path.exists() else []
            except ValueError as error:
                stages.say(f"{error} It is kept as {workdir.set_aside(self.path).name}; no result depends on it.")
                self.runs = []
        workdir.write_json(self.path, dict(runs=[*self.runs, self.run]), seal=True)

    def timed(self, stage: str, work):
        """The result of work(); its seconds are written down, also if it fails."""
        start = time.monotonic()
        try:
            result = work()
        except BaseException:
            self._took(stage, start, done=False)
            raise
        self._took(stage, start, done=True)
        return result

    def _took(self, stage: str, start: float, *, done: bool) -> None:
        self.run["seconds"][stage] = round(time.monotonic() - start, 3)
        if self.begun or (done and self.path.exists()):
            _unless_read_only(self.write, strict=self.begun)


OTHER_WORKDIR = "Use another workdir for another config, or type the values on disk."
OTHER_FOLDER = "Give other arrays or settings another folder=, or leave folder out."


def remedy(folder: Path, *, called: bool) -> str:
    """What to do about a workdir of another config."""
    text = OTHER_FOLDER if called else OTHER_WORKDIR
    made = any(any((folder / "train" / name).glob("*")) for name in ("model", "running", "failed")) or (folder / "signal").exists()
    return text if made else f"{text} Nothing has been made there yet: if no other process is at work in it, the folder can be deleted."


def membership_file(folder: Path) -> Path:
    """Who trained on what."""
    return folder / "design" / "membership.npz"


def membership_arrays(design) -> dict[str, np.ndarray]:
    """The arrays of `membership_file`."""
    names = ("member_MN", "evaluated_MN", "shadow_MM", "population_N", "unit_M")
    return dict(targets=np.asarray(design.targets)) | {name: getattr(design, name) for name in names}


def growing(audit: Audit, *, folder: Path, extend: bool, called: bool) -> bool:
    """Whether the fleet on disk grows; ValueError if it is another one, or may not."""
    path, design = membership_file(folder), audit.design
    if not path.exists():
        return False
    stored, models = workdir.read_npz(path).get("member_MN", np.zeros(0)), len(design.member_MN)
    if stored.ndim != 2 or stored.dtype != design.member_MN.dtype:
        raise ValueError(workdir.damaged(path, ValueError(f"its member_MN is {stored.dtype}{list(stored.shape)}")))
    if called and len(stored) != models:
        raise ValueError(f"{folder} holds an audit of {len(stored)} models, and these arrays are of {models}. {OTHER_FOLDER}")
    if len(stored) > models:
        raise ValueError(
            f"{folder} holds a fleet of {len(stored)} models and the config asks for {models}. A fleet can grow, not shrink: use "
            f"design.models={len(stored)} (design.targets chooses which are audited), or another workdir."
        )
    if not np.array_equal(stored, design.member_MN[: len(stored)]):
        raise ValueError(f"{path} records another membership than this config draws, so the results would be wrong. {remedy(folder, called=called)}")
    if len(stored) < models and not extend:
        raise ValueError(f"design.models: {len(stored)} on disk, {models} in this run. Set extend=True to grow the fleet, or use another workdir.")
    return len(stored) < models


def versions() -> dict:
    """Versions, devices and revision that a result depends on."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "ml_collections")
    found = {name: importlib.metadata.version(name) for name in packages}
    here = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = None
    devices = [f"{d.platform}:{d.device_kind}" for d in jax.local_devices()]
    return dict(packages=found, python=platform.python_version(), devices=devices, cores=os.cpu_count(), git=revision)


def model_summary(config) -> str:
    """The table of the config's model: layers, shapes, parameters."""
    if "scores" in config:
        raise ValueError("this config has no model, so there is no summary of one: nothing is trained.")
    with precision.single():
        audit = prepare({k: v for k, v in plain(config).items() if k != "seed"}, seed=0)
        return audit.model.summary(audit.pool.x[:1])


def debug_config(config):
    """The config with 4 models (as many as its design allows), 1 epoch and small batches of work, for --debug."""
    if "scores" in config:
        raise ValueError("this config trains nothing, so there is no tiny fleet of it for debugging.")
    config = type(config)(config).unlock()
    for field, small in dict(models=4, sources=1, targets=2).items():
        if isinstance(config.design.get(field), int):
            config.design[field] = min(config.design[field], small)
    config.learner.epochs = min(config.learner.epochs, 1)
    config.learner.snapshots = (1,) if config.learner.snapshots else ()
    if "warmup_epochs" in config.learner:
        config.learner.warmup_epochs = 0
    if not isinstance(config.learner.get("schedule", ""), str):  # its steps and epochs are those of the whole training
        config.learner.schedule = "constant_schedule"
    config.run.chunk = 2
    config.report.draws = 40
    return config
