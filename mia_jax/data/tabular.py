"""Loads a table with a label column: your own csv or npz.

These can be the files of the tabular membership-inference literature. Shapes (features/classes) of
the four usual data sets, from files that you provide:

- Adult 107/2: npz with x and y.
- Purchase 600/100 and Location 446/30: csv, label first.
- Texas 6168/100: a csv of features whose first column is dropped (`drop=(0,)`), and a second file
  of labels (`label_path`).
"""

from __future__ import annotations

import csv
import gzip
import itertools
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.data import _arrays as given
from mia_jax.data import npz
from mia_jax.data._pool import checked, first, labels
from mia_jax.types import Pool, Presentation, classification

# A column with more than MANY values, and fewer than FEW rows per value, is not accepted as label.
MANY, FEW = 20, 5
_MISSING = ("", "?", "na", "n/a", "nan", "none", "null", "missing", "-")
_NPZ_NAMES = (("x", "y"), ("X", "Y"), ("X", "y"), ("features", "labels"))


def load(
    *,
    path: str,
    label: str | int | None = None,
    label_path: str | None = None,
    drop: Sequence[str | int] = (),
    one_hot: Sequence[str | int] = (),
    header: bool | None = None,
    delimiter: str = ",",
    examples: int | None = None,
) -> Pool:
    """Returns x [N,F] as in the file (standardize it on population rows) and class numbers y.

    y is the label column with its sorted values renumbered 0..C-1. Columns are given by name or
    index (-1 = last).

    Args:
        path: a csv (also .gz), or an .npz with x and y (or features and labels), or with one table.
        label: the label column, which a table needs and which is not guessed.
        label_path: a separate file of labels, one per line.
        drop: columns that are not used.
        one_hot: columns, of words or numbers, that become a column of 0 and 1 per value. These are
            in the sorted order of the values and follow the other columns.
        header: whether there is one; None checks whether the first line has words above numbers.
        delimiter: the delimiter of the cells.
        examples: the number of first rows that are used; None for all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be used; the message names the cell, the row or all columns that
            hold words.
    """
    file = pathlib.Path(path).expanduser()
    columns = _listed(drop, "drop"), _listed(one_hot, "one_hot")
    if file.suffix == ".npz":
        (x, features), y = _from_npz(file, label, *columns)
    else:
        (x, features), y = _from_csv(
            file, None if label_path else label, *columns, header, delimiter, labeled=not label_path
        )
    if label_path:
        y = _from_csv(pathlib.Path(label_path).expanduser(), 0, (), (), None, delimiter)[1]
        if len(y) != len(x):
            raise ValueError(f"{label_path} has {len(y)} labels but {file} has {len(x)} rows.")
    _classes(y, file)
    values, y = np.unique(y, return_inverse=True)
    x, y = first(examples, x=x, y=y)
    return checked(
        Pool(
            x=x,
            y=y,
            name=file.name.split(".")[0],
            task=classification(len(values)),
            presentation=Presentation(features=features, classes=tuple(map(_cell, values))),
        )
    )


def _listed(columns, field: str) -> tuple:
    """Returns a list of columns; a single column may be given instead of a list."""
    columns = (columns,) if isinstance(columns, str | int) else tuple(columns)
    if not all(isinstance(c, str | int) and not isinstance(c, bool) for c in columns):
        raise ValueError(f"data.{field}={columns!r} must be names or numbers of columns.")
    return columns


def _classes(y: np.ndarray, file: pathlib.Path) -> None:
    """Raises ValueError for a label that is no class: real numbers, or nearly one value per row."""
    values = np.unique(y)
    many = len(values) > MANY
    if many and values.dtype.kind == "f" and not (values == np.round(values)).all():
        raise ValueError(
            f"{file}: the label holds {len(values):,} different real numbers, which are no "
            "classes. Choose another column as data.label, cut them "
            "into classes, or save an .npz with x and y for data.name=npz with "
            "data.regression=True."
        )
    if many and len(values) * FEW > len(y):
        shown = ", ".join(str(v) for v in values[:3].tolist())
        raise ValueError(
            f"{file}: the label has {len(values):,} different values ({shown}, ...) in {len(y):,} "
            "rows, so it is rather an identifier or a quantity "
            "than a class. Choose another column as data.label, or join values into classes."
        )


class _Features(NamedTuple):
    """Holds the features x [N,F] of a table and their F names."""

    x: np.ndarray
    names: tuple[str, ...]


