"""Models of the user's own, in any framework, as the arrays that an audit takes.

Three forms: a model alone (predict), a model beside shadow models that the user's `fit` trains
(predict, fit), and a recipe, each of whose models is a target in turn (fit). All end in a mapping
of `mia_jax.external.arrays`.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.data import _arrays as given
from mia_jax.designs import _rows
from mia_jax.external import answers, arrays, fleet, frameworks, rows
from mia_jax.external import labels as label_columns
from mia_jax.external.answers import Answers
from mia_jax.external.fleet import Asking, Recipe
from mia_jax.external.labels import Labels
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import ExternalModels, Store

MODELS = 16  # models that are trained unless another number is passed
POPULATION = 0.1  # share of the rows that fit's models never see, as in the designs of configs
MOST_BYTES = 2**28  # of x as numbers; a larger one is not part of the arrays
FURTHER = "column_"  # keys of arrays that may be passed beside models


class Subject(NamedTuple):
    """Holds the arguments of an audit of models; see `mia_jax.audit`."""

    predict: object = None
    fit: object = None
    x: object = None
    y: object = None
    member: object = None
    shadows: int | None = None
    models: int | None = None
    form: str | None = None
    framework: str | None = None
    batch_size: int | None = None
    device: object = None
    n_jobs: int = 1
    population: float | Sequence[bool] | np.ndarray | None = None


class Prepared(NamedTuple):
    """Holds the arrays of models, and sentences about how they were made."""

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]


def arrays_of(subject: Subject, **settings) -> Prepared:
    """Returns the arrays of a user's models; see `prepared` for the arguments and errors.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> subject = Subject(predict=lambda x: np.hstack([-x, x]), x=x, y=[0, 1, 0, 1],
    ...                   member=[1, 1, 0, 0])
    >>> sorted(arrays_of(subject).arrays)
    ['labels', 'logits', 'member', 'x']
    """
    with prepared(subject, **settings) as made:
        return made


@contextlib.contextmanager
def prepared(
    subject: Subject,
    *,
    folder: pathlib.Path | None = None,
    seed: int = 0,
    further: Mapping[str, np.ndarray] = {},
) -> Iterator[Prepared]:
    """Yields the arrays of a user's models, after all checks and the training of what is missing.

    What trained models answered is kept if anything fails within the context as well.

    Args:
        subject: the models, the rows and how to ask.
        folder: where answers of trained models are kept; None keeps them only if something fails.
        seed: of the halves and of the models.
        further: arrays of the same rows, column_<name>.

    Raises:
        ValueError: an argument is missing or wrong, or a model cannot be audited.
    """
    check_arguments(subject, further)
    checks.at_least(0, seed=seed)
    if seed != int(seed):
        raise ValueError(f"seed={seed} must be a whole number.")
    count = rows.count(subject.x)
    labels = label_columns.read(subject.y)
    check_rows(labels, count)
    asking = Asking(subject.form, subject.framework, subject.batch_size, subject.device)
    made: dict[str, np.ndarray] = dict(further)
    numbers = rows.as_numbers(subject.x)
    if numbers is not None and numbers.size * 8 <= MOST_BYTES:
        made["x"] = numbers
        if hasattr(subject.x, "columns") and len(subject.x.columns) == numbers[0].size:
            made["feature_names"] = np.array([str(name) for name in subject.x.columns])
    notes = list(labels.notes)
    before = rows.digest(subject.x)
    target: list[Answers] = []
    member_N = None if subject.predict is None else member_of(subject.member, count)
    population_N = population_of(subject, member_N, count, seed=seed)
    if population_N.any():
        made["population"] = population_N
        notes.append(
            f"{int(population_N.sum())} of {count} rows are kept aside (population=): attacks "
            "compare with them, no model of fit sees them, and they are not scored."
        )
    if member_N is not None:
        made["member"] = member_N
        target = [asking.ask(subject.predict, subject.x, labels, name="predict")]
        notes += [f"The target is {target[0].words}.", *target[0].notes]
        check_unchanged(subject.x, before, "predict")
    if subject.fit is None:
        alike, more = in_one_form(target, [], labels)
        yield Prepared(made | alike, (*notes, *more))
        return
    argument, models = ("shadows", subject.shadows) if target else ("models", subject.models)
    member_MN, drawn = fleet.members(
        MODELS if models is None else models,
        population_N,
        seed=seed,
        labels=labels,
        argument=argument,
    )
    fit = frameworks.trainer(subject.fit, framework=subject.framework)
    with place_of(folder) as place:
        recipe = claimed(
            Recipe(fit, subject.x, subject.y, labels, asking, place, mark=""),
            member_MN,
            x=before,
            seed=seed,
            form=subject.form or "",
            fit=fleet.identity(subject.fit),
        )
        every, repeated = fleet.run(
            recipe, member_MN, seed=seed, n_jobs=subject.n_jobs, kept=folder is not None
        )
        check_unchanged(subject.x, before, "fit")
        alike, more = in_one_form(target, every, labels)
        notes += [*(() if target else every[0].notes), *drawn, *repeated, *more]
        made |= dict(shadow_member=member_MN) | alike
        yield Prepared(made, tuple(dict.fromkeys(notes)))


def claimed(recipe: Recipe, member_MN: np.ndarray, *, x: str, seed: int, **more: str) -> Recipe:
    """Returns a recipe with its mark, after claiming its place for these rows, labels and models.

    Args:
        recipe: without a mark.
        member_MN: the rows of each model.
        x: the digest of all rows.
        seed: of the models.
        more: what else makes another recipe.

    Raises:
        ValueError: the place belongs to other models.
    """
    claim = dict(
        examples=len(recipe.labels.code_N),
        x=x,
        y=rows.digest(recipe.y),
        members=files.digest(np.packbits(member_MN, axis=1)),
        seed=seed,
        models=len(member_MN),
        **more,
    )
    files.claim(recipe.place.folder, claim, remedy=OTHER)
    files.sweep(recipe.place.folder)
    return recipe._replace(mark=files.digest(claim))


@contextlib.contextmanager
def place_of(folder: pathlib.Path | None) -> Iterator[ExternalModels]:
    """Yields where answers of trained models are kept.

    Without a folder that is a temporary one, which remains if something fails after a model was
    trained; the error then says where. A folder in which nothing was made is free for others.
    """
    root = pathlib.Path(tempfile.mkdtemp(prefix="mia_jax-")) if folder is None else folder
    place = Store(root).external_models
    began = not place.claim.exists()
    try:
        yield place
    except BaseException as error:
        kept = place.has_answers()
        if began and not kept:
            place.claim.unlink(missing_ok=True)
        if folder is None and kept:
            remedy = f"The models' answers are kept: folder={str(root)!r} continues."
            if isinstance(error, ValueError):
                raise ValueError(f"{error} {remedy}") from (error.__cause__ or error)
            jobs.say(remedy)
        elif folder is None:
            shutil.rmtree(root, ignore_errors=True)
        raise
    if folder is None:
        shutil.rmtree(root, ignore_errors=True)


OTHER = (
    "Its models were trained on other rows, labels or settings. Give this audit another folder=, "
    "or pass what is on disk."
)


def check_arguments(subject: Subject, further: Mapping) -> None:
    """Raises ValueError for arguments that are missing, too many, or of no use together."""
    alone = subject.predict is None
    others = [key for key in further if not key.startswith(FURTHER)]
    if others:
        what = "fit" if alone else "predict"
        raise ValueError(
            f"{what}=... and {others[0]}=... are both given; an audit is of a model or of arrays. "
            "Beside a model only column_<name>=... is taken."
        )
    for name, remedy in dict(
        x="pass the rows that the model is asked about, members and non-members",
        y="pass the label of every row of x",
    ).items():
        if getattr(subject, name) is None:
            raise ValueError(f"{name}=... is missing; {remedy}.")
    if alone and subject.member is not None:
        raise ValueError(
            "member=... says who was a member of the model in predict=..., which is not given; "
            "leave it out, and every model that fit trains is a target with members of its own."
        )
    if not alone and subject.member is None:
        raise ValueError(
            "member=... is missing; pass True for every row of x that the model in predict=... was "
            "trained on, False for the others."
        )
    for name, needs, use in (
        ("shadows", "predict", "models"),
        ("models", "", "shadows"),
    ):
        number = getattr(subject, name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ValueError(f"{name}={number!r} must be a whole number.")
        if subject.fit is None:
            raise ValueError(
                f"{name}={number} needs fit=..., a function fit(x, y, seed) that trains a model on "
                "these rows and returns it, or an estimator."
            )
        if bool(needs) == alone:
            reason = "there is no predict=..." if alone else "there is a predict=..."
            raise ValueError(f"{name}={number} has no meaning, because {reason}; use {use}=.")
    answers.check_form(subject.form)
    if subject.batch_size is not None:
        checks.at_least(1, batch_size=subject.batch_size)
    if (
        isinstance(subject.n_jobs, bool)
        or not isinstance(subject.n_jobs, int | np.integer)
        or not subject.n_jobs
    ):
        raise ValueError(
            f"n_jobs={subject.n_jobs!r} must be a whole number of models to train at a time; -1 "
            "uses all cores."
        )


def check_rows(labels: Labels, count: int) -> None:
    """Raises ValueError unless x and y have the same number of rows, and enough."""
    if len(labels.code_N) != count:
        raise ValueError(
            f"y has {len(labels.code_N)} labels and x {count} rows; they must be the same rows."
        )
    if count < 2:
        raise ValueError(
            f"x has {count} row{'s' * (count != 1)}; an audit compares members with non-members: "
            "pass rows that the model was trained on and rows that it was not."
        )


def member_of(member, count: int) -> np.ndarray:
    """Returns the argument `member` as booleans [N].

    Raises:
        ValueError: its length or values are wrong, or there are no members or no non-members.
    """
    value = given.array("member", member)
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if value.shape != (count,):
        numbers = value.ndim == 1 and value.dtype.kind in "iu" and value.max(initial=0) > 1
        remedy = f" Row numbers? Pass np.isin(np.arange({count}), member)." if numbers else ""
        raise ValueError(f"member has shape {value.shape} and x {count} rows.{remedy}")
    if value.dtype.kind == "O":
        value = given.numbers("member", value)
    if value.dtype.kind not in "biuf" or not np.isin(value, (0, 1)).all():
        raise ValueError(
            f"member must hold True and False (or 1 and 0); it holds "
            f"{label_columns.shown(np.unique(value).tolist())}."
        )
    inside = int(value.astype(bool).sum())
    if inside in (0, count):
        what = "all" if inside else "none"
        side = "was not" if inside else "was"
        raise ValueError(
            f"member says that {what} of the {count} rows are members; an audit compares the two: "
            f"pass rows that the model {side} trained on as well."
        )
    return value.astype(bool)


def population_of(
    subject: Subject, member_N: np.ndarray | None, count: int, *, seed: int
) -> np.ndarray:
    """Returns the rows that are kept aside: no model of fit sees them, and they are not scored.

    Attacks compare with them. Of a given share they are drawn among the non-members of the target,
    of which at least half must remain. Without a share it is a tenth of the rows if fit is given,
    of the non-members at most a fifth; otherwise none.

    Raises:
        ValueError: the share or the rows that were passed cannot be used.
    """
    share = subject.population
    population_N = np.zeros(count, bool)
    if share is not None and not isinstance(share, float | int):
        given_N = arrays.read_flags(dict(population=np.asarray(share)), "population", (count,), "x")
        if member_N is not None and (given_N & member_N).any():
            raise ValueError(
                f"population has {int((given_N & member_N).sum())} members of the target; pass "
                "rows that it was not trained on."
            )
        return given_N
    free = np.arange(count) if member_N is None else np.flatnonzero(~member_N)
    most = len(free) // (5 if share is None else 2)
    if share is None:
        share = 0.0 if subject.fit is None else POPULATION
    checks.fraction(closed="left", population=share)
    draw = round(share * count)
    if subject.population is not None and draw > most:
        raise ValueError(
            f"population={share} keeps {draw} rows aside, and of the {len(free)} rows that the "
            f"target was not trained on at least half are needed: population is at most "
            f"{most / count:.3g}."
            if member_N is not None
            else f"population={share} must be at most 0.5: models need rows."
        )
    draw = min(draw, most)
    order = _rows.generator(seed, "population").permutation(free)
    population_N[order[:draw]] = True
    return population_N


def check_unchanged(x, before: str, argument: str) -> None:
    """Raises ValueError if a call changed the rows of x in place."""
    if rows.digest(x) != before:
        raise ValueError(
            f"{argument} changed x in place, so later models see other rows; copy the rows within "
            f"{argument} first."
        )


def in_one_form(
    target: Sequence[Answers], shadows: Sequence[Answers], labels: Labels
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the arrays of all models (labels, the answers of the target, if there is one, and
    those of the shadows), and notes about labels that models do not know.

    Raises:
        ValueError: models answer in different forms or about different classes.
    """
    every = [*target, *shadows]
    names = [*("predict" for _ in target), *(f"model {m}" for m in range(len(shadows)))]
    form = every[0].form
    for name, model in zip(names, every, strict=True):
        if model.form != form:
            raise ValueError(
                f"{names[0]} gives {form} and {name} gives {model.form}; all models must answer "
                "alike: let fit return what predict is, or pass form=..."
            )
    values = [model.value for model in every]
    notes: tuple[str, ...] = ()
    code = labels.numbers if form == "predictions" else labels.code_N
    if every[0].column_C is not None:
        columns = answers.global_columns(every[0], labels)
        position = {c: i for i, c in enumerate(columns.tolist())}
        code = np.array([position[c] for c in range(len(labels.values))])[labels.code_N]
        values = [
            answers.aligned(model, columns, labels, name=name)
            for name, model in zip(names, every, strict=True)
        ]
        notes = unknown_labels(every, columns, labels)
    for name, value in zip(names, values, strict=True):
        if value.shape != values[0].shape:
            raise ValueError(
                f"{names[0]} answers with an array of shape {values[0].shape} and {name} with one "
                f"of {value.shape}; they must agree."
            )
    made = dict(labels=np.asarray(code))
    if every[0].column_C is not None and any(isinstance(label, str) for label in labels.values):
        known = [labels.values[c] if c >= 0 else f"column {i}" for i, c in enumerate(columns)]
        made["class_names"] = np.array(known, str)
    if target:
        made[form] = values[0]
    if shadows:
        made[f"shadow_{form}"] = np.stack(values[len(target) :])
    return made, notes


def unknown_labels(
    every: Sequence[Answers], columns: np.ndarray, labels: Labels
) -> tuple[str, ...]:
    """Returns a note about labels of which some models had no row; () if all models know all."""
    lacking = {
        labels.values[c]: count
        for c in columns.tolist()
        if c >= 0 and (count := sum(c not in model.columns for model in every))
    }
    if not lacking:
        return ()
    return (
        f"{max(lacking.values())} of {len(every)} models do not know label "
        f"{label_columns.shown(list(lacking))}, of which they had no row: its probability is 0.",
    )
