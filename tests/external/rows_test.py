"""Rows of arrays, frames, lists, dicts, sparse matrices and strangers' objects."""

import numpy as np
import pytest
import scipy.sparse

from mia_jax.external import rows

PICKED = np.array([0, 2])


class Folder:
    """Has len and x[rows], and nothing else."""

    def __len__(self):
        return 4

    def __getitem__(self, picked):
        return [10 * int(n) for n in picked]


def frame():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    return pandas.DataFrame(dict(age=[1, 2, 3], word=["a", "b", "c"]), index=[7, 8, 9])


def test_rows_keep_their_type():
    assert rows.take(np.arange(6).reshape(3, 2), PICKED).tolist() == [[0, 1], [4, 5]]
    assert rows.take(("a", "b", "c"), PICKED) == ("a", "c")
    assert rows.take(dict(a=np.arange(3)), PICKED)["a"].tolist() == [0, 2]
    assert rows.take(Folder(), PICKED) == [0, 20]
    assert rows.take(scipy.sparse.eye(3, format="csr"), PICKED).toarray()[1].tolist() == [0, 0, 1]


def test_what_cannot_be_indexed_by_row_numbers_is_refused():
    class OneByOne(Folder):
        def __getitem__(self, n):
            return {0: "a", 1: "b"}[n]

    with pytest.raises(
        ValueError, match=r"x is a OneByOne, and x\[rows\] with an array of row num"
    ):
        rows.take(OneByOne(), PICKED)


def test_rows_of_a_frame_go_by_position():
    assert rows.take(frame(), PICKED).age.tolist() == [1, 3]
    assert rows.part(frame(), 1, 3).word.tolist() == ["b", "c"]
    assert rows.take(frame().age, PICKED).tolist() == [1, 3]


@pytest.mark.parametrize(
    "x", [np.arange(5), list("abcde"), scipy.sparse.eye(5, format="csr"), dict(a=np.arange(5))]
)
def test_batches_hold_every_row_once(x):
    sizes = [rows.count(part) for part in rows.batches(x, 2)]
    assert rows.count(x) == 5 and sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "x, message",
    [
        ("text", "x is one text; pass a list of texts"),
        (3, "x is a int without rows"),
        (np.float64(3), "x is a float64 without rows"),
        (dict(a=[1], b=[1, 2]), "all its arrays must have the same number of rows"),
        ({}, "x is a dict of nothing rows"),
    ],
)
def test_what_has_no_rows_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        rows.count(x)


def test_texts_are_noticed():
    assert rows.holds_text(["a", "b"]) and rows.holds_text(np.array([["a"]]))
    assert rows.holds_text(np.array([[1, "a"]], object)) and rows.holds_text(dict(a=["b"]))
    assert not rows.holds_text(np.eye(2)) and not rows.holds_text([[1, 2], [3, 4]])
    assert not rows.holds_text(Folder())
    assert rows.holds_text(frame()) and not rows.holds_text(frame()[["age"]])


@pytest.mark.parametrize(
    "first, second",
    [
        (np.arange(3), np.array([0, 1, 3])),
        (np.arange(3), np.arange(3.0)),
        (["a", "b"], ["a", "c"]),
        ([[1, 2], [3]], [[1, 2], [4]]),
        (dict(a=np.arange(3)), dict(b=np.arange(3))),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
        (scipy.sparse.eye(3, format="csr"), 2 * scipy.sparse.eye(3, format="csr")),
    ],
    ids=["value", "dtype", "texts", "ragged", "keys", "objects", "sparse"],
)
def test_a_digest_says_what_rows_hold(first, second):
    assert rows.digest(first) == rows.digest(first) != rows.digest(second)


def test_a_digest_of_a_frame_and_of_a_strangers_object():
    changed = frame()
    changed.iloc[1, 1] = "z"
    assert rows.digest(frame()) == rows.digest(frame()) != rows.digest(changed)
    assert rows.digest(frame()) != rows.digest(frame().rename(columns=dict(age="years")))
    assert rows.digest(Folder()) == rows.digest(Folder())


def test_numbers_of_a_frame_are_an_array_and_gaps_are_none():
    assert rows.as_numbers(frame()[["age"]]).tolist() == [[1], [2], [3]]
    assert rows.as_numbers(frame()) is None and rows.as_numbers(["a"]) is None
    assert rows.as_numbers(np.array([1.0, np.nan])) is None
