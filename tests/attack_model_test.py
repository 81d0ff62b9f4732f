"""The attack model: heads against scikit-learn, cross-fitting that no row's own label can reach, unequal sides, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

from mia_jax import registry
from mia_jax.attacks import _features, attack_model
from mia_jax.designs import blocks, folds, halves
from mia_jax.heads import logistic, mlp, network, rows
from mia_jax.heads.rows import Job
from mia_jax.views import CROSS_FITTED, View
from tests import planted

KEY = jax.random.key(0)
FAST = dict(  # the kinds with grids small enough for a test
    logistic={},
    mlp=dict(hidden=((16,),), alphas=(1e-3,), batch_size=50, learning_rates=(0.01,), epochs=40),
    random_forest=dict(trees=20, grid={}),
    knn={},
    gradient_boosting=dict(grid=dict(max_iter=(20,), min_samples_leaf=(5,))),
)


def blobs(rows_a_side: int, features: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(2 * rows_a_side) < rows_a_side)
    return rng.normal(size=(2 * rows_a_side, features)) + distance * member[:, None] * np.eye(features)[0], member


def ring(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, x[:, 0] ** 2 + x[:, 1] ** 2 < 1.4


def target(member_N: np.ndarray, *, y=None, columns={}, num_classes: int = 0, **signal: np.ndarray) -> View:
    """A View of one target whose rows are all evaluated."""
    everywhere = np.ones(len(member_N), bool)
    none = dict(shadow={}, shadow_member_MN=None, shadow_evaluated_MN=None, visible_MN=None, population_N=None)
    given = {k: np.asarray(v, np.float32)[None] for k, v in signal.items()}
    return View(target=given, evaluated_N=everywhere, num_classes=num_classes, y=y, columns=columns, member_N=member_N, **none)


def advantage(score_N: np.ndarray, member_N: np.ndarray) -> float:
    """max |TPR - FPR| over thresholds between distinct scores."""
    order = np.argsort(score_N)
    cut = np.append(np.diff(score_N[order]) > 0, True)
    inside, outside = np.cumsum(member_N[order]) / member_N.sum(), np.cumsum(~member_N[order]) / (~member_N).sum()
    return float(np.abs(inside - outside)[cut].max())


# ---- rows ----


def test_inner_folds_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for n in range(8, 60, 3):
        member = rng.random(n) < 0.5
        if 3 <= member.sum() <= n - 3:
            for f, (_, held) in enumerate(StratifiedKFold(3).split(member, member)):
                np.testing.assert_array_equal(np.flatnonzero(rows.folds(member, 3) == f), held)


def test_hashes_depend_on_content_and_salt_alone():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    order = np.random.default_rng(1).permutation(5000)
    np.testing.assert_array_equal(rows.hashes(x[order], 7), rows.hashes(x, 7)[order])
    assert len(np.unique(rows.hashes(x, 7))) == 5000 and (rows.hashes(x, 7) != rows.hashes(x, 8)).all()
    np.testing.assert_array_equal(rows.hashes(np.array([[0.0, 1.0]]), 7), rows.hashes(np.array([[-0.0, 1.0]]), 7))
    assert (rows.hashes(x, 7) != rows.hashes(x[:, ::-1], 7)).all()
    half = rows.rank_within(np.zeros(5000, int), rows.hashes(x, 7)) % 2
    assert half.sum() == 2500 and abs(planted.auc(x[:, 0], half == 1) - 0.5) < 4 * np.sqrt(1 / 12 * 2 / 2500)


def test_scaling_sends_constant_columns_to_zero_everywhere():
    x = np.array([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    scaling = rows.scaling(x)
    np.testing.assert_allclose(scaling(x), [[-np.sqrt(1.5), 0], [0, 0], [np.sqrt(1.5), 0]], atol=1e-15)
    np.testing.assert_array_equal(scaling(np.array([[2.0, 99.0]])), [[0, 0]])


# ---- logistic against scikit-learn ----


@pytest.mark.parametrize("distance", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("wide", [128, 0])
def test_the_logistic_path_is_scikit_learns(distance, wide, monkeypatch):
    monkeypatch.setattr(logistic, "WIDE", wide)
    x, member = blobs(150, 6, distance)
    found = logistic.path(x * [1, 1, 1, 1, 1, 5], member, np.asarray(logistic.CS), tolerance=1e-12)
    for p in (0, 4, 9):
        oracle = LogisticRegression(C=logistic.CS[p], tol=1e-10, max_iter=10_000).fit(x * [1, 1, 1, 1, 1, 5], member)
        np.testing.assert_allclose(found[:-1, p], oracle.coef_[0], rtol=2e-3, atol=2e-4 * np.abs(oracle.coef_).max())
        np.testing.assert_allclose(found[-1, p], oracle.intercept_[0], rtol=2e-3, atol=2e-3)


def test_the_logistic_choice_and_scores_are_those_of_a_grid_search():
    for seed in range(3):
        x, member = blobs(80, 5, 0.5, seed)
        ask, side = blobs(500, 5, 0.5, seed + 100)
        oracle = GridSearchCV(LogisticRegression(tol=1e-10, max_iter=10_000), dict(C=logistic.CS), cv=3).fit(x, member)
        assert logistic.CS[logistic.choice(Job(x, member, ask), np.asarray(logistic.CS), 3)] == oracle.best_params_["C"]
        (score,) = logistic.make()([Job(x, member, ask)], KEY)
        np.testing.assert_allclose(score, oracle.decision_function(ask), rtol=1e-3, atol=1e-4)
        assert abs(planted.auc(score, side) - planted.auc(oracle.decision_function(ask), side)) < 1e-4


def test_the_logistic_loss_and_its_derivatives_at_extreme_margins():
    x = np.c_[np.linspace(-800, 800, 2001), np.ones(2001)]
    y = (np.arange(2001) % 2).astype(float)
    beta = np.array([1.0, 0.5])
    found = logistic._loss(x, y, beta)
    margin = x @ beta
    np.testing.assert_allclose(found.value, (np.logaddexp(0, margin) - y * margin).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.gradient_F, x.T @ (1 / (1 + np.exp(-np.clip(margin, -700, 700))) - y), rtol=1e-9)
    assert np.isfinite(found.hessian_FF).all()


# ---- networks ----


def test_the_mlp_is_as_good_as_scikit_learns():
    x, member = ring(600, 0)
    ask, side = ring(2000, 1)
    (score,) = mlp.make(hidden=((32,),), alphas=(1e-4, 1e-2), epochs=200, batch_size=100, learning_rates=(3e-3,))([Job(x, member, ask)], KEY)
    oracle = MLPClassifier((32,), alpha=1e-4, max_iter=200, batch_size=100, learning_rate_init=3e-3, tol=0, n_iter_no_change=999, random_state=0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        oracle.fit(x, member)
    found, expected = planted.auc(score, side), planted.auc(oracle.predict_proba(ask)[:, 1], side)
    assert expected > 0.98 and found > expected - 0.01


def test_jobs_in_one_program_are_what_they_are_alone():
    jobs = [Job(*ring(n, n), ring(50, 0)[0], family=n) for n in (90, 41)]
    for options in (dict(network="r"), dict(hidden=((8,),), alphas=(1e-3, 1.0), epochs=3, batch_size=16)):
        head = mlp.make(**options)
        together = head(jobs, KEY)
        np.testing.assert_allclose(head(jobs[:1], KEY)[0], together[0], rtol=1e-3, atol=1e-4)
        assert [len(s) for s in together] == [50, 50] and np.ptp(together[1]) > 0


def test_an_empty_batch_changes_nothing_and_a_short_one_is_a_mean():
    """7 rows in batches of 4 beside a longer list: 2 steps, of 4 and 3 rows, then nothing."""
    x = np.ones((7, 1))
    data = network.sets([x, np.ones((40, 1))], [np.ones(7, np.int32), np.ones(40, np.int32)], [[np.arange(7)], [np.arange(40)]], 4)
    assert data.index_DQL.shape[-1] == 40 and network.steps(data, 4) == 10
    layers = network.train(KEY, data, rate_P=[0.1], penalty_P=[0.0], shape=network.Shape((1, 2), 0.0, "cross_entropy", 4, 1))
    step, after_two = 0.1, layers[0][1][0, 0, 0]
    np.testing.assert_allclose(after_two, [-2 * step, 2 * step], rtol=0.1)  # Adam moves by the rate while the gradient keeps its sign
    assert layers[0][1][1, 0, 0][1] > 5 * step


@pytest.mark.parametrize("name, hidden", [("n", (64,)), ("r", (10, 10)), ("d", (10, 10))])
def test_the_label_only_papers_networks(name, hidden):
    own = mlp.NETWORKS[name]
    assert own["hidden"] == (hidden,) and own["slope"] == 0.01 and own["batch_size"] == own["epochs"] == 1
    assert own["learning_rates"] == (1e-3, 1e-2, 5e-3, 5e-2) and own["select"] == "source"


def test_the_learning_rate_is_chosen_on_the_source_alone_and_pooled_over_a_family():
    rng = np.random.default_rng(0)
    jobs = [Job(*blobs(40, 4, 2.0, seed), rng.normal(size=(30, 4)), family) for seed, family in ((0, 0), (1, 0), (2, 1))]
    own = dict(mlp.NETWORKS["r"], learning_rates=(1e-5, 1e-2, 5e-2))
    found = mlp.fit(jobs, KEY, **own)
    for other in (np.zeros((5, 4)), 1e6 * rng.normal(size=(200, 4))):
        assert mlp.fit([job._replace(ask_NF=other) for job in jobs], KEY, **own).chosen == found.chosen
    count = np.array([_correct(jobs, dict(own, learning_rates=(rate,))) for rate in own["learning_rates"]])
    pooled = count @ np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert [rate for _, rate, _ in found.chosen] == [own["learning_rates"][i] for i in pooled.argmax(0)] and found.chosen[0][1] != 1e-5


def _correct(jobs, own) -> list[int]:
    """How many rows of its own source each job gets right."""
    scores = mlp.fit([job._replace(ask_NF=job.x_KF) for job in jobs], KEY, **own).scores
    return [int(((score > 0) == job.member_K).sum()) for score, job in zip(scores, jobs, strict=True)]


# ---- the attack finds what is there ----


@pytest.mark.parametrize("kind", FAST)
def test_a_separable_toy_is_separated(kind):
    x, member = blobs(100, 3, 12.0)
    ask, side = blobs(500, 3, 12.0, 1)
    options = FAST[kind]
    (score,) = attack_model.KINDS[kind](**options)([Job(x, member, ask)], KEY)
    middle = 0.5 if kind in ("random_forest", "knn") else 0.0
    assert ((score > middle) == side).mean() >= 0.99 and score.dtype == np.float64


@pytest.mark.parametrize("kind, per_class", [*((kind, False) for kind in FAST), ("logistic", True), ("mlp", True)])
@pytest.mark.parametrize("fit", ["shadows", "target"])
def test_a_planted_leak_is_found(kind, fit, per_class):
    attack = attack_model.make(kind=kind, fit=fit, features=("loss", "correct"), per_class=per_class, options=FAST[kind])
    design = halves.make(num_examples=300, seed=0, models=4, targets=1)
    fleet = planted.fleet(design, "loss", "correct", mu=4.0, seed=0, classes=3)
    first, second = (planted.scores(fleet, attack, KEY) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert planted.mean_auc(fleet, first) > 0.9


def test_the_label_only_attack_on_binary_vectors_of_views():
    attack = attack_model.make(features=("correct",), kind="mlp", options=dict(network="d"), per_class=True, scale=False)
    fleet = planted.fleet(blocks.make(num_examples=4000, seed=0, size=1000), "correct", mu=2.0, seed=0, query_views=5, classes=4)
    assert planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)) > 0.9
    assert attack.needs == ("correct", "y", "shadow_own") and attack.knows == "shadows"


def test_one_classifier_a_class_finds_what_pooling_cancels():
    rng = np.random.default_rng(0)
    member, y = rng.random(600) < 0.5, np.arange(600) % 2
    view = target(member, y=y, num_classes=2, loss=rng.normal(size=600) + 3 * np.where(y == 0, member, ~member))
    pooled, own = (attack_model.make(fit="target", features=("loss",), per_class=p).score(view, KEY) for p in (False, True))
    assert planted.auc(pooled, member) < 0.6 and planted.auc(own, member) > 0.95


@pytest.mark.parametrize("fit", ["shadows", "target"])
def test_a_class_that_is_too_small_takes_the_pooled_classifier(fit):
    design = blocks.make(num_examples=1200, seed=0, size=300, population=0.0)
    fleet = planted.fleet(design, "loss", mu=1.0, seed=0, classes=3)
    y = np.where(np.arange(1200) % 60 == 0, 2, np.arange(1200) % 2).astype(np.int32)  # 5 rows of class 2 a block, 6 a half of the target's
    fleet = dataclasses.replace(fleet, y=y, num_classes=3)
    pooled, own = (attack_model.make(fit=fit, features=("loss",), per_class=p) for p in (False, True))
    a, b = (planted.scores(fleet, one, KEY)[0] for one in (pooled, own))
    small = design.evaluated_MN[0] & (y == 2)
    np.testing.assert_array_equal(a[small], b[small])
    assert (a != b)[design.evaluated_MN[0] & (y < 2)].all() and "pooled where a class has fewer than 10" in own.note


# ---- cross-fitting ----


def recorded(monkeypatch) -> list[Job]:
    """The jobs that the next attack of kind 'logistic' hands to its head."""
    jobs: list[Job] = []

    def make():
        def head(given, key):
            jobs.extend(given)
            return [job.ask_NF[:, 0] for job in given]

        return head

    monkeypatch.setitem(attack_model.KINDS, "logistic", make)
    return jobs


@pytest.mark.parametrize("per_class", [False, True])
def test_every_row_is_scored_once_by_a_model_that_never_saw_it(per_class, monkeypatch):
    jobs = recorded(monkeypatch)
    rng = np.random.default_rng(0)
    loss, member, y = rng.normal(size=403), rng.permutation(np.arange(403) < 301), rng.integers(4, size=403)
    attack_model.make(fit="target", features=("loss",), per_class=per_class, scale=False).score(target(member, y=y, num_classes=4, loss=loss), KEY)
    side = dict(zip(loss.astype(np.float32).astype(float), member, strict=True))
    asked = np.concatenate([job.ask_NF[:, 0] for job in jobs])
    assert sorted(asked) == sorted(side) and len(jobs) == (8 if per_class else 2)
    for job in jobs:
        assert not set(job.x_KF[:, 0]) & set(job.ask_NF[:, 0])
        assert job.member_K.sum() * 2 == len(job.member_K) and [side[v] for v in job.x_KF[:, 0]] == job.member_K.tolist()
        shares = [np.mean([side[v] for v in job.ask_NF[:, 0]]) for job in jobs]
    assert per_class or max(shares) - min(shares) < 0.01


@pytest.mark.parametrize("kind", ["logistic", "knn"])
def test_a_rows_own_label_cannot_reach_its_score(kind, monkeypatch):
    """With halves drawn by hash alone (stratified ones move other rows when a label changes) a flipped label changes no bit of its own score."""
    monkeypatch.setattr(attack_model, "halves", lambda side_N, hash_N: (hash_N % np.uint64(2)).astype(int))
    rng = np.random.default_rng(0)
    loss, member = rng.normal(size=200), rng.permutation(np.arange(200) < 150)
    attack = attack_model.make(kind=kind, fit="target", features=("loss",))
    before = attack.score(target(member, loss=loss), KEY)
    for n in (0, 7, 50):
        flipped = np.where(np.arange(200) == n, ~member, member)
        after = attack.score(target(flipped, loss=loss), KEY)
        assert after[n] == before[n] and (after != before).any()


def left_out_by_the_last_fold(x: np.ndarray, member: np.ndarray, rng) -> np.ndarray:
    """Cross-fitting on a balanced subset whose left-out rows are all scored by the second fold's model: the recipe with the bias."""
    fewer = min(member.sum(), (~member).sum())
    kept = np.concatenate([rng.permutation(np.flatnonzero(side))[:fewer] for side in (member, ~member)])
    kept = rng.permutation(kept)
    half = rows.folds(member[kept], 2)
    score, head = np.full(len(x), np.nan), logistic.make()
    for f in (0, 1):
        learn, ask = kept[half != f], kept[half == f] if f == 0 else np.setdiff1d(np.arange(len(x)), kept[half == 0])
        score[ask] = head([Job(x[learn], member[learn], x[ask])], KEY)[0]
    return score


