"""Turns the arguments of a library's functions into fields of a config.

Fields are the arguments that numbers, booleans, text or mappings can set.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping

EMPTY = inspect.Parameter.empty
PLAIN = (bool, int, float, str)


def parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a function; {} if they cannot be inspected."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def plain(
    function: Callable, *, passed: Collection[str], defaults: Mapping[str, typing.Any] = {}
) -> Callable:
    """Returns the function with a signature of keyword arguments that a config can set.

    Args:
        function: a function of a library whose arguments may also be arrays, functions or other
            objects.
        passed: the arguments that the caller sets; they are kept.
        defaults: defaults that replace those of the function.

    Returns:
        The function itself, called by keyword, with `__signature__` and `__annotations__` of the
            remaining arguments, typed as the fields of a config are.
    """
    known = hints(function)
    kept, annotations = [], {}
    for name, parameter in parameters(function).items():
        default = defaults.get(name, parameter.default)
        hint = _plain_hint(known.get(name, EMPTY), default)
        if name not in passed and (
            hint is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ):
            continue
        annotations[name] = typing.Any if hint is None else hint
        kept.append(
            parameter.replace(
                kind=parameter.KEYWORD_ONLY, default=default, annotation=annotations[name]
            )
        )

    @functools.wraps(function)
    def called(**kwargs):
        return function(**kwargs)

    del called.__wrapped__  # The signature below is complete.
    called.__signature__ = inspect.Signature(kept)
    called.__annotations__ = annotations
    return called


def hints(function: Callable) -> dict:
    """Returns the annotations of a function, without those that cannot be read."""
    function = function.func if isinstance(function, functools.partial) else function
    try:
        return typing.get_type_hints(function)
    except Exception:  # An annotation contains a name that cannot be resolved.
        return {
            name: p.annotation
            for name, p in parameters(function).items()
            if not isinstance(p.annotation, str)
        }


def _plain_hint(hint, default):
    """Returns the part of an annotation that a config can hold, or None.

    A number may replace an array or a schedule.
    """
    if default is not EMPTY and not (default is None or isinstance(default, PLAIN)):
        return None  # The default is a class or a function, which a config cannot hold.
    parts = set(typing.get_args(hint)) or {hint}
    types = [kind for kind in PLAIN if kind in parts]
    if float in types:
        types = [float]
    elif not types and isinstance(default, PLAIN):
        types = [type(default)]
    elif not types and any(_is_mapping(part) for part in parts):
        types = [Mapping]
    elif (
        not types
        and hint is not EMPTY
        and typing.Any in parts
        and not any("Callable" in str(part) for part in parts)
    ):
        types = [str]  # The argument is a dtype, which is given by its name.
    if not types:
        return None
    if type(None) in parts or default is None:
        types.append(type(None))
    if len(types) == 1:
        return types[0]
    return typing.Union[tuple(types)]  # noqa: UP007  (made at run time)


def _is_mapping(part) -> bool:
    """Returns whether an annotation is a mapping."""
    origin = typing.get_origin(part) or part
    return isinstance(origin, type) and issubclass(origin, Mapping)
