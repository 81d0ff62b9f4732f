"""Holds, for each case of `benchmarks.attacks`, the data and the implementations that are compared.

An implementation is a function of the data that returns (numbers, spent). `spent` is None, or the
[wall, processor] seconds of the part that counts.
"""

from __future__ import annotations

import sys
import time
import types

import numpy as np

FPR = 0.01


def clock() -> np.ndarray:
    """Returns wall and processor seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def seen(**fields):
    """Returns the evidence with these fields."""
    from mia_jax.threat_model import Evidence

    nothing = dict.fromkeys(
        ("shadow_member_MN", "shadow_evaluated_MN", "visible_MN", "population_N")
    )
    return Evidence(**nothing | dict(target={}, shadow={}, num_classes=10) | fields)


def with_shadows(name: str, target_AN, shadow_MAN, member_MN, population_N=None):
    """Returns the evidence against one target whose shadows' signal is visible on all rows."""
    every_MN = np.ones(member_MN.shape, bool)
    evaluated_N = every_MN[0] if population_N is None else ~population_N
    shown = dict(
        shadow_member_MN=member_MN,
        shadow_evaluated_MN=every_MN & evaluated_N,
        visible_MN=every_MN,
        population_N=population_N,
    )
    return seen(
        target={name: target_AN}, shadow={name: shadow_MAN}, evaluated_N=evaluated_N, **shown
    )


# Scores of one target
# --------------------------------------------------------------------------------


def softmax_rows(members: int, nonmembers: int) -> dict:
    """Draws logits over 10 classes, larger at the true class for members, and their loss."""
    from scipy.special import log_softmax

    rng, count = np.random.default_rng(0), members + nonmembers
    y, member = rng.integers(10, size=count).astype(np.int32), rng.permutation(count) < members
    z = rng.normal(size=(count, 10)) * 2
    z[np.arange(count), y] += np.where(member, 4.0, 3.0)
    target = dict(
        logits=z[None].astype(np.float32),
        loss=-log_softmax(z, -1)[None, np.arange(count), y].astype(np.float32),
    )
    return dict(
        y=y,
        member=member,
        evidence=seen(target=target, evaluated_N=np.ones(count, bool), y=y, member_N=member),
    )


def two_normals(count: int, members: int) -> dict:
    """Draws scores of which the first `members` belong to members."""
    member = np.arange(count) < members
    return dict(score=np.random.default_rng(0).normal(size=count) + member, member=member)


def read_off(curve) -> tuple[float, float, float]:
    """Returns AUC, TPR@1%FPR and the largest TPR - FPR of a ROC curve of mia_jax."""
    from mia_jax.metrics import roc

    return roc.auc(curve), roc.tpr_at_fpr(curve, FPR).tpr, roc.advantage(curve)


def by_sklearn(score_N, member_N) -> tuple[float, float, float]:
    """Returns the same numbers of scikit-learn's ROC curve."""
    from sklearn import metrics

    fpr, tpr, _ = metrics.roc_curve(member_N, score_N)
    return (
        metrics.auc(fpr, tpr),
        tpr[np.searchsorted(fpr, FPR * (1 + 1e-9), side="right") - 1],
        np.abs(tpr - fpr).max(),
    )


def threshold_ours(data: dict):
    from mia_jax.attacks import threshold
    from mia_jax.metrics import roc, slices

    score_N, member_N = threshold.make().score(data["evidence"], None), data["member"]
    (layer,) = slices.make(("class",), np.ones((1, len(score_N)), bool), labels_N=data["y"])
    return [
        read_off(roc.roc(score_N[rows], member_N[rows]))
        for rows in (slice(None), *(layer.code == c for c in range(10)))
    ], None


def threshold_sklearn(data: dict):
    score_N, y_N, member_N = (
        -data["evidence"].target["loss"][0].astype(np.float64),
        data["y"],
        data["member"],
    )
    return [
        by_sklearn(score_N[rows], member_N[rows])
        for rows in (slice(None), *(y_N == c for c in range(10)))
    ], None


