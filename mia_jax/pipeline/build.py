"""BUILD: from a config to the objects of a run. The config is a dict here, and nowhere below.

Everything that cannot work is refused before anything is trained (pipeline/validate.py).
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mia_jax import checks, configuration, defenses, query_views, registry
from mia_jax.configuration import settings
from mia_jax.configuration.settings import DataSettings, LearnerSettings, Settings
from mia_jax.data import _canaries as canaries
from mia_jax.data import _pool as pools
from mia_jax.designs import _failed, _rows
from mia_jax.external import arrays as supplied_arrays
from mia_jax.external import default_attacks
from mia_jax.external import target as targets
from mia_jax.learners import stopping
from mia_jax.measures import privacy_audit
from mia_jax.measures.validity import RANDOM
from mia_jax.metrics import slices
from mia_jax.pipeline import validate
from mia_jax.pipeline.attack import SignalReader, asked_rows, own_fields
from mia_jax.pipeline.plan import FleetPlan, Questions, Subject, TrainedHere
from mia_jax.pipeline.query import Asked, claims
from mia_jax.pipeline.train import VALIDATION, validation_rows
from mia_jax.privacy import canary_scores
from mia_jax.query.snapshots import SIGNAL as TRAJECTORY
from mia_jax.runtime import files, jobs, precision
from mia_jax.runtime.store import Store
from mia_jax.threat_model import PlannedAttack, asked_signals, by_name
from mia_jax.training import failures
from mia_jax.types import Attack, Design, Learner, Model, Pool, Signal

GROWTH = ("models", "sources")  # design fields that may grow: the first models stay as they are
EXAMPLES = 8  # of the pool, whose shapes, range and spread a learner may look at
SCORED = ("targets", "scored", "scored_sources")  # what is scored: no model depends on them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that one run of one seed needs. Its methods hand each stage its part.

    Args:
      config: the whole config as a plain dict, to be recorded and hashed.
      settings: its typed sections.
      pool, pool_hash, duplicates: the examples, their digest, and how many are equal.
      design: who trains on what.
      rows_MK, weight_MK: the rows of the models that are trained here.
      model, learner: None where nothing is trained here.
      signals: what models are asked; {name: None} for the user's own arrays.
      attacks: the planned attacks.
      supplied: {signal: [M,A,N..]} of the user's own, of the design's last models (a target beside
        our fleet) or of all.
      notes: sentences for the report.
      failed: {model: record} that the run goes on without (training/failures.py): they are targets
        and shadows of nobody, and have no answers.
    """

    config: Mapping[str, Any]
    settings: Settings
    seed: int
    pool: Pool
    pool_hash: str
    duplicates: Mapping[str, int]
    design: Design
    rows_MK: np.ndarray
    weight_MK: np.ndarray
    model: Model | None
    learner: Learner | None
    signals: Mapping[str, Signal]
    attacks: tuple[PlannedAttack, ...]
    supplied: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: Mapping[int, Mapping] = dataclasses.field(default_factory=dict)

    @property
    def own_models(self) -> list[int]:
        """Returns the models that are trained here and have not failed."""
        return [m for m in range(len(self.rows_MK)) if m not in self.failed]

    @property
    def train_config(self) -> dict:
        """Returns what decides the variables of model m: all upstream of the queries but the
        fleet's size.
        """
        config = self.config
        left_out = (*GROWTH, *SCORED)
        design = {k: v for k, v in config["design"].items() if k not in left_out}
        parts = dict(seed=self.seed, data=config["data"], pool=self.pool_hash, design=design)
        parts |= dict(model=config["model"], learner=config["learner"])
        if config["learner"] and config["learner"].get("init_from"):
            start = initial_parameters(config["learner"]["init_from"])
            parts |= dict(init=files.digest(*(start[name] for name in sorted(start))))
        if self.model is not None and (numerics := precision.unusual()):
            parts |= dict(numerics=numerics)
        if self.supplied:
            arrays = (self.supplied[name] for name in sorted(self.supplied))
            parts |= dict(given=files.digest(*arrays))
        return parts

    @functools.cached_property
    def run(self) -> str:
        """Returns the digest of `train_config`: which run a file belongs to."""
        return files.digest(self.train_config)

    def without_failed(self, store: Store) -> Experiment:
        """Returns the experiment without the models that failed, as recorded in the workdir.

        Raises:
          FloatingPointError: nothing is left to be audited.
        """
        failed = failures.known(store.train.folder, range(len(self.rows_MK)))
        if not failed:
            return self
        design = _failed.without(self.design, failed)
        left = dataclasses.replace(self, design=design, failed=failed)
        why = ""
        if not left.own_models:
            why = f"all {len(failed)} models failed"
        elif not design.targets:
            count = f"{len(failed)} of {len(self.rows_MK)} models failed"
            why = f"{count} and no target with shadows is left"
        if why:
            raise FloatingPointError(failures.refusal(failed, why=why))
        return left

    def fleet_plan(self) -> FleetPlan:
        """Returns what TRAIN trains."""
        learner = self.settings.learner
        watched_rows = np.flatnonzero(self.design.coin_N >= 0) if learner.watch else None
        return FleetPlan(
            learner=self.learner,
            pool=self.pool,
            rows_MK=self.rows_MK,
            weight_MK=self.weight_MK,
            validation=validation_rows(learner.validation, self.design),
            seed=self.seed,
            snapshots=tuple(learner.snapshots),
            watched_rows=watched_rows,
        )

    def asked(self) -> Asked:
        """Returns the models that QUERY asks."""
        models = tuple(self.own_models)
        return Asked(model=self.learner.model, pool=self.pool, design=self.design, models=models)

    def questions(self) -> Questions | None:
        """Returns what the models are asked; None where all answers are the user's own."""
        if self.learner is None:
            return None
        query, learner = self.settings.query, self.settings.learner
        own_rows = [
            name
            for name, signal in self.signals.items()
            if signal.ask is not None or self.settings.target.black_box
        ]
        rows = {name: asked_rows(name, self.attacks, self.design) for name in own_rows}
        return Questions(
            signals=self.signals,
            views=tuple(query.views),
            view_functions=tuple(query_views.make(query.views)),
            batch_size=query.batch_size,
            ask_batch_size=query.ask_batch_size,
            rows=rows,
            snapshots=tuple(learner.snapshots),
            trajectory=any(TRAJECTORY in planned.files for planned in self.attacks),
            repeated=self._repeated(),
            seed=self.seed,
        )

    def _repeated(self) -> tuple[str, ...]:
        """Returns the signals that the models of snapshots are asked for report.epochs."""
        epochs = self.settings.report.epochs
        if not epochs:
            return ()
        planned = by_name(self.attacks)
        asked = {signal for name in epochs for signal in planned[name].signals}
        asked |= {"loss", "correct"}
        return tuple(name for name in self.signals if name in asked)

    def reader(self, store: Store) -> SignalReader:
        """Returns what ATTACK and MEASURE read."""
        questions = self.questions()
        query = self.settings.query
        views = tuple(query.views)

        def claims_of(epoch: int | None) -> list[tuple]:
            answers = store.answers if epoch is None else store.after(epoch)
            if questions is None:
                return [(answers.folder, dict(views=views, batch_size=query.batch_size))]
            if epoch is None:
                return claims(questions, folder=answers.folder)
            return claims(dataclasses.replace(questions, signals={}), folder=answers.folder)

        return SignalReader(
            store=store,
            design=self.design,
            pool=self.pool,
            views=views,
            claims=claims_of,
            failed=self.failed,
            measured=tuple(self.signals),
        )

    def trained(self) -> TrainedHere:
        """Returns the models that were trained here, as the report asks about them."""
        if self.learner is None:
            return TrainedHere()
        objective = self.settings.learner.objective
        return TrainedHere(
            models=tuple(self.own_models),
            model=self.model,
            guarantee=self.learner.guarantee,
            objective=objective if isinstance(objective, Mapping) else {},
        )

    def subject(self) -> Subject:
        """Returns what is audited, for the report."""
        config, target = self.config, self.settings.target
        known = "labels (a black box)" if target.black_box else ""
        drawn = self.design.name in RANDOM or bool(config["design"].get("drawn"))
        return Subject(
            data=self.pool.name,
            pool=self.pool_hash,
            duplicates=self.duplicates,
            model=config["model"],
            learner=config["learner"],
            canaries=self._canaries(),
            target="answers" if target.signals else known,
            supplied=bool(self.supplied) or bool(target.black_box),
            drawn=drawn,
            notes=self.notes,
        )

    def _canaries(self) -> dict | None:
        """Returns {kind, count} where only canaries are scored."""
        if self.design.coin_N is None or self.design.name != "canaries":
            return None
        section = self.config["data"].get("canaries")
        kind = "marked" if "canary" in self.pool.columns else "natural"
        kind = section.get("kind", "mislabeled") if section else kind
        return dict(kind=kind, count=int((self.design.coin_N >= 0).sum()))


