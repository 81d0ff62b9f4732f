"""The attack model: planted leaks, cross-fitting that no row's own label can reach, unequal sides,
features, order, constants and refusals.
"""

import dataclasses

import jax
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.attacks import _features, attack_model
from mia_jax.designs import blocks, folds, halves
from mia_jax.fitting import logistic, rows
from mia_jax.fitting.rows import Job
from mia_jax.threat_model import CROSS_FITTED, Evidence
from tests import planted

KEY = jax.random.key(0)
FAST = dict(  # the kinds with grids small enough for a test
    logistic={},
    mlp=dict(hidden=((16,),), alphas=(1e-3,), batch_size=50, learning_rates=(0.01,), epochs=40),
    random_forest=dict(trees=20, grid={}),
    knn={},
    gradient_boosting=dict(grid=dict(max_iter=(20,), min_samples_leaf=(5,))),
    chosen=dict(kinds=dict(logistic={}, knn={})),
)


def target(
    member_N: np.ndarray, *, y=None, columns={}, num_classes: int = 0, **signal: np.ndarray
) -> Evidence:
    """The evidence against one target whose rows are all evaluated."""
    everywhere = np.ones(len(member_N), bool)
    none = dict(
        shadow={},
        shadow_member_MN=None,
        shadow_evaluated_MN=None,
        visible_MN=None,
        population_N=None,
    )
    given = {k: np.asarray(v, np.float32)[None] for k, v in signal.items()}
    return Evidence(
        target=given,
        evaluated_N=everywhere,
        num_classes=num_classes,
        y=y,
        columns=columns,
        member_N=member_N,
        **none,
    )


def advantage(score_N: np.ndarray, member_N: np.ndarray) -> float:
    """max |TPR - FPR| over thresholds between distinct scores."""
    order = np.argsort(score_N)
    cut = np.append(np.diff(score_N[order]) > 0, True)
    inside, outside = (
        np.cumsum(member_N[order]) / member_N.sum(),
        np.cumsum(~member_N[order]) / (~member_N).sum(),
    )
    return float(np.abs(inside - outside)[cut].max())


# ---- the attack finds what is there ----


