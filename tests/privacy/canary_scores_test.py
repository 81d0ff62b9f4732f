"""Tests the white-box auditor, and audits that detect a DP-SGD that was broken on purpose.

The gradients are not clipped, the noise is divided twice, or one key is reused. The project's
private learner is broken by replacing one of its parts. It is tested together with a DP-SGD of
fifteen lines that shares no code with it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.learners import backprop
from mia_jax.models import linear
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import accounting, audit, canary_scores, gradients, noise
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.types import Learner, Pool, TrainState, classification
from tests import toys

CANARIES, FEATURES, CLASSES = 200, 300, 5
# norm of a canary: its gradient lies along itself, and hardly along the bias, which all share
SIZE = 4.0
CLAIMED = Mechanism(
    sampling="poisson",
    rate=0.1,
    clip_norm=0.05,
    noise_multiplier=4.0,
    expected_batch=20.0,
    steps=30,
)
LOSS = cross_entropy.make(model=toys.mlp())


def softmax_loss(variables, batch, *, train=False):
    del train
    logp_BC = jax.nn.log_softmax(batch.x @ variables["params"]["w"])
    return -jnp.take_along_axis(logp_BC, batch.y[:, None], 1)[:, 0], None


def dp_sgd(broken: str, inside_N) -> Learner:
    """Returns softmax regression by DP-SGD in its shortest form.

    Every row is a canary, and `inside_N` says which are in the training set.
    """
    claimed, zero = CLAIMED, dict(params=dict(w=jnp.zeros((FEATURES, CLASSES))))

    def step(state, key):
        w = state.variables["params"]["w"]
        taking, drawing = jax.random.split(jax.random.fold_in(state.key, state.step))
        loss = lambda w, x, y: -jax.nn.log_softmax(x @ w)[y]  # noqa: E731
        g = jax.vmap(jax.grad(loss), (None, 0, 0))(w, *key)
        if broken != "not clipped":
            g = g * jnp.minimum(
                1.0, claimed.clip_norm / jnp.sqrt((g**2).sum((1, 2), keepdims=True))
            )
        part = jax.random.bernoulli(taking, claimed.rate, inside_N.shape) & inside_N
        noise = (
            jax.random.normal(state.key if broken == "reused key" else drawing, w.shape)
            * claimed.noise_std_of_sum()
        )
        noise = noise / claimed.expected_batch if broken == "noise divided twice" else noise
        w = w - (jnp.tensordot(part.astype(jnp.float32), g, 1) + noise) / claimed.expected_batch
        return state._replace(step=state.step + 1, variables=dict(params=dict(w=w))), dict(
            weight=jnp.float32(1)
        )

    def epoch(state, pool, index_SB, weight_SB):
        del weight_SB
        for _ in range(index_SB.shape[0]):
            state, sums = step(state, (pool.x, pool.y))
        return state, sums

    return Learner(
        lambda key, pool: TrainState(jnp.int32(0), zero, (), key, None),
        epoch,
        None,
        None,
        1,
        None,
        None,
    )


BROKEN = {  # (module, part, what replaces it)
    "not clipped": (
        gradients,
        "clipped_sum",
        lambda real: lambda *a, clip, **how: real(*a, clip=jnp.inf, **how),
    ),
    "noise divided twice": (
        noise,
        "gaussian",
        lambda real: lambda key, tree, std: real(key, tree, std / CLAIMED.expected_batch),
    ),
    "reused key": (
        noise,
        "gaussian",
        lambda real: lambda key, tree, std: real(jax.random.key(7), tree, std),
    ),
}


def private_learner():
    """Returns (the project's learner with the claimed mechanism, its loss)."""
    model = linear.make(num_classes=CLASSES)
    loss = cross_entropy.make(model=model)
    sample = Pool(
        x=np.zeros((1, FEATURES), np.float32), y=np.zeros(1, np.int32), task=classification(CLASSES)
    )
    privacy = dict(clip_norm=CLAIMED.clip_norm, noise_multiplier=CLAIMED.noise_multiplier)
    common = dict(
        model=model,
        loss=loss,
        num_rows=CANARIES,
        epochs=3,
        batch_size=20,
        optimizer="sgd",
        learning_rate=1.0,
    )
    learner = backprop.make(**common, gradient="private", privacy=privacy, sample=sample)
    assert learner.guarantee.mechanism == CLAIMED
    return learner, loss


@functools.partial(jax.jit, static_argnames=("broken", "ours"))
def trained(seed, *, broken, ours):
    """Returns (inside_N, {attack: score_N}) of one run of the project's learner or of `dp_sgd`."""
    data, coin, run = jax.random.split(jax.random.key(seed), 3)
    x = SIZE * jax.random.normal(data, (CANARIES, FEATURES)) / np.sqrt(FEATURES)
    y = jax.random.randint(jax.random.fold_in(data, 1), (CANARIES,), 0, CLASSES)
    inside_N = jax.random.bernoulli(coin, 0.5, (CANARIES,))
    pool = Pool(x=x, y=y, task=classification(CLASSES))
    learner, loss = private_learner() if ours else (dp_sgd(broken, inside_N), softmax_loss)
    watched = canary_scores.watched(
        learner, loss=loss, x=x, y=y, clip_norm=CLAIMED.clip_norm, size=CANARIES
    )
    state = watched.init(run, pool)
    with pytest.MonkeyPatch.context() as patch:
        if ours and broken in BROKEN:
            module, part, instead = BROKEN[broken]
            patch.setattr(module, part, instead(getattr(module, part)))
        for epoch in (1, 2, 3):
            plan = jnp.zeros((10, 1), jnp.int32), jnp.zeros((10, 1))  # dp_sgd draws its own
            if ours:
                plan = learner.plan(
                    run, jnp.uint32(epoch), jnp.arange(CANARIES), inside_N.astype(jnp.float32)
                )
            state, _ = watched.epoch(state, pool, *plan)
    single = functools.partial(canary_scores._single, loss, state.variables, task=pool.task)
    loss_N = jax.vmap(single)(x, y)
    return inside_N, dict(loss=-loss_N, alignment=state.opt.alignment_C, change=state.opt.change_C)


def flagged(broken: str, seeds: int, attacks=("loss", "alignment", "change"), ours=True) -> float:
    """Returns the share of runs whose one-run bound exceeds the claim of an accountant.

    The bound is shared over the attacks.
    """
    claimed = accounting.epsilon(CLAIMED, delta=1e-5)
    assert claimed <= 1
    flags = []
    for seed in range(seeds):
        inside_N, scores = jax.device_get(trained(seed, broken=broken, ours=ours))
        tries = [(0, audit.guess(scores[name], inside_N, high=20, low=20)) for name in attacks]
        flags.append(audit.best(tries, delta=1e-5).epsilon > claimed)
    return float(np.mean(flags))


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_mechanism_is_caught_in_9_of_10_seeds(broken, ours):
    assert flagged(broken, 20, ours=ours) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
def test_an_honest_mechanism_is_flagged_in_at_most_5_percent(ours):
    assert flagged("honest", 100, ours=ours) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
def test_a_reused_key_is_seen_in_successive_updates_alone(ours):
    assert (
        flagged("reused key", 10, ("loss", "alignment"), ours) == 0
        and flagged("reused key", 10, ("change",), ours) >= 0.9
    )


@pytest.mark.slow
def test_the_private_learner_is_caught_when_it_is_broken():
    assert all(flagged(broken, 2) == 1 for broken in BROKEN) and flagged("honest", 3) == 0


@pytest.mark.slow
def test_the_sums_are_those_of_a_plain_loop_and_the_training_is_unchanged():
    pool, rows = toys.pool(20), np.arange(20, dtype=np.int32)
    plain = toys.learner(num_rows=20, optimizer="sgd")
    x, y = pool.x[:6], pool.y[:6]
    watching = canary_scores.watched(plain, loss=LOSS, x=x, y=y, clip_norm=0.3, size=4)
    start, other = plain.init(jax.random.key(1), pool), watching.init(jax.random.key(1), pool)
    index_SB, weight_SB = plain.plan(jax.random.key(2), 1, rows, np.ones(20, np.float32))
    expected, previous, state = np.zeros((2, 6)), None, start
    step = jax.jit(plain.epoch)
    gradient_of = jax.jit(
        jax.grad(
            lambda p, row: LOSS(
                {"params": p}, backprop.rows(pool, row, np.ones(1, np.float32)), train=False
            )[0][0]
        )
    )
    for s in range(len(index_SB)):
        new, _ = step(state, pool, index_SB[s : s + 1], weight_SB[s : s + 1])
        update = jax.tree.map(
            lambda a, b: a - b, state.variables["params"], new.variables["params"]
        )
        for c in range(6):
            gradient = gradient_of(state.variables["params"], np.array([c]))
            gradient, update_flat = (
                np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)])
                for t in (gradient, update)
            )
            gradient = gradient * min(1, 0.3 / np.linalg.norm(gradient))
            expected[0, c] += gradient @ update_flat
            expected[1, c] += 0 if previous is None else (gradient @ (update_flat - previous)) ** 2
        previous, state = update_flat, new
    watched, sums = jax.jit(watching.epoch)(other, pool, index_SB, weight_SB)
    np.testing.assert_allclose(watched.opt.alignment_C, expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(watched.opt.change_C, expected[1], rtol=1e-4, atol=1e-8)
    whole, total = jax.jit(plain.epoch)(start, pool, index_SB, weight_SB)
    for a, b in zip(
        jax.tree.leaves(whole.variables), jax.tree.leaves(watched.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(total["loss"], sums["loss"], rtol=1e-5)
