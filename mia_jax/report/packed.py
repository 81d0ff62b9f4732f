"""Packs rows into a table that is a quarter of their size as JSON; unpacking gives the same rows.

A row of report.json is an object whose keys and texts are those of many others. A packed table has
each once:

    kinds   the keys of a row, in their order: one list for each set of keys that occurs
    texts   {key: its texts}, for every key whose values are all texts or null
    rows    [kind, value, ...] of each row; a key in `texts` has the number of its text

`pandas.DataFrame(unpack(table))` is the table of a notebook; results.csv has the rows of results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEYS = ("kinds", "texts", "rows")


def pack(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns {kinds, texts, rows} of rows of JSON values.

    >>> pack([dict(a='x', n=1), dict(a='x', n=2)])
    {'kinds': [['a', 'n']], 'texts': {'a': ['x']}, 'rows': [[0, 0, 1], [0, 0, 2]]}
    """
    kinds: dict[tuple, int] = {}
    texts: dict[str, dict[str, int]] = {key: {} for row in rows for key in row}
    for key in {key for row in rows for key, v in row.items() if not isinstance(v, str | None)}:
        del texts[key]
    packed = []
    for row in rows:
        line: list[Any] = [kinds.setdefault(tuple(row), len(kinds))]
        for key, value in row.items():
            of_key = texts.get(key)
            if of_key is not None and value is not None:
                value = of_key.setdefault(value, len(of_key))
            line.append(value)
        packed.append(line)
    return dict(
        kinds=[list(kind) for kind in kinds],
        texts={key: list(of_key) for key, of_key in texts.items()},
        rows=packed,
    )


def unpack(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of what `pack` returned.

    Raises:
        ValueError: it is no packed table.

    >>> rows = [dict(a='x', n=1), dict(a=None, target='pooled'), dict(target=3)]
    >>> unpack(pack(rows)) == rows
    True
    """
    try:
        kinds, texts, packed = (table[key] for key in KEYS)
        rows = []
        for at, *values in packed:
            row = dict(zip(kinds[_place(at)], values, strict=True))
            for key in row.keys() & texts.keys():
                if row[key] is not None:
                    row[key] = texts[key][_place(row[key])]
            rows.append(row)
        return rows
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"a packed table has {type(error).__name__}: {error}") from error


def _place(value: Any) -> int:
    """Returns the number of a kind or of a text; a negative one would count from the end."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no place")
    return value
