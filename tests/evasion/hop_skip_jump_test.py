"""Tests HopSkipJump on linear boundaries, whose distance is known.

Its queries are counted by the black box.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.evasion import hop_skip_jump as module
from mia_jax.evasion.hop_skip_jump import bisections, directions_per_iteration, hop_skip_jump

DUAL = dict(l2=2, linf=1)  # the distance to w.x = -b is |w.x + b| over the dual norm of w


def linear(features=20, examples=40, seed=0):
    """Returns (w, b, x, y) with x well inside [0, 1], so that the box does not matter."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=features).astype(np.float32)
    x = (0.5 + 0.1 * rng.normal(size=(examples, features))).clip(0.3, 0.7).astype(np.float32)
    b = np.float32(-0.5 * w.sum())
    return w, b, x, (x @ w + b > 0).astype(np.int32)


def labels(w, b):
    return lambda x: (x @ w + b > 0).astype(jnp.int32)


def keys(examples, seed=1):
    return jax.random.split(jax.random.key(seed), examples)


@pytest.mark.parametrize("norm, within", [("l2", 1.05), ("linf", 1.1)])
def test_distance_to_a_linear_boundary_at_2500_queries(norm, within):
    """A misclassified example is at distance zero, for one query."""
    w, b, x, y = linear()
    y[1] = 1 - y[1]
    result = jax.jit(lambda x, y, k: hop_skip_jump(labels(w, b), x, y, k, norm=norm, budget=2500))(
        x, y, keys(len(x))
    )
    assert result.distance_B[1] == 0 and result.queries_B[1] == 1
    assert (result.distance_SB[:, 1] == 0).all()
    np.testing.assert_array_equal(result.adversarial[1], x[1])
    right = np.arange(len(x)) != 1
    ratio = (result.distance_B * np.linalg.norm(w, DUAL[norm]) / np.abs(x @ w + b))[right]
    assert (ratio > 1 - 1e-4).all()  # nothing adversarial is nearer than the boundary
    assert (ratio < within).mean() >= 0.95
    assert (
        (result.queries_B <= 2500).all()
        and (result.queries_B[right] > 2243).all()
        and result.found_B.all()
    )
    assert (labels(w, b)(np.asarray(result.adversarial)) != y).all()
    moved = (
        np.abs(result.adversarial - x).max(1)
        if norm == "linf"
        else np.linalg.norm(result.adversarial - x, axis=1)
    )
    np.testing.assert_allclose(moved, result.distance_B, rtol=1e-5)
    assert (np.diff(result.distance_SB, axis=0) <= 0).all() and (
        np.diff(result.queries_SB[:, right], axis=0) > 0
    ).all()


def test_directions_and_bisections_are_the_formulas():
    assert (
        directions_per_iteration(iterations=10).sum() == 2243
        and directions_per_iteration(iterations=64).sum() == 34487
    )
    assert directions_per_iteration(iterations=3, evaluations=10, max_evaluations=12).tolist() == [
        10,
        12,
        12,
    ]
    assert (
        bisections(features=3072) == 18
        and bisections(features=784) == 15
        and bisections(features=784, norm="linf") == 20
    )
    assert bisections(features=784, gamma=0.01 * 784) == 12


def test_queries_are_those_the_oracle_saw():
    w, b, x, y = linear(features=6, examples=1)
    seen = []

    def oracle(x):
        seen.append(len(x))
        return np.asarray(x @ w + b > 0, np.int32)

    def label(x):
        return jax.pure_callback(oracle, jax.ShapeDtypeStruct(x.shape[:1], np.int32), x)

    result = hop_skip_jump(label, x, y, keys(1), iterations=3, evaluations=5, chunk=1)
    jax.block_until_ready(result)
    assert result.queries_B[0] == sum(seen)
    steps, n_S = bisections(features=6), directions_per_iteration(iterations=3, evaluations=5)
    spent = np.diff(result.queries_SB[:, 0]) - n_S - steps
    assert (spent >= 1).all() and result.queries_SB[
        0, 0
    ] >= 2 + steps  # at least one try of a step, one of noise


def test_a_budget_ends_a_walk_where_the_longer_one_was():
    w, b, x, y = linear(examples=5)

    def walk(**more):
        return hop_skip_jump(labels(w, b), x, y, keys(5), iterations=4, evaluations=20, **more)

    free = walk()
    budget = int(free.queries_SB[2].max())
    held = walk(budget=budget)
    assert (held.queries_B <= budget).all()
    done = (held.queries_SB[1:] > held.queries_SB[:-1]).sum(0)
    assert (done >= 1).all() and (done < 4).all()
    for i, s in enumerate(done):
        assert (
            held.distance_B[i] == free.distance_SB[s, i]
            and held.queries_B[i] == free.queries_SB[s, i]
        )
    with pytest.raises(ValueError, match=r"budget=20 queries is less than the 37"):
        walk(budget=20)