def build(config: Mapping, *, seed: int) -> Experiment:
    """Builds the objects of a config that trains models.

    Args:
      config: what configuration.complete made, as nested dicts, without its seed.
      seed: the one seed of this run.

    Raises:
      ValueError: something cannot work; the message names the field and the remedy.
    """
    configuration.one_kind(learner=config["learner"], model=config["model"])
    config = dict(config) | configuration.typed(config)
    typed = settings.settings_of(config)
    snapshots = tuple(typed.learner.snapshots)
    validate.check_fields(typed, config["attacks"], epochs=config["learner"].get("epochs", 10))
    pool, duplicates = load_pool(config["data"])
    design = make_design(config["design"], pool=pool, seed=seed)
    augmentation = config["learner"].get("augment")
    validate.check_images(typed.query.views, augmentation, pool=pool)
    if typed_data(config).standardize:
        pool = pools.standardize(pool, design.population_N)
    rows_MK, weight_MK = _rows.all_rows(design)
    net_name = config["model"]["name"]
    model = make("models", config["model"], num_classes=pool.task.num_outputs)
    if registry.outside("models", net_name):
        model = precision.lenient(external_model(model, name=net_name))
    data = config["data"]
    hints = dict(flat=data.get("flat"), shaped="shape" in data)
    validate.check_model(model, pool=pool, name=net_name, data=data["name"], **hints)
    out = validate.check_outputs(model, pool=pool, name=net_name)
    for note in training_notes(config["learner"], num_rows=rows_MK.shape[1]):
        jobs.say(note)
    padded = bool((weight_MK == 0).any())
    sample = dataclasses.replace(pool, x=pool.x[:EXAMPLES], y=pool.y[:EXAMPLES])
    extra_MK = _rows.extra_rows(design)
    learner = make_learner(
        config["learner"],
        model=model,
        num_rows=rows_MK.shape[1],
        num_extra=extra_MK.shape[1],
        padded=padded,
        labels_N=pool.y,
        sample=sample,
    )
    if "num_extra" in registry.keywords("learners", config["learner"]["name"]):
        rows_MK = np.hstack([rows_MK, extra_MK])
        weight_MK = np.hstack([weight_MK, np.zeros(extra_MK.shape, np.float32)])
    if "loss" not in registry.keywords("learners", config["learner"]["name"]):
        validate.check_objective(learner, pool=pool)
    learner = watched(learner, config, model=model, pool=pool, design=design)
    if learner.guarantee is not None:
        jobs.say("\n".join(f"privacy: {note}" for note in learner.guarantee.notes))
    attacks = make_attacks(config["attacks"])
    supplied = {}
    if typed.target.signals:
        views = len(typed.query.views)
        path = typed.target.signals
        design, supplied = targets.with_target(path, design=design, pool=pool, views=views)
        targets.check_signals(attacks, supplied)
    elif typed.target.black_box:
        design = targets.with_black_box(typed.target, design=design, pool=pool)
        targets.check_labels_only(attacks)
    validate.check_attacks(attacks, design=design)
    check_report(typed, attacks, design=design, pool=pool)
    validate.check_snapshots(snapshots, attacks, epochs=config["learner"].get("epochs", 0))
    reported = set(pool.task.signals)
    if not typed.target.signals and not typed.target.black_box:
        reported |= set(model.signals)
    planned = plan_attacks(attacks, config["attacks"], seed=seed)
    validate.check_defenses(planned, design=design)
    validate.check_task(attacks, task=pool.task)
    asked = {signal for attack in planned for signal in attack.signals}
    asked |= {*reported, *typed.query.signals}
    asked |= {"logits"} if typed.query.save_logits else set()
    asked -= {TRAJECTORY, *canary_scores.SIGNALS}
    signals = validate.make_signals(asked, pool=pool, model=model)
    validate.check_signals(signals, out=out, pool=pool)
    own_target = bool(supplied or typed.target.black_box)
    validate.check_epochs(typed.report.epochs, attacks, signals, target=own_target)
    return Experiment(
        config=config,
        settings=typed,
        seed=seed,
        pool=pool,
        pool_hash=pools.content_hash(pool),
        duplicates=duplicates,
        design=design,
        rows_MK=rows_MK,
        weight_MK=weight_MK,
        model=model,
        learner=learner,
        signals=signals,
        attacks=planned,
        supplied=supplied,
    )


