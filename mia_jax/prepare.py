"""From a plain config to the objects of a run: everything that cannot work is refused here, before anything is trained."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mia_jax import answers, brought, checks, configuration, registry, stages, views, workdir
from mia_jax.data import _canaries as canaries
from mia_jax.data import _pool as pools
from mia_jax.data import augment
from mia_jax.designs import _rows
from mia_jax.learners import stopping
from mia_jax.metrics import slices
from mia_jax.privacy import watch
from mia_jax.report import privacy
from mia_jax.training import checkpoint, oracle
from mia_jax.training.trajectory import SIGNAL as TRAJECTORY
from mia_jax.types import Attack, Design, Learner, Model, Pool, Signal

GROWTH = ("models", "sources")  # design fields that may grow in a workdir: the first models stay as they are
SCORED = ("targets", "scored", "scored_sources")  # who and what is scored: no model depends on them
ZOO = dict(  # what an audit of brought arrays tries; what they do not allow is left out, and that is said
    gap=dict(),
    threshold_score=dict(name="threshold", signal="score", sign=1),
    threshold_loss=dict(name="threshold", signal="loss"),
    threshold_confidence=dict(name="threshold", signal="max_confidence"),
    threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
    lira_score=dict(name="lira", signal="score", sign=1),
    lira_loss=dict(name="lira", signal="loss"),
    lira=dict(),
    lira_offline=dict(name="lira", mode="offline"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything that one run of one seed needs: the objects the config names, and the config as a plain dict.

    `rows_MK`, `weight_MK` are of the models that are trained here; `given[name]` [M,A,N..] are signals that were brought, of the design's last
    models (a target beside our fleet) or of all. `said` are sentences for the report.
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

    @property
    def own_models(self) -> list[int]:
        """The models that are trained here."""
        return list(range(len(self.rows_MK)))

    @property
    def asked(self) -> set[str]:
        """The signals that the attacks need."""
        return asked_signals(self.attacks)

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
        return found | (dict(given=workdir.digest(*(self.given[name] for name in sorted(self.given)))) if self.given else {})


def prepare(config: Mapping, *, seed: int) -> Audit:
    """The objects of a config that trains models."""
    check_fields(config)
    pool, duplicates = load_pool(config["data"])
    design = make_design(config["design"], pool=pool, seed=seed)
    check_images(config, pool=pool)
    if config["data"]["standardize"]:
        pool = pools.standardize(pool, design.population_N)
    rows_MK, weight_MK = _rows.all_rows(design)
    model = make("models", config["model"], num_classes=pool.num_classes)
    padded, sample = bool((weight_MK == 0).any()), dataclasses.replace(pool, x=pool.x[:1], y=pool.y[:1])
    learner = make_learner(config["learner"], model=model, num_rows=rows_MK.shape[1], padded=padded, labels_N=pool.y, sample=sample)
    if not pool.num_classes or "squared" in str(config["learner"].get("objective")):
        answers.check_objective(learner, pool=pool)
    learner = watched(learner, config, model=model, pool=pool, design=design)
    if learner.guarantee is not None:
        stages.say("\n".join(f"privacy: {note}" for note in learner.guarantee.notes))
    attacks = {name: make("attacks", answers.own_fields(attack)) for name, attack in config["attacks"].items()}
    given = {}
    if config["target"]["signals"]:
        design, given = with_target(config["target"]["signals"], design=design, pool=pool, views=len(config["query"]["views"]))
        check_given(attacks, given)
    elif config["target"]["oracle"]:
        design = with_oracle(config["target"], design=design, pool=pool)
        check_labels_only(attacks)
    check_attacks(attacks, design=design)
    slices.check(config["report"]["slices"], columns=tuple(pool.columns), groups=config["report"]["groups"], num_examples=len(pool.y))
    check_snapshots(config["learner"], attacks)
    privacy.settings(config["report"]["audit"], design=design, knows={n: a.knows for n, a in attacks.items()}, level=config["report"]["level"])
    reported = {"loss", "correct"} if pool.num_classes else {"loss"}
    answers.check_defenses(config["attacks"], design=design)
    if not pool.num_classes:
        answers.check_real_attacks(attacks)
    asked = (
        answers.names(attacks, config["attacks"])
        | {*reported, *config["query"]["signals"]}
        | ({"logits"} if config["query"]["save_logits"] else set())
    )
    signals = answers.make_signals(asked - {TRAJECTORY, *watch.SIGNALS}, pool=pool, model=model)
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


def load_pool(section: Mapping) -> tuple[Pool, dict]:
    """The pool of config.data, with its canaries, and the count of its duplicates (dropped on request)."""
    own = {k: v for k, v in section.items() if k not in configuration.DATA}
    pool = make("data", own)
    if section["drop_duplicates"]:
        pool = pools.drop_duplicates(pool)
    if section["canaries"] is not None:
        pool = registry.call(canaries.insert, "data.canaries", section["canaries"], pool=pool)
    return pool, pools.duplicates(pool)


def make_design(section: Mapping, *, pool: Pool, seed: int) -> Design:
    """The design of config.design over this pool."""
    marked = {f"given_{name}_N": pool.columns.get(name) for name in ("population", "canary")}
    return make("designs", section, num_examples=len(pool.y), seed=seed, labels_N=pool.y, **marked)


def make_learner(section: Mapping, *, model: Model, num_rows: int, padded: bool, labels_N: np.ndarray, sample: Pool | None = None) -> Learner:
    """The learner of config.learner with its objective and stopping rule; `sample` is the pool with its first example alone, and all columns."""
    checks.one_of(stages.VALIDATION, validation=section["validation"])
    objective = section["objective"]
    objective = dict(name=objective) if isinstance(objective, str) else objective
    if "loss" in registry.keywords("learners", section["name"]):
        loss = make("objectives", objective, model=model)
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
    own = {k: v for k, v in section.items() if k not in configuration.LEARNER}
    given = dict(sample=sample, initial=brought_parameters(section["init_from"]))
    if given["initial"] and "initial" not in registry.keywords("learners", section["name"]):
        raise ValueError(f"learner.init_from: the learning rule {section['name']!r} has no such start.")
    common = dict(model=model, num_rows=num_rows, padded=padded, stopping=stop, labels_N=labels_N)
    return make("learners", own, **common, **given, **({} if loss is None else dict(loss=loss)))


def watched(learner: Learner, config: Mapping, *, model: Model, pool: Pool, design: Design) -> Learner:
    """The learner with learner.watch: it also keeps how the canaries' gradients lie to the updates (privacy/watch.py)."""
    section = config["learner"]
    asking = [name for name, attack in config["attacks"].items() if attack.get("signal") in watch.SIGNALS]
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
    return watch.watched(learner, loss=make("objectives", objective, model=model), x=pool.x[rows], y=pool.y[rows], clip_norm=clip_norm)


