"""Defines the types that the folders of the project exchange: this file is its vocabulary.

The axis letters of shapes (N examples, M models, B a batch, ...) are listed in mia_jax/__init__.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mia_jax import checks

Variables = dict[str, Any]  # {'params': ..., 'stats': ... or absent}
# The values of Task.kind; the last two only with external arrays of answers.
TASKS = ("classification", "regression", "sequence", "multilabel", "unlabeled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """States what the labels are, what a model answers and which signals can be asked.

    A data set states its task once; all other code reads `pool.task`. Make one with
    `classification`, `regression`, `sequence`, `multilabel` or `unlabeled`.

    Args:
        kind: one of TASKS.
        num_classes: the number of values that a label can take (at every position of a sequence); 0
            if labels are not class numbers.
        y: the axes of the labels, one letter each: B examples, L positions, C labels or F numbers
            per example.
        out: the axes of a model's output, where C (or V for a sequence) counts the classes and 1 is
            a single number.
        signals: the signals that are asked of every model for the report.
        slices: the slices of the report that the labels allow: ('class',) or none.
        vocabulary: None if x holds real numbers (float32); otherwise x holds tokens, integers
            (int32) in 0..vocabulary-1.
    """

    kind: str
    num_classes: int = 0
    y: str = "B"
    out: str = ""
    signals: tuple[str, ...] = ("loss",)
    slices: tuple[str, ...] = ()
    vocabulary: int | None = None

    @property
    def has_classes(self) -> bool:
        """Returns whether the label of every example is one class number."""
        return self.kind == "classification"

    @property
    def num_outputs(self) -> int:
        """Returns the length of an output's last axis (`num_classes` of a model's `make`)."""
        return 1 if self.out.endswith("1") else self.num_classes

    def require(self, kinds: tuple[str, ...], *, of: str, remedy: str) -> None:
        """Raises ValueError unless this task is of one of `kinds`.

        Args:
            kinds: the TASKS that can be used.
            of: what needs them, such as "the objective 'squared'".
            remedy: what the user can do instead.
        """
        if self.kind not in kinds:
            raise ValueError(
                f"{of} is for {' or '.join(kinds)}, and the task of this data is {self.kind}: "
                f"{remedy}."
            )


def classification(num_classes: int, *, vocabulary: int | None = None) -> Task:
    """Returns the task of one class number per example; a model answers with logits [B,C]."""
    checks.at_least(1, num_classes=num_classes)
    _check_vocabulary(vocabulary)
    return Task(
        kind="classification",
        num_classes=int(num_classes),
        out="BC",
        signals=("loss", "correct"),
        slices=("class",),
        vocabulary=vocabulary,
    )


def regression(*, num_outputs: int | None = None, vocabulary: int | None = None) -> Task:
    """Returns the task of one real number per example; a model answers with [B,1].

    Args:
        num_outputs: F numbers per label and per answer, [B,F]; only for external answers.
        vocabulary: the number of tokens if x holds tokens.
    """
    _check_vocabulary(vocabulary)
    y, out = ("B", "B1") if num_outputs is None else ("BF", "BF")
    return Task(kind="regression", y=y, out=out, vocabulary=vocabulary)


def sequence(vocabulary: int) -> Task:
    """Returns the task of one token per position, x and y [B,L]; a model answers with [B,L,V]."""
    checks.at_least(2, vocabulary=vocabulary)
    size = int(vocabulary)
    return Task(kind="sequence", num_classes=size, y="BL", out="BLV", vocabulary=size)


def multilabel() -> Task:
    """Returns the task of C labels (0 or 1) per example, [B,C]; only for external answers."""
    return Task(kind="multilabel", y="BC", out="BC")


def unlabeled() -> Task:
    """Returns the task of examples without known labels; only for external answers."""
    return Task(kind="unlabeled", signals=())


def _check_vocabulary(vocabulary: int | None) -> None:
    if vocabulary is not None:
        checks.at_least(2, vocabulary=vocabulary)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Presentation:
    """Says how a report shows examples to its reader, where it may show them at all.

    Attributes:
        public: whether everybody may see the examples: they are generated, or come with a
            dependency. A report holds copies of other examples only on request
            (report.show_records).
        features: the names of the F numbers of an example; () if they have none.
        classes: the names of the classes 0..num_classes-1; () if they have none.
        picture: the axes (H, W, C) of the image that the F numbers of an example are; () if they
            are none. Examples [H,W,C] are images anyway.
    """

    public: bool = False
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    picture: tuple[int, ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Holds all examples of an audit in a fixed order: row n is example n everywhere.

    Attributes:
        x: [N, ...] float32 (images are [N,H,W,C] in [0,1]), or int32 if it holds tokens. Bytes are
            `Rows` (runtime/rows.py), which become float32 where they are indexed.
        y: [N] int32 class numbers, [N] float32 for regression or [N,L] int32 for sequences; `task`
            says which.
        task: what the labels are and what can be asked.
        columns: further per-example columns of the user, [N] each. The boolean column `population`
            marks rows on which no model may train.
        name: the name of the data set.
        presentation: how a report shows the examples.
    """

    x: Any
    y: Any
    task: Task = dataclasses.field(metadata=dict(static=True))
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = dataclasses.field(default="", metadata=dict(static=True))
    presentation: Presentation = dataclasses.field(
        default=Presentation(), metadata=dict(static=True)
    )

    @property
    def num_classes(self) -> int:
        """Returns the number of classes of the task; 0 if labels are not class numbers."""
        return self.task.num_classes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Holds the B examples about which a signal asks: the model's inputs `x` and the labels `y`."""

    x: Any
    y: Any
    task: Task = dataclasses.field(metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch(Examples):
    """Holds B rows of a pool.

    `weight_B` is 0 on padding, and `index_B` are the numbers of the rows in the pool.
    """

    weight_B: Any
    index_B: Any


class Model(NamedTuple):
    """Describes a network as pure functions; nothing outside mia_jax/models imports flax.

    Attributes:
        init: init(key, x_B..) -> variables.
        apply: apply(variables, x_B.., *, key_B=None, weight_B=None, train=False) -> (out_BC,
            stats). `stats` are the running statistics after this batch ({} without BatchNorm),
            `key_B` holds one PRNG key per example (for dropout) and `weight_B` is 0 on padded rows.
        summary: summary(x_B..) -> a printable table of layers, shapes and parameter counts.
        inside: inside(variables, x_B..) -> {name: array}, the intermediate outputs in inference
            mode. It includes 'penultimate' [B,F], the input of the last layer with parameters. None
            if the model has no such outputs.
        parts: {name: function} that a special learning rule needs of its networks, documented in
            models/forward_forward.py and models/siamese.py; empty for other models.
        signals: the signals that are asked of every such model for the report, in addition to those
            of the task.
    """

    init: Callable[..., Variables]
    apply: Callable[..., tuple[jax.Array, Any]]
    summary: Callable[..., str]
    inside: Callable[..., dict[str, jax.Array]] | None = None
    parts: Mapping[str, Any] = {}
    signals: tuple[str, ...] = ()


# (variables, batch, *, key_B=None, train=False) -> (loss_B, Aux). A loss is never reduced over the
# batch, because training by the mean, private training, loss attacks and padding all share it.
Loss = Callable[..., tuple[jax.Array, "Aux"]]


class Aux(NamedTuple):
    """Holds what a loss returns in addition to the losses.

    Attributes:
        stats: the running statistics after the batch.
        metrics: per-example metrics, such as {'accuracy': [B]}.
    """

    stats: Any
    metrics: dict[str, jax.Array]


# (key, epoch, rows_K, weight_K) -> (index_SB, weight_SB): the rows of each step of one epoch.
# A plan is a pure function, so the rows of any epoch can be computed from (key, epoch) directly.
Plan = Callable[..., tuple[jax.Array, jax.Array]]


class Stop(NamedTuple):
    """Holds the state of an early-stopping rule for one model.

    Epochs start at 1; 0 means "not yet". `best_variables` is None unless the rule restores them.
    """

    best: Any
    wait: Any
    best_epoch: Any
    stopped_epoch: Any
    done: Any
    best_variables: Any


class TrainState(NamedTuple):
    """Holds everything that a resumed run of one model needs, and nothing else."""

    step: Any
    variables: Any
    opt: Any
    key: Any
    stop: Any


class Stopping(NamedTuple):
    """Describes an early-stopping rule as pure functions of one model.

    Attributes:
        monitor: the name of the metric that the rule watches.
        init: init(variables) -> Stop.
        update: update(stop, value, epoch, variables) -> Stop.
        restore_best: whether the variables of the best epoch are restored.
    """

    monitor: str
    init: Callable[..., Stop]
    update: Callable[..., Stop]
    restore_best: bool


class Learner(NamedTuple):
    """Describes a learning rule for one model; a fleet is `vmap` of it.

    Attributes:
        init: init(key, pool) -> TrainState.
        epoch: epoch(state, pool, index_SB, weight_SB) -> (state, sums over examples), which can be
            added over the parts of an epoch; 'weight' is their divisor.
        evaluate: evaluate(variables, pool, rows_K, weight_K) -> sums.
        plan: which rows each step of an epoch sees.
        epochs: the largest number of epochs, and without `stopping` the number.
        stopping: the early-stopping rule of a model; may be None.
        model: answers the queries after training.
        guarantee: the promise of a private learner (privacy/guarantee.py); None for others.
        released: released(state) -> the variables that are saved; None for state.variables.
        shards: the number of shards into which the batch of a step is cut (learners/_shards.py).
        units: the units of a shard, of which privacy.physical_batch='auto' chooses; else 0.
    """

    init: Callable[..., TrainState]
    epoch: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[..., dict[str, jax.Array]]
    plan: Plan
    epochs: int
    stopping: Stopping | None
    model: Model
    guarantee: Any = None
    released: Callable[..., Variables] | None = None
    shards: int = 1
    units: int = 0


class Shadows(NamedTuple):
    """Holds S models of the attacker with which a query is constructed.

    Attributes:
        out: out(x_B..) -> out_SBC.
        member_SB: whether shadow model s trained on example b.
    """

    out: Callable[..., jax.Array]
    member_SB: jax.Array


class Probe(NamedTuple):
    """Describes how a signal asks one model in inference mode; what its `access` excludes is None.

    Attributes:
        label: label(x_B..) -> label_B, int32 (argmax; a tie goes to the lowest class number).
        out: out(x_B..) -> out_BC, the logits, differentiable.
        inside: inside(x_B..) -> {name: array}, intermediate outputs; None if the model has none.
        shadows: the attacker's models; never the target or its twin.
    """

    label: Callable[..., jax.Array]
    out: Callable[..., jax.Array] | None = None
    inside: Callable[..., dict[str, jax.Array]] | None = None
    shadows: Shadows | None = None


class Defense(NamedTuple):
    """Describes how a model's owner changes outputs before they are released; a pure function.

    Attributes:
        apply: apply(out_BC) -> out_BC, the logits of the probabilities that are released.
        keeps_labels: whether the predicted label never changes.
    """

    apply: Callable[[jax.Array], jax.Array]
    keeps_labels: bool


# What a signal may see: predicted labels, output vectors, or the model itself.
ACCESS = ("labels", "outputs", "white_box")


class Signal(NamedTuple):
    """Describes what a model is asked about an example.

    A signal is either `measure`, a function of one forward pass, or `ask`, which queries the model
    as often as it likes.

    Attributes:
        measure: measure(out, batch) -> value. `out` is the model's output with the axes of
            `batch.task.out`, `batch` holds the Examples that were given to it. The value is one
            number [B] or one vector [B,K] per example.
        sign: +1 if larger values (in every component) indicate members, -1 if smaller do, else 0.
        ask: ask(probe, x_B.., y_B, key_B) -> value_B.., in batches of its choice. `key_B` holds one
            key per example derived from (seed, signal, example), so an answer does not depend on
            the batch. It may return (value_B, count_B) or (value_BP, count_BP), where count is the
            number of queries that each value took, rising along P.
        access: one of ACCESS.
        queries: the largest number of labels or outputs that one view of an example with F numbers
            costs: a number, or queries(F).
        check: check(x_N..) raises ValueError for examples that cannot be asked about.
        transform: transform(out_BC) -> out_BC changes every output before it is seen: a query-time
            defense. None for no change.
        shadows: the number of the attacker's models with which the query is constructed
            (Probe.shadows); if there are fewer, they are repeated.
        tasks: the kinds of tasks (TASKS) for which the signal is defined; for others it is refused
            before anything is trained.
        tokens: whether `ask` leaves x unchanged, so that it can be asked about tokens; a signal of
            one forward pass always can.
    """

    measure: Callable[..., jax.Array] | None
    sign: int
    ask: Callable[..., Any] | None = None
    access: str = "outputs"
    queries: int | Callable[[int], int] = 1
    check: Callable[..., None] | None = None
    transform: Callable[..., jax.Array] | None = None
    shadows: int = 0
    tasks: tuple[str, ...] = ("classification",)
    tokens: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """Says which model trains on which examples, and what an attacker of each model may use.

    Attributes:
        name: the name of the design.
        member_MN: whether model m trains on example n.
        evaluated_MN: whether example n is scored when model m is the target.
        shadow_MM: [t, m], whether an attacker of t may use model m (never t or its twin).
        population_N: rows that are outside all models and outside the evaluation.
        unit_M: models with the same number are resampled together (twins).
        targets: the models that are audited.
        supports: the shadow needs (SHADOW_NEEDS of mia_jax.threat_model) that the design can
            satisfy.
        note: a sentence for the report.
        extra_MN: rows outside the training set that a learner may use (adversarial regularization).
        num_rows: K, the length of every model's padded row list. It depends on the fields of the
            design and never on the draw (designs/_rows.py makes the lists).
        balance: whether every example is in the same number of models. Evidence then hides some
            shadows (drawn from `seed`) until all examples have equally many IN and OUT shadows.
        seed: the seed of that draw.
        coin_N: the number of the independent fair coin that decides about a row, flipped again for
            every model. -1 means no coin, and two rows with the same number are alternatives. None
            if membership is not drawn this way, and then no epsilon can be audited.
        remake: remake(models) builds the same design with another number of models.
    """

    name: str
    member_MN: np.ndarray
    evaluated_MN: np.ndarray
    shadow_MM: np.ndarray
    population_N: np.ndarray
    unit_M: np.ndarray
    targets: tuple[int, ...]
    supports: frozenset[str]
    note: str = ""
    extra_MN: np.ndarray | None = None
    num_rows: int = 0
    balance: bool = False
    seed: int = 0
    coin_N: np.ndarray | None = None
    remake: Callable[[int], Design] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def of_targets(self) -> TargetRows:
        """Returns the design's rows of the audited models; all results are computed from them."""
        targets = list(self.targets)
        return TargetRows(
            targets=tuple(targets),
            member_TN=self.member_MN[targets],
            evaluated_TN=self.evaluated_MN[targets],
            unit_T=self.unit_M[targets],
        )

    def extend(self, models: int) -> Design:
        """Returns the same design with `models` >= M models; the first M keep their rows."""
        if models < len(self.member_MN):
            raise ValueError(
                f"models={models} is fewer than the {len(self.member_MN)} models that exist; a "
                "design can only be extended."
            )
        if self.remake is None:
            raise ValueError(f"the design {self.name!r} cannot be extended: it has no `remake`.")
        return self.remake(models)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetRows:
    """Holds the design's rows of the T audited models.

    Attributes:
        targets: the numbers of the audited models.
        member_TN: which target trained on which example.
        evaluated_TN: which examples are scored for which target.
        unit_T: targets with the same number are resampled together (twins).
    """

    targets: tuple[int, ...]
    member_TN: np.ndarray
    evaluated_TN: np.ndarray
    unit_T: np.ndarray


class Attack(NamedTuple):
    """Describes an attack: `score(evidence, key) -> score_N`, HIGHER = MORE LIKELY A MEMBER.

    Attributes:
        score: score(evidence, key) -> score_N for one target.
        needs: every field of the Evidence that the attack reads (the threat model): names of
            signals, 'x', 'y', 'columns', 'population', 'shadow_in', 'shadow_out', 'shadow_own'. The
            need 'member', the membership of the target, is only for cross-fitted attacks with
            knows='half_of_target_members'.
        knows: whose knowledge the attack was fitted with: 'nothing', 'shadows' (or population
            rows), 'half_of_target_members' ...
        score_all: score_all(fleet, key) -> score_TN, a faster program for all targets at once with
            equal results; may be None.
        note: a sentence for the report.
        diagnose: diagnose(evidence) -> {name: number}, which says how well the attack's assumptions
            hold for one target; may be None.
        at: at(p) -> the same attack restricted to the queries of the signal's part p; may be None.
            The attacks on the first parts are plotted against their cost.
        threshold: the score from which the attack itself predicts membership; used if
            knows='nothing', or if no shadow can be scored to choose a threshold.
        claimed: fields of the config that stand for this attack's own in the claim of its scores:
            settings with the same scores, to the bit, have the same claim.
    """

    score: Callable[..., np.ndarray]
    needs: tuple[str, ...]
    knows: str = "shadows"
    score_all: Callable[..., np.ndarray] | None = None
    note: str = ""
    diagnose: Callable[..., dict[str, float]] | None = None
    at: Callable[[int], Attack] | None = None
    threshold: float | None = None
    claimed: Mapping[str, Any] = {}