def training_notes(section: Mapping, *, num_rows: int) -> list[str]:
    """Returns notes about config.learner that may be slips."""
    return validate.training_notes(
        epochs=section.get("epochs"),
        batch_size=section.get("batch_size"),
        in_pairs=section.get("pairs") is not None,
        num_rows=num_rows,
    )


def typed_data(config: Mapping) -> DataSettings:
    """Returns the general fields of config.data."""
    return settings.general(DataSettings, config["data"])


def make_attacks(sections: Mapping[str, Mapping]) -> dict[str, Attack]:
    """Returns {name: Attack} of config.attacks."""
    return {name: make("attacks", own_fields(section)) for name, section in sections.items()}


def plan_attacks(
    attacks: Mapping[str, Attack], sections: Mapping[str, Mapping], *, seed: int
) -> tuple[PlannedAttack, ...]:
    """Decides for each attack its defense, key and files.

    The key comes from (seed, name); behind a defense it is that of the same attack without one, so
    that equal answers give equal scores.
    """
    planned = []
    for name, attack in attacks.items():
        section = sections[name]
        defense, adaptive = section.get("defense", ""), section.get("adaptive", False)
        same = [
            other
            for other, its in sections.items()
            if own_fields(its) == own_fields(section) and not its.get("defense")
        ]
        key_name = name if name in same or not same else same[0]
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(key_name.encode()))
        signals = asked_signals({name: attack})
        signal_files = {n: defended(n, defense) for n in attack.needs if n in signals}
        planned.append(
            PlannedAttack(
                name=name,
                attack=attack,
                section=section,
                key=key,
                defense=defense,
                adaptive=adaptive,
                files=signal_files,
            )
        )
    return tuple(planned)


