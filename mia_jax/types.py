"""The vocabulary of the project: every seam between two folders is one of these types.

See mia_jax/__init__.py for the axis letters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mia_jax import checks

Variables = dict[str, Any]  # {'params': ..., 'stats': ... or absent}
# What Task.kind can be; the last two only with arrays of answers.
TASKS = ("classification", "regression", "sequence", "multilabel", "unlabeled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Says what labels are, what a model answers and what can be asked.

    A data set states it once, everybody else asks `pool.task`. Make one with `classification`,
    `regression`, `sequence`, `multilabel` or `unlabeled`.

    Args:
        kind: one of TASKS.
        num_classes: how many values a label can take, at every position of a sequence; 0 where
            labels are not class numbers.
        y: the axes of the labels, a letter each: B examples, L positions, C labels or F numbers
            per example.
        out: the axes of a model's output, in which C (or V, of a sequence) counts the classes and
            1 is a single number.
        signals: the signals that every model is asked for the report.
        slices: the slices of the report that labels allow: ('class',) or none.
        vocabulary: None where x holds real numbers (float32); else x holds tokens, whole numbers
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
        """Whether every example has one class number as its label."""
        return self.kind == "classification"

    @property
    def num_outputs(self) -> int:
        """The length of an output's last axis, which a model's `make` is given as num_classes."""
        return 1 if self.out.endswith("1") else self.num_classes

    def require(self, kinds: tuple[str, ...], *, of: str, remedy: str) -> None:
        """Raises ValueError unless this task is of one of `kinds`.

        Args:
            kinds: those of TASKS that can be used.
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

    `num_outputs`: F numbers per example and in its answer, [B,F]; for arrays of answers only.
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
    """Returns the task of several labels 0 or 1 per example, [B,C]; for arrays of answers."""
    return Task(kind="multilabel", y="BC", out="BC")


def unlabeled() -> Task:
    """Returns the task of examples whose labels are not known; for arrays of answers only."""
    return Task(kind="unlabeled", signals=())


