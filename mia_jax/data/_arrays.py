"""Converts what a user passes as an array to a plain NumPy array.

Lists, tensors, tables, masked or low-precision numbers and columns of any kind are accepted. Every
refusal is a ValueError that begins with `label`, the user's name for the array.
"""

from __future__ import annotations

import datetime
import numbers as abstract
from collections.abc import Iterator, Mapping

import numpy as np

EXACT = 2**53  # Integers up to this one are exact in float64.
MISSING = "missing"  # The value of a gap in a column of words.


def array(label: str, value) -> np.ndarray:
    """Returns the value as an array of any dtype.

    Raises:
        ValueError: if it is none: a mapping, a generator, a ragged list, or a tensor that cannot be
            read.
    """
    if isinstance(value, np.ma.MaskedArray):
        hidden = int(np.ma.count_masked(value))
        if hidden:
            raise ValueError(
                f"{label} is a masked array and {hidden} of its {value.size} values are masked; "
                "leave those rows out of all arrays."
            )
        return np.asarray(value.data)
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(f"{label} is a sparse matrix; pass {label.split()[-1]}.toarray().")
    if value is None or isinstance(value, str | bytes | Mapping | set | frozenset | Iterator):
        kind = type(value).__name__
        raise ValueError(
            f"{label} is a {kind} and must be an array or a list of numbers"
            + (f": {value!r}." if isinstance(value, str) else ".")
        )
    try:
        result = np.asarray(value)
    # A list of lists, a tensor on a device or a table may raise any exception when it is read.
    except Exception as error:
        raise ValueError(f"{label} cannot be read as an array. {_why(value, error)}") from error
    if isinstance(result, np.ma.MaskedArray):
        return array(label, result)
    return result


def _why(value, error: Exception) -> str:
    """Returns what is wrong with a value that np.asarray refuses."""
    if isinstance(value, list | tuple):
        shapes = []
        for part in value:
            try:
                shapes.append(np.shape(part))
            except Exception:
                shapes.append(None)
        first = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if first is not None and None not in (shapes[0], shapes[first]):
            text = (
                f"Its parts have different shapes: part 0 has {shapes[0]} and part {first} has "
                f"{shapes[first]}."
            )
            if len(shapes[0]) > 1 and shapes[0][:-1] == shapes[first][:-1]:
                text += (
                    f" They have {shapes[0][-1]} and {shapes[first][-1]} columns: a model that saw "
                    "fewer classes answers with fewer columns. Put "
                    "each model's columns where its classes are (full[:, model.classes_] = probs) "
                    "and fill the others with 0."
                )
            return text
        return (
            "It is a list whose parts cannot be put together; pass a list of arrays of one shape."
        )
    if hasattr(value, "detach"):
        return "Of a tensor pass .detach().cpu().numpy()."
    return f"Pass a NumPy array ({type(error).__name__}: {' '.join(str(error).split())[:120]})."


def numeric(dtype: np.dtype) -> bool:
    """Returns whether a dtype holds real numbers, including ml_dtypes (bfloat16, float8, int4)."""
    return dtype.kind in "biuf" or low_precision(dtype)


def low_precision(dtype: np.dtype) -> bool:
    """Returns whether a dtype is a number of ml_dtypes, which NumPy treats as raw bytes."""
    return (
        dtype.kind == "V"
        and dtype.names is None
        and not dtype.name.startswith("void")
        and np.can_cast(dtype, np.float32, "unsafe")
    )


def numbers(label: str, value: np.ndarray) -> np.ndarray:
    """Returns the array as bool, integers or floats, at its original precision.

    ml_dtypes become float32 and long doubles float64. An array of Python objects is accepted if all
    are numbers.

    Raises:
        ValueError: for other dtypes, or if float64 would make different numbers equal.
    """
    if low_precision(value.dtype):
        return value.astype(np.float32)
    if value.dtype.kind == "O":
        value = _unpacked(label, value)
    if value.dtype.kind not in "biuf":
        raise ValueError(
            f"{label} must be numbers; its dtype is {value.dtype}.{_remedy(value.dtype)}"
        )
    if (
        value.dtype.kind in "iu"
        and value.size
        and (int(value.max()) > EXACT or int(value.min()) < -EXACT)
    ):
        same_in_float64(label, value)
    if value.dtype.itemsize > 8:
        same_in_float64(label, value)
        return value.astype(np.float64)
    return value


