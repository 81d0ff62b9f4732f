"""`Rows`: examples as they are stored, which become what models see where they are indexed.

A pool of bytes stays bytes: in its file (a memory map), in memory and on the devices. Only the rows
of a batch are turned into float32, inside the compiled programs, to the bits that NumPy gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.runtime.digests import Origin

BLOCK = 1 << 24  # bytes that are read together
SCALES = (1e-20, 1e20)  # of factors whose products with bytes are normal numbers


@jax.tree_util.register_pytree_node_class
class Rows:
    """Stands for the examples x [N,..] float32 = stored * factor + offset.

    Indexing gives examples as models see them, NumPy's or jax's as the stored ones are; shape and
    dtype are those of x, and the bytes those that are stored. As a pytree it has one leaf, the
    stored array, so that this is what is put on devices.

    Without an offset x has the same bits on every machine and in every compiled program, those of
    stored * factor, rounded once: a compiler may merge a product and a later addition, which rounds
    once instead of twice, and may replace a division by 255 by a product with 1 / 255. Hence the
    factor is cut in two, so that the first product is exact, and they are added.

    Args:
        stored: the examples as they are stored, uint8 [N,..]: an array, or an object with shape,
            dtype and rows that can be indexed (data/array_record.py).
        factor: what they are multiplied by: one number, to 40 bits (1 / 255 gives x / 255), or with
            an offset one for each position of the last axes, in float32.
        offset: what is added then, likewise; None for nothing.
        origin: the files from which the rows were read; None if they are known no more.
        by_row: whether the hash of the pool is one of the stored rows' digests, as it is of pools
            that stay on disk, and not of x.

    >>> rows = Rows(np.array([[0, 1], [2, 3]], np.uint8), factor=0.5)
    >>> rows.shape, rows.nbytes, rows[1:].tolist()
    ((2, 2), 4, [[1.0, 1.5]])
    """

    def __init__(
        self,
        stored: Any,
        *,
        factor: Any,
        offset: Any = None,
        origin: Origin | None = None,
        by_row: bool = False,
    ):
        self.stored, self.origin, self.by_row = stored, origin, by_row
        self._known: dict[str, Any] = {}
        self.factor = _frozen(factor, np.float64 if offset is None else np.float32)
        self.offset = None if offset is None else _frozen(offset, np.float32)

    def tree_flatten(self):
        """Returns (leaves, what is static), for jax."""
        return (self.stored,), (self.factor, self.offset)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        """Returns the object of `tree_flatten`, with other leaves."""
        rows = object.__new__(cls)
        (rows.stored,), (rows.factor, rows.offset) = leaves, static
        rows.origin, rows.by_row, rows._known = None, False, {}
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
        rows = self.tree_unflatten((self.factor, self.offset), (stored,))
        rows.by_row = self.by_row
        return rows

    def read_from(self, origin: Origin | None) -> Rows:
        """Returns the same rows, which were read from these files."""
        offset = None if self.offset is None else self.offset.array
        fields = dict(factor=self.factor.array, offset=offset, by_row=self.by_row)
        return Rows(self.stored, origin=origin, **fields)

    def scaled(self, *, factor: Any, offset: Any) -> Rows:
        """Returns the same stored rows with another scaling."""
        fields = dict(factor=factor, offset=offset, origin=self.origin, by_row=self.by_row)
        rows = Rows(self.stored, **fields)
        rows._known = self._known
        return rows

    def once(self, name: str, compute: Callable):
        """Returns compute(), which is called once for these stored rows and this name."""
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def seen(self, stored):
        """Returns stored rows as models see them, float32."""
        x = stored.astype(np.float32)
        if self.offset is not None:
            return x * self.factor.array + self.offset.array
        first, rest = _cut(self.factor.array)
        return x * first + x * rest if rest else x * first

    @property
    def scaling(self) -> list:
        """Returns factor and offset in plain values, for hashes."""
        known = (self.factor, self.offset)
        return [None if part is None else part.array.tolist() for part in known]


def concatenated(*parts):
    """Returns Rows, or arrays, one after the other; Rows that are scaled alike stay stored."""
    if all(isinstance(x, Rows) for x in parts) and len({(x.factor, x.offset) for x in parts}) == 1:
        return parts[0].changed(lambda _: np.concatenate([x.stored for x in parts]))
    return np.concatenate([np.asarray(x) for x in parts])


def _cut(factor: np.ndarray) -> tuple[np.float32, np.float32]:
    """Returns two float32 that add up to a factor: 16 bits of it, and the next ones.

    The product of a byte with the first is exact.
    """
    bits = np.float32(factor).view(np.uint32) & np.uint32(0xFFFFFF00)
    first = bits.view(np.float32)
    return first, np.float32(factor - np.float64(first))


class _frozen:
    """Holds a small array as a constant of compiled programs: equal values are equal."""

    def __init__(self, value, dtype):
        self.array = np.asarray(value, dtype)
        self._key = (self.array.shape, self.array.dtype.str, self.array.tobytes())

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
