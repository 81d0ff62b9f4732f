"""Tests pairs, contrastive losses, the half-image network and least squares by hand."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.learners import balanced_pairs, least_squares
from mia_jax.measures import pairs, weights
from mia_jax.models import half_image, linear, siamese
from mia_jax.objectives import contrastive
from mia_jax.pipeline import run as pipeline_run
from mia_jax.report.sections import pairs as section
from mia_jax.runtime import files
from mia_jax.types import Pool, classification
from tests import toys


@pytest.mark.slow
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
    batch = toys.batch(x, jnp.array([[1, 1], [0, 2]]))
    loss_B, _ = loss(variables, batch)
    np.testing.assert_allclose(loss_B, [0.0, different], atol=1e-5)
    gradient = jax.jit(jax.grad(lambda v: loss(v, batch)[0].sum()))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def pairs_of_the_source(rng, size=1000, classes=10):
    """Returns the labels [P,2] of a batch as the source draws it.

    len() of the result of np.where is 2, so the pairs of one class are joined by only 2 others.
    """
    label_B2 = rng.integers(0, classes, (size, 2))
    same = np.where(
        (label_B2[:, 0] == label_B2[:, 1])[:, None]
    )  # (rows, zeros): the zeros are taken for row numbers too
    return label_B2[np.concatenate([same[0], [0], rng.integers(0, size, len(same))])]


def test_a_collapsed_net_on_the_pairs_of_the_source_seems_right_in_97_percent():
    """A network that maps everything to one point has an accuracy of 0.974 on those pairs.

    Its loss is the 2 (1 - accuracy) of the source's log; on balanced pairs its accuracy is 0.5.
    """
    model = siamese.make(num_classes=10, widths=(4,), embedding=2)
    loss = contrastive.make(model=model, head=False)
    variables = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), jnp.ones((1, 3))))
    rng, y_N = np.random.default_rng(0), np.repeat(np.arange(10), 6)
    epochs = [
        np.concatenate([pairs_of_the_source(rng) for _ in range(5)]) for _ in range(20)
    ]  # an epoch of the log is 5 batches
    parts = [*epochs, y_N[pairs.drawn(y_N, np.arange(60))]]
    label_P2 = jnp.asarray(np.concatenate(parts))
    loss_P, aux = loss(variables, toys.batch(jnp.ones((*label_P2.shape, 3)), label_P2))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    value, accuracy = (
        np.array([part.mean() for part in np.split(np.asarray(v), ends)])
        for v in (loss_P, aux.metrics["pair_accuracy"])
    )
    np.testing.assert_allclose(value, 2 * (1 - accuracy), atol=1e-4)
    assert (
        accuracy[:-1].mean() == pytest.approx(0.974, abs=0.002)
        and (abs(accuracy[:-1] - 0.974) < 0.01).all()
    )
    assert accuracy[-1] == 0.5


def test_the_half_image_net_is_a_linear_classifier_of_the_sum_of_the_halves():
    model = half_image.make(num_classes=10)
    x = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    variables = model.init(jax.random.key(1), x)
    variables["params"]["bias"] = jnp.arange(10.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 3930
    half_BF = x[:, :14].reshape(3, -1) + x[:, 14:].reshape(3, -1)
    np.testing.assert_allclose(
        model.apply(variables, x)[0],
        half_BF @ variables["params"]["shared"]["kernel"] + jnp.arange(10.0)[None],
        rtol=1e-5,
    )


def test_least_squares_equals_lstsq_with_a_column_of_ones_and_ridge_its_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 4, 40).astype(np.int32)
    weight_K = (np.arange(40) < 33).astype(np.float32)
    pool = Pool(x=jnp.asarray(x), y=jnp.asarray(y), task=classification(4))
    ones_KF, onehot_KC = np.c_[x[:33], np.ones(33)], np.eye(4)[y[:33]]
    for ridge in (0.0, 2.0):
        model = linear.make(num_classes=4)
        learner = least_squares.make(model=model, num_rows=40, ridge=ridge)
        state, _ = learner.epoch(
            learner.init(jax.random.key(0), pool),
            pool,
            jnp.arange(40)[None],
            jnp.asarray(weight_K)[None],
        )
        penalty = ridge * np.diag([1.0, 1, 1, 0])  # the column of ones is free
        solution = np.linalg.solve(ones_KF.T @ ones_KF + penalty, ones_KF.T @ onehot_KC)
        out = model.apply(state.variables, jnp.asarray(x))[0]
        np.testing.assert_allclose(out, np.c_[x, np.ones(40)] @ solution, atol=1e-5)


def test_a_fleet_of_least_squares_decomposes_one_model_at_a_time():
    """Two lanes of a batched decomposition can wait for each other's threads forever."""
    pool = Pool(x=jnp.ones((12, 6)), y=jnp.arange(12) % 3, task=classification(3))
    learner = least_squares.make(model=linear.make(num_classes=3), num_rows=12)
    state = jax.vmap(learner.init, (0, None))(jax.random.split(jax.random.key(0), 2), pool)
    epoch = jax.vmap(
        lambda state, row_K: learner.epoch(state, pool, row_K[None], jnp.ones((1, 12)))
    )
    seen, waiting = (
        [],
        [jax.make_jaxpr(epoch)(state, jnp.stack([jnp.arange(12), jnp.arange(12)[::-1]])).jaxpr],
    )
    while waiting:
        for equation in waiting.pop().eqns:
            waiting += jax.extend.core.jaxprs_in_params(equation.params)
            seen += [equation.invars[0].aval.shape] if equation.primitive.name == "svd" else []
    assert seen == [(12, 6)]


