"""Damages every kind of file of a run in many ways, repeats the command, and reports the outcomes.

    python -m benchmarks.damage [--quick] [--kinds model;scores;...] [--damages ...] [--list]

The file is damaged just before it is read (a model before it is queried, a signal before it is
attacked, ...). Then the run has one of these outcomes:

    named      There is an error that names the file. If the message says that deleting it helps,
               this is tried: the same command must then make every file of the undisturbed run.
               `remedy held` counts how often it did, and how often it was tried.
    remade     The file is written again, or set aside, and every other file is that of the
               undisturbed run.
    harmless   Every other file is that of the undisturbed run, and this one holds the same arrays
               or is a log.
    flagged    The report says which outputs do not fit their inputs, or have no record of them.
    silent     Numbers differ, or a file is wrong, and no message says so.
    traceback  There is an exception that is no message for a user, or a message that does not say
               which file.

A damage that a kind of file cannot have (such as a lost key of an archive) is not counted. Prints a
Markdown table; exits with 1 if any outcome is `silent` or `traceback`, or if a remedy does not
hold.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import _disk
from mia_jax.report import source
from mia_jax.runtime import files, jobs

# The last stage that a workdir has been through when a file of it is damaged.
STAGES = ("paused", "train", "query", "attack", "report")
OUTCOMES = ("named", "remade", "harmless", "flagged", "silent", "traceback")
PROBE = "signal/boundary_distance:iterations=1,norm=l2,evaluations=100,budget=0,box=none"


class Kind(NamedTuple):
    """Describes a kind of file.

    Attributes:
        path: a file of this kind.
        sibling: another file of the same run.
        state: the state of the workdir when the file is damaged.
        private: whether the fleet is trained privately.
    """

    path: str
    sibling: str
    state: str
    private: bool = False


KINDS = {
    "checkpoint of a group": Kind(
        "train/running/00000-00001x2.npz", "train/model/00000.npz", "paused"
    ),
    "model": Kind("train/model/00001.npz", "train/model/00002.npz", "train"),
    "model, finished run": Kind("train/model/00001.npz", "train/model/00002.npz", "report"),
    "snapshot": Kind(
        "train/snapshot/00002/model/00001.npz", "train/snapshot/00004/model/00001.npz", "train"
    ),
    "ledger": Kind("train/privacy/00001.json", "train/privacy/00002.json", "attack", private=True),
    "signal": Kind("signal/rescaled_logit/00001.npy", "signal/rescaled_logit/00002.npy", "query"),
    "signal, finished run": Kind(
        "signal/rescaled_logit/00001.npy", "signal/loss/00001.npy", "report"
    ),
    "probing signal": Kind(f"{PROBE}/00001.npy", f"{PROBE}/00002.npy", "query"),
    "counts of queries": Kind(f"{PROBE}/00001.queries.npy", f"{PROBE}/00002.queries.npy", "query"),
    "signal after an epoch": Kind(
        "epoch/00002/signal/loss/00001.npy", "epoch/00004/signal/loss/00001.npy", "query"
    ),
    "scores": Kind("attack/lira/scores.npz", "attack/loss/scores.npz", "attack"),
    "membership": Kind("design/membership.npz", "attack/loss/scores.npz", "query"),
    "train/config.json": Kind("train/config.json", "signal/config.json", "query"),
    "attack/*/config.json": Kind("attack/lira/config.json", "attack/loss/config.json", "attack"),
    "plan.json": Kind("train/plan.json", "signal/config.json", "train"),
    "run.json": Kind("run.json", "train/plan.json", "query"),
    "metrics.jsonl": Kind("metrics.jsonl", "train/plan.json", "query"),
    "report.json": Kind("report/report.json", "report/config.json", "report"),
    "report.md": Kind("report/report.md", "report/results.csv", "report"),
    "report.html": Kind("report/report.html", "report/results.csv", "report"),
    "report/config.json": Kind("report/config.json", "report/report.json", "report"),
}


def edited(change: Callable[[bytearray], bytes | bytearray]) -> Callable:
    """Returns a damage that changes the bytes of the file."""

    def damage(path: Path, places: Places) -> None:
        del places
        path.write_bytes(bytes(change(bytearray(path.read_bytes()))))

    return damage


def flipped(share: float | None = None, at: int | None = None) -> Callable:
    """Returns a damage that flips one bit, at a share of the file or at a byte."""

    def change(data: bytearray) -> bytearray:
        place = at if at is not None else int(share * len(data))
        data[min(max(place, -len(data)), len(data) - 1)] ^= 0x10
        return data

    return edited(change)


def zeroed(data: bytearray) -> bytearray:
    """Overwrites a page in the middle with zeros."""
    start = len(data) // 2 // 512 * 512
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    return data


class Places(NamedTuple):
    """Holds the same file of other runs, and a sibling of this run.

    Attributes:
        seed: the file of a run with another seed.
        rate: the file of a run with another learning rate.
        sibling: another file of this run.
    """

    seed: Path
    rate: Path
    sibling: Path


def replaced(by: str) -> Callable:
    """Returns a damage that puts another file in its place."""

    def damage(path: Path, places: Places) -> None:
        shutil.copyfile(getattr(places, by), path)

    return damage


def linked(target: str | None) -> Callable:
    """Returns a damage that puts a symbolic link in its place: to nowhere, or to a sibling."""

    def damage(path: Path, places: Places) -> None:
        path.unlink()
        os.symlink(places.sibling if target else path.parent / "nowhere", path)

    return damage


def a_folder(path: Path, places: Places) -> None:
    """Puts a folder in its place."""
    del places
    path.unlink()
    path.mkdir()


def stored(make: Callable[[np.ndarray], np.ndarray] | None) -> Callable:
    """Returns a damage that writes the file as NumPy does, without a record.

    Args:
        make: changes the shape or type of each array; None leaves them as they are, as in files
            of an older version.
    """

    def damage(path: Path, places: Places) -> None:
        del places
        change = make or (lambda a: a)
        if path.suffix == ".npy":
            np.save(path, change(files.read_npy(path)))
        elif path.suffix == ".npz":
            np.savez(path, **{k: change(v) for k, v in files.read_npz(path).items()})
        else:
            path.write_text("[" * 1000)

    return damage


def rewritten(change: Callable[[object], object]) -> Callable:
    """Returns a damage that writes valid JSON of another content.

    A file that is no JSON gets the changed {"x": 1}.
    """

    def damage(path: Path, places: Places) -> None:
        del places
        if path.suffix == ".json":
            path.write_text(json.dumps(change(json.loads(path.read_text()))))
        else:
            path.write_text(json.dumps(change({"x": 1})))

    return damage


def renamed(value):
    """Renames the first key."""
    first, *rest = value.items()
    return {f"{first[0]}_": first[1], **dict(rest)}


DAMAGES = {
    "empty": edited(lambda data: b""),
    "first byte alone": edited(lambda data: data[:1]),
    "half": edited(lambda data: data[: len(data) // 2]),
    "last byte lost": edited(lambda data: data[:-1]),
    "last 100 bytes lost": edited(lambda data: data[:-100]),
    "first byte flipped": flipped(at=0),
    "header flipped": flipped(at=22),
    "byte 60 flipped": flipped(at=60),
    "flipped at 1/4": flipped(0.25),
    "flipped at 1/2": flipped(0.5),
    "flipped at 3/4": flipped(0.75),
    "byte -40 flipped": flipped(at=-40),
    "last byte flipped": flipped(at=-1),
    "page of zeros": edited(zeroed),
    "7 bytes appended": edited(lambda data: data + b"1234567"),
    "page appended": edited(lambda data: data + bytes(4096)),
    "of another seed": replaced("seed"),
    "of another learning rate": replaced("rate"),
    "sibling in its place": replaced("sibling"),
    "without its record": stored(None),
    "another shape": stored(lambda a: np.zeros((1, 3), a.dtype)),
    "text for numbers": stored(lambda a: np.full(a.shape, "abc")),
    "a folder": a_folder,
    "link to nowhere": linked(None),
    "link to a sibling": linked("sibling"),
    "{}": rewritten(lambda value: {}),
    "a list": rewritten(lambda value: [value]),
    "a key renamed": rewritten(renamed),
    "a key lost": rewritten(lambda value: dict(list(value.items())[1:])),
    "values of other types": rewritten(lambda value: {k: [str(v)] for k, v in value.items()}),
}
QUICK = dict(
    kinds=("signal", "counts of queries", "scores", "report.json", "plan.json"),
    damages=(
        "half",
        "flipped at 1/2",
        "of another learning rate",
        "sibling in its place",
        "without its record",
        "{}",
    ),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.damage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few kinds and damages")
    parser.add_argument("--kinds", help="some of them, separated by ;")
    parser.add_argument("--damages", help="some of them, separated by ;")
    parser.add_argument("--list", action="store_true", help="a line for every case")
    flags = parser.parse_args(arguments)
    kinds = (
        flags.kinds.split(";") if flags.kinds else QUICK["kinds"] if flags.quick else list(KINDS)
    )
    damages = (
        flags.damages.split(";")
        if flags.damages
        else QUICK["damages"]
        if flags.quick
        else list(DAMAGES)
    )
    print(
        f"| file | {' | '.join(OUTCOMES)} | remedy held |\n|---|{'---|' * (len(OUTCOMES) + 1)}",
        flush=True,
    )
    bad, total, tried = [], Counter(), Counter()
    with tempfile.TemporaryDirectory() as place:
        fleets = Fleets(Path(place))
        for kind in kinds:
            outcomes = [(damage, *case(fleets, KINDS[kind], DAMAGES[damage])) for damage in damages]
            counts, remedies = (
                Counter(word for _, word, _, _ in outcomes),
                [held for *_, held in outcomes if held is not None],
            )
            total, tried = total + counts, tried + Counter(remedies)
            print(
                f"| {kind} | {' | '.join(str(counts[o] or '') for o in OUTCOMES)} | "
                f"{sum(remedies)} of {len(remedies)} |",
                flush=True,
            )
            for damage, word, why, held in outcomes:
                wrong = word in ("silent", "traceback") or held is False
                bad += [damage] if wrong else []
                if wrong or flags.list:
                    print(
                        f"  {kind}, {damage}: "
                        f"{word}{' (the remedy does not hold)' * (held is False)}: {why[:300]}",
                        flush=True,
                    )
    print(
        f"| all | {' | '.join(str(total[o]) for o in OUTCOMES)} | {tried[True]} of {tried.total()} "
        "|"
    )
    return int(bool(bad))


class Fleets:
    """Holds workdirs of the same config in every state, and with another seed or learning rate.

    They are made when they are first needed.
    """

    def __init__(self, root: Path):
        self.root, self.audits, self.remedies = root, {}, {}

    def audit(self, private: bool = False, **fields):
        key = (private, *fields.items())
        if key not in self.audits:
            self.audits[key] = _disk.prepared(private=private, **fields)
        return self.audits[key]

    def at(self, state: str, private: bool = False, **fields) -> Path:
        """Returns the workdir that has been through `state` and no further."""
        name = "-".join([state, str(private), *(f"{k}{v}" for k, v in fields.items())])
        folder = self.root / name
        if not folder.exists():
            before = STAGES[: STAGES.index(state)]
            if before[1:]:
                shutil.copytree(self.at(before[-1], private, **fields), folder, symlinks=True)
            with _disk.quiet(), contextlib.suppress(jobs.Paused):
                stop = _disk.Countdown(4) if state == "paused" else lambda: None
                _disk.run(
                    self.audit(private, **fields),
                    folder,
                    stages=["train" if state == "paused" else state],
                    pause=stop,
                )
        return folder


def case(fleets: Fleets, kind: Kind, damage: Callable) -> tuple[str, str, bool | None]:
    """Damages a file of one kind in one way and runs the same command.

    Returns:
        (outcome, message, whether the remedy held or None).
    """
    audit, whole = fleets.audit(kind.private), fleets.at("report", kind.private)
    with tempfile.TemporaryDirectory(dir=fleets.root) as place:
        folder = Path(place) / "run"
        shutil.copytree(fleets.at(kind.state, kind.private), folder, symlinks=True)
        others = [
            fleets.at(kind.state, kind.private, **fields) / kind.path
            for fields in (dict(seed=1), dict(learning_rate=0.2))
        ]
        sibling = (
            folder / kind.sibling if (folder / kind.sibling).exists() else whole / kind.sibling
        )
        path = folder / kind.path
        try:
            damage(path, Places(*others, sibling))
        except (AttributeError, IndexError, TypeError, ValueError):
            return "", "this file cannot be damaged so: it has no such key or header", None
        damaged = path.read_bytes() if path.is_file() else None
        try:
            messages = tried(audit, folder)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if not isinstance(error, ValueError | OSError) or not any(
                part in text for part in (path.name, f"{path.parent} ")
            ):
                return "traceback", text, None
            return "named", text, remedied(fleets, audit, folder, path, text, whole)
        return judged(folder, path, damaged, whole, messages)


def tried(audit, folder: Path) -> str:
    """Runs the same command again and returns its stderr."""
    stderr = io.StringIO()
    with _disk.quiet(), contextlib.redirect_stderr(stderr):
        _disk.run(audit, folder)
    return stderr.getvalue()


def judged(
    folder: Path, path: Path, damaged: bytes | None, whole: Path, messages: str
) -> tuple[str, str, None]:
    """Returns the outcome of a run that ended."""
    ours = {k: v for k, v in _disk.contents(folder).items() if not k.startswith("report.1/")}
    differing = [
        name for name in _disk.differences(_disk.contents(whole), ours) if folder / name != path
    ]
    if not differing:
        now = path.read_bytes() if path.is_file() else None
        same = path.name in ("run.json", "metrics.jsonl") or same_content(
            path, whole / path.relative_to(folder)
        )
        if not same:
            return ("named" if path.name in messages else "silent"), messages, None
        return ("harmless" if now == damaged else "remade"), messages, None
    report = json.loads((folder / "report" / "report.json").read_text())
    provenance = report["validity"]["files"]
    if provenance["stale"] or provenance["unknown"]:
        return "flagged", "; ".join([*provenance["stale"], *provenance["unknown"]]), None
    return "silent", f"{', '.join(differing[:5])} differ; {messages}", None


def same_content(path: Path, other: Path) -> bool:
    """Tells whether a file has the bytes, or at least the arrays, of another.

    The checkpoint of a finished group is absent in both.
    """
    if not other.exists() or not path.exists():
        return (
            path.exists() == other.exists() or path.name == "plan.json"
        )  # which is only written while there is training
    if path.read_bytes() == other.read_bytes():
        return True
    if path.suffix == ".json":  # white space
        return files.read_json(path) == files.read_json(other)
    read = dict(npz=lambda p: files.read_npz(p), npy=lambda p: dict(a=files.read_npy(p))).get(
        path.suffix[1:]
    )
    if read is None:
        return False
    arrays, other_arrays = read(path), read(other)
    return arrays.keys() == other_arrays.keys() and all(
        np.array_equal(arrays[k], other_arrays[k], equal_nan=arrays[k].dtype.kind == "f")
        for k in arrays
    )


def remedied(
    fleets: Fleets, audit, folder: Path, path: Path, text: str, whole: Path
) -> bool | None:
    """Tells whether deleting what the message names restores the files of the undisturbed run.

    Returns:
        None if the message says nothing about deleting.
    """
    if "elete" not in text:
        return None
    gone = [path]
    if "train/model/00001.npz" in text:
        gone += [
            folder / "train" / "model" / "00001.npz",
            *folder.glob("train/snapshot/*/model/00001.npz"),
        ]
    if str(path.parent) in text and "delete " + str(path.parent) + " " in text:
        gone = [path.parent]
    key = (path.name, *(item.relative_to(folder).as_posix() for item in gone))
    if key in fleets.remedies:  # the same files are gone, whatever was wrong with them
        return fleets.remedies[key]
    for item in gone:
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)
    fleets.remedies[key] = False
    with contextlib.suppress(Exception):
        tried(audit, folder)
        fleets.remedies[key] = healed(folder, path, whole)
    return fleets.remedies[key]


def healed(folder: Path, path: Path, whole: Path) -> bool:
    """Tells whether the files are those of the undisturbed run.

    train/plan.json is only written while there is training. Without it a report cannot say where
    the models were trained, and its numbers are compared.
    """
    ours = {k: v for k, v in _disk.contents(folder).items() if not k.startswith("report.1/")}
    differing = _disk.differences(_disk.contents(whole), ours)
    differing = [name for name in differing if folder / name != path or path.exists()]
    if path.name != "plan.json" or path.exists():
        return not differing
    reports = [source.load(root / "report" / "report.json") for root in (folder, whole)]
    for report in reports:
        report["versions"].pop("trained_on", None)
    pages = {
        f"report/{name}" for name in ("config.json", "report.json", "report.md", "report.html")
    }
    return set(differing) <= pages and reports[0] == reports[1]


if __name__ == "__main__":
    sys.exit(main())
