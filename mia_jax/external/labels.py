"""Labels as users have them (numbers, booleans, texts, one-hot rows, frames) as class numbers.

What was encoded, and how, is a note for the report: a column that stands for another class than was
assumed would make every number of an audit wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.data import _arrays as given

SHOWN = 6  # labels in a message


class Labels(NamedTuple):
    """Describes the labels y of N rows.

    Attributes:
        kind: 'classes' (one label per row), 'several' (C labels of 0 or 1 per row) or 'numbers'
            (real numbers).
        values: the different labels of 'classes', sorted; empty for other kinds.
        code_N: the position of each row's label in `values` for 'classes'; otherwise y itself.
        whole: whether y may also be the numbers of a regression: whole numbers, one per row.
        notes: sentences for the report.
    """

    kind: str
    values: tuple
    code_N: np.ndarray
    whole: bool = False
    notes: tuple[str, ...] = ()

    @property
    def numbers(self) -> np.ndarray:
        """Returns y as real numbers, the labels of a regression."""
        if self.kind != "classes":
            return self.code_N
        return np.asarray(self.values, np.float64)[self.code_N]


def read(y, *, name: str = "y") -> Labels:
    """Returns the labels of any kind.

    Args:
        y: an array, a list, a column of a frame: numbers, booleans or texts [N] or [N,1], one-hot
            rows, 0/1 rows with several labels, or real numbers [N,F].
        name: of the argument, for messages.

    Raises:
        ValueError: there are gaps, or values that are no labels.

    >>> labels = read(["cat", "dog", "cat"])
    >>> labels.values, labels.code_N.tolist()
    (('cat', 'dog'), [0, 1, 0])
    >>> read([[0, 1], [1, 0]]).notes
    ('Labels y are one-hot rows [N,2]: the class number is the column of the 1.',)
    """
    if y is None:
        raise ValueError(f"{name} is missing; pass the label of every row of x.")
    value = given.array(name, y)
    notes = []
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
        notes.append(f"Labels {name} [N,1] are read as [N].")
    if value.ndim not in (1, 2):
        raise ValueError(
            f"{name} has shape {value.shape}; pass one label per row [N], or one-hot rows [N,C]."
        )
    if value.dtype.kind == "O":
        value = _of_objects(value, name)
    if value.ndim == 2:
        labels = _of_rows(value, name)
    elif value.dtype.kind in "US" or "T" in value.dtype.kind:
        labels = _of_values(value.astype(str))
    elif value.dtype.kind == "b":
        labels = _of_values(value)
    else:
        labels = _of_numbers(given.numbers(name, value), name)
    return labels._replace(notes=(*notes, *labels.notes))


def _of_objects(value: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of texts, booleans or numbers of an array of Python objects."""
    gaps = [n for n, label in enumerate(value.ravel()) if label is None or label != label]
    if gaps:
        raise ValueError(
            f"{name} has {len(gaps)} gaps; the first is in row {gaps[0]}. Leave those rows out of "
            "x, y and member."
        )
    kinds = {_kind(label) for label in value.ravel()}
    if len(kinds) > 1:
        raise ValueError(
            f"{name} holds {' and '.join(sorted(kinds))}; pass labels of one kind, such as "
            f"np.asarray({name}).astype(str)."
        )
    if kinds == {"text"}:
        return value.astype(str)
    return value.astype(bool) if kinds == {"booleans"} else given.numbers(name, value)


def _kind(label) -> str:
    if isinstance(label, str | bytes):
        return "text"
    return "booleans" if isinstance(label, bool | np.bool_) else "numbers"


def _of_values(value: np.ndarray) -> Labels:
    values, code_N = np.unique(value, return_inverse=True)
    return Labels("classes", tuple(values.tolist()), code_N.reshape(-1))


def _of_numbers(value: np.ndarray, name: str) -> Labels:
    """Returns the labels of numbers [N]: whole ones are classes, unless answers say otherwise."""
    _check_finite(value, name)
    if value.dtype.kind == "f" and not np.array_equal(value, np.round(value)):
        return Labels("numbers", (), value.astype(np.float64))
    return _of_values(value.astype(np.int64))._replace(whole=True)


