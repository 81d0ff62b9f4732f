"""Models that the user's own `fit` trains on halves of the rows.

What each answers about all rows is on disk as soon as it exists.

Started again with the same rows, labels and seed, it goes on where it was.
"""

from __future__ import annotations

import math
import pickle
import re
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mia_jax.designs import _rows, halves
from mia_jax.external import answers, frameworks, rows
from mia_jax.external import labels as label_columns
from mia_jax.external.answers import Answers
from mia_jax.external.labels import Labels
from mia_jax.runtime import files, jobs
from mia_jax.runtime.progress import Progress, duration
from mia_jax.runtime.store import ExternalModels

LONG = 60.0  # seconds; a longer wait without a folder is announced
EQUAL = 1e-6  # answers of two fits that differ by less are equal, as a share of the largest
SEEDS = 2**31  # seeds are smaller: what every library takes
FEWEST = 4  # rows of which two halves of two can be made
MOST_FAILED = 2  # as many failures in one call are no accident


class Asking(NamedTuple):
    """Says how trained models are asked: arguments of the audit, checked."""

    form: str | None = None
    framework: str | None = None
    batch_size: int | None = None
    device: object = None

    def ask(self, model, x, labels: Labels, *, name: str) -> Answers:
        """Returns what a trained model answers about all rows."""
        predictor = frameworks.predictor(
            model,
            framework=self.framework,
            batch_size=self.batch_size,
            device=self.device,
            argument=name,
        )
        return answers.ask(predictor, x, labels, form=self.form, name=name)


class Recipe(NamedTuple):
    """Describes how models are trained and asked: all that a worker needs.

    Attributes:
        fit: fit(x, y, seed) -> a trained model that an adapter takes.
        x: all rows.
        y: their labels as the user has them.
        labels: the same, read.
        asking: how a model is asked.
        place: where its answers are kept.
        mark: digest of rows, labels, members and seed, which every file carries.
        observe: observe(model, m) -> {name: number} about model m, kept with its answers.
    """

    fit: Callable
    x: object
    y: object
    labels: Labels
    asking: Asking
    place: ExternalModels
    mark: str
    observe: Callable | None = None


def model_seeds(seed: int, models: int) -> list[int]:
    """Returns the seed of each model: whole numbers below 2**31, different for all models, that
    depend on (seed, model) only.

    >>> len(set(model_seeds(0, 1000))), model_seeds(0, 2) == model_seeds(0, 3)[:2]
    (1000, True)
    """
    start = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(b"fit"),)).generate_state(1)[0]
    # an odd factor permutes the numbers modulo a power of two: no two models share one
    return [(int(start) + m) * 2_654_435_761 % SEEDS for m in range(models)]


