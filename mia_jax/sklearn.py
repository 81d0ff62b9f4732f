"""Model selection with scikit-learn: how well settings predict and how much they leak.

```
from mia_jax.sklearn import Halves, cross_validate, search
search(LogisticRegression(), {'C': [0.01, 1, 100]}, x, y)                  folds
search(LogisticRegression(), {'C': [0.01, 1, 100]}, x, y, cv=Halves(16))   with shadow models
audit_search(GridSearchCV(...).fit(x, y), x, y)                            of a finished search
```

Every split's model is a target with its training rows as members. Folds allow attacks on a model's
own answers only: a row that one model has not seen is a member of every other, which would give the
answer away. `Halves`, ShuffleSplit and repeated folds leave enough models on both sides of every
row for attacks with shadow models; which attacks the splits allow is decided as for arrays.

There is no scorer for GridSearchCV. A scorer sees one model and one set of rows, and is not told
whether the model was trained on them; leakage is a comparison of the two. A scorer that knows all
rows would have to guess the members from what it is not shown, and would be wrong for a splitter
that leaves rows out. `audit_search` fits the settings of a finished search again, on its splits.
"""

from __future__ import annotations

import contextlib
import io
import math
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mia_jax import api
from mia_jax.external import arrays as supplied_arrays
from mia_jax.external import candidates, default_attacks, fleet, frameworks, models, rows
from mia_jax.external import labels as label_columns
from mia_jax.external import splits as all_splits
from mia_jax.external.splits import Halves
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import Store
from mia_jax.selection import Selection, Setting, shown_params

__all__ = ["Halves", "Selection", "audit_search", "cross_validate", "search"]

REMEDY = default_attacks.ARRAYS | dict(
    population="pass cv=Halves(population=0.1)",
    more="pass a larger population to Halves",
    shadows="pass cv=Halves(models=16)",
)


def cross_validate(
    estimator,
    x,
    y,
    cv=5,
    *,
    attacks=None,
    seed: int = 0,
    n_jobs: int = 1,
    folder: str | pathlib.Path | None = None,
    scoring=None,
    draws: int = 200,
    report: Mapping = {},
) -> Selection:
    """Cross-validates an estimator and audits the models of all splits.

    Args:
        estimator: of scikit-learn, or with the same methods (pipelines, XGBoost, LightGBM), not
            fitted; clones of it are. A classifier answers with predict_proba, else
            decision_function; a regressor with predict.
        x: the rows, as the estimator takes them.
        y: their labels.
        cv: a number of folds, which are drawn at random (stratified for a classifier); a splitter
            of scikit-learn; `Halves(models=16)`; or (train, test) row numbers.
        attacks: as in `mia_jax.audit`; None: all quick ones that the splits allow.
        seed: of the folds, the models, the attacks and the bootstrap.
        n_jobs: how many models are fitted at a time (joblib).
        folder: keeps what every model answers, as soon as it exists; the same call continues.
            Without it, answers are kept only if something fails.
        scoring: a scorer of scikit-learn by name or function; None: the estimator's own score.
        draws: of the bootstrap.
        report: further settings of the audit (fprs, level, ...).

    Returns:
        A `Selection` with one setting.

    Raises:
        ValueError: an argument cannot be used, or a model fails; the message says why.

    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(300, 5)), rng.integers(2, size=300)
    >>> leaky = cross_validate(DecisionTreeClassifier(), x, y, attacks='gap', draws=40)
    >>> leaky.rows[0]['strongest']['auc']['low'] > 0.6
    True
    """
    check_estimator(estimator)
    return selected(
        estimator,
        [{}],
        x,
        y,
        cv=cv,
        attacks=attacks,
        seed=seed,
        n_jobs=n_jobs,
        folder=folder,
        scoring=scoring,
        draws=draws,
        report=report,
    )


def search(
    estimator,
    grid,
    x,
    y,
    *,
    cv=5,
    attacks=None,
    seed: int = 0,
    n_jobs: int = 1,
    folder: str | pathlib.Path | None = None,
    scoring=None,
    draws: int = 200,
    report: Mapping = {},
) -> Selection:
    """Cross-validates an estimator in every setting of a grid and audits the models.

    All settings are fitted on the same splits with the same seeds, so that they can be compared
    pair by pair.

    Args:
        estimator: as in `cross_validate`.
        grid: {parameter: values}, a list of those, or a ParameterGrid or ParameterSampler.
        x, y, cv, attacks, seed, n_jobs, folder, scoring, draws, report: as in `cross_validate`. A
            larger grid in the same folder fits only the settings that are new.

    Returns:
        A `Selection` with a row per setting.

    Raises:
        ValueError: an argument cannot be used, a setting does not exist, or a model fails.
    """
    check_estimator(estimator)
    return selected(
        estimator,
        settings_of(grid, estimator),
        x,
        y,
        cv=cv,
        attacks=attacks,
        seed=seed,
        n_jobs=n_jobs,
        folder=folder,
        scoring=scoring,
        draws=draws,
        report=report,
    )


