"""Reads the command line and config files.

Fields of the config are arguments of launch.py (--config.learner.epochs=10). Config files are
Python code, which is run.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from mia_jax.configuration import shipped

Path = pathlib.Path
FIELD = re.compile(r"--?(no)?config\.(.*)", re.DOTALL)


def split_arguments(
    argv: Sequence[str], *, warn: Callable[[str], None] = lambda text: None
) -> tuple[list[str], dict[str, Any]]:
    """Splits a command line into the fields of the config and the other arguments.

    A field is written `--config.x=v` or `--config.x v`, a boolean also `--config.x` and
    `--noconfig.x`. If a field or flag is given twice, the last value counts.

    Args:
        argv: the words of the command line; the first is the program.
        warn: called with a sentence for every field or flag that is given twice with different
            values.

    Returns:
        (the other arguments, {field: value}), the value as text, or true or false.

    Raises:
        ValueError: if the name of a field is malformed, or --noconfig.x has a value.

    >>> split_arguments(['launch.py', '--config.seed=1', '--noconfig.report.figures', '--debug'])
    (['launch.py', '--debug'], {'seed': '1', 'report.figures': False})
    """

    def note(name: str, old: Any, new: Any) -> None:
        if old != new:
            warn(f"--{name} is given twice, as {old} and as {new}; the last one counts.")

    rest, given = list(argv[:1]), {}
    words = list(argv[1:])
    seen: dict[str, str] = {}
    while words:
        word = words.pop(0)
        match = FIELD.fullmatch(word)
        if not match:
            name, equals, value = word.lstrip("-").partition("=")
            if word.startswith("-") and equals:
                note(name, seen.get(name, value), value)
                seen[name] = value
            rest.append(word)
            continue
        negated, text = match.groups()
        name, equals, value = text.partition("=")
        if negated and equals:
            raise ValueError(f"{word}: --noconfig.{name} takes no value; it sets {name} to false.")
        if not re.fullmatch(r"[^.\s]+(\.[^.\s]+)*", name):
            raise ValueError(
                f"{word}: expected --config.<section>.<field>=<value>, as in "
                "--config.learner.epochs=10."
            )
        if not equals:
            value = not negated
            if value and words and not re.match(r"-(?![\d.])", words[0]):
                value = words.pop(0)
        note(f"config.{name}", given.get(name, value), value)
        given[name] = value
    return rest, given


def check_file(text: str | Path) -> Path:
    """Returns the file of a config, which is given by its path or, if it is shipped, by its name.

    A file in the current folder comes first, so that no shipped config can take its place.

    Raises:
        FileNotFoundError: if there is neither; the message lists the configs and the closest.
        ValueError: for a folder.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if (named := shipped.path_of(str(text))) is not None:
        return named
    if path.is_dir():
        files = ", ".join(str(p) for p in sorted(path.glob("*.py")))
        raise ValueError(
            f"--config: {path} is a folder; give one of its files: {files or 'none here'}."
        )
    here = sorted(p for p in Path("configs").rglob("*.py") if not p.stem.startswith("_"))
    names = shipped.names()
    known = [*map(str, here), *names] if path.suffix else [*names, *map(str, here)]
    same = [name for name in known if Path(name).stem == path.stem]
    close = same or difflib.get_close_matches(str(path), known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    if "," in str(text) or "=" in str(text):
        hint = (
            f" Arguments of a config follow a colon, as in {(close or ['quickstart'])[0]}"
            f":models=16.{hint}"
        )
    files = [str(p) for p in here if not shipped.is_shipped(p)]
    also = f"; files here: {', '.join(files)}" if files else ""
    raise FileNotFoundError(
        f"--config: there is no file {path}, and no shipped config of that name. Shipped: "
        f"{', '.join(names) or 'none'}{also}.{hint}"
    )


def module_of(path: str | Path) -> ModuleType:
    """Runs a config file and returns it as a module.

    Raises:
        ValueError: if it is not valid Python; it names the file, the line and the mistake.
    """
    path = Path(path).expanduser()
    loader = importlib.machinery.SourceFileLoader(f"_config_{path.stem}", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    try:
        _in_the_file(lambda: loader.exec_module(module), path)
    finally:
        del sys.modules[loader.name]
    return module


def config_of(path: str | Path, argument: str = "", *, module: ModuleType | None = None) -> Any:
    """Returns the config of a file: get_config(argument), or get_config() if there is no argument.

    Args:
        path: the config file.
        argument: what was typed after the colon of --config.
        module: the module of the file, if it has been run already.

    Raises:
        ValueError: if the file defines no get_config, if that takes no argument, or if it returns
            no config.
    """
    module = module_of(path) if module is None else module
    get = getattr(module, "get_config", None)
    if not callable(get):
        raise ValueError(
            f"--config: {path} defines no get_config(arg=None), the function that returns the "
            "config."
        )
    if argument and not inspect.signature(get).parameters:
        raise ValueError(
            f"--config: {path} takes no arguments, and {argument!r} is given after the colon."
        )
    config = _in_the_file(lambda: get(argument) if argument else get(), Path(path))
    if not hasattr(config, "to_dict") or not {"seed", "report"} <= set(config):
        raise ValueError(
            f"--config: get_config of {path} returns "
            f"{'nothing' if config is None else 'no config'}; return configuration.complete(...) "
            "or configuration.scores(...)."
        )
    return config


def _in_the_file(work: Callable, path: Path) -> Any:
    """Returns work(); an error in the code of the config file becomes a ValueError with its line.

    ValueError and OSError pass unchanged, because they are what mia_jax itself raises.
    """
    try:
        return work()
    except SyntaxError as error:
        raise ValueError(
            f"--config: {error.filename or path}, line {error.lineno}, is no Python: {error.msg}."
        ) from error
    except Exception as error:
        if "--debug" in sys.argv or isinstance(error, ValueError | OSError):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
        where = f"{path}, line {frames[-1].lineno}" if frames else str(path)
        raise ValueError(
            f"--config: {where}: {error} ({type(error).__name__}; --debug shows where)."
        ) from error
