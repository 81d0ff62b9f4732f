"""What an audit will do, decided once where it is built: the questions that models are asked, and
the fleet that is trained. The planned attacks are in mia_jax/threat_model.py.

Seeds: training/programs.py makes model m's key (`model_keys`), pipeline/build.py an attack's.
The stages take these nouns (and `Store`, `Settings`) and no config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mia_jax.types import Learner, Model, Pool, Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """What every model is asked.

    Args:
      signals: {name: signal} of forward passes and of questions of their own (`Signal.ask`).
      views: names of the query views, and `view_functions` what they do to examples.
      batch_size: examples per forward pass; `ask_batch_size` of questions of their own.
      rows: {signal with questions of its own: which examples each model is asked about [M,N]}.
      snapshots: epochs after which the variables of models were kept.
      trajectory: whether the losses at the snapshots make a signal.
      repeated: signals that the models of every snapshot are asked for the report over epochs.
      seed: seed of the questions' keys.
    """

    signals: Mapping[str, Signal]
    views: tuple[str, ...]
    view_functions: tuple[Callable, ...]
    batch_size: int
    ask_batch_size: int
    rows: Mapping[str, np.ndarray]
    snapshots: tuple[int, ...]
    trajectory: bool
    repeated: tuple[str, ...]
    seed: int

    @property
    def passes(self) -> dict[str, Signal]:
        """Returns the signals that forward passes answer."""
        return {name: signal for name, signal in self.signals.items() if signal.ask is None}

    @property
    def probes(self) -> dict[str, Signal]:
        """Returns the signals with questions of their own."""
        return {name: signal for name, signal in self.signals.items() if signal.ask is not None}

    @property
    def asked_epochs(self) -> tuple[int, ...]:
        """Returns the epochs whose models are asked for the report over epochs."""
        return self.snapshots if self.repeated else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """The models that are trained here.

    Args:
      learner: the learning rule.
      pool: the examples.
      rows_MK, weight_MK: the rows of each model, padded with weight 0.
      validation: (rows_MV, weight_MV) that training is watched on; None for none.
      seed: model m's key derives from (seed, m).
      snapshots: epochs after which the variables are kept.
      watched_rows: canaries whose gradients are watched; None for none.
    """

    learner: Learner
    pool: Pool
    rows_MK: np.ndarray
    weight_MK: np.ndarray
    validation: tuple[np.ndarray, np.ndarray] | None
    seed: int
    snapshots: tuple[int, ...] = ()
    watched_rows: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedHere:
    """The models that were trained here, as the report asks about them.

    Args:
      models: their numbers, without those that failed.
      model: the net; None if nothing was trained here.
      guarantee: what private training promises (privacy.guarantee); None without it.
      objective: the fields of the objective that the learner was configured with.
    """

    models: tuple[int, ...] = ()
    model: Model | None = None
    guarantee: Any = None
    objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is audited, in plain values that a report repeats.

    Args:
      data: name of the data set; `pool` the digest of its examples.
      duplicates: how many examples are equal to others.
      model, learner: their sections of the config.
      canaries: {kind, count} where only canaries are scored.
      target: what is known of a target of the user's own: 'answers', 'labels (a black box)', ''.
      supplied: whether some answers are the user's own.
      drawn: whether membership was drawn at random.
      notes: sentences about the user's own arrays.
    """

    data: str
    pool: str
    duplicates: Mapping[str, int]
    model: Any
    learner: Any
    canaries: Mapping[str, Any] | None
    target: str
    supplied: bool
    drawn: bool
    notes: tuple[str, ...]