def test_signals_that_tell_nothing_tell_nothing_with_unequal_sides():
    """300 members, 100 non-members, features independent of membership: AUC .5 and the advantage of random scores; the old recipe fails."""
    attack = attack_model.make(fit="target", features=("loss", "hinge"))
    found: dict[str, list] = dict(ours=[], biased=[], random=[])
    for seed in range(80):
        rng = np.random.default_rng(seed)
        member = rng.permutation(np.arange(400) < 300)
        loss, hinge = rng.normal(size=(2, 400))
        scores = dict(ours=attack.score(target(member, loss=loss, hinge=hinge), jax.random.key(seed)), random=rng.normal(size=400))
        scores["biased"] = left_out_by_the_last_fold(np.c_[loss, hinge], member, rng)
        for name, score in scores.items():
            found[name].append((planted.auc(score, member), advantage(score, member)))
    mean = {k: np.mean(v, 0) for k, v in found.items()}
    error = {k: np.std(v, 0, ddof=1) / np.sqrt(80) for k, v in found.items()}
    assert abs(mean["ours"][0] - 0.5) < 4 * error["ours"][0]
    allowed = mean["random"][1] + 4 * np.hypot(error["random"][1], error["ours"][1])
    assert mean["ours"][1] < allowed and mean["biased"][1] > allowed + 0.02, (mean, error)