def defended(name: str, defense: str) -> str:
    """Returns the name of a signal's file behind a defense.

    A signal behind a defense is a file of its own, '<signal>@<defense>', unless it reads labels
    only and the defense leaves labels alone: then it is the same answer.
    """
    if not defense:
        return name
    labels = registry.make("signals", name).access == "labels"
    if labels and defenses.make(defense).keeps_labels:
        return name
    return f"{name}@{defense}"


def check_report(
    typed: Settings,
    attacks: Mapping[str, Attack],
    *,
    design: Design,
    pool: Pool,
    arrays: bool = False,
) -> None:
    """Raises ValueError for slices, groups and an audit of epsilon that cannot be had."""
    slices.check(
        typed.report.slices,
        columns=tuple(pool.columns),
        groups=typed.report.groups,
        num_examples=len(pool.y),
    )
    privacy_audit.settings(
        typed.report.audit,
        design=design,
        knows={name: attack.knows for name, attack in attacks.items()},
        level=typed.report.level,
        arrays=arrays,
    )


def make(kind: str, section: Mapping, **kwargs):
    """registry.make of a config section {'name': ..., field: value}."""
    name, fields = section["name"], {k: v for k, v in section.items() if k != "name"}
    made = registry.make(kind, name, fields, **kwargs)
    return precision.lenient(made) if kind == "attacks" and registry.outside(kind, name) else made


def external_model(made, *, name: str) -> Model:
    """Returns the Model of what the `make` of a module outside the package returned, which may be a
    plain flax module.
    """
    from mia_jax.models import _linen  # flax is loaded where there is a model

    return _linen.taken(made, name=name)


