"""Objectives that defend, against hand-computed values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import augmentations, registry
from mia_jax.objectives import mixup
from mia_jax.types import Batch, Model, classification, regression

P_BC = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
Y_B = np.array([0, 2])
CE_B = -np.log([0.7, 0.3])
KEY_B = jax.random.split(jax.random.key(0), 2)
# logits are the variables themselves, so gradients are those with respect to logits
MODEL = Model(
    init=None,
    apply=lambda variables, x, *, key_B=None, weight_B=None, train=False: (variables + x * 0, {}),
    summary=None,
)
Z_BC = jnp.log(jnp.asarray(P_BC, jnp.float32))


def batch(weight=(1.0, 1.0), x=None):
    return Batch(
        x=jnp.zeros((2, 3), jnp.float32) if x is None else x,
        y=jnp.asarray(Y_B),
        task=classification(3),
        weight_B=jnp.asarray(weight, jnp.float32),
        index_B=jnp.arange(2),
    )


def measured(name, *, train=True, key_B=KEY_B, weight=(1.0, 1.0), **fields):
    """Returns (loss_B, gradient of their sum with respect to the logits)."""
    loss = registry.make("objectives", name, fields, model=MODEL)

    def total(z):
        loss_B, _ = loss(z, batch(weight), key_B=key_B, train=train)
        return loss_B.sum(), loss_B

    (_, loss_B), gradient = jax.value_and_grad(total, has_aux=True)(Z_BC)
    return np.asarray(loss_B), np.asarray(gradient)


def test_confidence_penalty_subtracts_entropy():
    entropy_B = -(P_BC * np.log(P_BC)).sum(1)
    loss_B, _ = measured("confidence_penalty", strength=0.5)
    np.testing.assert_allclose(loss_B, CE_B - 0.5 * entropy_B, rtol=1e-5)
    np.testing.assert_allclose(measured("confidence_penalty", strength=0.0)[0], CE_B, rtol=1e-5)


def test_relax_loss_descends_ascends_or_flattens():
    """The mean loss is 0.78; the gradient of ce is p - onehot(y), of the flat one p - t."""
    down = P_BC - np.eye(3)[Y_B]
    flat_BC = np.array([[0.7, 0.15, 0.15], [0.35, 0.35, 0.3]])
    for mean in ("batch", "example"):
        loss_B, gradient = measured("relax_loss", alpha=0.2, mean=mean)
        np.testing.assert_allclose(loss_B, CE_B, rtol=1e-5)
        np.testing.assert_allclose(gradient, down, atol=1e-6)
    seen = set()
    for seed in range(20):
        key_B = jax.random.split(jax.random.key(seed), 2)
        loss_B, gradient = measured("relax_loss", alpha=1.0, key_B=key_B)
        np.testing.assert_allclose(loss_B, CE_B, rtol=1e-5)
        ascends = np.allclose(gradient, -down, atol=1e-6)
        assert ascends or np.allclose(gradient, P_BC - flat_BC, atol=1e-6)
        seen.add(ascends)
    assert seen == {True, False}
    # the first example is below 0.8, the second one above: only the first one is relaxed
    gradient = measured("relax_loss", alpha=0.8, mean="example")[1]
    np.testing.assert_allclose(gradient[1], down[1], atol=1e-6)
    assert not np.allclose(gradient[0], down[0], atol=1e-3)
    np.testing.assert_allclose(measured("relax_loss", alpha=1.0, train=False)[1], down, atol=1e-6)


def test_padding_does_not_count_in_the_mean_of_relax_loss():
    """Of the first row alone the mean is 0.36 and the step descends at alpha = 0.3."""
    _, gradient = measured("relax_loss", alpha=0.3, weight=(1.0, 0.0))
    np.testing.assert_allclose(gradient[0], (P_BC - np.eye(3)[Y_B])[0], atol=1e-6)


def test_mixup_mixes_examples_and_labels_with_the_same_weight():
    w_B, partner_B = mixup.drawn(KEY_B, jnp.ones(2), 1.0)
    x = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    linear = MODEL._replace(apply=lambda v, x, **_: (x * v, {}))
    loss_B, _ = registry.make("objectives", "mixup", {}, model=linear)(
        jnp.float32(1), batch(x=x), key_B=KEY_B, train=True
    )
    w, other = np.asarray(w_B)[:, None], np.asarray(partner_B)
    mixed = w * np.asarray(x) + (1 - w) * np.asarray(x)[other]
    log_BC = mixed - np.log(np.exp(mixed).sum(1, keepdims=True))
    rows = np.arange(2)
    expected = -(w_B * log_BC[rows, Y_B] + (1 - w_B) * log_BC[rows, Y_B[other]])
    np.testing.assert_allclose(loss_B, expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, pytest.param(2.0, marks=pytest.mark.slow)])
def test_mixup_never_mixes_with_padding_and_draws_beta_weights(alpha):
    key_B = jax.random.split(jax.random.key(3), 500)
    weight_B = jnp.asarray([1.0, 0.0] * 250)
    w_B, partner_B = jax.jit(mixup.drawn, static_argnums=2)(key_B, weight_B, alpha)
    assert (np.asarray(partner_B) % 2 == 0).all() and len(set(np.asarray(partner_B))) > 100
    # the mean is 1/2 and the variance 1 / (4 (2 alpha + 1))
    assert abs(float(w_B.mean()) - 0.5) < 0.04
    assert abs(float(w_B.var()) - 1 / (4 * (2 * alpha + 1))) < 0.012


def test_evaluation_is_cross_entropy():
    for name in ("mixup", "relax_loss"):
        np.testing.assert_allclose(measured(name, train=False, key_B=None)[0], CE_B, rtol=1e-5)


def test_cutout_sets_a_square_to_zero():
    x = jnp.ones((1, 6, 5, 2), jnp.float32)
    apply = augmentations.make(["cutout:size=2"])
    counts = set()
    for seed in range(30):
        image = np.asarray(apply(x, jax.random.split(jax.random.key(seed), 1)))[0]
        zero = image[..., 0] == 0
        np.testing.assert_array_equal(image[..., 0], image[..., 1])
        rows, columns = zero.any(1).sum(), zero.any(0).sum()
        assert zero.sum() == rows * columns and 1 <= rows <= 2 and 1 <= columns <= 2
        counts.add(int(zero.sum()))
    assert counts <= {1, 2, 4} and 4 in counts
    np.testing.assert_array_equal(
        augmentations.make(["cutout:size=0"])(x, jax.random.split(jax.random.key(0), 1)), x
    )


@pytest.mark.parametrize("name", ["confidence_penalty", "relax_loss", "mixup"])
def test_other_tasks_are_refused(name):
    loss = registry.make("objectives", name, {}, model=MODEL)
    wrong = Batch(
        x=jnp.zeros((2, 3)), y=jnp.zeros(2), task=regression(), weight_B=jnp.ones(2), index_B=None
    )
    with pytest.raises(ValueError, match=f"the objective '{name}'"):
        loss(Z_BC, wrong, key_B=KEY_B, train=True)