def _check_vocabulary(vocabulary: int | None) -> None:
    if vocabulary is not None:
        checks.at_least(2, vocabulary=vocabulary)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """All examples of an audit, in a fixed order: row n is example n everywhere.

    `x` is [N, ...] float32 (images [N,H,W,C] in [0,1]), or int32 where it holds tokens; `y` is [N]
    int32 class numbers, [N] float32 for regression, [N,L] int32 for sequences: `task` says which.
    `columns` holds further per-example columns of the user ([N] each); the boolean column
    `population` marks rows that no model may train on.
    """

    x: Any
    y: Any
    task: Task = dataclasses.field(metadata=dict(static=True))
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = dataclasses.field(default="", metadata=dict(static=True))

    @property
    def num_classes(self) -> int:
        """The number of classes of the task; 0 where labels are not class numbers."""
        return self.task.num_classes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """B examples about which a signal asks: the `x` that the model was given, their labels `y`."""

    x: Any
    y: Any
    task: Task = dataclasses.field(metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch(Examples):
    """B rows of a pool: `weight_B` is 0 on padding, `index_B` are the rows' numbers in the pool."""

    weight_B: Any
    index_B: Any


class Model(NamedTuple):
    """A network as pure functions; nothing outside mia_jax/models imports flax.

    `init(key, x_B..) -> variables`; `apply(variables, x_B.., *, key_B=None, weight_B=None,
    train=False) -> (out_BC, stats)` where `stats` are the running statistics after this batch ({}
    without BatchNorm), `key_B` one PRNG key an example (dropout), `weight_B` 0 on padded rows.
    `summary(x_B..)` is a printable table of layers, shapes and parameter counts. `inside(variables,
    x_B..) -> {name: array}`, where present, are the intermediate outputs in inference mode,
    'penultimate' [B,F] among them: what enters the last layer with parameters. `parts` {name:
    function} is what a learning rule of its own needs of its nets (models/forward_forward.py and
    models/siamese.py say what theirs are); empty for others. `signals` are asked of every such
    model for the report, beside those of the task.
    """

    init: Callable[..., Variables]
    apply: Callable[..., tuple[jax.Array, Any]]
    summary: Callable[..., str]
    inside: Callable[..., dict[str, jax.Array]] | None = None
    parts: Mapping[str, Any] = {}
    signals: tuple[str, ...] = ()


# (variables, batch, *, key_B=None, train=False) -> (loss_B, Aux). Never reduced: mean training, DP,
# loss attacks and padding share it.
Loss = Callable[..., tuple[jax.Array, "Aux"]]


class Aux(NamedTuple):
    """What a loss hands back beside the losses: running statistics and per-example metrics
    ({'accuracy': [B]}).
    """

    stats: Any
    metrics: dict[str, jax.Array]


# (key, epoch, rows_K, weight_K) -> (index_SB, weight_SB): which rows each step of one epoch sees.
# Pure, addressable by (key, epoch).
Plan = Callable[..., tuple[jax.Array, jax.Array]]


class Stop(NamedTuple):
    """The state of an early-stopping rule of one model.

    Epochs are 1-based; 0 = not yet. `best_variables` is None unless restored.
    """

    best: Any
    wait: Any
    best_epoch: Any
    stopped_epoch: Any
    done: Any
    best_variables: Any


class TrainState(NamedTuple):
    """Everything that a resumed run of one model needs, and nothing else."""

    step: Any
    variables: Any
    opt: Any
    key: Any
    stop: Any


class Stopping(NamedTuple):
    """An early-stopping rule: `init(variables) -> Stop`, `update(stop, value, epoch, variables) ->
    Stop`; pure, one model at a time.
    """

    monitor: str
    init: Callable[..., Stop]
    update: Callable[..., Stop]
    restore_best: bool


class Learner(NamedTuple):
    """A learning rule for one model; a fleet is `vmap` of it.

    `init(key, pool) -> TrainState`; `epoch(state, pool, index_SB, weight_SB) -> (state, sums)`;
    `evaluate(variables, pool, rows_K, weight_K) -> sums`. `sums` are weighted sums over examples
    with 'weight' the divisor, so that parts of an epoch add up. `plan` says which rows each step of
    an epoch sees, `stopping` when one model has had enough (None: after `epochs`). `model` answers
    the queries once it is trained. `guarantee` (privacy.guarantee) is what a private learner
    promises, None for others. `released(state) -> variables`, where present, are the variables that
    a model is evaluated and saved with (None: state.variables).
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


class Shadows(NamedTuple):
    """S models of the attacker's own, with which a question is made: `out(x_B..) -> out_SBC`, and
    `member_SB`, which trained on which example.
    """

    out: Callable[..., jax.Array]
    member_SB: jax.Array


class Probe(NamedTuple):
    """How a signal asks one model, in inference mode; what its `access` does not cover is None.

    `label(x_B..) -> label_B` int32 (argmax, a tie goes to the lowest class number); `out(x_B..) ->
    out_BC`, the logits, differentiable; `inside(x_B..) -> {name: array}`, the intermediate outputs
    (None as well where the model has none). `shadows`: never the target nor its twin.
    """

    label: Callable[..., jax.Array]
    out: Callable[..., jax.Array] | None = None
    inside: Callable[..., dict[str, jax.Array]] | None = None
    shadows: Shadows | None = None


class Defense(NamedTuple):
    """What a model's owner does to outputs before anybody sees them; a pure function.

    Attributes:
        apply: apply(out_BC) -> out_BC, logits of the probabilities that are shown.
        keeps_labels: Whether the predicted label never changes.
    """

    apply: Callable[[jax.Array], jax.Array]
    keeps_labels: bool


ACCESS = (
    "labels",
    "outputs",
    "white_box",
)  # what a signal may be told: predicted labels, output vectors, the model itself


class Signal(NamedTuple):
    """What a model is asked about an example: `measure(out, batch) -> value` of one forward pass.

    `out` is the model's output with the axes of `batch.task.out`, `batch` the Examples that it was
    given, the value one number [B] or one vector [B,K] per example. `tasks` are the kinds of tasks
    (TASKS) for which the signal has a meaning; for others it is refused before anything is trained.

    `ask(probe, x_B.., y_B, key_B) -> value_B..` instead asks as it likes, in batches of its own;
    `key_B` is one key an example from (seed, signal, example), so an answer is the same alone or in
    any batch. It may return (value_B, count_B) or (value_BP, count_BP): the queries that each value
    took, rising along P. `sign` is +1 if larger means member, -1 if smaller does (of every
    component), 0 if neither. `access`: one of ACCESS. `queries` is the most that one view of an
    example of F numbers costs, in labels or outputs asked: a number, or queries(F). `check(x_N..)`
    raises ValueError for examples that cannot be asked about. `transform(out_BC) -> out_BC`, where
    present, changes every output before it is seen: a defense at query time. `shadows`: how many
    models of the attacker's own the question is made with (Probe.shadows; fewer are repeated).
    `tokens`: whether `ask` leaves x as it is, so that it can be asked about tokens; a signal of one
    forward pass always can.
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
    """Who trains on what, and what an attacker of each model may use.

    `member_MN[m, n]`: model m trains on example n. `evaluated_MN[m, n]`: example n is scored when
    model m is the target. `shadow_MM[t, m]`: an attacker of t may use model m (never t, never its
    twin). `population_N`: rows outside all models and outside the evaluation. `unit_M`: models that
    are resampled together (twins share a number). `targets`: the models that are audited.
    `supports`: the shadow needs (SHADOW_NEEDS of mia_jax.threat_model) that the design can carry.
    `extra_MN`: rows beside the training set that a learner may use (adversarial regularization).
    `num_rows`: K, the length of every model's padded row list, which depends on the design's fields
    alone and never on the draw (designs/_rows.py makes the lists). `remake(models)` builds the same
    design with another number of models. `balance`: every example is in the same number of models,
    so Evidence hides some shadows (drawn from `seed`) until all examples have equally many IN and
    OUT ones. `coin_N`: the number of the independent fair coin that decides about a row in every
    model anew (-1: none; two rows of one number are alternatives); None where membership is not
    drawn so, and no epsilon can be audited.
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
        """The rows of the audited models, cut out once for everything that is computed of them."""
        targets = list(self.targets)
        return TargetRows(
            targets=tuple(targets),
            member_TN=self.member_MN[targets],
            evaluated_TN=self.evaluated_MN[targets],
            unit_T=self.unit_M[targets],
        )

    def extend(self, models: int) -> Design:
        """The same design with `models` >= M models; the first M keep their rows."""
        if models < len(self.member_MN):
            raise ValueError(
                f"models={models} is fewer than the {len(self.member_MN)} models that exist; a "
                "design can only be extended."
            )
        return self.remake(models)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetRows:
    """The design's rows of the T audited models.

    `targets` are their numbers; `member_TN` who trained on what; `evaluated_TN` what is scored;
    `unit_T` targets of one number are resampled together (twins).
    """

    targets: tuple[int, ...]
    member_TN: np.ndarray
    evaluated_TN: np.ndarray
    unit_T: np.ndarray


class Attack(NamedTuple):
    """`score(evidence, key) -> score_N`, HIGHER = MORE LIKELY A MEMBER.

    `needs` names every field of the Evidence that it reads (the threat model): signal names, 'x',
    'y', 'columns', 'population', 'shadow_in', 'shadow_out', 'shadow_own'. `knows` says whose
    knowledge fitted it: 'nothing', 'shadows' (or population rows), 'half_of_target_members' ... The
    need 'member', the target's membership, is for cross-fitted attacks with
    knows='half_of_target_members' alone. `score_all(fleet, key) -> score_TN`, where present, is a
    faster program for every target at once with equal results. `at(p)`, where present, is the same
    attack with the queries of the signal's part p alone (its prefixes are drawn against their
    cost). `threshold`, where present, is the score from which the attack itself names a member;
    used if it knows='nothing', or where no shadow can be scored to choose one. `diagnose(evidence)
    -> {name: number}`, where present, says how well this attack's assumptions hold for one target.
    """

    score: Callable[..., np.ndarray]
    needs: tuple[str, ...]
    knows: str = "shadows"
    score_all: Callable[..., np.ndarray] | None = None
    note: str = ""
    diagnose: Callable[..., dict[str, float]] | None = None
    at: Callable[[int], Attack] | None = None
    threshold: float | None = None
