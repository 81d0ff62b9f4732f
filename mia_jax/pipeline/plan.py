"""Defines what an audit will do: the fleet that is trained and the questions that models are asked.

Both are decided once, when the experiment is built; the planned attacks are defined in
mia_jax/threat_model.py. The stages take these types (and `Store` and `Settings`) and no config.

Keys: training/programs.py makes that of model m (`model_keys`), pipeline/build_attacks.py that of
an attack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mia_jax.types import Learner, Model, Pool, Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """Holds what every model is asked.

    Args:
      signals: {name: signal}, measured by forward passes or interactively (`Signal.ask`).
      views: the names of the query views.
      view_functions: what each query view does to examples.
      batch_size: examples per forward pass.
      ask_batch_size: examples per batch of interactive signals.
      rows: {interactive signal: the examples about which each model is asked, boolean [M,N]}.
      snapshots: the epochs after which the variables of models were kept.
      trajectory: whether the losses at the snapshots make a signal.
      repeated: the signals that every snapshot is asked for the report over epochs.
      seed: the seed of the keys of interactive signals.
      precision: at which precision the models answer (runtime/precision.py).
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
    precision: str = "float32"

    @property
    def passes(self) -> dict[str, Signal]:
        """Returns the signals that forward passes answer."""
        return {name: signal for name, signal in self.signals.items() if signal.ask is None}

    @property
    def probes(self) -> dict[str, Signal]:
        """Returns the interactive signals."""
        return {name: signal for name, signal in self.signals.items() if signal.ask is not None}

    @property
    def rounds(self) -> int:
        """Returns how often models are asked: when they are trained, and as they were at snapshots.

        The rounds at snapshots ask fewer signals, by forward passes of the same length.
        """
        return 1 + len(self.snapshots) * self.trajectory + len(self.asked_epochs)

    @property
    def asked_epochs(self) -> tuple[int, ...]:
        """Returns the epochs whose models are asked for the report over epochs."""
        return self.snapshots if self.repeated else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """Holds what is trained: the learner, the examples and the rows of every model.

    Args:
      learner: the learning rule.
      pool: the examples.
      rows_MK: the rows of each model, padded to the same number.
      weight_MK: 0 for padding, else 1.
      validation: (rows_MV, weight_MV) by which training is monitored; None for none.
      seed: the key of model m derives from (seed, m).
      snapshots: the epochs after which the variables are kept.
      watched_rows: the canaries whose gradients are recorded; None for none.
      precision: at which precision networks train (runtime/precision.py).
    """

    learner: Learner
    pool: Pool
    rows_MK: np.ndarray
    weight_MK: np.ndarray
    validation: tuple[np.ndarray, np.ndarray] | None
    seed: int
    snapshots: tuple[int, ...] = ()
    watched_rows: np.ndarray | None = None
    precision: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedHere:
    """Holds what the report reads about the models that were trained here.

    Args:
      models: the numbers of the models, without those that failed.
      model: the network; None if nothing was trained here.
      guarantee: the guarantee of private training (privacy/guarantee.py); None without it.
      objective: the fields of the configured objective.
      release_size: the norm of a Dirac canary's clipped gradient; None without such canaries.
    """

    models: tuple[int, ...] = ()
    model: Model | None = None
    guarantee: Any = None
    objective: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    release_size: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Holds what is audited, in plain values that a report repeats.

    Args:
      data: the name of the data set.
      pool: the digest of its examples.
      duplicates: how many examples are equal to others.
      model: the section `model` of the config.
      learner: the section `learner` of the config.
      canaries: {kind, count} if only canaries are scored, else None.
      target: what is known about a user-supplied target: 'answers', 'labels (a black box)' or ''.
      supplied: whether the user supplied some of the answers.
      drawn: whether membership was drawn at random.
      notes: sentences about the user-supplied arrays.
      asked_here: whether the answers are those of models that were asked here: all about the same
        rows, in the same order.
      recipe: whether all models were trained by the user's `fit` on the labels of these rows.
      precisions: {'learner', 'query': at which precision networks train and answer}; {} without a
        network.
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
    asked_here: bool
    recipe: bool
    precisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
