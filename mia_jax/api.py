"""Defines mia_jax.audit(...), which audits arrays or models and returns Results.

It makes arrays of models (external/models.py), a config of arrays (configuration/schema.py,
`scores`), and runs the stages that the command line runs (pipeline/run.py).
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import configuration
from mia_jax.external import arrays as supplied_arrays
from mia_jax.external import default_attacks
from mia_jax.external import label_inference as label_pairs
from mia_jax.external import models as external_models
from mia_jax.external import rows as external_rows
from mia_jax.measures import two_audits
from mia_jax.metrics import slices as row_slices
from mia_jax.pipeline import run
from mia_jax.results import Results
from mia_jax.runtime import files, stacks
from mia_jax.runtime.store import Store


def audit(
    arrays: Mapping[str, np.ndarray] | str | pathlib.Path | None = None,
    *,
    predict=None,
    fit=None,
    x=None,
    y=None,
    member=None,
    shadows: int | None = None,
    models: int | None = None,
    population: float | Sequence[bool] | None = None,
    form: str | None = None,
    framework: str | None = None,
    batch_size: int | None = None,
    device=None,
    n_jobs: int = 1,
    attacks: Mapping | Sequence[str] | str | None = None,
    slices: Sequence[str] | str | None = None,
    groups: Mapping[str, Sequence[int]] = {},
    draws: int = 200,
    figures: bool = False,
    report: Mapping = {},
    seed: int = 0,
    folder: str | pathlib.Path | None = None,
    label_inference: label_pairs.LabelInference | Mapping | None = None,
    **more: np.ndarray,
) -> Results:
    """Audits a model, a training recipe, or arrays of answers.

    ```
    audit(predict=model, x=x, y=y, member=member)                        a trained model
    audit(predict=model, x=x, y=y, member=member, fit=fit, shadows=16)   with shadow models
    audit(fit=fit, x=x, y=y, models=16)                                  a recipe
    audit(logits=logits, labels=labels, member=member)                   arrays
    audit(label_inference=LabelInference(...))                           label privacy
    ```

    A recipe trains `models` models on random halves of the rows; each is a target, and the others
    are its shadow models. Shadow models of a trained model are trained on halves of the same rows.

    Args:
        arrays: a mapping of arrays, or the path of an npz file (keys: mia_jax.external.arrays).
        predict: a function of rows x that returns logits or probabilities [N,C] (or [N]: of the
            second of two classes) or predictions, or a trained model of a framework:
            scikit-learn, XGBoost and LightGBM among them.
        fit: a function fit(x, y, seed) that trains a new model on these rows and returns what
            `predict` can be, or an estimator, of which clones are trained. The first model is
            trained twice, which shows whether fit depends on its seed alone.
        x: the rows: an array, a frame, a list of texts, or anything with len(x) and x[rows].
        y: a label per row: numbers, booleans, texts or one-hot rows; real numbers for a regression.
        member: whether the model in `predict` was trained on each row.
        shadows: how many shadow models are trained (16).
        models: how many models of a recipe are trained (16).
        population: the share of the rows that `fit` never sees and that is not scored, because
            attacks compare with it (0.1; none of them without `fit`), or True for these rows.
        form: 'logits', 'probs' or 'predictions', if the values do not show what they are.
        framework: the adapter of mia_jax/external/frameworks (or the dotted path of one), if it is
            not the first that takes the model.
        batch_size: rows per call of a model; None leaves it to the adapter.
        device: where a model of a framework that knows devices is asked.
        n_jobs: how many models are trained at a time (joblib; -1 for all cores).
        attacks: names ('lira', 'rmia', any file of mia_jax/attacks), or {name: {'name': ...,
            field: value}}; None: all quick ones that the arrays allow.
        slices: 'class', 'loss', 'correct', 'column:<name>', 'a & b'.
        groups: {name: row numbers}, sliced as well.
        draws: of the bootstrap.
        figures: also in report.md; `Results.plot` draws them anyway.
        report: further fields of config.report (fprs, level, ppv_ratio, ...).
        seed: of the attacks and the bootstrap; halves and models' seeds are derived from it.
        folder: keeps the workdir. What every trained model answers is there as soon as it exists,
            and the same call continues; without a folder it is kept only if something fails.
        label_inference: the scores that a model gives to the labels it was trained on and to those
            of a proxy model, from which epsilon of label differential privacy is bounded: a
            `mia_jax.LabelInference` or a mapping of its fields, in place of all other data. The
            claim is report=dict(audit=dict(epsilon=..., delta=...)).
        more: arrays as keywords (loss=..., labels=..., shadow_loss=...); column_<name> beside
            models.

    Returns:
        Results: its text, table, figures and files. What was assumed is in its report.

    Raises:
        ValueError: an argument, a model or an array cannot be audited; the message says why.
        FileNotFoundError: `arrays` is the path of no file.

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
    asked = dict(predict=predict, fit=fit, x=x, y=y, member=member, shadows=shadows)
    asked |= dict(models=models, form=form, framework=framework, device=device)
    asked |= dict(batch_size=batch_size, population=population)
    if label_inference is not None:
        other = [key for key, value in asked.items() if value is not None]
        other += ["the first argument"] if arrays is not None else [*more, *given]
        if other:
            raise ValueError(
                f"label_inference is an audit of its own, and {other[0]} is given too; leave one "
                "of them out."
            )
        given, fields["audit"] = label_pairs.prepared(
            label_pairs.read(label_inference), fields=fields.get("audit") or {}, seed=seed
        )
        attacks = label_pairs.ATTACKS if attacks is None else attacks
    if predict is None and fit is None:
        more |= {key: value for key, value in asked.items() if value is not None}
    twice = sorted(map(str, set(given) & set(more)))
    if twice:
        raise ValueError(
            f"{twice[0]} is given twice, in the first argument and as a keyword; pass it once."
        )
    given |= more
    kept = files.folder_at(folder, argument="folder") if folder else None
    try:
        config = configuration.supplied(
            path=name, seed=seed, attacks=named_attacks(attacks), report=fields
        )
        with contextlib.ExitStack() as stack:
            notes: Sequence[str] | None = None
            if predict is not None or fit is not None:
                check_before_training(attacks, fields, given, x)
                subject = external_models.Subject(**asked, n_jobs=n_jobs)
                given, notes = stack.enter_context(
                    external_models.prepared(subject, folder=kept, seed=seed, further=given)
                )
            place = kept or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            results = run.run(config, workdir_path=place, arrays=given, notes=notes)
            store = Store(place)
            scores = {
                name: files.map_npz(store.attack(name).scores, least=stacks.LARGE // 8)
                for name in results["attacks"]
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
    evidence = two_audits.evidence_of(design, targets=design["targets"], draws=draws)
    return Results(results, scores, pictures, text, evidence, records)


def check_before_training(attacks, fields: Mapping, columns: Mapping, x) -> None:
    """Raises ValueError for attacks and slices that cannot be had, which the run would refuse when
    all models are trained.
    """
    default_attacks.check_names(named_attacks(attacks))
    if x is not None:
        row_slices.check(
            fields.get("slices", ()),
            columns=[key.removeprefix("column_") for key in columns],
            groups=fields["groups"],
            num_examples=external_rows.count(x),
        )


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
    r"(?<![\w/])report\.(level|fprs|ppv_ratio|records|show_records)\b": r"report \1",
    r"(?<![\w/])report\.(shadow_curve|audit|epochs|sections)\b": r"report \1",
}
