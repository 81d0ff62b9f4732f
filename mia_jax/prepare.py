"""From a plain config to the objects of a run: everything that cannot work is refused here, before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mia_jax import answers, brought, checks, configuration, precision, refusals, registry, settings, stages, standard, targets, workdir
from mia_jax.data import _canaries as canaries
from mia_jax.data import _pool as pools
from mia_jax.designs import _rows
from mia_jax.learners import stopping
from mia_jax.metrics import slices
from mia_jax.privacy import canary_scores
from mia_jax.report import privacy
from mia_jax.training import checkpoint, programs
from mia_jax.training.trajectory import SIGNAL as TRAJECTORY
from mia_jax.types import Attack, Design, Learner, Model, Pool, Signal

GROWTH = ("models", "sources")  # design fields that may grow in a workdir: the first models stay as they are
EXAMPLES = 8  # of the pool, whose shapes, range and spread a learner may look at when it is built
SCORED = ("targets", "scored", "scored_sources")  # who and what is scored: no model depends on them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything that one run of one seed needs: the objects the config names, and the config as a plain dict.

    `rows_MK`, `weight_MK` are of the models that are trained here; `given[name]` [M,A,N..] are signals that were brought, of the design's last
    models (a target beside our fleet) or of all. `said` are sentences for the report. `failed` {model: record} are the models that the run goes on
    without (training/failures.py): they are targets and shadows of nobody, and have no answers.
    """

    config: Mapping[str, Any]
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
    attacks: Mapping[str, Attack]
    given: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] = ()
    failed: Mapping[int, Mapping] = dataclasses.field(default_factory=dict)

    @property
    def own_models(self) -> list[int]:
        """The models that are trained here and have not failed."""
        return [m for m in range(len(self.rows_MK)) if m not in self.failed]

    @property
    def asked(self) -> set[str]:
        """The signals that the attacks need."""
        return answers.asked_signals(self.attacks)

    @property
    def trajectory(self) -> bool:
        """Whether the losses at the snapshots are needed."""
        return TRAJECTORY in self.asked and self.model is not None

    @property
    def train_config(self) -> dict:
        """What decides the variables of model m: everything upstream of the queries but the number of models."""
        design = {k: v for k, v in self.config["design"].items() if k not in (*GROWTH, *SCORED)}
        found = dict(seed=self.seed, data=self.config["data"], pool=self.pool_hash, design=design)
        found |= dict(model=self.config["model"], learner=self.config["learner"])
        if self.config["learner"] and self.config["learner"].get("init_from"):
            start = brought_parameters(self.config["learner"]["init_from"])
            found |= dict(init=workdir.digest(*(start[name] for name in sorted(start))))
        if self.model is not None and (numerics := precision.unusual()):
            found |= dict(numerics=numerics)
        return found | (dict(given=workdir.digest(*(self.given[name] for name in sorted(self.given)))) if self.given else {})

    @functools.cached_property
    def run(self) -> str:
        """The digest of `train_config`: which run a file belongs to."""
        return workdir.digest(self.train_config)


def prepare(config: Mapping, *, seed: int) -> Audit:
    """The objects of a config that trains models."""
    configuration.one_kind(learner=config["learner"], model=config["model"])
    config = dict(config) | configuration.typed(config)
    refusals.check_fields(config)
    pool, duplicates = load_pool(config["data"])
    design = make_design(config["design"], pool=pool, seed=seed)
    refusals.check_images(config, pool=pool)
    if config["data"]["standardize"]:
        pool = pools.standardize(pool, design.population_N)
    rows_MK, weight_MK = _rows.all_rows(design)
    model = make("models", config["model"], num_classes=pool.num_classes)
    if registry.outside("models", config["model"]["name"]):
        model = programs.lenient(own_model(model, name=config["model"]["name"]))
    refusals.check_model(model, pool=pool, config=config)
    out = refusals.check_outputs(model, pool=pool, name=config["model"]["name"])
    for sentence in refusals.check_training(config["learner"], num_rows=rows_MK.shape[1]):
        stages.say(sentence)
    padded, sample = bool((weight_MK == 0).any()), dataclasses.replace(pool, x=pool.x[:EXAMPLES], y=pool.y[:EXAMPLES])
    extra_MK = _rows.extra_rows(design)
    sizes = dict(num_rows=rows_MK.shape[1], num_extra=extra_MK.shape[1])
    learner = make_learner(config["learner"], model=model, **sizes, padded=padded, labels_N=pool.y, sample=sample)
    if "num_extra" in registry.keywords("learners", config["learner"]["name"]):
        rows_MK, weight_MK = np.hstack([rows_MK, extra_MK]), np.hstack([weight_MK, np.zeros(extra_MK.shape, np.float32)])
    if not pool.num_classes or "squared" in str(config["learner"].get("objective")):
        answers.check_objective(learner, pool=pool)
    learner = watched(learner, config, model=model, pool=pool, design=design)
    if learner.guarantee is not None:
        stages.say("\n".join(f"privacy: {note}" for note in learner.guarantee.notes))
    attacks = {name: make("attacks", answers.own_fields(attack)) for name, attack in config["attacks"].items()}
    given = {}
    if config["target"]["signals"]:
        design, given = targets.with_target(config["target"]["signals"], design=design, pool=pool, views=len(config["query"]["views"]))
        targets.check_given(attacks, given)
    elif config["target"]["oracle"]:
        design = targets.with_oracle(config["target"], design=design, pool=pool)
        targets.check_labels_only(attacks)
    refusals.check_attacks(attacks, design=design)
    slices.check(config["report"]["slices"], columns=tuple(pool.columns), groups=config["report"]["groups"], num_examples=len(pool.y))
    refusals.check_snapshots(config["learner"], attacks)
    privacy.settings(config["report"]["audit"], design=design, knows={n: a.knows for n, a in attacks.items()}, level=config["report"]["level"])
    reported = {"loss", "correct"} if pool.num_classes else {"loss"}
    if "pairs" in model.parts and not config["target"]["signals"] and not config["target"]["oracle"]:
        reported |= {"embedding"}  # report/pairs.py
    answers.check_defenses(config["attacks"], design=design)
    if not pool.num_classes:
        answers.check_real_attacks(attacks)
    asked = (
        answers.names(attacks, config["attacks"])
        | {*reported, *config["query"]["signals"]}
        | ({"logits"} if config["query"]["save_logits"] else set())
    )
    signals = answers.make_signals(asked - {TRAJECTORY, *canary_scores.SIGNALS}, pool=pool, model=model)
    refusals.check_signals(signals, out=out, pool=pool)
    refusals.check_epochs(config["report"]["epochs"], attacks, signals, target=bool(given or config["target"]["oracle"]))
    return Audit(
        config=config,
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
        attacks=attacks,
        given=given,
    )