def threshold_whole(data: dict):
    from mia_jax.attacks import threshold
    from mia_jax.metrics import bootstrap, slice_rows, slices

    score_TN, member_TN = threshold.make().score(data["evidence"], None)[None], data["member"][None]
    every_TN = np.ones(score_TN.shape, bool)
    layers = slices.make(("class",), every_TN, labels_N=data["y"])
    attacks = dict(threshold=dict(score_TN=score_TN, threshold_T=[np.median(score_TN)]))
    return slice_rows.rows(
        attacks, member_TN, every_TN, layers, draws=bootstrap.make(score_TN.size, [0]), fprs=(FPR,)
    ), None


def logistic_ours(data: dict, kind: str = "logistic"):
    import jax

    from mia_jax.attacks import attack_model
    from mia_jax.metrics import roc

    pooled_N, by_class_N = (
        attack_model.make(kind=kind, fit="target", per_class=c).score(
            data["evidence"], jax.random.key(0)
        )
        for c in (False, True)
    )
    y_N, member_N = data["y"], data["member"]
    curves = [
        roc.roc(pooled_N, member_N),
        *(roc.roc(by_class_N[y_N == c], member_N[y_N == c]) for c in range(10)),
    ]
    return [roc.auc(curve) for curve in curves], None


def logistic_sklearn(data: dict, solver: str = "lbfgs"):
    """Runs the attack with scikit-learn's classifier; only its seconds are returned."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    from mia_jax.fitting import logistic

    spent = np.zeros(2)

    def head(jobs, key):
        nonlocal spent
        start, scores = clock(), []
        for job in jobs:
            classifier = LogisticRegression(
                solver=solver, tol=1e-6, max_iter=10_000
            )  # at the default of 1e-4 lbfgs stops short of the minimum
            grid = GridSearchCV(classifier, dict(C=logistic.CS), cv=StratifiedKFold(3)).fit(
                job.x_KF, job.member_K
            )
            scores.append(grid.decision_function(job.ask_NF))
        spent += clock() - start
        return scores

    module = types.ModuleType(
        "benchmarks._scikit_learn"
    )  # a classifier by its dotted name, as one of a user's own
    module.make = lambda: head
    sys.modules[module.__name__] = module
    return logistic_ours(data, module.__name__)[0], spent


def logistic_newton(data: dict):
    return logistic_sklearn(data, "newton-cholesky")


def bootstrap_data(rows: int, draws: int, part: int) -> dict:
    return two_normals(2 * rows, rows) | dict(draws=draws, part=part)


def spreads(auc_R, tpr_R) -> list[float]:
    """Returns means and standard deviations over the draws."""
    return [np.mean(auc_R), np.mean(tpr_R), np.std(auc_R), np.std(tpr_R)]


def bootstrap_ours(data: dict):
    from mia_jax.metrics import bootstrap, outcomes

    score_N, member_N = data["score"], data["member"]
    rank = bootstrap.ranked(score_N, member_N, np.arange(len(score_N)))
    record_NR = bootstrap.stratified(0, member_N, np.ones(len(score_N), bool), data["draws"])
    auc_R, _, tpr_FR = bootstrap.redraw(
        rank, record_NR, None, [outcomes.allowed(FPR, len(rank.nonmember_J))]
    )
    return spreads(auc_R, tpr_FR[0]), None


def bootstrap_sklearn(data: dict):
    start, rng, metrics_of_draws = clock(), np.random.default_rng(1), []
    sides = [np.flatnonzero(data["member"]), np.flatnonzero(~data["member"])]
    for _ in range(data["part"]):
        rows = np.concatenate([rng.choice(side, len(side)) for side in sides])
        metrics_of_draws.append(by_sklearn(data["score"][rows], data["member"][rows])[:2])
    return spreads(*zip(*metrics_of_draws)), (clock() - start) * data["draws"] / data["part"]


def scaling_data(count: int) -> dict:
    return two_normals(count, count // 2)


def scaling_ours(data: dict):
    from mia_jax.metrics import roc

    curve = roc.roc(data["score"], data["member"])
    return [roc.auc(curve), roc.tpr_at_fpr(curve, FPR).tpr], None


def scaling_sklearn(data: dict):
    from sklearn import metrics

    fpr, tpr, _ = metrics.roc_curve(data["member"], data["score"])
    return [
        metrics.auc(fpr, tpr),
        tpr[np.searchsorted(fpr, FPR * (1 + 1e-9), side="right") - 1],
    ], None


# Scores from shadows
# --------------------------------------------------------------------------------


def lira_data(shadows: int, examples: int, views: int, part: int) -> dict:
    rng = np.random.default_rng(0)
    member_MN, easy_N = rng.random((shadows, examples)) < 0.5, rng.normal(size=examples)
    shadow_MAN = rng.normal(size=(shadows, views, examples)) + easy_N + member_MN[:, None]
    target_AN = rng.normal(size=(views, examples)) + easy_N
    evidence = with_shadows(
        "rescaled_logit", target_AN.astype(np.float32), shadow_MAN.astype(np.float32), member_MN
    )
    return dict(evidence=evidence, part=part)


def lira_ours(data: dict):
    from mia_jax.attacks import lira

    return lira.make(variance="per_example").score(data["evidence"], None)[: data["part"]], None


def lira_scipy(data: dict):
    from scipy import stats

    evidence, start, scores = data["evidence"], clock(), []
    target_AN, shadow_MAN, member_MN = (
        evidence.target["rescaled_logit"],
        evidence.shadow["rescaled_logit"],
        evidence.shadow_member_MN,
    )
    for n in range(data["part"]):
        inside_N = member_MN[:, n]
        sides = [shadow_MAN[chosen, :, n].astype(np.float64) for chosen in (inside_N, ~inside_N)]
        inside, outside = (
            stats.norm.logpdf(target_AN[:, n], side.mean(0), side.std(0, ddof=1)) for side in sides
        )
        scores.append(np.mean(inside - outside))
    return scores, (clock() - start) * target_AN.shape[1] / data["part"]


def rmia_data(shadows: int, examples: int, population: int) -> dict:
    """Draws confidences of a target and its shadow models, and two vectors of ratios."""
    rng, count = np.random.default_rng(0), examples + population
    population_N = np.arange(count) >= examples
    member_MN = (rng.random((shadows, count)) < 0.5) & ~population_N
    p_MAN = 1 / (1 + np.exp(-rng.normal(size=(shadows + 1, 1, count)))).astype(np.float32)
    evidence = with_shadows("confidence", p_MAN[0], p_MAN[1:], member_MN, population_N)
    log_x, log_z = rng.normal(size=examples), rng.normal(size=population)
    return dict(
        evidence=evidence,
        x=np.exp(log_x),
        z=np.exp(log_z),
        gamma=2.0,
        # The attack works with log ratios.
        log=(log_x, log_z, np.log(2.0)),
    )


def rmia_ours(data: dict):
    from mia_jax.attacks import rmia

    return rmia.share_dominated(*data["log"]), None


def rmia_whole(data: dict):
    from mia_jax.attacks import rmia

    return rmia.make(signal="confidence", temperature=1.0).score(data["evidence"], None), None


def rmia_direct(data: dict):
    return (data["x"][:, None] / data["z"] >= data["gamma"]).mean(1), None


def rmia_lean(data: dict):
    limit_Z = data["gamma"] * data["z"]
    return np.concatenate(
        [
            (data["x"][start : start + 256, None] >= limit_Z).mean(1)
            for start in range(0, len(data["x"]), 256)
        ]
    ), None


WAYS = dict(
    threshold=dict(
        data=softmax_rows, ours=threshold_ours, sklearn=threshold_sklearn, whole=threshold_whole
    ),
    logistic=dict(
        data=softmax_rows, ours=logistic_ours, sklearn=logistic_sklearn, newton=logistic_newton
    ),
    bootstrap=dict(data=bootstrap_data, ours=bootstrap_ours, sklearn=bootstrap_sklearn),
    lira=dict(data=lira_data, ours=lira_ours, scipy=lira_scipy),
    rmia=dict(data=rmia_data, ours=rmia_ours, direct=rmia_direct, lean=rmia_lean, whole=rmia_whole),
    scaling=dict(data=scaling_data, ours=scaling_ours, sklearn=scaling_sklearn),
)
