"""Tests private training: the mechanism that is accounted is the one that runs."""

import dataclasses
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mia_jax import configuration
from mia_jax.data import digits
from mia_jax.learners import _private, backprop, stopping
from mia_jax.models import half_image, layers, lenet_bn, linear, mlp, siamese
from mia_jax.objectives import contrastive, cross_entropy
from mia_jax.pipeline import build, experiment, run
from mia_jax.privacy import accounting, gradients, noise
from mia_jax.report.sections import guarantee
from mia_jax.training import checkpoint, fleet
from mia_jax.types import Aux
from tests import toys

N = 40
POOL = toys.pool(examples=N)
FULL = dict(
    sampling="shuffle", adjacency="zero_out", delta=1e-5
)  # every row once: the whole data in one batch of 40


def learner(model=None, pool=POOL, loss=None, num_rows=N, **fields):
    model = model or mlp.make(num_classes=3, widths=(6,))
    sample = dataclasses.replace(pool, x=pool.x[:1], y=pool.y[:1])
    fields = (
        dict(
            epochs=2,
            batch_size=N,
            optimizer="sgd",
            learning_rate=1.0,
            gradient="private",
            privacy=FULL,
        )
        | fields
    )
    return backprop.make(
        model=model,
        loss=loss or cross_entropy.make(model=model),
        num_rows=num_rows,
        sample=sample,
        **fields,
    )


def one_epoch(trainee, pool=POOL, key=0, weight=None, rows=None):
    """Returns (state before, state after, sums) of one epoch."""
    rows = jnp.arange(len(pool.y)) if rows is None else rows
    before = trainee.init(jax.random.key(key), pool)
    plan = trainee.plan(
        jax.random.key(9), jnp.uint32(1), rows, jnp.ones(len(rows)) if weight is None else weight
    )
    return (before, *jax.jit(trainee.epoch)(before, pool, *plan))


