"""The settings of a run: one frozen dataclass per section of a config, with types and defaults.

`config` is read into these once, where a run is built; below that, functions take settings (or
single values) and no dict. Sections that choose a plug-in (data, design, model, learner, attacks)
have the general fields here and those of the plug-in in its `make`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Fields of every data set.

    `canaries`: fields of data/_canaries.py; None inserts none.
    """

    standardize: bool = False
    drop_duplicates: bool = False
    canaries: Mapping | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """Fields of every learner.

    `validation`: which rows a training is watched on. `stop`: fields of learners/stopping.py; None
    never stops early. `snapshots`: epochs after which the variables are kept. `init_from`: the
    workdir (and model) that training starts from. `watch`: keep scores of canaries' gradients.
    """

    objective: str | Mapping = "cross_entropy"
    validation: str = "none"
    stop: Mapping | None = None
    snapshots: Sequence[int] = ()
    init_from: str = ""
    watch: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """Fields of every attack.

    `defense` changes the target's outputs before the attacker sees them; with `adaptive` the
    attacker defends the shadows in the same way.
    """

    defense: str = ""
    adaptive: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """What every model is asked: `views` of each example, signals beside those of the attacks."""

    views: Sequence[str] = ("identity",)
    batch_size: int = 500
    ask_batch_size: int = 100
    signals: Sequence[str] = ()
    save_logits: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the report computes.

    `slices`, `groups` {name: row numbers}: metrics/slices.py. `records`: attacks whose exposed
    records are looked for (None: the attack that leads the ranking, (): none). `jackknife`: groups
    of units without which attacks on shadows are rerun for their intervals (reruns.py; 0: never).
    `epochs`: attacks that are repeated on the models of learner.snapshots. `audit`: fields of
    measures/privacy_audit.py (None: with its defaults under the design canaries, else no audit).
    `sections`: modules of further sections of report.md, by dotted path: report/page.py.
    """

    fprs: Sequence[float] = (0.001, 0.01, 0.1)
    ppv_ratio: float = 1.0
    draws: int = 200
    level: float = 0.95
    shadow_curve: Sequence[str] = ("lira",)
    figures: bool = True
    slices: Sequence[str] = ("class",)
    groups: Mapping = dataclasses.field(default_factory=dict)
    records: Sequence[str] | None = None
    jackknife: int = 8
    epochs: Sequence[str] = ()
    audit: Mapping | None = None
    sections: Sequence[str] = ()

    @property
    def resolved_fprs(self) -> tuple[float, ...]:
        """Returns the false-positive rates above 0; at 0 there is a TPR alone."""
        return tuple(fpr for fpr in self.fprs if fpr > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How, not what: nothing here changes a result, and nothing is in a hash.

    `memory_bytes`: what the training may use (0: what is available). `retries`: further attempts
    at models that failed.
    """

    chunk: int | str = 8
    lanes: int = 0
    devices: int = 0
    query_chunk: int = 0
    checkpoint_every: int = 25
    pool_bytes: int = 2**31
    memory_bytes: int = 0
    retries: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """A target of the user's own: the file of its answers, or a black box of labels."""

    signals: str = ""
    black_box: str = ""
    member: str = ""
    rate: float = 0.0
    batch_size: int = 256


SECTIONS = dict(query=QuerySettings, report=ReportSettings, run=RunSettings, target=TargetSettings)
GENERAL = dict(data=DataSettings, learner=LearnerSettings, attacks=AttackSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The typed sections of one config. `learner` is None where nothing is trained here."""

    query: QuerySettings
    report: ReportSettings
    run: RunSettings
    target: TargetSettings
    learner: LearnerSettings | None = None


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Reads the sections of a finished config (`config.complete` or `config.scores`)."""
    parts = {name: kind(**config.get(name, {})) for name, kind in SECTIONS.items()}
    learner = config.get("learner")
    return Settings(**parts, learner=None if learner is None else general(LearnerSettings, learner))


def general(kind: type, section: Mapping[str, Any]) -> Any:
    """Returns the general fields of a section as an object of `kind`; the plug-in's fields are left
    out.
    """
    return kind(**{name: section[name] for name in names(kind) if name in section})


def names(kind: type) -> tuple[str, ...]:
    """Returns the names of the fields of a settings class."""
    return tuple(field.name for field in dataclasses.fields(kind))


def defaults(kind: type) -> dict[str, Any]:
    """Returns {name: default} of the fields of a settings class, as a config shows them."""
    return dataclasses.asdict(kind())