@pytest.mark.parametrize("kind, fit", [("logistic", "shadows"), ("knn", "target"), ("mlp", "target"), ("mlp", "shadows")])
def test_unequal_sides_tell_nothing(kind, fit):
    aucs = []
    attack = attack_model.make(kind=kind, fit=fit, features=("loss", "hinge"), options=dict(FAST[kind], epochs=4) if kind == "mlp" else FAST[kind])
    for seed in range(30):
        design = blocks.make(num_examples=1200, seed=seed, size=200, sources=2)
        left_out_MN = ~design.member_MN & (np.arange(1200) % 3 > 0)  # a third of the non-members is evaluated
        design = dataclasses.replace(design, evaluated_MN=design.evaluated_MN & ~left_out_MN)
        fleet = planted.fleet(design, "loss", "hinge", mu=0.0, seed=seed)
        aucs.append(planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)))
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / np.sqrt(30), (np.mean(aucs), np.std(aucs))


def test_the_targets_membership_is_for_attacks_that_say_so():
    attack = attack_model.make(fit="target", features=("loss",))
    fleet = planted.fleet(folds.make(num_examples=60, seed=0), "loss", mu=0.0, seed=0)
    assert attack.needs == ("loss", "member") and attack.knows == CROSS_FITTED == "half_of_target_members"
    view = fleet.view(0, attack.needs, attack.knows)
    np.testing.assert_array_equal(view.member_N, fleet.design.member_MN[0] & fleet.design.evaluated_MN[0])
    assert fleet.view(0, ("loss", "y", "x")).member_N is None and not fleet.refuse(attack, "it")
    with pytest.raises(ValueError, match="must declare knows='half_of_target_members', not 'shadows'"):
        fleet.view(0, attack.needs)
    assert "needs the target's membership and must declare" in fleet.refuse(attack._replace(knows="shadows"), "it")