def make(kind: str, section: Mapping, **kwargs):
    """registry.make of a config section {'name': ..., field: value}."""
    return registry.make(kind, section["name"], {k: v for k, v in section.items() if k != "name"}, **kwargs)


def own_model(made, *, name: str) -> Model:
    """The Model of what the `make` of a module outside the package returned, which may be a plain flax module."""
    from mia_jax.models import _linen  # flax is loaded where there is a model

    return _linen.taken(made, name=name)


def load_pool(section: Mapping) -> tuple[Pool, dict]:
    """The pool of config.data, with its canaries, and the count of its duplicates (dropped on request)."""
    own = {k: v for k, v in section.items() if k not in settings.names(settings.DataSettings)}
    try:
        pool = make("data", own)
    except UnicodeDecodeError as error:
        files = ", ".join(str(own[field]) for field in ("path", "label_path", "folder") if own.get(field))
        raise ValueError(
            f"data ({own['name']}): {files} is not {error.encoding.upper()} ({error.reason} at byte {error.start:,}). Save it as UTF-8, for example "
            "with `iconv -f latin1 -t utf-8 old.csv > new.csv`."
        ) from error
    if section["drop_duplicates"]:
        pool = pools.drop_duplicates(pool)
    if section["canaries"] is not None:
        pool = registry.call(canaries.insert, "data.canaries", section["canaries"], pool=pool)
    return pool, pools.duplicates(pool)


def make_design(section: Mapping, *, pool: Pool, seed: int) -> Design:
    """The design of config.design over this pool."""
    marked = {f"given_{name}_N": pool.columns.get(name) for name in ("population", "canary")}
    checks.in_memory(f"design.models={section.get('models')}: the memberships", float(section.get("models") or 0) * len(pool.y))
    return make("designs", section, num_examples=len(pool.y), seed=seed, labels_N=pool.y, **marked)


def make_learner(section: Mapping, *, model: Model, sample: Pool | None = None, **rows) -> Learner:
    """The learner of config.learner with its objective and stopping rule; `sample` is the pool with its first few examples only, and all columns.

    `rows` is what it may be told of the models' rows: num_rows, num_extra, padded, labels_N.
    """
    checks.one_of(stages.VALIDATION, validation=section["validation"])
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if "loss" in registry.keywords("learners", section["name"]):
        loss = make("objectives", objective, model=model)
        if sample is not None:
            axes = getattr(registry.load("learners", section["name"]), "ROWS", ())
            refusals.check_loss(loss, model=model, pool=sample, name=objective["name"], rows=axes)
    elif objective["name"] == configuration.OWN:
        loss = None
    else:
        raise ValueError(f"learner.objective={objective['name']!r}: the learning rule {section['name']!r} has an objective of its own; leave it out.")
    stop = None if section["stop"] is None else registry.call(stopping.make, "learner.stop", section["stop"])
    if stop is not None and section.get("gradient") == "private" and section["validation"] != "population":
        raise ValueError(
            f"learner.validation={section['validation']!r}: a stopping rule of private training may watch population rows alone; what it learns from "
            "other rows is covered by no epsilon. Set learner.validation='population' (design.population > 0), or learner.stop=None."
        )
    if (section.get("privacy") or {}).get("clip_norm") == np.inf:
        raise ValueError("learner.privacy.clip_norm=inf: a config holds finite numbers; clip_norm=1e9 with noise_multiplier=0 clips nothing.")
    own = {k: v for k, v in section.items() if k not in settings.names(settings.LearnerSettings)}
    given = dict(sample=sample, initial=brought_parameters(section["init_from"]))
    if given["initial"] and "initial" not in registry.keywords("learners", section["name"]):
        raise ValueError(f"learner.init_from: the learning rule {section['name']!r} has no such start.")
    return make("learners", own, model=model, stopping=stop, **rows, **given, **({} if loss is None else dict(loss=loss)))


