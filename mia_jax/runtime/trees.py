"""Writes nested results to .npz files and reads them back as they were, without a pickle.

A tree consists of None, bool, int, float, str, arrays and NumPy scalars, in lists, tuples, dicts
(whose keys may be any of these but arrays), and in the NamedTuples and dataclasses that the reader
expects. It comes back with the same types, the same bits and the same order of keys.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mia_jax.runtime import files

Path = pathlib.Path
TREE = "tree"  # the member of the archive that holds the structure


def write(path: Path, value, *, record: Mapping, kinds: Sequence[type] = ()) -> None:
    """Writes a tree to an .npz file atomically, with a record of what it belongs to.

    Args:
        path: the file.
        value: the tree.
        record: what it belongs to.
        kinds: the NamedTuples and dataclasses that the tree may hold.

    Raises:
        TypeError: the tree holds something else.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_packed(value, arrays, {kind.__name__: kind for kind in kinds}))
    named = {f"a{i}": array for i, array in enumerate(arrays)}
    files.write_npz(path, record, **{TREE: np.asarray(text)}, **named)


def read(path: Path, *, record: Mapping, kinds: Sequence[type] = ()) -> Any:
    """Returns the tree of a file that `write` wrote.

    Raises:
        ValueError: the file is damaged, or its record differs from `record`.
    """
    arrays = files.read_npz(path, record=record)
    by_name = {kind.__name__: kind for kind in kinds}
    try:
        return _unpacked(json.loads(str(arrays[TREE])), arrays, by_name)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(files.damaged(path, ValueError(f"its tree lacks {error}"))) from error


def contiguous(value):
    """Returns the tree with the layout in memory that its arrays have after they were read.

    The order in which NumPy adds up numbers depends on it, and so do the last bits of a sum.
    """
    if isinstance(value, np.ndarray):
        kept = value.flags.c_contiguous or value.flags.f_contiguous
        return value if kept else np.ascontiguousarray(value)
    if isinstance(value, dict):
        return {k: contiguous(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(contiguous, value))
    if isinstance(value, list | tuple):
        return type(value)(map(contiguous, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{k: contiguous(v) for k, v in vars(value).items()})
    return value


def _packed(value, arrays: list[np.ndarray], kinds: Mapping[str, type]):
    """Returns the JSON form of a tree, and adds its arrays to `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects has no form in a file")
        arrays.append(np.asarray(value))
        return ["array" if isinstance(value, np.ndarray) else "scalar", len(arrays) - 1]
    if type(value) is dict:
        pairs = [[_packed(part, arrays, kinds) for part in pair] for pair in value.items()]
        return ["dict", *pairs]
    if type(value) in (list, tuple):
        return [type(value).__name__, *(_packed(part, arrays, kinds) for part in value)]
    name = type(value).__name__
    if kinds.get(name) is type(value):
        parts = tuple(value) if isinstance(value, tuple) else vars(value).values()
        return ["kind", name, *(_packed(part, arrays, kinds) for part in parts)]
    raise TypeError(f"{name} has no form in a file")


def _unpacked(value, arrays: Mapping[str, np.ndarray], kinds: Mapping[str, Any]):
    """Returns the tree of its JSON form."""
    if not isinstance(value, list):
        return value
    what, *parts = value
    if what in ("array", "scalar"):
        array = arrays[f"a{parts[0]}"]
        return array if what == "array" else array[()]
    if what == "dict":
        return {_unpacked(k, arrays, kinds): _unpacked(v, arrays, kinds) for k, v in parts}
    if what == "kind":
        kind = kinds[parts[0]]
        values = [_unpacked(part, arrays, kinds) for part in parts[1:]]
        if issubclass(kind, tuple):
            return kind(*values)
        names = [field.name for field in dataclasses.fields(kind)]
        return kind(**dict(zip(names, values, strict=True)))
    return dict(list=list, tuple=tuple)[what](_unpacked(part, arrays, kinds) for part in parts)
