"""BUILD: makes the objects of a run from a config, which is a dict here and nowhere below.

Everything that cannot work is refused before anything is trained (pipeline/validate.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import configuration, registry, threat_model
from mia_jax.configuration import settings
from mia_jax.configuration.settings import DataSettings, Settings
from mia_jax.data import _pool as pools
from mia_jax.designs import _rows
from mia_jax.external import arrays as supplied_arrays
from mia_jax.external import default_attacks, label_inference
from mia_jax.external import target as targets
from mia_jax.measures import privacy_audit
from mia_jax.metrics import slices
from mia_jax.pipeline import validate
from mia_jax.pipeline.build_attacks import make_attacks, plan_attacks
from mia_jax.pipeline.build_parts import (
    dirac_canaries,
    external_model,
    load_pool,
    make,
    make_design,
    make_learner,
    takes_objective,
    training_notes,
    watched,
)
from mia_jax.pipeline.experiment import Experiment
from mia_jax.privacy import dirac
from mia_jax.query.snapshots import SIGNAL as TRAJECTORY
from mia_jax.runtime import files, jobs, precision
from mia_jax.types import Attack, Design, Pool

EXAMPLES = 8  # Examples of the pool whose shapes, range and spread a learner may look at.


def build(config: Mapping, *, seed: int) -> Experiment:
    """Builds the objects of a config that trains models.

    Args:
      config: the result of configuration.complete as nested dicts, without its seed.
      seed: the seed of this run.

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
    sections = (config["data"], config["learner"], config["attacks"])
    marked = dirac_canaries(*sections, pool=pool, design=design)
    if marked is not None:
        model = dirac.extended(model, count=marked.count)
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
        marked=marked,
    )
    if "num_extra" in registry.keywords("learners", config["learner"]["name"]):
        rows_MK = np.hstack([rows_MK, extra_MK])
        weight_MK = np.hstack([weight_MK, np.zeros(extra_MK.shape, np.float32)])
    if not takes_objective(config["learner"]):
        validate.check_objective(learner, pool=pool)
    parts = dict(model=model, pool=pool, design=design, marked=marked)
    learner = watched(learner, config["learner"], config["attacks"], **parts)
    if learner.guarantee is not None:
        jobs.say("\n".join(f"privacy: {note}" for note in learner.guarantee.notes))
    supplied = {}
    if typed.target.signals:
        views = len(typed.query.views)
        path = typed.target.signals
        design, supplied = targets.with_target(path, design=design, pool=pool, views=views)
    attacks = make_attacks(config["attacks"], have=supplied or None)
    if typed.target.signals:
        targets.check_signals(attacks, supplied)
    elif typed.target.black_box:
        design = targets.with_black_box(typed.target, design=design, pool=pool)
        targets.check_labels_only(attacks)
    validate.check_attacks(attacks, design=design)
    promised = None if learner.guarantee is None else learner.guarantee.delta
    check_report(typed, attacks, design=design, pool=pool, promised=promised)
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
    asked -= {TRAJECTORY, *dirac.SIGNALS}
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


def build_supplied(
    config: Mapping, *, seed: int, arrays: Mapping | None = None, notes: Sequence[str] | None = None
) -> Experiment:
    """Builds the objects of an audit of user-supplied arrays; nothing is trained.

    Args:
      config: the result of configuration.scores as nested dicts, without its seed.
      seed: the seed of the attacks and of the bootstrap.
      arrays: arrays in memory; None to read those of config.scores.
      notes: sentences about how the arrays were made from the user's models; None: they were not.
    """
    name = config["scores"] or "arrays"
    taken = supplied_arrays.load(name) if arrays is None else arrays
    supplied = supplied_arrays.build(taken, name=str(name), seed=seed)
    pool, design = supplied.pool, supplied.design
    report = settings.settings_of(config).report
    validate.check_epochs(report.epochs, {}, {}, target=True)
    sections, left_out = default_attacks.choose(
        config["attacks"],
        supplied,
        default_attacks.ARRAYS if notes is None else default_attacks.MODELS,
    )
    asked_here = notes is not None
    labels = [label_inference.NOTE] if (config["report"]["audit"] or {}).get("labels") else []
    notes = [*(notes or ()), *labels, *supplied.notes, *left_out]
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
    attacks = make_attacks(sections, have=supplied.signal)
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
        asked_here=asked_here,
        recipe=asked_here and "member" not in taken,  # no target of the user's among them
    )


def check_report(
    typed: Settings,
    attacks: Mapping[str, Attack],
    *,
    design: Design,
    pool: Pool,
    arrays: bool = False,
    promised: float | None = None,
) -> None:
    """Raises ValueError for slices, groups or an audit of epsilon that cannot be computed.

    Args:
      typed: the settings.
      attacks: {name: Attack}.
      design: who trains on what.
      pool: the examples.
      arrays: whether the user supplied the answers.
      promised: the delta of private training; None without it.
    """
    slices.check(
        typed.report.slices,
        columns=tuple(pool.columns),
        groups=typed.report.groups,
        num_examples=len(pool.y),
    )
    privacy_audit.settings(
        typed.report.audit,
        design=design,
        knows={name: threat_model.knowledge(attack) for name, attack in attacks.items()},
        level=typed.report.level,
        promised=promised,
        arrays=arrays,
    )


def typed_data(config: Mapping) -> DataSettings:
    """Returns the general fields of config.data."""
    return settings.general(DataSettings, config["data"])
