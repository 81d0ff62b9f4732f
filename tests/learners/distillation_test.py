"""Distillation: who teaches which rows, and that a student learns from soft labels alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.learners import distillation
from tests import toys

MEMBERS, EXTRA = np.arange(24, dtype=np.int32), np.arange(40, 56, dtype=np.int32)
POOL = toys.pool(examples=60)


def made(**fields):
    fields = dict(batch_size=8, teacher_epochs=2, epochs=4, optimizer="sgd") | fields
    return distillation.make(
        model=toys.mlp(), num_rows=24, num_extra=16, learning_rate=0.1, **fields
    )


def trained(learner, pool, *, epochs):
    state, run = learner.init(jax.random.key(0), pool), jax.jit(learner.epoch)
    rows = jnp.concatenate([MEMBERS, EXTRA])
    weight = jnp.concatenate([jnp.ones(24), jnp.zeros(16)])
    states = []
    for epoch in range(1, epochs + 1):
        state, sums = run(state, pool, *learner.plan(jax.random.key(1), epoch, rows, weight))
        states.append(state)
    return states, sums


def test_every_row_is_left_out_of_the_same_number_of_teachers():
    trains_TB = np.asarray(
        distillation.trained_by(jax.random.key(0), jnp.arange(500), teachers=5, held_out=2)
    )
    np.testing.assert_array_equal(trains_TB.sum(0), 3)
    assert (np.abs(trains_TB.sum(1) / 500 - 0.6) < 0.08).all()
    np.testing.assert_array_equal(
        distillation.trained_by(jax.random.key(0), jnp.arange(9), teachers=3, held_out=0), 1
    )


def test_a_student_on_extra_rows_sees_no_label_and_no_member():
    """Other labels of the extra rows change nothing; once teachers are done, members do not count.

    Teachers are those of before: their epochs leave the student, and its epochs leave them.
    """
    learner = made(on="extra", optimizer="adam")
    states, sums = trained(learner, POOL, epochs=3)
    other = dataclasses.replace(POOL, y=jnp.asarray(POOL.y).at[EXTRA].set(0))
    assert toys.same(states[2].variables, trained(learner, other, epochs=3)[0][2].variables)
    assert toys.same(states[0].variables, learner.init(jax.random.key(0), POOL).variables)
    assert toys.same(states[1].opt["teachers"], states[2].opt["teachers"])
    # A student's epoch has 2 batches of 8 and an empty third one, which is no step of Adam.
    steps = [int(s.opt["tx"][0].count) for s in states]
    assert steps == [0, 0, 2]
    assert float(sums["weight"]) == 16  # extra rows, although a teacher's epoch has 24
    index_SB, weight_SB = learner.plan(
        jax.random.key(1), 3, jnp.concatenate([MEMBERS, EXTRA]), jnp.ones(40)
    )
    seen = set(np.asarray(index_SB)[np.asarray(weight_SB) > 0].tolist())
    assert seen == set(EXTRA.tolist())


def test_a_step_follows_the_soft_labels_of_teachers_that_left_the_row_out():
    learner, model = made(teachers=3, held_out=1, temperature=2.0, batch_size=24), toys.mlp()
    before = trained(learner, POOL, epochs=2)[0][1]
    index_SB, weight_SB = learner.plan(
        jax.random.key(1), 3, jnp.concatenate([MEMBERS, EXTRA]), jnp.ones(40)
    )
    after, _ = jax.jit(learner.epoch)(before, POOL, index_SB, weight_SB)
    x_B, index_B = jnp.asarray(POOL.x)[index_SB[0]], index_SB[0]
    trains_TB = distillation.trained_by(before.key, index_B, teachers=3, held_out=1)
    q_BC = np.zeros((24, 3))
    for t in range(3):
        params = jax.tree.map(lambda a, t=t: a[t], before.opt["teachers"])
        soft_BC = jax.nn.softmax(model.apply({"params": params}, x_B)[0] / 2.0)
        q_BC += np.asarray((1 - trains_TB[t])[:, None] * soft_BC)
    np.testing.assert_allclose(q_BC.sum(1), 1, rtol=1e-5)  # one of three teachers each

    def loss(params):
        log_BC = jax.nn.log_softmax(model.apply({"params": params}, x_B)[0] / 2.0)
        return -(jnp.asarray(q_BC, jnp.float32) * log_BC).sum(1).mean() * 4.0

    gradient = jax.jit(jax.grad(loss))(before.variables["params"])
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, before.variables["params"], gradient)
    for a, b in zip(
        jax.tree.leaves(after.variables["params"]), jax.tree.leaves(moved), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "fields, text",
    [
        (dict(teachers=2, held_out=2), "held_out=2 of teachers=2 leaves a row without a teacher"),
        (dict(epochs=2), "leaves none for the student"),
        (dict(stopping=object()), "two phases"),
    ],
)
def test_refusals_say_why(fields, text):
    with pytest.raises(ValueError, match=text):
        made(**fields)


def test_extra_rows_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"design\.extra=0.2"):
        distillation.make(model=toys.mlp(), num_rows=8, on="extra")