def members(
    models: int,
    population_N: np.ndarray,
    *,
    seed: int,
    labels: Labels,
    argument: str,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns member_MN of complementary halves, models 2p and 2p+1, and notes.

    The halves are those of the design `halves`. Where one of them would lack a label of which there
    are two rows or more, that pair is drawn label by label instead.

    Args:
        models: M, an even number.
        population_N: rows that no model is trained on.
        seed: of the draws.
        labels: of the rows.
        argument: the name of the argument that `models` comes from.

    Raises:
        ValueError: an odd number of models, or too few rows.
    """
    if models < 2 or models % 2:
        raise ValueError(
            f"{argument}={models} must be even and at least 2, because the models come in pairs "
            f"that are trained on complementary halves; use {argument}={max(2, models + 1)}."
        )
    usable = np.flatnonzero(~population_N)
    if len(usable) < FEWEST:
        raise ValueError(
            f"x has {len(usable)} rows for the models, of which no halves of two rows can be made; "
            f"pass at least {FEWEST}."
        )
    even = len(usable) + len(usable) % 2  # a row that does not exist makes one half smaller by one
    design = halves.make(num_examples=even, seed=seed, models=models, population=0.0)
    half_MK = design.member_MN[:, : len(usable)].copy()
    redrawn = 0
    if labels.kind == "classes":
        code_K = labels.code_N[usable]
        for pair in range(models // 2):
            if splits_every_label(half_MK[2 * pair], code_K):
                continue
            half_K = by_label(code_K, _rows.generator(seed, "halves by label", pair))
            half_MK[2 * pair], half_MK[2 * pair + 1] = half_K, ~half_K
            redrawn += 1
    member_MN = np.zeros((models, len(population_N)), bool)
    member_MN[:, usable] = half_MK
    notes: tuple[str, ...] = ()
    if redrawn:
        notes = (
            f"{redrawn} of {models // 2} pairs of halves are drawn label by label, because a half "
            "would have lacked a label otherwise.",
        )
    return member_MN, notes


def splits_every_label(half_K: np.ndarray, code_K: np.ndarray) -> bool:
    """Returns whether both halves have a row of every label of which there are two or more.

    >>> splits_every_label(np.array([True, False, True]), np.array([0, 0, 1]))
    True
    """
    total_C, inside_C = np.bincount(code_K), np.bincount(code_K[half_K], minlength=code_K.max() + 1)
    return not ((total_C > 1) & ((inside_C == 0) | (inside_C == total_C))).any()


def by_label(code_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a random half of the rows with half of every label's rows, give or take one."""
    order = np.lexsort((rng.random(len(code_K)), code_K))
    half_K = np.zeros(len(code_K), bool)
    half_K[order] = (np.arange(len(code_K)) + rng.integers(2)) % 2 == 0
    return half_K


def run(
    recipe: Recipe,
    member_MN: np.ndarray,
    *,
    seed: int,
    n_jobs: int = 1,
    kept: bool = True,
    split: str = "in pairs of complementary halves",
) -> tuple[list[Answers], tuple[str, ...]]:
    """Returns what every model answers, and notes for the report; fits the models that are not on
    disk.

    Args:
        recipe: how models are trained and asked.
        member_MN: the rows of each model.
        seed: from which the models' seeds are derived.
        n_jobs: how many models are trained at a time, by joblib; a backend that is chosen with
            joblib.parallel_config is used.
        kept: whether the user chose the folder; otherwise a long wait is announced.
        split: how the rows of the models were chosen, for the notes.

    Raises:
        ValueError: models failed; those that did not are on disk.
    """
    models = len(member_MN)
    seed_M = model_seeds(seed, models)
    place = recipe.place
    there = [m for m in range(models) if place.answers(m).exists()]
    left = [m for m in range(models) if m not in there]
    if left[:1] == [0]:  # alone, so that an error of the recipe comes at once and as it is
        fit_one(recipe, 0, member_MN[0], seed_M[0])
        left = left[1:]
    first, record = read(recipe, 0)
    repeat = not place.repeated.exists()
    waiting = record["seconds"] * math.ceil((len(left) + repeat) / max(1, workers(n_jobs)))
    if waiting > LONG and not kept:
        jobs.say(
            f"fit takes {duration(record['seconds'])} for a model: about {duration(waiting)} for "
            f"the other {len(left)}. With folder= they are kept if this is stopped."
        )
    tasks = [(fit_twice, 0)] * repeat + [(fit_one, m) for m in left]
    calls = [(task, recipe, m, member_MN[m], seed_M[m]) for task, m in tasks]
    failed = worked(calls, n_jobs=n_jobs)
    if failed:
        done = sum(place.answers(m).exists() for m in range(models))
        error = ValueError(
            f"{' '.join(failed)} The answers of {done} of {models} models are on disk and are not "
            "computed again when the same call is made with the same folder."
        )
        raise error
    every = [first] + [read(recipe, m)[0] for m in range(1, models)]
    return every, notes_of(recipe, member_MN, there=len(there), split=split)


def workers(n_jobs: int) -> int:
    """Returns how many models are trained at a time."""
    if n_jobs == 1:
        return 1
    import joblib

    return joblib.effective_n_jobs(n_jobs)


def worked(calls: list[tuple], *, n_jobs: int) -> list[str]:
    """Makes all calls; returns the sentences of those that failed. After MOST_FAILED failures no
    further model is begun.
    """
    failed: list[str] = []
    if not calls:
        return failed
    progress = Progress(title="fit", total=len(calls), unit="model")
    try:
        for sentence in outcomes(calls, n_jobs=n_jobs):
            progress.advance(1)
            if sentence:
                failed.append(sentence)
                progress.line(sentence)
                if len(failed) >= MOST_FAILED:
                    break
    finally:
        progress.close()
    return failed


def outcomes(calls: list[tuple], *, n_jobs: int):
    """Yields '' or the sentence of a failure for each call, in the order in which they end."""
    if workers(n_jobs) == 1:
        yield from (attempt(*call) for call in calls)
        return
    import joblib

    # copied on write: a model may normalize its rows in place
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", mmap_mode="c")
    try:
        yield from parallel(joblib.delayed(attempt)(*call) for call in calls)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        if "pickle" not in f"{type(error).__name__} {error}".lower():
            raise
        cause = error.__cause__ or error.__context__
        why = f" ({answers.reason(cause).rstrip('.')})" if cause else ""
        raise ValueError(
            f"n_jobs={n_jobs}: fit, x or y cannot be sent to another process{why}. Define what fit "
            "uses inside of it, use n_jobs=1, or use threads: with "
            "joblib.parallel_config(backend='threading')."
        ) from error


def attempt(task: Callable, recipe: Recipe, m: int, member_N: np.ndarray, seed: int) -> str:
    """Returns '' after a task, or the sentence of its failure; the traceback is printed."""
    try:
        task(recipe, m, member_N, seed)
    except Exception as error:
        if error.__cause__ is not None:
            jobs.say("".join(traceback.format_exception(error.__cause__)).rstrip())
        return str(error)
    return ""


def fit_one(recipe: Recipe, m: int, member_N: np.ndarray, seed: int) -> None:
    """Fits model m, asks it about all rows and writes its answers."""
    start = time.monotonic()
    answered, numbers = fitted_answers(recipe, m, member_N, seed)
    record = dict(
        model=m,
        mark=recipe.mark,
        form=answered.form,
        words=answered.words,
        notes=list(answered.notes),
        seconds=time.monotonic() - start,
        numbers=numbers,
    )
    columns = {} if answered.column_C is None else dict(column_C=answered.column_C)
    files.write_npz(recipe.place.answers(m), record, value=answered.value, **columns)


def fit_twice(recipe: Recipe, m: int, member_N: np.ndarray, seed: int) -> None:
    """Fits model m again, on the same rows with the same seed, and writes down by how much its
    answers differ.
    """
    once, (again, _) = read(recipe, m)[0], fitted_answers(recipe, m, member_N, seed)
    same = once.value.shape == again.value.shape and once.form == again.form
    change = float(np.abs(once.value - again.value).max()) if same else None
    largest = float(np.abs(once.value).max())
    record = dict(mark=recipe.mark, difference=change, largest=largest, form=once.form)
    files.write_json(recipe.place.repeated, record, seal=True)


def fitted_answers(
    recipe: Recipe, m: int, member_N: np.ndarray, seed: int
) -> tuple[Answers, dict[str, float]]:
    """Returns what a model answers that `fit` trains now, and what is observed about it.

    Raises:
        ValueError: fit fails, or returns no model; the sentence has the model's number.
    """
    picked = np.flatnonzero(member_N)
    x, y = rows.take(recipe.x, picked), rows.take(recipe.y, picked)
    try:
        model = recipe.fit(x, y, seed)
    except Exception as error:
        raise ValueError(
            f"fit failed for model {m} ({len(picked)} rows, seed {seed}): {answers.reason(error)}"
            f"{lacking(recipe.labels, member_N)}{answers.text_hint(recipe.x)}"
        ) from error
    if model is None:
        raise ValueError(
            f"fit returned None for model {m}; it must return the trained model: a function of "
            "rows x, or a model of a framework."
        )
    try:
        numbers = {} if recipe.observe is None else recipe.observe(model, m)
        return recipe.asking.ask(model, recipe.x, recipe.labels, name=f"model {m}"), numbers
    except ValueError as error:
        text = str(error)
        sentence = text if text.startswith(f"model {m} ") else f"model {m}: {text}"
        sentence += lacking(recipe.labels, member_N)
        raise ValueError(sentence) from (error.__cause__ or error)


def lacking(labels: Labels, member_N: np.ndarray) -> str:
    """Returns a sentence about labels that have no row among the members; '' if all have."""
    if labels.kind != "classes":
        return ""
    inside = set(labels.code_N[member_N].tolist())
    absent = [labels.values[c] for c in np.unique(labels.code_N).tolist() if c not in inside]
    if not absent:
        return ""
    return (
        f" Its training rows have none of label {label_columns.shown(absent)}; merge rare "
        "labels, or leave their rows out."
    )


def read(recipe: Recipe, m: int) -> tuple[Answers, Mapping]:
    """Returns the answers of model m from disk, and their record."""
    path = recipe.place.answers(m)
    remedy = "Delete it and make the same call again: only this model is fitted anew."
    arrays, record = files.read_npz_and_record(
        path, record=dict(model=m, mark=recipe.mark), remedy=remedy
    )
    if record is None or "value" not in arrays:
        raise ValueError(files.damaged(path, ValueError("it holds no answers"), remedy=remedy))
    answered = Answers(
        value=arrays["value"],
        form=record["form"],
        column_C=arrays.get("column_C"),
        words=record["words"],
        notes=tuple(record["notes"]),
    )
    return answered, record


def notes_of(recipe: Recipe, member_MN: np.ndarray, *, there: int, split: str) -> tuple[str, ...]:
    """Returns sentences about the models: how many, and whether they can be repeated."""
    models, sizes = len(member_MN), member_MN.sum(1)
    halves_of = (
        f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    )
    words = read(recipe, 0)[0].words
    notes = [
        f"fit trained {models} models ({words}) on {halves_of} rows each, {split}, and "
        "each was asked about all rows."
    ]
    if there:
        notes.append(f"The answers of {there} of the {models} models are of an earlier call.")
    repeated = files.read_json(recipe.place.repeated, needs=dict(mark=str, largest=float))
    change = repeated["difference"]
    if change is None:
        notes.append(
            "fit does not depend on its seed alone: two calls gave answers of different shapes; "
            "the audit cannot be repeated exactly."
        )
    elif change > EQUAL * max(repeated["largest"], 1e-30):
        notes.append(
            "fit does not depend on its seed alone: answers of two calls with the same rows and "
            f"seed differ by up to {change:.3g}; the audit cannot be repeated exactly. (Does every "
            "call start from a new model?)"
        )
    return tuple(notes)


def identity(fit) -> dict[str, str]:
    """Returns what is written down about a recipe: the name of a function, the settings of an
    estimator; without addresses in memory.

    >>> identity(len)
    {'name': 'builtins.len'}
    """
    name = getattr(fit, "__qualname__", type(fit).__qualname__)
    settings = dict(name=f"{getattr(fit, '__module__', None) or ''}.{name}")
    if hasattr(fit, "get_params"):
        settings |= {key: repr(value) for key, value in sorted(fit.get_params().items())}
    return {key: re.sub(r" at 0x[0-9a-fA-F]+", "", text) for key, text in settings.items()}