# ---- features ----


def test_features_are_what_their_names_say():
    rng = np.random.default_rng(0)
    logits, loss, y = rng.normal(size=(2, 8, 3)), rng.normal(size=(2, 8)), rng.integers(3, size=8)
    view = dataclasses.replace(target(np.ones(8, bool), y=y, num_classes=3, columns=dict(age=np.arange(8))), x=rng.normal(size=(8, 2, 2)))
    wanted = _features.make(("probabilities", "loss", "label", "x"), ("age",))
    at = np.array([5, 2])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.concatenate([p[0][at], p[1][at], loss.T[at], np.eye(3)[y][at], view.x[at].reshape(2, 4), at[:, None]], 1)
    np.testing.assert_allclose(_features.matrix(wanted, dict(logits=logits, loss=loss), view, at), expected, rtol=1e-12)
    mean = _features.make(("probabilities", "loss"), views="mean")
    expected = np.concatenate([p.mean(0)[at], loss.mean(0)[at, None]], 1)
    np.testing.assert_allclose(_features.matrix(mean, dict(logits=logits, loss=loss), view, at), expected, rtol=1e-12)
    assert wanted.needs == ("logits", "loss", "y", "x", "columns")


@pytest.mark.parametrize("kind", FAST)
def test_constant_features_tie(kind):
    attack = attack_model.make(kind=kind, features=("loss",), options=FAST[kind])
    fleet = planted.fleet(halves.make(num_examples=60, seed=0, models=4, targets=1), "loss", mu=0.0, seed=0)
    fleet = dataclasses.replace(fleet, signal=dict(loss=np.full_like(fleet.signal["loss"], 3.3)))
    score = planted.scores(fleet, attack, KEY)[0][fleet.design.evaluated_MN[0]]
    assert np.isfinite(score).all() and len(np.unique(score)) == 1