@pytest.mark.slow
def test_a_walk_depends_on_its_own_row_alone_and_not_on_the_chunk():
    w, b, x, y = linear(features=70, examples=4)

    def walk(rows, **more):
        return hop_skip_jump(
            labels(w, b), x[rows], y[rows], keys(4)[rows], iterations=2, evaluations=30, **more
        )

    both, alone, other = walk(np.arange(4)), walk(np.arange(2, 3)), walk(np.arange(4), chunk=7)
    np.testing.assert_allclose(alone.distance_SB[:, 0], both.distance_SB[:, 2], rtol=1e-4)
    np.testing.assert_allclose(other.distance_SB, both.distance_SB, rtol=1e-4)
    np.testing.assert_array_equal(other.queries_B, both.queries_B)


def test_without_another_label_the_distance_is_the_farthest_corner():
    x = linear(features=3, examples=2)[2]
    result = hop_skip_jump(
        lambda x: jnp.zeros(len(x), jnp.int32),
        x,
        np.zeros(2, np.int32),
        keys(2),
        iterations=1,
        tries=7,
    )
    np.testing.assert_allclose(
        result.distance_B, np.linalg.norm(np.maximum(x, 1 - x), axis=1), rtol=1e-6
    )
    assert not result.found_B.any() and (result.queries_B == 8).all()
    nowhere = hop_skip_jump(
        lambda x: jnp.zeros(len(x), jnp.int32),
        x,
        np.zeros(2, np.int32),
        keys(2),
        iterations=1,
        tries=7,
        box=None,
    )
    assert np.isfinite(nowhere.distance_B).all() and (nowhere.distance_B > 0).all()


def test_saturated_logits_and_a_start_that_noise_would_not_find():
    def corner(x):  # The label is 1 in a corner of volume 1e-40.
        return jnp.stack([jnp.full(len(x), 0.0), 1e30 * (x.min(1) - 0.99)], 1).argmax(1)

    x = np.full((2, 20), 0.5, np.float32)
    y = np.zeros(2, np.int32)
    lost = hop_skip_jump(corner, x, y, keys(2), iterations=2, tries=5)
    started = hop_skip_jump(corner, x, y, keys(2), iterations=2, start=np.ones_like(x))
    assert not lost.found_B.any() and started.found_B.all() and np.isfinite(lost.distance_B).all()
    np.testing.assert_allclose(started.distance_B, 0.49 * np.sqrt(20), rtol=0.01)


def test_without_a_box_points_leave_it_and_the_last_point_can_be_asked_for():
    w, b, x, y = linear(examples=4)
    b = b + 30 * (2 * y - 1).mean()  # far outside [0, 1]
    y = np.asarray(labels(w, b)(x))
    nearest = hop_skip_jump(labels(w, b), x, y, keys(4), box=None)
    np.testing.assert_allclose(nearest.distance_B, np.abs(x @ w + b) / np.linalg.norm(w), rtol=0.05)
    last = hop_skip_jump(labels(w, b), x, y, keys(4), box=None, keep="last")
    assert (last.distance_B >= nearest.distance_B).all()
    np.testing.assert_allclose(
        np.minimum.accumulate(last.distance_SB), nearest.distance_SB, rtol=1e-4
    )


@pytest.mark.slow
def test_vmap_over_models_is_one_model_after_the_other():
    w, _, x, _ = linear(examples=3)
    w_MF = np.stack([w, w[::-1]])
    b_M = -0.5 * w_MF.sum(1)

    def walk(w, b, y):
        return hop_skip_jump(labels(w, b), x, y, keys(3), iterations=2, evaluations=20)

    y_MB = np.stack([labels(w_MF[m], b_M[m])(x) for m in range(2)])
    both = jax.vmap(walk)(w_MF, b_M, y_MB)
    for m in range(2):
        alone = walk(w_MF[m], b_M[m], y_MB[m])
        np.testing.assert_allclose(both.distance_B[m], alone.distance_B, rtol=1e-3)
        np.testing.assert_array_equal(both.queries_B[m], alone.queries_B)


def test_wide_directions_have_normal_sums_and_length_one():
    u_KF = np.asarray(jax.vmap(lambda key: module._direction(key, 65, "l2"))(keys(4000)))
    np.testing.assert_allclose(np.linalg.norm(u_KF, axis=1), 1, rtol=1e-5)
    covariance = u_KF.T @ u_KF * 65 / 4000
    assert np.abs(covariance - np.eye(65)).max() < 6 / np.sqrt(4000)
    g = np.random.default_rng(0).normal(size=65)
    sums = u_KF @ g / np.linalg.norm(g) * np.sqrt(65)
    assert abs((sums**4).mean() - 3) < 6 * np.sqrt(96 / 4000)  # as kurtosis of 4,000 normals


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(x=np.full((1, 3), 1.5, np.float32)),
            r"values from 1.5 to 1.5, outside box=\(0.0, 1.0\)",
        ),
        (dict(norm="l1"), r"norm='l1' is not one of"),
        (dict(keep="first"), "keep='first' is not one of"),
        (dict(box=(1.0, 0.0)), "low < high"),
        (dict(evaluations=0), "evaluations=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    x = fields.pop("x", np.full((1, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match=message):
        hop_skip_jump(
            lambda x: jnp.zeros(len(x), jnp.int32), x, np.zeros(1, np.int32), keys(1), **fields
        )
