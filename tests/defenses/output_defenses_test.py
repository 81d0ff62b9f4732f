"""Defenses of outputs against hand-computed answers, and what an attacker gets by averaging."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from mia_jax import defenses, registry
from mia_jax.types import Probe

OUT_BC = jnp.asarray(np.random.default_rng(1).normal(size=(400, 4)) * 3, jnp.float32)


def probabilities(spec, out_BC=OUT_BC):
    return np.exp(np.asarray(defenses.make(spec).apply(out_BC), np.float64))


def test_label_only_shows_one_class():
    p_BC = probabilities("label_only", jnp.log(jnp.asarray([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])))
    np.testing.assert_allclose(p_BC, [[1e-12, 1, 1e-12], [1, 1e-12, 1e-12]], rtol=1e-5)


def test_temperature_is_the_square_root_at_2():
    p_BC = probabilities("temperature:t=2", jnp.log(jnp.asarray([[0.64, 0.36]])))
    np.testing.assert_allclose(p_BC / p_BC.sum(), [[8 / 14, 6 / 14]], rtol=1e-6)


def test_noise_has_its_scale_and_belongs_to_the_query():
    defense = defenses.make("logit_noise:scale=0.5")
    noise_BC = np.asarray(defense.apply(OUT_BC)) - log_softmax(np.asarray(OUT_BC), 1)
    assert abs(noise_BC.mean()) < 0.05 and abs(noise_BC.std() - 0.5) < 0.03
    assert abs(np.corrcoef(noise_BC[:, 0], noise_BC[:, 1])[0, 1]) < 0.15
    again = defense.apply(OUT_BC[::-1])[::-1]  # asked in another order
    np.testing.assert_array_equal(defense.apply(OUT_BC), again)
    near = defense.apply(OUT_BC + jnp.float32(1e-5) * jnp.arange(1, 5)[None])
    assert np.abs(near - defense.apply(OUT_BC)).mean() > 0.3  # noise of its own
    swapped_BC = OUT_BC[:, ::-1]  # the same numbers in other classes
    swapped = np.asarray(defense.apply(swapped_BC)) - log_softmax(np.asarray(swapped_BC), 1)
    assert np.abs(swapped - noise_BC).mean() > 0.3
    assert not np.array_equal(
        defense.apply(OUT_BC), defenses.make("logit_noise:scale=0.5,seed=1").apply(OUT_BC)
    )
    np.testing.assert_allclose(
        defenses.make("logit_noise:scale=0").apply(OUT_BC), jax.nn.log_softmax(OUT_BC)
    )


def test_optimized_memguard_moves_the_top_to_the_threshold_and_keeps_the_other_shares():
    shown = probabilities(
        "memguard_optimized:threshold=0.6", jnp.log(jnp.asarray([[0.9, 0.08, 0.02]]))
    )
    np.testing.assert_allclose(shown, [[0.6, 0.32, 0.08]], rtol=1e-5)
    raised = probabilities(
        "memguard_optimized:threshold=0.6", jnp.log(jnp.asarray([[0.4, 0.3, 0.3]]))
    )
    np.testing.assert_allclose(raised, [[0.6, 0.2, 0.2]], rtol=1e-5)
    # at 0.3 the second class (all of the rest) would overtake: both end near 1/2
    tied = probabilities(
        "memguard_optimized:threshold=0.3", jnp.log(jnp.asarray([[0.9, 0.1 - 1e-9]]))
    )
    np.testing.assert_allclose(tied, [[0.5, 0.5]], atol=2e-6)
    assert tied[0, 0] > tied[0, 1]


def test_optimized_memguard_is_a_valid_answer_with_the_same_label():
    p_BC = probabilities("memguard_optimized:threshold=0.4")
    np.testing.assert_allclose(p_BC.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(p_BC.argmax(1), np.asarray(OUT_BC).argmax(1))


def test_no_label_keeping_answer_at_the_threshold_is_nearer():
    """Random answers with the same largest probability are at least as far away."""
    p_C, rng = softmax(np.asarray(OUT_BC[0], np.float64)), np.random.default_rng(2)
    shown_C = probabilities("memguard_optimized:threshold=0.7", OUT_BC[:1])[0]
    top = p_C.argmax()
    for _ in range(200):
        other_C = np.insert(0.3 * rng.dirichlet(np.ones(3)), top, 0.7)
        assert np.abs(other_C - p_C).sum() >= np.abs(shown_C - p_C).sum() - 1e-6


def test_the_expected_distortion_stays_below_its_budget():
    true_BC = softmax(np.asarray(OUT_BC, np.float64), 1)
    shown_BC = probabilities("memguard_optimized:threshold=0.5,distortion=0.2")
    distance_B = np.abs(shown_BC - true_BC).sum(1)
    assert (distance_B < 1e-5).any() and 0.1 < distance_B.mean() < 0.22


@pytest.mark.parametrize("spec", ["label_only", "temperature:t=3", "memguard_optimized"])
def test_labels_stay(spec):
    defense = defenses.make(spec)
    assert defense.keeps_labels
    np.testing.assert_array_equal(defense.apply(OUT_BC).argmax(1), OUT_BC.argmax(1))


def test_averaged_queries_divide_the_noise_by_the_root_of_their_number():
    x_B, y_B = jnp.zeros((300, 2), jnp.float32), jnp.zeros(300, jnp.int32)
    key_B = jax.random.split(jax.random.key(0), 300)
    noisy = defenses.make("logit_noise:scale=1.0").apply

    def logits(x):
        return jnp.concatenate([x, jnp.zeros((len(x), 1), jnp.float32)], 1)

    spread = []
    for queries in (1, 64):
        signal = registry.make("signals", f"averaged:signal=logits,queries={queries}")
        out_BC = signal.ask(Probe(label=None, out=lambda x: noisy(logits(x))), x_B, y_B, key_B)
        spread.append(float(np.std(out_BC[:, 0] - out_BC[:, 1])))
    assert abs(spread[0] - np.sqrt(2)) < 0.15 and abs(spread[1] - np.sqrt(2) / 8) < 0.03
    plain = registry.make("signals", "averaged:signal=loss,queries=4")
    value_B = plain.ask(Probe(label=None, out=logits), x_B, y_B, key_B)
    np.testing.assert_allclose(value_B, np.log(3), atol=2e-3)


def test_averaging_names_signals_it_cannot_average():
    with pytest.raises(ValueError, match="asks queries of its own"):
        registry.make("signals", "averaged:signal=noise_robustness")


def test_the_guide_names_every_defense_of_outputs():
    guide = (pathlib.Path(__file__).parents[2] / "docs" / "defenses.md").read_text(encoding="utf-8")
    missing = [name for name in registry.names("defenses") if f"`{name}" not in guide]
    assert not missing
