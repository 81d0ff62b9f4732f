"""Tests splits: any splitter becomes training sets, what cannot be audited is a sentence."""

import numpy as np
import pytest
from sklearn import model_selection as sk

from mia_jax.external import labels as label_columns
from mia_jax.external import splits

X, Y = np.arange(40.0)[:, None], np.arange(40) % 2


def read(cv, y=Y, x=None, *, classifier=True, seed=0):
    x = np.arange(float(len(y)))[:, None] if x is None else x
    return splits.read(cv, x, y, label_columns.read(y), classifier=classifier, seed=seed)


def test_folds_of_a_number_are_random_stratified_and_each_row_is_out_once():
    made, other = read(5), read(5, seed=1)
    assert (made.member_MN == ~made.test_MN).all() and (made.test_MN.sum(0) == 1).all()
    assert (made.test_MN[:, Y == 1].sum(1) == 4).all()
    assert not np.array_equal(made.test_MN, other.test_MN)
    assert np.array_equal(made.test_MN, read(5).test_MN)
    assert not made.population_N.any() and "drawn at random (seed 0)" in made.notes[0]
    assert made.test_share == 0.25


def test_the_members_are_the_training_rows_of_any_splitter():
    for cv in (sk.ShuffleSplit(3, test_size=0.5, random_state=0), sk.TimeSeriesSplit(3)):
        made = read(cv)
        for m, (train, test) in enumerate(cv.split(X, Y)):
            assert np.flatnonzero(made.member_MN[m]).tolist() == sorted(train)
            assert np.flatnonzero(made.test_MN[m]).tolist() == sorted(test)


def test_row_numbers_and_masks_are_splits_and_unused_rows_are_the_population():
    first, second = np.arange(10), np.arange(10, 30)
    for parts in (
        [(first, second), (second, first)],
        [(X[:, 0] < 9, X[:, 0] > 9), (X[:, 0] > 9, X[:, 0] < 9)],
    ):
        made = read(parts)
        assert made.words == "2 given splits"
    assert read([(first, second), (second, first)]).population_N[30:].all()


def test_halves_are_complementary_and_the_rest_is_the_population():
    made = read(splits.Halves(models=4, population=0.2, seed=3))
    assert (made.member_MN[::2] ^ made.member_MN[1::2])[:, ~made.population_N].all()
    assert made.population_N.sum() == 8 and not made.member_MN[:, made.population_N].any()
    assert splits.Halves(models=4).get_n_splits() == 4


@pytest.mark.parametrize(
    "cv, y, sentence",
    [
        (1, Y, "cv=1 must be at least 2 folds"),
        (True, Y, "cv=True must be at least 2 folds"),
        (50, Y, "cv=50 folds of 40 rows cannot be made; use at most 40"),
        (5, np.r_[Y, 7, 7], r"y has 2 rows of the label 7 and cv=5 makes 5 folds.*use cv=2, merge"),
        (5, np.r_[Y, 7], r"y has 1 row of the label 7 .* folds, each of which needs one; merge"),
        (sk.ShuffleSplit(1), Y, "makes 1 split; at least 2"),
        (splits.Halves(models=3), Y, "models=3 must be even"),
        ("folds", Y, "cv='folds' makes no splits"),
        (sk.GroupKFold(2), Y, r"makes no splits of these rows: .*group.* list\(GroupKFold"),
        ([([0, 1], [1, 2]), ([0, 1], [3])], Y, "split 0 tests on 1 of its own training rows"),
        ([([0, 1], [2]), ([0, 2], [3])], Y, "split 1 cannot be trained. .* none of label 1"),
        ([([0, 1], []), ([0, 1], [3])], Y, "split 0 has no test rows"),
        ([([0, 99], [1]), ([0, 1], [3])], Y, "a split holds row 99 of 40 rows"),
    ],
)
def test_what_cannot_be_split_is_a_sentence(cv, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(cv, y)


def test_a_regression_has_plain_folds_whatever_its_labels_repeat():
    made = read(5, np.r_[Y, 7.0], classifier=False)
    assert (made.test_MN.sum(0) == 1).all()
