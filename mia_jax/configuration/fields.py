"""Defines the fields of a config and their types, and reads values from text.

The type of a field follows from the annotations and defaults of a maker. Lists are written in one
way everywhere: `64,64`, `(64, 64)` and `[64,64]` are the same list, and a single item needs no
comma. Imports no jax.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np

from mia_jax import checks

EMPTY = inspect.Parameter.empty
LARGEST = 2**63 - 1
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "names"}
TRUE, FALSE = ("true", "1", "yes", "t"), ("false", "0", "no", "f")


class Kind(NamedTuple):
    """Says what a field may hold; without any of these, any plain value.

    Attributes:
        scalars: the types of single values.
        items: the types of the items of a list.
        mapping: whether a mapping is allowed.
        optional: whether None is allowed.
    """

    scalars: tuple[type, ...] = ()
    items: tuple[type, ...] = ()
    mapping: bool = False
    optional: bool = False

    @property
    def words(self) -> str:
        """Returns the kind in words, for a message."""
        parts = [
            WORDS[scalar]
            for scalar in WORDS
            if scalar in self.scalars and not (scalar is int and float in self.scalars)
        ]
        if self.items:
            items = " or ".join(
                PLURALS[scalar]
                for scalar in WORDS
                if scalar in self.items and not (scalar is int and float in self.items)
            )
            parts.append(
                f"a list of {items} such as "
                + {int: "1,2", float: "0.1,0.2", str: "a,b"}.get(self.items[0], "1,0")
            )
        parts += ["a mapping such as {'a': 1}"] * self.mapping + ["none"] * self.optional
        return " or ".join(parts) or "text, a number, a list or a mapping"


class Field(NamedTuple):
    """Holds the kind of a field and its default (EMPTY if it has none)."""

    kind: Kind
    default: Any


def of(function: Callable, *, without: Collection[str] = ()) -> dict[str, Field]:
    """Returns the fields of a maker: its keyword arguments except those in `without`."""
    hints = _hints(function)
    parameters = inspect.signature(function).parameters
    named = {
        k: p
        for k, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and k not in without
    }
    return {k: Field(kind_of(hints.get(k, EMPTY), p.default), p.default) for k, p in named.items()}


def of_settings(kind: type) -> dict[str, Field]:
    """Returns the fields of a settings class (a dataclass whose fields all have defaults)."""
    hints, fields = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        fields[field.name] = Field(kind_of(hints[field.name], default), default)
    return fields


def _hints(function: Callable) -> dict[str, Any]:
    """Returns the annotations that can be evaluated; for other arguments the default says the type.

    Typing's own function fails as a whole if one annotation names something unknown.
    """
    try:
        return typing.get_type_hints(function)
    except Exception:
        hints = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                hints[name] = (
                    eval(annotation, function.__globals__)
                    if isinstance(annotation, str)
                    else annotation
                )
            except Exception:
                continue
        return hints


def table(defaults: Mapping[str, Any], hints: Mapping[str, Any] = {}) -> dict[str, Field]:
    """Returns the fields of a section that is given as a table of defaults.

    Args:
        defaults: {field: default}.
        hints: {field: type}, for types that a default does not show.
    """
    return {
        k: Field(kind_of(hints.get(k, EMPTY), default), default) for k, default in defaults.items()
    }


def kind_of(hint: Any, default: Any = EMPTY) -> Kind:
    """Returns the kind of an annotation, or of a default if there is no annotation.

    >>> kind_of(int | None).words
    'a whole number or none'
    >>> kind_of(EMPTY, (0.1, 0.2)).words
    'a list of numbers such as 0.1,0.2'
    """
    if hint is EMPTY or hint is Any:
        return _of_value(default)
    kind = Kind()
    for part in (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    ):
        origin, args = typing.get_origin(part) or part, typing.get_args(part)
        if part is type(None):
            kind = kind._replace(optional=True)
        elif part in WORDS:
            kind = kind._replace(scalars=(*kind.scalars, part))
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            kind = kind._replace(mapping=True)
        elif isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
            items = tuple(a for arg in args if arg is not Ellipsis for a in kind_of(arg).scalars)
            kind = kind._replace(items=items or _of_value(default).items or tuple(WORDS))
        else:
            return Kind()
    return kind


def _of_value(value: Any) -> Kind:
    if type(value) in WORDS:
        return Kind(scalars=(type(value),))
    if isinstance(value, tuple | list):
        return Kind(
            items=tuple(dict.fromkeys(type(v) for v in value if type(v) in WORDS)) or tuple(WORDS)
        )
    return Kind(mapping=True) if isinstance(value, Mapping) else Kind()


def value(given: Any, kind: Kind, *, label: str, shown: str | None = None) -> Any:
    """Returns a field's value: text is parsed, any other value is checked.

    Args:
        given: the text or the value.
        kind: what the field may hold.
        label: what messages call the field.
        shown: what messages show as the value; None: `given`.

    Raises:
        ValueError: if the value does not fit; it names `label`, the value and what is allowed.

    >>> value('1e3', Kind(scalars=(int,)), label='examples')
    1000
    >>> value('64,64', Kind(items=(int,)), label='widths')
    (64, 64)
    """
    try:
        return _read(given, kind) if isinstance(given, str) else _checked(given, kind)
    except _No as why:
        text = shown or (given if isinstance(given, str) else _short(given))
        reason = f" {why}" if str(why) else ""
        raise ValueError(f"{label}={text}: it must be {kind.words}.{reason}") from None


class _No(Exception):
    """Says that a value does not fit, and why if it has a text."""


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else text[:77] + "..."


def _read(text: str, kind: Kind) -> Any:
    if kind.optional and text.strip().lower() == "none":
        return None
    if kind == Kind():
        return _literal(text)
    bracketed = text.strip()[:1] in ("(", "[") and text.strip()[-1:] in (")", "]")
    if kind.items and (not kind.scalars or bracketed or "," in text):
        return tuple(_scalar(item, kind.items) for item in split(text))
    if kind.mapping and text.strip()[:1] == "{":
        return _checked(_literal(text), kind)
    if kind.scalars:
        return _scalar(text, kind.scalars)
    raise _No


def named(text: str) -> tuple[str, dict[str, str]]:
    """Returns the name and the settings, as text, of 'name:field=value,field=value'.

    It is the inverse of `spelled`.

    >>> named('top_k:k=3'), named('memguard')
    (('top_k', {'k': '3'}), ('memguard', {}))
    """
    name, _, rest = text.partition(":")
    return name, {field: value or "" for field, value in pairs(rest)}


def spelled(name: str, settings: Mapping[str, Any]) -> str:
    """Returns 'name:field=value,field=value', or only the name if there are no settings."""
    return (
        name
        + ":" * bool(settings)
        + ",".join(f"{field}={value}" for field, value in settings.items())
    )


def pairs(text: str) -> list[tuple[str, str | None]]:
    """Returns the (field, value) of every item of 'field=value,field'.

    The value is None if no '=' was typed.

    >>> pairs('models=16, quick')
    [('models', '16'), ('quick', None)]
    """
    items = (item.strip().partition("=") for item in text.split(",") if item.strip())
    return [(name.strip(), value.strip() if equals else None) for name, equals, value in items]


def typed(given: Mapping[str, Any], known: Mapping[str, Field], *, label: str) -> dict[str, Any]:
    """Returns the given fields, every value converted to the type of its field.

    Args:
        given: {field: value}.
        known: the fields that exist.
        label: what messages call the section.

    Raises:
        ValueError: if a field does not exist or a value does not fit.
    """
    for name in given:
        if name not in known:
            raise ValueError(checks.lacks(label, "field", name, known))
    return {
        name: value(item, known[name].kind, label=f"{label}.{name}") for name, item in given.items()
    }


def split(text: str) -> list[str]:
    """Returns the items of a list as it is typed.

    Commas outside quotes and brackets separate the items. Brackets around the list and quotes
    around an item are removed. An item 'field=value' or a number belongs to the item before it if
    that has a colon: 'noise_robustness:samples=4,sigma=.05,loss' has two items, and so has
    'identity,shift:1,0'.

    >>> split("identity, flip"), split('["a,b", c]')
    (['identity', 'flip'], ['a,b', 'c'])
    >>> split("noise_robustness:samples=4,sigma=.05,loss")
    ['noise_robustness:samples=4,sigma=.05', 'loss']
    """
    text = text.strip()
    if text[:1] in ("(", "[") and text[-1:] == {"(": ")", "[": "]"}[text[0]]:
        text = text[1:-1]
    items, now, quote, depth = [], "", "", 0
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            items.append(now)
            now = ""
            continue
        now += letter
    items = [item.strip() for item in [*items, now]]
    if items[-1] == "":  # as in '(64,)' and in the empty list
        items.pop()
    joined: list[str] = []
    for item in items:
        if joined and ":" in joined[-1] and re.match(r"\w+=|[+-]?\d+$", item):
            joined[-1] += "," + item
        else:
            joined.append(item)
    return [
        item[1:-1] if len(item) > 1 and item[0] == item[-1] and item[0] in "'\"" else item
        for item in joined
    ]


def _scalar(text: str, scalars: Collection[type]) -> Any:
    """Returns the text as the first of bool, int, float and str that it can be read as."""
    why = ""
    for scalar in (bool, int, float, str):
        if scalar in scalars and not (
            scalar is bool and len(scalars) > 1 and text.strip() in ("0", "1")
        ):
            try:
                return _READ[scalar](text)
            except _No as no:
                why = why or str(no)
    raise _No(why)


def _bool(text: str) -> bool:
    if text.strip().lower() in TRUE + FALSE:
        return text.strip().lower() in TRUE
    raise _No


def _int(text: str) -> int:
    try:
        number = Decimal(text.strip())
    except (InvalidOperation, ValueError):
        raise _No from None
    if not number.is_finite() or (number.adjusted() <= 30 and number != number.to_integral_value()):
        raise _No
    if number.adjusted() > 30 or abs(int(number)) > LARGEST:
        raise _No("It is larger than 64 bits hold.")
    return int(number)


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise _No from None
    if not math.isfinite(number):
        raise _No("It must be finite.")
    return number


_READ = {bool: _bool, int: _int, float: _float, str: lambda text: text}


def _literal(text: str) -> Any:
    """Returns a Python literal (a number, a list, a mapping, none, true), or the text itself."""
    known = {"none": None, "true": True, "false": False}
    if text.strip().lower() in known:
        return known[text.strip().lower()]
    try:
        literal = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if text.strip()[:1] in tuple("{[("):
            raise _No("Names and texts within it must be quoted.") from None
        return text
    return _checked(literal, Kind())


def _checked(given: Any, kind: Kind) -> Any:
    if isinstance(given, np.generic):
        given = given.item()
    if given is None:
        if kind.optional or kind == Kind():
            return None
        raise _No
    if kind == Kind():
        return _plain(given)
    if isinstance(given, Mapping):
        if kind.mapping:
            return _plain(given)
        raise _No
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = tuple(given.tolist())
    if isinstance(given, tuple | list | range | set | frozenset):
        if not kind.items:
            raise _No
        items = tuple(_single(item, kind.items) for item in given)
        return given if isinstance(given, tuple | list) and list(given) == list(items) else items
    if kind.items and not kind.scalars:
        return (_single(given, kind.items),)
    return _single(given, kind.scalars)


def _single(given: Any, scalars: Collection[type]) -> Any:
    """Returns a value of one of these types.

    A whole number is accepted as a number, 1e3 as a whole number, and true as neither.
    """
    given = given.item() if isinstance(given, np.generic) else given
    if isinstance(given, bool | str):
        if type(given) in scalars:
            return given
        raise _No
    if isinstance(given, int) and {int, float} & set(scalars):
        if abs(given) > LARGEST:
            raise _No("It is larger than 64 bits hold.")
        return given
    if isinstance(given, float) and {int, float} & set(scalars):
        if not math.isfinite(given):
            raise _No("It must be finite.")
        if float in scalars:
            return given
        if given.is_integer() and abs(given) <= LARGEST:
            return int(given)
    raise _No


def _plain(given: Any, depth: int = 0) -> Any:
    """Returns nested mappings, lists and scalars as they are; raises _No for anything else."""
    if depth > 8:
        raise _No("It is nested too deeply.")
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, str) or not key or "." in key:
                raise _No("Its keys must be names without dots.")
        return {key: _plain(item, depth + 1) for key, item in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(_plain(item, depth + 1) for item in given)
    if given is None or isinstance(given, str):
        return given
    return _single(given, tuple(WORDS))
