"""Compares plan, stopping, schedules and backprop with hand-written versions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mia_jax.learners import _descent, plan, stopping
from mia_jax.objectives import cross_entropy
from tests import toys

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "rows, size, drop, steps",
    [(30, 8, False, 4), (30, 8, True, 3), (32, 8, False, 4), (5, 8, False, 1), (5, 8, True, 1)],
)
def test_permutation_shows_every_row_once(rows, size, drop, steps):
    index, weight = plan.permutation(batch_size=size, drop_last=drop)(
        KEY, 1, jnp.arange(100, 100 + rows), jnp.ones(rows)
    )
    assert index.shape == weight.shape == (steps, min(size, rows))
    seen = np.sort(np.asarray(index)[np.asarray(weight) > 0])
    assert (
        len(np.unique(seen))
        == len(seen)
        == (steps * min(size, rows) if drop and rows > size else rows)
    )
    assert set(seen) <= set(range(100, 100 + rows))


def test_plan_is_addressable_and_changes_with_epoch_and_key():
    p, rows, ones = plan.permutation(batch_size=10), jnp.arange(50), jnp.ones(50)
    again = p(KEY, 3, rows, ones)[0]
    assert toys.same(p(KEY, 3, rows, ones)[0], again)
    assert not toys.same(p(KEY, 4, rows, ones)[0], again)
    assert not toys.same(p(jax.random.key(1), 3, rows, ones)[0], again)


def test_first_row_of_a_permutation_is_uniform():
    p = plan.permutation(batch_size=10)
    first = jax.vmap(lambda e: p(KEY, e, jnp.arange(10), jnp.ones(10))[0][0, 0])(jnp.arange(2000))
    count = np.bincount(np.asarray(first), minlength=10)
    assert ((count - 200) ** 2 / 200).sum() < 33.7  # chi-squared, 9 degrees of freedom, p = 1e-4


def test_padded_rows_come_last_with_weight_zero():
    weight = jnp.array([1.0, 0, 1, 0, 1, 1, 0, 1])
    index, w = plan.permutation(batch_size=2)(KEY, 1, jnp.arange(8), weight)
    assert np.asarray(w).ravel().tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert set(np.asarray(index).ravel()[:5].tolist()) == {0, 2, 4, 5, 7}


def trace(rule, values):
    stop = rule.init({})
    for epoch, value in enumerate(values, 1):
        stop = rule.update(stop, value, epoch, {})
        if stop.done:
            break
    return int(stop.best_epoch), int(stop.stopped_epoch)


def test_stops_patience_epochs_after_the_last_improvement():
    """A loss whose last gain of at least 0.005 is at epoch 28 stops at 48 with patience 20."""
    values = [1.0 - 0.03 * e for e in range(1, 29)] + [0.16 - 0.0001 * e for e in range(1, 100)]
    assert trace(stopping.make(min_delta=0.005, patience=20), values) == (28, 48)


def test_stop_modes_baseline_and_patience_zero():
    assert trace(stopping.make(monitor="val_accuracy", patience=2), [0.1, 0.5, 0.4, 0.5, 0.6]) == (
        2,
        4,
    )
    assert trace(stopping.make(monitor="loss", mode="max", patience=1), [1.0, 2.0, 1.5]) == (2, 3)
    assert trace(stopping.make(patience=0), [3.0, 2.0, 2.0, 1.0]) == (2, 3)
    assert trace(stopping.make(mode="max", baseline=0.9, patience=2), [0.5, 0.6, 0.95]) == (0, 2)
    assert trace(stopping.make(min_delta=-0.5, patience=1), [1.0, 0.6]) == (
        1,
        2,
    )  # the sign of min_delta does not matter
    assert trace(stopping.make(min_delta=0.5, patience=1), [1.0, 0.6]) == (1, 2)
    assert trace(stopping.make(min_delta=0.5, patience=1), [1.0, 0.4]) == (2, 0)


def test_best_variables_are_copies_of_the_best_epoch():
    rule = stopping.make(patience=5, restore_best=True)
    stop = rule.init({"w": jnp.zeros(2)})
    for epoch, (value, w) in enumerate([(2.0, 1.0), (1.0, 2.0), (3.0, 3.0)], 1):
        stop = rule.update(stop, value, epoch, {"w": jnp.full(2, w)})
    assert stopping.best_variables(stop, {"w": jnp.full(2, 3.0)})["w"].tolist() == [2.0, 2.0]
    never = rule.update(rule.init({"w": jnp.zeros(2)}), jnp.nan, 1, {"w": jnp.ones(2)})
    assert stopping.best_variables(never, {"w": jnp.ones(2)})["w"].tolist() == [1.0, 1.0]


def test_learning_rates():
    warm = dict(name="cosine_decay_schedule", warmup_epochs=1.0)
    rate = _descent.learning_rates(warm, learning_rate=1.0, total_steps=110, epoch_steps=10)
    np.testing.assert_allclose(
        [rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 0.5, 1, 0.5, 0], atol=1e-6
    )
    slow = _descent.learning_rates(
        "cosine_7_16", learning_rate=2.0, total_steps=100, epoch_steps=10
    )
    np.testing.assert_allclose(
        [slow(0), slow(50), slow(100)],
        [2, 2 * np.cos(7 * np.pi / 32), 2 * np.cos(7 * np.pi / 16)],
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="warmup covers 10 of 10"):
        _descent.learning_rates(warm, learning_rate=1.0, total_steps=10, epoch_steps=10)
    with pytest.raises(ValueError, match="Did you mean 'cosine_decay_schedule'"):
        _descent.learning_rates("cosine_decay", learning_rate=1.0, total_steps=10, epoch_steps=1)
    with pytest.raises(ValueError, match="has its own warm-up; set its warmup_steps"):
        schedule = dict(name="warmup_cosine_decay_schedule", warmup_steps=2, warmup_epochs=1.0)
        _descent.learning_rates(schedule, learning_rate=1.0, total_steps=10, epoch_steps=1)


def test_schedules_of_optax_end_with_the_training_and_reach_the_learning_rate():
    training = dict(learning_rate=0.5, total_steps=100, epoch_steps=10)
    warm = _descent.learning_rates(
        dict(name="warmup_cosine_decay_schedule", warmup_steps=20), **training
    )
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.5, warmup_steps=20, decay_steps=100)
    falling = _descent.learning_rates(dict(name="exponential_decay", decay_rate=0.1), **training)
    early = _descent.learning_rates(
        dict(name="cosine_decay_schedule", decay_steps=50, alpha=0.1), **training
    )
    steps = _descent.learning_rates(
        dict(name="piecewise_constant_schedule", boundaries_and_scales={"30": 0.1}), **training
    )
    np.testing.assert_allclose(
        [warm(s) for s in range(101)], [theirs(s) for s in range(101)], rtol=1e-6
    )
    np.testing.assert_allclose([falling(0), falling(100)], [0.5, 0.05], rtol=1e-6)
    np.testing.assert_allclose([early(0), early(50), early(90)], [0.5, 0.05, 0.05], rtol=1e-6)
    np.testing.assert_allclose([steps(0), steps(29), steps(31)], [0.5, 0.5, 0.05], rtol=1e-6)


OPTIMIZERS = dict(
    sgd=("sgd", optax.sgd(0.05)),
    momentum=(dict(name="sgd", momentum=0.9), optax.sgd(0.05, momentum=0.9)),
    adam=("adam", optax.adam(0.05)),
    adamw=(dict(name="adamw", weight_decay=0.1), optax.adamw(0.05, weight_decay=0.1)),
    lion=(dict(name="lion", b1=0.8), optax.lion(0.05, b1=0.8)),
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_step_equals_plain_optax(name):
    data, model = toys.pool(), toys.mlp()
    chosen, tx = OPTIMIZERS[name]
    learner = toys.learner(model=model, optimizer=chosen, l2=0.01, penalize="kernel")
    state = learner.init(KEY, data)
    index, weight = jnp.arange(8)[None], jnp.array([[1.0, 1, 1, 1, 1, 1, 0, 0]])
    new, sums = jax.jit(learner.epoch)(state, data, index, weight)

    def loss(params):
        out, _ = model.apply({"params": params}, data.x[:6])
        ce = optax.softmax_cross_entropy_with_integer_labels(out, data.y[:6]).mean()
        return ce + 0.01 * sum((params[d]["kernel"] ** 2).sum() for d in params)

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.variables["params"])
    updates, _ = tx.update(gradient, tx.init(state.variables["params"]), state.variables["params"])
    want = optax.apply_updates(state.variables["params"], updates)
    for a, b in zip(jax.tree.leaves(new.variables["params"]), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    np.testing.assert_allclose(sums["loss"] / sums["weight"], value, rtol=1e-5)
    assert sums["weight"] == 6 and new.step == 1


def test_penalties_equal_the_formula_and_name_a_pattern_that_matches_nothing():
    data = toys.pool()
    for l1, l2 in ((0.5, 0.0), (0.0, 0.5)):
        plain, punished = toys.learner(epochs=1), toys.learner(epochs=1, l1=l1, l2=l2)
        state = plain.init(KEY, data)
        rows, ones = jnp.arange(60), jnp.ones(60)
        a, b = (
            learner.evaluate(state.variables, data, rows, ones) for learner in (plain, punished)
        )
        kernels = [
            np.asarray(state.variables["params"][d]["kernel"]) for d in ("Dense_0", "Dense_1")
        ]
        want = sum(l1 * np.abs(k).sum() + l2 * (k**2).sum() for k in kernels)
        np.testing.assert_allclose((b["loss"] - a["loss"]) / 60, want, rtol=1e-5)
    with pytest.raises(ValueError, match="matches no parameter; the paths are Dense_0/bias"):
        toys.learner(l2=1.0, penalize="Conv").init(KEY, data)


def test_an_empty_batch_changes_nothing():
    data, learner = toys.pool(), toys.learner(padded=True)
    state = learner.init(KEY, data)
    index = jnp.tile(jnp.arange(8)[None], (2, 1))
    after_one, _ = learner.epoch(state, data, index[:1], jnp.ones((1, 8)))
    after_two, sums = learner.epoch(state, data, index, jnp.stack([jnp.ones(8), jnp.zeros(8)]))
    assert toys.same(after_one.variables, after_two.variables) and toys.same(
        after_one.opt, after_two.opt
    )
    assert sums["weight"] == 8


def test_evaluate_ignores_padding_and_equals_numpy():
    data, learner = toys.pool(), toys.learner()
    state = learner.init(KEY, data)
    sums = learner.evaluate(
        state.variables, data, jnp.array([3, 4, 5, 0, 0]), jnp.array([1.0, 1, 1, 0, 0])
    )
    out = np.asarray(toys.mlp().apply(state.variables, data.x[3:6])[0], np.float64)
    want = (np.log(np.exp(out).sum(1)) - out[np.arange(3), data.y[3:6]]).sum()
    np.testing.assert_allclose(sums["loss"], want, rtol=1e-5)
    assert sums["weight"] == 3 and sums["accuracy"] == (out.argmax(1) == data.y[3:6]).sum()


def test_steps_draw_from_their_number_and_slot_alone():
    """Two epochs in one scan equal two single epochs: the key of a step is fold_in(key, step)."""
    data, learner = toys.pool(), toys.learner(model=toys.mlp(rate=0.5))
    state = learner.init(KEY, data)
    index = jax.random.randint(KEY, (4, 8), 0, 60)
    whole, _ = learner.epoch(state, data, index, jnp.ones((4, 8)))
    half, _ = learner.epoch(state, data, index[:2], jnp.ones((2, 8)))
    half, _ = learner.epoch(half, data, index[2:], jnp.ones((2, 8)))
    assert toys.same(whole.variables, half.variables)
    other, _ = learner.epoch(state._replace(key=jax.random.key(9)), data, index, jnp.ones((4, 8)))
    assert not toys.same(whole.variables, other.variables)


def test_cross_entropy_smoothing_and_independence():
    model, data = toys.mlp(), toys.pool()
    variables = model.init(KEY, data.x[:1])
    batch = toys.batch(data.x[:4], data.y[:4])
    loss, aux = cross_entropy.make(model=model, label_smoothing=0.3)(variables, batch)
    out = model.apply(variables, data.x[:4])[0]
    want = optax.softmax_cross_entropy(out, 0.7 * jax.nn.one_hot(data.y[:4], 3) + 0.1)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert loss.shape == aux.metrics["accuracy"].shape == (4,)
    jacobian = jax.jacobian(
        lambda x: cross_entropy.make(model=model)(variables, dataclasses.replace(batch, x=x))[0]
    )(batch.x)
    assert all(
        (np.asarray(jacobian)[i, j] == 0).all() for i in range(4) for j in range(4) if i != j
    )