def test_rows_bound_what_is_learned_from(monkeypatch):
    jobs = recorded(monkeypatch)
    fleet = planted.fleet(halves.make(num_examples=300, seed=0, models=6, targets=1), "loss", mu=1.0, seed=0)
    for fit, most in (("shadows", 100), ("shadows", 20_000), ("target", 60)):
        jobs.clear()
        planted.scores(fleet, attack_model.make(fit=fit, features=("loss",), rows=most), KEY)
        for job in jobs:
            assert len(job.x_KF) == min(most, 4 * 270) and job.member_K.mean() == 0.5


# ---- refusals ----


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(kind="logistics"), "kind='logistics' is not one of .* Did you mean 'logistic'"),
        (dict(kind="svm"), "kind='svm'"),
        (dict(fit="source"), "fit='source'"),
        (dict(views="all"), "views='all'"),
        (dict(features=()), "leave nothing to learn from"),
        (dict(features=("loss", "member")), "'member' is no feature"),
        (dict(features=("loss", "loss")), "'loss' is named twice"),
        (dict(rows=4), "rows=4 must be at least 6"),
        (dict(options=dict(c=1)), "options of kind 'logistic' has no field 'c'"),
        (dict(options=dict(cs=(1.0, 0.0))), r"cs\[1\]=0.0 must be > 0"),
        (dict(kind="mlp", options=dict(network="x")), "network='x'"),
        (dict(kind="mlp", options=dict(select="target")), "select='target'"),
        (dict(kind="knn", options=dict(neighbors=(0,))), "fewest_neighbors=0"),
    ],
)
def test_bad_arguments_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        registry.make("attacks", "attack_model", fields)


