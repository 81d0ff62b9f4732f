"""Checks arguments given by keyword, so that a message names the argument and both numbers.

Imports no jax.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

import numpy as np


def number(**values) -> None:
    """Raises ValueError unless every value is a number (true and false are none)."""
    for name, value in values.items():
        kind = (
            np.asarray(value).dtype.kind if np.isscalar(value) or hasattr(value, "dtype") else "O"
        )
        if (
            np.ndim(value)
            or not (kind in "iuf" or isinstance(value, int))
            or isinstance(value, bool)
        ):
            raise ValueError(f"{name}={value!r} must be a number.")


def positive(**values) -> None:
    """Raises ValueError unless every value is > 0."""
    number(**values)
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be > 0.")


def at_least(low, **values) -> None:
    """Raises ValueError unless every value is >= low."""
    number(**values)
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{name}={value} must be at least {low}.")


def fraction(*, closed: str = "both", **values) -> None:
    """Raises ValueError unless every value is between 0 and 1.

    Args:
        closed: which ends are allowed: 'both' for [0, 1], 'left' for [0, 1), 'neither' for (0, 1).
        values: the numbers, by name.
    """
    number(**values)
    for name, value in values.items():
        low = value >= 0 if closed in ("both", "left") else value > 0
        high = value <= 1 if closed == "both" else value < 1
        if not (low and high):
            text = {"both": "[0, 1]", "left": "[0, 1)", "neither": "(0, 1)"}[closed]
            raise ValueError(f"{name}={value} must lie in {text}.")


def in_memory(what: str, size: float) -> None:
    """Raises ValueError if something needs more memory than this machine has.

    The check comes before a library tries to allocate the memory.

    Args:
        what: what needs the memory, in the plural, for the message.
        size: the bytes it needs.
    """
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > have:
        raise ValueError(
            f"{what} need {size / 2**30:,.0f} GiB of memory, and this machine has "
            f"{have / 2**30:,.0f} GiB; ask for fewer."
        )


def finite(**arrays) -> None:
    """Raises ValueError if an array holds NaN or infinity.

    The message says how many values of the array do and where the first is.
    """
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind in "fc":
            bad = ~np.isfinite(array)
            if bad.any():
                at = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{name} has {int(bad.sum())} of {array.size} values that are NaN or infinite; "
                    f"the first is {array[at]} at {at}."
                )


def shape(axes: str, **arrays) -> dict[str, int]:
    """Returns the lengths of axes, equal over all arrays; raises ValueError if they differ.

    Args:
        axes: one letter per axis, such as 'MN'.
        arrays: the arrays, by name; each must have these axes.

    >>> shape('MN', member=np.zeros((2, 3)), score=np.zeros((2, 3)))
    {'M': 2, 'N': 3}
    """
    lengths: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, array in arrays.items():
        if np.ndim(array) != len(axes):
            raise ValueError(
                f"{name} has {np.ndim(array)} axes (shape {np.shape(array)}); expected "
                f"{len(axes)}: [{','.join(axes)}]."
            )
        for letter, length in zip(axes, np.shape(array), strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(
                    f"axis {letter} has length {length} in {name} but {lengths[letter]} in "
                    f"{owner[letter]}."
                )
            owner.setdefault(letter, name)
    return lengths


def one_of(allowed: Iterable, **values) -> None:
    """Raises ValueError unless every value is allowed; it lists the allowed values."""
    allowed = list(allowed)
    for name, value in values.items():
        if not any(_equal(value, choice) for choice in allowed):
            raise ValueError(f"{name}={value!r} is not one of {allowed}.{closest(value, allowed)}")


def _equal(a, b) -> bool:
    """Returns whether a == b, also if the two cannot be compared (a list and a text)."""
    try:
        return bool(a == b)
    except (TypeError, ValueError):
        return False


LISTED = 50  # the largest number of names that a message lists
LONGEST_NAME = 100  # bytes: names become part of file names, which most file systems limit to 255


def folder_name(**values) -> None:
    """Raises ValueError unless every value can name a folder and a key of a config.

    Letters, digits, _, +, - and single spaces are allowed, at most 100 bytes.

    >>> folder_name(attack='lira-2')
    """
    for name, value in values.items():
        if (
            not isinstance(value, str)
            or not re.fullmatch(r"\w[\w+-]*( [\w+-]+)*", value)
            or len(value.encode()) > LONGEST_NAME
        ):
            raise ValueError(
                f"{name}={_short(value)} must be a name of letters, digits, _ + - and single "
                f"spaces, at most {LONGEST_NAME} bytes long."
            )


def label(**values) -> None:
    """Raises ValueError unless every value can be a label in tables, figures and flags.

    A label is printable, not empty, at most 100 bytes long and without . $ ` | \\ and /.

    >>> label(group='age > 60')
    """
    for name, value in values.items():
        text = str(value)
        if (
            not text.strip()
            or not text.isprintable()
            or re.search(r"[.$`|\\/]", text)
            or len(text.encode()) > LONGEST_NAME
        ):
            raise ValueError(
                f"{name}={_short(value)} must be printable text of at most {LONGEST_NAME} bytes "
                "without any of . $ ` | \\ /"
            )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def closest(word, known: Iterable) -> str:
    """Returns ' Did you mean ...?' for the most similar known word, or ''.

    >>> closest('lr', ['epochs', 'learning_rate'])
    " Did you mean 'learning_rate'?"
    """
    match = similar(word, known)
    return f" Did you mean {match[0]!r}?" if match else ""


def lacks(owner: str, noun: str, name, known: Iterable) -> str:
    """Returns the message about a field (column, ...) that does not exist.

    It names the most similar one and lists all.

    Args:
        owner: what has no such field.
        noun: what the names are: 'field', 'column', ...
        name: the name that does not exist.
        known: the names that exist.

    >>> lacks('learner', 'field', 'lr', ['epochs', 'learning_rate'])
    "learner has no field 'lr'. Did you mean 'learning_rate'? Fields: epochs, learning_rate."
    """
    known = [str(k) for k in known]
    more = f", ... ({len(known)} in all)" if len(known) > LISTED else ""
    return (
        f"{owner} has no {noun} {name!r}.{closest(name, known)} {noun.capitalize()}s: "
        f"{', '.join(known[:LISTED]) or 'none'}{more}."
    )


def similar(word, known: Iterable) -> list[str]:
    """Returns [the most similar known word], or [] if none is similar.

    A word that is abbreviated counts as similar: 'lr', 'batch' or 'rate' for 'learning_rate'.
    """
    word, known = str(word), [str(k) for k in known]
    plain = re.sub(r"[^a-z0-9]", "", word.lower())
    initials = [
        k for k in known if len(plain) > 1 and "".join(part[:1] for part in k.split("_")) == plain
    ]
    close = difflib.get_close_matches(word, known, n=1) or difflib.get_close_matches(
        word.lower(), known, n=1
    )
    inside = [k for k in known if len(plain) > 2 and plain in k.split("_")] or [
        k for k in known if len(plain) > 2 and k.startswith(plain)
    ]
    return (close or initials or inside)[:1]
