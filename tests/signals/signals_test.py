"""Signals against float64 textbook forms, at saturation, and under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log1p, log_softmax, logsumexp, softmax

from mia_jax.signals import (
    confidence,
    correct,
    entropy,
    hinge,
    logits,
    loss,
    max_confidence,
    modified_entropy,
    rescaled_logit,
    squared_loss,
)
from mia_jax.types import regression
from tests import toys


def naive(name: str, z_BC: np.ndarray, y_B: np.ndarray) -> np.ndarray:
    """The definitions as printed in the papers, in float64."""
    z_BC = z_BC.astype(np.float64)
    at = np.arange(len(y_B)), y_B
    p_BC, log_p_BC, label_BC = (
        softmax(z_BC, -1),
        log_softmax(z_BC, -1),
        np.eye(z_BC.shape[1], dtype=bool)[y_B],
    )
    others_BC = np.where(label_BC, -np.inf, z_BC)
    log_rest_BC = np.stack(
        [logsumexp(np.delete(log_p_BC, i, 1), axis=1) for i in range(z_BC.shape[1])], 1
    )  # log(1 - p_i)
    return dict(
        loss=-log_p_BC[at],
        confidence=p_BC[at],
        max_confidence=p_BC.max(1),
        rescaled_logit=z_BC[at] - logsumexp(others_BC, axis=1),
        entropy=-(p_BC * log_p_BC).sum(1),
        modified_entropy=-(1 - p_BC[at]) * log_p_BC[at]
        - np.where(label_BC, 0, p_BC * log_rest_BC).sum(1),
        hinge=z_BC[at] - others_BC.max(1),
        correct=(z_BC.argmax(1) == y_B).astype(float),
        logits=z_BC,
        squared_loss=np.square(p_BC - label_BC).sum(1),
    )[name]


MAKERS = dict(
    loss=loss,
    confidence=confidence,
    max_confidence=max_confidence,
    rescaled_logit=rescaled_logit,
    entropy=entropy,
    modified_entropy=modified_entropy,
    hinge=hinge,
    correct=correct,
    logits=logits,
    squared_loss=squared_loss,
)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_signal_equals_its_definition(name, classes, scale):
    rng = np.random.default_rng(classes)
    z_BC = (rng.normal(size=(200, classes)) * scale).astype(np.float32)
    y_B = rng.integers(classes, size=200).astype(np.int32)
    np.testing.assert_allclose(
        MAKERS[name].make().measure(jnp.asarray(z_BC), toys.examples(y_B)),
        naive(name, z_BC, y_B),
        rtol=3e-6,
        atol=1e-6,
    )


GAPS = np.array([5.0, 15.0, 17.5, 20.0, 40.0, 80.0], np.float32)


def saturated(sign: int) -> tuple[jax.Array, jax.Array]:
    """Two classes whose logits are GAPS apart, the label ahead (sign 1) or behind (-1)."""
    return jnp.stack([sign * jnp.asarray(GAPS), jnp.zeros(len(GAPS))], 1), jnp.zeros(
        len(GAPS), jnp.int32
    )


def asked(sign: int):
    """The logits of `saturated` and the examples that they answer."""
    z_BC, y_B = saturated(sign)
    return z_BC, toys.examples(y_B)


@pytest.mark.parametrize(
    "name, ahead, behind",
    [
        ("loss", log1p(np.exp(-GAPS.astype(float))), GAPS + log1p(np.exp(-GAPS.astype(float)))),
        ("rescaled_logit", GAPS, -GAPS),
        ("hinge", GAPS, -GAPS),
        ("confidence", expit(GAPS.astype(float)), expit(-GAPS.astype(float))),
        ("max_confidence", expit(GAPS.astype(float)), expit(GAPS.astype(float))),
        ("entropy", *[log1p(np.exp(-GAPS.astype(float))) + GAPS * expit(-GAPS.astype(float))] * 2),
        (
            "modified_entropy",
            2 * expit(-GAPS.astype(float)) * log1p(np.exp(-GAPS.astype(float))),
            2 * expit(GAPS.astype(float)) * log1p(np.exp(GAPS.astype(float))),
        ),
    ],
)
def test_saturated_two_class_values_are_exact_not_ties(name, ahead, behind):
    measure = MAKERS[name].make().measure
    tiny = np.finfo(np.float32).tiny  # below it float32 rounds to 0
    for sign, expected in ((1, ahead), (-1, behind)):
        np.testing.assert_allclose(measure(*asked(sign)), expected, rtol=1e-6, atol=tiny)


def test_plain_float32_would_tie_where_the_loss_does_not():
    z_BC, y_B = saturated(1)
    plain = jax.nn.logsumexp(z_BC, -1) - z_BC[:, 0]
    assert (np.asarray(plain)[3:] == 0).all()
    assert len(set(np.asarray(loss.make().measure(z_BC, toys.examples(y_B))).tolist())) == len(GAPS)


@pytest.mark.parametrize("name", MAKERS)
def test_finite_for_logits_10000_apart(name):
    z_BC = jnp.array(
        [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, -1e4], [-1e4, -1e4, -1e4]],
        jnp.float32,
    )
    for label in range(3):
        value = np.asarray(
            MAKERS[name].make().measure(z_BC, toys.examples(jnp.full(5, label, jnp.int32)))
        )
        assert np.isfinite(value).all()
        np.testing.assert_allclose(
            value, naive(name, np.asarray(z_BC), np.full(5, label)), rtol=1e-5, atol=1e-6
        )


def test_many_classes_and_large_shifts_do_not_cancel():
    rng = np.random.default_rng(0)
    z_BC = (9000 + rng.normal(size=(50, 200))).astype(np.float32)
    y_B = rng.integers(200, size=50).astype(np.int32)
    for name in ("loss", "rescaled_logit", "entropy", "modified_entropy"):
        np.testing.assert_allclose(
            MAKERS[name].make().measure(jnp.asarray(z_BC), toys.examples(y_B)),
            naive(name, z_BC, y_B),
            rtol=1e-5,
        )


def test_confident_mistake_has_large_modified_entropy():
    z_BC = jnp.array([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0]])
    right, wrong = modified_entropy.make().measure(z_BC, toys.examples(jnp.zeros(2, jnp.int32)))
    assert right < 0.01 and wrong > 10
    plain = entropy.make().measure(z_BC, toys.examples(jnp.zeros(2, jnp.int32)))
    np.testing.assert_allclose(plain[0], plain[1], rtol=1e-6)


def test_a_tie_goes_to_the_lowest_class():
    z_BC = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert correct.make().measure(z_BC, toys.examples([0, 1, 0])).tolist() == [1.0, 0.0, 1.0]


def test_half_precision_logits_are_measured_in_float32():
    z_BC = jnp.array([[3.0, 1.0, -2.0]], jnp.float16)
    assert loss.make().measure(z_BC, toys.examples([1])).dtype == jnp.float32


@pytest.mark.parametrize("name", ["loss", "rescaled_logit", "hinge", "entropy"])
def test_one_output_is_refused(name):
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        MAKERS[name].make().measure(jnp.zeros((3, 1)), toys.examples(jnp.zeros(3, jnp.int32)))


# Regression
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [loss, squared_loss])
def test_the_loss_of_a_regression_is_its_squared_error(maker):
    value = maker.make().measure(
        jnp.array([[1.0], [-2.0]]), toys.examples([3.0, -2.5], task=regression())
    )
    np.testing.assert_allclose(value, [4.0, 0.25])
    assert value.dtype == jnp.float32


@pytest.mark.parametrize(
    "name", [name for name in MAKERS if name not in ("loss", "squared_loss", "logits")]
)
def test_signals_of_classes_refuse_one_output(name):
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        MAKERS[name].make().measure(jnp.ones((3, 1)), toys.examples(jnp.ones(3), task=regression()))


@pytest.mark.parametrize("name", ["loss", "squared_loss"])
def test_one_output_and_class_labels_do_not_fit(name):
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        MAKERS[name].make().measure(jnp.ones((3, 1)), toys.examples(jnp.ones(3, jnp.int32)))