def _cell(value) -> str:
    """Returns the value of a cell as text: 1.0 is written as 1."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value)


def _from_npz(
    file: pathlib.Path, label: str | int | None, drop: Sequence, one_hot: Sequence
) -> tuple[_Features, np.ndarray]:
    """Returns (features, labels [N]) of an npz."""
    arrays = npz.read(str(file))
    for x_name, y_name in _NPZ_NAMES:
        if x_name in arrays and y_name in arrays:
            x, y = _table(arrays[x_name], file), labels(arrays[y_name], source=file.name)
            if len(y) != len(x):
                raise ValueError(f"{file}: {x_name} has {len(x)} rows but {y_name} has {len(y)}.")
            return _selected(
                x,
                {},
                *([_column(c, None, x.shape[1], file) for c in part] for part in (drop, one_hot)),
            ), y
    if len(arrays) != 1:
        raise ValueError(
            f"{file} has the arrays {sorted(arrays)}; expected x and y, features and labels, or "
            "one table with a label column."
        )
    table = _table(next(iter(arrays.values())), file)
    if label is None:
        raise ValueError(
            f"{file}: which column is the label? Set data.label to its number, "
            f"0..{table.shape[1] - 1} (-1: the last)."
        )
    at = _column(label, None, table.shape[1], file)
    skipped, hot = (
        [_column(c, None, table.shape[1], file) for c in part] for part in (drop, one_hot)
    )
    return _selected(table, {}, [at, *skipped], hot), labels(table[:, at], source=file.name)


def _table(array: np.ndarray, file: pathlib.Path) -> np.ndarray:
    """Returns an array as a table of numbers."""
    if array.ndim != 2 or not given.numeric(array.dtype):
        raise ValueError(
            f"{file}: the table has shape {array.shape} and dtype {array.dtype}; expected numbers "
            "[N,F]."
        )
    return given.numbers(f"{file}: the table", array)


def _selected(
    table: np.ndarray,
    words: Mapping[int, dict[str, int]],
    unused: Sequence[int],
    hot: Sequence[int],
    names: Sequence[str] | None = None,
) -> _Features:
    """Returns the columns of a table that are features.

    Those of `hot` become a column of 0 and 1 per value, after the others. `words[c]` {cell: code}
    are the values of a column that was read as codes. Without `names` of all columns, a feature is
    called by its column's number.
    """
    _apart(unused, hot)
    parts = [np.delete(table, [*unused, *hot], axis=1)]
    called = names or [f"column {c}" for c in range(table.shape[1])]
    features = np.delete(np.array(called, object), [*unused, *hot]).tolist()
    for c in hot:
        values = _values(words[c])[table[:, c].astype(int)] if c in words else table[:, c]
        parts.append((values[:, None] == np.unique(values)).astype(table.dtype))
        features += [f"{called[c]}={_cell(value)}" for value in np.unique(values)]
    return _Features(np.concatenate(parts, axis=1), tuple(features))


def _apart(unused: Sequence[int], hot: Sequence[int]) -> None:
    """Raises ValueError if a one-hot column is the label or is dropped."""
    both = sorted(set(unused) & set(hot))
    if both:
        raise ValueError(f"data.one_hot: column {both[0]} is the label or is dropped.")


def _from_csv(
    file: pathlib.Path,
    label: str | int | None,
    drop: Sequence[str | int],
    one_hot: Sequence[str | int],
    header: bool | None,
    delimiter: str,
    *,
    labeled: bool = True,
):
    """Returns (features, label values [N] or None) of a csv, read in one pass.

    Raises:
        ValueError: for every problem of the file; the message names it.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"data file {file} does not exist."
            if not file.is_dir()
            else f"data file {file} is a folder."
        )
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise ValueError(f"data.delimiter={delimiter!r} must be one character, such as ',' or ';'.")
    try:
        return _parsed(file, label, drop, one_hot, header, delimiter, labeled)
    except UnicodeDecodeError as error:
        with open(file, "rb") as raw:
            start = raw.read(4)
        if start[:2] == b"PK":
            raise ValueError(
                f"{file} is an archive, such as Excel writes, and no csv: save the sheet as csv "
                "(UTF-8)."
            ) from error
        kind = "UTF-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        what = f"{kind} (byte 0x{error.object[error.start]:02x})" if kind == "not UTF-8" else kind
        code = "utf-16" if kind == "UTF-16" else "latin1"
        raise ValueError(
            f"{file} is {what}: save it as UTF-8, for example with `iconv -f {code} -t utf-8 "
            "old.csv > new.csv`."
        ) from error
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file} cannot be read as a csv: {error}.") from error