def watched(learner: Learner, config: Mapping, *, model: Model, pool: Pool, design: Design) -> Learner:
    """The learner with learner.watch: it also keeps how the canaries' gradients lie to the updates (privacy/canary_scores.py)."""
    section = config["learner"]
    asking = [name for name, attack in config["attacks"].items() if attack.get("signal") in canary_scores.SIGNALS]
    if not section["watch"]:
        if asking:
            raise ValueError(f"attack {asking[0]!r} needs the updates of the training, which are kept with learner.watch=True alone.")
        return learner
    if design.coin_N is None:
        raise ValueError(f"learner.watch keeps scores of canaries, and the design {design.name!r} has none; use design.name='canaries'.")
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if "loss" not in registry.keywords("learners", section["name"]):
        raise ValueError(f"learner.watch needs a per-example loss, and the learning rule {section['name']!r} has none.")
    clip_norm = (section.get("privacy") or {}).get("clip_norm", np.inf) if section.get("gradient") == "private" else np.inf
    rows = np.flatnonzero(design.coin_N >= 0)
    return canary_scores.watched(learner, loss=make("objectives", objective, model=model), x=pool.x[rows], y=pool.y[rows], clip_norm=clip_norm)


def brought_parameters(path: str) -> dict[str, np.ndarray]:
    """{path: array} of the parameters of a model of another run, 'runs/pretrained' (its model 0) or 'runs/pretrained:3'; {} for ''."""
    if not path:
        return {}
    folder, _, number = path.partition(":")
    file = checkpoint.model_file(workdir.Path(folder).expanduser() / "train", int(number or 0))
    if not file.exists():
        raise FileNotFoundError(f"learner.init_from={path!r}: {file} does not exist; name the workdir of a finished run, or workdir:model.")
    start = "variables/params/"
    return {k.removeprefix(start): v for k, v in workdir.read_npz(file).items() if k.startswith(start)}


def prepare_scores(config: Mapping, *, seed: int, arrays: Mapping | None = None) -> Audit:
    """The objects of an audit of brought arrays (config.scores, or `arrays` from memory): nothing is trained."""
    name = config["scores"] or "arrays"
    found = brought.build(brought.load(name) if arrays is None else arrays, name=str(name), seed=seed)
    wanted, said = config["attacks"], list(found.said)
    columns = tuple(found.pool.columns)
    refusals.check_epochs(config["report"]["epochs"], {}, {}, target=True)
    slices.check(config["report"]["slices"], columns=columns, groups=config["report"]["groups"], num_examples=len(found.pool.y))
    named, left_out = standard.chosen(wanted, found)
    said += left_out
    refusals.check_report(config["report"], named)
    for sentence in said:
        stages.say(f"{name}: {sentence}")
    attacks = {n: make("attacks", answers.own_fields(section)) for n, section in named.items()}
    knows = {n: a.knows for n, a in attacks.items()}
    privacy.settings(config["report"]["audit"], design=found.design, knows=knows, level=config["report"]["level"], arrays=True)
    targets.check_given(attacks, found.signal)
    refusals.check_attacks(attacks, design=found.design)
    count = next(iter(found.signal.values())).shape[1]
    sections = dict(data=dict(name=str(name)), design=dict(name="brought"), model="brought", learner=None, target=dict(signals=""))
    own = dict(attacks=named, run=settings.defaults(settings.RunSettings))
    query = dict(settings.defaults(settings.QuerySettings), views=tuple(f"view {a}" for a in range(count)))
    return Audit(
        config=dict(config) | sections | own | dict(query=query),
        seed=seed,
        pool=found.pool,
        pool_hash=workdir.digest(*(found.signal[n] for n in sorted(found.signal))),
        duplicates=pools.duplicates(found.pool) if found.pool.x.shape[1:] != (0,) else dict(rows=0, groups=0, label_conflicts=0),
        design=found.design,
        rows_MK=np.zeros((0, 0), np.int32),
        weight_MK=np.zeros((0, 0), np.float32),
        model=None,
        learner=None,
        signals=dict.fromkeys(found.signal),
        attacks=attacks,
        given=found.signal,
        said=tuple(said),
    )
