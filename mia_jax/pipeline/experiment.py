"""Defines `Experiment`: the objects of one run of one seed, made by pipeline/build.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mia_jax import query_views
from mia_jax.configuration.settings import Settings
from mia_jax.designs import _failed
from mia_jax.measures.validity import RANDOM
from mia_jax.pipeline.attack import SignalReader, asked_rows
from mia_jax.pipeline.build_parts import initial_parameters, release_size, scored_canaries
from mia_jax.pipeline.evidence import SLICE_SIGNALS
from mia_jax.pipeline.plan import FleetPlan, Questions, Subject, TrainedHere
from mia_jax.pipeline.query import Asked, claims
from mia_jax.pipeline.train import validation_rows
from mia_jax.query.snapshots import SIGNAL as TRAJECTORY
from mia_jax.runtime import files, precision
from mia_jax.runtime.store import Store
from mia_jax.threat_model import PlannedAttack, by_name
from mia_jax.training import failures
from mia_jax.types import Design, Learner, Model, Pool, Signal

# Design fields that may grow: the first models stay as they are.
GROWTH = ("models", "sources")
# Design fields that choose what is scored: no model depends on them.
SCORED = ("targets", "scored", "scored_sources", "apart")
# Fields that older versions did not record, with the value that means what they did.
LATER = dict(
    data=dict(skip=0),
    design=dict(extra=0.0),
    learner=dict(
        precision=precision.DEFAULT,
        shifts=0,
        train_on="members",
        members_epochs=0,
        extra_trainable="",
        adapter_rank=0,
        adapter_layers="",
        shards=1,
    ),
)
# The same of the fields of learner.privacy.
LATER_PRIVACY = dict.fromkeys(("max_tpr", "at_fpr", "max_advantage"))
LATER_PRIVACY |= dict(noise="gaussian", bands=1, normals="inverse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Holds everything that one run of one seed needs; its methods give each stage its part.

    Args:
      config: the whole config as a plain dict, which is recorded and hashed.
      settings: the typed sections of the config.
      seed: the seed of the run.
      pool: the examples.
      pool_hash: the digest of the examples.
      duplicates: how many examples are equal to others.
      design: who trains on what.
      rows_MK: the rows of the models that are trained here, padded.
      weight_MK: 0 for padding, else 1.
      model: the network; None if nothing is trained here.
      learner: the learning rule; None if nothing is trained here.
      signals: {name: signal} that models are asked; {name: None} for user-supplied arrays.
      attacks: the planned attacks.
      supplied: {signal: [M,A,N,...]} that the user supplied, for all models of the design or for
        its last ones (a target that is audited with our shadows).
      notes: sentences for the report.
      asked_here: whether all supplied answers are those of models that were asked here, about the
        same rows in the same order.
      recipe: whether all of these models were trained by the user's `fit`.
      failed: {model: record} of the models that failed (training/failures.py). The run goes on
        without them: they are neither targets nor shadows, and have no answers.
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
    asked_here: bool = False
    recipe: bool = False
    failed: Mapping[int, Mapping] = dataclasses.field(default_factory=dict)

    @property
    def trained_models(self) -> list[int]:
        """Returns the models that are trained here and have not failed."""
        return [m for m in range(len(self.rows_MK)) if m not in self.failed]

    @property
    def train_config(self) -> dict:
        """Returns what determines the variables of model m.

        This is everything upstream of the queries, except for the size of the fleet and the choice
        of the scored rows.
        """
        config = self.config
        left_out = (*GROWTH, *SCORED)
        design = {k: v for k, v in config["design"].items() if k not in left_out}
        design = as_recorded("design", design)
        data = as_recorded("data", config["data"])
        parts = dict(seed=self.seed, data=data, pool=self.pool_hash, design=design)
        parts |= dict(model=config["model"], learner=as_recorded("learner", config["learner"]))
        if config["learner"] and config["learner"].get("init_from"):
            start = initial_parameters(config["learner"]["init_from"])
            parts |= dict(init=files.digest(*(start[name] for name in sorted(start))))
        if self.model is not None and (numerics := precision.unusual()):
            parts |= dict(numerics=numerics)
        if self.supplied:
            arrays = (self.supplied[name] for name in sorted(self.supplied))
            parts |= dict(given=files.digest(*arrays))
        return parts

    @property
    def precisions(self) -> dict[str, str]:
        """Returns {'learner', 'query': at which precision networks train and answer}.

        It is {} if there is no network.
        """
        if self.settings.learner is None:
            return {}
        return dict(learner=self.settings.learner.precision, query=self.settings.query.precision)

    @functools.cached_property
    def run(self) -> str:
        """Returns the digest of `train_config`, by which files record the run they belong to."""
        return files.digest(self.train_config)

    def without_failed(self, store: Store) -> Experiment:
        """Returns the experiment without the models that failed, as recorded in the workdir.

        Raises:
          FloatingPointError: no model is left, or no target with shadows.
        """
        failed = failures.known(store.train.folder, range(len(self.rows_MK)))
        if not failed:
            return self
        design = _failed.without(self.design, failed)
        left = dataclasses.replace(self, design=design, failed=failed)
        why = ""
        if not left.trained_models:
            why = f"all {len(failed)} models failed"
        elif not design.targets:
            count = f"{len(failed)} of {len(self.rows_MK)} models failed"
            why = f"{count} and no target with shadows is left"
        if why:
            raise FloatingPointError(failures.refusal(failed, why=why))
        return left

    def fleet_plan(self) -> FleetPlan:
        """Returns what the stage TRAIN trains."""
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
            precision=learner.precision,
        )

    def asked(self) -> Asked:
        """Returns the models that the stage QUERY asks."""
        models = tuple(self.trained_models)
        model = precision.computing(self.learner.model, self.settings.query.precision)
        return Asked(model=model, pool=self.pool, design=self.design, models=models)

    def questions(self) -> Questions | None:
        """Returns what the models are asked; None if the user supplied all answers."""
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
            precision=query.precision,
        )

    def _repeated(self) -> tuple[str, ...]:
        """Returns the signals that snapshots are asked for report.epochs."""
        epochs = self.settings.report.epochs
        if not epochs:
            return ()
        planned = by_name(self.attacks)
        asked = {signal for name in epochs for signal in planned[name].signals}
        asked |= set(SLICE_SIGNALS)
        return tuple(name for name in self.signals if name in asked)

    def reader(self, store: Store) -> SignalReader:
        """Returns the reader of measured signals for ATTACK and MEASURE."""
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
        """Returns what the report reads about the models that were trained here."""
        if self.learner is None:
            return TrainedHere()
        objective = self.settings.learner.objective
        sections = [self.config[name] for name in ("data", "learner", "attacks")]
        parts = dict(model=self.model, pool=self.pool, design=self.design)
        return TrainedHere(
            models=tuple(self.trained_models),
            model=self.model,
            guarantee=self.learner.guarantee,
            objective=objective if isinstance(objective, Mapping) else {},
            release_size=release_size(*sections, **parts),
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
            canaries=scored_canaries(config["data"], design=self.design, pool=self.pool),
            target="answers" if target.signals else known,
            supplied=bool(self.supplied) or bool(target.black_box),
            drawn=drawn,
            notes=self.notes,
            asked_here=self.asked_here,
            recipe=self.recipe,
            precisions=self.precisions,
        )


def as_recorded(section: str, fields: Mapping | None) -> Mapping | None:
    """Returns a section of the config as older versions recorded it, if it asks for the same.

    >>> as_recorded("learner", dict(epochs=3, shifts=0, train_on="extra"))
    {'epochs': 3, 'train_on': 'extra'}
    """
    kept = _without(fields, LATER[section])
    if kept and isinstance(kept.get("privacy"), Mapping):
        return {**kept, "privacy": _without(kept["privacy"], LATER_PRIVACY)}
    return kept


def _without(fields: Mapping | None, later: Mapping) -> Mapping | None:
    """Returns the fields without those that have their value of `later`."""
    return fields and {k: v for k, v in fields.items() if k not in later or v != later[k]}
