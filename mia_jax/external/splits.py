"""Splits of cross-validation as training sets: who is a member of which split's model.

Any splitter of scikit-learn will do, a number of folds, or a list of (train, test) row numbers. The
model of a split has its training rows as members; every other row is a non-member. Rows that no
split trains on or tests on are population rows: attacks compare with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.external import answers, fleet, models, rows
from mia_jax.external import labels as label_columns
from mia_jax.external.labels import Labels


class Splits(NamedTuple):
    """Holds the rows of M splits.

    Attributes:
        member_MN: the training rows of each split's model.
        test_MN: the rows on which it is scored.
        population_N: rows of which no split makes use.
        words: how they were made, such as '5 splits of KFold(...)'.
        notes: sentences for the user.
    """

    member_MN: np.ndarray
    test_MN: np.ndarray
    population_N: np.ndarray
    words: str
    notes: tuple[str, ...] = ()

    @property
    def test_share(self) -> float:
        """Returns the mean of test rows / training rows."""
        return float((self.test_MN.sum(1) / self.member_MN.sum(1)).mean())


class Halves:
    """Splits rows into random complementary halves, so that attacks with shadow models can be run.

    Models 2p and 2p+1 are trained on the two halves of draw p, and tested on the other half. Every
    row is in half of the models, as LiRA and RMIA need it. The halves are those of
    `mia_jax.audit(fit=..., models=..., seed=...)`.

    Args:
        models: how many models, an even number.
        population: the share of the rows that no model sees, because attacks compare with them.
        seed: of the draws.

    >>> [len(train) for train, test in Halves(models=4).split(np.zeros((100, 2)))]
    [45, 45, 45, 45]
    """

    def __init__(self, models: int = 16, population: float = models.POPULATION, seed: int = 0):
        self.models, self.population, self.seed = models, population, seed

    def __repr__(self) -> str:
        return f"Halves(models={self.models}, population={self.population}, seed={self.seed})"

    def get_n_splits(self, x=None, y=None, groups=None) -> int:
        """Returns the number of models."""
        return self.models

    def split(self, x, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (training rows, test rows) of every model.

        Raises:
            ValueError: an odd number of models, or too few rows.
        """
        count = rows.count(x)
        checks.at_least(2, models=self.models)
        checks.fraction(closed="left", population=self.population)
        subject = models.Subject(population=self.population)
        population_N = models.population_of(subject, None, count, seed=self.seed)
        labels = Labels("numbers", (), np.zeros(count)) if y is None else label_columns.read(y)
        member_MN, _ = fleet.members(
            self.models, population_N, seed=self.seed, labels=labels, argument="models"
        )
        for member_N in member_MN:
            yield np.flatnonzero(member_N), np.flatnonzero(~member_N & ~population_N)


def read(cv, x, y, labels: Labels, *, classifier: bool, seed: int) -> Splits:
    """Returns the rows of the splits that `cv` makes.

    Args:
        cv: a number of folds, a splitter, or (train, test) row numbers. Folds of a number are drawn
            at random, stratified for a classifier.
        x: all rows.
        y: their labels, as the user has them.
        labels: the same, read.
        classifier: whether the estimator is one.
        seed: of the folds.

    Raises:
        ValueError: cv is none of these, makes fewer than two splits or none of these rows, or a
            training set lacks a label.
    """
    from sklearn.model_selection import check_cv

    notes = ()
    if cv is None or isinstance(cv, int | np.integer | bool):
        cv = folds(5 if cv is None else cv, labels, classifier=classifier, seed=seed)
        notes = (
            f"The {cv.get_n_splits()} folds are drawn at random (seed {seed}): folds in the order "
            "of the rows would differ from the other rows where that order means something.",
        )
    try:
        splitter = check_cv(cv, y, classifier=classifier)
        parts = [
            (index(train, labels), index(test, labels)) for train, test in splitter.split(x, y)
        ]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"cv={cv!r} makes no splits of these rows: {answers.reason(error)} Pass a number of "
            "folds, a splitter of scikit-learn, or a list of (train, test) row numbers such as "
            "list(GroupKFold(5).split(x, y, groups))."
        ) from error
    name = f"{len(parts)} given splits" if isinstance(cv, list | tuple) else f"{splitter!r}"
    if len(parts) < 2:
        raise ValueError(
            f"cv={cv!r} makes {len(parts)} split; at least 2 are needed for an interval over "
            "folds. To audit one trained model, use mia_jax.audit(predict=..., member=...)."
        )
    member_MN, test_MN = (
        np.zeros((len(parts), len(labels.code_N)), bool) for _ in ("train", "test")
    )
    for m, (train, test) in enumerate(parts):
        member_MN[m, train], test_MN[m, test] = True, True
    check(member_MN, test_MN, labels if classifier else None)
    population_N = ~(member_MN | test_MN).any(0)
    words = name if isinstance(cv, list | tuple) else f"{len(parts)} splits of {name}"
    return Splits(member_MN, test_MN, population_N, words, notes)