def load_pool(section: Mapping) -> tuple[Pool, dict]:
    """Returns the pool of config.data, with its canaries, and the count of its duplicates (dropped
    on request).
    """
    fields = {k: v for k, v in section.items() if k not in settings.names(DataSettings)}
    try:
        with precision.as_the_user():
            pool = make("data", fields)
    except UnicodeDecodeError as error:
        names = ", ".join(
            str(fields[field]) for field in ("path", "label_path", "folder") if fields.get(field)
        )
        raise ValueError(
            f"data ({fields['name']}): {names} is not {error.encoding.upper()} ({error.reason} at "
            f"byte {error.start:,}). Save it as UTF-8, for example "
            "with `iconv -f latin1 -t utf-8 old.csv > new.csv`."
        ) from error
    if section["drop_duplicates"]:
        pool = pools.drop_duplicates(pool)
    if section["canaries"] is not None:
        pool = registry.call(canaries.insert, "data.canaries", section["canaries"], pool=pool)
    return pool, pools.duplicates(pool)


def make_design(section: Mapping, *, pool: Pool, seed: int) -> Design:
    """Returns the design of config.design over this pool."""
    marked = {f"given_{name}_N": pool.columns.get(name) for name in ("population", "canary")}
    checks.in_memory(
        f"design.models={section.get('models')}: the memberships",
        float(section.get("models") or 0) * len(pool.y),
    )
    labels_N = pool.y if pool.task.has_classes else None
    return make(
        "designs", section, num_examples=len(pool.y), seed=seed, labels_N=labels_N, **marked
    )


def make_learner(section: Mapping, *, model: Model, sample: Pool | None = None, **rows) -> Learner:
    """Returns the learner of config.learner with its objective and stopping rule; `sample` is the
    pool with its first few examples only, and all columns.

    `rows` is what it may be told of the models' rows: num_rows, num_extra, padded, labels_N.
    """
    checks.one_of(VALIDATION, validation=section["validation"])
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if "loss" in registry.keywords("learners", section["name"]):
        loss = make("objectives", objective, model=model)
        if sample is not None:
            axes = getattr(registry.load("learners", section["name"]), "ROWS", ())
            validate.check_loss(loss, model=model, pool=sample, name=objective["name"], rows=axes)
    elif objective["name"] == configuration.OWN:
        loss = None
    else:
        raise ValueError(
            f"learner.objective={objective['name']!r}: the learning rule {section['name']!r} has "
            "an objective of its own; leave it out."
        )
    stop = (
        None
        if section["stop"] is None
        else registry.call(stopping.make, "learner.stop", section["stop"])
    )
    if (
        stop is not None
        and section.get("gradient") == "private"
        and section["validation"] != "population"
    ):
        raise ValueError(
            f"learner.validation={section['validation']!r}: a stopping rule of private training "
            "may watch population rows alone; what it learns from "
            "other rows is covered by no epsilon. Set learner.validation='population' "
            "(design.population > 0), or learner.stop=None."
        )
    if (section.get("privacy") or {}).get("clip_norm") == np.inf:
        raise ValueError(
            "learner.privacy.clip_norm=inf: a config holds finite numbers; clip_norm=1e9 with "
            "noise_multiplier=0 clips nothing."
        )
    fields = {k: v for k, v in section.items() if k not in settings.names(LearnerSettings)}
    given = dict(sample=sample, initial=initial_parameters(section["init_from"]))
    if given["initial"] and "initial" not in registry.keywords("learners", section["name"]):
        raise ValueError(
            f"learner.init_from: the learning rule {section['name']!r} has no such start."
        )
    return make(
        "learners",
        fields,
        model=model,
        stopping=stop,
        **rows,
        **given,
        **({} if loss is None else dict(loss=loss)),
    )