def same_in_float64(label: str, value: np.ndarray) -> None:
    """Raises ValueError if float64 makes different numbers equal."""
    before, after = len(np.unique(value)), len(np.unique(value.astype(np.float64)))
    if after < before:
        raise ValueError(
            f"{label} has {before:,} different numbers of which float64 leaves {after:,}; subtract "
            "their smallest first."
        )


def _remedy(dtype: np.dtype) -> str:
    """Returns a sentence about what to do with an array of this dtype, or ''."""
    if dtype.kind == "V" and dtype.names is None:
        return (
            f" These are {dtype.itemsize} raw bytes each, as np.savez writes bfloat16 and float8: "
            "save .astype(np.float32)."
        )
    return dict(
        c=" Pass the real part.",
        M=" Dates are no scores.",
        m=" Pass seconds: value / np.timedelta64(1, 's').",
    ).get(dtype.kind, "")


def _unpacked(label: str, value: np.ndarray) -> np.ndarray:
    """Returns an object array of real numbers as integers or floats."""
    if value.ndim == 0:
        raise ValueError(
            f"{label} must be an array of numbers; it is a {type(value.item()).__name__}."
        )
    flat = value.reshape(-1)
    for i, item in enumerate(flat):
        if not isinstance(item, abstract.Real | np.bool_) and not _decimal(item):
            at = [int(k) for k in np.unravel_index(i, value.shape)]
            raise ValueError(f"{label} must be numbers; at {at} it holds {_short(item)}.")
    whole = all(isinstance(item, abstract.Integral | np.bool_) for item in flat)
    try:
        return np.array(flat.tolist(), np.int64 if whole else np.float64).reshape(value.shape)
    except OverflowError:
        raise ValueError(f"{label} holds whole numbers beyond 64 bits.") from None


def _decimal(item) -> bool:
    """Returns whether an item is a decimal.Decimal."""
    return type(item).__name__ == "Decimal"


def _short(item) -> str:
    """Returns a value for a message: its type, and the value itself if that is short."""
    try:
        text = repr(item)
    except Exception:
        text = ""
    kind = type(item).__name__
    return kind if not text or len(text) > 40 or item is None else f"{text} ({kind})"


def column(label: str, value: np.ndarray) -> np.ndarray:
    """Returns a column [N] of a table.

    Numbers stay as they are, dates and words become text. Gaps among words become 'missing', gaps
    among numbers NaN.

    Raises:
        ValueError: for bytes that are not UTF-8 and for values of other kinds; the message names
            the column.
    """
    kind = value.dtype.kind
    if kind in "biuf":
        return value.astype(np.float64) if value.dtype.itemsize > 8 else value
    if low_precision(value.dtype):
        return value.astype(np.float32)
    if kind in "Mm":
        return np.where(np.isnat(value), MISSING, value.astype(str))
    if kind == "S":
        return _decoded(label, value)
    if kind in "UT":
        return value.astype(str)
    if kind != "O":
        raise ValueError(
            f"{label} has dtype {value.dtype}; a column holds numbers, words or "
            f"dates.{_remedy(value.dtype)}"
        )
    items = value.reshape(-1).tolist()
    known = [item for item in items if not _gap(item)]
    if all(isinstance(item, abstract.Real | np.bool_) or _decimal(item) for item in known):
        filled = [np.nan if _gap(item) else float(item) for item in items]
        return np.array(filled).reshape(value.shape)
    words = [MISSING if _gap(item) else _word(label, item) for item in items]
    return np.array(words, dtype=str).reshape(value.shape)


def _gap(item) -> bool:
    """Returns whether an item is None, NaN, NaT or pandas' NA."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(item, np.datetime64 | np.timedelta64):
        return bool(np.isnat(item))
    return isinstance(item, float | np.floating) and item != item


def _word(label: str, item) -> str:
    """Returns an item of a column of words as text."""
    if isinstance(item, bytes):
        return str(_decoded(label, np.array([item]))[0])
    if isinstance(
        item,
        str
        | abstract.Real
        | np.bool_
        | datetime.date
        | datetime.time
        | datetime.timedelta
        | np.datetime64,
    ) or _decimal(item):
        return str(item)
    raise ValueError(f"{label} holds {_short(item)}; a column holds numbers, words or dates.")


def _decoded(label: str, value: np.ndarray) -> np.ndarray:
    """Returns bytes as text."""
    try:
        return np.char.decode(value, "utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{label} holds bytes that are not UTF-8 text; decode them first: "
            "np.char.decode(value, 'latin-1')."
        ) from None