def _of_rows(value: np.ndarray, name: str) -> Labels:
    """Returns the labels of rows [N,C]."""
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{name} has shape {value.shape} and holds text; pass one label per row.")
    _check_finite(value, name)
    if np.isin(value, (0, 1)).all():
        if not (value.sum(1) == 1).all():
            return Labels("several", (), value.astype(np.float32))
        code_N, columns = value.argmax(1), value.shape[1]
        kind = f"one-hot rows [N,{columns}]"
        note = f"Labels {name} are {kind}: the class number is the column of the 1."
        return Labels("classes", tuple(range(columns)), code_N, notes=(note,))
    if (value >= 0).all() and np.allclose(value.sum(1), 1, atol=1e-3):
        raise ValueError(
            f"{name} {value.shape} holds shares that sum to 1 (soft labels); an audit needs one "
            f"label per row: {name}.argmax(1)."
        )
    return Labels("numbers", (), value.astype(np.float64))


def _check_finite(value: np.ndarray, name: str) -> None:
    wrong = ~np.isfinite(value) if value.dtype.kind == "f" else np.zeros(value.shape, bool)
    if wrong.any():
        raise ValueError(
            f"{name} has {int(wrong.sum())} values that are NaN or infinite; the first is in row "
            f"{int(np.argwhere(wrong)[0][0])}. Leave those rows out of x, y and member."
        )


def columns_of(classes: Sequence | np.ndarray, labels: Labels) -> np.ndarray:
    """Returns what each column of a model's answers stands for, from the model's own classes.

    Args:
        classes: the label of each column, as the model knows it.
        labels: of all rows.

    Returns:
        Integers [C]: the position of the class in `labels.values`; -1, -2, ... for classes that no
        row has.

    >>> columns_of(["dog", "ant", "cat"], read(["cat", "dog"])).tolist()
    [1, -1, 0]
    """
    position = {value: i for i, value in enumerate(labels.values)}
    known = np.asarray(classes).tolist()
    absent = [label for label in known if label not in position]
    if len(absent) == len(known):
        raise ValueError(
            f"none of the labels of y ({shown(labels.values)}) is a class of the model "
            f"({shown(known)}); pass y in the words that the model was trained with."
        )
    numbers = position | {label: -1 - i for i, label in enumerate(absent)}
    return np.array([numbers[label] for label in known], np.int64)


def assumed_columns(count: int, labels: Labels) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns what each of `count` columns stands for where the model does not say it, and notes.

    Whole numbers below `count` are column numbers; otherwise as many different labels as columns
    are taken in sorted order.

    Raises:
        ValueError: the labels do not say which column is whose.

    >>> assumed_columns(3, read([2, 0]))[0].tolist()
    [0, -1, 1]
    >>> assumed_columns(2, read(["a", "b"]))[1]
    ("Labels 'a', 'b' are columns 0 to 1 of the answers, in sorted order.",)
    """
    values = labels.values
    text = any(isinstance(value, str) for value in values)
    if not text and min(values) >= 0 and max(values) < count:
        position = {int(value): i for i, value in enumerate(values)}
        absent = iter(range(-1, -count - 1, -1))
        note = "Labels False, True are columns 0 and 1 of the answers."
        notes = (note,) if any(isinstance(value, bool) for value in values) else ()
        columns = [position[c] if c in position else next(absent) for c in range(count)]
        return np.array(columns, np.int64), notes
    if len(values) == count:
        note = (
            f"Labels {shown(values)} are columns 0 to {count - 1} of the answers, in sorted order."
        )
        return np.arange(count), (note,)
    what = f"{len(values)} different labels ({shown(values)})"
    raise ValueError(
        f"y has {what} and the answers have {count} columns, so it is unknown which column is "
        "which label; pass class numbers 0, 1, .. (the column of each row's label)."
    )


def shown(values: Sequence) -> str:
    """Returns labels for a message.

    >>> shown(("a", 1))
    "'a', 1"
    """
    text = ", ".join(map(repr, list(values)[:SHOWN]))
    return text + ", .." if len(values) > SHOWN else text
