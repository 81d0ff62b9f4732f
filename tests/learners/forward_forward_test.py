"""Tests Forward-Forward: the overlay, the loss by hand, gradients that stay in their layer.

The schedule is compared with a plain loop, and the networks must learn.
"""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mia_jax import configuration
from mia_jax.learners import forward_forward as learners
from mia_jax.models import forward_forward as models
from mia_jax.models import mlp
from mia_jax.objectives import forward_forward as objectives
from mia_jax.pipeline import build_parts
from mia_jax.training import checkpoint, fleet
from mia_jax.types import Pool, classification
from tests import toys

KEY = jax.random.key(0)
CLASSES = 3


def net(**fields):
    return models.make(num_classes=CLASSES, **dict(widths=(6, 5)) | fields)


def data(examples=40, features=8, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, examples).astype(np.int32)
    x = rng.uniform(size=(examples, features)).astype(np.float32)
    x[np.arange(examples), CLASSES + y] += 2
    return Pool(x=x, y=y, name="toy", task=classification(CLASSES))


def batch(pool, size=7):
    return toys.batch(pool.x[:size], pool.y[:size])


def softplus(z):
    return np.log1p(np.exp(z))


def by_hand(params, h, goodness="mean"):
    """Returns the goodness of every layer, [L], from a NumPy copy of the network."""
    goodness_L = []
    for layer in ("Dense_0", "Dense_1"):
        kernel, bias = (np.asarray(params[layer][k], np.float64) for k in ("kernel", "bias"))
        h = np.maximum((h / (np.linalg.norm(h) + 1e-4)) @ kernel + bias, 0)
        goodness_L.append((h**2).mean() if goodness == "mean" else (h**2).sum())
    return np.array(goodness_L)


def test_the_overlay_is_a_one_hot_of_the_largest_feature_and_leaves_the_rest():
    x = np.random.default_rng(0).uniform(0, 0.7, size=(4, 5, 5, 1)).astype(np.float32)
    label = jnp.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    out = np.asarray(models.overlay(x, label, CLASSES))
    flat = x.reshape(4, 25)
    assert out.shape == (4, 2, 25)
    np.testing.assert_array_equal(
        out[:, :, CLASSES:], np.broadcast_to(flat[:, None, CLASSES:], (4, 2, 22))
    )
    np.testing.assert_array_equal(
        out[:, :, :CLASSES], np.eye(CLASSES, dtype=np.float32)[label] * flat.max(1)[:, None, None]
    )
    with pytest.raises(ValueError, match="first 3 features; an example has only 3"):
        net().init(KEY, np.ones((1, 3), np.float32))


@pytest.mark.parametrize("goodness", ["mean", "sum"])
@pytest.mark.parametrize("skip_first", [False, True])
def test_logits_are_the_total_goodness_of_each_label(goodness, skip_first):
    model, pool = net(goodness=goodness, skip_first=skip_first), data()
    variables = model.init(KEY, pool.x)
    out, _ = jax.jit(model.apply)(variables, pool.x[:5])
    labels = jnp.broadcast_to(jnp.arange(CLASSES), (5, CLASSES))
    overlaid = np.asarray(models.overlay(pool.x[:5], labels, CLASSES), np.float64)
    for b in range(5):
        for c in range(CLASSES):
            h = overlaid[b, c]
            np.testing.assert_allclose(
                out[b, c], by_hand(variables["params"], h, goodness)[skip_first:].sum(), rtol=1e-5
            )
    local = model.parts["goodness"](variables, pool.x[:5], labels)
    np.testing.assert_allclose(local[..., int(skip_first) :].sum(-1), out, rtol=1e-6)


def test_parameters_of_the_example():
    assert "643,000" in models.make(num_classes=10).summary(np.zeros((1, 28, 28, 1), np.float32))


def test_the_first_loss_of_a_layer_is_that_of_no_goodness():
    """(softplus(1.5) + softplus(-1.5)) / 2 = 0.951: new layers have almost no mean activity."""
    rng = np.random.default_rng(0)
    pool = Pool(
        x=rng.uniform(size=(32, 784)).astype(np.float32),
        y=rng.integers(0, 10, 32).astype(np.int32),
        task=classification(10),
    )
    model = models.make(num_classes=10)
    loss_B, aux = objectives.make(model=model)(
        model.init(KEY, pool.x), batch(pool, 32), key_B=jax.random.split(KEY, 32), train=True
    )
    assert abs(float(aux.metrics["layer_loss"].mean()) - 0.951) < 0.005
    np.testing.assert_allclose(loss_B, 2 * aux.metrics["layer_loss"], rtol=1e-6)


