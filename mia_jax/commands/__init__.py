"""The subcommands, one file each: `mia-jax report WORKDIR` calls main of `report.py`.

There is no list to update. A file of this folder has `main(arguments: list[str]) -> int`, which
reads its arguments with argparse and returns the exit code: an answer, such as 0, 1 and 2 of a
gate. What it refuses it raises as ValueError or OSError, in a sentence; such an error, and what
argparse refuses, ends with code 64, which is the answer of no subcommand. The first line of a
file's docstring is its line in --help.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from mia_jax import checks
from mia_jax.runtime import jobs

MISTAKE = 64  # the exit code of what was typed wrongly (EX_USAGE)
_FOLDER = pathlib.Path(__file__).parent


def names() -> tuple[str, ...]:
    """Returns the names of all subcommands, sorted.

    >>> 'report' in names()
    True
    """
    return tuple(sorted(p.stem for p in _FOLDER.glob("*.py") if not p.stem.startswith("_")))


def about(name: str) -> str:
    """Returns the first line of a subcommand's docstring, read without importing it."""
    tree = ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]


def described() -> str:
    """Returns the subcommands for --help, a line each."""
    width = max(map(len, names()))
    lines = [f"  mia-jax {name:<{width}}  {about(name)}" for name in names()]
    return "\n".join(["Subcommands (mia-jax NAME --help describes one):", "", *lines])


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs a subcommand and returns its exit code; MISTAKE if it refuses what was typed."""
    if name not in names():
        jobs.say(
            f"error: there is no subcommand {name!r}.{checks.closest(name, names())} Subcommands: "
            f"{', '.join(names())}; a run needs none, every option of it is a flag (--config=..., "
            "--workdir=...)."
        )
        return MISTAKE
    module = importlib.import_module(f"{__name__}.{name}")
    try:
        return module.main(list(arguments))
    except SystemExit as end:  # of argparse: 0 after --help, 2 for what it refuses
        return MISTAKE if end.code not in (None, 0) else 0
    except jobs.MENDABLE as error:
        if "--debug" in sys.argv:
            raise
        jobs.say(f"error: {in_flags(str(error), module)}")
        return MISTAKE


def in_flags(text: str, module: ModuleType) -> str:
    """Returns a message of a function with its arguments as the options that were typed.

    >>> from mia_jax.commands import gate
    >>> in_flags("limit='auc' must be a metric, <= and a number", gate)
    "--limit='auc' must be a metric, <= and a number"
    """
    parser = getattr(module, "parser", None)
    if parser is None:
        return text
    options = [
        option.removeprefix("--")
        for action in parser()._actions  # argparse has no public list of them
        for option in action.option_strings
        if option.startswith("--")
    ]
    names = "|".join(map(re.escape, options))
    return re.sub(rf"(?<![\w.-])({names})=(?=['\"\d])", r"--\1=", text)