def watched(
    learner: Learner, config: Mapping, *, model: Model, pool: Pool, design: Design
) -> Learner:
    """Returns the learner with learner.watch: it also keeps how the canaries' gradients lie to the
    updates (privacy/canary_scores.py).
    """
    section = config["learner"]
    asking = [
        name
        for name, attack in config["attacks"].items()
        if attack.get("signal") in canary_scores.SIGNALS
    ]
    if not section["watch"]:
        if asking:
            raise ValueError(
                f"attack {asking[0]!r} needs the updates of the training, which are kept with "
                "learner.watch=True alone."
            )
        return learner
    if design.coin_N is None:
        raise ValueError(
            f"learner.watch keeps scores of canaries, and the design {design.name!r} has none; use "
            "design.name='canaries'."
        )
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if "loss" not in registry.keywords("learners", section["name"]):
        raise ValueError(
            f"learner.watch needs a per-example loss, and the learning rule {section['name']!r} "
            "has none."
        )
    clip_norm = (
        (section.get("privacy") or {}).get("clip_norm", np.inf)
        if section.get("gradient") == "private"
        else np.inf
    )
    rows = np.flatnonzero(design.coin_N >= 0)
    return canary_scores.watched(
        learner,
        loss=make("objectives", objective, model=model),
        x=pool.x[rows],
        y=pool.y[rows],
        clip_norm=clip_norm,
    )


def initial_parameters(path: str) -> dict[str, np.ndarray]:
    """Returns {path: array} of the parameters of a model of another run, 'runs/pretrained' (its
    model 0) or 'runs/pretrained:3'; {} for ''.
    """
    if not path:
        return {}
    folder, _, number = path.partition(":")
    file = Store(files.Path(folder).expanduser()).train.model(int(number or 0))
    if not file.exists():
        raise FileNotFoundError(
            f"learner.init_from={path!r}: {file} does not exist; name the workdir of a finished "
            "run, or workdir:model."
        )
    start = "variables/params/"
    return {
        k.removeprefix(start): v for k, v in files.read_npz(file).items() if k.startswith(start)
    }


def build_supplied(config: Mapping, *, seed: int, arrays: Mapping | None = None) -> Experiment:
    """Builds the objects of an audit of the user's own arrays: nothing is trained.

    Args:
      config: what configuration.scores made, as nested dicts, without its seed.
      seed: the seed of the attacks and of the bootstrap.
      arrays: from memory; None: read from config.scores.
    """
    name = config["scores"] or "arrays"
    taken = supplied_arrays.load(name) if arrays is None else arrays
    supplied = supplied_arrays.build(taken, name=str(name), seed=seed)
    pool, design = supplied.pool, supplied.design
    report = settings.settings_of(config).report
    validate.check_epochs(report.epochs, {}, {}, target=True)
    sections, left_out = default_attacks.choose(config["attacks"], supplied)
    notes = [*supplied.notes, *left_out]
    validate.check_report(report, sections)
    for note in notes:
        jobs.say(f"{name}: {note}")
    count = next(iter(supplied.signal.values())).shape[1]
    query = settings.defaults(settings.QuerySettings)
    # the design and the model are called as in older versions: the names decide which folders an
    # audit may continue
    config = dict(config) | dict(
        data=dict(name=str(name)),
        design=dict(name="brought"),
        model="brought",
        learner=None,
        target=dict(signals=""),
        attacks=sections,
        run=settings.defaults(settings.RunSettings),
        query=query | dict(views=tuple(f"view {a}" for a in range(count))),
    )
    typed = settings.settings_of(config)
    attacks = make_attacks(sections)
    check_report(typed, attacks, design=design, pool=pool, arrays=True)
    targets.check_signals(attacks, supplied.signal)
    validate.check_attacks(attacks, design=design)
    duplicates = dict(rows=0, groups=0, label_conflicts=0)
    if pool.x.shape[1:] != (0,):
        duplicates = pools.duplicates(pool)
    return Experiment(
        config=config,
        settings=typed,
        seed=seed,
        pool=pool,
        pool_hash=files.digest(*(supplied.signal[n] for n in sorted(supplied.signal))),
        duplicates=duplicates,
        design=design,
        rows_MK=np.zeros((0, 0), np.int32),
        weight_MK=np.zeros((0, 0), np.float32),
        model=None,
        learner=None,
        signals=dict.fromkeys(supplied.signal),
        attacks=plan_attacks(attacks, sections, seed=seed),
        supplied=supplied.signal,
        notes=tuple(notes),
    )
