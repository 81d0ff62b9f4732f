"""mia_jax.audit(...): arrays in, a Results object out.

The same attacks, metrics and report as a run of launch.py.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import configuration
from mia_jax.external import arrays as supplied_arrays
from mia_jax.metrics import slices as slices_of_rows
from mia_jax.pipeline import run
from mia_jax.results import Results
from mia_jax.runtime import files as workdir
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
    """Audits arrays: the keys of mia_jax.external.arrays as keywords (loss=..., labels=...,
    member=..., shadow_loss=...), a mapping, or an npz file's path.

    `attacks`: names ('lira', 'rmia', any file of mia_jax/attacks), or {name: {'name': ..., field:
    value}}; None: all quick ones that the arrays allow. `slices`: 'class', 'loss', 'correct',
    'column:<name>', 'a & b'; `groups` {name: row numbers}, sliced as well. `report`: further fields
    of config.report (fprs, level, ppv_ratio, ...). `figures`: also in report.md; `Results.plot`
    draws them anyway. `folder` keeps the workdir.

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(200) < 100
    >>> found = audit(loss=rng.normal(size=200) - 3 * member, member=member, draws=40)
    >>> found.value('threshold_loss', 'auc') > .9
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
    fields |= (
        {}
        if slices is None
        else dict(slices=(slices,) if isinstance(slices, str) else tuple(slices))
    )
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
            found = run.run(config, workdir_path=place, arrays=given | more)
            store = Store(place)
            scores = {
                name: workdir.read_npz(store.attack(name).scores) for name in found["attacks"]
            }
            pictures = {p.name: p.read_bytes() for p in store.report.figures()}
            text, records = (
                path.read_text(encoding="utf-8")
                for path in (store.report.markdown, store.report.records)
            )
            design = workdir.read_npz(store.membership)
    except (ValueError, FileNotFoundError) as error:
        told = in_arguments(str(error))
        if told == str(error):
            raise
        raise type(error)(told) from error
    targets = design["targets"]
    evidence = dict(
        targets=targets,
        member_TN=design["member_MN"][targets],
        evaluated_TN=design["evaluated_MN"][targets],
    )
    evidence |= dict(unit_T=design["unit_M"][targets], draws=np.asarray(draws))
    return Results(found, scores, pictures, text, evidence, records)


def mapping(arrays) -> dict:
    """Returns the first argument of audit() as a dict; ValueError for an array, which needs a
    name.
    """
    if arrays is None:
        return {}
    if isinstance(arrays, Mapping) or (hasattr(arrays, "keys") and hasattr(arrays, "__getitem__")):
        return {key: arrays[key] for key in arrays.keys()}
    keys = ", ".join(f"{form}=..." for form in supplied_arrays.FORMS)
    raise ValueError(
        f"the first argument is a {type(arrays).__name__} and must be a mapping of arrays or a "
        f"path; name an array by what it holds: {keys}, with "
        "labels=... and member=... ."
    )


def named_attacks(attacks):
    """Returns the argument `attacks`, checked: names in a text or a list, or {name: {field:
    value}}.
    """
    if attacks is None or isinstance(attacks, str):
        return attacks
    if isinstance(attacks, Mapping):
        wrong = next(
            (
                name
                for name, one in attacks.items()
                if not isinstance(name, str) or not isinstance(one, Mapping)
            ),
            None,
        )
        if wrong is not None:
            example = "'mine': dict(name='lira', mode='offline')"
            raise ValueError(
                f"attacks: {wrong!r}: {attacks[wrong]!r} must be a name and its fields, such as "
                f"{example}."
            )
        return {str(name): one for name, one in attacks.items()}
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
    """Returns the argument `groups` with text as names; ValueError for two of one name, and for a
    name that no slice can have.
    """
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups must be {{name: row numbers}} and is a {type(groups).__name__}.")
    found: dict[str, list] = {}
    for name, rows in groups.items():
        if str(name) in found:
            raise ValueError(f"groups: two groups are called {str(name)!r}.")
        if "." in str(name):
            raise ValueError(f"groups: {str(name)!r} holds a dot; choose a name without one.")
        found[str(name)] = np.asarray(rows).tolist()
    slices_of_rows.check((), groups=found)
    return found


def in_arguments(text: str) -> str:
    """Returns a message of a run in the words of audit()'s arguments.

    >>> in_arguments("report.draws=3 must be at least 40. Use another --workdir for the rest.")
    'draws=3 must be at least 40. choose another folder= for the rest.'
    """
    for said, meant in WORDS.items():
        text = re.sub(said, meant, text)
    return text


WORDS = {  # what a run says, and what a caller of audit() can do
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