def audit_search(
    finished,
    x,
    y,
    *,
    top: int | None = None,
    cv=None,
    attacks=None,
    seed: int = 0,
    n_jobs: int = 1,
    folder: str | pathlib.Path | None = None,
    draws: int = 200,
    report: Mapping = {},
) -> Selection:
    """Audits the settings of a finished GridSearchCV or RandomizedSearchCV.

    A search keeps the scores of its models and not the models, so they are fitted again, on the
    splits of the search. Every `random_state` of the estimator is derived from `seed`, so where
    fitting is random, scores differ a little from those of the search; a note says by how much.

    Args:
        finished: the fitted search.
        x, y: the rows that it was fitted on.
        top: audits only the settings with the best ranks, so many; None: all.
        cv: other splits, such as `Halves(16)` for attacks with shadow models; None: those of the
            search.
        attacks, seed, n_jobs, folder, draws, report: as in `cross_validate`.

    Returns:
        A `Selection` with a row per setting, in the order of the search's `cv_results_`, or of the
        ranks if `top` is given.

    Raises:
        ValueError: it is no fitted search, or one with several scores.
    """
    from sklearn.base import is_classifier
    from sklearn.model_selection import check_cv

    if not hasattr(finished, "cv_results_") or not hasattr(finished, "estimator"):
        raise ValueError(
            f"finished is a {frameworks.kind_of(finished)} and must be a fitted GridSearchCV or "
            "RandomizedSearchCV; call its fit(x, y) first, or use search(estimator, grid, x, y)."
        )
    table, scoring = finished.cv_results_, finished.scoring
    if "mean_test_score" not in table:
        raise ValueError(
            "finished has several scores; pass one of them to search(..., scoring=...)."
        )
    order = list(range(len(table["params"])))
    if top is not None:
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ValueError(f"top={top!r} must be a whole number of settings, at least 1.")
        order = sorted(order, key=lambda s: (table["rank_test_score"][s], s))[:top]
    same = cv is None
    selection = selected(
        finished.estimator,
        [table["params"][s] for s in order],
        x,
        y,
        cv=check_cv(finished.cv, y, classifier=is_classifier(finished.estimator)) if same else cv,
        attacks=attacks,
        seed=seed,
        n_jobs=n_jobs,
        folder=folder,
        scoring=scoring,
        draws=draws,
        report=report,
    )
    if same:
        change = max(
            abs(row["score"] - float(table["mean_test_score"][s]))
            for row, s in zip(selection.rows, order, strict=True)
        )
        selection.notes.append(
            f"The models were fitted again; mean scores differ from those of the search by up to "
            f"{change:.2g}."
        )
    return selection


def selected(
    estimator,
    settings: Sequence[Mapping],
    x,
    y,
    *,
    cv,
    attacks,
    seed: int,
    n_jobs: int,
    folder,
    scoring,
    draws: int,
    report: Mapping,
) -> Selection:
    """Returns the selection of these settings; see `search` for the arguments."""
    from sklearn.base import clone, is_classifier

    candidates.check_numbers(seed=seed, n_jobs=n_jobs)
    check_attacks(attacks)
    scorer, score_name = scoring_of(estimator, scoring)
    labels = label_columns.read(y)
    models.check_rows(labels, rows.count(x))
    splits = all_splits.read(cv, x, y, labels, classifier=is_classifier(estimator), seed=seed)
    data = candidates.Rows(x, y, labels, splits, rows.digest(x))
    done, noted, notes = [], [], [*labels.notes, *splits.notes]
    with workdir(folder) as store:
        for s, params in enumerate(settings):
            setting = clone(estimator).set_params(**clone_values(params))
            try:
                fitted = candidates.fitted(
                    setting,
                    data,
                    scorer=scorer,
                    store=store.setting(candidates.name_of(setting)),
                    seed=seed,
                    n_jobs=n_jobs,
                    kept=folder is not None,
                )
                if not s:
                    notes += not_run(fitted.arrays, attacks, seed=seed)
                with contextlib.redirect_stderr(
                    io.StringIO()
                ):  # the notes are kept in the Selection
                    results = api.audit(
                        fitted.arrays, attacks=attacks, seed=seed, draws=draws, report=report
                    )
            except ValueError as error:
                if not params:
                    raise
                where = f"setting {s} ({shown_params(params)})"
                raise ValueError(f"{where}: {error}") from (error.__cause__ or error)
            noted.append(fitted.notes)
            done.append(Setting(params, results, fitted.test_M, fitted.train_M))
    everywhere = [note for note in noted[0] if all(note in others for others in noted)]
    notes += everywhere
    notes += [
        f"Setting {s}: {note}"
        for s, others in enumerate(noted)
        for note in others
        if note not in everywhere
    ]
    return Selection(
        done,
        score_name=score_name,
        words=splits.words,
        test_share=splits.test_share,
        notes=list(dict.fromkeys(notes)),
        level=done[0].results.report["about"].get("level", 0.95),
        largest=1.0 if scoring is None else math.inf,  # accuracy and R2
    )


