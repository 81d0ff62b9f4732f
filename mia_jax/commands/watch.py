"""Shows how far a run has come, from the files of its workdir alone.

mia-jax watch runs/quickstart
mia-jax watch runs/quickstart --once

Stages, models, the last epochs, the time that is left and what failed, again every few seconds
until there is a report. A workdir of several seeds or of a grid shows each of its runs. Nothing is
written, so it can be on a read-only disk, and the run may be on another machine. With rich (pip
install mia_jax[watch]) the terminal is updated in place; without it, or where the output is no
terminal, what has changed is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mia_jax.report import answer, source, tables
from mia_jax.runtime import state
from mia_jax.runtime.progress import duration, terminal
from mia_jax.runtime.state import Rate, Reader, RunState
from mia_jax.runtime.store import Store, runs_below

MOST = 3  # failed models that are named


def main(arguments: Sequence[str]) -> int:
    """Shows the workdir until it is finished, or once; returns 0.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is in its place, or --every is no positive number.
    """
    asked = parser().parse_args(list(arguments))
    root = folder(asked.workdir)
    if not asked.every > 0:
        raise ValueError(f"--every={asked.every:g} must be a number of seconds > 0.")
    view = View(root)
    try:
        if asked.once:
            print("\n".join(view.lines()))
        elif terminal(sys.stdout) and importlib.util.find_spec("rich") is not None:
            update(view, asked.every)
        else:
            follow(view, asked.every)
    except KeyboardInterrupt:
        pass  # how a user ends it
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    reads = argparse.ArgumentParser(
        prog="mia-jax watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reads.add_argument("workdir", metavar="WORKDIR", type=Path, help="the --workdir of a run")
    reads.add_argument("--once", action="store_true", help="shows it once and ends")
    reads.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (default: 2)"
    )
    return reads


def folder(path: Path) -> Path:
    """Returns the workdir that was typed, '~' expanded.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is in its place.
    """
    root = path.expanduser()
    if not root.exists():
        raise FileNotFoundError(
            f"there is no {root}; name the --workdir of a run, which creates it when its config is "
            "checked."
        )
    if not root.is_dir():
        raise ValueError(f"{root} is a file; name the workdir of a run.")
    return root


class View:
    """Reads the runs below a path and describes them."""

    def __init__(self, root: Path):
        self.root = root
        self.runs: dict[Path, tuple[Reader, Rate]] = {}
        self.finished = False

    def lines(self) -> list[str]:
        """Returns what there is to say now."""
        states = []
        for root in runs_below(self.root):
            reader, rate = self.runs.setdefault(root, (Reader(root), Rate()))
            seen = reader.read()
            states.append((seen, rate.seconds_left(seen)))
        self.finished = all(seen.status == state.FINISHED for seen, _ in states)
        parts = [described(seen, left) for seen, left in states]
        return [line for part in parts for line in (*part, "")][:-1]


def described(seen: RunState, left: float | None) -> list[str]:
    """Returns the lines about one run.

    Args:
        seen: what its files say.
        left: the seconds until the training ends; None if that is unknown.
    """
    lines = [f"{seen.root}: {status(seen)}"]
    if seen.models:
        training = f"{seen.trained} of {seen.models} models are trained"
        if seen.trained < seen.models and seen.all_epochs:
            share = seen.trained_epochs / seen.all_epochs
            training += f"; {seen.trained_epochs:,} of {seen.all_epochs:,} epochs ({share:.0%})"
        if left is not None:
            training += f", about {duration(left)} left (less if models stop early)"
        lines.append(f"  train   {training}")
        lines += [f"          {line}" for line in epochs(seen)]
    if seen.signals:
        least = min(seen.signals.values())
        lines.append(f"  query   {len(seen.signals)} signals of {least} models or more")
    if seen.attacks:
        lines.append(f"  attack  {len(seen.attacked)} of {len(seen.attacks)} attacks have scores")
    if seen.status == state.FINISHED:
        lines += [f"  report  {line}" for line in verdict(seen.root)]
    lines += [f"  failed  {line}" for line in failures(seen)]
    lines += [f"  note    {trouble}" for trouble in seen.troubles]
    return lines


def status(seen: RunState) -> str:
    """Returns what is known about whether the run is at work, in words."""
    if seen.status == state.EMPTY:
        return "no run has written anything here yet"
    changed = f"last change {state.since(seen.age or 0.0)}"
    if seen.status == state.FINISHED:
        return f"finished, {changed}"
    if seen.status == state.ENDED:
        took = duration(seen.seconds[seen.stage])
        return (
            f"not at work: the last start ended with the stage {seen.stage} after {took} (paused, "
            f"failed, or asked for no more); the same command continues. {changed.capitalize()}"
        )
    if seen.status == state.RUNNING:
        return f"at work, {changed}"
    return f"{changed}: in a long step, or killed; the same command continues"


def epochs(seen: RunState) -> list[str]:
    """Returns the table of the last epochs: means over the models that have reached them."""
    rows = seen.means()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return []
    cells = [[shown(row.get(name)) for name in names] for row in rows]
    return tables.text_table(names, cells)


def shown(value) -> str:
    """Returns a cell: whole numbers as they are, others with four digits."""
    if value is None:
        return tables.ABSENT
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def verdict(root: Path) -> list[str]:
    """Returns the first line of the report and where it is."""
    place = Store(root).report
    try:
        first = answer.first_line(source.load(place.json))
    except (ValueError, KeyError, TypeError, OSError):
        first = "its verdict cannot be read"
    return [first, str(place.markdown)]


def failures(seen: RunState) -> list[str]:
    """Returns a line for each of the first failed models, and how many more there are."""
    lines = [f"model {m}: {reason}" for m, reason in sorted(seen.failed.items())]
    return lines[:MOST] + [f"and {len(lines) - MOST} more"] * (len(lines) > MOST)


def follow(view: View, every: float) -> None:
    """Prints the lines whenever something else than the time has changed."""
    before: list[str] = []
    while True:
        lines = view.lines()
        if timeless(lines) != before:
            print("\n".join(lines), flush=True)
            before = timeless(lines)
        if view.finished:
            return
        time.sleep(every)


def timeless(lines: Sequence[str]) -> list[str]:
    """Returns lines without how long ago something was and how long it will take."""
    return [line.partition(", last change")[0].partition(", about")[0] for line in lines]


def update(view: View, every: float) -> None:
    """Shows the lines in place, with rich."""
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        lines = view.lines()
        made = Text("\n".join(lines), no_wrap=False)
        made.highlight_regex(r"(?m)^\S.*?:", "bold")
        made.highlight_regex(r"(?m)^  (train|query|attack|report)", "cyan")
        made.highlight_regex(r"(?m)^  failed.*$", "red")
        return made

    with Live(text(), auto_refresh=False) as live:
        while not view.finished:
            time.sleep(every)
            live.update(text(), refresh=True)
