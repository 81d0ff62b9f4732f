"""Finds plug-ins by the names of their files: config.model.name = 'mlp' is mia_jax/models/mlp.py.

Every such module has the same function (KINDS), and there is no list to update.

A name with a dot is a module outside the package with the same function: 'my_pkg.my_model'. Two
kinds also offer the functions of a library, which their packages list (`library()` in
mia_jax/optimizers and mia_jax/schedules); for these a dotted name may also be that of a function. A
signal or a defense may carry settings in its name: 'correct_under_shift:d=2' is
mia_jax/signals/correct_under_shift.py and make(d=2).
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

from mia_jax import checks
from mia_jax.configuration import fields

KINDS = dict(  # kind -> the function that its modules have
    data="load",
    designs="make",
    models="make",
    objectives="make",
    learners="make",
    optimizers="make",
    schedules="make",
    augmentations="make",
    query_views="make",
    signals="make",
    defenses="make",
    attacks="make",
    classifiers="make",
    slices="make",
    sections="text",  # of report.md
    frameworks="predictor",  # of models that a user trained elsewhere
    trackers="make",  # where metrics go during training
)
# Kinds whose settings may be given in order, as in 'shift:1,0'.
POSITIONAL = ("augmentations", "query_views", "slices")
# Kinds whose names may carry settings, as in 'name:field=value'.
SPELLED = ("signals", "defenses", *POSITIONAL)
RENAMED = dict(signals=dict(penultimate="embedding"))  # {kind: {old name: new name}}
# The folders of kinds that have another name than the kind.
_FOLDERS = dict(classifiers="fitting", sections="report.sections", frameworks="external.frameworks")
# The modules of a kind's folder that are no plug-ins.
_HELPERS = dict(
    attacks=("toolkit",),
    models=("layers",),
    learners=("plan", "stopping"),
    classifiers=("moments", "network", "quantiles", "rows"),
)


def package(kind: str) -> ModuleType:
    """Returns the package that holds the modules of a kind."""
    return importlib.import_module(f"mia_jax.{_FOLDERS.get(kind, kind)}")


@functools.cache  # `identity` is called for every file of a fleet's answers
def files(kind: str) -> tuple[str, ...]:
    """Returns the names of the modules in a kind's folder, sorted, without shared helpers.

    Folders within it are helpers as well. 'class', a keyword of Python, is the file class_.py, and
    'torch' is torch_.py, because in that folder `import torch` must mean the library.
    """
    return tuple(_stems(kind))


@functools.cache
def _stems(kind: str) -> dict[str, str]:
    """Returns {name: file without .py} of a kind, sorted by name."""
    modules = (
        m.name
        for m in pkgutil.iter_modules(package(kind).__path__)
        if not m.name.startswith("_") and not m.ispkg
    )
    named = {name.removesuffix("_"): name for name in modules}
    return {name: named[name] for name in sorted(named) if name not in _HELPERS.get(kind, ())}


def library(kind: str) -> Mapping[str, Callable]:
    """Returns {name: function} of the library that a kind offers in addition to its own files.

    It is {} for most kinds.
    """
    functions = getattr(package(kind), "library", None)
    return functions() if functions else {}


@functools.cache
def names(kind: str) -> tuple[str, ...]:
    """Returns the names that exist, sorted: the kind's files and the functions of its library."""
    return tuple(sorted({*files(kind), *library(kind)}))


def load(kind: str, name: str) -> ModuleType:
    """Returns the module mia_jax.<kind>.<name>, or the user's module if the name has a dot.

    Raises:
        ValueError: if there is no such module; the message lists the known names.
    """
    if kind in SPELLED:
        name = fields.named(name)[0]
    if outside(kind, name):
        return user_module(kind, name)
    check(kind, name)
    return importlib.import_module(f"{package(kind).__name__}.{_stems(kind).get(name, name)}")


def check(kind: str, name: str) -> None:
    """Raises ValueError that lists the known names unless the name exists.

    Names of modules outside the package pass.
    """
    if name not in names(kind) and not outside(kind, name):
        raise ValueError(unknown(kind, name))


def unknown(kind: str, name: str) -> str:
    """Returns the message about a name that does not exist.

    It says the new name of a renamed module, or the most similar name and all names.
    """
    if name in RENAMED.get(kind, {}):
        return f"{kind}: {name!r} is called {RENAMED[kind][name]!r} now; use that name."
    return (
        f"{kind}: there is no {name!r}.{checks.closest(name, names(kind))} Known: "
        f"{', '.join(names(kind))}."
    )


def outside(kind: str, name: str) -> bool:
    """Returns whether a name is that of a module outside the package.

    Such a name is 'my_pkg.my_model', or 'my_model' if that file can be imported and has the maker.
    """
    if "." in name or name in names(kind):
        return "." in name
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    return (
        spec is not None
        and bool(spec.origin)
        and spec.origin.endswith(".py")
        and f"def {KINDS[kind]}(" in _text(spec.origin)
    )


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def user_module(kind: str, path: str) -> ModuleType:
    """Returns a module outside the package, such as 'my_pkg.my_module'.

    Raises:
        ValueError: if it cannot be imported, or lacks the maker that modules of this kind have.
    """
    if not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{kind}: {path!r} is no name of a module; expected my_pkg.my_module.")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and not path.startswith(error.name):
            raise
        folders = ", ".join(
            dict.fromkeys(
                str(pathlib.Path(p or ".").resolve())
                for p in sys.path
                if "python3" not in p and not p.endswith(".zip")
            )
        )
        raise ValueError(
            f"{kind}: there is no module {path!r}; it must be importable from here: run in its "
            f"folder, or set PYTHONPATH. Looked in {folders}."
        ) from error
    if not hasattr(module, KINDS[kind]):
        raise ValueError(f"{kind}: the module {path!r} has no function {KINDS[kind]}(...).")
    return module


