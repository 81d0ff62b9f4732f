"""Choosing is naming a file: config.model.name = 'mlp' is mia_jax/models/mlp.py and its `make`. There is no list to update.

A signal can be named with its settings: 'correct_under_shift:d=2' is mia_jax/signals/correct_under_shift.py and make(d=2).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

from mia_jax import checks, fields

KINDS = dict(data="load", designs="make", models="make", objectives="make", learners="make", signals="make", attacks="make")
_HELPERS = dict(data=("augment",), models=("layers",), learners=("plan", "stopping", "schedules"), signals=("transforms",))


@functools.cache  # a fleet's every answer asks for the spelling of its signal's name
def names(kind: str) -> tuple[str, ...]:
    """The names that exist, sorted: the modules of mia_jax.<kind> that are not shared helpers."""
    package = importlib.import_module(f"mia_jax.{kind}")
    found = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return tuple(sorted(n for n in found if n not in _HELPERS.get(kind, ())))


def load(kind: str, name: str) -> ModuleType:
    """The module mia_jax.<kind>.<name>, or the user's own module if the name has a dot; else ValueError that lists the known names."""
    if kind == "signals":
        name = fields.named(name)[0]
    known = names(kind)
    if outside(kind, name):
        return own(kind, name)
    if name not in known:
        raise ValueError(unknown(kind, name))
    return importlib.import_module(f"mia_jax.{kind}.{name}")


def unknown(kind: str, name: str) -> str:
    """Returns the sentence about a name that does not exist: the closest one and all that there are."""
    return f"{kind}: there is no {name!r}.{checks.closest(name, names(kind))} Known: {', '.join(names(kind))}."


def outside(kind: str, name: str) -> bool:
    """Whether a name is that of a module outside the package: 'my_pkg.my_model', or 'my_model' if such a file can be imported and has the maker."""
    if "." in name or name in names(kind):
        return "." in name
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    return spec is not None and bool(spec.origin) and spec.origin.endswith(".py") and f"def {KINDS[kind]}(" in _text(spec.origin)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def own(kind: str, path: str) -> ModuleType:
    """A module outside the package, 'my_pkg.my_model'; it needs the same maker as the modules of mia_jax.<kind>."""
    if not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{kind}: {path!r} is no name of a module; expected my_pkg.my_module.")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and not path.startswith(error.name):
            raise
        folders = ", ".join(dict.fromkeys(str(pathlib.Path(p or ".").resolve()) for p in sys.path if "python3" not in p and not p.endswith(".zip")))
        raise ValueError(
            f"{kind}: there is no module {path!r}; it must be importable from here: run in its folder, or set PYTHONPATH. Looked in {folders}."
        ) from error
    if not hasattr(module, KINDS[kind]):
        raise ValueError(f"{kind}: the module {path!r} has no function {KINDS[kind]}(...).")
    return module


def maker(kind: str, name: str) -> Callable:
    """The function mia_jax.<kind>.<name>.make (load for data)."""
    return getattr(load(kind, name), KINDS[kind])


def keywords(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The keyword arguments of the maker mia_jax.<kind>.<name>.make (load for data)."""
    return dict(inspect.signature(getattr(load(kind, name), KINDS[kind])).parameters)


def make(kind: str, name: str, /, given: Mapping = {}, **kwargs):
    """Calls the maker with those of `kwargs` (the caller's) that it takes and with `given`, the user's fields."""
    if kind == "signals":
        given = settings(kind, name) | dict(given)
    return call(getattr(load(kind, name), KINDS[kind]), f"{kind}/{name}", given, **kwargs)


def call(maker: Callable, label: str, /, given: Mapping = {}, **kwargs):
    """maker(**kwargs, **given); a misspelt or missing field is a ValueError that names `label` and the fields that exist."""
    allowed = dict(inspect.signature(maker).parameters)
    free = [k for k in allowed if k not in kwargs]
    for field in given:
        if field not in free:
            raise ValueError(checks.lacks(label, "field", field, free))
    missing = [k for k in free if allowed[k].default is inspect.Parameter.empty and k not in given]
    if missing:
        raise ValueError(f"{label} needs the field{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    try:
        return maker(**{k: v for k, v in kwargs.items() if k in allowed}, **given)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{label}: {error}".rstrip(".") + f" ({type(error).__name__} in {getattr(maker, '__module__', 'its maker')}).") from error


def settings(kind: str, name: str) -> dict:
    """The fields in a name with settings, 'noise_robustness:sigma=.05,samples=100', each of its own type; ValueError for others."""
    base, given = fields.named(name)
    return fields.typed(given, fields.of(maker(kind, base)), label=f"{kind}/{base}") if given else {}


def identity(kind: str, name: str) -> str:
    """The one spelling of a name with settings, every field written out ('correct_under_shift:d=1'): two settings never share a file.

    A name without fields is itself, and so is one that is no file of this kind (an answer that was brought).
    """
    name, at, defense = name.partition("@")
    base = fields.named(name)[0]
    if "." not in base and base not in names(kind):
        return name + at + defense
    given = {field: p.default for field, p in keywords(kind, name).items()} | settings(kind, name)
    return fields.spelled(base, given) + at + defense


def spelled(name: str, **settings) -> str:
    """The name of a signal with these settings."""
    return identity("signals", fields.spelled(name, settings))