def brought_parameters(path: str) -> dict[str, np.ndarray]:
    """{path: array} of the parameters of a model of another run, 'runs/pretrained' (its model 0) or 'runs/pretrained:3'; {} for ''."""
    if not path:
        return {}
    folder, _, number = path.partition(":")
    file = checkpoint.model_file(workdir.Path(folder) / "train", int(number or 0))
    if not file.exists():
        raise FileNotFoundError(f"learner.init_from={path!r}: {file} does not exist; name the workdir of a finished run, or workdir:model.")
    start = "variables/params/"
    return {k.removeprefix(start): v for k, v in workdir.read_npz(file).items() if k.startswith(start)}


def check_fields(config: Mapping) -> None:
    """ValueError for a field of query, report or run that cannot work, before anything is trained."""
    query, report, run = config["query"], config["report"], config["run"]
    configuration.one_kind(learner=config["learner"], model=config["model"])
    if not query["views"] or query["views"][0] != "identity":
        raise ValueError(
            f"query.views={tuple(query['views'])} must begin with 'identity': accuracies and the gap attack are of the unchanged example."
        )
    checks.at_least(1, **{f"query.{field}": query[field] for field in ("batch_size", "ask_batch_size")})
    if run["chunk"] not in stages.AUTO:
        checks.at_least(1, **{"run.chunk": run["chunk"]})
    checks.at_least(0, **{f"run.{k}": run[k] for k in ("lanes", "devices", "query_chunk", "checkpoint_every")})
    check_report(report, config["attacks"])