def test_the_loss_equals_numpy_and_its_mean_over_draws():
    model, pool = net(), data()
    variables, examples = model.init(KEY, pool.x), batch(pool)
    loss = objectives.make(model=model, theta=0.3)
    loss_B, _ = loss(variables, examples)

    overlaid = np.asarray(
        models.overlay(examples.x, jnp.broadcast_to(jnp.arange(CLASSES), (7, CLASSES)), CLASSES),
        np.float64,
    )

    def goodness(b, label):
        return by_hand(variables["params"], overlaid[b, label])

    for b in range(3):
        negative = [softplus(goodness(b, c) - 0.3) for c in range(CLASSES) if c != pool.y[b]]
        want = (softplus(0.3 - goodness(b, pool.y[b])) + np.mean(negative, axis=0)).sum() / 2
        np.testing.assert_allclose(loss_B[b], want, rtol=1e-5)
    draws = jax.vmap(
        lambda k: loss(variables, examples, key_B=jax.random.split(k, 7), train=True)[0]
    )(jax.random.split(KEY, 400))
    np.testing.assert_allclose(draws.mean(0), loss_B, rtol=0.02)


@pytest.mark.parametrize("which", [0, 1])
def test_a_layers_loss_moves_its_own_parameters_alone(which):
    model, pool = net(), data()
    variables, examples = model.init(KEY, pool.x), batch(pool)
    label_BK = jnp.stack([examples.y, (examples.y + 1) % CLASSES], axis=1)

    def loss_of_layer(params):
        return objectives.local(
            model.parts["goodness"]({"params": params}, examples.x, label_BK), 1.5
        )[:, which].sum()

    gradient = jax.jit(jax.grad(loss_of_layer))(variables["params"])
    norm = {
        name: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(g)))
        for name, g in gradient.items()
    }
    assert norm[f"Dense_{which}"] > 0 and norm[f"Dense_{1 - which}"] == 0


@pytest.mark.slow
def test_the_logits_pass_gradients_to_the_input():
    model, pool = net(), data()
    variables = model.init(KEY, pool.x)
    gradient = jax.grad(lambda x: model.apply(variables, x)[0][:, 0].sum())(
        jnp.concatenate([pool.x[:3], jnp.zeros((1, 8))])
    )
    assert np.isfinite(gradient).all() and np.abs(gradient[:3]).sum(1).all()


@pytest.mark.parametrize("negatives", ["other", "any", "permuted"])
def test_negative_labels(negatives):
    y = jnp.tile(jnp.arange(4), 500)
    weight = (jnp.arange(2000) < 1200).astype(jnp.float32)
    other = np.asarray(learners.negative_labels(KEY, y, weight, 4, negatives))
    same = (other == np.asarray(y))[:1200].mean()
    assert (same == 0) if negatives == "other" else abs(same - 0.25) < 0.06
    counts = np.bincount(other[:1200], minlength=4)
    assert (counts == 300).all() if negatives == "permuted" else (abs(counts - 300) < 75).all()
    again = learners.negative_labels(jax.random.key(1), y, weight, 4, negatives)
    assert not np.array_equal(other, again)