def moved(before, after):
    return jax.tree.map(
        lambda a, b: np.asarray(b - a), before.variables["params"], after.variables["params"]
    )


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_without_noise_and_bound_a_step_is_the_gradient_over_the_expected_batch():
    trainee = learner(privacy=FULL | dict(clip_norm=math.inf, noise_multiplier=0.0))
    weight = jnp.ones(N).at[30:].set(0)  # 30 of 40 expected rows are real
    before, after, _ = one_epoch(trainee, weight=weight)
    loss = cross_entropy.make(model=trainee.model)
    batch = backprop.rows(POOL, jnp.arange(30), jnp.ones(30))
    of_loss = jax.grad(lambda p: loss({"params": p}, batch, train=True)[0].sum() / N)
    gradient = jax.jit(of_loss)(before.variables["params"])
    np.testing.assert_allclose(flat(moved(before, after)), -flat(gradient), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_without_noise_and_bound_training_is_ordinary_training(optimizer):
    common = dict(optimizer=optimizer, learning_rate=0.1)
    private = learner(privacy=FULL | dict(clip_norm=math.inf, noise_multiplier=0.0), **common)
    plain = learner(gradient="mean", privacy=None, plan="full_batch", **common)
    assert np.abs(flat(moved(*one_epoch(private)[:2]))).max() > 1e-3
    np.testing.assert_allclose(
        flat(moved(*one_epoch(private)[:2])), flat(moved(*one_epoch(plain)[:2])), atol=1e-5
    )


def still(model):
    """Returns a loss whose gradient is zero, so that only noise moves the network.

    Every layer is called, because a tap needs its layer.
    """

    def loss(variables, batch, *, key_B=None, train=False):
        out_BC, _ = model.apply(variables, batch.x)
        return 0.0 * out_BC.sum(1), Aux({}, {})

    return loss


def noises(clip=2.0, multiplier=1.5, adjacency="zero_out", draws=40):
    """Returns (moves of a network without gradients, standard deviation of the mechanism)."""
    model = mlp.make(num_classes=3, widths=(560,))  # 5,043 parameters: 200,000 draws
    trainee = learner(
        model=model,
        loss=still(model),
        privacy=FULL | dict(clip_norm=clip, noise_multiplier=multiplier, adjacency=adjacency),
    )
    epoch = jax.jit(trainee.epoch)
    plan = trainee.plan(jax.random.key(9), jnp.uint32(1), jnp.arange(N), jnp.ones(N))
    starts = [trainee.init(jax.random.key(k), POOL) for k in range(draws)]
    return np.concatenate(
        [flat(moved(start, epoch(start, POOL, *plan)[0])) for start in starts]
    ), trainee.guarantee.mechanism.noise_std()


def test_the_noise_is_gaussian_with_the_declared_deviation_and_a_tenth_more_or_less_is_rejected():
    moves, std = noises()
    assert std == pytest.approx(1.5 * 2.0 / N)
    assert stats.kstest(moves / std, "norm").pvalue > 1e-3
    for factor in (0.9, 1.1):
        assert stats.kstest(moves / (factor * std), "norm").pvalue < 1e-6


def test_replacing_one_takes_twice_the_noise():
    moves, std = noises(adjacency="replace_one", draws=10)
    assert std == pytest.approx(2 * 1.5 * 2.0 / N)
    assert np.std(moves) == pytest.approx(std, rel=0.02)


def test_noise_depends_on_key_and_leaf_alone():
    tree = dict(a=jnp.zeros((200, 50)), b=jnp.zeros((200, 50)))
    trainee = noise.gaussian(jax.random.key(0), tree, 1.0)
    assert np.array_equal(
        trainee["a"], noise.gaussian(jax.random.key(0), dict(a=tree["a"]), 1.0)["a"]
    )
    for other in (trainee["b"], noise.gaussian(jax.random.key(1), tree, 1.0)["a"]):
        assert abs(np.corrcoef(trainee["a"].ravel(), other.ravel())[0, 1]) < 0.04
    assert (np.asarray(noise.gaussian(jax.random.key(0), tree, 0.0)["a"]) == 0).all()
    assert "erf_inv" not in str(
        jax.make_jaxpr(lambda key: noise.gaussian(key, tree, 0.0))(jax.random.key(0))
    )  # no noise costs nothing


@pytest.mark.parametrize("shape", [(784, 25), (7,), (3, 3, 2, 5), ()])
def test_normals_are_those_of_jax_bit_for_bit(shape):
    keys = jax.random.split(jax.random.key(3), 2)
    expected = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    assert np.array_equal(jax.jit(jax.vmap(lambda key: noise.normal(key, shape)))(keys), expected)
    other = jax.random.key(3, impl="rbg")
    assert np.array_equal(noise.normal(other, shape), jax.random.normal(other, shape))


def test_box_muller_normals_are_those_of_its_formula_and_their_law_is_normal():
    key, shape = jax.random.key(3), (200, 500)
    drawn = np.asarray(jax.jit(lambda key: noise.box_muller(key, shape))(key))
    u, v = ((np.asarray(word).astype(np.float64) + 0.5) / 2**32 for word in noise.words(key, shape))
    angle = np.pi * (v - np.round(v))
    np.testing.assert_allclose(drawn, np.sqrt(-2 * np.log(u)) * np.sin(angle), atol=1e-4)
    normals = drawn.ravel().astype(np.float64)
    assert stats.kstest(normals, "norm").pvalue > 1e-3
    assert stats.kstest(1.05 * normals, "norm").pvalue < 1e-3
    for moment, expected, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((normals**moment).mean() - expected) < 4 * np.sqrt(spread / normals.size)
    beyond = (np.abs(normals) > 3.5).sum()  # 47 are expected
    assert 1e-3 < stats.poisson.cdf(beyond, normals.size * 2 * stats.norm.sf(3.5)) < 0.999
    assert abs(np.corrcoef(normals[1:], normals[:-1])[0, 1]) < 4 / np.sqrt(normals.size)
    least, most = noise._minus_two_logs(jnp.asarray([2**32 - 1, 0], jnp.uint32))
    assert least == 0 and most == pytest.approx(2 * 33 * math.log(2), rel=1e-6)
    other = noise.box_muller(jax.random.key(3, impl="rbg"), (50, 100))
    assert np.std(other) == pytest.approx(1, abs=0.05)


def test_the_choice_of_normals_is_that_of_the_step_and_a_part_of_the_hash():
    made = _private.make(num_rows=N, batch_size=N, epochs=1, normals="box_muller", **FULL)
    total = dict(a=jnp.zeros((3, 4)))
    clipped = gradients.Clipped(total, *(jnp.zeros(N),) * 4, {})
    given = dict(counted_U=jnp.ones(N, bool), real_U=jnp.ones(N, bool))
    key = jax.random.key(1)
    noisy, _, _ = made.noisy(clipped._replace(**given), key, dict(clip_norm=jnp.float32(1)))
    step = noise.leaf_key(jax.random.fold_in(key, jnp.uint32(_private.NOISE_KEY)), "a")
    std = made.guarantee.mechanism.noise_std()
    np.testing.assert_allclose(noisy["a"], std * noise.box_muller(step, (3, 4)), rtol=1e-6)
    with pytest.raises(ValueError, match="box_muller"):
        _private.make(num_rows=N, batch_size=N, epochs=1, normals="polar", **FULL)

    def recorded(normals):
        return experiment.as_recorded("learner", dict(privacy=dict(normals=normals)))

    assert recorded("inverse") == dict(privacy={})
    assert recorded("box_muller") == dict(privacy=dict(normals="box_muller"))


def test_steps_have_noise_of_their_own_whatever_the_batch():
    """The physical batch and the number of real rows do not change the noise.

    The next step draws other noise.
    """
    model = mlp.make(num_classes=3, widths=(6,))
    base = learner(model=model, loss=still(model))
    first = flat(moved(*one_epoch(base)[:2]))
    small = learner(model=model, loss=still(model), privacy=FULL | dict(physical_batch=8))
    for other, weight in ((small, None), (base, jnp.ones(N).at[1:].set(0)), (base, jnp.zeros(N))):
        np.testing.assert_allclose(
            flat(moved(*one_epoch(other, weight=weight)[:2])), first, atol=1e-7
        )
    after = one_epoch(base)[1]
    again = jax.jit(base.epoch)(
        after, POOL, *base.plan(jax.random.key(9), jnp.uint32(2), jnp.arange(N), jnp.ones(N))
    )[0]
    assert abs(np.corrcoef(first, flat(moved(after, again)))[0, 1]) < 0.4 and not np.allclose(
        first, flat(moved(after, again))
    )


def test_an_epoch_is_traced_once_whatever_is_drawn_and_equals_itself_without_jit():
    model, traces = linear.make(num_classes=3), []

    def loss(variables, batch, *, key_B=None, train=False):
        traces.append(batch.x.shape)
        return cross_entropy.make(model=model)(variables, batch, key_B=key_B, train=train)

    trainee = learner(model=model, loss=loss, batch_size=8, privacy=dict(noise_multiplier=0.0))
    state, epoch = trainee.init(jax.random.key(0), POOL), jax.jit(trainee.epoch)
    index, weight = (
        a[:1] for a in trainee.plan(jax.random.key(9), jnp.uint32(1), jnp.arange(N), jnp.ones(N))
    )
    again, _ = epoch(state, POOL, index, weight)
    seen = len(traces)
    epoch(again, POOL, index[::-1], weight.at[0].set(0))  # an empty batch
    assert len(traces) == seen
    plain, _ = trainee.epoch(state, POOL, index, weight)
    np.testing.assert_allclose(flat(plain.variables), flat(again.variables), atol=1e-6)


def test_methods_are_one_mechanism():
    expected, mechanism = None, None
    for method in ("vmap", "tapped", "bookkeeping", "scan"):
        actual = learner(privacy=FULL | dict(clip_norm=0.1, method=method))
        move = flat(moved(*one_epoch(actual)[:2]))
        if expected is None:
            expected, mechanism = move, actual.guarantee.mechanism
        np.testing.assert_allclose(move, expected, atol=1e-5, err_msg=method)
        assert actual.guarantee.mechanism == mechanism
    assert np.abs(expected).max() > 0


def test_auto_says_what_it_chose():
    tapped = learner()
    assert tapped.guarantee.method == "bookkeeping" and any(
        "bookkeeping" in note for note in tapped.guarantee.notes
    )
    assert any(
        "is not amplified" in note and "no Poisson epsilon" in note
        for note in tapped.guarantee.notes
    )  # shuffled batches
    untapped = learner(model=toys.mlp())
    assert untapped.guarantee.method == "vmap" and any(
        "has no tap" in note for note in untapped.guarantee.notes
    )


@pytest.mark.slow
def test_copies_of_an_example_are_averaged_before_clipping():
    """Three copies have different dropout, and the mean of their gradients is clipped."""
    dropped = mlp.make(num_classes=3, widths=(6,), dropout=0.5)
    actual = learner(
        model=dropped, privacy=FULL | dict(clip_norm=0.1, noise_multiplier=0.0, augmentations=3)
    )
    before, after, _ = one_epoch(actual)
    index, _ = actual.plan(jax.random.key(9), jnp.uint32(1), jnp.arange(N), jnp.ones(N))
    batch, key_B = (
        backprop.rows(POOL, index[0], jnp.ones(3 * N)),
        backprop.slot_keys(jax.random.fold_in(before.key, 0), 3 * N),
    )
    jacobian = jax.jacrev(
        lambda p: cross_entropy.make(model=dropped)({"params": p}, batch, key_B=key_B, train=True)[
            0
        ]
    )(before.variables["params"])
    mean_UP = np.concatenate(
        [np.reshape(leaf, (N, 3, -1)).mean(1) for leaf in jax.tree.leaves(jacobian)], 1
    )
    clipped_UP = mean_UP * np.minimum(1, 0.1 / np.linalg.norm(mean_UP, axis=1))[:, None]
    np.testing.assert_allclose(flat(moved(before, after)), -clipped_UP.sum(0) / N, atol=1e-6)


def test_microbatches_are_another_mechanism_of_twice_the_sensitivity():
    trainee = learner(privacy=FULL | dict(clip_norm=0.1, noise_multiplier=1.0, microbatch=4))
    mechanism = trainee.guarantee.mechanism
    assert mechanism.sensitivity == pytest.approx(0.2) and mechanism.divisor == N / 4
    assert any("not the usual per-example mechanism" in note for note in trainee.guarantee.notes)
    alike = dataclasses.replace(POOL, x=np.tile(POOL.x[:1], (N, 1)), y=np.tile(POOL.y[:1], N))
    silent = learner(
        pool=alike, privacy=FULL | dict(clip_norm=0.1, noise_multiplier=0.0, microbatch=4)
    )
    plain = learner(pool=alike, privacy=FULL | dict(clip_norm=0.1, noise_multiplier=0.0))
    np.testing.assert_allclose(
        flat(moved(*one_epoch(silent, alike)[:2])),
        flat(moved(*one_epoch(plain, alike)[:2])),
        atol=1e-6,
    )


WITHOUT_REPLACEMENT = dict(
    sampling="without_replacement", adjacency="replace_one", accountant="rdp"
)
USERS = dataclasses.replace(POOL, columns=dict(user=np.repeat(np.arange(4), 10)))


def test_a_users_rows_are_one_unit():
    """Tests four users of ten equal rows each.

    One row per step of each user moves the network as the mean over users does, for any number of
    rows.
    """
    pool = USERS
    settings = FULL | dict(clip_norm=0.05, noise_multiplier=0.0, user="user", user_rows=10)
    trainee = learner(pool=pool, batch_size=4, privacy=settings)
    assert trainee.guarantee.mechanism.unit == "user" and trainee.guarantee.mechanism.num_units == 4
    before, after, _ = one_epoch(trainee, pool)
    loss, expected = cross_entropy.make(model=trainee.model), 0.0

    @jax.jit
    @jax.grad
    def gradient_of(params, rows):
        batch = backprop.rows(pool, rows, jnp.ones(10))
        return loss({"params": params}, batch, train=True)[0].mean()

    for user in range(4):
        rows = jnp.arange(10 * user, 10 * user + 10)
        gradient = flat(gradient_of(before.variables["params"], rows))
        expected = expected + gradient * min(1, 0.05 / np.linalg.norm(gradient)) / 4
    np.testing.assert_allclose(flat(moved(before, after)), -expected, atol=1e-6)


def test_adaptive_clipping_moves_the_norm_and_its_noise():
    settings = FULL | dict(clip_norm=0.01, clipping="adaptive", quantile=0.5, count_std=3.0)
    trainee = learner(privacy=settings, epochs=1)
    _, after, sums = one_epoch(trainee)
    assert float(after.opt["clip_norm"]) > 0.01  # nearly all gradients are longer than .01
    mechanism = trainee.guarantee.mechanism
    assert mechanism.gradient_multiplier > mechanism.noise_multiplier
    np.testing.assert_allclose(
        sums["noise_multiplier"] / sums["weight"], mechanism.gradient_multiplier, rtol=1e-5
    )
    flatter = learner(
        loss=still(trainee.model), model=trainee.model, privacy=settings, epochs=1
    )  # rows without a gradient count as absent ones do
    full, empty = (
        one_epoch(flatter, weight=weight)[1].opt["clip_norm"] for weight in (None, jnp.zeros(N))
    )
    assert full == empty != np.float32(0.01)


def test_frozen_parameters_keep_every_bit_and_the_others_start_where_they_are_told():
    start = {
        "Dense_0/kernel": np.full((5, 6), 0.25, np.float32),
        "Dense_0/bias": np.full(6, 0.5, np.float32),
    }
    trainee = learner(trainable="Dense_1", initial=start)
    before, after, _ = one_epoch(trainee)
    assert (np.asarray(after.variables["params"]["Dense_0"]["kernel"]) == 0.25).all() and (
        np.asarray(after.variables["params"]["Dense_0"]["bias"]) == 0.5
    ).all()
    assert np.abs(moved(before, after)["Dense_1"]["kernel"]).max() > 0
    with pytest.raises(ValueError, match="leaves them untrained"):
        learner(trainable="Dense_1", initial={"Dense_0/kernel": start["Dense_0/kernel"]}).init(
            jax.random.key(0), POOL
        )
    with pytest.raises(ValueError, match="matches no parameter"):
        learner(trainable="nothing")


def test_the_moving_average_is_what_is_released():
    trainee = learner(ema=0.9)
    before, after, _ = one_epoch(trainee)
    decay = min(0.9, 1 / 10)  # after the first step
    expected = jax.tree.map(
        lambda a, b: decay * a + (1 - decay) * b,
        before.variables["params"],
        after.variables["params"],
    )
    np.testing.assert_allclose(flat(trainee.released(after)["params"]), flat(expected), atol=1e-6)


def test_a_budget_stops_before_the_epoch_that_would_exceed_it():
    settings = dict(noise_multiplier=1.0, epsilon=6.0, delta=1e-3)
    trainee = learner(batch_size=8, epochs=50, privacy=settings)
    assert 0 < trainee.epochs < 50
    assert (
        trainee.guarantee.epsilon(trainee.epochs)
        <= 6.0
        < trainee.guarantee.epsilon(trainee.epochs + 1)
    )
    assert any(f"after {trainee.epochs} of 50 epochs" in note for note in trainee.guarantee.notes)


@pytest.mark.slow
def test_the_noise_can_be_chosen_for_the_epochs():
    trainee = learner(
        batch_size=8, epochs=5, privacy=dict(noise_multiplier=None, epsilon=2.0, delta=1e-3)
    )
    assert trainee.epochs == 5 and 1.95 < trainee.guarantee.epsilon(5) <= 2.0


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(privacy=dict(epsilon=0.1, noise_multiplier=0.6)), "not one epoch fits"),
        (
            dict(privacy=dict(epsilon=1.0, noise_multiplier=0.0)),
            "cannot be had with noise_multiplier=0",
        ),
        (dict(privacy=dict(noise_multiplier=None)), "needs privacy.epsilon"),
        (dict(privacy=dict(clip_norm=0.0)), "clip_norm"),
        (dict(privacy=dict(clip_norm=-1.0)), "clip_norm"),
        (dict(batch_size=N + 1), "must be at most 1"),
        (dict(privacy=dict(sampling="shuffle")), "no guarantee under adjacency='add_remove'"),
        (dict(privacy=dict(noise_multipler=1.0)), "noise_multipler"),
        (dict(privacy=dict(method="taped")), "taped"),
        (dict(plan="full_batch"), "draws its own batches"),
        (dict(drop_last=True), "draws its own batches"),
        (dict(stopping=stopping.make(monitor="loss", patience=3)), "private rows without noise"),
        (
            dict(pool=USERS, batch_size=2, privacy=dict(user="user") | WITHOUT_REPLACEMENT),
            "number of users",
        ),
        (dict(padded=True, privacy=WITHOUT_REPLACEMENT), "same number of rows"),
        (dict(gradient="mean"), "learner.privacy is for gradient='private'"),
        (dict(privacy=FULL | dict(user="user")), "user"),
        (dict(privacy=FULL | dict(physical_batch=6, microbatch=4)), "multiple of microbatch"),
    ],
)
def test_what_cannot_be_is_refused(fields, words):
    with pytest.raises((ValueError, TypeError), match=words):
        learner(**fields)


