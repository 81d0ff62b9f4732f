"""Attack model: a classifier of members against non-members.

It learns from the shadows' answers, or is cross-fitted on the target's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mia_jax import checks, registry
from mia_jax.attacks import _features
from mia_jax.fitting import chosen
from mia_jax.fitting.rows import Job, hashes, rank_within, scaling
from mia_jax.threat_model import CROSS_FITTED, Evidence
from mia_jax.types import Attack

FEWEST = 3  # of each side that a classifier needs: one for every inner fold
CLASS = 10  # of each side from which a class has its own classifier


def make(
    *,
    kind: str = "logistic",
    fit: str = "shadows",
    features: Sequence[str] = ("probabilities", "loss"),
    columns: Sequence[str] = (),
    views: str = "each",
    per_class: bool = False,
    scale: bool = True,
    rows: int = 20_000,
    options: Mapping = {},
) -> Attack:
    """Scores what a classifier returns for 'member': log-odds, or a share of votes or neighbors.

    It learns from equally many members and non-members. Rows enter in the order of a hash of their
    features, so the pool's order changes nothing; rows with equal features may trade places between
    the halves.

    Args:
        kind: 'logistic', 'mlp', 'random_forest', 'knn', 'gradient_boosting'; 'chosen', the kind
            that is most often right over folds of the training rows; or your own module,
            'my_pkg.my_classifier', with make(...) -> Classifier.
        fit: 'shadows': learns each shadow's members against its non-members on the shadow's own
            evaluated rows. 'target': is cross-fitted on the target's evaluated rows. Members and
            non-members are each divided into two halves; a classifier learns from equally many of
            both in one half and scores every row of the other, including those left out of
            learning. It knows half of the target's members, so it is never ranked with the rest.
        features: any of 'probabilities', 'logits', 'label' (one-hot), 'x', and signal names.
        columns: further features, columns of the pool.
        views: 'each' query view is a feature, or their 'mean'.
        per_class: fits one classifier per class. A class with fewer than 10 rows of a side (in a
            half) uses the pooled classifier.
        scale: standardizes the columns to mean 0 and sd 1 on the training rows.
        rows: the most rows to learn from (per class, with `per_class`), drawn by key.
        options: arguments of the classifier's maker (mia_jax.fitting).

    Raises:
        ValueError: Fewer than 3 members or 3 non-members to learn from.

    Sources: Shokri et al. 2017 (arXiv:1610.05820); Choquette-Choo et al. 2021 (arXiv:2007.14321):
    features=('correct',), kind='mlp', options=dict(network='d'), per_class=True, scale=False.
    Cross-fitting follows TensorFlow Privacy, where one half scores all left-out rows.
    """
    checks.one_of(("shadows", "target"), fit=fit)
    checks.at_least(2 * FEWEST, rows=rows)
    features_read = _features.make(features, columns, views)
    classify = registry.call(
        registry.maker("classifiers", kind), f"options of kind {kind!r}", options
    )
    jobs_of = _crossed if fit == "target" else _from_shadows
    needs = [
        *features_read.needs,
        *(["y"] if per_class else []),
        "member" if fit == "target" else "shadow_own",
    ]

    def score(evidence, key):
        draw, learn = jax.random.split(key)
        cols = np.flatnonzero(evidence.evaluated_N)
        table = _table(
            features_read, evidence.target, evidence, cols, per_class, _features.salt(draw)
        )
        jobs, places = zip(
            *jobs_of(features_read, evidence, cols, table, per_class, rows, _features.salt(draw)),
            strict=True,
        )
        score_N = np.full(len(evidence.evaluated_N), np.nan)
        for place, score_K in zip(
            places, classify([_scaled(job) for job in jobs] if scale else jobs, learn), strict=True
        ):
            score_N[cols[place]] = score_K
        return score_N

    threshold = chosen.neutral_score(kind)
    where = (
        "the shadows' answers"
        if fit == "shadows"
        else "halves of the target's own answers, each scored by the other half's model"
    )
    note = (
        f"{kind} on {', '.join([*features_read.names, *features_read.columns])}; "
        f"learned on {where}; "
        f"{'one per class' if per_class else 'all classes pooled'}"
    )
    if per_class:
        note += f" (pooled where a class has fewer than {CLASS} rows of a side to learn from)"
    return Attack(
        score,
        tuple(dict.fromkeys(needs)),
        knows=CROSS_FITTED if fit == "target" else "shadows",
        note=note,
        threshold=threshold,
    )


class _Table(NamedTuple):
    """Rows of one model: features, class (0 if pooled), and the hash that orders them."""

    x_KF: np.ndarray
    class_K: np.ndarray
    hash_K: np.ndarray


def _table(
    features_read,
    signal: Mapping,
    evidence: Evidence,
    rows_K: np.ndarray,
    per_class: bool,
    salt: int,
) -> _Table:
    x_KF = _features.matrix(features_read, signal, evidence, rows_K)
    class_K = _features.labels(evidence, rows_K) if per_class else np.zeros(len(rows_K), int)
    return _Table(x_KF, class_K, hashes(x_KF, salt))


def _from_shadows(
    features_read,
    evidence: Evidence,
    cols: np.ndarray,
    table: _Table,
    per_class: bool,
    most: int,
    salt: int,
) -> list[tuple]:
    """Returns [(Job, the positions in `cols` that it scores)] of fits on the shadows' rows.

    That is one job; or, per class, one for each class and one for all classes that are too small.
    """
    del cols
    shadows = np.flatnonzero(evidence.shadow_evaluated_MN.any(1))
    parts = []
    for m in shadows:
        rows_K = np.flatnonzero(evidence.shadow_evaluated_MN[m])
        part = _table(
            features_read,
            {n: value[m] for n, value in evidence.shadow.items()},
            evidence,
            rows_K,
            per_class,
            salt,
        )
        member_K = evidence.shadow_member_MN[m, rows_K]
        keep = rank_within(2 * part.class_K + member_K, part.hash_K) < -(
            -most // (2 * len(shadows))
        )
        parts.append([field[keep] for field in (*part, member_K)])
    x_KF, class_K, hash_K, member_K = (np.concatenate(field) for field in zip(*parts, strict=True))
    fits, rest_N = [], np.ones(len(table.x_KF), bool)
    for c in np.unique(table.class_K) if per_class else ():
        learned = np.flatnonzero(class_K == c)
        if _fewer(member_K[learned]) >= CLASS:
            fits.append((learned, table.class_K == c))
            rest_N &= table.class_K != c
    if rest_N.any():
        fits.append((np.arange(len(x_KF)), rest_N))
    return [
        _job(x_KF, member_K, hash_K, learned, table, ask_N, most, "the shadows")
        for learned, ask_N in fits
    ]


def _crossed(
    features_read,
    evidence: Evidence,
    cols: np.ndarray,
    table: _Table,
    per_class: bool,
    most: int,
    salt: int,
) -> list[tuple]:
    """Returns [(Job, positions)] of the two halves of the target's rows.

    That is for all rows; or, per class, for each class and for all classes that are too small.
    """
    del features_read, salt
    member_N = evidence.member_N[cols]
    fits, rest_N = [], np.ones(len(cols), bool)
    for c in np.unique(table.class_K) if per_class else ():
        own_N = table.class_K == c
        if _fewer(member_N[own_N]) >= 2 * CLASS:
            fits.append((own_N, own_N))
            rest_N &= ~own_N
    if rest_N.any():
        fits.append((np.ones(len(cols), bool), rest_N))
    jobs = []
    for learn_N, ask_N in fits:
        half_N = halves(np.where(learn_N, member_N, 2), table.hash_K)
        for half in (0, 1):
            learned = np.flatnonzero(learn_N & (half_N == half))
            asked_N = ask_N & (half_N != half)
            if asked_N.any():
                jobs.append(
                    _job(
                        table.x_KF,
                        member_N,
                        table.hash_K,
                        learned,
                        table,
                        asked_N,
                        most,
                        "a half of the target's rows",
                        half,
                    )
                )
    return jobs


def halves(side_N: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Returns half_N in 0, 1: the rows of each side alternate, in the order of their hashes."""
    return rank_within(side_N, hash_N) % 2


