"""Defines mia_jax.audit(...), which audits arrays and returns Results.

It runs the same attacks, metrics and report as launch.py.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import configuration
from mia_jax.external import arrays as supplied_arrays
from mia_jax.metrics import slices as row_slices
from mia_jax.pipeline import run
from mia_jax.results import Results
from mia_jax.runtime import files
from mia_jax.runtime.store import Store


def audit(
    arrays: Mapping[str, np.ndarray] | str | pathlib.Path | None = None,
    *,
    attacks: Mapping | Sequence[str] | str | None = None,
    slices: Sequence[str] | str | None = None,
    groups: Mapping[str, Sequence[int]] = {},
    draws: int = 200,
    figures: bool = False,
    report: Mapping = {},
    seed: int = 0,
    folder: str | pathlib.Path | None = None,
    **more: np.ndarray,
) -> Results:
    """Audits arrays: runs attacks on the answers of a model and returns the Results.

    Args:
        arrays: {key: array}, or the path of an npz file or of a folder. The keys are those of
            mia_jax/external/arrays.py: loss, labels, member, shadow_loss, ...
        attacks: names ('lira', 'rmia', any file of mia_jax/attacks), or {name: {'name': ..., field:
            value}}. None: all quick attacks that the arrays allow.
        slices: 'class', 'loss', 'correct', 'column:<name>' or 'a & b', one or several.
        groups: {name: row numbers}, further slices.
        draws: bootstrap draws per interval.
        figures: whether report.md has figures; `Results.plot` draws them in any case.
        report: further fields of the config's section report (fprs, level, ppv_ratio, ...).
        seed: the seed of the attacks and of the bootstrap.
        folder: where the workdir is kept; None: it is deleted.
        more: arrays as keywords, instead of or in addition to `arrays`.

    Raises:
        ValueError: if an argument or an array cannot be used.
        FileNotFoundError: if `arrays` is the path of no file.

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(200) < 100
    >>> results = audit(loss=rng.normal(size=200) - 3 * member, member=member, draws=40)
    >>> results.value('threshold_loss', 'auc') > .9
    True
    """
    if not isinstance(report, Mapping):
        raise ValueError(
            f"report={report!r} must be a mapping of further settings, such as dict(level=0.9)."
        )
    if slices is not None and (
        not isinstance(slices, str | Sequence) or not all(isinstance(text, str) for text in slices)
    ):
        raise ValueError(
            f"slices={slices!r} must be texts, such as 'class' or ['class', 'column:age']."
        )
    fields = dict(report, draws=draws, figures=figures, groups=named_groups(groups))
    if slices is not None:
        fields["slices"] = (slices,) if isinstance(slices, str) else tuple(slices)
    name = str(arrays) if isinstance(arrays, str | pathlib.Path) else ""
    given = supplied_arrays.load(name) if name else mapping(arrays)
    twice = sorted(map(str, set(given) & set(more)))
    if twice:
        raise ValueError(
            f"{twice[0]} is given twice, in the first argument and as a keyword; pass it once."
        )
    try:
        config = configuration.scores(
            path=name, seed=seed, attacks=named_attacks(attacks), report=fields
        )
        with tempfile.TemporaryDirectory() as temporary:
            place = pathlib.Path(folder).expanduser() if folder else pathlib.Path(temporary)
            results = run.run(config, workdir_path=place, arrays=given | more)
            store = Store(place)
            scores = {
                name: files.read_npz(store.attack(name).scores) for name in results["attacks"]
            }
            pictures = {p.name: p.read_bytes() for p in store.report.figures()}
            text, records = (
                path.read_text(encoding="utf-8")
                for path in (store.report.markdown, store.report.records)
            )
            design = files.read_npz(store.membership)
    except (ValueError, FileNotFoundError) as error:
        message = in_arguments(str(error))
        if message == str(error):
            raise
        raise type(error)(message) from error
    targets = design["targets"]
    evidence = dict(
        targets=targets,
        member_TN=design["member_MN"][targets],
        evaluated_TN=design["evaluated_MN"][targets],
    )
    evidence |= dict(unit_T=design["unit_M"][targets], draws=np.asarray(draws))
    return Results(results, scores, pictures, text, evidence, records)


def mapping(arrays) -> dict:
    """Returns the first argument of audit() as a dict; raises ValueError if it is no mapping."""
    if arrays is None:
        return {}
    if isinstance(arrays, Mapping) or (hasattr(arrays, "keys") and hasattr(arrays, "__getitem__")):
        return {key: arrays[key] for key in arrays.keys()}
    keys = ", ".join(f"{form}=..." for form in supplied_arrays.FORMS)
    raise ValueError(
        f"the first argument is a {type(arrays).__name__} and must be a mapping of arrays or a "
        f"path; name an array by what it holds: {keys}, with labels=... and member=... ."
    )


def named_attacks(attacks):
    """Returns the argument `attacks` of audit() after checking its form.

    It is None, names in a text or a list, or {name: {field: value}}; raises ValueError if not.
    """
    if attacks is None or isinstance(attacks, str):
        return attacks
    if isinstance(attacks, Mapping):
        wrong = next(
            (
                name
                for name, fields in attacks.items()
                if not isinstance(name, str) or not isinstance(fields, Mapping)
            ),
            None,
        )
        if wrong is not None:
            example = "'mine': dict(name='lira', mode='offline')"
            raise ValueError(
                f"attacks: {wrong!r}: {attacks[wrong]!r} must be a name and its fields, such as "
                f"{example}."
            )
        return {str(name): fields for name, fields in attacks.items()}
    if isinstance(attacks, np.ndarray):
        attacks = attacks.tolist()
    if (
        not isinstance(attacks, Sequence)
        or not attacks
        or not all(isinstance(name, str) for name in attacks)
    ):
        raise ValueError(
            f"attacks={attacks!r} must be names, such as 'lira, rmia' or ['lira', 'rmia'], or "
            "{name: {field: value}}."
        )
    return [str(name) for name in attacks]


def named_groups(groups) -> dict[str, list]:
    """Returns the argument `groups` of audit() with texts as names and lists as row numbers.

    Raises:
        ValueError: if two groups have the same name, or a slice cannot have this name.
    """
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups must be {{name: row numbers}} and is a {type(groups).__name__}.")
    named: dict[str, list] = {}
    for name, rows in groups.items():
        if str(name) in named:
            raise ValueError(f"groups: two groups are called {str(name)!r}.")
        if "." in str(name):
            raise ValueError(f"groups: {str(name)!r} holds a dot; choose a name without one.")
        named[str(name)] = np.asarray(rows).tolist()
    row_slices.check((), groups=named)
    return named


def in_arguments(text: str) -> str:
    """Returns a message of a run, rewritten to name the arguments of audit().

    >>> in_arguments("report.draws=3 must be at least 40. Use another --workdir for the rest.")
    'draws=3 must be at least 40. choose another folder= for the rest.'
    """
    for pattern, remedy in REMEDIES.items():
        text = re.sub(pattern, remedy, text)
    return text


REMEDIES = {  # a pattern in the messages of a run -> what a caller of audit() can do
    r"Use another (--)?workdir for another config, or [^.]*\.": (
        "Choose another folder= for other arrays or settings, or give the same ones."
    ),
    r"[Uu]se another (--)?workdir": "choose another folder=",
    r"another (--)?workdir": "another folder=",
    r"Give the attack another name in the config, or delete (\S+) to run it again\.": (
        "Give the attack another name, or choose another folder=."
    ),
    r"Raise design\.population, or pass": "Pass",
    r"set design\.population, or pass": "pass",
    r"report\.(draws|figures|slices|groups)\b": r"\1",
    r"(?<![\w/])report\.(level|fprs|ppv_ratio|records|shadow_curve|audit|epochs|sections)\b": (
        r"report \1"
    ),
}
