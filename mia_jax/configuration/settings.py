"""Defines the settings of a run: one frozen dataclass per section of a config, with defaults.

A config is read into these objects once, where a run is built. Functions below that take settings
or single values, never the dict. Sections that choose a plug-in (data, design, model, learner,
attacks) have their general fields here; the fields of a plug-in are the arguments of its `make`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Holds the fields that every data set has.

    Attributes:
        standardize: whether features are scaled to mean 0 and variance 1.
        drop_duplicates: whether rows that equal an earlier row are left out.
        canaries: fields of data/_canaries.py; None inserts no canaries.
    """

    standardize: bool = False
    drop_duplicates: bool = False
    canaries: Mapping | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """Holds the fields that every learner has.

    Attributes:
        objective: the name of the loss, or a mapping of its name and fields.
        validation: the rows on which models are evaluated while they train.
        stop: fields of learners/stopping.py; None never stops early.
        snapshots: epochs after which the variables are kept.
        init_from: the workdir (and model) from whose variables training starts; '' starts from
            random variables.
        watch: whether scores of the gradients of canaries are kept.
        precision: float32, tf32 or bfloat16: at which precision networks train
            (mia_jax/runtime/precision.py).
        shards: the shards into which the batch of a step is cut. Their gradients are added in a
            fixed order, on one device or on several (run.mesh), so that their number, not that of
            the devices, decides the last bits.
    """

    objective: str | Mapping = "cross_entropy"
    validation: str = "none"
    stop: Mapping | None = None
    snapshots: Sequence[int] = ()
    init_from: str = ""
    watch: bool = False
    precision: str = "float32"
    shards: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """Holds the fields that every attack has.

    Attributes:
        defense: what changes the target's outputs before the attacker sees them; '' for nothing.
        adaptive: whether the attacker applies the defense to the shadow models as well.
    """

    defense: str = ""
    adaptive: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuerySettings:
    """Says what every model is asked.

    Attributes:
        views: the query views in which every example is shown.
        batch_size: examples per batch of forward passes.
        ask_batch_size: examples per batch of signals that take more than one forward pass.
        signals: signals that are asked in addition to those that the attacks need.
        save_logits: whether the logits are kept.
        precision: float32, tf32 or bfloat16: at which precision networks answer.
    """

    views: Sequence[str] = ("identity",)
    batch_size: int = 500
    ask_batch_size: int = 100
    signals: Sequence[str] = ()
    save_logits: bool = False
    precision: str = "float32"