@pytest.mark.parametrize(
    "kind, per_class",
    [
        *((kind, False) for kind in FAST),
        ("logistic", True),  # the classes are divided before the kind is asked
        pytest.param("mlp", True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("fit", ["shadows", "target"])
def test_a_planted_leak_is_found(kind, fit, per_class):
    attack = attack_model.make(
        kind=kind, fit=fit, features=("loss", "correct"), per_class=per_class, options=FAST[kind]
    )
    design = halves.make(num_examples=300, seed=0, models=4, targets=1)
    fleet = planted.fleet(design, "loss", "correct", mu=4.0, seed=0, classes=3)
    first, second = (planted.scores(fleet, attack, KEY) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert planted.mean_auc(fleet, first) > 0.9


def test_the_label_only_attack_on_binary_vectors_of_views():
    attack = attack_model.make(
        features=("correct",), kind="mlp", options=dict(network="d"), per_class=True, scale=False
    )
    fleet = planted.fleet(
        blocks.make(num_examples=4000, seed=0, size=1000),
        "correct",
        mu=2.0,
        seed=0,
        query_views=5,
        classes=4,
    )
    assert planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)) > 0.9
    assert attack.needs == ("correct", "y", "shadow_own") and attack.knows == "shadows"


def test_a_classifier_per_class_finds_what_pooling_cancels():
    rng = np.random.default_rng(0)
    member, y = rng.random(600) < 0.5, np.arange(600) % 2
    evidence = target(
        member,
        y=y,
        num_classes=2,
        loss=rng.normal(size=600) + 3 * np.where(y == 0, member, ~member),
    )
    pooled, per_class = (
        attack_model.make(fit="target", features=("loss",), per_class=p).score(evidence, KEY)
        for p in (False, True)
    )
    assert planted.auc(pooled, member) < 0.6 and planted.auc(per_class, member) > 0.95


@pytest.mark.parametrize("fit", ["shadows", "target"])
def test_a_class_that_is_too_small_takes_the_pooled_classifier(fit):
    design = blocks.make(num_examples=1200, seed=0, size=300, population=0.0)
    fleet = planted.fleet(design, "loss", mu=1.0, seed=0, classes=3)
    y = np.where(np.arange(1200) % 60 == 0, 2, np.arange(1200) % 2).astype(
        np.int32
    )  # 5 rows of class 2 a block, 6 a half of the target's
    fleet = dataclasses.replace(fleet, y=y, num_classes=3)
    pooled, per_class = (
        attack_model.make(fit=fit, features=("loss",), per_class=p) for p in (False, True)
    )
    a, b = (planted.scores(fleet, attack, KEY)[0] for attack in (pooled, per_class))
    small = design.evaluated_MN[0] & (y == 2)
    np.testing.assert_array_equal(a[small], b[small])
    assert (a != b)[
        design.evaluated_MN[0] & (y < 2)
    ].all() and "pooled where a class has fewer than 10" in per_class.note


# ---- cross-fitting ----


def recorded(monkeypatch) -> list[Job]:
    """The jobs that the next attack of kind 'logistic' hands to its head."""
    jobs: list[Job] = []

    def make():
        def head(given, key):
            jobs.extend(given)
            return [job.ask_NF[:, 0] for job in given]

        return head

    monkeypatch.setattr(logistic, "make", make)
    return jobs


@pytest.mark.parametrize("per_class", [False, True])
def test_every_row_is_scored_once_by_a_model_that_never_saw_it(per_class, monkeypatch):
    jobs = recorded(monkeypatch)
    rng = np.random.default_rng(0)
    loss, member, y = (
        rng.normal(size=403),
        rng.permutation(np.arange(403) < 301),
        rng.integers(4, size=403),
    )
    attack_model.make(fit="target", features=("loss",), per_class=per_class, scale=False).score(
        target(member, y=y, num_classes=4, loss=loss), KEY
    )
    side = dict(zip(loss.astype(np.float32).astype(float), member, strict=True))
    asked = np.concatenate([job.ask_NF[:, 0] for job in jobs])
    assert sorted(asked) == sorted(side) and len(jobs) == (8 if per_class else 2)
    for job in jobs:
        assert not set(job.x_KF[:, 0]) & set(job.ask_NF[:, 0])
        assert (
            job.member_K.sum() * 2 == len(job.member_K)
            and [side[v] for v in job.x_KF[:, 0]] == job.member_K.tolist()
        )
        shares = [np.mean([side[v] for v in job.ask_NF[:, 0]]) for job in jobs]
    assert per_class or max(shares) - min(shares) < 0.01


@pytest.mark.parametrize("kind", ["logistic", "knn"])
def test_a_rows_own_label_cannot_reach_its_score(kind, monkeypatch):
    """A flipped label changes no bit of its own row's score.

    Halves are drawn by hash only: stratified halves move other rows when a label changes.
    """
    monkeypatch.setattr(
        attack_model, "halves", lambda side_N, hash_N: (hash_N % np.uint64(2)).astype(int)
    )
    rng = np.random.default_rng(0)
    loss, member = rng.normal(size=200), rng.permutation(np.arange(200) < 150)
    attack = attack_model.make(kind=kind, fit="target", features=("loss",))
    before = attack.score(target(member, loss=loss), KEY)
    for n in (0, 7, 50):
        flipped = np.where(np.arange(200) == n, ~member, member)
        after = attack.score(target(flipped, loss=loss), KEY)
        assert after[n] == before[n] and (after != before).any()


def left_out_by_the_last_fold(x: np.ndarray, member: np.ndarray, rng) -> np.ndarray:
    """Returns scores of a biased recipe, for comparison.

    It is cross-fitted on a balanced subset; the second fold's model scores all left-out rows.
    """
    fewer = min(member.sum(), (~member).sum())
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(side))[:fewer] for side in (member, ~member)]
    )
    kept = rng.permutation(kept)
    half = rows.folds(member[kept], 2)
    score, head = np.full(len(x), np.nan), logistic.make()
    for f in (0, 1):
        learn, ask = (
            kept[half != f],
            kept[half == f] if f == 0 else np.setdiff1d(np.arange(len(x)), kept[half == 0]),
        )
        score[ask] = head([Job(x[learn], member[learn], x[ask])], KEY)[0]
    return score