def test_batch_statistics_are_refused_with_the_remedy():
    model = lenet_bn.make(num_classes=3)
    pool = dataclasses.replace(POOL, x=np.zeros((N, 28, 28, 1), np.float32))
    with pytest.raises(ValueError, match=r"batch statistics.*model.norm='group'"):
        learner(model=model, pool=pool)


class Centered(nn.Module):
    """Subtracts the mean over the batch, and keeps no statistics."""

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = layers.Dense(4)(layers.flatten(x))
        return layers.Dense(3)(jnp.tanh(x - x.mean(0, keepdims=True)))


def test_a_loss_that_mixes_examples_is_refused(monkeypatch):
    fields = dict(
        data=dict(name="synthetic", examples=100),
        design=dict(name="halves", models=2),
        attacks=dict(gap=dict()),
    )
    config = configuration.complete(
        **fields,
        model=dict(name="mlp"),
        learner=dict(gradient="private", epochs=1, privacy=dict(delta=1e-3)),
    )
    assert build.build(config.to_dict() | dict(seed=0), seed=0).learner.guarantee is not None
    monkeypatch.setattr(mlp, "make", lambda *, num_classes: layers.as_model(Centered()))
    config.model = dict(name="mlp")
    with pytest.raises(ValueError, match="depends on the other examples of its batch"):
        build.build(config.to_dict() | dict(seed=0), seed=0)