@pytest.mark.parametrize(
    "fields, view, message",
    [
        ({}, dict(loss=np.r_[np.nan, np.zeros(39)]), "feature 'loss' has 1 of 40 values that are NaN"),
        (dict(features=("probabilities",)), dict(logits=np.full((40, 3), np.inf)), "feature 'logits' has 120 of 120"),
        (dict(columns=("age",)), dict(columns=dict(age=np.full(40, np.nan))), "feature 'column age' has 40 of 40"),
        (dict(columns=("city",)), dict(columns=dict(city=np.full(40, "Riga"))), "column 'city' has dtype <U4; a feature must be a number"),
        (dict(columns=("age",)), dict(columns=dict(ages=np.zeros(40))), "no column 'age'. Columns: ages. Did you mean 'ages'"),
        (dict(features=("loss", "label")), dict(y=np.linspace(0, 1, 40)), "not one class number an example"),
        (dict(per_class=True), dict(y=np.full(40, 7), num_classes=3), r"labels lie in 7..7; expected 0..2"),
        ({}, dict(member=np.ones(40, bool)), "a half of the target's rows give 20 members and 0 non-members"),
        ({}, dict(member=np.zeros(40, bool)), "0 members and 20 non-members to learn from; an attack model needs at least 3 of each"),
        ({}, dict(member=np.arange(40) < 5), "give [23] members and 1[78] non-members"),
    ],
)
def test_bad_inputs_are_named(fields, view, message):
    given = dict(member=np.arange(40) % 2 == 0, loss=np.arange(40.0)) | view
    member = given.pop("member")
    with pytest.raises(ValueError, match=message):
        attack_model.make(**dict(dict(fit="target", features=("loss",)) | fields)).score(target(member, **given), KEY)