@pytest.mark.slow
def test_uninformative_signals_stay_uninformative_with_unequal_sides():
    """300 members, 100 non-members, features independent of membership: AUC .5 and the advantage of
    random scores; the old recipe fails.
    """
    attack = attack_model.make(fit="target", features=("loss", "hinge"))
    aucs: dict[str, list] = dict(ours=[], biased=[], random=[])
    for seed in range(80):
        rng = np.random.default_rng(seed)
        member = rng.permutation(np.arange(400) < 300)
        loss, hinge = rng.normal(size=(2, 400))
        scores = dict(
            ours=attack.score(target(member, loss=loss, hinge=hinge), jax.random.key(seed)),
            random=rng.normal(size=400),
        )
        scores["biased"] = left_out_by_the_last_fold(np.c_[loss, hinge], member, rng)
        for name, score in scores.items():
            aucs[name].append((planted.auc(score, member), advantage(score, member)))
    mean = {k: np.mean(v, 0) for k, v in aucs.items()}
    error = {k: np.std(v, 0, ddof=1) / np.sqrt(80) for k, v in aucs.items()}
    assert abs(mean["ours"][0] - 0.5) < 4 * error["ours"][0]
    allowed = mean["random"][1] + 4 * np.hypot(error["random"][1], error["ours"][1])
    assert mean["ours"][1] < allowed and mean["biased"][1] > allowed + 0.02, (mean, error)


@pytest.mark.parametrize(
    "kind, fit",
    [
        ("logistic", "shadows"),
        ("knn", "target"),
        ("mlp", "shadows"),
        pytest.param("mlp", "target", marks=pytest.mark.slow),
    ],
)
def test_unequal_sides_reveal_nothing(kind, fit):
    aucs = []
    attack = attack_model.make(
        kind=kind,
        fit=fit,
        features=("loss", "hinge"),
        options=dict(FAST[kind], epochs=4) if kind == "mlp" else FAST[kind],
    )
    for seed in range(30):
        design = blocks.make(num_examples=1200, seed=seed, size=200, sources=2)
        left_out_MN = ~design.member_MN & (
            np.arange(1200) % 3 > 0
        )  # a third of the non-members is evaluated
        design = dataclasses.replace(design, evaluated_MN=design.evaluated_MN & ~left_out_MN)
        fleet = planted.fleet(design, "loss", "hinge", mu=0.0, seed=seed)
        aucs.append(planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)))
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / np.sqrt(30), (
        np.mean(aucs),
        np.std(aucs),
    )


def test_the_targets_membership_is_for_attacks_that_say_so():
    attack = attack_model.make(fit="target", features=("loss",))
    fleet = planted.fleet(folds.make(num_examples=60, seed=0), "loss", mu=0.0, seed=0)
    assert (
        attack.needs == ("loss", "member")
        and attack.knows == CROSS_FITTED == "half_of_target_members"
    )
    evidence = fleet.evidence_against(0, attack.needs, attack.knows)
    np.testing.assert_array_equal(
        evidence.member_N, fleet.design.member_MN[0] & fleet.design.evaluated_MN[0]
    )
    assert fleet.evidence_against(0, ("loss", "y", "x")).member_N is None and not fleet.refuse(
        attack, "it"
    )
    with pytest.raises(
        ValueError, match="must declare knows='half_of_target_members', not 'shadows'"
    ):
        fleet.evidence_against(0, attack.needs)
    assert "needs the target's membership and must declare" in fleet.refuse(
        attack._replace(knows="shadows"), "it"
    )


# ---- features ----


def test_features_are_what_their_names_say():
    rng = np.random.default_rng(0)
    logits, loss, y = rng.normal(size=(2, 8, 3)), rng.normal(size=(2, 8)), rng.integers(3, size=8)
    evidence = dataclasses.replace(
        target(np.ones(8, bool), y=y, num_classes=3, columns=dict(age=np.arange(8))),
        x=rng.normal(size=(8, 2, 2)),
    )
    features = _features.make(("probabilities", "loss", "label", "x"), ("age",))
    at = np.array([5, 2])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.concatenate(
        [
            p[0][at],
            p[1][at],
            loss.T[at],
            np.eye(3)[y][at],
            evidence.x[at].reshape(2, 4),
            at[:, None],
        ],
        1,
    )
    np.testing.assert_allclose(
        _features.matrix(features, dict(logits=logits, loss=loss), evidence, at),
        expected,
        rtol=1e-12,
    )
    mean = _features.make(("probabilities", "loss"), views="mean")
    expected = np.concatenate([p.mean(0)[at], loss.mean(0)[at, None]], 1)
    np.testing.assert_allclose(
        _features.matrix(mean, dict(logits=logits, loss=loss), evidence, at), expected, rtol=1e-12
    )
    assert features.needs == ("logits", "loss", "y", "x", "columns")