SHOW_RECORDS = ("auto", "contents", "numbers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Says what the report computes.

    Attributes:
        fprs: the false-positive rates at which the true-positive rate is reported.
        ppv_ratio: non-members per member for which the precision is reported.
        draws: bootstrap draws per interval.
        level: the level of the intervals.
        shadow_curve: attacks that are repeated with fewer shadows.
        figures: whether figures are drawn.
        slices: slices of the records; see metrics/slices.py.
        groups: {name: row numbers}, further slices.
        records: attacks whose scores decide which records are exposed. None: the attack that leads
            the ranking; (): none.
        show_records: one of SHOW_RECORDS: what the report holds of the most exposed records and of
            their nearest neighbors. 'numbers': row numbers, rates and distances. 'contents': also
            copies: pictures, values, labels, ids. 'auto': contents of public data
            (`Presentation.public`), else numbers.
        jackknife: the number of groups of units; attacks on shadows are rerun without each group
            for their intervals. 0: never.
        epochs: attacks that are repeated on the models of learner.snapshots.
        audit: fields of measures/privacy_audit.py. None: an audit with its defaults if the design
            is canaries, else no audit.
        sections: modules of further sections of report.md, by dotted path; see report/page.py.
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
    show_records: str = "auto"
    jackknife: int = 8
    epochs: Sequence[str] = ()
    audit: Mapping | None = None
    sections: Sequence[str] = ()

    @property
    def resolved_fprs(self) -> tuple[float, ...]:
        """Returns the false-positive rates above 0; at 0 only the TPR is defined."""
        return tuple(fpr for fpr in self.fprs if fpr > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Says how a run is executed; no field is part of a hash.

    None changes more of a result than last bits: chunk and form do, and train/plan.json keeps them.

    Attributes:
        platform: 'cpu', 'gpu' or 'tpu': a run that finds JAX on another platform ends before it
            trains or asks a model; '' takes what there is.
        chunk: models that are trained at once, or 'auto' to measure which number is fastest.
        form: how a program trains several models: 'turns' (one after the other), 'grouped' (at
            once, XLA's convolutions), 'patches' (at once, convolutions as products) or 'layers' (in
            turn, and for every convolution the program that is measured to be the fastest); 'auto'
            measures which is fastest on this device. '' is 'patches' on a CPU and 'grouped'
            elsewhere, which is never measured, so that bits do not depend on a stopwatch.
        lanes: chunks that are trained at once on one device; 0 chooses.
        devices: devices that are used; 0 takes all.
        mesh: groups of devices that train one model together, a mapping of `model` (how many groups
            there are, each for models of its own), `data` (how many devices of a group share a
            batch; it divides learner.shards) and `parameters` (whether each of them keeps only a
            part of the state); None: every device trains models of its own.
        query_chunk: models that are queried at once; 0 chooses.
        checkpoint_every: epochs between two checkpoints of a model in training; 0 for none.
        checkpoint_minutes: minutes between two checkpoints, in addition; 0 for none.
        pool_bytes: the bytes that the data may take on a device; larger data are streamed.
        memory_bytes: the bytes that training may use; 0 takes what is available.
        retries: further attempts at models that failed.
        profile: epochs of which jax.profiler writes a trace into WORKDIR/profile, of the models
            that reach them first; of a streamed pool, of their first part. Of
            several processes (--distributed) the first one writes it.
    """

    platform: str = ""
    chunk: int | str = 8
    form: str = ""
    lanes: int = 0
    devices: int = 0
    mesh: Mapping | None = None
    query_chunk: int = 0
    checkpoint_every: int = 25
    checkpoint_minutes: float = 10.0
    pool_bytes: int = 2**31
    memory_bytes: int = 0
    retries: int = 0
    profile: Sequence[int] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Describes the user's target, if there is one.

    Attributes:
        signals: the file of its answers; see mia_jax/external/arrays.py.
        black_box: a function or an npz file that answers labels; see mia_jax/query/black_box.py.
        member: the file that says on which rows the black box was trained.
        rate: the largest number of queries per second; 0 sets no limit.
        batch_size: examples per query of the black box.
    """

    signals: str = ""
    black_box: str = ""
    member: str = ""
    rate: float = 0.0
    batch_size: int = 256


SECTIONS = dict(query=QuerySettings, report=ReportSettings, run=RunSettings, target=TargetSettings)
GENERAL = dict(data=DataSettings, learner=LearnerSettings, attacks=AttackSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Holds the typed sections of one config; `learner` is None if nothing is trained."""

    query: QuerySettings
    report: ReportSettings
    run: RunSettings
    target: TargetSettings
    learner: LearnerSettings | None = None


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Returns the settings of a finished config (`schema.complete` or `schema.scores`)."""
    parts = {name: kind(**config.get(name, {})) for name, kind in SECTIONS.items()}
    learner = config.get("learner")
    return Settings(**parts, learner=None if learner is None else general(LearnerSettings, learner))


def general(kind: type, section: Mapping[str, Any]) -> Any:
    """Returns the general fields of a section as an object of `kind`, without the plug-in's fields.

    >>> general(AttackSettings, dict(name='lira', defense='top_k')).defense
    'top_k'
    """
    return kind(**{name: section[name] for name in names(kind) if name in section})


def names(kind: type) -> tuple[str, ...]:
    """Returns the names of the fields of a settings class."""
    return tuple(field.name for field in dataclasses.fields(kind))


def defaults(kind: type) -> dict[str, Any]:
    """Returns {name: default} of the fields of a settings class, as a config shows them."""
    return dataclasses.asdict(kind())