def test_taps_that_are_wanted_and_not_there_are_refused():
    with pytest.raises(ValueError, match="every parameter has a tap"):
        learner(model=toys.mlp(), privacy=FULL | dict(method="tapped"))


@pytest.mark.parametrize("name", ["balanced_pairs", "forward_forward", "least_squares"])
@pytest.mark.parametrize("private", [dict(gradient="private"), dict(privacy=dict(epsilon=1.0))])
def test_learning_rules_without_a_private_gradient_say_which_have_one(name, private):
    parts = dict(
        data=dict(name="digits"), design=dict(name="halves"), model=dict(name="siamese"), attacks={}
    )
    with pytest.raises(
        ValueError, match=rf"'{name}' has no private gradient.*learner.name='backprop'"
    ):
        configuration.complete(**parts, learner=dict(name=name) | private)


def test_pairs_cannot_be_private_and_a_net_of_halves_can_where_its_bias_needs_no_tap():
    net = siamese.make(num_classes=3, widths=(4,), embedding=2)
    with pytest.raises(ValueError, match=r"contrastive needs pairs.*balanced_pairs"):
        learner(model=net, loss=contrastive.make(model=net))
    pool = dataclasses.replace(POOL, x=np.zeros((N, 12), np.float32))
    with pytest.raises(ValueError, match="every parameter has a tap"):
        learner(
            model=half_image.make(num_classes=3), pool=pool, privacy=FULL | dict(method="tapped")
        )
    assert learner(model=half_image.make(num_classes=3), pool=pool).guarantee is not None


