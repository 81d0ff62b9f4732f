"""Trains by gradient descent on a per-example objective.

Objective, optimizer, penalty, augmentation and plan are choices. With gradient='private' the
training is differentially private.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mia_jax import augmentations, checks, query_views, registry
from mia_jax.learners import _adapters as adapters
from mia_jax.learners import _descent as descent
from mia_jax.learners import _parameters as parameters
from mia_jax.learners import _private as private
from mia_jax.learners import _shards
from mia_jax.learners import plan as plans
from mia_jax.privacy import dirac
from mia_jax.privacy.independence import trials
from mia_jax.query_views.shift import diamond
from mia_jax.runtime.rows import taken
from mia_jax.types import Batch, Learner, Loss, Model, Pool, Stopping, TrainState

CANARIES = ("dirac",)  # kinds of canaries that are made for learners that can have them

FURTHER = "members_then_extra"


def make(
    *,
    model: Model,
    loss: Loss,
    num_rows: int,
    num_extra: int = 0,
    padded: bool = False,
    stopping: Stopping | None = None,
    sample: Pool | None = None,
    initial: Mapping[str, np.ndarray] = {},
    gradient: str = "mean",
    privacy: Mapping | None = None,
    epochs: int = 100,
    batch_size: int = 32,
    plan: str = "permutation",
    drop_last: bool = False,
    optimizer: str | Mapping = "adam",
    learning_rate: float = 1e-3,
    schedule: str | Mapping = "constant_schedule",
    l1: float = 0.0,
    l2: float = 0.0,
    penalize: str = r"Dense_\d+/kernel$",
    augment: Sequence[str] = (),
    trainable: str = "",
    adapter_rank: int = 0,
    adapter_layers: str = "",
    ema: float = 0.0,
    shifts: int = 0,
    train_on: str = "members",
    members_epochs: int = 0,
    extra_trainable: str = "",
    shards: int = 1,
) -> Learner:
    """Returns gradient descent on the weighted mean of a per-example objective.

    A step follows the gradient of
    sum(weight_B * loss_B) / sum(weight_B) + l1 * sum|w| + l2 * sum w^2.

    Step s draws from the key fold_in(state.key, s), and example slot b from fold_in(that key, b).

    With gradient='private' every example's gradient is clipped and noise is added.
    learners/_private.py has the fields of `privacy` and draws the batches. Penalties are not
    clipped. loss_b must depend on example b only. The notes of the guarantee say what was checked
    (privacy/independence).

    Args:
        model: the model to train.
        loss: the per-example objective.
        num_rows: K, the number of rows of one model.
        num_extra: the number of further rows that a design gives to learners (design.extra).
        padded: whether some rows have weight 0; an empty batch then changes nothing.
        stopping: an early-stopping rule.
        sample: for private training, a Pool of a few examples with the columns of all.
        initial: {path: array}, parameters to start from.
        gradient: 'mean' or 'private'.
        privacy: the settings of private training.
        epochs: the largest number of epochs.
        batch_size: the number of examples per step.
        plan: 'permutation' or 'full_batch'.
        drop_last: whether an incomplete last batch is dropped.
        optimizer: a name, or {'name': ..., argument: value} (mia_jax/optimizers).
        learning_rate: the largest rate of the schedule.
        schedule: a name, or {'name': ..., argument: value} (mia_jax/schedules).
        l1: the weight of the penalty sum|w|.
        l2: the weight of the penalty sum w^2. Both are part of the monitored loss.
        penalize: the pattern of the paths of the penalized parameters (default: the kernels of
            dense layers).
        augment: the augmentations.
        trainable: only parameters whose path matches this pattern are trained; '' for all, or with
            adapters for these alone.
        adapter_rank: if > 0, kernels have adapters of this rank (learners/_adapters.py), which are
            trained in their place; all other parameters are those of `initial`.
        adapter_layers: the pattern of the paths of the kernels with an adapter; '' for all.
        ema: if > 0, the model is the moving average of its parameters, with decay min(ema, (1 + s)
            / (10 + s)) at step s.
        shifts: d; a step trains on all 4d + 1 shifts of every image of its batch.
        train_on: 'members', 'extra' (the rows that a design gives to learners), or
            'members_then_extra'.
        members_epochs: the number of first epochs of 'members_then_extra', those on the members.
        extra_trainable: with 'members_then_extra', parameters whose path matches this pattern are
            trained on the extra rows alone, and all others on the members alone; '' trains all
            parameters on both.
        shards: V; the batch of a step is cut into V shards, whose gradients are added in a fixed
            order (learners/_shards.py).

    Raises:
        ValueError: for settings that contradict each other; in private training, if trial batches
            show that the loss of an example depends on others.
    """
    checks.at_least(0, epochs=epochs, l1=l1, l2=l2)
    checks.at_least(1, **{"learner.shards": shards})
    checks.one_of(("permutation", "full_batch"), plan=plan)
    checks.one_of(("mean", "private"), gradient=gradient)
    checks.one_of(("members", "extra", FURTHER), train_on=train_on)
    checks.fraction(closed="left", ema=ema)
    checks.at_least(0, shifts=shifts, adapter_rank=adapter_rank)
    if adapter_rank:
        if not initial:
            raise ValueError(
                f"learner.adapter_rank={adapter_rank} trains small changes of a net that is there "
                "already; name the run that it comes from with learner.init_from."
            )
        model = adapters.adapted(model, rank=adapter_rank, layers=adapter_layers)
        trainable = adapters.trained(trainable)
    loss = over_shifts(loss, shifts) if shifts else loss
    members = num_rows
    if train_on != "members" and not num_extra:
        raise ValueError(
            f"learner.train_on={train_on!r} needs rows beside the members: a design with extra > "
            "0, such as design.name='halves' with design.extra=0.2."
        )
    if (train_on == FURTHER) != (0 < members_epochs < epochs):
        raise ValueError(
            f"learner.members_epochs={members_epochs} is the number of the first epochs of "
            f"train_on={FURTHER!r}, 1 to {epochs - 1} of epochs={epochs}, and 0 otherwise "
            f"(train_on={train_on!r})."
        )
    if train_on == FURTHER and (gradient == "private" or plan != "permutation"):
        raise ValueError(
            f"learner.train_on={FURTHER!r} has two phases with batches of their own, which "
            "gradient='private' and plan='full_batch' do not; train a run with train_on='extra' "
            "and start from it (init_from)."
        )
    if extra_trainable and train_on != FURTHER:
        raise ValueError(
            f"learner.extra_trainable={extra_trainable!r} says what the second phase of "
            f"train_on={FURTHER!r} trains; train_on={train_on!r} has one phase, whose pattern is "
            "learner.trainable."
        )
    if train_on == FURTHER:  # the phase of fewer batches has empty ones
        padded, num_rows = True, max(num_rows, num_extra)
    if train_on == "extra":
        num_rows = num_extra
    if ema and stopping is not None and stopping.restore_best:
        raise ValueError(
            f"ema={ema} and stop.restore_best both say which variables are the model's; choose one."
        )
    if privacy and gradient == "mean":
        raise ValueError(
            "learner.privacy is for gradient='private'; with gradient='mean' nothing is clipped "
            "and no noise is added."
        )
    settings = dict(
        num_rows=num_rows,
        batch_size=batch_size,
        epochs=epochs,
        padded=padded,
        columns={} if sample is None else sample.columns,
    )
    settings |= dict(started=bool(initial), shards=shards)
    secret = (
        None
        if gradient == "mean"
        else registry.call(private.make, "learner.privacy", dict(privacy or {}), **settings)
    )
    if shards > 1 and sample is not None:
        check_statistics(jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(sample.x[:1])))
    if secret is None:
        batch = num_rows if plan == "full_batch" else min(batch_size, num_rows)
        _shards.check(shards, batch=batch)
        rows_plan = (
            plans.full_batch()
            if plan == "full_batch"
            else plans.permutation(batch_size=batch_size, drop_last=drop_last)
        )
        steps = (
            1
            if plan == "full_batch"
            else plans.steps_per_epoch(
                num_rows=num_rows, batch_size=batch_size, drop_last=drop_last
            )
        )
    else:
        check_private(model=model, sample=sample, plan=plan, drop_last=drop_last, stopping=stopping)
        rows_plan, steps, epochs = (
            secret.plan,
            secret.guarantee.mechanism.epoch_steps,
            secret.epochs,
        )
    if train_on == FURTHER:
        rows_plan = plans.phases(rows_plan, members=members, first=members_epochs)
    elif num_extra:
        rows_plan = plans.part(rows_plan, members=members, extra=train_on == "extra")
    length = dict(total_steps=max(1, epochs * steps), epoch_steps=steps)
    if adapter_layers and not adapter_rank:
        raise ValueError(
            f"learner.adapter_layers={adapter_layers!r} chooses the layers of adapters, of which "
            "there are none with adapter_rank=0."
        )
    tx = descent.optimizer(optimizer, learning_rate=learning_rate, schedule=schedule, **length)
    transform = augmentations.make(tuple(augment)) if augment else None
    penalty = weight_penalty(l1=l1, l2=l2, penalize=penalize)
    if dirac.PART in model.parts:
        tx, trainable = dirac.released(tx), dirac.trained(trainable)

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        if shards > 1:
            check_statistics(variables)
        variables["params"] = parameters.started(variables["params"], initial, trainable)
        penalty(variables["params"])
        stop = stopping.init(variables) if stopping else None
        opt = tx.init(parameters.split(variables["params"], trainable)[0])
        if secret is not None or ema:
            opt = dict(tx=opt)
            if secret is not None:
                opt |= secret.start(parameters.split(variables["params"], trainable)[0])
            opt |= dict(ema=jax.tree.map(jnp.array, variables["params"])) if ema else {}
        return TrainState(jnp.int32(0), variables, opt, train_key, stop)

    def slots(index_B, weight_B) -> tuple:
        """Returns the rows of a batch with the numbers of their slots."""
        return index_B, weight_B, jnp.arange(len(index_B), dtype=jnp.int32)

    def batch_of(state: TrainState, pool: Pool, index_B, weight_B, slot_B):
        key_B = keys_of(jax.random.fold_in(state.key, state.step), slot_B)
        batch = rows(pool, index_B, weight_B)
        return (
            batch if transform is None else dataclasses.replace(batch, x=transform(batch.x, key_B))
        ), key_B

    def moved(state: TrainState, gradient, opt):
        """Returns (params, optimizer state) after the step along `gradient`.

        The gradient is None on frozen leaves.
        """
        chosen, frozen = parameters.split(state.variables["params"], trainable)
        if extra_trainable:
            gradient = of_phase(state, gradient, jax.tree.map(jnp.zeros_like, gradient))
        updates, opt = tx.update(gradient, opt, chosen)
        after = optax.apply_updates(chosen, updates)
        after = of_phase(state, after, chosen) if extra_trainable else after
        return parameters.merge(after, frozen), opt

    def of_phase(state: TrainState, new, old):
        """Returns the leaves of `new` that the phase of this step trains, and `old` elsewhere."""
        second = state.step >= members_epochs * steps
        return parameters.where(extra_trainable, new, old, matching=second)

    def after(updated: Callable, given, state: TrainState, turns):
        """Returns updated(given, state), with several shards in a program of its own."""
        if shards == 1:
            return updated(given, state)
        return _shards.apart(updated, given, state, turns=turns)

    def averaged(state: TrainState, params) -> dict:
        decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
        return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.opt["ema"], params)

    def shard(slots_B, shared):
        """Returns ((the weighted loss, its gradient, sums of metrics), statistics) of a shard."""
        state, pool, total = shared
        weight_B = slots_B[1]
        batch, key_B = batch_of(state, pool, *slots_B)
        chosen, frozen = parameters.split(state.variables["params"], trainable)

        def objective(chosen):
            params = parameters.merge(chosen, frozen)
            loss_B, aux = loss(
                {**state.variables, "params": params}, batch, key_B=key_B, train=True
            )
            return (weight_B * loss_B).sum() / jnp.maximum(total, 1e-12), aux

        (value, aux), gradient = jax.value_and_grad(objective, has_aux=True)(chosen)
        sums = {name: (weight_B * value_B).sum() for name, value_B in aux.metrics.items()}
        return (value, gradient, sums), aux.stats

    def updated(given, state: TrainState):
        """Returns ((variables, optimizer state), sums) after a step."""
        value, gradient, sums, stats, total = given
        if l1 or l2:
            chosen, frozen = parameters.split(state.variables["params"], trainable)
            extra, outside = jax.value_and_grad(lambda p: penalty(parameters.merge(p, frozen)))(
                chosen
            )
            value, gradient = value + extra, jax.tree.map(jnp.add, gradient, outside)
        params, opt = moved(state, gradient, state.opt["tx"] if ema else state.opt)
        opt = dict(tx=opt, ema=averaged(state, params)) if ema else opt
        variables = {"params": params}
        if stats:
            second = state.step >= members_epochs * steps
            variables["stats"] = (
                jax.tree.map(
                    lambda new, old: jnp.where(second, old, new), stats, state.variables["stats"]
                )
                if extra_trainable
                else stats
            )
        if padded:  # An empty batch must not change momentum or statistics.
            variables, opt = jax.tree.map(
                lambda new, old: jnp.where(total > 0, new, old),
                (variables, opt),
                (state.variables, state.opt),
            )
        return (variables, opt), dict(loss=total * value, weight=total) | sums

    def step(state: TrainState, pool: Pool, index_B, weight_B):
        total, turns = weight_B.sum(), _shards.once(pool)
        (value, gradient, sums), stats = _shards.summed(
            shard,
            slots(index_B, weight_B),
            (state, pool, total),
            shards=shards,
            turns=turns,
        )
        (variables, opt), sums = after(updated, (value, gradient, sums, stats, total), state, turns)
        return TrainState(state.step + 1, variables, opt, state.key, state.stop), sums

    def private_step(secret: private.Private, state: TrainState, pool: Pool, index_B, weight_B):
        overflow = jnp.isnan(weight_B).any()
        weight_B = jnp.where(overflow, 0, weight_B)

        def shard(slots_B, shared):
            state, pool = shared
            chosen, frozen = parameters.split(state.variables["params"], trainable)
            clipped = secret.clipped(
                losses_of(loss, frozen),
                chosen,
                batch_of(state, pool, *slots_B),
                slots_B[1],
                state.opt["clip_norm"],
            )
            return clipped.total, clipped._replace(total=None)

        def updated(given, state: TrainState):
            clipped, weight_B = given
            key = jax.random.fold_in(state.key, state.step)
            noisy, carried, numbers = secret.noisy(clipped, key, state.opt)
            chosen, frozen = parameters.split(state.variables["params"], trainable)
            extra, outside = jax.value_and_grad(lambda p: penalty(parameters.merge(p, frozen)))(
                chosen
            )
            noisy = jax.tree.map(jnp.add, noisy, outside) if l1 or l2 else noisy
            # An empty batch also moves the parameters: its noise is part of the mechanism.
            params, tx_state = moved(state, noisy, state.opt["tx"])
            opt = dict(tx=tx_state) | carried
            opt |= dict(ema=averaged(state, params)) if ema else {}
            total = weight_B.sum()
            metrics = dict(loss=clipped.loss_B + extra) | clipped.aux
            sums = {
                name: jnp.where((weight_B > 0) & jnp.isfinite(v), weight_B * v, 0).sum()
                for name, v in metrics.items()
            }
            sums |= {name: total * v for name, v in numbers.items()} | dict(weight=total)
            return ({"params": params}, opt), sums

        turns = _shards.once(pool)
        total, units = _shards.summed(
            shard, slots(index_B, weight_B), (state, pool), shards=shards, turns=turns
        )
        (variables, opt), sums = after(
            updated, (units._replace(total=total), weight_B), state, turns
        )
        sums |= dict(overflow=overflow.astype(jnp.float32))
        return TrainState(state.step + 1, variables, opt, state.key, state.stop), sums

    if secret is None:
        one_step = step
    else:

        def tried(rounds):
            return trials.tried(model=model, loss=loss, sample=sample, rounds=rounds)

        secret = secret.choose(
            *example_step(model=model, loss=loss, sample=sample, trainable=trainable), tried
        )
        one_step = lambda *args: private_step(secret, *args)  # noqa: E731

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(lambda s, iw: one_step(s, pool, *iw), state, (index_SB, weight_SB))
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    released = (lambda state: {**state.variables, "params": state.opt["ema"]}) if ema else None
    guarantee = None if secret is None else secret.guarantee
    return Learner(
        init,
        epoch,
        evaluation(loss=loss, penalty=penalty),
        rows_plan,
        epochs,
        stopping,
        model,
        guarantee,
        released,
        shards,
        0 if secret is None else secret.units,
    )


def over_shifts(loss: Loss, d: int) -> Loss:
    """Returns the mean of a loss over the 4d + 1 shifts of every image, while training.

    All shifts of a batch are one batch of (4d + 1) B images. Metrics are means over the shifts as
    well; the keys of the copies of an example are fold_in(its key, number of the shift).
    """
    views = query_views.make([f"shift:{dy},{dx}" for dy, dx in diamond(d)])

    def shifted(variables, batch: Batch, *, key_B=None, train: bool = False):
        if not train:
            return loss(variables, batch, key_B=key_B, train=train)
        if batch.x.ndim != 4:
            raise ValueError(
                f"learner.shifts={d} moves images [B,H,W,C], and these examples have shape "
                f"{tuple(batch.x.shape[1:])}; data.flat=False or data.shape arranges them."
            )
        size, copies = len(batch.y), len(views)
        tiled = lambda a: jnp.tile(a, (copies,) + (1,) * (a.ndim - 1))  # noqa: E731
        many = dataclasses.replace(
            batch,
            x=jnp.concatenate([view(batch.x) for view in views]),
            y=tiled(batch.y),
            weight_B=tiled(batch.weight_B),
            index_B=tiled(batch.index_B),
        )
        keys = None
        if key_B is not None:
            fold = jax.vmap(jax.random.fold_in, (0, None))
            keys = jnp.concatenate([fold(key_B, jnp.uint32(s)) for s in range(copies)])
        loss_B, aux = loss(variables, many, key_B=keys, train=train)
        mean = lambda a: a.reshape(copies, size).mean(0)  # noqa: E731
        return mean(loss_B), aux._replace(metrics=jax.tree.map(mean, aux.metrics))

    return shifted


def losses_of(loss: Loss, frozen) -> Callable:
    """Returns losses(params, taps, (Batch, key_B)) -> (loss_B, metrics) for privacy.gradients.

    `params` has None where `frozen` has leaves.
    """

    def losses(params, taps, rows):
        batch, key_B = rows
        variables = {"params": parameters.merge(params, frozen)} | (
            {"tap": parameters.nested(taps)} if taps else {}
        )
        loss_B, aux = loss(variables, batch, key_B=key_B, train=True)
        return loss_B, aux.metrics

    return losses


def example_step(*, model: Model, loss: Loss, sample: Pool, trainable: str) -> tuple:
    """Returns (losses, params, rows) of one example as shapes.

    This is what a private learner analyzes when it is built.
    """
    example = Pool(x=jnp.asarray(sample.x[:1]), y=jnp.asarray(sample.y[:1]), task=sample.task)
    key = jax.random.key(0)
    params, frozen = parameters.split(
        jax.eval_shape(model.init, key, example.x)["params"], trainable
    )
    batch = jax.eval_shape(
        lambda: (
            rows(example, jnp.zeros(1, jnp.int32), jnp.ones(1, jnp.float32)),
            slot_keys(key, 1),
        )
    )

    def losses(params, taps, rows):
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), frozen)
        return losses_of(loss, zeros)(params, taps, rows)

    return losses, params, batch


def check_private(
    *, model: Model, sample: Pool | None, plan: str, drop_last: bool, stopping: Stopping | None
) -> None:
    """Raises ValueError for settings that a private learner cannot have.

    These are batch statistics, other plans, and a stopping rule on private rows.
    """
    if sample is None:
        raise ValueError("gradient='private' needs `sample`, a Pool of a few examples.")
    if "stats" in jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(sample.x[:1])):
        raise ValueError(
            "gradient='private': this model normalizes by batch statistics, which mix examples, so "
            "no example's gradient is its own. "
            "Use a norm that treats each example separately (model.norm='group' or 'layer')."
        )
    if plan != "permutation" or drop_last:
        raise ValueError(
            "gradient='private' draws its own batches; leave plan and drop_last at their defaults "
            "and choose privacy.sampling."
        )
    if stopping is not None and not stopping.monitor.startswith("val_"):
        raise ValueError(
            f"learner.stop.monitor={stopping.monitor!r} is computed from private rows without "
            "noise, which no epsilon covers; monitor 'val_loss' "
            "with learner.validation='population', or train for fixed epochs."
        )


def check_statistics(variables) -> None:
    """Raises ValueError if a model whose batches are cut into shards has statistics of batches."""
    if variables.get("stats"):
        raise ValueError(
            "learner.shards > 1: this model normalizes by the statistics of a batch, and a shard "
            "would have statistics of its own. Use a norm of single examples (model.norm='group' "
            "or 'layer'), or learner.shards=1."
        )


def evaluation(*, loss: Loss, penalty: Callable, batch_size: int = 512) -> Callable:
    """Returns evaluate(variables, pool, rows_K, weight_K) -> weighted sums in inference mode.

    The sums are those of the loss (with its penalty), the metrics and the weight.
    """

    def evaluate(variables, pool: Pool, rows_K, weight_K):
        size = min(batch_size, rows_K.shape[0])
        padding = -rows_K.shape[0] % size
        index_SB = jnp.concatenate([rows_K, jnp.broadcast_to(rows_K[:1], (padding,))]).reshape(
            -1, size
        )
        weight_SB = jnp.concatenate([weight_K, jnp.zeros(padding, weight_K.dtype)]).reshape(
            -1, size
        )
        extra = penalty(variables["params"])

        def evaluate_batch(_, iw):
            loss_B, aux = loss(variables, rows(pool, *iw), train=False)
            per_example = dict(loss=loss_B + extra, weight=jnp.ones_like(loss_B)) | aux.metrics
            return None, {name: (iw[1] * value_B).sum() for name, value_B in per_example.items()}

        return jax.tree.map(
            lambda a: a.sum(0), lax.scan(evaluate_batch, None, (index_SB, weight_SB))[1]
        )

    return evaluate


def rows(pool: Pool, index_B, weight_B) -> Batch:
    """Returns the rows `index_B` of a pool as a batch."""
    return Batch(
        x=taken(pool.x, index_B),
        y=taken(pool.y, index_B),
        task=pool.task,
        weight_B=weight_B,
        index_B=index_B,
    )


def slot_keys(key, size: int):
    """Returns one key per example slot: fold_in(key, slot), [B]."""
    return keys_of(key, jnp.arange(size, dtype=jnp.int32))


def keys_of(key, slot_B):
    """Returns the keys of these slots: fold_in(key, slot), [B]."""
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(slot_B)


def weight_penalty(*, l1: float, l2: float, penalize: str) -> Callable:
    """Returns penalty(params) = l1 * sum|w| + l2 * sum w^2.

    The sums are over the leaves whose path (a/b/c) matches the pattern `penalize`; ValueError if
    none does.
    """
    if not (l1 or l2):
        return lambda params: jnp.float32(0)

    def penalty(params):
        leaves = {
            "/".join(str(k.key) for k in path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        chosen = [leaf for path, leaf in leaves.items() if re.search(penalize, path)]
        if not chosen:
            raise ValueError(
                f"penalize={penalize!r} matches no parameter; the paths are {', '.join(leaves)}."
            )
        return sum(l1 * jnp.abs(w).sum() + l2 * (w**2).sum() for w in chosen)

    return penalty
