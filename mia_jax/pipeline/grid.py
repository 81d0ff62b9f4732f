"""GRID: runs named variants of one config file, each in its own folder, and tabulates them.

All models of a fleet have the same learner and architecture; a grid compares variants of them. A
config file has a grid if it defines

    def grid(arg=None):                # [(name, overrides), ...]
        return [("adam", dict(rule="backprop")), ("slow", {"rule": "backprop",
        "learner.learning_rate": 1e-4})]
    TABLE = dict(attacks=("lira",), metrics=("auc", "tpr@0.01"))  # optional: what the table shows

An override without a dot is an argument of the file's get_config; one with a dot is a field of the
finished config.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax

from mia_jax import checks
from mia_jax.configuration import command_line, overrides
from mia_jax.pipeline import run as run_module
from mia_jax.report import answer, grid_table
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import GridFiles, Store, debug_folder

Path = pathlib.Path
METRICS = ("auc", "tpr@0.01")
RATES = ("auc", "balanced_accuracy", "advantage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """Holds one run of a grid: its name, which is also its folder, its overrides and its config."""

    name: str
    overrides: Mapping[str, Any]
    config: Any


def load(path: str | Path) -> ModuleType:
    """Returns the module of a config file.

    Raises:
      ValueError: the file defines no grid.
    """
    module = command_line.module_of(path)
    if not hasattr(module, "grid"):
        raise ValueError(
            f"{path} defines no grid(arg=None), a list of (name, overrides); it has one config, "
            "which runs without a grid."
        )
    return module


def variants(
    module: ModuleType,
    arg: str | None = None,
    everywhere: Mapping[str, Any] = {},
    finished: Callable[[Any], Any] = lambda config: config,
) -> list[Variant]:
    """Returns the variants of a config file's grid.

    Args:
      module: the module of the config file.
      arg: the text after the colon on the command line.
      everywhere: {field: value} that every variant overrides.
      finished: changes the config of every variant last (by what was typed on the command line).

    Raises:
      ValueError: a name cannot be a folder or appears twice, or a config does not have an
        overridden field.
    """
    grid: list[Variant] = []
    for name, changes in module.grid(arg) if arg else module.grid():
        if not re.fullmatch(r"\w[\w.+-]*", str(name)) or name in {m.name for m in grid}:
            raise ValueError(
                f"grid: {name!r} must be a folder's name (letters, digits, . _ + -) and appear "
                "once."
            )
        arguments = [f"{k}={v}" for k, v in changes.items() if "." not in k]
        text = ",".join(filter(None, [arg, *arguments]))
        try:
            config = command_line.config_of(module.__file__, text, module=module)
            config = overrides.override(
                config, {k: v for k, v in changes.items() if "." in k} | dict(everywhere)
            )
        except ValueError as error:
            raise ValueError(f"grid variant {name!r}: {error}") from error
        grid.append(Variant(name=name, overrides=dict(changes), config=finished(config)))
    if not grid:
        raise ValueError("grid: there is no variant.")
    return grid


def chosen(module: ModuleType, grid: Sequence[Variant]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (attacks, metrics) that the table shows.

    They are those of TABLE in the config file, or else every attack with its AUC and TPR at 1% FPR.

    Raises:
      ValueError: TABLE names an unknown attack or metric.
    """
    table = getattr(module, "TABLE", {})
    known = dict.fromkeys(name for m in grid for name in (m.config.get("attacks") or {}))
    attacks, metrics = tuple(table.get("attacks", known)), tuple(table.get("metrics", METRICS))
    for name in attacks:
        checks.one_of(known, **{"TABLE attack": name})
    rates = (
        *RATES,
        *(
            f"{kind}@{fpr:g}"
            for m in grid
            for fpr in m.config.report.fprs
            for kind in ("tpr", "ppv")
        ),
    )
    for name in metrics:
        checks.one_of(dict.fromkeys(rates), **{"TABLE metric": name})
    return attacks, metrics


def run(
    module: ModuleType,
    grid: Sequence[Variant],
    *,
    workdir_path: str | Path,
    debug: bool = False,
    task: tuple[int, int] | None = None,
    **options,
) -> dict[str, str]:
    """Runs every variant in workdir/<name>, writes the table over them and prints their answers.

    The table is written as table.csv, table.md and table.png.

    A variant that fails does not stop the others; the same command continues what is unfinished.

    Args:
      module: the module of the config file.
      grid: the variants.
      workdir_path: the folder of the grid.
      debug: runs tiny fleets, in folders of their own.
      task: (i, n) runs the share of task i of n and writes no table.
      **options: arguments of pipeline.run.

    Returns:
      {name: error} of the variants that failed.

    Raises:
      ValueError: the workdir belongs to a single run.
    """
    root = files.folder_at(workdir_path, argument="workdir_path")
    if Store(root).config.exists():
        raise ValueError(f"{root} holds a single run; a grid needs a workdir of its own.")
    attacks, metrics = chosen(module, grid)
    reports, failed = {}, {}
    grid = jobs.share(grid, task)
    for i, variant in enumerate(grid):
        jobs.say(f"grid: {variant.name} ({i + 1} of {len(grid)})")
        folder, config = GridFiles(root).variant(variant.name), variant.config
        if debug:
            folder, config = debug_folder(folder), run_module.debug_config(config)
        try:
            reports[variant.name] = run_module.run(config, workdir_path=folder, **options)
        except jobs.Paused:
            raise
        except Exception as error:
            failed[variant.name] = jobs.failure(error)
            jobs.say(f"grid: {variant.name} failed: {failed[variant.name]}")
        jax.clear_caches()  # the next variant's programs are others
    if any(reports.values()) and task is None:
        grid_table.write(reports, failed=failed, attacks=attacks, metrics=metrics, folder=root)
        for name, report in reports.items():
            if report:
                print(f"{name}: {answer.line(report)}")
    return failed
