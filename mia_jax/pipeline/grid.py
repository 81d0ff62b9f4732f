"""GRID: runs named variants of one config file, each in its own folder, and tabulates them.

All models of a fleet have the same learner and architecture; a grid compares variants of them. A
config file has a grid if it defines

    def grid(arg=None):                # [(name, overrides), ...]
        return [("adam", dict(rule="backprop")), ("slow", {"rule": "backprop",
        "learner.learning_rate": 1e-4})]
    TABLE = dict(attacks=("lira",), metrics=("auc", "tpr@0.01"))  # optional: what the table shows

An override without a dot is an argument of the file's get_config; one with a dot is a field of the
finished config. learner.init_from='variant:adam' starts from the models of another variant.

Variants that train the same models train them once. A file with

    MATRIX = dict(argument="defense", undefended="none", accuracy="gap", about={...})

is a grid of defenses, which runs without --grid unless `argument` is typed, and has a page in
workdir/report (measures/matrix.py): `undefended` is the variant without a defense, `accuracy` the
attack whose scores are 1 where a released label is right, and `about` says what each variant is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax

from mia_jax import checks, registry
from mia_jax.configuration import command_line, overrides
from mia_jax.measures import matrix as measure
from mia_jax.pipeline import run as run_module
from mia_jax.pipeline.attack import labels_only
from mia_jax.pipeline.build_attacks import make_attacks
from mia_jax.pipeline.build_parts import VARIANT
from mia_jax.report import answer, grid_table, matrix
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import GridFiles, Store, debug_folder
from mia_jax.threat_model import asked_signals

Path = pathlib.Path
METRICS = ("auc", "tpr@0.01")
RATES = ("auc", "balanced_accuracy", "advantage")
TRAINED_BY = ("seed", "data", "design", "model", "learner")  # what models are a function of


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


def check_accuracy(module: ModuleType, grid: Sequence[Variant]) -> None:
    """Raises ValueError if a variant of a matrix lacks the attack that measures accuracy."""
    needed = getattr(module, "MATRIX", {}).get("accuracy")
    for variant in grid if needed else ():
        attacks = variant.config.get("attacks") or {}
        if needed not in [section.get("name", name) for name, section in attacks.items()]:
            raise ValueError(
                f"config.attacks of the variant {variant.name} lacks {needed!r}, whose scores say "
                f"which released labels are right; a matrix shows that accuracy. It has "
                f"{', '.join(attacks) or 'no attack'}."
            )


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
      ValueError: the workdir belongs to a single run, or a variant of a matrix lacks the attack
        that measures accuracy.
    """
    root = files.folder_at(workdir_path, argument="workdir_path")
    if Store(root).config.exists():
        raise ValueError(f"{root} holds a single run; a grid needs a workdir of its own.")
    attacks, metrics = chosen(module, grid)
    check_accuracy(module, grid)
    reports, failed = {}, {}
    shared = trained_before(grid) if task is None else {}
    grid = jobs.share(grid, task)
    for i, variant in enumerate(grid):
        jobs.say(f"grid: {variant.name} ({i + 1} of {len(grid)})")
        folder, config = GridFiles(root).variant(variant.name), resolved(variant.config, root)
        if variant.name in shared and not debug:
            copy_trained(GridFiles(root).variant(shared[variant.name]), folder)
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
        if hasattr(module, "MATRIX") and not debug:
            write_matrix(module, grid, reports, failed=failed, shared=shared, root=root)
    return failed


def implied(path: str | Path, argument: str) -> bool:
    """Returns whether a config file is a matrix and no single variant of it was typed.

    Args:
      path: the config file.
      argument: the text after the colon on the command line.
    """
    if "MATRIX" not in pathlib.Path(path).read_text(encoding="utf-8", errors="replace"):
        return False
    chosen_by = getattr(command_line.module_of(path), "MATRIX", {}).get("argument")
    typed = {part.partition("=")[0].strip() for part in argument.split(",")}
    return chosen_by is not None and chosen_by not in typed


def resolved(config, root: Path):
    """Returns the config, with the folder of the variant from whose models it starts."""
    start = (config.get("learner") or {}).get("init_from", "")
    if not start.startswith(VARIANT):
        return config
    config = config.copy_and_resolve_references()
    config.learner.init_from = str(GridFiles(root).variant(start.removeprefix(VARIANT)))
    return config


def trained_before(grid: Sequence[Variant]) -> dict[str, str]:
    """Returns {variant: the earlier variant that trains the same models}."""
    first: dict[str, str] = {}
    shared = {}
    for variant in grid:
        whole = run_module.plain(variant.config)
        parts = {key: whole.get(key) for key in TRAINED_BY}
        text = json.dumps(parts, sort_keys=True, default=str)
        if first.setdefault(text, variant.name) != variant.name:
            shared[variant.name] = first[text]
    return shared


def copy_trained(source: Path, folder: Path) -> None:
    """Copies finished models and their answers into a workdir that has no models yet.

    The files are those that the run would make itself: they say whose they are, and the run checks
    it. The models come last, so that an interrupted copy is made again.
    """
    there, here = Store(source), Store(folder)
    if here.train.started() or not there.train.has_models() or there.train.running_groups():
        return
    skipped = shutil.ignore_patterns("running", "partial", "pieces")
    for old, new in (
        (there.answers.folder, here.answers.folder),
        (there.train.folder, here.train.folder),
    ):
        if not old.exists():
            continue
        part = new.with_name(f"{new.name}.copying")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(old, part, ignore=skipped)
        if new.exists():
            files.set_aside(new)
        os.replace(part, new)


def write_matrix(
    module: ModuleType,
    grid: Sequence[Variant],
    reports: Mapping[str, Mapping],
    *,
    failed: Mapping[str, str],
    shared: Mapping[str, str],
    root: Path,
) -> None:
    """Writes the page of a grid of defenses; says why there is none without its reference.

    Args:
      module: the module of the config file, with MATRIX.
      grid: the variants.
      reports: {variant: its report}; {} where it has none.
      failed: {variant: why it failed}.
      shared: {variant: the variant whose trained models it uses}.
      root: the folder of the grid.
    """
    chosen_by, config_of = module.MATRIX, {v.name: v.config for v in grid}
    plain = chosen_by["undefended"]
    done = [name for name, report in reports.items() if report]
    if plain not in done:
        jobs.say(f"matrix: the variant {plain} has no report, so nothing can be compared with it.")
        return
    made = measure.cross(
        matrix.defended(
            root,
            [plain, *(name for name in done if name != plain)],
            about=chosen_by.get("about", {}),
            shared=shared,
        ),
        sees=seen(config_of[plain]),
        accuracy_of=chosen_by["accuracy"],
        failed=failed,
    )
    matrix.write(made, GridFiles(root))
    print(f"matrix: {GridFiles(root).matrix('html')}")


def seen(config) -> dict[str, str]:
    """Returns {attack: what it sees of a model} of a config: labels alone, then whole outputs."""
    sections = run_module.plain(config)["attacks"]
    kinds = {}
    for name, attack in make_attacks(sections).items():
        asked = sorted(asked_signals({name: attack}))
        signals = {signal: registry.make("signals", signal) for signal in asked}
        kinds[name] = measure.LABELS if labels_only(asked, signals) else measure.OUTPUTS
    return dict(sorted(kinds.items(), key=lambda item: item[1] != measure.LABELS))
