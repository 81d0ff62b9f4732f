"""Rows of what a user calls x or y: arrays, tensors, frames, sparse matrices, lists, dicts of
these, anything with len() and x[rows].

Imports no library; a frame is known by `iloc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mia_jax.runtime import files

SEEN = 64  # rows of an object of an unknown type whose digest stands for all
TEXTS = 1000  # rows that are looked at for texts


def count(x, *, name: str = "x") -> int:
    """Returns the number of rows.

    Raises:
        ValueError: x has no rows, or its parts have different numbers of them.

    >>> count(["a", "b"]), count(dict(ids=np.zeros((3, 2)), mask=np.ones((3, 2))))
    (2, 3)
    """
    if isinstance(x, Mapping):
        counts = {str(key): count(value, name=f"{name}[{key!r}]") for key, value in x.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(
                f"{name} is a dict of {counts or 'nothing'} rows; all its arrays must have the "
                "same number of rows."
            )
        return next(iter(counts.values()))
    if isinstance(x, str | bytes):
        raise ValueError(f"{name} is one text; pass a list of texts, one per row.")
    try:
        shape = getattr(x, "shape", None)
        return int(shape[0]) if shape is not None else len(x)
    except (TypeError, IndexError) as error:
        raise ValueError(
            f"{name} is a {type(x).__name__} without rows; pass an array, a frame, a list, or "
            "anything with len(x) and x[rows]."
        ) from error


def take(x, rows: np.ndarray):
    """Returns the rows of x with these numbers (rising), of the type of x.

    Raises:
        ValueError: x cannot be indexed by an array of row numbers.

    >>> take(["a", "b", "c"], np.array([0, 2]))
    ['a', 'c']
    """
    if isinstance(x, Mapping):
        return {key: take(value, rows) for key, value in x.items()}
    if hasattr(x, "iloc"):
        return x.iloc[rows]
    if isinstance(x, list | tuple):
        return (
            type(x)(x[int(n)] for n in rows) if type(x) in (list, tuple) else [x[n] for n in rows]
        )
    try:
        return x[rows]
    except Exception as error:  # of a stranger's type
        raise ValueError(
            f"x is a {type(x).__name__}, and x[rows] with an array of row numbers failed "
            f"({type(error).__name__}: {error}); pass an array, a frame or a list of its rows."
        ) from error


def part(x, start: int, stop: int):
    """Returns the rows start..stop-1 of x, of the type of x; without a copy where x has slices."""
    if isinstance(x, Mapping):
        return {key: part(value, start, stop) for key, value in x.items()}
    if hasattr(x, "iloc"):
        return x.iloc[start:stop]
    if isinstance(x, np.ndarray | list | tuple):
        return x[start:stop]
    return take(x, np.arange(start, stop))


def batches(x, batch_size: int) -> Iterator[Any]:
    """Yields x in parts of `batch_size` rows, the last one with the rest.

    >>> list(batches([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    examples = count(x)
    for start in range(0, examples, batch_size):
        yield part(x, start, min(start + batch_size, examples))


def in_batches(answer, x, batch_size: int) -> np.ndarray:
    """Returns the answers about all rows, as one array: answer(rows) is called per batch."""
    if count(x) <= batch_size:
        return np.asarray(answer(x))
    return np.concatenate([np.asarray(answer(rows)) for rows in batches(x, batch_size)])


def holds_text(x) -> bool:
    """Returns whether rows of x are texts or have texts in them.

    >>> holds_text(["good film", "bad film"]), holds_text(np.eye(2))
    (True, False)
    """
    if isinstance(x, Mapping):
        return any(map(holds_text, x.values()))
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        return any(holds_text(x.iloc[:, i]) for i in range(len(x.columns)))
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    if kind in "US" and kind:
        return True
    if kind in "biufcmM" and kind:
        return False
    try:
        rows = [*(part(x, 0, min(TEXTS, count(x))))]
    except (TypeError, ValueError, KeyError, IndexError):
        return False
    return any(isinstance(value, str) for row in rows for value in _values(row))


def _values(row) -> list:
    """Returns a row's values, or the row itself if it is one value."""
    return list(row) if isinstance(row, list | tuple | np.ndarray) and np.ndim(row) else [row]


def as_numbers(x) -> np.ndarray | None:
    """Returns x as an array of finite numbers; None if it is something else."""
    if isinstance(x, Mapping) or (not hasattr(x, "dtype") and not hasattr(x, "iloc")):
        return None
    try:
        value = np.asarray(x)
    except Exception:  # a tensor on a device, a frame of extension types, ...
        return None
    if value.dtype.kind not in "biuf" or not value.ndim:
        return None
    return value if value.dtype.kind != "f" or np.isfinite(value).all() else None


def for_net(x, *, texts: bool = False):
    """Returns rows as a net takes them: frames and lists of rows as arrays, dicts of them by name;
    arrays and tensors as they are.

    Raises:
        ValueError: the rows are not numbers, unless `texts` allows texts.

    >>> for_net([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if isinstance(x, Mapping):
        return {key: for_net(value, texts=texts) for key, value in x.items()}
    value = np.asarray(x) if hasattr(x, "iloc") or isinstance(x, list | tuple) else x
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU" and not texts:
        raise ValueError(
            f"x holds {value.dtype} values, and nets take numbers; encode them, or pass a function "
            "of rows that does."
        )
    return value


def digest(x) -> str:
    """Returns 16 hex digits of what the rows hold.

    Of an object of another type than arrays, frames, sparse matrices, lists and dicts only the
    first 64 rows are read.
    """
    return files.digest(*_parts(x))


def _parts(x) -> list:
    """Returns JSON values and arrays that say what x holds."""
    if isinstance(x, Mapping):
        return [part for key in x for part in (str(key), *_parts(x[key]))]
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        columns = range(len(x.columns))
        return [list(map(str, x.columns)), *(p for i in columns for p in _parts(x.iloc[:, i]))]
    if hasattr(x, "indptr") and hasattr(x, "indices") and hasattr(x, "data"):
        return [list(x.shape), *map(np.asarray, (x.indptr, x.indices, x.data))]
    if hasattr(x, "iloc") or isinstance(x, np.ndarray | list | tuple):
        return _of_array(x)
    examples = count(x)
    try:
        value = np.asarray(x)
        if value.dtype.kind in "biufUS" and value.shape[:1] == (examples,):
            return [value]
    except Exception:  # not an array: a data set that is read row by row
        pass
    sample = [*take(x, np.arange(min(SEEN, examples)))]
    return [type(x).__qualname__, examples, *(p for row in sample for p in _of_array(row))]


def _of_array(x) -> list:
    if isinstance(x, list | tuple) and any(isinstance(value, str) for value in x):
        return [[_plain(value) for value in x]]  # an array of texts is as wide as the longest one
    try:
        value = np.asarray(x)
    except ValueError:  # lists of different lengths
        value = np.asarray(None)
    if value.dtype.kind in "biufcUS":
        return [value]
    rows = list(x) if isinstance(x, list | tuple | np.ndarray) or hasattr(x, "iloc") else [x]
    return [[_plain(row) for row in rows]]


def _plain(row):
    """Returns a value as JSON can say it; bytes of an array, else the text of the value."""
    if isinstance(row, str | int | float | bool | None):
        return row
    if isinstance(row, list | tuple):
        return [_plain(value) for value in row]
    if isinstance(row, np.ndarray) and row.dtype.kind in "biufc":
        return files.digest(row)
    return repr(row)