def test_least_squares_refuses_a_net_whose_last_layer_it_cannot_solve():
    model = registry.make("models", "half_image", {}, num_classes=3)
    pool = Pool(x=jnp.ones((4, 6)), y=jnp.zeros(4, jnp.int32), task=classification(3))
    with pytest.raises(ValueError, match="last layer"):
        least_squares.make(model=model, num_rows=4).init(jax.random.key(0), pool)


def embedding_files(folder, embedded_MNE):
    for m, embedded_NE in enumerate(embedded_MNE):
        files.write_npy(
            folder / "embedding" / f"{m:05d}.npy", np.asarray(embedded_NE, np.float32)[None]
        )
    return dict(folder=folder, models=range(len(embedded_MNE)), threshold=1.0)


def test_pairs_of_the_report_are_balanced_and_their_numbers_are_those_of_the_distances(tmp_path):
    y_N, side_TN = np.arange(60) % 3, (np.arange(60) < 30)[None]
    pair_P2 = pairs.drawn(y_N, np.arange(30, 60))
    assert (
        pair_P2.shape == (pairs.PAIRS, 2)
        and pair_P2.min() == 30
        and pair_P2.max() == 59
        and (pair_P2[:, 0] != pair_P2[:, 1]).all()
    )
    np.testing.assert_array_equal(
        y_N[pair_P2[:, 0]] == y_N[pair_P2[:, 1]], np.arange(pairs.PAIRS) < pairs.PAIRS // 2
    )

    line_NE = (
        3.0 * y_N[:, None]
    )  # classes at 0, 3 and 6; one row that no training pair holds lies with another class
    line_NE[45] = 3.0
    measured = pairs.measure(
        **embedding_files(tmp_path, [line_NE]),
        y_N=y_N,
        member_TN=side_TN,
        evaluated_TN=np.ones((1, 60), bool),
    )
    target = measured["targets"][0]
    assert target["chosen"] == 1.5 and not target["collapsed"]
    assert (
        target["members"]["accuracy"] == target["members"]["auc"] == 1
        and target["members"]["same"] == 0
    )
    E_P = np.abs(line_NE[pair_P2[:, 0]] - line_NE[pair_P2[:, 1]])[:, 0]
    outside = target["nonmembers"]
    assert (
        outside["accuracy"]
        == outside["accuracy_chosen"]
        == np.mean((E_P >= 1) == (np.arange(pairs.PAIRS) >= pairs.PAIRS // 2))
        < 1
    )
    assert outside["low"] < outside["accuracy"] < outside["high"]
    text = section.text(pairs=measured)
    assert f"{100 * outside['accuracy']:.1f}%" in text and "Collapsed" not in text


def test_a_collapsed_embedding_is_named(tmp_path):
    y_N, side_TN, everyone = np.arange(40) % 2, (np.arange(40) < 20)[None], np.ones((1, 40), bool)
    measured = pairs.measure(
        **embedding_files(tmp_path, [np.zeros((40, 4))]),
        y_N=y_N,
        member_TN=side_TN,
        evaluated_TN=everyone,
    )
    assert (
        measured["targets"][0]["collapsed"]
        and measured["targets"][0]["nonmembers"]["accuracy"]
        == measured["targets"][0]["nonmembers"]["auc"]
        == 0.5
    )
    assert "**Collapsed:** in 1 of 1" in section.text(pairs=measured)
    assert (
        pairs.measure(
            tmp_path / "nothing",
            models=[0],
            y_N=y_N,
            member_TN=side_TN,
            evaluated_TN=everyone,
            threshold=1.0,
        )
        is None
    )


def run(tmp_path, *, model, learner, **data):
    config = configuration.complete(
        data=dict(name="digits", examples=300) | data,
        design=dict(name="holdout", members=150, drawn=True),
        model=dict(name=model),
        learner=dict(epochs=1) | learner,
        attacks=dict(gap=dict()),
        report=dict(draws=40, slices=()),
    )
    return pipeline_run.run(config, workdir_path=tmp_path)


@pytest.mark.slow
def test_a_pair_learners_report_says_how_well_it_tells_pairs(tmp_path):
    report = run(
        tmp_path,
        model="siamese",
        learner=dict(
            name="balanced_pairs", objective=dict(name="contrastive", threshold=0.7), batch_size=50
        ),
    )
    assert (
        report["pairs"]["threshold"] == 0.7
        and report["pairs"]["targets"][0]["nonmembers"]["accuracy"] > 0.5
    )
    assert "accuracy at E = 0.7" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_the_half_image_nets_report_shows_its_weights(tmp_path):
    report = run(tmp_path, model="half_image", learner={}, flat=False)
    assert (
        report["pairs"] is None
        and (tmp_path / "report" / "figures" / "weights.png").stat().st_size > 1000
    )
    shown = weights.chosen(
        tmp_path / "train", model=half_image.make(num_classes=10), m=0, x=np.zeros((1, 8, 8, 1))
    )["pictures"]
    kernel_FC = files.read_npz(tmp_path / "train" / "model" / "00000.npz")[
        "variables/params/shared/kernel"
    ]
    np.testing.assert_array_equal(shown[3, 1], kernel_FC[8:16, 3])
    assert shown.shape == (10, 4, 8)
    assert (
        weights.chosen(
            tmp_path / "train", model=linear.make(num_classes=10), m=0, x=np.zeros((1, 8, 8, 1))
        )
        is None
    )
