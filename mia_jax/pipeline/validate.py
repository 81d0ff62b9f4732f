"""Refuses a config that cannot work, with the remedy, before anything is trained.

Other files refuse fields of a wrong name or type (configuration/schema.py, fields.py and
overrides.py), parts that do not fit together (pipeline/build_parts.py), attacks that a design does
not support (threat_model.FleetSignals.refuse), private training that cannot be accounted
(privacy/), a plan that needs too much memory (pipeline/train.py), and a workdir that belongs to
another config (pipeline/place.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import (
    augmentations,
    checks,
    configuration,
    defenses,
    query_views,
    registry,
    threat_model,
)
from mia_jax.configuration.settings import SHOW_RECORDS, ReportSettings, Settings
from mia_jax.external import default_attacks
from mia_jax.pipeline import execution
from mia_jax.pipeline.execution import AUTO, FORMS
from mia_jax.query import interactive
from mia_jax.query.snapshots import SIGNAL as TRAJECTORY
from mia_jax.runtime import jobs, machine, precision
from mia_jax.threat_model import PlannedAttack, asked_signals
from mia_jax.training import programs
from mia_jax.types import (
    ACCESS,
    Attack,
    Batch,
    Design,
    Examples,
    Learner,
    Loss,
    Model,
    Pool,
    Signal,
    Task,
)

MOST_DRAWS = 1_000_000
LONGEST = 250  # Bytes of a signal's name with its settings; a folder's name has at most 255.
MOST_STEPS = 2**31 - 1


def check_fields(typed: Settings, attacks: Mapping, *, epochs: int) -> None:
    """Raises ValueError for a field of query, report or run that cannot work.

    Args:
      typed: the settings.
      attacks: {name: section} of config.attacks.
      epochs: the epochs of the training.
    """
    query, report, run = typed.query, typed.report, typed.run
    for name in attacks:
        configuration.check_name(name)
    given = {"learner.precision": typed.learner.precision, "query.precision": query.precision}
    checks.one_of(precision.PRECISIONS, **given)
    if not query.views or query.views[0] != "identity":
        raise ValueError(
            f"query.views={tuple(query.views)} must begin with 'identity': accuracies and the gap "
            "attack are of the unchanged example."
        )
    sizes = dict(batch_size=query.batch_size, ask_batch_size=query.ask_batch_size)
    checks.at_least(1, **{f"query.{field}": size for field, size in sizes.items()})
    if run.chunk not in AUTO:
        if not isinstance(run.chunk, int):
            raise ValueError(
                f"run.chunk={run.chunk!r} must be a whole number of models >= 1, or 'auto' to have "
                "the fastest measured."
            )
        checks.at_least(1, **{"run.chunk": run.chunk})
    checks.one_of(FORMS, **{"run.form": run.form})
    checks.one_of(("", *machine.PLATFORMS), **{"run.platform": run.platform})
    fields = (
        "lanes devices query_chunk checkpoint_every checkpoint_minutes memory_bytes retries".split()
    )
    checks.at_least(0, **{f"run.{field}": getattr(run, field) for field in fields})
    if run.mesh is not None:
        execution.groups(run, shards=typed.learner.shards)
    profiled = tuple(run.profile)
    if not all(isinstance(epoch, int) and 1 <= epoch <= epochs for epoch in profiled):
        raise ValueError(
            f"run.profile={profiled} must be epochs of the training, whole numbers in 1..{epochs}."
        )
    check_report(report, attacks)
    if report.epochs and not typed.learner.snapshots:
        raise ValueError(
            f"report.epochs={tuple(report.epochs)} needs learner.snapshots, the epochs to look at, "
            f"for example {(1, epochs)}."
        )


def check_report(report: ReportSettings, attacks: Mapping) -> None:
    """Raises ValueError for a field of config.report that cannot work."""
    checks.at_least(40, **{"report.draws": report.draws})
    if report.draws > MOST_DRAWS:
        raise ValueError(
            f"report.draws={report.draws:,} must be at most {MOST_DRAWS:,}; intervals change "
            "little from 1,000 on."
        )
    checks.fraction(closed="neither", **{"report.level": report.level})
    several = isinstance(report.fprs, Sequence) and not isinstance(report.fprs, str)
    fprs = tuple(report.fprs) if several else ()
    if not fprs or not all(isinstance(fpr, int | float) and 0 <= fpr < 1 for fpr in fprs):
        raise ValueError(
            f"report.fprs={report.fprs!r} must be false-positive rates in [0, 1), such as "
            "(0.001, 0.01); 0 is the TPR without any."
        )
    checks.positive(**{"report.ppv_ratio": report.ppv_ratio})
    checks.at_least(0, **{"report.jackknife": report.jackknife})
    checks.one_of(SHOW_RECORDS, **{"report.show_records": report.show_records})
    for name in report.sections:
        registry.load("sections", name)
    for field in ("shadow_curve", "records", "epochs"):
        value = getattr(report, field)
        names = value.split(",") if isinstance(value, str) else value or ()
        # a curve of an attack of the standard set is drawn where the audit has that attack
        more = default_attacks.SECTIONS if field == "shadow_curve" else ()
        for name in names:
            if name not in more:
                checks.one_of(attacks, **{f"report.{field}": name})


def training_notes(
    *, epochs: int | None, batch_size: int | None, in_pairs: bool, num_rows: int
) -> list[str]:
    """Returns notes about training settings that may be mistakes.

    These are a training without epochs, and batches that exceed the rows.

    Args:
      epochs: the epochs of the learner; None if it has no such field.
      batch_size: the batch size of the learner; None if it has no such field.
      in_pairs: whether the learner draws pairs, whose batches may exceed the rows.
      num_rows: the rows of one model.

    Raises:
      ValueError: the training has more steps than its counter can hold.
    """
    notes: list[str] = []
    if not isinstance(epochs, int):
        return notes
    steps = (
        -(-num_rows // min(batch_size, num_rows))
        if batch_size and batch_size > 0 and num_rows
        else 1
    )
    if epochs * steps > MOST_STEPS:
        raise ValueError(
            f"learner.epochs={epochs:,} of {steps:,} steps are {epochs * steps:,} steps; a model "
            f"takes at most {MOST_STEPS:,} (its counter has 32 "
            f"bits), which is learner.epochs={MOST_STEPS // steps:,} here. At a millisecond per "
            f"step they take {epochs * steps / 8.64e7:,.0f} days."
        )
    if epochs == 0:
        notes.append(
            "learner.epochs=0 trains nothing: a null test. The models are as initialized, and no "
            "attack should find their members."
        )
    if batch_size and batch_size > num_rows and not in_pairs:
        notes.append(
            f"learner.batch_size={batch_size:,} is more than the {num_rows:,} rows of a model: "
            "every epoch is one step with all of them."
        )
    return notes


def check_model(
    model: Model, *, pool: Pool, name: str, data: str, flat: bool | None, shaped: bool
) -> None:
    """Raises ValueError if the model cannot take these examples; nothing is computed.

    Args:
      model: the network.
      pool: the examples.
      name: the name in config.model.
      data: the name in config.data.
      flat: whether the data's images are flattened to rows; None if the data has no such field.
      shaped: whether the data has a field `shape`.
    """
    x = jax.ShapeDtypeStruct((2, *pool.x.shape[1:]), pool.x.dtype)

    def answered(key, x, weight_B):
        variables = model.init(key, x[:1])
        model.apply(variables, x, train=False)
        return model.apply(
            variables, x, key_B=jax.random.split(key, 2), weight_B=weight_B, train=True
        )[0]

    try:
        jax.eval_shape(answered, jax.random.key(0), x, jax.ShapeDtypeStruct((2,), np.float32))
    except jobs.Paused:
        raise
    except Exception as error:  # whatever the net's code raises
        remedy = ""
        if flat:
            remedy = " data.flat=False gives images."
        elif shaped:
            remedy = " data.shape=(28, 28, 1) arranges rows as images."
        raise ValueError(
            f"model.name={name!r} cannot take the examples of data.name={data!r}, which have shape "
            f"{pool.x.shape[1:]}: "
            f"{str(error).rstrip('.')}.{remedy}"
        ) from error


def check_images(views: Sequence[str], augmentation: Sequence[str] | None, *, pool: Pool) -> None:
    """Raises ValueError if a query view or an augmentation cannot be applied to these examples."""
    x, keys = pool.x[:1], jax.random.split(jax.random.key(0), 1)
    for view in query_views.make(views):
        view(x)
    if augmentation:
        augmentations.make(tuple(augmentation))(x, keys)


def check_outputs(model: Model, *, pool: Pool, name: str) -> jax.ShapeDtypeStruct:
    """Compares the model's output with the axes that the task states; nothing is computed.

    Returns:
        The shape and dtype of that output.

    Raises:
        ValueError: the shape differs. Logits may have more columns than there are classes.
    """
    task = pool.task
    lengths = {
        "1": 1,
        **dict(zip(task.y, np.shape(pool.y), strict=True)),
        task.out[-1]: task.num_outputs,
    }
    batch = next(
        b for b in itertools.count(task.num_classes + 2) if b not in lengths.values()
    )  # so that no other axis has this length
    x = jax.ShapeDtypeStruct((batch, *pool.x.shape[1:]), pool.x.dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    out, _ = jax.eval_shape(
        lambda variables, x: model.apply(variables, x, train=False), variables, x
    )
    shape, expected = (
        tuple(getattr(out, "shape", ())),
        (batch, *(lengths[axis] for axis in task.out[1:])),
    )
    enough = task.num_classes and len(shape) == len(expected) and shape[-1] > expected[-1]
    if shape == expected or (enough and shape[:-1] == expected[:-1]):
        return out
    what = (
        f"{task.kind} with {task.num_classes} classes needs logits"
        if task.num_classes
        else f"{task.kind} needs"
    )
    text = f"model {name!r} answers {batch} examples with an array of shape {shape}; {what} "
    text += f"[{','.join(task.out)}], here {expected}"
    if task.has_classes and task.num_classes == 2 and shape in ((batch, 1), (batch,)):
        raise ValueError(
            f"{text}. For one logit z of class 1 return jnp.stack([jnp.zeros_like(z), z], -1), "
            "with z of shape [B]."
        )
    if shape[:-1] == expected[:-1]:
        raise ValueError(
            f"{text}: "
            + (
                f"labels 0..{task.num_classes - 1} need a column each."
                if task.num_classes
                else "one number per example."
            )
        )
    hint = dict(
        classification="one row of logits per example; a model of sequences or pixels reduces its "
        "positions to one row, or its data set states "
        "task=sequence(vocabulary), or its losses are audited as arrays: mia_jax.audit(loss=...)",
        sequence="one row of logits for each position of an example",
    )
    raise ValueError(f"{text}: {hint.get(task.kind, 'one number per example')}.")


def check_loss(
    loss: Loss, *, model: Model, pool: Pool, name: str, rows: tuple[int, ...] = ()
) -> None:
    """Raises ValueError unless the objective returns one loss per example; nothing is computed.

    It must also return one value of every metric per example.

    Args:
      loss: the objective.
      model: the network.
      pool: a few examples.
      name: the name of the objective.
      rows: the axes between the batch and the rows of the pool that form one example, (2,) for
          pairs.
    """
    batch = 5
    like = lambda a: jax.ShapeDtypeStruct((batch, *rows, *np.shape(a)[1:]), a.dtype)  # noqa: E731
    x = like(pool.x)
    variables = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *pool.x.shape[1:]), pool.x.dtype)
    )

    def measure(variables, x, y, weight_B, index_B, key):
        return loss(
            variables,
            Batch(x=x, y=y, task=pool.task, weight_B=weight_B, index_B=index_B),
            key_B=jax.random.split(key, batch),
            train=True,
        )

    vector = lambda dtype: jax.ShapeDtypeStruct((batch,), dtype)  # noqa: E731
    loss_B, aux = jax.eval_shape(
        measure, variables, x, like(pool.y), vector(np.float32), vector(np.int32), jax.random.key(0)
    )
    for what, value in (
        ("loss", loss_B),
        *((f"metric {metric!r}", value) for metric, value in aux.metrics.items()),
    ):
        if value.shape != (batch,):
            raise ValueError(
                f"objective {name!r}: the {what} of {batch} examples has shape {value.shape}; it "
                f"must be one number per example, ({batch},). "
                "Reduce over outputs and positions, never over the batch."
            )


def check_signals(signals: Mapping[str, Signal], *, out: jax.ShapeDtypeStruct, pool: Pool) -> None:
    """Raises ValueError for a signal whose value is neither [B] nor [B,K]; nothing is computed.

    Args:
      signals: {name: signal}.
      out: the shape and dtype of the model's answer, [B,...].
      pool: the examples.
    """
    x, y = (
        jax.ShapeDtypeStruct((out.shape[0], *np.shape(a)[1:]), a.dtype) for a in (pool.x, pool.y)
    )
    for name, signal in signals.items():
        if signal.measure is not None:
            change, examples = (
                signal.transform or (lambda out: out),
                Examples(x=x, y=y, task=pool.task),
            )
            value = jax.eval_shape(
                programs.strict(
                    lambda out, examples, s=signal, change=change: s.measure(change(out), examples)
                ),
                out,
                examples,
            )
            interactive.check_value(value, name=name, batch=out.shape[0])


def check_attacks(attacks: Mapping[str, Attack], *, design: Design) -> None:
    """Raises ValueError with the reason for every attack that this design does not support."""
    fleet = threat_model.FleetSignals(design=design, signal={}, num_classes=0)
    refusals = [text for name, attack in attacks.items() if (text := fleet.refuse(attack, name))]
    if refusals:
        raise ValueError("\n".join(refusals))


def check_snapshots(
    snapshots: tuple[int, ...], attacks: Mapping[str, Attack], *, epochs: int
) -> None:
    """Raises ValueError unless learner.snapshots are epochs of the training, in rising order.

    They must exist if an attack needs them.
    """
    if any(not isinstance(e, int) or not 1 <= e <= epochs for e in snapshots) or list(
        snapshots
    ) != sorted(set(snapshots)):
        raise ValueError(f"learner.snapshots={snapshots} must be rising epochs in 1..{epochs}.")
    needing = [name for name, attack in attacks.items() if TRAJECTORY in attack.needs]
    if needing and not snapshots:
        raise ValueError(
            f"attack {needing[0]!r} needs the losses at several epochs: set learner.snapshots, for "
            f"example (5, 10, {epochs})."
        )


def check_epochs(
    names: Sequence[str],
    attacks: Mapping[str, Attack],
    signals: Mapping[str, Signal],
    *,
    target: bool,
) -> None:
    """Raises ValueError if an attack of report.epochs reads signals that snapshots are not asked.

    Snapshots are not asked interactive signals, and have no trajectories and no user-supplied
    answers.

    Args:
      names: the attacks of report.epochs.
      attacks: {name: Attack}.
      signals: {name: signal} that models are asked.
      target: whether the user supplied the target.
    """
    if names and target:
        raise ValueError(
            f"report.epochs={tuple(names)}: a target of your own has no epochs; leave it empty."
        )
    passes = {name for name, signal in signals.items() if signal.ask is None}
    for name in names:
        unasked = asked_signals({name: attacks[name]}) - passes
        if unasked:
            raise ValueError(
                f"report.epochs: attack {name!r} reads {', '.join(sorted(unasked))}, which "
                "snapshots are not asked; attacks on "
                f"{', '.join(sorted(n for n in passes if '@' not in n))} can be repeated."
            )


def check_defenses(attacks: Sequence[PlannedAttack], *, design: Design) -> None:
    """Raises ValueError for an unknown defense, or an adaptive attack without a defense.

    A defense of the target only is refused as well where targets are also shadows.
    """
    targets = list(design.targets)
    for planned in attacks:
        name, defense = planned.name, planned.defense
        if defense:
            defenses.make(defense)
            if not planned.adaptive and design.shadow_MM[np.ix_(targets, targets)].any():
                raise ValueError(
                    f"attack {name!r}: defense={defense!r} of the target only needs targets that "
                    f"are not shadows, and under the design {design.name!r} they are; set "
                    "adaptive=True, or use the design blocks or disjoint, or supply a target."
                )
        elif planned.adaptive:
            raise ValueError(
                f"attack {name!r}: adaptive=True without a defense has nothing to adapt to."
            )


def check_task(attacks: Mapping[str, Attack], *, task: Task) -> None:
    """Raises ValueError for an attack whose signals, logits or labels this task does not have."""
    signals = registry.names("signals")
    for name, attack in attacks.items():
        read = {"logits": "the logits of classes", "y": "class numbers"}
        for need in (need for need in read if need in attack.needs and not task.has_classes):
            raise ValueError(
                f"attack {name!r} reads {read[need]}, and the task of this data is {task.kind}; "
                "give it a signal='loss' where it has that field, or use threshold, lira, "
                "reference, offset or population."
            )
        for need in sorted(asked_signals({name: attack})):
            if need.partition(":")[0] in signals:
                try:
                    check_signal(need, registry.make("signals", need), defense="", task=task)
                except ValueError as error:
                    raise ValueError(f"attack {name!r}: {error}") from error


def make_signals(asked: Iterable[str], *, pool: Pool, model: Model) -> dict[str, Signal]:
    """Returns {the signal's canonical spelling: Signal}.

    Args:
      asked: the signals, in any spelling.
      pool: the examples.
      model: the network.

    Raises:
      ValueError: a signal does not fit these examples or this model.
    """
    made = {}
    for name in sorted({registry.identity("signals", n) for n in asked}):
        if len(name.encode()) > LONGEST:
            raise ValueError(
                f"signal {name!r} names a folder with all its settings, {len(name.encode())} "
                f"bytes; at most {LONGEST} fit."
            )
        base, _, defense = name.partition("@")
        signal = registry.make("signals", base)
        checks.one_of(ACCESS, **{f"access of signal {base}": signal.access})
        check_signal(base, signal, defense=defense, task=pool.task)
        if signal.check is not None:
            signal.check(pool.x)
        if signal.access == "white_box" and model.inside is None:
            raise ValueError(
                f"signal {base!r} reads intermediate outputs, and this model has no Model.inside; "
                "models made by layers.as_model have it."
            )
        if signal.access == "white_box" and not signal.shadows:
            check_inside(signal, pool=pool, model=model)
        made[name] = signal._replace(transform=defenses.make(defense).apply) if defense else signal
    return made


def check_inside(signal: Signal, *, pool: Pool, model: Model) -> None:
    """Raises ValueError if the signal reads an intermediate output that the model does not have.

    Nothing is computed.
    """

    def ask(key, x, y, key_B):
        return signal.ask(
            interactive.probe_of(model, model.init(key, x), signal=signal), x, y, key_B
        )

    key = jax.random.key(0)
    jax.eval_shape(
        ask,
        key,
        jax.numpy.asarray(pool.x[:1]),
        jax.numpy.asarray(pool.y[:1]),
        jax.random.split(key, 1),
    )


def check_objective(learner: Learner, *, pool: Pool) -> None:
    """Raises ValueError if the objective cannot measure the model's answers to these examples.

    Nothing is computed.
    """
    example = Pool(x=pool.x[:1], y=pool.y[:1], task=pool.task)

    def evaluate(key):
        return learner.evaluate(
            learner.init(key, example).variables,
            example,
            np.zeros(1, np.int32),
            np.ones(1, np.float32),
        )

    jax.eval_shape(evaluate, jax.random.key(0))


def check_signal(name: str, signal: Signal, *, defense: str, task: Task) -> None:
    """Raises ValueError if the signal does not fit the task; the message lists signals that do."""
    if task.kind not in signal.tasks:
        others = {n: registry.make("signals", n) for n in registry.names("signals")}
        known = [n for n, other in others.items() if task.kind in other.tasks]
        raise ValueError(
            f"signal {name!r} is for {' or '.join(signal.tasks)}, and the task of this data is "
            f"{task.kind}; signals for it: {', '.join(known)}. (A signal of your own says what it "
            f"is for: Signal(..., tasks=({task.kind!r},)).)"
        )
    if defense and not task.has_classes:
        raise ValueError(
            f"defense={defense!r} changes the probabilities of classes, and the task of this data "
            f"is {task.kind}; leave it out."
        )
    if signal.ask is not None and task.vocabulary is not None and not signal.tokens:
        raise ValueError(
            f"signal {name!r} asks about changed examples of real numbers, and this data holds "
            f"tokens (vocabulary={task.vocabulary})."
        )
