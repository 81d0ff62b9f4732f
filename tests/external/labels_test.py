"""Labels of every kind as class numbers, and what is said about it."""

import numpy as np
import pytest

from mia_jax.external import labels


@pytest.mark.parametrize(
    "y, values, code",
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (np.array(["b", "a"], object), ("a", "b"), [1, 0]),
        ([True, False], (False, True), [1, 0]),
        ([3, 1, 3], (1, 3), [1, 0, 1]),
        ([1.0, 0.0], (0, 1), [1, 0]),
        ([[1], [0]], (0, 1), [1, 0]),
        ([[0, 0, 1], [1, 0, 0]], (0, 1, 2), [2, 0]),
        ([[False, True], [True, False]], (0, 1), [1, 0]),
    ],
    ids=["texts", "objects", "booleans", "numbers", "floats", "column", "one-hot", "one-hot bool"],
)
def test_classes_are_numbered_in_sorted_order(y, values, code):
    read = labels.read(y)
    assert (read.kind, read.values, read.code_N.tolist()) == ("classes", values, code)


def test_a_series_and_a_categorical_are_labels():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    for series in (pandas.Series(["b", "a"]), pandas.Series(["b", "a"], dtype="category")):
        assert labels.read(series).values == ("a", "b")
    with pytest.raises(ValueError, match=r"y has 1 gaps; the first is in row 1"):
        labels.read(pandas.Series(["b", None], dtype=object))


def test_real_numbers_and_several_labels_are_no_classes():
    assert labels.read([0.5, 2.0]).kind == "numbers"
    assert labels.read([[0.5, 2.0], [1.0, 3.0]]).kind == "numbers"
    several = labels.read([[1, 1], [0, 0]])
    assert several.kind == "several" and several.code_N.tolist() == [[1, 1], [0, 0]]


def test_whole_numbers_can_be_a_regression():
    read = labels.read([3, 1, 3])
    assert read.whole and read.numbers.tolist() == [3.0, 1.0, 3.0]
    assert not labels.read([True, False]).whole


@pytest.mark.parametrize(
    "y, message",
    [
        (None, "y is missing; pass the label of every row"),
        ([0.0, np.nan], "y has 1 values that are NaN or infinite; the first is in row 1"),
        ([["a", "b"]], "holds text; pass one label per row"),
        (np.zeros((2, 2, 2)), r"y has shape \(2, 2, 2\); pass one label per row"),
        (np.array(["a", 1], object), "y holds numbers and text; pass labels of one kind"),
        ([[0.2, 0.8], [0.5, 0.5]], r"soft labels.*y\.argmax\(1\)"),
    ],
    ids=["none", "nan", "text rows", "axes", "mixed", "soft"],
)
def test_what_is_no_label_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        labels.read(y)


def test_columns_follow_the_models_own_classes():
    read = labels.read(["cat", "dog"])
    assert labels.columns_of(np.array(["dog", "cat"]), read).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"none of the labels of y \('cat', 'dog'\) is a class"):
        labels.columns_of([0, 1], read)


def test_columns_that_are_assumed_are_said():
    columns, notes = labels.assumed_columns(3, labels.read([-1, 0, 7]))
    assert columns.tolist() == [0, 1, 2]
    assert notes == ("Labels -1, 0, 7 are columns 0 to 2 of the answers, in sorted order.",)
    assert labels.assumed_columns(3, labels.read([0, 1, 2]))[1] == ()
    columns, notes = labels.assumed_columns(2, labels.read([True, False]))
    assert columns.tolist() == [0, 1] and "False, True" in notes[0]
    with pytest.raises(ValueError, match=r"2 different labels \('a', 'b'\) and the answers have 3"):
        labels.assumed_columns(3, labels.read(["a", "b"]))
    with pytest.raises(ValueError, match="unknown which column is which label"):
        labels.assumed_columns(3, labels.read([0, 5]))
