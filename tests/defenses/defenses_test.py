"""Defenses at query time: what they show, who is behind them, and what they leave unchanged bit for
bit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mia_jax import configuration, defenses, registry
from mia_jax.designs import blocks, halves
from mia_jax.pipeline import build_attacks, validate
from mia_jax.pipeline.run import run
from mia_jax.query import interactive
from mia_jax.types import Attack
from tests import toys

OUT_BC = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)) * 3, jnp.float32)


def probabilities(spec, out_BC=OUT_BC):
    return np.exp(np.asarray(defenses.make(spec).apply(out_BC), np.float64))


def test_memguard_shows_the_label_and_nothing_else():
    p_BC = probabilities("memguard")
    np.testing.assert_allclose(p_BC.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(p_BC.argmax(1), OUT_BC.argmax(1))
    top_B, rest_B = p_BC.max(1), np.sort(p_BC, 1)[:, :-1]
    np.testing.assert_allclose(top_B, 0.251, rtol=1e-6)
    np.testing.assert_allclose(rest_B, 0.25 - 1e-3 / 3, rtol=1e-6)


def test_top_k_shares_the_rest_and_keeps_the_label():
    true_BC, p_BC = softmax(np.asarray(OUT_BC, np.float64), 1), probabilities("top_k:k=2")
    for true_C, p_C in zip(true_BC, p_BC, strict=True):
        order = np.argsort(-true_C)
        np.testing.assert_allclose(p_C[order[:2]], true_C[order[:2]], rtol=1e-4)
        np.testing.assert_allclose(p_C[order[2:]], true_C[order[2:]].mean(), rtol=1e-4)
    ties = jnp.zeros((1, 4))
    np.testing.assert_allclose(probabilities("top_k:k=1", ties), 0.25, rtol=1e-6)
    assert all(defenses.make("top_k:k=4").apply(OUT_BC).argmax(1) == OUT_BC.argmax(1))


def test_rounding_rounds_probabilities():
    np.testing.assert_allclose(
        probabilities("rounding:digits=1"),
        np.maximum(np.round(softmax(np.asarray(OUT_BC), 1), 1), 1e-12),
        rtol=1e-5,
    )
    assert np.isfinite(defenses.make("rounding:digits=0").apply(jnp.asarray([[90.0, 0.0]]))).all()


@pytest.mark.parametrize(
    "spec, text",
    [
        ("mask", "defenses: there is no 'mask'.*Known: .*memguard, .*rounding, .*top_k"),
        ("top_k:m=1", "no field 'm'"),
        ("top_k:k=x", "k=x: it must be a whole number"),
    ],
)
def test_messages_name_the_wrong_defense(spec, text):
    with pytest.raises(ValueError, match=text):
        defenses.make(spec)


def test_label_only_signals_keep_their_files_and_others_get_their_own():
    assert build_attacks.defended("correct", "memguard") == "correct"
    assert (
        build_attacks.defended("boundary_distance:iterations=3", "memguard")
        == "boundary_distance:iterations=3"
    )
    assert (
        build_attacks.defended("loss", "memguard") == "loss@memguard"
        and build_attacks.defended("correct", "rounding") == "correct@rounding"
    )
    assert (
        registry.identity("signals", "correct_under_shift@rounding:digits=1")
        == "correct_under_shift:d=1@rounding:digits=1"
    )


def test_a_defense_of_only_the_target_needs_targets_that_are_never_shadows():
    def check(sections, design):
        planned = build_attacks.plan_attacks(dict(a=Attack(None, ("loss",))), sections, seed=0)
        validate.check_defenses(planned, design=design)

    sections = dict(a=dict(defense="memguard", adaptive=False))
    design = halves.make(num_examples=40, seed=0, models=4)
    with pytest.raises(
        ValueError,
        match=r"attack 'a': defense='memguard' of the target only .* 'halves' .* adaptive=True",
    ):
        check(sections, design=design)
    check(dict(a=dict(defense="memguard", adaptive=True)), design=design)
    check(sections, design=blocks.make(num_examples=40, seed=0, size=10))
    with pytest.raises(ValueError, match="adaptive=True without a defense"):
        check(dict(a=dict(adaptive=True)), design=design)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Audits a target and a source on digits.

    Every attack runs without, behind, and adapted to MemGuard.
    """
    threshold = dict(name="threshold")
    plain = dict(
        gap=dict(name="gap"),
        max_confidence=dict(threshold, signal="max_confidence"),
        confidence=dict(threshold, signal="confidence"),
        loss=dict(threshold, signal="loss"),
        shift=dict(name="lookup"),
        boundary=dict(threshold, signal="boundary_distance:iterations=1,evaluations=5"),
        outlier=dict(name="outlier", beta=0.05),
    )
    sections = {
        n + end: a | more
        for n, a in plain.items()
        for end, more in (("", {}), ("_behind", dict(defense="memguard")))
    }
    sections["confidence_adaptive"] = dict(
        threshold, signal="confidence", defense="memguard", adaptive=True
    )
    config = configuration.complete(
        data=dict(name="digits", flat=False),
        design=dict(name="blocks", size=100, scored=40, drawn=True),
        model=dict(name="mlp", widths=(32,)),
        learner=dict(epochs=60, batch_size=20, learning_rate=3e-3),
        attacks=sections,
        report=dict(figures=False, slices=()),
        run=dict(chunk=1),
    )
    folder = tmp_path_factory.mktemp("audited")
    return run(config, workdir_path=folder), folder


