"""Contains what the data sources share: checks, labels, content hash, duplicates, standardization.

It uses NumPy on the host.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import numpy as np

from mia_jax import checks
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool, Task

_BLOCK = 1 << 24  # Bytes that are processed together, so that a large pool is never copied.


def checked(pool: Pool) -> Pool:
    """Returns the pool with x, y and columns [N] as contiguous arrays of what its task says.

    x is float32 [N,...], or int32 if the task has a vocabulary; y is int32 where labels are class
    numbers, else float32.

    Raises:
        ValueError: names the source if it is empty, lengths differ, a value is NaN or infinite
            (with the first such row), a label lies outside 0..num_classes-1 or a token outside
            0..vocabulary-1, fewer than 2 classes are present, or no row is left outside the
            population.
    """
    name, task = pool.name or "data", pool.task
    kept = isinstance(pool.x, Rows)  # bytes, of which nothing can be wrong
    x, y = pool.x if kept else np.asarray(pool.x), np.asarray(pool.y)
    if task.vocabulary is not None:
        x = _tokens(name, x, task.vocabulary)
    elif x.ndim >= 2 and x.dtype != np.float32:
        x = _narrowed(name, x)
    if task.kind == "regression" and y.dtype != np.float32:
        _resolved(name, y)
    with np.errstate(over="ignore"):  # Values too large for float32 are refused as infinite.
        x = x if kept else np.ascontiguousarray(x, x_dtype(task))
        y = np.ascontiguousarray(y, y_dtype(task))
    if x.ndim < 2 or not x.size:
        raise ValueError(
            f"{name}: x has shape {x.shape}; expected at least one example of at least one "
            "feature, [N,F] or [N,H,W,C]."
        )
    if y.ndim != len(task.y) or len(y) != len(x) or not y.size:
        axes = (
            "one label a row, [N]" if task.y == "B" else f"[{','.join(task.y.replace('B', 'N'))}]"
        )
        raise ValueError(f"{name}: y has shape {y.shape} but x has {len(x)} rows; expected {axes}.")
    if not kept:
        _finite(name, "x", x)
    if task.num_classes:
        _classes(name, y, task)
    else:
        _finite(name, "y", y)
    columns = {}
    for column, value in pool.columns.items():
        value = np.ascontiguousarray(value)
        if value.shape != (len(x),):
            raise ValueError(
                f"{name}: column {column!r} has shape {value.shape}; expected one value for each "
                f"of the {len(x)} rows."
            )
        columns[column] = _population(name, value) if column == "population" else value
    _presented(name, pool, x.shape[1:])
    return dataclasses.replace(pool, x=x, y=y, columns=columns)


def _presented(name: str, pool: Pool, shape: tuple[int, ...]) -> None:
    """Raises ValueError if the names or the picture of a pool do not fit its examples."""
    given = pool.presentation
    counts = (
        ("features", len(given.features), math.prod(shape)),
        ("classes", len(given.classes), pool.task.num_classes),
        ("picture", math.prod(given.picture) if given.picture else 0, math.prod(shape)),
    )
    for what, count, expected in counts:
        if count and count != expected:
            raise ValueError(
                f"{name}: presentation.{what} is of {count} values; the examples have {expected}."
            )


def x_dtype(task: Task) -> type:
    """Returns the dtype of x: int32 for tokens, else float32."""
    return np.float32 if task.vocabulary is None else np.int32


def y_dtype(task: Task) -> type:
    """Returns the dtype of y: int32 for class numbers, else float32."""
    return np.int32 if task.num_classes else np.float32


def _tokens(source: str, x: np.ndarray, vocabulary: int) -> np.ndarray:
    """Returns x as int32.

    Raises:
        ValueError: if a token is outside 0..vocabulary-1, because embeddings would clip it
            silently.
    """
    if x.dtype.kind not in "biuf" or (x.dtype.kind == "f" and not np.array_equal(x, np.round(x))):
        raise ValueError(
            f"{source}: x of dtype {x.dtype} must hold whole numbers: vocabulary={vocabulary} says "
            "that it holds tokens."
        )
    for block in _blocks(x):
        outside = (x[block] < 0) | (x[block] >= vocabulary)
        if not outside.any():
            continue
        first_row, *rest = (int(i) for i in np.argwhere(outside)[0])
        at = (block.start + first_row, *rest)
        raise ValueError(
            f"{source}: token {x[at]} in row {at[0]} lies outside 0..{vocabulary - 1} "
            f"(vocabulary={vocabulary})."
        )
    return x.astype(np.int32, copy=False)


MERGED = 0.1  # This share of rows of real numbers does not become equal by chance.


def _narrowed(name: str, x: np.ndarray) -> np.ndarray:
    """Returns x in float32, which is what models see.

    Raises:
        ValueError: if this makes different rows equal, as with identifiers above 2^24.
    """
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    if x.dtype.itemsize <= 2 or np.array_equal(narrow, x):
        return narrow
    _finite(name, "x", x)
    flat, narrow_flat = x.reshape(len(x), -1), narrow.reshape(len(x), -1)
    group_N, after_N = _groups(flat), _groups(narrow_flat)
    merged = int(group_N.max(initial=-1)) - int(after_N.max(initial=-1))
    changed = np.flatnonzero((flat != narrow_flat).any(0))
    whole = all((flat[:, f] == np.round(flat[:, f])).all() for f in changed)
    if merged > (0 if whole else MERGED * len(x)):
        first: dict[int, int] = {}
        # One row of each set of equal rows.
        pairs = (
            (first.setdefault(int(after_N[n]), n), n)
            for n in np.unique(group_N, return_index=True)[1]
        )
        other, twin = next((a, b) for a, b in pairs if a != b)
        f = int(np.flatnonzero(flat[twin] != flat[other])[0])
        raise ValueError(
            f"{name}: rows {other} and {twin} differ and become equal in float32, which is what "
            f"models are given (feature {f}: {flat[other, f]} and "
            f"{flat[twin, f]}; {merged:,} such rows). Leave that feature out if it is an "
            "identifier, or subtract an offset from it."
        )
    return narrow


def _resolved(name: str, y: np.ndarray) -> None:
    """Raises ValueError if float32 cannot resolve regression labels.

    This happens for labels of small spread and large size.
    """
    y = y.astype(np.float64)
    if (
        np.isfinite(y).all()
        and y.size
        and 0 < y.std() < 1e3 * np.finfo(np.float32).eps * np.abs(y).max()
    ):
        raise ValueError(
            f"{name}: the targets lie around {y.mean():.6g} with a spread of {y.std():.3g}, which "
            "float32 cannot resolve, and models are trained in "
            "float32: subtract their mean."
        )


def labels(y, *, source: str) -> np.ndarray:
    """Returns integer labels [N] int32.

    Integers, whole floats or booleans [N] or [N,1], and one-hot rows [N,C] are accepted.

    Raises:
        ValueError: for anything else.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        if not (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
            raise ValueError(
                f"{source}: y has shape {y.shape} and is not one-hot; expected labels [N], [N,1] "
                "or one-hot [N,C]."
            )
        y = y.argmax(1)
    if y.ndim != 1 or y.dtype.kind not in "iufb":
        words = (
            " np.unique(y, return_inverse=True)[1] makes them."
            if y.ndim == 1 and y.dtype.kind in "SU"
            else ""
        )
        raise ValueError(
            f"{source}: y has shape {y.shape} and dtype {y.dtype}; expected integer labels "
            f"[N].{words}"
        )
    if y.dtype.kind == "f":
        _finite(source, "y", y)
        broken = np.flatnonzero(y != np.round(y))
        if broken.size:
            row = int(broken[0])
            raise ValueError(
                f"{source}: label {y[row]} in row {row} is not a whole number; for regression "
                "targets set regression=True."
            )
    return y.astype(np.int32)


def first(examples: int | None, **arrays) -> list[np.ndarray]:
    """Returns the first `examples` rows of every array (None: all of them).

    Raises:
        ValueError: if there are fewer; the message has both numbers.
    """
    available = len(next(iter(arrays.values())))
    if examples is not None:
        checks.positive(examples=examples)
        if examples > available:
            raise ValueError(f"examples={examples} but the data has only {available}.")
    return [a[:examples] for a in arrays.values()]


def content_hash(pool: Pool) -> str:
    """Returns 16 hex digits of the SHA-256 of x, y and the population column with their shapes.

    They are the same on every machine, and for every source that gives these examples: x is hashed
    as models see it. Of pools that stay on disk (`Rows.by_row`) the digests of the stored rows are
    hashed (`row_digests`), with the scaling. What is computed of large files is kept.
    """
    kinds = {np.float32: "<f4", np.int32: "<i4"}
    parts = [("x", pool.x, kinds[x_dtype(pool.task)]), ("y", pool.y, kinds[y_dtype(pool.task)])]
    if "population" in pool.columns:
        parts.append(("population", pool.columns["population"], "|b1"))
    x = pool.x
    if not isinstance(x, Rows) or x.by_row or x.origin is None:
        return _content_hash(parts)
    what = f"content {list(x.shape)} {x.scaling} {_content_hash(parts[1:])}"
    text = digests.kept(
        x.origin, what, lambda: np.frombuffer(_content_hash(parts).encode(), np.uint8)
    )
    return text.tobytes().decode()


def _content_hash(parts: list[tuple]) -> str:
    """Returns the hash of (name, array, dtype) one after the other."""
    digest = hashlib.sha256()
    for name, array, dtype in parts:
        if isinstance(array, Rows) and array.by_row:
            digest.update(f"{name}{list(array.shape)}|u1{array.scaling};".encode())
            array, dtype = row_digests(array), "<u8"
        array = array if isinstance(array, Rows) else np.asarray(array)
        digest.update(f"{name}{list(array.shape)}{dtype};".encode())
        for block in _blocks(array):
            digest.update(np.ascontiguousarray(array[block], dtype).tobytes())
    return digest.hexdigest()[:16]


def duplicates(pool: Pool, member_N=None) -> dict[str, int]:
    """Returns counts of rows whose x is equal bit for bit.

    Args:
        pool: the pool.
        member_N: which rows are members, boolean [N]; None for no 'crossing'.

    Returns:
        'rows': the rows that have a duplicate; 'groups': the sets of equal rows; 'label_conflicts':
            the groups with different y; 'crossing': the groups with members and non-members.
    """
    group_N = _groups(pool.x)
    size = np.bincount(group_N)
    y = np.asarray(pool.y) if np.ndim(pool.y) == 1 else _groups(pool.y)
    low, high = np.full(len(size), y.max()), np.full(len(size), y.min())
    np.minimum.at(low, group_N, y)
    np.maximum.at(high, group_N, y)
    counts = dict(
        rows=int(size[size > 1].sum()),
        groups=int((size > 1).sum()),
        label_conflicts=int((low < high).sum()),
    )
    if member_N is not None:
        member_N = _mask(member_N, len(y), "member_N")
        members = np.bincount(group_N, weights=member_N, minlength=len(size))
        counts["crossing"] = int(((members > 0) & (members < size)).sum())
    return counts


def drop_duplicates(pool: Pool) -> Pool:
    """Returns the pool with only the first row of every set of rows with equal x.

    Labels are ignored, and the order of the rows is kept.
    """
    keep = np.unique(_groups(pool.x), return_index=True)[1]
    rows = {k: np.asarray(v)[keep] for k, v in pool.columns.items()}
    return checked(
        dataclasses.replace(
            pool,
            x=pool.x.part(keep) if isinstance(pool.x, Rows) else np.asarray(pool.x)[keep],
            y=np.asarray(pool.y)[keep],
            columns=rows,
        )
    )


def standardize(pool: Pool, population_N) -> Pool:
    """Returns the pool with x of mean 0 and standard deviation 1 over the population rows.

    This is per feature (per channel for images [N,H,W,C]). Constant features keep a standard
    deviation of 1. `population_N` is boolean [N]: rows that no model trains on and that are not
    evaluated.

    Raises:
        ValueError: if there are fewer than 2 population rows.
    """
    if pool.task.vocabulary is not None:
        raise ValueError(
            f"{pool.name}: tokens are numbers of words and cannot be standardized; leave "
            "data.standardize=False."
        )
    population_N = _mask(population_N, len(pool.y), "population_N")
    if population_N.sum() < 2:
        raise ValueError(
            "standardizing needs at least 2 population rows (rows outside every model and outside "
            "the evaluation) and there are "
            f"{int(population_N.sum())}: set design.population to a share above 0, or supply "
            "population_x and population_y."
        )
    axes = (0, 1, 2) if pool.x.ndim == 4 else (0,)
    if isinstance(pool.x, Rows) and pool.x.by_row:
        return dataclasses.replace(pool, x=_standardized(pool.x, population_N, axes))
    x = np.asarray(pool.x)
    rows = x[population_N]
    mean = rows.mean(axes, dtype=np.float64)
    deviation = rows.std(axes, dtype=np.float64)
    deviation = np.where(rows.max(axes) == rows.min(axes), 1.0, deviation)
    out = np.empty(x.shape, np.float32)
    for block in _blocks(x):
        out[block] = (x[block] - mean) / deviation
    return checked(dataclasses.replace(pool, x=out))


def _standardized(x: Rows, population_N: np.ndarray, axes: tuple[int, ...]) -> Rows:
    """Returns the same bytes, which are standardized where they are used."""
    numbers = np.flatnonzero(population_N)
    count, total, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    step = max(1, _BLOCK // (8 * max(1, x.size // len(x))))
    for square in (False, True):  # the mean, then the squared distances from it
        for start in range(0, len(numbers), step):
            block = np.asarray(x[numbers[start : start + step]], np.float64)
            if square:
                squares = squares + np.square(block - total / count).sum(axes)
            else:
                count += int(np.prod([block.shape[axis] for axis in axes]))
                total = total + block.sum(axes)
                low, high = np.minimum(low, block.min(axes)), np.maximum(high, block.max(axes))
    deviation = np.where(low == high, 1.0, np.sqrt(squares / count))
    before = 0.0 if x.offset is None else x.offset.array.astype(np.float64)
    factor = x.factor.array / deviation
    return x.scaled(factor=factor, offset=(before - total / count) / deviation)


def _blocks(array: np.ndarray) -> Iterator[slice]:
    """Returns the slices of an array, or of Rows, that are processed together."""
    whole = 4 * array.size if isinstance(array, Rows) else array.nbytes
    step = max(1, _BLOCK // max(1, whole // max(1, len(array))))
    return (slice(i, i + step) for i in range(0, len(array), step))


def _finite(source: str, what: str, array: np.ndarray) -> None:
    """Raises ValueError that names the first value which is not finite."""
    for block in _blocks(array):
        bad = ~np.isfinite(array[block])
        if bad.any():
            at = (int(np.argwhere(bad)[0][0]) + block.start, *map(int, np.argwhere(bad)[0][1:]))
            raise ValueError(
                f"{source}: {what} is {array[at]} in row {at[0]} (position {list(at)}, counted "
                "from 0); every value must be finite."
            )


def _classes(source: str, y: np.ndarray, task: Task) -> None:
    """Raises ValueError if a label is out of range or there are fewer than 2 classes."""
    outside = np.argwhere((y < 0) | (y >= task.num_classes))
    if len(outside):
        at = tuple(int(i) for i in outside[0])
        raise ValueError(
            f"{source}: label {y[at]} in row {at[0]} lies outside 0..{task.num_classes - 1} "
            f"(num_classes={task.num_classes})."
        )
    if task.has_classes and y.min() == y.max():
        raise ValueError(
            f"{source}: all {len(y)} rows have label {y[0]}; a classifier needs at least 2 classes."
        )


def _population(source: str, value: np.ndarray) -> np.ndarray:
    """Returns the column 'population' as booleans."""
    if not np.isin(value, (0, 1)).all():
        raise ValueError(
            f"{source}: the column 'population' must be boolean; it is {value.dtype} with values "
            "other than 0 and 1."
        )
    if value.all():
        raise ValueError(
            f"{source}: all {len(value)} rows are population rows, so no model has anything to "
            "train on."
        )
    return value.astype(bool)


def _mask(value, rows: int, name: str) -> np.ndarray:
    """Returns a mask after the check that it is boolean [rows]."""
    value = np.asarray(value)
    if value.shape != (rows,) or value.dtype != bool:
        raise ValueError(
            f"{name} has shape {value.shape} and dtype {value.dtype}; expected boolean [{rows}]."
        )
    return value


def _groups(x) -> np.ndarray:
    """Returns [N] numbers which are equal for equal rows (0.0 equals -0.0).

    They count up in order of first appearance.
    """
    digest_N2 = row_digests(x)
    order = np.lexsort(digest_N2.T)
    new = np.ones(len(order), bool)
    new[1:] = (digest_N2[order[1:]] != digest_N2[order[:-1]]).any(1)
    first = np.minimum.reduceat(order, np.flatnonzero(new)) if len(order) else order
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    group_N = np.empty(len(order), np.int64)
    group_N[order] = rank[np.cumsum(new) - 1]
    return group_N


def row_digests(x) -> np.ndarray:
    """Returns 16 bytes of the BLAKE2b digest of every row, [N,2] uint64, read in blocks.

    Those of Rows are of what is stored, and are computed once.
    """
    if isinstance(x, Rows):
        return x.once("digests", lambda: _kept_digests(x))
    x = np.asarray(x)
    # Rows are compared at the precision of their dtype.
    narrow = x.dtype.itemsize < 4 or x.dtype == np.float32
    return _row_digests(x, np.float32 if narrow else x.dtype)


def _kept_digests(x: Rows) -> np.ndarray:
    if x.origin is None:
        return _row_digests(x.stored)
    return digests.kept(x.origin, "digests", lambda: _row_digests(x.stored))


def _row_digests(x, dtype=None) -> np.ndarray:
    digest_N2 = np.empty((len(x), 2), np.uint64)
    for block in _blocks(x):
        rows = np.ascontiguousarray(x[block], dtype)
        if dtype is not None:
            rows = rows + rows.dtype.type(0)  # -0.0 becomes 0.0
        hashes = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
        digest_N2[block] = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)
    return digest_N2