def folds(count, labels: Labels, *, classifier: bool, seed: int):
    """Returns random folds, stratified for a classifier.

    Raises:
        ValueError: the number is no number of folds, or a label has fewer rows than folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    if isinstance(count, bool) or count < 2:
        raise ValueError(f"cv={count!r} must be at least 2 folds, or a splitter.")
    total = len(labels.code_N)
    if count > total:
        raise ValueError(f"cv={count} folds of {total} rows cannot be made; use at most {total}.")
    if not classifier or labels.kind != "classes":
        return KFold(int(count), shuffle=True, random_state=seed)
    have_C = np.bincount(labels.code_N, minlength=len(labels.values))
    rare = [c for c in range(len(have_C)) if 0 < have_C[c] < count]
    if rare:
        fewest = int(have_C[rare].min())
        use = f"use cv={fewest}, " if fewest > 1 else ""
        raise ValueError(
            f"y has {fewest} row{'s' * (fewest > 1)} of the label "
            f"{labels.values[rare[int(have_C[rare].argmin())]]!r} and cv={count} makes {count} "
            f"folds, each of which needs one; {use}merge rare labels, or leave their rows out."
        )
    return StratifiedKFold(int(count), shuffle=True, random_state=seed)


def index(picked, labels: Labels) -> np.ndarray:
    """Returns row numbers of a split, which may be a mask."""
    picked, count = np.asarray(picked), len(labels.code_N)
    if not picked.size:
        return picked.astype(int)
    if picked.dtype.kind == "b" and picked.shape == (count,):
        return np.flatnonzero(picked)
    if picked.ndim != 1 or picked.dtype.kind not in "iu":
        raise ValueError(f"a split holds {picked.dtype} {picked.shape} and must hold row numbers.")
    if not 0 <= picked.min() <= picked.max() < count:
        raise ValueError(f"a split holds row {picked.max()} of {count} rows.")
    return picked


def check(member_MN: np.ndarray, test_MN: np.ndarray, labels: Labels | None) -> None:
    """Raises ValueError for splits that cannot be audited.

    Args:
        member_MN, test_MN: the rows of each split.
        labels: of all rows, if every training set needs all labels.
    """
    for m, (member_N, test_N) in enumerate(zip(member_MN, test_MN, strict=True)):
        both, none = (
            int((member_N & test_N).sum()),
            [side for side, rows_N in (("train", member_N), ("test", test_N)) if not rows_N.any()],
        )
        if none:
            raise ValueError(f"cv: split {m} has no {none[0]} rows; both sides need some.")
        if both:
            raise ValueError(
                f"cv: split {m} tests on {both} of its own training rows, which would count as "
                "members in one place and as unseen in another; keep the two apart."
            )
        lack = "" if labels is None else fleet.lacking(labels, member_N)
        if lack:
            raise ValueError(f"cv: split {m} cannot be trained.{lack}")