@contextlib.contextmanager
def workdir(folder: str | pathlib.Path | None) -> Iterator[Store]:
    """Yields where the settings' models are kept.

    Without a folder that is a temporary one, which remains if something fails after a model was
    fitted; the error then says where.
    """
    if folder is not None:
        yield Store(files.folder_at(folder, argument="folder"))
        return
    store = Store(pathlib.Path(tempfile.mkdtemp(prefix="mia_jax-")))
    try:
        yield store
    except BaseException as error:
        if not store.has_settings():
            shutil.rmtree(store.root, ignore_errors=True)
            raise
        remedy = f"The models' answers are kept: folder={str(store.root)!r} continues."
        if isinstance(error, ValueError):
            raise ValueError(f"{error} {remedy}") from (error.__cause__ or error)
        jobs.say(remedy)
        raise
    shutil.rmtree(store.root, ignore_errors=True)


def check_estimator(estimator) -> None:
    """Raises ValueError unless models of an estimator can be fitted, scored and audited."""
    from sklearn.base import is_classifier, is_regressor

    kind = frameworks.kind_of(estimator)
    if isinstance(estimator, type):
        raise ValueError(
            f"estimator is the class {estimator.__name__}; pass an object of it, "
            f"{estimator.__name__}(...)."
        )
    if not all(hasattr(estimator, name) for name in ("fit", "get_params", "set_params")):
        raise ValueError(
            f"estimator is a {kind} and must have fit, get_params and set_params, as those of "
            "scikit-learn. Recipes of other frameworks: mia_jax.audit(fit=..., models=16)."
        )
    if is_classifier(estimator):
        if not any(hasattr(estimator, name) for name in ("predict_proba", "decision_function")):
            raise ValueError(
                f"estimator is a {kind}, which has neither predict_proba nor decision_function; "
                "labels alone say too little. Wrap it: CalibratedClassifierCV(estimator)."
            )
    elif not is_regressor(estimator):
        raise ValueError(f"estimator is a {kind}, which is no classifier and no regressor.")


def settings_of(grid, estimator) -> list[dict]:
    """Returns the settings of a grid, each once.

    Raises:
        ValueError: it is no grid, it is empty, or the estimator has no such parameter.
    """
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    try:
        plain = isinstance(grid, Mapping | list | tuple)
        every = list(ParameterGrid(grid) if plain else grid)
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"grid cannot be read: {text} Pass {{parameter: [values]}}, or a list of those."
        ) from error
    if not every or not all(isinstance(params, Mapping) for params in every):
        raise ValueError("grid has no settings; pass {parameter: [values]}.")
    for params in every:
        try:
            clone(estimator).set_params(**clone_values(params))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"grid: {' '.join(str(error).split())}") from error
    names = [fleet.identity(clone(estimator).set_params(**clone_values(p))) for p in every]
    return [dict(p) for at, p in enumerate(every) if names.index(names[at]) == at]


def check_attacks(attacks) -> None:
    """Raises ValueError if there is no attack of a name, before anything is fitted."""
    named = api.named_attacks(attacks)
    if named is None or isinstance(named, Mapping):
        return
    for name in named.split(",") if isinstance(named, str) else named:
        default_attacks.section(name.strip().lstrip("+-"))


def clone_values(params: Mapping) -> dict:
    """Returns parameters with copies of estimators among the values, as a search makes them."""
    from sklearn.base import clone

    return {name: clone(value, safe=False) for name, value in params.items()}


def scoring_of(estimator, scoring) -> tuple:
    """Returns (scorer, name of the score).

    Raises:
        ValueError: scikit-learn knows no such scorer, or there are several.
    """
    from sklearn.base import is_classifier
    from sklearn.metrics import check_scoring

    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(f"scoring={scoring!r} must be one scorer: a name, or a function.")
    try:
        scorer = check_scoring(estimator, scoring=scoring)
    except (ValueError, TypeError) as error:
        raise ValueError(f"scoring: {' '.join(str(error).split())}") from error
    if scoring is None:
        return scorer, "accuracy" if is_classifier(estimator) else "R2"
    return scorer, scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")


def not_run(arrays: Mapping, attacks, *, seed: int) -> Iterable[str]:
    """Returns a note about the attacks that the splits do not allow, and what would."""
    supplied = supplied_arrays.build(arrays, seed=seed)
    chosen = api.named_attacks(attacks)
    _, left_out = default_attacks.choose(chosen, supplied, REMEDY)
    shadows = "shadow_out" in supplied.design.supports
    hint = [] if shadows or not left_out else ["For attacks with shadow models, cv=Halves(16)."]
    return [*supplied.notes, *left_out, *hint]
