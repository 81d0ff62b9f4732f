"""chosen: of several classifiers the one that is most accurate on held-out training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mia_jax import checks, registry
from mia_jax.fitting import rows
from mia_jax.fitting.rows import Classifier, Job

# What `make` tries: {kind: its options}.
FEW = dict(
    logistic={}, random_forest=dict(grid=dict(min_samples_leaf=(1, 4, 16))), gradient_boosting={}
)


def make(*, kinds: Mapping[str, Mapping] = FEW, inner_folds: int = 3) -> Classifier:
    """Scores with the kind of classifier that is most accurate, minus its neutral score.

    Accuracy is over folds of the training rows, for each job separately; the first of equals wins.
    Rows to score are never part of the choice.

    Args:
        kinds: {kind: options of its maker}.
        inner_folds: how many folds.
    """
    checks.at_least(2, inner_folds=inner_folds)
    checks.at_least(1, kinds=len(kinds))
    classifiers = {
        kind: registry.make("classifiers", kind, options) for kind, options in kinds.items()
    }
    neutral = {kind: neutral_score(kind) for kind in kinds}

    def classify(jobs: Sequence[Job], key) -> list[np.ndarray]:
        tried = [
            _tried(classify_kind, jobs, jax.random.fold_in(key, i), neutral[kind], inner_folds)
            for i, (kind, classify_kind) in enumerate(classifiers.items())
        ]
        return [
            max(of_job, key=lambda accuracy_and_score: accuracy_and_score[0])[1]
            for of_job in zip(*tried, strict=True)
        ]

    return classify


def neutral_score(kind: str) -> float:
    """Returns the score of an undecided classifier of this kind: its module's NEUTRAL, or 0."""
    return float(getattr(registry.load("classifiers", kind), "NEUTRAL", 0.0))


def _tried(
    classify: Classifier, jobs: Sequence[Job], key, neutral: float, folds: int
) -> list[tuple[float, np.ndarray]]:
    """Returns (accuracy over the held-out folds, score_N minus the neutral score) per job.

    All fits are one call of the classifier.
    """
    fold_of = [rows.folds(job.member_K, folds) for job in jobs]
    inner = [
        Job(job.x_KF[fold_K != f], job.member_K[fold_K != f], job.x_KF[fold_K == f], job.family)
        for job, fold_K in zip(jobs, fold_of, strict=True)
        for f in range(folds)
    ]
    scores = [score_N - neutral for score_N in classify([*inner, *jobs], key)]
    tried = []
    for i, (job, fold_K) in enumerate(zip(jobs, fold_of, strict=True)):
        held = [
            rows.accuracy(score_N, job.member_K[fold_K == f]) * len(score_N)
            for f, score_N in enumerate(scores[i * folds : (i + 1) * folds])
        ]
        tried.append((sum(held) / len(fold_K), scores[len(inner) + i]))
    return tried