def test_an_epoch_equals_a_plain_loop_over_layers_and_steps():
    model, pool = net(), data()
    learner = learners.make(
        model=model, num_rows=12, epochs=2, inner_steps=3, learning_rate=0.05, theta=0.4
    )
    state = learner.init(KEY, pool)
    index, weight = learner.plan(KEY, 1, jnp.arange(12), jnp.ones(12).at[-2:].set(0))
    assert index.shape == (1, 12)
    new, sums = jax.jit(learner.epoch)(state, pool, index, weight)

    other = learners.negative_labels(
        jax.random.fold_in(state.key, 0), jnp.asarray(pool.y[:12]), weight[0], CLASSES, "other"
    )
    positive, negative = (
        models.overlay(pool.x[:10], jnp.asarray(label)[:10, None], CLASSES)[:, 0]
        for label in (pool.y, other)
    )
    values = []
    for name in ("Dense_0", "Dense_1"):
        params, tx = state.variables["params"][name], optax.adam(0.05, eps=1e-7)
        opt = tx.init(params)

        def forward(p, h):
            return jax.nn.relu(
                (h / (jnp.linalg.norm(h, axis=1, keepdims=True) + 1e-4)) @ p["kernel"]
                + p["bias"][None]
            )

        def loss(p, positive=positive, negative=negative):
            good = [(forward(p, h) ** 2).mean(1) for h in (positive, negative)]
            return jnp.concatenate(
                [jax.nn.softplus(0.4 - good[0]), jax.nn.softplus(good[1] - 0.4)]
            ).mean()

        def step(params, opt, loss=loss, tx=tx):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt = tx.update(gradient, opt, params)
            return optax.apply_updates(params, updates), opt, value

        step = jax.jit(step)
        for _ in range(3):
            params, opt, value = step(params, opt)
            values.append(float(value))
        positive, negative = forward(params, positive), forward(params, negative)
        for leaf, want in zip(
            jax.tree.leaves(new.variables["params"][name]), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_allclose(leaf, want, atol=2e-5)
    assert sums["weight"] == 10
    np.testing.assert_allclose(sums["layer_loss"] / 10, np.mean(values), rtol=1e-5)
    np.testing.assert_allclose(sums["loss"] / 10, 2 * np.mean(values), rtol=1e-5)
    later, more = jax.jit(learner.epoch)(new, pool, index, weight)
    np.testing.assert_allclose(
        more["layer_loss_so_far"], (sums["layer_loss"] + more["layer_loss"]) / 2, rtol=1e-5
    )
    assert later.step == 2


def loops(jaxpr):
    """Returns the nested scans of a traced function, (length, loops inside) each.

    Raises AssertionError for anything that would ask the host.
    """
    scans = []
    for equation in jaxpr.eqns:
        assert "callback" not in equation.primitive.name and "feed" not in equation.primitive.name
        inside = [
            loop for sub in jax.extend.core.jaxprs_in_params(equation.params) for loop in loops(sub)
        ]
        scans += (
            [(equation.params["length"], inside)] if equation.primitive.name == "scan" else inside
        )
    return scans


def test_the_inner_steps_are_loops_on_the_device():
    """An epoch is one program: a loop over batches that contains one loop of 50 steps per layer.

    Nothing is sent to the host.
    """
    model, pool = net(), data()
    learner = learners.make(model=model, num_rows=12, batch_size=4, inner_steps=50)
    traced = jax.make_jaxpr(learner.epoch)(
        learner.init(KEY, pool), pool, jnp.arange(12).reshape(3, 4), jnp.ones((3, 4))
    )
    assert loops(traced.jaxpr) == [(3, [(50, []), (50, [])])]


def test_an_empty_batch_changes_nothing():
    model, pool = net(), data()
    learner = learners.make(model=model, num_rows=8, padded=True, batch_size=4, inner_steps=2)
    state = learner.init(KEY, pool)
    new, sums = jax.jit(learner.epoch)(state, pool, jnp.arange(4)[None], jnp.zeros((1, 4)))
    assert (
        toys.same(new.variables, state.variables)
        and toys.same(new.opt, state.opt)
        and sums["weight"] == 0
    )


def test_peer_normalization_evens_out_activities():
    model, pool = net(widths=(16, 8)), data()
    spread = []
    for peer in (0.0, 10.0):
        learner = learners.make(model=model, num_rows=40, inner_steps=30, peer=peer)
        state = learner.init(KEY, pool)
        state, _ = jax.jit(learner.epoch)(state, pool, jnp.arange(40)[None], jnp.ones((1, 40)))
        h = model.parts["layer"](
            state.variables["params"]["Dense_0"],
            model.parts["overlay"](pool.x, jnp.asarray(pool.y)[:, None]),
        )
        spread.append(float(h[:, 0].mean(0).std()))
    assert spread[1] < 0.7 * spread[0]


@pytest.mark.parametrize("learner", ["forward_forward", "backprop"])
def test_both_ways_of_training_learn(learner, tmp_path):
    """Trains a fleet of two with the special schedule, and with the sum of local losses."""
    pool = data(examples=120)
    fields = (
        dict(epochs=8, inner_steps=20)
        if learner == "forward_forward"
        else dict(objective="forward_forward", epochs=100, learning_rate=0.03)
    )
    config = configuration.complete(
        data=dict(name="digits"),
        design=dict(name="halves", models=2),
        model=dict(name="forward_forward"),
        learner=dict(name=learner) | fields,
        attacks={},
    )
    made = build_parts.make_learner(
        config.learner.to_dict(),
        model=net(widths=(16, 16)),
        num_rows=60,
        padded=False,
        labels_N=pool.y,
    )
    rows, weight = toys.halves(examples=120, models=2)
    fleet.train(
        learner=made,
        pool=pool,
        rows_MK=rows,
        weight_MK=weight,
        seed=0,
        models=[0, 1],
        folder=tmp_path,
        chunk=2,
    )
    fresh = made.init(KEY, pool).variables
    evaluate = jax.jit(lambda variables, rows: made.evaluate(variables, pool, rows, jnp.ones(60)))
    template = jax.eval_shape(made.model.init, KEY, pool.x[:1])
    variables = checkpoint.load_models(tmp_path, [0, 1], template)
    for m in range(2):
        sums = evaluate(jax.tree.map(lambda a, m=m: a[m], variables), rows[1 - m])
        assert sums["accuracy"] / 60 > 0.8 and sums["loss"] < evaluate(fresh, rows[1 - m])["loss"]


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="needs a net that is trained layer by layer"):
        objectives.make(model=mlp.make(num_classes=3))
    with pytest.raises(ValueError, match="no layer is left"):
        net(widths=(5,), skip_first=True)
    with pytest.raises(ValueError, match="negatives='permuted' is not one of"):
        objectives.make(model=net(), negatives="permuted")
    parts = dict(
        data=dict(name="digits"),
        design=dict(name="halves"),
        model=dict(name="forward_forward"),
        attacks={},
    )
    config = configuration.complete(
        **parts, learner=dict(name="forward_forward", objective="cross_entropy")
    )
    with pytest.raises(ValueError, match="'forward_forward' has an objective of its own"):
        build_parts.make_learner(
            config.learner.to_dict(), model=net(), num_rows=4, padded=False, labels_N=np.zeros(4)
        )
