"""Slices of the evaluated records: what they are called and which records they hold.

`metrics.slice_rows` measures them.

A term is a file of mia_jax/slices, that is 'class', 'correct', 'loss' (10 deciles), 'group' (named
records), 'column:<name>' or 'column:<name>:<bins>', or a user-supplied module such as
'my_pkg.my_slices:bins=3'. 'a & b' intersects two terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks, registry

NEEDS = dict(  # what a term may need -> the field of Records, and what that is
    labels=("labels_N", "class labels"),
    loss=("loss_TN", "the targets' signal 'loss'"),
    correct=("correct_TN", "the targets' signal 'correct'"),
)
MOST_SLICES = 1000
# a numeric column with more than MOST_VALUES values is cut at its quantiles into BINS bins
MOST_VALUES, BINS = 20, 4


class Layer(NamedTuple):
    """Holds slices that do not overlap.

    Attributes:
        names: the names of the slices.
        code: record n is in the slice names[code[n]], or in none of them (-1). The shape is [N], or
            [T,N] if the slices differ from target to target.
        post_hoc: whether the slices were made from the target's own answers.
    """

    names: tuple[str, ...]
    code: np.ndarray
    post_hoc: bool


class Records(NamedTuple):
    """Holds what slices are made from.

    Attributes:
        evaluated_TN: the scored rows of each target.
        labels_N: the class labels; None if unknown.
        columns: the columns [N] of the data.
        loss_TN, correct_TN: the targets' signals of these names; None if unknown.
        groups: the row numbers of each named group.
    """

    evaluated_TN: np.ndarray
    labels_N: np.ndarray | None
    columns: Mapping[str, np.ndarray]
    loss_TN: np.ndarray | None
    correct_TN: np.ndarray | None
    groups: Mapping[str, Sequence[int]]


def known_terms() -> list[str]:
    """Returns the terms of the package as a user writes them."""
    return [
        form
        for name in registry.names("slices")
        for form in (("column:<name>", "column:<name>:<bins>") if name == "column" else (name,))
    ]


def needs(terms: Sequence[Sequence[str]]) -> set[str]:
    """Returns the keys of NEEDS that the terms need."""
    return {need for pair in terms for term in pair for need in _needs(term)}


def _needs(term: str) -> tuple[str, ...]:
    return tuple(getattr(registry.load("slices", term), "NEEDS", ()))


def _maker(term: str):
    """Returns the function of a term, which maps Records to a Layer or to several."""
    if term.startswith("column:"):
        name, bins = column_of(term)
        return registry.make("slices", "column", dict(name=name, bins=bins))
    return registry.make("slices", term)


def parse(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the terms of the requested texts, in their order and without repetitions.

    Raises:
        ValueError: a text is not a term, or joins more than two.

    >>> parse(('class', 'class & correct'))
    [('class',), ('class', 'correct')]
    """
    parsed = []
    for text in (texts,) if isinstance(texts, str) else texts:
        terms = tuple(part.strip() for part in text.split("&"))
        if len(terms) > 2:
            raise ValueError(
                f"slices: {text!r} joins {len(terms)} terms; at most two can be intersected."
            )
        for term in terms:
            kind, _, rest = term.partition(":")
            if not (
                rest
                if kind == "column"
                else term in registry.names("slices") or registry.outside("slices", kind)
            ):
                raise ValueError(
                    f"slices: {term!r} in {text!r} is none of "
                    f"{', '.join(known_terms())}.{checks.closest(term, registry.names('slices'))}"
                )
        parsed += [terms] if terms not in parsed else []
    return parsed


def check(
    texts: Sequence[str],
    *,
    columns: Sequence[str] = (),
    groups: Mapping[str, Sequence[int]] = {},
    num_examples: int | None = None,
) -> None:
    """Checks that the requested slices can be made from the data.

    Args:
        texts: the requested slices.
        columns: the names of the data's columns.
        groups: the row numbers of each named group.
        num_examples: the number of examples, if known.

    Raises:
        ValueError: a text is not a term, a slice needs a column that the data lacks, or a group is
            empty or has rows that do not exist.
    """
    terms = [term for pair in parse(texts) for term in pair]
    known = [c for c in columns if c != "population"]
    for term in terms:
        if term.startswith("column:"):
            name, bins = column_of(term)
            if name not in known:
                raise ValueError(checks.lacks("slices: the data", "column", name, known))
            if bins is not None:
                checks.at_least(2, **{f"bins of {term}": bins})
        else:
            _maker(term)
    if "group" in terms and not groups:
        raise ValueError(
            "slices: 'group' is requested but report.groups is empty; name records as "
            "groups={'mine': "
            "(3, 17)}."
        )
    for name, listed in groups.items():
        rows = np.asarray(listed)
        if not rows.size or rows.ndim != 1 or rows.dtype.kind not in "iu":
            remedy = " For a mask pass np.flatnonzero(mask)." if rows.dtype.kind == "b" else ""
            raise ValueError(
                f"groups: {name!r} must be a list of row numbers and has shape {rows.shape}, dtype "
                f"{rows.dtype}.{remedy}"
            )
        if rows.min() < 0 or (num_examples is not None and rows.max() >= num_examples):
            last = "" if num_examples is None else num_examples - 1
            raise ValueError(
                f"groups: {name!r} names row {rows.min() if rows.min() < 0 else rows.max()}; the "
                f"data has rows 0..{last}."
            )


