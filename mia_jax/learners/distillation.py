"""Distills a student from teachers: from one, or from teachers that leave rows out by turns.

Only the student is released; it has never seen the labels of the rows that the teachers learned.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mia_jax import checks
from mia_jax.learners import _descent as descent
from mia_jax.learners import backprop
from mia_jax.learners import plan as plans
from mia_jax.objectives import cross_entropy
from mia_jax.types import Learner, Model, Pool, Stopping, TrainState

ROWS = ("members", "extra")


def make(
    *,
    model: Model,
    num_rows: int,
    num_extra: int = 0,
    padded: bool = False,
    stopping: Stopping | None = None,
    teachers: int = 1,
    held_out: int = 0,
    on: str = "members",
    teacher_epochs: int = 50,
    epochs: int = 100,
    batch_size: int = 32,
    temperature: float = 1.0,
    optimizer: str | Mapping = "adam",
    learning_rate: float = 1e-3,
) -> Learner:
    """Returns the learner that trains `teachers` and then a student on their soft labels.

    The first `teacher_epochs` epochs train the teachers by cross-entropy on the model's rows; a row
    is left out of `held_out` of them (consecutive ones, from a random first). The other epochs
    train the student, which starts from random parameters, on
    -sum_c q_c log softmax(z / T)_c * T^2 with T = `temperature`, where q is the mean of
    softmax(z_k / T) over teachers: those that did not train on the row, or all if held_out = 0 or
    if the row is an extra one.

    - teachers=1, on='extra': the student sees no member, only other rows as the teacher labels
      them (distillation for membership privacy, Shejwalkar & Houmansadr 2021, arXiv:1906.06589).
    - teachers=1, on='members': ordinary distillation (Hinton et al. 2015, arXiv:1503.02531).
    - teachers=K, held_out=L, on='members': a member is labeled as a model answers that has not seen
      it (SELENA: Tang et al. 2022, arXiv:2110.08324, with K = 25 and L = 10).

    Metrics: 'loss' and 'accuracy', of the teachers in their epochs and of the student in its own;
    evaluations are the student's cross-entropy.

    Args:
        model: the network of teachers and student.
        num_rows: K, the number of rows of one model.
        num_extra: the number of further rows of the design.
        padded: whether some rows have weight 0.
        stopping: refused.
        teachers: how many teachers.
        held_out: of how many teachers a row is left out.
        on: 'members', or 'extra' for the extra rows of the design.
        teacher_epochs: the epochs of the teachers.
        epochs: the epochs of teachers and student together.
        batch_size: the number of examples per step.
        temperature: T.
        optimizer: a name, or {'name': ..., argument: value} (mia_jax/optimizers).
        learning_rate: the learning rate of both.

    Raises:
        ValueError: for a stopping rule, a model with batch statistics, no epoch of the student, or
            extra rows that the design does not have.
    """
    checks.at_least(1, teachers=teachers, teacher_epochs=teacher_epochs)
    checks.at_least(0, held_out=held_out)
    checks.one_of(ROWS, on=on)
    checks.positive(temperature=temperature)
    if held_out >= teachers > 0 and held_out:
        raise ValueError(
            f"held_out={held_out} of teachers={teachers} leaves a row without a teacher; use "
            f"held_out < teachers."
        )
    if epochs <= teacher_epochs:
        raise ValueError(
            f"epochs={epochs} counts teachers and student, and teacher_epochs={teacher_epochs} "
            "leaves none for the student; raise learner.epochs."
        )
    if stopping is not None:
        raise ValueError(
            "learner.stop: distillation has two phases, and a rule would stop it in the first one; "
            "leave learner.stop out and choose teacher_epochs and epochs."
        )
    if on == "extra" and not num_extra:
        raise ValueError(
            "on='extra' needs rows beside the members: a design with extra > 0, such as "
            "design.name='halves' with design.extra=0.2."
        )
    batches = plans.phases(
        plans.permutation(batch_size=batch_size), members=num_rows, first=teacher_epochs
    )
    steps = plans.steps_per_epoch(num_rows=max(num_rows, num_extra), batch_size=batch_size)
    if on == "members":
        batches = plans.part(
            plans.permutation(batch_size=batch_size), members=num_rows, extra=False
        )
        steps = plans.steps_per_epoch(num_rows=num_rows, batch_size=batch_size)
    boundary = teacher_epochs * steps
    common = dict(learning_rate=learning_rate, schedule="constant_schedule", epoch_steps=steps)
    tx = descent.optimizer(optimizer, total_steps=max(1, epochs * steps), **common)
    clean = cross_entropy.make(model=model)

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        if "stats" in variables:
            raise ValueError(
                "distillation: this model normalizes by batch statistics, which teachers would "
                "share; use a norm of single examples (model.norm='group' or 'layer')."
            )
        keys = jax.vmap(lambda t: jax.random.fold_in(init_key, t))(
            jnp.arange(1, teachers + 1, dtype=jnp.uint32)
        )
        taught = jax.vmap(lambda k: model.init(k, pool.x[:1])["params"])(keys)
        opt = dict(
            tx=tx.init(variables["params"]), teachers=taught, teachers_tx=jax.vmap(tx.init)(taught)
        )
        return TrainState(jnp.int32(0), variables, opt, train_key, None)

    def objective(params, batch, key_B):
        loss_B, aux = clean({"params": params}, batch, key_B=key_B, train=True)
        total = jnp.maximum(batch.weight_B.sum(), 1e-12)
        return (batch.weight_B * loss_B).sum() / total, aux.metrics["accuracy"]

    def teach(state: TrainState, batch, key_B):
        trains_TB = trained_by(state.key, batch.index_B, teachers=teachers, held_out=held_out)

        def one(params, opt, trains_B):
            its = batch.__class__(**{**vars(batch), "weight_B": batch.weight_B * trains_B})
            (value, correct_B), gradient = jax.value_and_grad(objective, has_aux=True)(
                params, its, key_B
            )
            updates, opt = tx.update(gradient, opt, params)
            return optax.apply_updates(params, updates), opt, value, correct_B

        taught, opt, value_T, correct_TB = jax.vmap(one)(
            state.opt["teachers"], state.opt["teachers_tx"], trains_TB
        )
        total = batch.weight_B.sum()
        opt = state.opt | dict(teachers=taught, teachers_tx=opt)
        sums = dict(
            loss=total * value_T.mean(), accuracy=(batch.weight_B * correct_TB.mean(0)).sum()
        )
        return state.variables["params"], opt, sums

    def learn(state: TrainState, batch, key_B):
        answers_TBC = jax.vmap(
            lambda params: model.apply({"params": params}, batch.x, train=False)[0]
        )(state.opt["teachers"])
        trains_TB = trained_by(state.key, batch.index_B, teachers=teachers, held_out=held_out)
        asked_TB = jnp.ones_like(trains_TB) if on == "extra" or not held_out else 1 - trains_TB
        soft_TBC = jax.nn.softmax(answers_TBC / temperature)
        q_BC = (asked_TB[..., None] * soft_TBC).sum(0) / asked_TB.sum(0)[:, None]

        def distilled(params):
            out_BC, _ = model.apply(
                {"params": params}, batch.x, key_B=key_B, weight_B=batch.weight_B, train=True
            )
            log_BC = jax.nn.log_softmax(out_BC / temperature)
            loss_B = -(q_BC * log_BC).sum(-1) * temperature**2
            total = jnp.maximum(batch.weight_B.sum(), 1e-12)
            return (batch.weight_B * loss_B).sum() / total, out_BC

        old = state.variables["params"]
        (value, out_BC), gradient = jax.value_and_grad(distilled, has_aux=True)(old)
        updates, opt = tx.update(gradient, state.opt["tx"], old)
        correct_B = (out_BC.argmax(-1) == batch.y).astype(jnp.float32)
        sums = dict(loss=batch.weight_B.sum() * value, accuracy=(batch.weight_B * correct_B).sum())
        return optax.apply_updates(old, updates), state.opt | dict(tx=opt), sums

    def step(state: TrainState, pool: Pool, index_B, weight_B):
        batch = backprop.rows(pool, index_B, weight_B)
        key_B = backprop.slot_keys(jax.random.fold_in(state.key, state.step), len(index_B))
        params, opt, sums = lax.cond(state.step < boundary, teach, learn, state, batch, key_B)
        total = weight_B.sum()
        # the two phases may have different numbers of batches: those that are left are empty
        params, opt = jax.tree.map(
            lambda new, old: jnp.where(total > 0, new, old),
            (params, opt),
            (state.variables["params"], state.opt),
        )
        state = TrainState(state.step + 1, {"params": params}, opt, state.key, state.stop)
        return state, sums | dict(weight=total)

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(lambda s, iw: step(s, pool, *iw), state, (index_SB, weight_SB))
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    evaluate = backprop.evaluation(loss=clean, penalty=lambda params: jnp.float32(0))
    return Learner(init, epoch, evaluate, batches, epochs, None, model)


def trained_by(key, index_B, *, teachers: int, held_out: int) -> jax.Array:
    """Returns [T,B] 1 where teacher t trains on the row and 0 where the row is left out of it.

    A row is left out of `held_out` consecutive teachers (modulo T); the first is drawn from
    (key, number of the row).
    """
    root = jax.random.fold_in(key, jnp.uint32(2**32 - 5))

    def first(n):
        return jax.random.randint(jax.random.fold_in(root, n), (), 0, teachers, jnp.int32)

    first_B = jax.vmap(first)(index_B.astype(jnp.uint32))
    place_TB = (jnp.arange(teachers, dtype=jnp.int32)[:, None] - first_B[None]) % teachers
    return (place_TB >= held_out).astype(jnp.float32)