def _parsed(
    file: pathlib.Path, label, drop, one_hot, header: bool | None, delimiter: str, labeled: bool
):
    """Returns (features, label values [N] or None) of a csv that exists."""
    with _open(file) as lines:
        head = list(
            itertools.islice((row for row in csv.reader(lines, delimiter=delimiter) if row), 2)
        )
    if not head:
        raise ValueError(f"{file} is empty.")
    if len(head[0]) == 1 and labeled:
        other = next(
            (d for d in ";\t|," if d != delimiter and all(d in row[0] for row in head)), None
        )
        if other:
            seem = f"its cells seem to be separated by {other!r}: data.delimiter={other!r}"
            raise ValueError(f"{file} has one column at data.delimiter={delimiter!r}; {seem}.")
    if header is None:
        header = any(isinstance(c, str) for c in (label, *drop, *one_hot)) or _words_over_numbers(
            *head
        )
    names = [n.strip() for n in head[0]] if header else None
    width = len(head[0])
    if label is None and labeled:
        listed = (
            ", ".join(f"{i} {name!r}" for i, name in enumerate(names[:40]))
            if names
            else f"0..{width - 1}, without names"
        )
        raise ValueError(
            f"{file}: which column is the label? Set data.label to its name or number (-1: the "
            f"last). Columns: {listed}."
        )
    skipped, hot = ([_column(c, names, width, file) for c in part] for part in (drop, one_hot))
    at = None if label is None else _column(label, names, width, file)
    _apart([*skipped, *([] if at is None else [at])], hot)
    # Codes are numbered in order of first appearance.
    words: dict[int, dict[str, int]] = {c: {} for c in (*hot, *([] if at is None else [at]))}
    converters = {c: lambda cell: 0.0 for c in skipped}
    converters |= {
        c: lambda cell, codes=codes: codes.setdefault(cell.strip(), len(codes))
        for c, codes in words.items()
    }
    checks.at_least(1 + header, **{f"rows of {file.name}": len(head)})
    try:
        with _open(file) as lines:
            options = dict(
                delimiter=delimiter, skiprows=int(header), comments=None, quotechar='"', ndmin=2
            )
            table = np.loadtxt(lines, np.float64, converters=converters, **options)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        _explain(file, names, {*words, *skipped}, delimiter, bool(header))
        raise ValueError(f"{file} cannot be read: {error}") from error
    y = None if at is None else _values(words[at])[table[:, at].astype(int)]
    return _selected(table, words, skipped if at is None else [at, *skipped], hot, names), y


def _open(file: pathlib.Path):
    """Returns the opened file, gzipped or not."""
    return (
        gzip.open(file, "rt", encoding="utf-8-sig", newline="")
        if file.suffix == ".gz"
        else open(file, encoding="utf-8-sig", newline="")
    )


def _number(cell: str) -> bool:
    """Returns whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _words_over_numbers(top: list[str], second: Sequence[str] = ()) -> bool:
    """Returns whether the first line has a word above a number."""
    words = (not _number(a) and a.strip().lower() not in _MISSING for a in top)
    return any(word and _number(b) for word, b in zip(words, second))


def _values(codes: dict[str, int]) -> np.ndarray:
    """Returns the label values by code.

    They are numbers if all are numbers, so that '1' equals '1.0' and 10 comes after 9.
    """
    cells = list(codes)
    return np.array([float(c) for c in cells] if all(map(_number, cells)) else cells)


def _column(column: str | int, names: list[str] | None, width: int, file: pathlib.Path) -> int:
    """Returns the index of a column."""
    if isinstance(column, str):
        if names is None:
            raise ValueError(
                f"{file} has no header, so the column {column!r} must be given by its index "
                f"0..{width - 1}."
            )
        if column not in names:
            raise ValueError(checks.lacks(str(file), "column", column, names))
        return names.index(column)
    if not -width <= column < width:
        raise ValueError(f"{file} has no column {column}: it has {width}.")
    return column % width


def _explain(
    file: pathlib.Path, names: list[str] | None, free: set, delimiter: str, header: bool
) -> None:
    """Raises ValueError that names the first row of another length, or all columns with words.

    Returns if there are none.
    """
    wrong: dict[int, dict] = {}
    with _open(file) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        width = None
        for row in reader:
            if not row:
                continue
            if width is None and header:
                width = len(row)
                continue
            width = width or len(row)
            if len(row) != width:
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(row)} cells, but {width} in the lines "
                    "above."
                )
            for at, cell in enumerate(row):
                if at not in free and not _number(cell):
                    problem = wrong.setdefault(
                        at, dict(line=reader.line_num, cell=cell, count=0, words=set())
                    )
                    problem["count"] += 1
                    if cell.strip().lower() not in _MISSING:
                        problem["words"].add(cell.strip())
    if not wrong:
        return
    called = lambda at: names[at] if names else str(at)  # noqa: E731
    parts = [
        f"{at} {f'{called(at)!r} ' * bool(names)}({problem['count']:,} cells, the first in line "
        f"{problem['line']}: {problem['cell']!r})"
        for at, problem in sorted(wrong.items())
    ]
    texts = [called(at) for at, problem in sorted(wrong.items()) if problem["words"]]
    gaps = [called(at) for at, problem in sorted(wrong.items()) if not problem["words"]]
    remedy = f" Words: one column per value with data.one_hot={','.join(texts)}." if texts else ""
    remedy += f" Gaps ({', '.join(gaps)}): fill them in." if gaps else ""
    remedy += f" Or leave columns out: data.drop={','.join(texts + gaps)}."
    raise ValueError(f"{file}: cells that are no numbers in column {'; '.join(parts)}.{remedy}")