def column_of(term: str) -> tuple[str, int | None]:
    """Returns the name and the number of bins (None without) of a column's term.

    >>> column_of('column:age:4'), column_of('column:age')
    (('age', 4), ('age', None))
    """
    name = term.removeprefix("column:")
    head, _, tail = name.rpartition(":")
    return (head, int(tail)) if head and tail.isdigit() else (name, None)


def make(
    texts: Sequence[str],
    evaluated_TN,
    *,
    labels_N=None,
    columns: Mapping[str, np.ndarray] = {},
    loss_TN=None,
    correct_TN=None,
    groups: Mapping[str, Sequence[int]] = {},
) -> list[Layer]:
    """Returns the requested slices of the evaluated records as layers.

    Slices without an evaluated record are left out. Groups are sliced even if no text requests it.

    Args:
        texts: the requested slices.
        evaluated_TN: the scored rows of each target.
        labels_N, columns, loss_TN, correct_TN, groups: as in `Records`.

    Raises:
        ValueError: a term needs what is missing, two slices share a name, or there are more than
            1,000 slices.
    """
    evaluated_TN = np.asarray(evaluated_TN, bool)
    parsed = parse(texts)
    parsed += [("group",)] if groups and not any("group" in terms for terms in parsed) else []
    check(
        [" & ".join(t) for t in parsed],
        columns=tuple(columns),
        groups=groups,
        num_examples=evaluated_TN.shape[1],
    )
    records = Records(evaluated_TN, labels_N, columns, loss_TN, correct_TN, groups)
    single = {term: _layers(term, records) for terms in parsed for term in terms}
    layers = []
    for terms in parsed:
        parts = single[terms[0]]
        for term in terms[1:]:
            parts = [crossed(a, b) for a in parts for b in single[term]]
        layers += [used for part in parts if (used := compact(part, evaluated_TN)).names]
    names = [name for layer in layers for name in layer.names]
    if len(names) > MOST_SLICES:
        raise ValueError(
            f"slices: {', '.join(map(' & '.join, parsed))} make {len(names)} slices; at most "
            f"{MOST_SLICES} are measured."
        )
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"slices: two slices are called {sorted(repeated)[0]!r}.")
    return layers


def _layers(term: str, records: Records) -> list[Layer]:
    """Returns the layers of one term.

    Raises:
        ValueError: The term needs what is missing, or a user-supplied module made something other
            than layers of the records.
    """
    for need in _needs(term):
        field, what = NEEDS[need]
        if getattr(records, field) is None:
            raise ValueError(
                f"slices: {term!r} needs {what}, which the data lack; leave it out, or pass logits "
                "or probs with labels."
            )
    made = _maker(term)(records)
    layers = [made] if isinstance(made, Layer) else list(made)
    for layer in layers:
        if (
            not isinstance(layer, Layer)
            or np.shape(layer.code)[-1:] != records.evaluated_TN.shape[1:]
        ):
            raise ValueError(
                f"slices: {term!r} must make metrics.slices.Layer(names, code, post_hoc) with a "
                f"code of {records.evaluated_TN.shape[1]} records."
            )
    return layers


def few_values(column) -> bool:
    """Returns whether a column has so few values that each is a slice."""
    column = np.asarray(column)
    return column.dtype.kind not in "iuf" or len(np.unique(column)) <= MOST_VALUES


