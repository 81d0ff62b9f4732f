"""Defines `Measured`, everything that a report shows: report.json is this object, key by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from mia_jax.measures.shown_records import Shown

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Describes what was attacked.

    Attributes:
      pool: the digest of the examples.
      notes: sentences about user-supplied arrays; their key in report.json is `said`.
      target: what is known about a user-supplied target: 'answers', 'labels (a black box)' or ''.
      contents: whether the report may hold copies of examples (report.show_records).
      precision: {'learner', 'query': at which precision networks train and answer}; absent if no
        network was trained here.
      asked: 'model' if a model of the user's was asked here, 'recipe' if the user's `fit` trained
        all models; absent otherwise.
    """

    data: str
    pool: str
    examples: int
    classes: int
    shape: Sequence[int]
    seed: int
    duplicates: Mapping[str, int]
    views: Sequence[str]
    notes: Sequence[str] = dataclasses.field(metadata=dict(key="said"))
    arrays: bool
    target: str
    canaries: Mapping[str, Any] | None
    model: Any
    learner: Any
    level: float
    contents: bool
    precision: Mapping[str, str] | None = None
    asked: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesignNumbers:
    """Describes the design in numbers.

    The last three fields are absent from report.json where they are None.
    """

    name: str
    note: str
    supports: Sequence[str]
    models: int
    targets: Sequence[int]
    shadows_min: int
    shadows_max: int
    train_rows: int
    evaluated_rows: int
    population_rows: int
    failed: Sequence[Mapping[str, Any]] | None = None
    without_twin: Sequence[int] | None = None
    retried: Sequence[int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Holds every number of an audit.

    Args:
      about: what was attacked.
      verdict: the verdict on every attack, the ranking, and the minimum detectable effect.
      results: one row per attack, target, slice and metric (metrics/summary.py lists the columns).
      queries: {label-only attack: points of accuracy and TPR against queries per example}.
      curves: {attack: its pooled ROC curve, thinned, with intervals} (measures/curves.py).
      histograms: {attack: the counts of its scores of members and of non-members in bins}.
      comparisons: the differences between attacks.
      agreement: which records attacks identify together (measures/agreement.py); None if fewer than
        two attacks could be run by a real attacker.
      identification: the records that attacks identify with a bounded expected share of false ones
        (measures/identification.py); None without such an attack.
      slices: the requested slices, their ranking, and those that are too small.
      models: one row per model: accuracies, losses, epochs, seconds.
      design: the design in numbers.
      attacks: {attack: its config, `needs`, `knows`, `note`}.
      shadow_curves: {attack: {number of shadows: numbers}}.
      assumptions: {attack: how well its assumptions hold}.
      usage: the share of the rows that was used for training; None if it cannot be estimated.
      records: {attack: how exposed single records are, and which are most exposed}.
      shown_records: what is shown of the most exposed records; None if none is significant.
      epochs: the report over epochs; None without one.
      overfitting: how much each target overfits and leaks (measures/overfitting.py); None where the
        quality of a target is unknown.
      audit: what canaries prove about epsilon; None without an audit.
      guarantee: epsilon and all on which it depends; None without private training.
      evasion: {signal: accuracy against radius}.
      pairs: how well a network that embeds pairs separates classes; None for other networks.
      validity: the checks of whether these numbers can be trusted.
      versions: packages, devices and revision.
      sections: further sections of report.md, by dotted path.
      cross_validation: accuracies over folds; absent for other designs.
    """

    about: About
    verdict: Mapping[str, Any]
    results: Rows
    queries: Mapping[str, Rows]
    curves: Mapping[str, Mapping[str, Any]]
    histograms: Mapping[str, Mapping[str, Any]]
    comparisons: Rows
    agreement: Mapping[str, Any] | None
    identification: Mapping[str, Any] | None
    slices: Mapping[str, Any]
    models: Rows
    design: DesignNumbers
    attacks: Mapping[str, Mapping]
    shadow_curves: Mapping[str, Any]
    assumptions: Mapping[str, Any]
    usage: Mapping[str, Any] | None
    records: Mapping[str, Any]
    shown_records: Shown | None
    epochs: Any
    overfitting: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    guarantee: Mapping[str, Any] | None
    evasion: Mapping[str, Any]
    pairs: Mapping[str, Any] | None
    validity: Mapping[str, Any]
    versions: Mapping[str, Any]
    sections: Sequence[str]
    cross_validation: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the object of report.json.

        Fields whose default is None are absent if they are None.
        """
        return as_json(self)


def as_json(value: Any) -> dict[str, Any]:
    """Returns a dataclass of this file as an object of report.json, nested ones included."""
    parts = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if part is None and field.default is None:
            continue
        parts[_key(field)] = _plain(part)
    return parts


def _plain(part: Any) -> Any:
    """Returns a field's value with dataclasses, also those of a list, as objects."""
    if dataclasses.is_dataclass(part):
        return as_json(part)
    return [_plain(item) for item in part] if isinstance(part, list | tuple) else part


def _key(field: dataclasses.Field) -> str:
    """Returns the key of a field in report.json: its name unless its metadata gives another."""
    return field.metadata.get("key", field.name)


def schema(kind: type = Measured) -> dict[str, Any]:
    """Returns the schema of report.json: {key: type, or the schema of an object}.

    The names of keys that may be absent end with '?'. A list of objects is [schema of one], an
    object or null is (schema,).
    """
    hints, keys = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        name = _key(field) + "?" * (field.default is None)
        keys[name] = _schema_of(hints[field.name])
    return keys


def _schema_of(hint: Any) -> Any:
    """Returns the schema of a field's type."""
    if dataclasses.is_dataclass(hint):
        return schema(hint)
    parts = [part for part in get_args(hint) if part is not type(None)]
    if len(parts) == 1 and get_origin(hint) is Sequence and dataclasses.is_dataclass(parts[0]):
        return [schema(parts[0])]
    if len(parts) == 1 and parts != list(get_args(hint)):
        inner = _schema_of(parts[0])
        return hint if inner is parts[0] else (inner,)
    return hint
