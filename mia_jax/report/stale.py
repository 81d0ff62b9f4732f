"""Was every file made from the files that are there now? Digests of the inputs are recorded beside the outputs and compared when a report is written.

`signal/inputs.json` holds the digest of each model that was asked; `attack/<name>/inputs.json` those of the signals that were read and of the
membership. A model file is a zip archive whose directory holds a checksum of every array, so it need not be read whole.
"""

from __future__ import annotations

import hashlib
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import registry, workdir

Path = pathlib.Path
FILE = "inputs.json"


def of_model(path: Path) -> str:
    """Digest of a model's variables from the names, sizes and checksums of its arrays; ValueError with the remedy if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return workdir.digest([[one.filename, one.file_size, one.CRC] for one in archive.infolist() if not one.filename.startswith("history/")])
    except (zipfile.BadZipFile, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(workdir.damaged(path, error)) from error


def of_signal(folder: Path, name: str, models: int) -> str:
    """Digest of the files of one signal of models 0 .. models - 1; a model that was never asked (a shadow, behind the target's defense) has none."""
    found = hashlib.sha256()
    for path in (_answers(folder, name, m) for m in range(models)):
        if path.exists():
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        else:
            found.update(b"not asked")
    return found.hexdigest()[:16]


def unanswered(folder: Path, signals: Sequence[str], models: Sequence[int], rows: Mapping[str, np.ndarray] = {}) -> list[int]:
    """The models that lack an answer to one of the signals: those whose digest `remember_models` must write anew after they were asked.

    `rows[signal]` [M,N], where present, are the examples that each model is asked about; a model that is asked about none lacks nothing.
    """

    def lacks(name: str, m: int) -> bool:
        return not _answers(folder / "signal", name, m).exists() and (name not in rows or rows[name][m].any())

    return [m for m in models if any(lacks(name, m) for name in signals)]


def remember_models(folder: Path, models: Sequence[int]) -> None:
    """Records the digests of the models that were just asked, in signal/inputs.json."""
    if models:
        path = folder / "signal" / FILE
        known = workdir.read_json(path) if path.exists() else {}
        workdir.write_json(path, known | {str(m): of_model(_model(folder, m)) for m in models})


def remember_signals(folder: Path, attack: str, digests: Mapping[str, str], membership: str) -> None:
    """Records what the scores of an attack were made from, in attack/<name>/inputs.json."""
    workdir.write_json(folder / "attack" / attack / FILE, dict(signals=dict(digests), membership=membership))


def check(folder: Path, attacks: Mapping[str, Sequence[str]], *, models: int, membership: str) -> dict:
    """{checked, stale, unknown}: how many outputs were compared, sentences about those whose inputs have changed, and outputs without a record.

    `attacks[name]` are the signals that it reads. Models that were not trained here have no file and no record.
    """
    stale, unknown, checked, current = [], [], 0, {}
    path = folder / "signal" / FILE
    asked = workdir.read_json(path) if path.exists() else {}
    for m in range(models):
        if _model(folder, m).exists():
            if str(m) not in asked:
                unknown.append(f"the answers of model {m}")
                continue
            checked += 1
            if of_model(_model(folder, m)) != asked[str(m)]:
                stale.append(f"model {m} has changed since it was asked: delete signal/*/{m:05d}.npy, attack/ and report/")
    for name, signals in attacks.items():
        path = folder / "attack" / name / FILE
        if not path.exists():
            unknown.append(f"the scores of {name}")
            continue
        checked += 1
        known = workdir.read_json(path)
        for signal in signals:
            current.setdefault(signal, of_signal(folder / "signal", signal, models))
        changed = [s for s in signals if known["signals"].get(s) != current[s]] + (["the membership"] if known["membership"] != membership else [])
        if changed:
            stale.append(f"the scores of {name} were made from other files ({', '.join(changed)}): delete attack/{name}/ and report/")
    return dict(checked=checked, stale=stale, unknown=unknown)


def _answers(folder: Path, name: str, m: int) -> Path:
    return folder / registry.identity("signals", name) / f"{m:05d}.npy"


def _model(folder: Path, m: int) -> Path:
    return folder / "train" / "model" / f"{m:05d}.npz"
