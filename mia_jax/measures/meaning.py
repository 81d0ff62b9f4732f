"""Runs the checks of metrics/fit.py on the answers of a run.

They ask whether the labels, the rows of the target and those of its shadows belong together.
"""

from __future__ import annotations

import pathlib

import numpy as np

from mia_jax.metrics import fit
from mia_jax.query import forward
from mia_jax.types import Design, Pool

MOST_TARGETS = 8  # audited models whose labels are checked


def measure(
    folder: pathlib.Path,
    *,
    design: Design,
    pool: Pool,
    given: bool,
    in_order: bool = False,
    recipe: bool = False,
    labeled: bool = True,
    seed: int = 0,
) -> dict[str, dict]:
    """Returns the checks label_agreement and shadow_fit of the answers in `folder`.

    Args:
        folder: the workdir.
        design: the design of the run.
        pool: the data of the run.
        given: whether user-supplied answers are among those in `folder`.
        in_order: whether all answers are known to be about the same rows in the same order: those
            of models that were asked here.
        recipe: whether all models were trained by the user's `fit` on these labels, so that the
            labels are theirs even if they learned nothing.
        labeled: whether the user supplied labels, too.
        seed: the seed of the rows that are compared.
    """
    names = names_of(design)
    known = {
        name: all(forward.signal_file(folder, name, m).exists() for m in used(design))
        for name in ("correct", "loss", "score", "logits")
    }
    answers_M = (
        {m: answers_of(folder, m, design=design, pool=pool) for m in sampled(design)}
        if known["logits"] and labeled
        else {}
    )
    value_MN = next(
        (
            sign * first_view(folder, name, design)
            for name, sign in (("loss", 1), ("score", -1))
            if known[name]
        ),
        None,
    )
    shadows = design.shadow_MM[list(design.targets)].any(0)
    base_M = None
    if answers_M:
        usual = float(np.median([whole["guessing"] for whole, _ in answers_M.values()]))
        base_M = np.array(
            [answers_M[m][0]["guessing"] if m in answers_M else usual for m in range(len(names))]
        )
    label = of_labels(
        folder,
        design=design,
        pool=pool,
        given=given and not recipe,
        labeled=labeled,
        names=names,
    )
    if label["status"] == fit.FAILED:
        return dict(
            label_agreement=label,
            shadow_fit=dict(status=fit.OPEN, text="the labels do not belong to the outputs"),
        )
    shadow = fit.shadow_fit(
        member_MN=design.member_MN,
        evaluated_MN=design.evaluated_MN,
        shadow_MM=design.shadow_MM,
        targets=design.targets,
        names=names,
        correct_MN=first_view(folder, "correct", design) if known["correct"] else None,
        value_MN=value_MN,
        guessing_M=base_M,
        mixed=bool(shadows[list(design.targets)].all()),
        trained=not given,
        in_order=in_order,
        seed=seed,
    )
    return dict(label_agreement=label, shadow_fit=shadow)


def of_labels(
    folder: pathlib.Path,
    *,
    design: Design,
    pool: Pool,
    given: bool,
    labeled: bool,
    names: list[str],
) -> dict:
    """Returns the check `label_agreement` of the first targets."""
    if not given:
        return dict(
            status=fit.OK,
            text="the models were trained on these labels or queried on these rows here",
        )
    targets = design.targets[:MOST_TARGETS]
    if not labeled:
        return dict(status=fit.OPEN, text="no labels were given")
    if pool.task.has_classes and all(
        forward.signal_file(folder, "logits", t).exists() for t in targets
    ):
        answers = {names[t]: answers_of(folder, t, design=design, pool=pool) for t in targets}
        return fit.label_agreement(
            {name: whole for name, (whole, _) in answers.items()},
            members={name: inside for name, (_, inside) in answers.items()},
            shadow_errors=errors_of_shadows(folder, design),
        )
    if all(forward.signal_file(folder, "predictions", t).exists() for t in targets):
        audited, members = {}, {}
        for t in targets:
            output_N, rows_N = (
                forward.load(folder, "predictions", [t])[0, 0],
                design.evaluated_MN[t],
            )
            inside_N, y_N = rows_N & design.member_MN[t], np.asarray(pool.y, np.float64)
            audited[names[t]] = fit.of_outputs(output_N[rows_N], y_N[rows_N]) | dict(
                rows=int((rows_N & ~inside_N).sum())
            )
            members[names[t]] = fit.of_outputs(output_N[inside_N], y_N[inside_N])
        return fit.label_agreement(audited, members=members, regression=True)
    return dict(
        status=fit.OPEN,
        text="neither outputs per class nor predictions were given, so the labels cannot be "
        "compared with outputs",
    )


def answers_of(folder: pathlib.Path, m: int, *, design: Design, pool: Pool) -> tuple[dict, dict]:
    """Returns `fit.of_answers` of one model on its scored rows, and on its members among them.

    At most MOST_ROWS scored rows are used.
    """
    rows = np.flatnonzero(design.evaluated_MN[m])
    if len(rows) > fit.MOST_ROWS:
        rows = np.sort(np.random.default_rng(m).choice(rows, fit.MOST_ROWS, replace=False))
    logits_NC, y_N = forward.load(folder, "logits", [m])[0, 0][rows], np.asarray(pool.y)[rows]
    inside_N = design.member_MN[m, rows]
    whole = fit.of_answers(logits_NC, y_N) | dict(rows=int((~inside_N).sum()))
    return whole, fit.of_answers(logits_NC[inside_N], y_N[inside_N]) if inside_N.any() else whole


def errors_of_shadows(folder: pathlib.Path, design: Design) -> float | None:
    """Returns the shadows' error rate on scored rows that they did not train on.

    None where it is not known.
    """
    shadows = [m for m in used(design) if m not in design.targets][: fit.MOST_MODELS]
    if not shadows or not all(forward.signal_file(folder, "correct", m).exists() for m in shadows):
        return None
    outside_MN = ~design.member_MN[shadows] & design.evaluated_MN[shadows]
    return (
        float(1 - forward.load(folder, "correct", shadows)[:, 0][outside_MN].mean())
        if outside_MN.any()
        else None
    )


def sampled(design: Design) -> list[int]:
    """Returns the targets and shadows whose answers are checked."""
    return used(design)[: fit.MOST_MODELS]


def used(design: Design) -> list[int]:
    """Returns the targets and all their shadows; models that failed in training are left out."""
    return list(
        dict.fromkeys(
            [
                *design.targets,
                *np.flatnonzero(design.shadow_MM[list(design.targets)].any(0)).tolist(),
            ]
        )
    )


def first_view(folder: pathlib.Path, name: str, design: Design) -> np.ndarray:
    """Returns a signal [M,N] at the first query view; NaN for models that are not used."""
    value_MN = np.full(design.member_MN.shape, np.nan)
    for m in used(design):
        value_MN[m] = forward.load(folder, name, [m])[0, 0]
    return value_MN


def names_of(design: Design) -> list[str]:
    """Returns what a report calls the models.

    They are 'the target' and 'shadow 3' where a single model is audited and is not a shadow of
    another model, else 'model 3'.
    """
    models, (first, *others) = len(design.member_MN), design.targets
    if others or design.shadow_MM[:, first].any():
        return [f"model {m}" for m in range(models)]
    return ["the target" if m == first else f"shadow {m - (m > first)}" for m in range(models)]
