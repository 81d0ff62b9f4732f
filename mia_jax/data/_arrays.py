"""What a user hands in as an array (lists, tensors, tables, masked or low-precision numbers,
columns of anything), as a plain NumPy array.

Every refusal is a ValueError that begins with `label`, what the user calls the array.
"""

from __future__ import annotations

import datetime
import numbers as abstract
from collections.abc import Iterator, Mapping

import numpy as np

EXACT = 2**53  # whole numbers up to here are exact in float64
MISSING = "missing"  # what a gap in a column of words is called


def array(label: str, value) -> np.ndarray:
    """The value as an array of whatever dtype; ValueError for what is none: a mapping, a generator,
    a ragged list, a tensor that cannot be read.
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
        found = np.asarray(value)
    except (
        Exception
    ) as error:  # whatever a list of lists, a tensor on a device or a table raises when it is read
        raise ValueError(f"{label} cannot be read as an array. {_why(value, error)}") from error
    if isinstance(found, np.ma.MaskedArray):
        return array(label, found)
    return found


def _why(value, error: Exception) -> str:
    """What is wrong with a value that np.asarray refuses."""
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
    """Whether a dtype holds real numbers, those of ml_dtypes (bfloat16, float8, int4) among
    them.
    """
    return dtype.kind in "biuf" or low_precision(dtype)


def low_precision(dtype: np.dtype) -> bool:
    """Whether a dtype is a number of ml_dtypes, which NumPy takes for raw bytes."""
    return (
        dtype.kind == "V"
        and dtype.names is None
        and not dtype.name.startswith("void")
        and np.can_cast(dtype, np.float32, "unsafe")
    )


def numbers(label: str, value: np.ndarray) -> np.ndarray:
    """The array as bool, integers or floats, at the precision in which it was given (ml_dtypes as
    float32, long doubles as float64).

    An array of Python objects is taken if all are numbers. ValueError for other dtypes, and where
    float64 would make different numbers equal.
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
    """ValueError if float64 makes different numbers equal."""
    before, after = len(np.unique(value)), len(np.unique(value.astype(np.float64)))
    if after < before:
        raise ValueError(
            f"{label} has {before:,} different numbers of which float64 leaves {after:,}; subtract "
            "their smallest first."
        )


def _remedy(dtype: np.dtype) -> str:
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
    """An object array of real numbers as integers or floats."""
    if value.ndim == 0:
        raise ValueError(
            f"{label} must be an array of numbers; it is a {type(value.item()).__name__}."
        )
    flat = value.reshape(-1)
    for i, one in enumerate(flat):
        if not isinstance(one, abstract.Real | np.bool_) and not _decimal(one):
            at = [int(k) for k in np.unravel_index(i, value.shape)]
            raise ValueError(f"{label} must be numbers; at {at} it holds {_short(one)}.")
    whole = all(isinstance(one, abstract.Integral | np.bool_) for one in flat)
    try:
        return np.array(flat.tolist(), np.int64 if whole else np.float64).reshape(value.shape)
    except OverflowError:
        raise ValueError(f"{label} holds whole numbers beyond 64 bits.") from None


def _decimal(one) -> bool:
    return type(one).__name__ == "Decimal"


def _short(one) -> str:
    """A value in a message: its type, and itself if that is short."""
    try:
        text = repr(one)
    except Exception:
        text = ""
    kind = type(one).__name__
    return kind if not text or len(text) > 40 or one is None else f"{text} ({kind})"


def column(label: str, value: np.ndarray) -> np.ndarray:
    """A column [N] of a table: numbers as they are, dates and words as text, gaps among words as
    'missing' (gaps among numbers as NaN).

    ValueError that names the column for bytes that are no UTF-8 and for values that are neither.
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
    known = [one for one in items if not _gap(one)]
    if all(isinstance(one, abstract.Real | np.bool_) or _decimal(one) for one in known):
        return np.array([np.nan if _gap(one) else float(one) for one in items]).reshape(value.shape)
    words = [MISSING if _gap(one) else _word(label, one) for one in items]
    return np.array(words, dtype=str).reshape(value.shape)


def _gap(one) -> bool:
    """None, NaN, NaT and pandas' NA."""
    if one is None or type(one).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(one, np.datetime64 | np.timedelta64):
        return bool(np.isnat(one))
    return isinstance(one, float | np.floating) and one != one


def _word(label: str, one) -> str:
    if isinstance(one, bytes):
        return str(_decoded(label, np.array([one]))[0])
    if isinstance(
        one,
        str
        | abstract.Real
        | np.bool_
        | datetime.date
        | datetime.time
        | datetime.timedelta
        | np.datetime64,
    ) or _decimal(one):
        return str(one)
    raise ValueError(f"{label} holds {_short(one)}; a column holds numbers, words or dates.")


def _decoded(label: str, value: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(value, "utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{label} holds bytes that are not UTF-8 text; decode them first: "
            "np.char.decode(value, 'latin-1')."
        ) from None