def maker(kind: str, name: str) -> Callable:
    """Returns the function that makes a choice.

    It is mia_jax.<kind>.<name>.make (load for data), a function of the library, or the maker of the
    user's module.

    Raises:
        ValueError: if there is no such choice; the message lists the known names.
    """
    if kind in SPELLED:
        name = fields.named(name)[0]
    if name not in files(kind) and (functions := library(kind)):
        if name in functions:
            return functions[name]
        if function := _function(kind, name):
            return function
    return getattr(load(kind, name), KINDS[kind])


def _function(kind: str, path: str) -> Callable | None:
    """Returns the function of a dotted name ('optax.contrib.prodigy'), as the kind adapts it.

    It is None if the name is that of a module, or of nothing.
    """
    parent, _, name = path.rpartition(".")
    if not parent or not all(part.isidentifier() for part in path.split(".")):
        return None
    try:
        function = getattr(importlib.import_module(parent), name, None)
    except ModuleNotFoundError:
        return None
    if isinstance(function, ModuleType) or not callable(function):
        return None
    return package(kind).adapted(function)


def keywords(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """Returns the arguments of the maker of a choice, {name: parameter}."""
    return dict(inspect.signature(maker(kind, name)).parameters)


def about(kind: str, name: str) -> str:
    """Returns the docstring of a choice: that of its module, or of the library's function."""
    from_library = name in library(kind) and name not in files(kind)
    return inspect.getdoc(library(kind)[name] if from_library else load(kind, name)) or ""


def make(kind: str, name: str, /, given: Mapping = {}, **kwargs):
    """Makes a choice: calls its maker.

    Args:
        kind: one of KINDS.
        name: the name of the choice, with settings if the kind allows them.
        given: the user's fields, {field: value}.
        kwargs: what the caller passes; arguments that the maker does not have are left out.

    Raises:
        ValueError: see `call`.
    """
    if kind in SPELLED:
        given = settings(kind, name) | dict(given)
    return call(maker(kind, name), f"{kind}/{name}", given, **kwargs)


def call(maker: Callable, label: str, /, given: Mapping = {}, **kwargs):
    """Returns maker(**kwargs, **given), without those of `kwargs` that the maker does not have.

    Args:
        maker: the function.
        label: what messages call it.
        given: the user's fields, {field: value}.
        kwargs: what the caller passes.

    Raises:
        ValueError: if a field does not exist or is missing, or if the maker raises TypeError or
            AttributeError; the message names `label`.
    """
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
        raise ValueError(
            f"{label}: {error}".rstrip(".")
            + f" ({type(error).__name__} in {getattr(maker, '__module__', 'its maker')})."
        ) from error


def settings(kind: str, name: str) -> dict:
    """Returns the settings in a name, {field: value}, converted to the types of the fields.

    'noise_robustness:sigma=.05,samples=100' has the settings sigma and samples.

    Raises:
        ValueError: if a field does not exist, a value does not fit, or there are too many.
    """
    base, given = fields.named(name)
    known = fields.of(maker(kind, base)) if given else {}
    if kind in POSITIONAL and "=" not in name:
        values = [text for text, _ in fields.pairs(name.partition(":")[2])]
        if len(values) > len(known):
            raise ValueError(
                f"{kind}/{base} has {len(known)} settings ({', '.join(known) or 'none'}), not "
                f"{len(values)}."
            )
        given = dict(zip(known, values, strict=False))
    return fields.typed(given, known, label=f"{kind}/{base}") if given else {}


def make_spelled(kind: str, name: str, *, noun: str):
    """Returns make(kind, name) for a name with settings.

    Args:
        kind: one of SPELLED.
        name: the name, with settings.
        noun: what messages call the choice, such as 'query view'.

    Raises:
        ValueError: if it cannot be made; the message ends with the forms of all names.
    """
    try:
        return make(kind, name)
    except ValueError as error:
        raise ValueError(f"there is no {noun} {name!r}: {error} Forms: {forms(kind)}.") from error


def forms(kind: str) -> str:
    """Returns how the names of a kind are written with their settings.

    >>> forms('query_views')
    "'flip', 'identity', 'rotate:degrees', 'shift:dy,dx'"
    """
    written = []
    for name in names(kind):
        fields_of_name = ",".join(keywords(kind, name))
        written.append(repr(f"{name}:{fields_of_name}" if fields_of_name else name))
    return ", ".join(written)


def identity(kind: str, name: str) -> str:
    """Returns the unique spelling of a name, with every setting written out.

    'correct_under_shift' is 'correct_under_shift:d=1', so two settings never share a file. A name
    without fields is returned as it is, and so is a name that is no file of this kind (a signal
    that was supplied).
    """
    name, at, defense = name.partition("@")
    base = fields.named(name)[0]
    if "." not in base and base not in files(kind):
        return name + at + defense
    given = {field: p.default for field, p in keywords(kind, name).items()} | settings(kind, name)
    return fields.spelled(base, given) + at + defense


def spelled(name: str, **settings) -> str:
    """Returns the unique spelling of a signal's name with these settings; see `identity`."""
    return identity("signals", fields.spelled(name, settings))
