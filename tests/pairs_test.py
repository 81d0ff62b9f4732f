"""Pairs, contrastive losses, the half-image net and least squares: hand-computable cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.learners import balanced_pairs, least_squares
from mia_jax.models import half_image, linear, siamese
from mia_jax.objectives import contrastive
from mia_jax.types import Batch, Pool


def test_every_batch_is_half_of_one_class_and_half_of_two_from_training_rows_alone():
    labels_N = np.repeat(np.arange(5), 8).astype(np.int32)
    rows_K, weight_K = jnp.arange(10, 40), jnp.ones(30).at[-4:].set(0)
    plan = balanced_pairs.balanced(labels_N=labels_N, steps=6, batch_size=16)
    index_SB2, weight_SB = plan(jax.random.key(1), 3, rows_K, weight_K)
    assert index_SB2.shape == (6, 16, 2) and (weight_SB == 1).all()
    assert index_SB2.min() >= 10 and index_SB2.max() < 36  # neither foreign rows nor padding
    same_SB = labels_N[index_SB2[..., 0]] == labels_N[index_SB2[..., 1]]
    assert (same_SB.sum(1) == 8).all()
    assert (index_SB2[..., 0] != index_SB2[..., 1]).all()


@pytest.mark.parametrize("form, different", [("exponential", 2.0), ("margin", 0.5)])
def test_a_contrastive_loss_at_distance_zero_has_its_value_and_a_finite_gradient(form, different):
    model = siamese.make(num_classes=3)
    loss = contrastive.make(model=model, form=form, head=False)
    x = jnp.ones((2, 2, 6))
    variables = model.init(jax.random.key(0), x[:1, 0])
    batch = Batch(x=x, y=jnp.array([[1, 1], [0, 2]]), weight_B=jnp.ones(2), index_B=jnp.zeros((2, 2), jnp.int32))
    loss_B, _ = loss(variables, batch)
    np.testing.assert_allclose(loss_B, [0.0, different], atol=1e-5)
    gradient = jax.grad(lambda v: loss(v, batch)[0].sum())(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_collapsed_net_on_pairs_of_which_nearly_all_are_of_one_class_seems_right():
    """With 26 different pairs in 1,000 a net that maps everything to one point scores .974, and its loss is 2 (1 - accuracy)."""
    different_B = (np.arange(1000) < 26).astype(np.float32)
    square_B = np.zeros(1000)
    loss_B = (1 - different_B) * 2 * square_B + different_B * 2 * np.exp(-2.77 * np.sqrt(square_B))
    accuracy = np.mean((np.sqrt(square_B) >= 1) == (different_B > 0))
    assert accuracy == pytest.approx(0.974) and loss_B.mean() == pytest.approx(2 * (1 - accuracy))


def test_the_half_image_net_is_a_linear_classifier_of_the_sum_of_the_halves():
    model = half_image.make(num_classes=10)
    x = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    variables = model.init(jax.random.key(1), x)
    variables["params"]["bias"] = jnp.arange(10.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 3930
    half_BF = x[:, :14].reshape(3, -1) + x[:, 14:].reshape(3, -1)
    np.testing.assert_allclose(model.apply(variables, x)[0], half_BF @ variables["params"]["shared"]["kernel"] + jnp.arange(10.0)[None], rtol=1e-5)


def test_least_squares_equals_lstsq_with_a_column_of_ones_and_ridge_its_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 4, 40).astype(np.int32)
    weight_K = (np.arange(40) < 33).astype(np.float32)
    pool = Pool(x=jnp.asarray(x), y=jnp.asarray(y), num_classes=4)
    ones_KF, onehot_KC = np.c_[x[:33], np.ones(33)], np.eye(4)[y[:33]]
    for ridge in (0.0, 2.0):
        model = linear.make(num_classes=4)
        learner = least_squares.make(model=model, num_rows=40, ridge=ridge)
        state, _ = learner.epoch(learner.init(jax.random.key(0), pool), pool, jnp.arange(40)[None], jnp.asarray(weight_K)[None])
        penalty = ridge * np.diag([1.0, 1, 1, 0])  # the column of ones is free
        solution = np.linalg.solve(ones_KF.T @ ones_KF + penalty, ones_KF.T @ onehot_KC)
        out = model.apply(state.variables, jnp.asarray(x))[0]
        np.testing.assert_allclose(out, np.c_[x, np.ones(40)] @ solution, atol=1e-5)


def test_least_squares_refuses_a_net_whose_last_layer_it_cannot_solve():
    model = registry.make("models", "half_image", {}, num_classes=3)
    pool = Pool(x=jnp.ones((4, 6)), y=jnp.zeros(4, jnp.int32), num_classes=3)
    with pytest.raises(ValueError, match="last layer"):
        least_squares.make(model=model, num_rows=4).init(jax.random.key(0), pool)