def check_report(report: Mapping, attacks: Mapping) -> None:
    """ValueError for a field of config.report that cannot work."""
    checks.at_least(40, **{"report.draws": report["draws"]})
    checks.fraction(
        closed="neither", **{"report.level": report["level"]}, **{"report.fprs": max(report["fprs"]), "smallest report.fprs": min(report["fprs"])}
    )
    checks.positive(**{"report.ppv_ratio": report["ppv_ratio"]})
    for field in ("shadow_curve", "records"):
        for name in set(report[field]) - {"lira", "lira_shrunk"}:
            checks.one_of(attacks, **{f"report.{field}": name})


def check_images(config: Mapping, *, pool: Pool) -> None:
    """ValueError if a query view or a training augmentation cannot be applied to these examples."""
    x, keys = pool.x[:1], jax.random.split(jax.random.key(0), 1)
    for view in augment.views(config["query"]["views"]):
        view(x)
    if config["learner"].get("augment"):
        augment.augmentation(tuple(config["learner"]["augment"]))(x, keys)


def asked_signals(attacks: Mapping[str, Attack]) -> set[str]:
    """The signals that the attacks need."""
    return {need for attack in attacks.values() for need in attack.needs if need not in views.SHADOW_NEEDS + views.OTHER_NEEDS}


def check_attacks(attacks: Mapping[str, Attack], *, design: Design) -> None:
    """ValueError with the reason of every attack that this design cannot carry."""
    fleet = views.Fleet(design=design, signal={}, num_classes=0)
    refusals = [text for name, attack in attacks.items() if (text := fleet.refuse(attack, name))]
    if refusals:
        raise ValueError("\n".join(refusals))


def check_snapshots(learner: Mapping, attacks: Mapping[str, Attack]) -> None:
    """ValueError unless learner.snapshots are epochs of the training, and there for the attacks that need them."""
    snapshots, epochs = tuple(learner["snapshots"]), learner.get("epochs", 0)
    if any(not isinstance(e, int) or not 1 <= e <= epochs for e in snapshots) or list(snapshots) != sorted(set(snapshots)):
        raise ValueError(f"learner.snapshots={snapshots} must be rising epochs in 1..{epochs}.")
    needing = [name for name, attack in attacks.items() if TRAJECTORY in attack.needs]
    if needing and not snapshots:
        raise ValueError(f"attack {needing[0]!r} needs the losses at several epochs: set learner.snapshots, for example (5, 10, {epochs}).")


def prepare_scores(config: Mapping, *, seed: int, arrays: Mapping | None = None) -> Audit:
    """The objects of an audit of brought arrays (config.scores, or `arrays` from memory): nothing is trained."""
    name = "arrays" if arrays is not None else config["scores"]
    found = brought.build(brought.load(name) if arrays is None else arrays, name=str(name), seed=seed)
    wanted, said = config["attacks"], list(found.said)
    columns = tuple(found.pool.columns)
    slices.check(config["report"]["slices"], columns=columns, groups=config["report"]["groups"], num_examples=len(found.pool.y))
    attacks = {n: make("attacks", answers.own_fields(dict(name=n) | a)) for n, a in (ZOO if wanted is None else wanted).items()}
    if wanted is None:
        attacks, left_out = allowed(attacks, found)
        said += left_out
    else:
        check_given(attacks, found.signal)
        check_attacks(attacks, design=found.design)
    count = next(iter(found.signal.values())).shape[1]
    sections = dict(data=dict(name=str(name)), design=dict(name="brought"), model="brought", learner=None, target=dict(signals=""))
    own = dict(attacks={n: dict(dict(name=n) | (ZOO if wanted is None else wanted)[n]) for n in attacks}, run=configuration.RUN)
    query = dict(configuration.QUERY, views=tuple(f"view {a}" for a in range(count)))
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


def allowed(attacks: Mapping[str, Attack], found: brought.Brought) -> tuple[dict[str, Attack], list[str]]:
    """The attacks that the arrays allow, and a sentence for those that they do not."""
    fleet = views.Fleet(design=found.design, signal={}, num_classes=0)
    kept, left = {}, {}
    for name, attack in attacks.items():
        lacking = sorted(asked_signals({name: attack}) - set(found.signal))
        reason = f"no {', '.join(lacking)}" if lacking else fleet.refuse(attack, name)
        if reason:
            left[name] = reason
        else:
            kept[name] = attack
    if not kept:
        raise ValueError(f"the arrays give the signals {', '.join(found.signal)}, which no attack of the standard set can use.")
    return kept, [f"Left out: {', '.join(f'{n} ({why})' for n, why in left.items())}."] if left else []


