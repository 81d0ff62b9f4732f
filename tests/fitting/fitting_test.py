"""Fitting: the order of rows, logistic regression and networks against scikit-learn, many fits in a
program, and how classifiers are chosen.
"""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

from mia_jax import registry
from mia_jax.fitting import chosen, logistic, mlp, network, rows
from mia_jax.fitting.rows import Job
from tests import planted
from tests.attacks.attack_model_test import FAST

KEY = jax.random.key(0)


def blobs(
    rows_a_side: int, features: int, distance: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(2 * rows_a_side) < rows_a_side)
    return rng.normal(size=(2 * rows_a_side, features)) + distance * member[:, None] * np.eye(
        features
    )[0], member


def ring(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, x[:, 0] ** 2 + x[:, 1] ** 2 < 1.4


# ---- rows ----


def test_inner_folds_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for n in range(8, 60, 3):
        member = rng.random(n) < 0.5
        if 3 <= member.sum() <= n - 3:
            for f, (_, held) in enumerate(StratifiedKFold(3).split(member, member)):
                np.testing.assert_array_equal(np.flatnonzero(rows.folds(member, 3) == f), held)


def test_hashes_depend_only_on_content_and_salt():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    order = np.random.default_rng(1).permutation(5000)
    np.testing.assert_array_equal(rows.hashes(x[order], 7), rows.hashes(x, 7)[order])
    assert (
        len(np.unique(rows.hashes(x, 7))) == 5000 and (rows.hashes(x, 7) != rows.hashes(x, 8)).all()
    )
    np.testing.assert_array_equal(
        rows.hashes(np.array([[0.0, 1.0]]), 7), rows.hashes(np.array([[-0.0, 1.0]]), 7)
    )
    assert (rows.hashes(x, 7) != rows.hashes(x[:, ::-1], 7)).all()
    half = rows.rank_within(np.zeros(5000, int), rows.hashes(x, 7)) % 2
    assert half.sum() == 2500 and abs(planted.auc(x[:, 0], half == 1) - 0.5) < 4 * np.sqrt(
        1 / 12 * 2 / 2500
    )


def test_scaling_sends_constant_columns_to_zero_everywhere():
    x = np.array([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    scaling = rows.scaling(x)
    np.testing.assert_allclose(
        scaling(x), [[-np.sqrt(1.5), 0], [0, 0], [np.sqrt(1.5), 0]], atol=1e-15
    )
    np.testing.assert_array_equal(scaling(np.array([[2.0, 99.0]])), [[0, 0]])


# ---- logistic against scikit-learn ----


@pytest.mark.parametrize("distance", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("wide", [128, 0])
def test_the_logistic_path_is_scikit_learns(distance, wide, monkeypatch):
    monkeypatch.setattr(logistic, "WIDE", wide)
    x, member = blobs(150, 6, distance)
    path = logistic.path(x * [1, 1, 1, 1, 1, 5], member, np.asarray(logistic.CS), tolerance=1e-12)
    for p in (0, 4, 9):
        oracle = LogisticRegression(C=logistic.CS[p], tol=1e-10, max_iter=10_000).fit(
            x * [1, 1, 1, 1, 1, 5], member
        )
        np.testing.assert_allclose(
            path[:-1, p], oracle.coef_[0], rtol=2e-3, atol=2e-4 * np.abs(oracle.coef_).max()
        )
        np.testing.assert_allclose(path[-1, p], oracle.intercept_[0], rtol=2e-3, atol=2e-3)


def test_the_logistic_choice_and_scores_are_those_of_a_grid_search():
    for seed in range(2):
        x, member = blobs(80, 5, 0.5, seed)
        ask, side = blobs(500, 5, 0.5, seed + 100)
        oracle = GridSearchCV(
            LogisticRegression(tol=1e-10, max_iter=10_000), dict(C=logistic.CS), cv=3
        ).fit(x, member)
        assert (
            logistic.CS[logistic.choice(Job(x, member, ask), np.asarray(logistic.CS), 3)]
            == oracle.best_params_["C"]
        )
        (score,) = logistic.make()([Job(x, member, ask)], KEY)
        np.testing.assert_allclose(score, oracle.decision_function(ask), rtol=1e-3, atol=1e-4)
        assert (
            abs(planted.auc(score, side) - planted.auc(oracle.decision_function(ask), side)) < 1e-4
        )


def test_the_logistic_loss_and_its_derivatives_at_extreme_margins():
    x = np.c_[np.linspace(-800, 800, 2001), np.ones(2001)]
    y = (np.arange(2001) % 2).astype(float)
    beta = np.array([1.0, 0.5])
    derivatives = logistic._loss(x, y, beta)
    margin = x @ beta
    np.testing.assert_allclose(
        derivatives.value, (np.logaddexp(0, margin) - y * margin).sum(), rtol=1e-12
    )
    np.testing.assert_allclose(
        derivatives.gradient_F, x.T @ (1 / (1 + np.exp(-np.clip(margin, -700, 700))) - y), rtol=1e-9
    )
    assert np.isfinite(derivatives.hessian_FF).all()


# ---- networks ----


def test_the_mlp_is_as_good_as_scikit_learns():
    x, member = ring(600, 0)
    ask, side = ring(2000, 1)
    (score,) = mlp.make(
        hidden=((32,),), alphas=(1e-4, 1e-2), epochs=200, batch_size=100, learning_rates=(3e-3,)
    )([Job(x, member, ask)], KEY)
    oracle = MLPClassifier(
        (32,),
        alpha=1e-4,
        max_iter=200,
        batch_size=100,
        learning_rate_init=3e-3,
        tol=0,
        n_iter_no_change=999,
        random_state=0,
    )
    with pytest.warns(UserWarning, match="Maximum iterations"):
        oracle.fit(x, member)
    actual, expected = planted.auc(score, side), planted.auc(oracle.predict_proba(ask)[:, 1], side)
    assert expected > 0.98 and actual > expected - 0.01


@pytest.mark.parametrize(
    "options",
    [
        dict(hidden=((8,),), alphas=(1e-3, 1.0), epochs=3, batch_size=16),
        pytest.param(dict(network="r"), marks=pytest.mark.slow),
    ],
    ids=["folds", "source"],
)
def test_jobs_in_a_shared_program_equal_separate_fits(options):
    jobs = [Job(*ring(n, n), ring(50, 0)[0], family=n) for n in (90, 41)]
    head = mlp.make(**options)
    together = head(jobs, KEY)
    np.testing.assert_allclose(head(jobs[:1], KEY)[0], together[0], rtol=1e-3, atol=1e-4)
    assert [len(s) for s in together] == [50, 50] and np.ptp(together[1]) > 0


def test_an_empty_batch_changes_nothing_and_a_short_one_is_a_mean():
    """7 rows in batches of 4 next to a longer list: 2 steps, of 4 and 3 rows, then nothing."""
    x = np.ones((7, 1))
    data = network.sets(
        [x, np.ones((40, 1))],
        [np.ones(7, np.int32), np.ones(40, np.int32)],
        [[np.arange(7)], [np.arange(40)]],
        4,
    )
    assert data.index_DQL.shape[-1] == 40 and network.steps(data, 4) == 10
    layers = network.train(
        KEY,
        data,
        rate_P=[0.1],
        penalty_P=[0.0],
        shape=network.Shape((1, 2), 0.0, "cross_entropy", 4, 1),
    )
    step, after_two = 0.1, layers[0][1][0, 0, 0]
    np.testing.assert_allclose(
        after_two, [-2 * step, 2 * step], rtol=0.1
    )  # Adam moves by the rate while the gradient keeps its sign
    assert layers[0][1][1, 0, 0][1] > 5 * step


@pytest.mark.parametrize("name, hidden", [("n", (64,)), ("r", (10, 10)), ("d", (10, 10))])
def test_the_label_only_papers_networks(name, hidden):
    settings = mlp.NETWORKS[name]
    assert (
        settings["hidden"] == (hidden,)
        and settings["slope"] == 0.01
        and settings["batch_size"] == settings["epochs"] == 1
    )
    assert settings["learning_rates"] == (1e-3, 1e-2, 5e-3, 5e-2) and settings["select"] == "source"


def test_the_learning_rate_is_chosen_on_the_source_alone_and_pooled_over_a_family():
    rng = np.random.default_rng(0)
    jobs = [
        Job(*blobs(40, 4, 2.0, seed), rng.normal(size=(30, 4)), family)
        for seed, family in ((0, 0), (1, 0), (2, 1))
    ]
    settings = dict(mlp.NETWORKS["r"], learning_rates=(1e-5, 1e-2, 5e-2))
    fitted = mlp.fit(jobs, KEY, **settings)
    for other in (np.zeros((5, 4)), 1e6 * rng.normal(size=(200, 4))):
        assert (
            mlp.fit([job._replace(ask_NF=other) for job in jobs], KEY, **settings).chosen
            == fitted.chosen
        )
    count = np.array(
        [
            _correct(jobs, dict(settings, learning_rates=(rate,) * 3))  # the same program
            for rate in settings["learning_rates"]
        ]
    )
    pooled = count @ np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert [rate for _, rate, _ in fitted.chosen] == [
        settings["learning_rates"][i] for i in pooled.argmax(0)
    ] and fitted.chosen[0][1] != 1e-5


def _correct(jobs, settings) -> list[int]:
    """Returns how many rows of its own source each job predicts correctly."""
    scores = mlp.fit([job._replace(ask_NF=job.x_KF) for job in jobs], KEY, **settings).scores
    return [
        int(((score > 0) == job.member_K).sum()) for score, job in zip(scores, jobs, strict=True)
    ]


# ---- every kind ----


@pytest.mark.parametrize("kind", FAST)
def test_a_separable_toy_is_separated(kind):
    x, member = blobs(100, 3, 12.0)
    ask, side = blobs(500, 3, 12.0, 1)
    options = FAST[kind]
    (score,) = registry.make("classifiers", kind, options)([Job(x, member, ask)], KEY)
    middle = 0.5 if kind in ("random_forest", "knn") else 0.0
    assert ((score > middle) == side).mean() >= 0.99 and score.dtype == np.float64


@pytest.mark.parametrize("shape, kind, neutral", [("ring", "knn", 0.5), ("blobs", "logistic", 0.0)])
def test_the_kind_is_chosen_where_it_learns(shape, kind, neutral):
    x, member = ring(300, 0) if shape == "ring" else blobs(150, 2, 1.0)  # no line divides a ring
    kinds = dict(logistic={}, knn=dict(neighbors=(5,)))
    (score,) = chosen.make(kinds=kinds)([Job(x, member, x)], KEY)
    (score_N,) = registry.make("classifiers", kind, kinds[kind])(
        [Job(x, member, x)], jax.random.fold_in(KEY, list(kinds).index(kind))
    )
    np.testing.assert_allclose(score, score_N - neutral, atol=1e-5)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"classifiers: there is no 'forest'.*random_forest"):
        chosen.make(kinds=dict(forest={}))
