"""Arrays that stay in their files: `Stack`, of many files, and `Stored`, of one.

NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

LARGE = 2**28  # bytes; signals that have less together are read whole


class Stack(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array [M,A,N,..] (or [M,N,..]) whose M parts stay in their files.

    What is indexed is read. Indexing with models alone, or with models and query views, reads
    nothing and gives a smaller Stack. Everything else that NumPy can do with an array (arithmetic,
    methods, functions) reads all of it first: every attack works, and one that reads the examples
    of one query view or a block of examples, `value[:, a, rows]`, does so in little memory.

    Args:
        parts: the arrays of the models, [A,N,..] (or [N,..]); None for a model without one, whose
            row is NaN.
        shape: the shape of the whole.
        dtype: its dtype.
        axis: the axis of a part that counts the examples.
        visible_MN: where False, the values are NaN; None: all are shown.
        change: change(values, columns) of the values [..,K,..] of the examples `columns`, an index
            into N; None leaves them as they are. See `changed`.

    >>> stack = Stack([np.arange(6).reshape(2, 3), None], shape=(2, 2, 3), dtype=np.float32)
    >>> stack[:, 1, 1:].tolist()
    [[4.0, 5.0], [nan, nan]]
    >>> stack[:1].shape, (2 * stack)[0, 0].tolist()
    ((1, 2, 3), [0.0, 2.0, 4.0])
    """

    def __init__(
        self,
        parts: Sequence[np.ndarray | None],
        *,
        shape: tuple[int, ...],
        dtype,
        axis: int = 1,
        visible_MN: np.ndarray | None = None,
        change: Callable | None = None,
    ):
        self.parts, self.shape, self.dtype = list(parts), tuple(shape), np.dtype(dtype)
        self.axis, self.visible_MN, self.change = axis, visible_MN, change

    @property
    def ndim(self) -> int:
        """Returns the number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Returns the number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the whole array would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self):
        return (self[m] for m in range(len(self)))

    def hidden(self, visible_MN: np.ndarray) -> Stack:
        """Returns the stack with NaN where `visible_MN` is False."""
        seen_MN = visible_MN if self.visible_MN is None else visible_MN & self.visible_MN
        return self._with(visible_MN=seen_MN, dtype=np.result_type(self.dtype, np.float32))

    def changed(self, change: Callable, *, shape: tuple[int, ...], dtype) -> Stack:
        """Returns the stack of change(values, columns), which is computed whenever it is read.

        Args:
            change: a function of the values [..,K,..] of some examples and of their index into N,
                each of which it changes alone.
            shape: the shape of the result.
            dtype: its dtype.
        """
        before = self.change

        def both(values, columns):
            return change(values if before is None else before(values, columns), columns)

        return self._with(change=both, shape=shape, dtype=dtype)

    def _with(self, **fields) -> Stack:
        common: dict[str, Any] = dict(
            parts=self.parts,
            shape=self.shape,
            dtype=self.dtype,
            axis=self.axis,
            visible_MN=self.visible_MN,
            change=self.change,
        )
        return Stack(**(common | fields))

    def __getitem__(self, key):
        keys = _expanded(key, self.ndim)
        if keys is None:
            return np.asarray(self)[key]
        models, views, rest = keys[0], keys[1 : 1 + self.axis], keys[1 + self.axis :]
        columns, last = rest[0], rest[1:]
        if isinstance(models, int | np.integer):
            return self._read([int(models)], views, columns, last)[0]
        numbers = np.arange(len(self))[models].tolist()
        lazy = _whole(columns) and all(map(_whole, last))
        if lazy and not any(isinstance(k, np.ndarray) for k in views):
            return self._views(numbers, views)
        return self._read(numbers, views, columns, last)

    def _views(self, numbers: Sequence[int], views: tuple) -> Stack:
        """Returns the stack of some models and query views."""
        lengths = [
            len(range(*k.indices(n)))
            for k, n in zip(views, self.shape[1:], strict=False)
            if isinstance(k, slice)
        ]
        parts = [self.parts[m] for m in numbers]
        return self._with(
            parts=[None if part is None else part[views] for part in parts],
            shape=(len(numbers), *lengths, *self.shape[1 + self.axis :]),
            axis=len(lengths),
            visible_MN=None if self.visible_MN is None else self.visible_MN[numbers],
        )

    def _read(self, numbers: Sequence[int], views: tuple, columns, last: tuple) -> np.ndarray:
        """Returns the values of some models, query views, examples and components."""
        kept = sum(not isinstance(k, int | np.integer) for k in views)
        lone = isinstance(columns, int | np.integer)
        where = slice(int(columns), int(columns) + 1 or None) if lone else columns
        out: np.ndarray | None = None
        for i, m in enumerate(numbers):
            value = self._values(m, views, where, kept)
            value = value[(*(slice(None),) * kept, 0 if lone else slice(None), *last)]
            if out is None:
                out = np.empty((len(numbers), *value.shape), self.dtype)
            out[i] = value
        if out is None:  # no models
            none = np.empty((0, *self.shape[1:]), self.dtype)
            return none[(slice(None), *views, columns, *last)]
        return out

    def _values(self, m: int, views: tuple, columns, kept: int) -> np.ndarray:
        """Returns the values [..,K,..] of one model, some query views and examples."""
        part = self.parts[m]
        if part is None:
            like = np.broadcast_to(np.float32(np.nan), self.shape[1:])
            return like[(*views, columns)]
        value = part[(*views, columns)]
        if self.change is not None:
            value = self.change(value, columns)
        if self.visible_MN is not None:
            visible = self.visible_MN[m][columns]
            visible = visible.reshape(len(visible), *(1,) * (value.ndim - kept - 1))
            value = np.where(visible, value, np.float32(np.nan))
        return value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("a Stack is read from its files: this is always a copy.")
        every = (slice(None),) * (self.ndim - self.axis - 2)
        whole = self._read(range(len(self)), (slice(None),) * self.axis, slice(None), every)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        arrays = (np.asarray(a) if isinstance(a, Stack) else a for a in inputs)
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


class Opened:
    """Holds an open file, which is closed when its last user is gone."""

    def __init__(self, file):
        self.file = file

    def __del__(self):
        self.file.close()


class Stored(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array in a file; as an array it is a memory map, which ends with its last use.

    The system may drop the pages of a map, and does so when it ends: what a report reads of one
    attack after the other is never in memory at once.

    Args:
        opened: the file.
        dtype, shape: of the array.
        start: the place of its first byte.
        order: 'C' or 'F', how it is laid out.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        dtype,
        shape: tuple[int, ...],
        start: int,
        order: Literal["C", "F"] = "C",
    ):
        self.opened, self.start, self.order = opened, start, order
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)

    @property
    def ndim(self) -> int:
        """Returns the number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the array takes in the file."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = np.memmap(
            self.opened.file, self.dtype, "r", offset=self.start, shape=self.shape, order=self.order
        )
        return np.array(array, dtype, copy=copy)

    def __getitem__(self, key):
        return np.asarray(self)[key]

    def __iter__(self):
        return iter(np.asarray(self))

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        arrays = (np.asarray(a) if isinstance(a, Stored) else a for a in inputs)
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __reduce__(self):
        return np.asarray, (np.array(self),)


def _whole(key) -> bool:
    return isinstance(key, slice) and key == slice(None)


def _expanded(key, ndim: int) -> tuple | None:
    """Returns one index per axis; None where NumPy's rules for several arrays of indices apply.

    Such a key has new axes, masks of several axes, or more than one array.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if any(k is None for k in keys):
        return None
    keys = tuple(np.asarray(k) if isinstance(k, list) else k for k in keys)
    arrays = [k for k in keys if isinstance(k, np.ndarray)]
    if len(arrays) > 1 or any(a.ndim != 1 for a in arrays):
        return None
    if sum(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        middle = (slice(None),) * (ndim - len(keys) + 1)
        keys = keys[:at] + middle + keys[at + 1 :]
    keys += (slice(None),) * (ndim - len(keys))
    split = arrays and any(isinstance(k, int | np.integer) for k in keys)
    if split and not _together(keys):
        return None
    return keys if len(keys) == ndim else None


def _together(keys: tuple) -> bool:
    """Returns whether the array and all whole numbers among the indices follow one another.

    Otherwise NumPy moves their axis to the front.
    """
    places = [i for i, k in enumerate(keys) if not isinstance(k, slice)]
    return places == list(range(places[0], places[-1] + 1))