def check_given(attacks: Mapping[str, Attack], signal: Mapping) -> None:
    """ValueError if an attack needs a signal that was not brought."""
    for name, attack in attacks.items():
        lacking = sorted(asked_signals({name: attack}) - set(signal))
        if lacking:
            raise ValueError(
                f"attack {name!r} needs the signals {', '.join(lacking)}; the arrays that were brought give {', '.join(sorted(signal))}."
            )


def with_target(path: str, *, design: Design, pool: Pool, views: int) -> tuple[Design, dict[str, np.ndarray]]:
    """The design with the brought target as its last model and only target, and the target's signals [1,A,N..].

    The file's rows are the pool's rows in their order; `member` says which of them the target was trained on.
    """
    arrays = brought.load(path)
    arrays.setdefault("labels", pool.y)
    found = brought.build({k: v for k, v in arrays.items() if not k.startswith("shadow_")}, name=path)
    if len(found.pool.y) != len(pool.y):
        raise ValueError(f"{path} has {len(found.pool.y)} examples and the data {len(pool.y)}; they must be the same rows in the same order.")
    if not np.array_equal(found.pool.y, pool.y):
        raise ValueError(
            f"{path}: labels differ from the data's at example {int(np.argmax(found.pool.y != pool.y))}; the rows must be in the same order."
        )
    count = next(iter(found.signal.values())).shape[1]
    if count != views:
        raise ValueError(f"{path} has {count} views and config.query.views {views}; bring one answer for each view.")
    return with_model(design, found.design.member_MN[0], path=path), dict(found.signal)


def with_oracle(section: Mapping, *, design: Design, pool: Pool) -> Design:
    """The design with the black box config.target.oracle as its last model and only target.

    config.target.member is an npz with member [N] and, if not all rows shall be asked about, evaluated [N].
    """
    if section["oracle"] and not section["oracle"].endswith(".npz"):
        oracle.answering(section["oracle"], folder=pathlib.Path())
    if not section["member"]:
        raise ValueError("target.oracle needs target.member, an npz with member [N]: which of the data's rows the black box was trained on.")
    arrays = brought.load(section["member"])
    shape, path = (len(pool.y),), section["member"]
    evaluated_N = brought.truth(arrays, "evaluated", shape, path) if "evaluated" in arrays else None
    return with_model(design, brought.truth(arrays, "member", shape, path), evaluated_N, path=path)


def check_labels_only(attacks: Mapping[str, Attack]) -> None:
    """ValueError if an attack asks a black box for more than labels."""
    for name, attack in attacks.items():
        for need in sorted(asked_signals({name: attack})):
            access = registry.make("signals", need).access
            if access != "labels":
                raise ValueError(f"attack {name!r} needs the signal {need!r} (access: {access}); target.oracle answers labels alone.")


def with_model(design: Design, member_N: np.ndarray, evaluated_N: np.ndarray | None = None, *, path: str) -> Design:
    """The design with one more model, the only target, which all others are shadows of; evaluated on all rows outside the population if None."""
    if (member_N & design.population_N).any():
        raise ValueError(
            f"{path}: {int((member_N & design.population_N).sum())} of the target's members are population rows. Bring population_x and population_y "
            "with the data, or set design.population=0."
        )
    evaluated_N, models = ~design.population_N if evaluated_N is None else evaluated_N & ~design.population_N, len(design.member_MN)
    shadow_MM = np.zeros((models + 1, models + 1), bool)
    shadow_MM[:models, :models] = design.shadow_MM
    shadow_MM[models, :models] = True
    return dataclasses.replace(
        design,
        name=f"{design.name} + brought target",
        member_MN=np.concatenate([design.member_MN, member_N[None]]),
        evaluated_MN=np.concatenate([design.evaluated_MN, evaluated_N[None]]),
        shadow_MM=shadow_MM,
        unit_M=np.append(design.unit_M, design.unit_M.max() + 1),
        targets=(models,),
        supports=frozenset(found_support(design)),
        note=f"{design.note}; the target was brought",
        remake=None,
    )


def found_support(design: Design) -> set[str]:
    """What the shadows of a design give an attacker of a model outside it."""
    inside = bool((design.member_MN.any(0) & ~design.population_N).any())
    return {"shadow_own", "shadow_out"} | ({"shadow_in"} if inside else set())