@pytest.mark.parametrize(
    "kind, fit",
    [
        ("mlp", "shadows"),
        pytest.param("mlp", "target", marks=pytest.mark.slow),
        ("random_forest", "target"),
        ("gradient_boosting", "shadows"),
    ],
)
def test_scores_do_not_depend_on_the_order_of_the_pool(kind, fit):
    attack = attack_model.make(kind=kind, fit=fit, features=("loss",), options=FAST[kind])
    fleet = planted.fleet(
        halves.make(num_examples=120, seed=0, models=4, targets=1), "loss", mu=1.0, seed=0
    )
    order = np.random.default_rng(1).permutation(120)
    score_TN = planted.scores(planted.permuted(fleet, order), attack, KEY)
    np.testing.assert_allclose(
        score_TN, planted.scores(fleet, attack, KEY)[:, order], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("kind", FAST)
def test_constant_features_tie(kind):
    attack = attack_model.make(kind=kind, features=("loss",), options=FAST[kind])
    fleet = planted.fleet(
        halves.make(num_examples=60, seed=0, models=4, targets=1), "loss", mu=0.0, seed=0
    )
    fleet = dataclasses.replace(fleet, signal=dict(loss=np.full_like(fleet.signal["loss"], 3.3)))
    score = planted.scores(fleet, attack, KEY)[0][fleet.design.evaluated_MN[0]]
    assert np.isfinite(score).all() and len(np.unique(score)) == 1


def test_rows_bound_what_is_learned_from(monkeypatch):
    jobs = recorded(monkeypatch)
    fleet = planted.fleet(
        halves.make(num_examples=300, seed=0, models=6, targets=1), "loss", mu=1.0, seed=0
    )
    for fit, most in (("shadows", 100), ("shadows", 20_000), ("target", 60)):
        jobs.clear()
        planted.scores(fleet, attack_model.make(fit=fit, features=("loss",), rows=most), KEY)
        for job in jobs:
            assert len(job.x_KF) == min(most, 4 * 270) and job.member_K.mean() == 0.5


# ---- refusals ----


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(kind="logistics"), "classifiers: there is no 'logistics'. Did you mean 'logistic'"),
        (dict(kind="svm"), "there is no 'svm'"),
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
def test_messages_name_the_bad_argument(fields, message):
    with pytest.raises(ValueError, match=message):
        registry.make("attacks", "attack_model", fields)


@pytest.mark.parametrize(
    "fields, evidence, message",
    [
        (
            {},
            dict(loss=np.r_[np.nan, np.zeros(39)]),
            "feature 'loss' has 1 of 40 values that are NaN",
        ),
        (
            dict(features=("probabilities",)),
            dict(logits=np.full((40, 3), np.inf)),
            "feature 'logits' has 120 of 120",
        ),
        (
            dict(columns=("age",)),
            dict(columns=dict(age=np.full(40, np.nan))),
            "feature 'column age' has 40 of 40",
        ),
        (
            dict(columns=("city",)),
            dict(columns=dict(city=np.full(40, "Riga"))),
            "column 'city' has dtype <U4; a feature must be a number",
        ),
        (
            dict(columns=("age",)),
            dict(columns=dict(ages=np.zeros(40))),
            "no column 'age'. Did you mean 'ages'. Columns: ages",
        ),
        (
            dict(features=("loss", "label")),
            dict(y=np.linspace(0, 1, 40)),
            "not one class number per example",
        ),
        (
            dict(per_class=True),
            dict(y=np.full(40, 7), num_classes=3),
            r"labels lie in 7..7; expected 0..2",
        ),
        (
            {},
            dict(member=np.ones(40, bool)),
            "a half of the target's rows give 20 members and 0 non-members",
        ),
        (
            {},
            dict(member=np.zeros(40, bool)),
            "0 members and 20 non-members to learn from; an attack model needs at least 3 of each",
        ),
        ({}, dict(member=np.arange(40) < 5), "give [23] members and 1[78] non-members"),
    ],
)
def test_messages_name_the_bad_input(fields, evidence, message):
    given = dict(member=np.arange(40) % 2 == 0, loss=np.arange(40.0)) | evidence
    member = given.pop("member")
    with pytest.raises(ValueError, match=message):
        attack_model.make(**dict(dict(fit="target", features=("loss",)) | fields)).score(
            target(member, **given), KEY
        )
