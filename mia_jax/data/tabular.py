"""A table with a label column: your own csv or npz, such as the files of the tabular membership-inference literature.

Shapes (features/classes) of the four usual sets, from files that you bring:
Adult 107/2 (npz with x and y), Purchase 600/100 and Location 446/30 (csv, label first), Texas 6168/100 (csv of features whose first column is
dropped: `drop=(0,)`, and a second file of labels: `label_path`).
"""

from __future__ import annotations

import csv
import gzip
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.data import npz
from mia_jax.data._pool import checked, first, labels
from mia_jax.types import Pool

_MISSING = ("", "?", "na", "n/a", "nan", "none", "null", "missing", "-")
_NPZ_NAMES = (("x", "y"), ("X", "Y"), ("X", "y"), ("features", "labels"))


def load(
    *,
    path: str,
    label: str | int = 0,
    label_path: str | None = None,
    drop: Sequence[str | int] = (),
    header: bool | None = None,
    delimiter: str = ",",
    examples: int | None = None,
) -> Pool:
    """x [N,F] as it stands in the file (standardize it on population rows), y the label column with its sorted values renumbered 0..C-1.

    `path`: a csv (also .gz), or an .npz with x and y (or features and labels), or with one table. `label`, `drop`: columns by name or index
    (-1 = last), `label_path`: labels from a file of their own, one a line (then `label` is unused). `header`: None looks whether the first line
    has words over numbers. `examples`: only the first so many rows. FileNotFoundError, or ValueError with the row and the column of a cell
    that is not a number.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix == ".npz":
        x, y = _from_npz(file, label, drop)
    else:
        x, y = _from_csv(file, None if label_path else label, drop, header, delimiter)
    if label_path:
        y = _from_csv(pathlib.Path(label_path).expanduser(), 0, (), None, delimiter)[1]
        if len(y) != len(x):
            raise ValueError(f"{label_path} has {len(y)} labels but {file} has {len(x)} rows.")
    values, y = np.unique(y, return_inverse=True)
    x, y = first(examples, x=x, y=y)
    return checked(Pool(x=x, y=y, name=file.name.split(".")[0], num_classes=len(values)))


def _from_npz(file: pathlib.Path, label: str | int, drop: Sequence[str | int]) -> tuple[np.ndarray, np.ndarray]:
    arrays = npz.read(str(file))
    for x_name, y_name in _NPZ_NAMES:
        if x_name in arrays and y_name in arrays:
            x, y = arrays[x_name], labels(arrays[y_name], source=file.name)
            _table(x, file)
            if len(y) != len(x):
                raise ValueError(f"{file}: {x_name} has {len(x)} rows but {y_name} has {len(y)}.")
            return np.delete(x, [_column(c, None, x.shape[1], file) for c in drop], axis=1), y
    if len(arrays) != 1:
        raise ValueError(f"{file} has the arrays {sorted(arrays)}; expected x and y, features and labels, or one table with a label column.")
    table = next(iter(arrays.values()))
    _table(table, file)
    at = _column(label, None, table.shape[1], file)
    return np.delete(table, [at, *(_column(c, None, table.shape[1], file) for c in drop)], axis=1), labels(table[:, at], source=file.name)


def _table(array: np.ndarray, file: pathlib.Path) -> None:
    if array.ndim != 2 or array.dtype.kind not in "uifb":
        raise ValueError(f"{file}: the table has shape {array.shape} and dtype {array.dtype}; expected numbers [N,F].")


def _from_csv(file: pathlib.Path, label: str | int | None, drop: Sequence[str | int], header: bool | None, delimiter: str):
    """(x [N,F], label values [N] or None), read in one pass."""
    if not file.is_file():
        raise FileNotFoundError(f"data file {file} does not exist.")
    with _open(file) as lines:
        head = list(itertools.islice(csv.reader(lines, delimiter=delimiter), 2))
    if not head:
        raise ValueError(f"{file} is empty.")
    if header is None:
        header = isinstance(label, str) or any(isinstance(c, str) for c in drop) or _words_over_numbers(*head)
    names = [n.strip() for n in head[0]] if header else None
    skipped = [_column(c, names, len(head[0]), file) for c in drop]
    at = None if label is None else _column(label, names, len(head[0]), file)
    codes: dict[str, int] = {}  # in order of first appearance
    converters = {c: lambda cell: 0.0 for c in skipped}
    if at is not None:
        converters[at] = lambda cell: codes.setdefault(cell.strip(), len(codes))
    checks.at_least(1 + header, **{f"rows of {file.name}": len(head)})
    try:
        with _open(file) as lines:
            options = dict(delimiter=delimiter, skiprows=int(header), comments=None, quotechar='"', ndmin=2)
            table = np.loadtxt(lines, np.float32, converters=converters, **options)
    except ValueError as error:
        _explain(file, names, {at, *skipped}, delimiter, bool(header))
        raise ValueError(f"{file} cannot be read: {error}") from error
    unused = skipped if at is None else [at, *skipped]
    y = None if at is None else _values(codes)[table[:, at].astype(int)]
    return np.delete(table, unused, axis=1), y


def _open(file: pathlib.Path):
    return gzip.open(file, "rt", encoding="utf-8-sig", newline="") if file.suffix == ".gz" else open(file, encoding="utf-8-sig", newline="")


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _words_over_numbers(top: list[str], second: Sequence[str] = ()) -> bool:
    words = (not _number(a) and a.strip().lower() not in _MISSING for a in top)
    return any(word and _number(b) for word, b in zip(words, second))


def _values(codes: dict[str, int]) -> np.ndarray:
    """The label values by code: numbers if all are numbers, so that '1' equals '1.0' and 10 comes after 9."""
    cells = list(codes)
    return np.array([float(c) for c in cells] if all(map(_number, cells)) else cells)


def _column(column: str | int, names: list[str] | None, width: int, file: pathlib.Path) -> int:
    if isinstance(column, str):
        if names is None:
            raise ValueError(f"{file} has no header, so the column {column!r} must be given by its index 0..{width - 1}.")
        if column not in names:
            raise ValueError(f"{file} has no column {column!r}. Columns: {', '.join(names[:30])}.{checks.closest(column, names)}")
        return names.index(column)
    if not -width <= column < width:
        raise ValueError(f"{file} has no column {column}: it has {width}.")
    return column % width


def _explain(file: pathlib.Path, names: list[str] | None, free: set, delimiter: str, header: bool) -> None:
    """Raises ValueError that names the first bad cell or the first row of another length; returns if it finds neither."""
    with _open(file) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        width = len(next(reader)) if header else None
        for row in reader:
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                raise ValueError(f"{file}, line {reader.line_num}: {len(row)} cells, but {width} in the lines above.")
            for at, cell in enumerate(row):
                if at not in free and not _number(cell):
                    column = f"{at} ({names[at]!r})" if names else str(at)
                    raise ValueError(
                        f"{file}, line {reader.line_num}, column {column}: {cell!r} is not a number. Fill it in, encode words as numbers, "
                        f"or leave the column out: drop=({(names[at] if names else at)!r},)."
                    )