def row(report, attack, metric, target=None):
    return next(
        r
        for r in report["results"]
        if (r["attack"], r["metric"], r["target"], r["slice"]) == (attack, metric, target, "all")
    )


def test_confidence_at_the_undefended_threshold_is_guessing_and_the_gap_attack_is_what_is_left(
    audited,
):
    report, _ = audited
    assert row(report, "max_confidence_behind", "balanced_accuracy")["value"] == 0.5
    for name in (
        "confidence_behind",
        "loss_behind",
        "confidence_adaptive",
    ):  # p_y is a function of correctness
        assert row(report, name, "auc")["value"] == pytest.approx(
            row(report, "gap", "auc")["value"], abs=1e-12
        )
    gap = row(report, "gap", "balanced_accuracy")["value"]
    assert row(report, "confidence_adaptive", "balanced_accuracy")["value"] == pytest.approx(
        gap, abs=1e-12
    )
    assert row(report, "confidence", "auc")["value"] > row(report, "gap", "auc")["value"]


def test_label_only_attacks_are_unchanged_to_the_bit(audited):
    report, folder = audited
    for name in ("gap", "shift", "boundary", "outlier"):
        plain, behind = (
            np.load(folder / "attack" / n / "scores.npz")["score_TN"]
            for n in (name, f"{name}_behind")
        )
        np.testing.assert_array_equal(plain, behind)
        for metric in ("auc", "balanced_accuracy"):
            assert (
                row(report, name, metric)["value"] == row(report, f"{name}_behind", metric)["value"]
            )
    assert (
        not list((folder / "signal").glob("boundary*@*"))
        and (folder / "signal" / "loss@memguard").is_dir()
    )


def test_the_source_answers_undefended_unless_the_attacker_adapts(audited):
    _, folder = audited
    loss = [
        np.load(folder / "attack" / n / "scores.npz")["score_TN"] for n in ("loss", "loss_behind")
    ]
    np.testing.assert_array_equal(loss[0][1], loss[1][1])
    assert len(np.unique(loss[1][0][~np.isnan(loss[1][0])])) == 2
    adaptive = np.load(folder / "attack" / "confidence_adaptive" / "scores.npz")["score_TN"]
    assert len(np.unique(adaptive[1][~np.isnan(adaptive[1])])) == 2
    asked = [p.name for p in sorted((folder / "signal" / "embedding@memguard").glob("*.npy"))]
    assert asked == [
        "00000.npy"
    ]  # the source is not asked behind the target's defense, and nothing misses its answers


def test_the_defense_applied_to_the_model_keeps_label_only_answers():
    """Checks an assumption of the files: a walk through defended outputs equals the plain walk."""
    model = toys.mlp(num_classes=3, width=16)
    x_B = jnp.asarray(np.random.default_rng(0).random((5, 4, 4, 1)), jnp.float32)
    variables = model.init(jax.random.key(1), x_B[:1])
    y_B, key_B = (
        model.apply(variables, x_B)[0].argmax(-1),
        interactive.example_keys(seed=0, name="x", index_B=np.arange(5)),
    )
    signal = registry.make("signals", "boundary_distance:iterations=2,evaluations=10")
    answers = []
    for change in (None, defenses.make("memguard").apply):
        defended = signal._replace(transform=change)
        ask = jax.jit(
            lambda v, *rest, defended=defended: defended.ask(
                interactive.probe_of(model, v, signal=defended), *rest
            )
        )
        answers.append(ask(variables, x_B, y_B, key_B))
    assert toys.same(*answers) and (np.asarray(answers[0][0]) > 0).all()
