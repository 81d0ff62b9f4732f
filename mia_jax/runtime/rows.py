"""`Rows`: examples as they are stored, which become what models see where they are indexed.

A pool of bytes stays bytes: in its file (a memory map), in memory and on the devices. Only the rows
of a batch are turned into float32, inside the compiled programs.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 1 << 24  # bytes that are read together


@jax.tree_util.register_pytree_node_class
class Rows:
    """Stands for the examples x [N,..] float32 = stored * factor + offset.

    Indexing gives examples as models see them, NumPy's or jax's as the stored ones are; shape and
    dtype are those of x, and the bytes those that are stored. As a pytree it has one leaf, the
    stored array, so that this is what is put on devices.

    Args:
        stored: the examples as they are stored, [N,..]: an array, or an object with shape, dtype
            and rows that can be indexed (data/tfds.py).
        factor: what they are multiplied by: one number, or one for each position of the last axes.
        offset: what is added then, likewise; None for nothing.
        file: the file of the stored array, if it stays there.

    >>> rows = Rows(np.array([[0, 1], [2, 3]], np.uint8), factor=0.5)
    >>> rows.shape, rows.nbytes, rows[1:].tolist()
    ((2, 2), 4, [[1.0, 1.5]])
    """

    def __init__(
        self, stored: Any, *, factor: Any, offset: Any = None, file: pathlib.Path | None = None
    ):
        self.stored, self.file = stored, file
        self._known: dict[str, Any] = {}
        self.factor = _frozen(factor)
        self.offset = None if offset is None else _frozen(offset)

    def tree_flatten(self):
        """Returns (leaves, what is static), for jax."""
        return (self.stored,), (self.factor, self.offset)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        """Returns the object of `tree_flatten`, with other leaves."""
        rows = object.__new__(cls)
        (rows.stored,), (rows.factor, rows.offset) = leaves, static
        rows.file, rows._known = None, {}
        return rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of x."""
        return self.stored.shape

    @property
    def ndim(self) -> int:
        """Returns the number of axes of x."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Returns the number of values of x."""
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Returns the dtype of x."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that are stored."""
        return self.size * self.stored.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index):
        return self.seen(taken(self.stored, index))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = np.asarray(self[:])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def min(self, axis=None, out=None) -> float:
        """Returns the least value; the rows are read in blocks."""
        del axis, out
        return min(float(block.min()) for block in self._blocks())

    def max(self, axis=None, out=None) -> float:
        """Returns the largest value; the rows are read in blocks."""
        del axis, out
        return max(float(block.max()) for block in self._blocks())

    def _blocks(self):
        step = max(1, BLOCK // max(1, self.nbytes // len(self)))
        return (self[start : start + step] for start in range(0, len(self), step))

    def part(self, index) -> Rows:
        """Returns some of the rows, as they are stored."""
        return self._with(self.stored[index])

    def changed(self, change: Callable) -> Rows:
        """Returns the rows with change(stored) in place of what is stored."""
        return self._with(change(self.stored))

    def _with(self, stored) -> Rows:
        return self.tree_unflatten((self.factor, self.offset), (stored,))

    def scaled(self, *, factor: Any, offset: Any) -> Rows:
        """Returns the same stored rows with another scaling."""
        rows = Rows(self.stored, factor=factor, offset=offset, file=self.file)
        rows._known = self._known
        return rows

    def once(self, name: str, compute: Callable):
        """Returns compute(), which is called once for these stored rows and this name."""
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def seen(self, stored):
        """Returns stored rows as models see them, float32."""
        x = stored.astype(np.float32) * self.factor.array
        return x if self.offset is None else x + self.offset.array

    @property
    def scaling(self) -> list:
        """Returns factor and offset in plain values, for hashes."""
        known = (self.factor, self.offset)
        return [None if part is None else part.array.tolist() for part in known]


class _frozen:
    """Holds a small float32 array as a constant of compiled programs: equal values are equal."""

    def __init__(self, value):
        self.array = np.asarray(value, np.float32)
        self._key = (self.array.shape, self.array.tobytes())

    def __eq__(self, other) -> bool:
        return isinstance(other, _frozen) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def taken(x, index):
    """Returns x[index] of an array or of Rows, also where `index` is traced and x is NumPy's."""
    if isinstance(index, jax.core.Tracer) and isinstance(x, np.ndarray):
        x = jnp.asarray(x)
    return x[index]


def stored(x):
    """Returns what is stored of Rows; an array is stored as it is."""
    return x.stored if isinstance(x, Rows) else x


def seen(x):
    """Returns Rows as models see them; an array is seen as it is."""
    return x.seen(x.stored) if isinstance(x, Rows) else x
