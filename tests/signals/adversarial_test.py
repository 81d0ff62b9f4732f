"""Adversarial training, the signals of adversarial examples, and their section of the report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.measures import evasion
from mia_jax.objectives import adversarial, cross_entropy
from mia_jax.query import interactive
from mia_jax.report.sections import evasion as section
from mia_jax.runtime import files
from mia_jax.signals._adversarial import EPSILONS
from tests import toys


def setup(examples=6):
    model = toys.mlp(num_classes=3, width=16)
    x = np.random.default_rng(0).random((examples, 2, 2, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    y = np.asarray(model.apply(variables, x)[0].argmax(1), np.int32)
    batch = toys.batch(jnp.asarray(x), jnp.asarray(y))
    return model, variables, batch, jax.random.split(jax.random.key(1), examples)


@pytest.mark.parametrize("fields", [dict(), dict(steps=3), dict(steps=2, norm="l2", epsilon=0.3)])
def test_the_adversarial_loss_is_larger_in_training_and_the_plain_one_in_evaluation(fields):
    model, variables, batch, key_B = setup()
    loss, plain = adversarial.make(model=model, **fields), cross_entropy.make(model=model)
    clean_B, _ = plain(variables, batch)
    worst_B, aux = loss(variables, batch, key_B=key_B, train=True)
    assert (worst_B > clean_B).all() and aux.metrics["accuracy"].shape == (6,)
    np.testing.assert_array_equal(loss(variables, batch)[0], clean_B)
    example = jax.tree.map(lambda a: a[2:3], batch)
    np.testing.assert_allclose(
        loss(variables, example, key_B=key_B[2:3], train=True)[0][0], worst_B[2], rtol=1e-5
    )  # its own key, its own point
    nothing = adversarial.make(model=model, epsilon=0.0)
    np.testing.assert_allclose(
        nothing(variables, batch, key_B=key_B, train=True)[0], clean_B, rtol=1e-6
    )


def test_bad_fields_of_the_objective_are_refused():
    model = toys.mlp()
    for fields, message in (
        (dict(epsilon=-1.0), "epsilon=-1.0"),
        (dict(norm="l1"), "norm='l1'"),
        (dict(box="all"), "box='all'"),
        (dict(steps=0), "steps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            adversarial.make(model=model, **fields)


def test_the_signals_curves_fall_and_images_outside_the_unit_box_are_refused():
    model, variables, batch, key_B = setup()
    for name in ("correct_under_fgsm", "correct_under_pgd:steps=4"):
        signal = registry.make("signals", name)
        value_BE = np.asarray(
            signal.ask(
                interactive.probe_of(model, variables, signal=signal), batch.x, batch.y, key_B
            )
        )
        assert value_BE.shape == (6, len(EPSILONS)) and (value_BE[:, 0] == 1).all()
        assert value_BE.mean(0)[-1] < 1 and (np.diff(value_BE.mean(0)) <= 0).all()
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            signal.check(np.asarray(batch.x) + 1)


def test_the_report_averages_each_side_and_finds_the_crossing(tmp_path):
    value_NE = np.array(
        [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [0] * 8],
        np.float32,
    )
    files.write_npy(interactive.signal_file(tmp_path, "correct_under_fgsm", 3), value_NE[None])
    sides = dict(member_TN=[[True, False, False, True]], evaluated_TN=[[True, True, True, False]])
    curves = evasion.measure(tmp_path, ["loss", "correct_under_fgsm"], models=[3], **sides)
    assert list(curves) == ["correct_under_fgsm"]
    curve = curves["correct_under_fgsm"]
    assert curve["members"] == [1.0] * 8 and curve["nonmembers"] == [1.0, 0.5, 0, 0, 0, 0, 0, 0]
    assert curve["crossing"] == pytest.approx((1 + 0.168 / 0.5) / 255, abs=1e-5)
    assert "Accuracy under evasion attacks" in section.text(evasion=curves)
    assert evasion.crossing([0, 1, 2], [0.9, 0.8, 0.7], 0.332) is None
