"""Tests gradient attacks, directions and noise on linear models, whose answers are known.

They are also compared with each other on a trained network.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.data import digits
from mia_jax.evasion import noise
from mia_jax.evasion.boundary_distance import boundary_distance
from mia_jax.evasion.carlini_wagner import carlini_wagner
from mia_jax.evasion.fgsm import fgsm
from mia_jax.evasion.hop_skip_jump import hop_skip_jump
from mia_jax.evasion.pgd import in_ball, pgd
from tests import toys


def linear(features=20, examples=40, scale=1.0, seed=0):
    """Returns (w, out, x, y, distance to the boundary in l2).

    x is well inside [0, 1] and not on the boundary.
    """
    rng = np.random.default_rng(seed)
    w = rng.normal(size=features).astype(np.float32)
    x = (0.5 + 0.1 * rng.normal(size=(4 * examples, features))).clip(0.3, 0.7).astype(np.float32)
    z = x @ w - 0.5 * w.sum()
    x, z = (a[np.abs(z) > 0.05 * np.linalg.norm(w)][:examples] for a in (x, z))
    out = lambda x: scale * jnp.stack([jnp.zeros(len(x)), x @ w - 0.5 * w.sum()], 1)  # noqa: E731
    return w, out, x, (z > 0).astype(np.int32), np.abs(z) / np.linalg.norm(w)


def keys(examples, seed=1):
    return jax.random.split(jax.random.key(seed), examples)


def right(out, x, y):
    return np.asarray(out(jnp.asarray(x)).argmax(1) == y)


def test_fgsm_of_a_linear_model_is_the_corner_of_the_cube():
    w, out, x, y, _ = linear()
    adversarial = fgsm(out, x, y, epsilon=0.05)
    np.testing.assert_allclose(
        adversarial, x + 0.05 * np.where(y == 1, -1, 1)[:, None] * np.sign(w), atol=1e-6
    )
    each = fgsm(out, x, y, epsilon=jnp.linspace(0, 0.9, len(x)))
    np.testing.assert_array_equal(each[0], x[0])
    assert each.min() == 0 and each.max() == 1  # clipped to the box
    assert fgsm(out, x, y, epsilon=0.9, box=None).min() < 0


def test_saturated_logits_are_attacked_like_others():
    _, out, x, y, distance = linear()
    _, steep, *_ = linear(
        scale=1e25
    )  # p_y is exactly 1, the cross-entropy's own gradient exactly 0
    np.testing.assert_array_equal(fgsm(steep, x, y, epsilon=0.05), fgsm(out, x, y, epsilon=0.05))
    result = carlini_wagner(steep, x[:3], y[:3], iterations=20, search_steps=2)
    assert np.isfinite(result.distance_B).all() and np.isfinite(result.adversarial).all()
    assert (result.distance_B >= distance[:3] * 0.999).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_pgd_stays_in_the_ball_and_reaches_its_edge(norm):
    w, out, x, y, _ = linear()
    adversarial = pgd(out, x, y, keys(len(x)), epsilon=0.1, norm=norm, steps=10, restarts=2)
    moved = np.asarray(adversarial) - x
    size = np.linalg.norm(moved, axis=1) if norm == "l2" else np.abs(moved).max(1)
    assert (size <= 0.1 + 1e-6).all() and adversarial.min() >= 0 and adversarial.max() <= 1
    reached = np.abs(moved @ w) / (0.1 * (np.linalg.norm(w) if norm == "l2" else np.abs(w).sum()))
    assert (reached > 0.95).all() and (
        reached < 1 + 1e-4
    ).all()  # of the largest change that the ball allows
    last = pgd(out, x, y, keys(len(x)), epsilon=0.1, norm=norm, steps=3, restarts=0, keep="last")
    edge = 0.1 * (np.linalg.norm(w) if norm == "l2" else np.abs(w).sum())
    np.testing.assert_allclose(
        np.abs((np.asarray(last) - x) @ w), edge, rtol=1e-3
    )  # straight there from x


def test_points_in_a_ball_are_uniform():
    for norm in ("l2", "linf"):
        u = np.asarray(jax.vmap(lambda key, norm=norm: in_ball(key, 3, norm))(keys(4000)))
        radius = np.linalg.norm(u, axis=1) if norm == "l2" else np.abs(u).max(1)
        assert abs((radius**3).mean() - 0.5) < 5 * np.sqrt(
            1 / 12 / 4000
        )  # the volume inside the radius is uniform on [0, 1]
        assert np.abs(u.mean(0)).max() < 5 * 0.58 / np.sqrt(4000)


def test_carlini_wagner_is_within_one_percent_of_a_linear_boundary():
    _, out, x, y, distance = linear()
    y[0] = 1 - y[0]
    result = jax.jit(lambda x, y: carlini_wagner(out, x, y))(x, y)
    assert result.distance_B[0] == 0 and result.queries_B[0] == 1 and result.found_B.all()
    ratio = result.distance_B[1:] / distance[1:]
    assert (ratio > 1 - 1e-4).all() and (ratio < 1.01).mean() >= 0.95
    assert not right(out, result.adversarial, y).any()
    np.testing.assert_allclose(
        np.linalg.norm(result.adversarial - x, axis=1), result.distance_B, atol=1e-6
    )
    assert (result.queries_B[1:] > 1000).all() and (result.queries_B <= 1 + 5 * 1000 + 12).all()


def test_carlini_wagner_counts_what_it_asks_and_an_example_does_not_wait_for_others():
    _, out, x, y, _ = linear(features=5, examples=2)
    seen = []

    def counted(x):
        jax.debug.callback(lambda _: seen.append(len(x)), x.sum())
        return out(x)

    alone = carlini_wagner(
        counted,
        x[:1],
        y[:1],
        iterations=20,
        search_steps=2,
        learning_rate=0.1,
        const=10.0,
        polish=3,
    )
    jax.effects_barrier()
    assert alone.queries_B[0] == sum(seen)
    both = carlini_wagner(
        out, x, y, iterations=20, search_steps=2, learning_rate=0.1, const=10.0, polish=3
    )
    np.testing.assert_allclose(both.distance_B[0], alone.distance_B[0], rtol=1e-4)
    assert both.queries_B[0] == alone.queries_B[0]


def test_carlini_wagner_without_an_adversarial_example():
    x = np.full((2, 3), 0.25, np.float32)
    sure = lambda x: jnp.stack([x.sum(1) * 0 + 5, x.sum(1) * 0], 1)  # noqa: E731
    result = carlini_wagner(sure, x, np.zeros(2, np.int32), iterations=10, search_steps=2)
    assert not result.found_B.any()
    np.testing.assert_allclose(result.distance_B, 0.75 * np.sqrt(3), rtol=1e-6)
    np.testing.assert_array_equal(result.adversarial, x)


@pytest.mark.parametrize("norm, order", [("l2", 2), ("linf", np.inf)])
def test_distance_along_directions(norm, order):
    w, out, x, y, _ = linear(features=4, examples=5)
    y[4] = 1 - y[4]
    u = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    label = lambda x: out(x).argmax(1)  # noqa: E731
    together = boundary_distance(label, x, y, u, reach=5.0, steps=20, norm=norm, box=None)
    unit = u / np.linalg.norm(u, ord=order, axis=1, keepdims=True)
    z_B, slope_K = x @ w - 0.5 * w.sum(), unit @ w
    exact_BK = -z_B[:, None] / slope_K[None]  # where w.(x + s u) changes sign
    crosses_BK = (exact_BK > 0) & (exact_BK <= 5)
    np.testing.assert_array_equal(together.crossed_BK[:4], crosses_BK[:4])
    np.testing.assert_allclose(
        together.distance_BK[:4], np.where(crosses_BK, exact_BK, 5)[:4], rtol=1e-4
    )
    np.testing.assert_array_equal(together.queries_B[:4], 1 + 3 + 20 * crosses_BK[:4].sum(1))
    assert (together.distance_BK[4] == 0).all() and together.queries_B[4] == 1
    each = boundary_distance(
        label, x, y, np.tile(u, (5, 1, 1)), reach=5.0, steps=20, norm=norm, box=None
    )
    np.testing.assert_array_equal(each.distance_BK, together.distance_BK)
    boxed = boundary_distance(label, x, y, u, reach=50.0, norm=norm)
    assert (boxed.distance_BK <= (2.0 if norm == "l2" else 1.0)).all()
    with pytest.raises(ValueError, match="direction has shape"):
        boundary_distance(label, x, y, u[:, :3], reach=1.0)


def test_noise_survival_is_the_normal_probability_and_its_copies_are_prefixes():
    _, out, x, y, distance = linear(examples=8)
    sigma = 0.2
    survives = lambda copies, chunk: noise.survives(  # noqa: E731
        lambda x: out(x).argmax(1),
        x,
        y,
        keys(8),
        copies=copies,
        draw=lambda key, x: noise.gaussian(key, x, sigma, None),
        chunk=chunk,
    )
    many = survives(2000, 200)
    expected = np.asarray(jax.scipy.stats.norm.cdf(distance / sigma))
    assert (np.abs(many.mean(1) - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 2000)).all()
    np.testing.assert_array_equal(survives(7, 3), many[:, :7])


def test_flips_flip_at_their_rate():
    x = np.repeat([[0.0, 1.0]], 4000, 1).astype(np.float32)[0]
    flipped = np.asarray(noise.flips(jax.random.key(0), x, 0.1))
    changed = flipped != x
    assert set(np.unique(flipped)) == {0.0, 1.0} and abs(changed.mean() - 0.1) < 4.5 * np.sqrt(
        0.09 / 8000
    )


@pytest.mark.parametrize("attack", [fgsm, pgd, carlini_wagner])
def test_bad_arguments_are_refused(attack):
    _, out, x, y, _ = linear(examples=2)
    given = (out, x + 1, y) + ((keys(2),) if attack is pgd else ())
    more = {} if attack is carlini_wagner else dict(epsilon=0.1)
    with pytest.raises(ValueError, match=r"outside box=\(0.0, 1.0\)"):
        attack(*given, **more)
    with pytest.raises(ValueError, match="at least 2 classes"):
        attack(lambda x: out(x)[:, :1], x, y, *given[3:], **more)


@pytest.mark.slow
def test_on_a_trained_network_white_box_is_nearer_than_labels_and_pgd_beats_fgsm():
    pool = digits.load(flat=False)
    model = registry.make("models", "small_cnn", dict(num_conv=1), num_classes=10)
    learner = toys.learner(num_rows=1000, model=model, epochs=8, batch_size=50, learning_rate=3e-3)
    state = learner.init(jax.random.key(0), pool)
    for epoch in range(1, 9):
        index, weight = learner.plan(
            jax.random.key(1), epoch, jnp.arange(1000, dtype=jnp.int32), jnp.ones(1000)
        )
        state, _ = jax.jit(learner.epoch)(state, pool, index, weight)
    out = lambda x: model.apply(state.variables, x)[0]  # noqa: E731
    label = lambda x: out(x).argmax(-1)  # noqa: E731
    x, y = jnp.asarray(pool.x[1000:1060]), jnp.asarray(pool.y[1000:1060])
    assert right(out, x, y).mean() > 0.85
    walk = jax.jit(lambda x, y, k: hop_skip_jump(label, x, y, k, budget=2500))(x, y, keys(60))
    best = jax.jit(lambda x, y: carlini_wagner(out, x, y))(x, y)
    assert (best.distance_B <= walk.distance_B * (1 + 1e-5)).mean() >= 0.9
    assert ((best.distance_B == 0) == ~right(out, x, y)).all() and (
        (walk.distance_B == 0) == ~right(out, x, y)
    ).all()
    for epsilon in (0.05, 0.1):
        single = right(out, fgsm(out, x, y, epsilon=epsilon), y).mean()
        iterated = right(out, pgd(out, x, y, keys(60), epsilon=epsilon, steps=20), y).mean()
        assert iterated <= single
