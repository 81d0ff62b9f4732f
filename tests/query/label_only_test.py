"""The label-only signals: their views, counts and distances against hand-made and independent
forms.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from mia_jax import configuration, registry
from mia_jax.attacks import outlier
from mia_jax.configuration.settings import ReportSettings
from mia_jax.designs import blocks, halves
from mia_jax.pipeline.evidence import attack_evidence, chosen_thresholds
from mia_jax.pipeline.run import run
from mia_jax.query import interactive
from mia_jax.query_views.shift import diamond
from mia_jax.signals import noise_robustness
from mia_jax.threat_model import FleetSignals, PlannedAttack
from mia_jax.types import Probe, Shadows
from tests import planted

KEYS = interactive.example_keys(seed=0, name="test", index_B=np.arange(40))


def answers(name: str, label, x, y, keys=None):
    """(value, counts) of a signal asked of a labelling function."""
    signal = registry.make("signals", name)
    keys = KEYS[: len(x)] if keys is None else keys
    value, count = jax.jit(lambda x, y, k: signal.ask(Probe(label), x, y, k))(
        jnp.asarray(x, jnp.float32), jnp.asarray(y), keys
    )
    return np.asarray(value), np.asarray(count)


def recorded(name: str, x):
    """The images that a signal asks about, in order (the label function hands them on)."""
    seen = []
    registry.make("signals", name).ask(
        Probe(lambda q: (seen.append(np.asarray(q)), jnp.zeros(len(q), jnp.int32))[1]),
        x,
        jnp.zeros(len(x)),
        None,
    )
    return seen


def test_shifts_are_in_the_order_of_the_original_code():
    assert diamond(0) == [(0, 0)]
    assert diamond(1) == [(0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)]
    two = [(0, 0), (2, 0), (1, -1), (0, -2), (-1, -1), (-2, 0), (-1, 1), (0, 2), (1, 1)]
    assert diamond(2) == two
    for d in (3, 4):
        shifts = diamond(d)
        assert len(set(shifts)) == 4 * d + 1 and all(abs(y) + abs(x) == d for y, x in shifts[1:])


def test_shifted_images_repeat_their_edges_and_equal_scipy():
    x = np.random.default_rng(0).random((3, 6, 7, 2)).astype(np.float32)
    for (dy, dx), asked in zip(diamond(2), recorded("correct_under_shift:d=2", x), strict=True):
        expected = [ndimage.shift(image, (dy, dx, 0), order=0, mode="nearest") for image in x]
        np.testing.assert_array_equal(asked, np.stack(expected))


@pytest.mark.parametrize(
    "setting, degrees",
    [("r=4.0", [0, -4, 4]), ("r=2.0,mode=code", [0, -1, 1, -2, 2]), ("r=1,mode=code", [0, -1, 1])],
)
def test_rotated_images_equal_scipy(setting, degrees):
    x = np.random.default_rng(0).random((2, 9, 8, 1)).astype(np.float32)
    asked = recorded(f"correct_under_rotation:{setting}", x)
    assert len(asked) == len(degrees)
    for angle, images in zip(degrees, asked, strict=True):
        expected = [
            ndimage.rotate(image, angle, reshape=False, order=3, mode="constant", cval=0.0)
            if angle
            else image
            for image in x
        ]
        np.testing.assert_allclose(images, np.stack(expected), atol=1e-4)


def test_correctness_is_per_view_and_every_view_is_a_query():
    x = np.zeros((2, 4, 4, 1), np.float32)
    x[0, 1, 1], x[1, 0, 1] = 1, 1
    value, count = answers(
        "correct_under_shift", lambda q: (q[:, 1, 1, 0] > 0.5).astype(jnp.int32), x, [1, 1]
    )
    np.testing.assert_array_equal(
        value, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    )  # the second is right once it moves down
    np.testing.assert_array_equal(count, [[1, 2, 3, 4, 5]] * 2)


# ---- noise ----


def test_noise_robustness_is_the_probability_of_the_label_under_noise():
    """A half space at distance m: the share of noisy copies with the label tends to Phi(m /
    sigma).
    """
    margin = np.array([0.02, 0.05, 0.1])
    x = np.full((3, 25), 0.5) + margin[:, None] / 5  # direction of ones, length 5
    label = lambda q: (q.sum(1) > 12.5).astype(jnp.int32)  # noqa: E731
    value, count = answers("noise_robustness:samples=4000,sigma=0.05", label, x, [1, 1, 1])
    expected = stats.norm.cdf(margin / 0.05)
    assert (
        np.abs(value[:, -1] - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3
    ).all()
    k_P = [k for k in noise_robustness.PREFIXES if k < 4000] + [4000]
    np.testing.assert_array_equal(count, np.tile(1 + np.array(k_P), (3, 1)))


def test_fewer_noisy_copies_are_a_prefix_and_errors_score_zero_after_one_query():
    rng = np.random.default_rng(0)
    x = rng.random((6, 8)).astype(np.float32)
    label = lambda q: (q.sum(1) > 4.0).astype(jnp.int32)  # noqa: E731
    y = np.array(label(x))
    y[3] = 1 - y[3]
    more, _ = answers("noise_robustness:samples=50,sigma=0.3", label, x, y)
    fewer, count = answers("noise_robustness:samples=10,sigma=0.3", label, x, y)
    np.testing.assert_allclose(fewer, more[:, :6])  # 1, 2, 3, 4, 5, 10
    assert (fewer[3] == 0).all() and (count[3] == 1).all() and (np.delete(more, 3, 0) > 0).any()
    shares = fewer[:, :5] * np.arange(1, 6)
    np.testing.assert_allclose(shares, np.round(shares), atol=1e-5)


def test_noisy_images_stay_in_the_box_and_flips_are_as_many_as_wanted():
    seen = []

    def label(q):
        jax.debug.callback(lambda q: seen.append(np.array(q)), q)
        return jnp.zeros(len(q), jnp.int32)

    x = np.random.default_rng(0).random((2, 3, 3, 1))
    answers("noise_robustness:samples=40,sigma=0.5", label, x, [0, 0])
    jax.effects_barrier()
    copies = np.concatenate(seen[1:])
    assert copies.min() == 0 and copies.max() == 1 and copies.shape[1:] == (3, 3, 1)
    seen.clear()
    binary = np.random.default_rng(0).integers(2, size=(2, 50)).astype(np.float32)
    answers(
        "noise_robustness:samples=1000,noise=flip,flips=3,continuous=2,sigma=0.1",
        label,
        binary,
        [0, 0],
    )
    jax.effects_barrier()
    copies = np.concatenate([part.reshape(2, -1, 50) for part in seen if len(part) > 2], 1)
    flipped = copies[:, :, 2:] != binary[:, None, 2:]
    assert np.isin(copies[:, :, 2:], (0, 1)).all() and abs(flipped.mean() * 50 - 3) < 0.15
    assert abs((copies[:, :, :2] - binary[:, None, :2]).std() - 0.1) < 0.01


# ---- distances ----


def half_space(features=20, seed=0):
    w = np.random.default_rng(seed).normal(size=features)
    w /= np.linalg.norm(w)
    return w, lambda q: (q.reshape(len(q), -1) @ jnp.asarray(w, jnp.float32) > 0).astype(jnp.int32)


def test_the_distance_to_a_half_space_is_found_and_falls_with_the_iterations():
    w, label = half_space()
    x = np.random.default_rng(1).normal(size=(12, 20))
    y = np.array(label(x))
    y[0] = 1 - y[0]
    value, count = answers("boundary_distance:iterations=6,box=none", label, x, y)
    assert value.shape == count.shape == (12, 7) and (value[0] == 0).all() and (count[0] == 1).all()
    truth = np.abs(x @ w)[1:]
    assert (value[1:, -1] >= truth * (1 - 1e-4)).all() and np.median(value[1:, -1] / truth) < 1.1
    assert (np.diff(value, axis=1) <= 0).all() and (np.diff(count, axis=1) >= 0).all()
    most = registry.make("signals", "boundary_distance:iterations=6,box=none").queries(20)
    assert count.max() <= most


def test_the_distance_of_the_unmoved_image_is_the_first_of_the_combined_ones():
    _, label = half_space(16)
    x = np.random.default_rng(1).random((5, 4, 4, 1))
    y = np.asarray(label(x.astype(np.float32)))
    distance, first_count = answers(
        "boundary_distance:iterations=2,evaluations=10,box=none", label, x, y
    )
    five, count = answers(
        "boundary_distance_under_shift:iterations=2,evaluations=10,box=none", label, x, y
    )
    assert five.shape == (5, 5)
    np.testing.assert_allclose(five[:, 0], distance[:, -1], rtol=1e-5)
    np.testing.assert_array_equal(count[:, 0], first_count[:, -1])
    assert (np.diff(count, axis=1) >= 1).all() and len(np.unique(five[0])) > 2


def test_random_inputs_are_as_far_from_the_boundary_as_they_are():
    """The boundary is half-way along the first coordinate, so the distance of u is |u_0 - 1/2|,
    whatever x and y are.
    """
    label = lambda q: (q[:, 0] > 0.5).astype(jnp.int32)  # noqa: E731
    x = np.zeros((9, 5), np.float32)
    value, count = answers("noise_distance:iterations=4,evaluations=40", label, x, np.zeros(9))
    u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (5,)))(KEYS[:9])
    truth = np.abs(np.asarray(u)[:, 0] - 0.5)
    assert (
        (value >= truth * (1 - 1e-4)).all()
        and np.median(value / truth) < 1.1
        and len(np.unique(value)) == 9
    )
    walked = answers("boundary_distance:iterations=4,evaluations=40", label, u, label(u))[1][:, -1]
    np.testing.assert_array_equal(count, 1 + walked)


def test_the_unsupervised_threshold_is_a_quantile_of_random_inputs_and_no_source_chooses_it():
    design = blocks.make(num_examples=100, seed=0, size=20, scored=15)
    names = ("boundary_distance", "noise_distance")
    fleet = planted.fleet(design, *names, mu=2.0, seed=0)
    attack = registry.make("attacks", "unsupervised", dict(share=0.7))
    score_MN = np.stack(
        [attack.score(fleet.evidence_against(m, attack.needs, attack.knows), None) for m in (0, 1)]
    )
    planned = PlannedAttack(name="alone", attack=attack, section={}, key=None)
    chosen = chosen_thresholds(score_MN, design, ReportSettings(fprs=(0.1,)))
    evidence = attack_evidence(planned, score_MN, design, chosen)
    own_N, noise_N = (fleet.signal[name][0, 0].reshape(100, -1)[:, -1] for name in names)
    rows = np.flatnonzero(design.evaluated_MN[0])
    assert len(rows) == 30 and np.isnan(np.delete(evidence["score_TN"][0], rows)).all()
    named = evidence["score_TN"][0, rows] >= evidence["threshold_T"][0]
    np.testing.assert_array_equal(named, own_N[rows] >= np.quantile(noise_N[rows], 0.7))
    planned = dataclasses.replace(planned, attack=attack._replace(knows="shadows"))
    assert (
        attack_evidence(planned, score_MN, design, chosen)["threshold_T"][0] != 0
    )  # whoever knows the source has its threshold


def test_the_white_box_distance_to_a_half_space_is_close():
    w, _ = half_space()
    x = jnp.asarray(0.3 * np.random.default_rng(1).normal(size=(8, 20)), jnp.float32)

    def out(q):
        return 4 * (q @ jnp.asarray(w, jnp.float32))[:, None] * jnp.array([[-1.0, 1.0]])

    y = np.array(out(x).argmax(1))
    y[0] = 1 - y[0]
    signal = registry.make("signals", "carlini_wagner_distance:box=none")
    distance, count = jax.jit(lambda x, y: signal.ask(Probe(None, out), x, y, None))(x, y)
    assert distance[0] == 0 and signal.access == "white_box" and count.max() <= signal.queries
    np.testing.assert_allclose(distance[1:], np.abs(np.asarray(x) @ w)[1:], rtol=0.03)


# ---- questions made with shadows ----


@pytest.fixture(scope="module")
def memorized(tmp_path_factory):
    """Eight MLPs on halves of noisy digits with a tenth of the labels wrong: they remember."""
    attacks = dict(gap=dict(), one_query=dict(name="threshold", signal="one_query"))
    attacks |= dict(transfer=dict(name="threshold", signal="transfer:queries=4"))
    attacks |= dict(
        outlier=dict(name="outlier", beta=0.05),
        distance=dict(name="threshold", signal="boundary_distance:iterations=1,evaluations=20"),
    )
    config = configuration.complete(
        data=dict(name="synthetic", examples=240, features=16, classes=4, separation=1.5),
        design=dict(name="halves", models=8),
        model=dict(name="mlp", widths=(64,)),
        learner=dict(epochs=150, batch_size=40, learning_rate=1e-2),
        attacks=attacks,
        report=dict(figures=False, slices=()),
    )
    folder = tmp_path_factory.mktemp("memorized")
    config = type(config)(config).unlock()
    for name in ("one_query", "transfer"):
        config.attacks[name].signal += (
            "," if ":" in config.attacks[name].signal else ":"
        ) + "box=none,step=0.05"
    config.attacks.distance.signal += ",box=none"
    return run(config, workdir_path=folder), folder


def auc_of(report, name):
    return next(
        r["value"]
        for r in report["results"]
        if (r["attack"], r["metric"], r["target"], r["slice"]) == (name, "auc", None, "all")
    )


@pytest.mark.slow
def test_questions_made_with_shadows_find_members_in_one_query_and_in_a_few(memorized):
    report, folder = memorized
    cost = {
        r["attack"]: r.get("queries_max")
        for r in report["results"]
        if r["metric"] == "auc" and r["slice"] == "all"
    }
    assert cost["one_query"] == 1 and cost["transfer"] == 4 and cost["outlier"] is None
    assert (
        auc_of(report, "gap") > 0.55
        and auc_of(report, "one_query") > 0.55
        and auc_of(report, "transfer") > 0.55
    )
    assert len(report["queries"]["transfer"]) == 4 and auc_of(report, "outlier") > 0.55
    name = registry.identity("signals", "one_query:box=none,step=0.05")
    assert set(np.unique(np.nan_to_num(np.load(folder / "signal" / name / "00000.npy")))) == {0, 1}


def test_a_question_for_a_model_is_made_without_it_and_its_twin():
    design = halves.make(num_examples=100, seed=0, models=8)
    assert interactive.attacker_models(design, 4, 4, 8).tolist() == [
        0,
        1,
        2,
        3,
    ] and interactive.attacker_models(design, 0, 4, 8).tolist() == [2, 3, 4, 5]
    assert interactive.attacker_models(design, 0, 4, 4).tolist() == [2, 3, 2, 3]
    lonely = blocks.make(num_examples=100, seed=0, size=20)
    assert interactive.attacker_models(lonely, 0, 2, 2).tolist() == [1, 1] and not len(
        interactive.attacker_models(lonely, 1, 2, 2)
    )


def test_a_source_without_shadows_is_not_asked_and_the_target_is(tmp_path):
    config = configuration.complete(
        data=dict(name="synthetic", examples=160, features=16, classes=4),
        design=dict(name="blocks", size=40),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=2),
        attacks=dict(transfer=dict(name="threshold", signal="transfer:box=none,queries=2,steps=3")),
        report=dict(figures=False, slices=()),
    )
    report = run(config, workdir_path=tmp_path)
    name = registry.identity("signals", "transfer:box=none,queries=2,steps=3")
    target, source = (np.load(tmp_path / "signal" / name / f"0000{m}.npy") for m in (0, 1))
    assert (
        np.isfinite(target).any()
        and np.isnan(source).all()
        and auc_of(report, "transfer") is not None
    )


@pytest.mark.slow
def test_questions_wander_where_shadows_without_the_example_disagree_and_those_with_it_agree():
    """One coordinate: OUT models say y below 0.6, IN models below 0.9; the question has to end
    between.
    """
    logit = lambda x, edge: jnp.stack([edge - x[:, 0], x[:, 0] - edge], 1) * 40  # noqa: E731
    member_SB = np.array([[True], [True], [False], [False]])
    shadows = Shadows(
        lambda x: jnp.stack([logit(x, 0.9), logit(x, 0.9), logit(x, 0.6), logit(x, 0.6)]),
        jnp.asarray(member_SB),
    )
    seen = []

    def label(x):
        seen.append(float(x[0, 0]))
        return jnp.zeros(1, jnp.int32)

    with jax.disable_jit():
        registry.make("signals", "one_query:steps=60").ask(
            Probe(label, shadows=shadows), jnp.full((1, 3), 0.5), jnp.zeros(1, jnp.int32), None
        )
        registry.make("signals", "transfer:queries=2,steps=60").ask(
            Probe(label, shadows=shadows), jnp.full((1, 3), 0.5), jnp.zeros(1, jnp.int32), None
        )
    assert 0.6 < seen[0] < 0.9 and 0.58 < seen[1] < 0.63 and seen[1] < seen[2] < 0.9


def test_outliers_are_the_rows_that_stand_alone():
    rng = np.random.default_rng(0)
    feature_SKF = np.abs(rng.normal(size=(1, 12))) + 0.05 * rng.normal(size=(2, 200, 12))
    feature_SKF[:, :4] = rng.normal(size=(2, 4, 12))
    feature_SKF[0, 100:] = np.nan
    lonely_K = outlier.loneliness(feature_SKF, 5)
    assert set(np.argsort(-lonely_K)[:4]) == {0, 1, 2, 3} and np.isfinite(lonely_K).all()
    np.testing.assert_array_equal(
        outlier.mid_ranks(np.array([2.0, 1.0, 2.0, 5.0])), [0.5, 0.125, 0.5, 0.875]
    )
    design = blocks.make(num_examples=400, seed=0, size=100)
    correct = np.ones((2, 1, 400), np.float32)
    correct[:, :, 50:200] = 0
    embedding = np.zeros((2, 1, 400, 12), np.float32)
    embedding[:, 0, :200], embedding[:, 0, 200:] = feature_SKF[1], feature_SKF[1]
    fleet = FleetSignals(
        design=design, signal=dict(correct=correct, embedding=embedding), num_classes=2
    )
    attack = registry.make("attacks", "outlier", dict(beta=0.02))
    score_N = attack.score(fleet.evidence_against(0, attack.needs), None)
    assert set(np.flatnonzero(score_N > 1)) == {0, 1, 2, 3}  # correct and alone


# ---- bad input ----


@pytest.mark.parametrize(
    "name, x, text",
    [
        (
            "correct_under_rotation",
            np.zeros((2, 9)),
            r"'correct_under_rotation' needs images .* \(9,\)",
        ),
        ("boundary_distance_under_shift", np.zeros((2, 9)), "needs images"),
        (
            "boundary_distance",
            np.full((2, 3, 3, 1), 3.0),
            r"in \[3, 3\]; scale them .* boundary_distance:box=none",
        ),
        ("correct_under_fgsm", np.full((2, 3), 3.0), r"scale them \(data.scale\)\.$"),
        ("noise_robustness", np.full((2, 3), -0.5), r"keeps its queries in \[0, 1\]"),
        (
            "noise_robustness:noise=flip",
            np.full((2, 3), 0.5),
            "needs binary features after the first continuous=0; one is 0.5",
        ),
        ("boundary_distance:budget=20", np.zeros((2, 3, 3, 1)), "budget=20 queries is less than"),
    ],
)
def test_examples_that_cannot_be_asked_are_refused_before_training(name, x, text):
    with pytest.raises(ValueError, match=text):
        registry.make("signals", name).check(x)


@pytest.mark.parametrize(
    "name, text",
    [
        ("correct_under_rotation:mode=book", "mode='book' is not one of"),
        ("correct_under_rotation:r=1.5,mode=code", "whole number of degrees"),
        ("correct_under_shift:d=-1", "d=-1 must be at least 0"),
        ("noise_robustness:samples=0", "samples=0 must be at least 1"),
        ("boundary_distance:norm=l1", "norm='l1' is not one of"),
        ("transfer:queries=11", "queries=11 must be at most 10"),
        ("one_query:step=0", "step=0.0 must be > 0"),
        ("noise_robustness:box=2", "box='2' is not one of"),
    ],
)
def test_wrong_settings_are_named(name, text):
    with pytest.raises(ValueError, match=text):
        registry.make("signals", name)