def by_value(name: str, column) -> Layer:
    """Returns a slice '<name>=<value>' for each distinct value, in sorted order; NaN is in none."""
    column = np.asarray(column)
    values, code = _distinct(column)
    text = (
        shown(values)
        if column.dtype.kind == "f"
        else [v.decode() if isinstance(v, bytes) else str(v) for v in values]
    )
    missing = np.isnan(values) if column.dtype.kind == "f" else np.zeros(len(values), bool)
    return Layer(
        tuple(f"{name}={t}" for t in text),
        np.where(missing[code], -1, code).astype(np.int32),
        False,
    )


def _distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns np.unique(column, return_inverse=True).

    Whole numbers in a narrow range, such as labels, are counted, without a sort.
    """
    if column.dtype.kind in "iu" and column.size:
        low, span = column.min(), int(column.max()) - int(column.min()) + 1
        if span <= len(column):
            place = column.astype(np.int64) - int(low)
            there = np.bincount(place, minlength=span) > 0
            return (np.flatnonzero(there) + int(low)).astype(column.dtype), (np.cumsum(there) - 1)[
                place
            ]
    return np.unique(column, return_inverse=True)


def shown(values) -> list[str]:
    """Returns numbers as texts of 6 digits, or of all digits where 6 do not distinguish them."""
    short = [f"{v:g}" for v in values]
    return (
        short
        if len(set(short)) == len(set(np.asarray(values).tolist()))
        else [f"{v:.17g}" for v in values]
    )


def by_quantile(name: str, column, bins: int) -> Layer:
    """Returns `bins` slices at the column's quantiles, '<name>=[low, high)'.

    The last one is closed; equal quantiles are merged, NaN is in none.
    """
    column = np.asarray(column)
    if column.dtype.kind not in "iufb":
        raise ValueError(
            f"slices: column {name!r} has dtype {column.dtype} and cannot be cut into bins; use "
            f"'column:{name}'."
        )
    column = column.astype(np.float64)
    edges = np.unique(np.nanquantile(column, np.linspace(0, 1, bins + 1)))
    edges = np.append(edges, edges) if len(edges) == 1 else edges
    code = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, len(edges) - 2)
    text, ends = shown(edges), [")"] * (len(edges) - 2) + ["]"]
    names = tuple(f"{name}=[{a}, {b}{end}" for a, b, end in zip(text[:-1], text[1:], ends))
    return Layer(names, np.where(np.isnan(column), -1, code).astype(np.int32), False)


def by_percentile(loss_TN, evaluated_TN) -> list[Layer]:
    """Returns the deciles of each target's loss, 'loss 0-10%' to 'loss 90-100%'.

    They are taken over its evaluated members and non-members together, both ends inclusive.
    """
    loss_TN = np.where(evaluated_TN, np.asarray(loss_TN, np.float64), np.nan)
    edge_ET = np.nanpercentile(loss_TN, np.arange(0, 101, 10), axis=1)

    def within(k):
        return (loss_TN >= edge_ET[k][:, None]) & (loss_TN <= edge_ET[k + 1][:, None])

    return packed({f"loss {10 * k}-{10 * k + 10}%": within(k) for k in range(10)}, post_hoc=True)


def packed(masks: Mapping[str, np.ndarray], *, post_hoc: bool) -> list[Layer]:
    """Packs slices that may overlap into layers.

    Each slice goes to the first layer that it does not overlap.
    """
    layers: list[tuple[list[str], np.ndarray]] = []
    for name, mask in masks.items():
        free = next((layer for layer in layers if not (mask & (layer[1] >= 0)).any()), None)
        if free is None:
            layers.append(free := ([], np.full(mask.shape, -1, np.int32)))
        free[1][mask] = len(free[0])
        free[0].append(name)
    return [Layer(tuple(names), code, post_hoc) for names, code in layers]


def crossed(a: Layer, b: Layer) -> Layer:
    """Returns the intersections 'x & y' of two layers' slices."""
    names = tuple(f"{x} & {y}" for x in a.names for y in b.names)
    code = np.where((a.code >= 0) & (b.code >= 0), a.code * len(b.names) + b.code, -1)
    return Layer(names, code.astype(np.int32), a.post_hoc or b.post_hoc)


def compact(layer: Layer, evaluated_TN) -> Layer:
    """Returns the layer without the slices that hold no evaluated record."""
    code = np.broadcast_to(layer.code, evaluated_TN.shape)[evaluated_TN]
    used = np.unique(code[code >= 0])
    renumber = np.full(len(layer.names) + 1, -1, np.int32)  # the last entry is that of -1
    renumber[used] = np.arange(len(used))
    return Layer(tuple(layer.names[u] for u in used), renumber[layer.code], layer.post_hoc)