def _job(
    x_KF,
    member_K,
    hash_K,
    learned: np.ndarray,
    table: _Table,
    ask_N: np.ndarray,
    most: int,
    whose: str,
    family: int = 0,
) -> tuple[Job, np.ndarray]:
    """Returns the job that learns from the rows `learned`, and the positions that it scores.

    It learns from equally many members and non-members; both are in the order of hashes.

    Raises:
        ValueError: There are too few members or non-members.
    """
    fewer = _fewer(member_K[learned])
    if fewer < FEWEST:
        inside = int(member_K[learned].sum())
        raise ValueError(
            f"{whose} give {inside} members and {len(learned) - inside} non-members to learn from; "
            f"an attack model needs at least {FEWEST} of each."
        )
    learned = learned[rank_within(member_K[learned], hash_K[learned]) < min(fewer, most // 2)]
    learned = learned[np.lexsort((member_K[learned], hash_K[learned]))]
    places = np.flatnonzero(ask_N)
    places = places[np.argsort(table.hash_K[places], kind="stable")]
    return Job(x_KF[learned], member_K[learned], table.x_KF[places], family), places


def _fewer(member_K: np.ndarray) -> int:
    return int(min(member_K.sum(), (~member_K).sum()))


def _scaled(job: Job) -> Job:
    scale = scaling(job.x_KF)
    return job._replace(x_KF=scale(job.x_KF), ask_NF=scale(job.ask_NF))