def test_without_noise_or_steps_a_run_says_so(tmp_path):
    silent = learner(batch_size=8, epochs=1, privacy=dict(noise_multiplier=0.0, delta=1e-3))
    trained(tmp_path / "a", silent, metrics_file=tmp_path / "metrics.jsonl")
    ran = json.loads(checkpoint.ledger_file(tmp_path / "a", 0).read_text())
    claim = silent.guarantee.claim([ran])
    assert (
        claim["epsilon"] is None
        and set(claim["others"].values()) == {None}
        and not claim["refused"]
    )
    text = guarantee.text(guarantee=claim)
    assert "No epsilon can be claimed: no accountant gives a finite epsilon" in text
    assert "No noise is added" in text
    assert (
        json.loads(
            (tmp_path / "metrics.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail
        )["epsilon"]
        is None
    )
    untrained = learner(batch_size=8, epochs=0, privacy=dict(delta=1e-3)).guarantee
    assert (
        untrained.claim([untrained.ran(steps=0, noise_multiplier=0.0, plan=untrained.plan)])[
            "epsilon"
        ]
        == 0
    )


def test_batches_of_another_plan_are_no_ground_for_an_epsilon(tmp_path):
    trainee = learner(batch_size=8, epochs=1, privacy=dict(delta=1e-3))
    other = learner(batch_size=8, epochs=1, privacy=FULL)  # shuffled batches, of the same size
    trained(tmp_path, trainee._replace(plan=other.plan))
    claim = trainee.guarantee.claim([json.loads(checkpoint.ledger_file(tmp_path, 0).read_text())])
    assert claim["epsilon"] is None and claim["refused"] == [
        "sampling: declared poisson, ran a plan that is not the mechanism's"
    ]


def test_a_large_delta_is_a_warning():
    assert any(
        "Warning: delta" in note for note in learner(privacy=FULL | dict(delta=0.5)).guarantee.notes
    )


def trained(folder, trainee, models=(0, 1), chunk=2, **more):
    rows, weight = np.tile(np.arange(N, dtype=np.int32), (2, 1)), np.ones((2, N), np.float32)
    return fleet.train(
        learner=trainee,
        program=toys.compiled(trainee, chunk=chunk),
        pool=POOL,
        rows_MK=rows,
        weight_MK=weight,
        seed=0,
        models=list(models),
        folder=folder,
        chunk=chunk,
        **more,
    )


class Stopped(Exception):
    pass


def test_a_resumed_fleet_equals_an_uninterrupted_one_and_its_ledger_is_the_mechanism(tmp_path):
    """The fleet is stopped in the second and the last epoch.

    It has all kinds of state: Adam, moving averages, and a clip norm that moves.
    """
    state = dict(optimizer="adam", learning_rate=0.01, ema=0.9)
    trainee = learner(
        batch_size=8,
        epochs=4,
        privacy=dict(delta=1e-3, clipping="adaptive", count_std=3.0),
        **state,
    )
    trained(tmp_path / "whole", trainee)
    left = [2, 4]

    def stop(models, epoch, state, metrics):
        if left and epoch == left[0]:
            raise Stopped

    while left:
        with pytest.raises(Stopped):
            trained(tmp_path / "cut", trainee, checkpoint_every=1, on_epoch=[stop])
        left.pop(0)
    trained(tmp_path / "cut", trainee, checkpoint_every=1)
    template = jax.eval_shape(trainee.model.init, jax.random.key(0), POOL.x[:1])
    whole, cut = (
        checkpoint.load_models(tmp_path / name, [0, 1], template) for name in ("whole", "cut")
    )
    assert toys.same(whole, cut)
    for name in ("whole", "cut"):
        ran = json.loads(checkpoint.ledger_file(tmp_path / name, 1).read_text())
        assert (
            ran["steps"] == trainee.guarantee.mechanism.steps == 20
            and trainee.guarantee.differences(ran) == []
        )
        claim = trainee.guarantee.claim([ran])
        assert claim["epsilon"] == pytest.approx(
            accounting.epsilon(trainee.guarantee.mechanism, delta=1e-3)
        )
        assert {"adjacency", "sampling", "accountant", "delta", "covers", "not_covered"} <= set(
            claim
        )
        for field, wrong in dict(
            noise_multiplier=0.9, steps=21, sampling="shuffle", rate=0.1
        ).items():
            refused = trainee.guarantee.claim([ran | {field: wrong}])
            assert refused["epsilon"] is None and refused["refused"], field


def test_a_private_fleet_of_two_equals_its_models_alone(tmp_path):
    """Noise and batches of a model do not depend on the other models of its chunk."""
    trainee = learner(batch_size=8, epochs=2, privacy=dict(delta=1e-3))
    template = jax.eval_shape(trainee.model.init, jax.random.key(0), POOL.x[:1])
    for chunk in (1, 2):
        trained(tmp_path / str(chunk), trainee, chunk=chunk)
    alone, together = (
        checkpoint.load_models(tmp_path / str(chunk), [0, 1], template) for chunk in (1, 2)
    )
    np.testing.assert_allclose(flat(alone), flat(together), atol=1e-5)


@pytest.mark.slow
def test_digits_are_learned_privately():
    """An MLP that is (3, 1e-4)-DP is right on most held-out digits."""
    pool = digits.load(flat=True)
    order = np.random.default_rng(0).permutation(len(pool.y))
    kept, held = jnp.asarray(order[:1400]), order[1400:]
    model = mlp.make(num_classes=10, widths=(32,))
    privacy = dict(clip_norm=0.5, noise_multiplier=1.95, delta=1e-4)
    trainee = learner(
        model=model,
        pool=pool,
        num_rows=1400,
        batch_size=140,
        epochs=20,
        learning_rate=2.0,
        privacy=privacy,
    )
    state, epoch = trainee.init(jax.random.key(0), pool), jax.jit(trainee.epoch)
    for e in range(1, trainee.epochs + 1):
        state, _ = epoch(
            state, pool, *trainee.plan(jax.random.key(1), jnp.uint32(e), kept, jnp.ones(1400))
        )
    accuracy = (model.apply(state.variables, pool.x[held])[0].argmax(1) == pool.y[held]).mean()
    assert trainee.guarantee.epsilon(20) <= 3.0 and accuracy > 0.8, accuracy


@pytest.mark.slow
def test_private_fine_tuning_starts_from_a_finished_run(tmp_path):
    """Only the last layer is trained, from a workdir; all other layers keep every bit."""
    fields = dict(
        data=dict(name="digits"),
        design=dict(name="blocks", size=60, drawn=True),
        model=dict(name="mlp", widths=(8,)),
        attacks=dict(gap=dict()),
        run=dict(chunk=2),
    )
    body = configuration.complete(**fields, learner=dict(epochs=2, batch_size=30))
    run.run(body, workdir_path=tmp_path / "body", stages_wanted=["train"])
    tuned = dict(
        epochs=1,
        batch_size=30,
        gradient="private",
        privacy=dict(delta=1e-3),
        init_from=str(tmp_path / "body"),
    )
    template = jax.eval_shape(
        mlp.make(num_classes=10, widths=(8,)).init, jax.random.key(0), jnp.zeros((1, 64))
    )
    start = checkpoint.load_models(tmp_path / "body" / "train", [0], template)["params"]
    config = configuration.complete(**fields, learner=tuned | dict(trainable="Dense_1/"))
    run.run(config, workdir_path=tmp_path / "head", stages_wanted=["train"])
    actual = checkpoint.load_models(tmp_path / "head" / "train", [0, 1], template)["params"]
    audit = build.build(config.to_dict() | dict(seed=0), seed=0)
    assert any(
        "the rows of that run is not covered" in note for note in audit.learner.guarantee.notes
    )
    for m in (0, 1):  # every model of the fleet starts from that one
        assert np.array_equal(actual["Dense_0"]["kernel"][m], start["Dense_0"]["kernel"][0])
        assert not np.array_equal(actual["Dense_1"]["kernel"][m], start["Dense_1"]["kernel"][0])


def test_metrics_carry_epsilon_and_a_model_whose_batch_overflows_has_failed(tmp_path):
    trainee = learner(batch_size=8, epochs=2, privacy=dict(delta=1e-3))
    seen = []
    trained(
        tmp_path / "a",
        trainee,
        on_epoch=[lambda m, epoch, s, metrics: seen.append(metrics["epsilon"][0])],
    )
    assert (
        seen == [trainee.guarantee.epsilon(1), trainee.guarantee.epsilon(2)]
        and 0 < seen[0] < seen[1]
    )
    narrow = trainee._replace(
        plan=lambda key, epoch, rows, weight: (
            jnp.zeros((5, 8), jnp.int32),
            jnp.full((5, 8), jnp.nan),
        )
    )
    failed = trained(tmp_path / "b", narrow)
    assert failed and all(
        "a batch of epoch 1 drew more units than it has slots" in trainee["reason"]
        for trainee in failed.values()
    )
    assert not checkpoint.finished(tmp_path / "b", list(failed))
