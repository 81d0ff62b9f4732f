"""Checks that labels, target and shadows fit together.

The checks concern what arrays mean: the order of rows, the labels, and how well shadows fit their
data. Every check is {status, text, ..numbers}. `status` is 'ok', 'failed' (until it is fixed, the
attacks' success misstates the leakage; `text` says what was observed and what to do) or 'not
checked' (`text` says why).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

OK, FAILED, OPEN = "ok", "failed", "not checked"
FEWEST = 10  # rows of a side from which an accuracy is compared
CLEAR = 4.0  # standard deviations that make a disagreement more than chance
# Between DOUBT and CLEAR, a model that learned little cannot be distinguished from labels in
# another
# order, so there is no verdict.
DOUBT = 3.0
UNLIKE = 3.0  # standard deviations that make a difference in fit more than chance
# The share of the way from guessing to perfect. A model that learned this much must be detectable;
# otherwise there are too few rows.
SKILL = 0.3
GAP = 0.05  # the largest acceptable difference in accuracy or AUC between shadows and target
LEVEL = 0.1  # the same for the accuracy on one side
MOST_ROWS, MOST_MODELS = 4000, 65  # the largest numbers in rank correlations
UNSURE = 0.7  # probability of the predicted class below which errors are expected
CERTAIN = 7.0  # this many expected errors cannot all be missing by chance


def agreement(score_NC, y_N) -> float:
    """Returns by how many standard deviations the scores [N,C] favor the given labels [N].

    The reference is the same labels in random order (exact mean and variance of a shuffle).

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 3, 200)
    >>> agreement(np.eye(3)[y] + rng.normal(size=(200, 3)), y) > 8
    True
    >>> abs(agreement(rng.normal(size=(200, 3)), y)) < 4
    True
    """
    score_NC, y_N = np.asarray(score_NC, np.float64), np.asarray(y_N)
    count_C = np.bincount(y_N, minlength=score_NC.shape[1])
    rows, share_C = len(y_N), count_C / len(y_N)
    row_N, column_C = score_NC @ share_C, score_NC.mean(0)
    centered_NC = score_NC - row_N[:, None] - column_C + (column_C @ share_C)
    variance = (centered_NC**2 @ count_C).sum() / max(rows - 1, 1)
    excess = score_NC[np.arange(rows), y_N].sum() - row_N.sum()
    return (
        float(excess / np.sqrt(variance))
        if variance > 1e-12 * max(1.0, (score_NC**2).sum())
        else 0.0
    )


def of_answers(logits_NC, y_N) -> dict:
    """Measures how well one model's logits [N,C] agree with the labels [N].

    Returns:
        {accuracy, guessing, z, unsure, enough}. `guessing` is the accuracy with labels in random
            order. `z` is the larger of two agreements with the labels, that of the predictions and
            that of the log-probabilities. `unsure` is the expected number of errors among the
            unsure predictions (probability of the predicted class below UNSURE) if that
            probability were true. `enough` says whether a model of some skill would be detected.
    """
    logits_NC, y_N = np.asarray(logits_NC, np.float64), np.asarray(y_N)
    classes = logits_NC.shape[1]
    top_N = logits_NC.argmax(1)
    log_NC = logits_NC - np.logaddexp.reduce(logits_NC, 1)[:, None]
    guessing = float(
        np.bincount(top_N, minlength=classes) @ np.bincount(y_N, minlength=classes) / len(y_N) ** 2
    )
    z = max(agreement(np.eye(classes)[top_N], y_N), agreement(np.maximum(log_NC, -20.0), y_N))
    most = np.exp(log_NC.max(1))
    base = max(guessing, 1.0 / classes)
    return dict(
        accuracy=float((top_N == y_N).mean()),
        guessing=guessing,
        z=z,
        unsure=float((1 - most[most < UNSURE]).sum()),
        enough=bool(base < 1 and SKILL * np.sqrt((1 - base) / base * len(y_N)) >= CLEAR),
    )


def of_outputs(output_N, y_N) -> dict:
    """Returns the keys of `of_answers` for a regression's outputs [N] and labels [N].

    `accuracy` is the share of the labels' variance that the outputs explain; it is 1 only if
    outputs and labels are equal.
    """
    output_N, y_N = np.asarray(output_N, np.float64), np.asarray(y_N, np.float64)
    known = output_N.std() > 0 and y_N.std() > 0
    correlation = float(np.corrcoef(output_N, y_N)[0, 1]) if known else 0.0
    explained = 1.0 if np.array_equal(output_N, y_N) else min(correlation**2, 1 - 1e-9)
    enough = bool(len(y_N) >= (CLEAR / SKILL) ** 2)
    return dict(
        accuracy=explained,
        guessing=0.0,
        z=correlation * np.sqrt(len(y_N)),
        unsure=CERTAIN,
        enough=enough,
    )


def label_agreement(
    audited: Mapping[str, Mapping],
    *,
    members: Mapping[str, Mapping],
    shadow_errors: float | None = None,
    regression: bool = False,
) -> dict:
    """Checks that the labels belong to the answers.

    The check fails if no more labels are right than in random order, or if every label equals the
    model's prediction where errors must be expected.

    Args:
        audited: `of_answers` (or `of_outputs`) of each audited model ('the target', 'model 3') on
            all its scored rows, with `rows`, the number of its non-members among them.
        members: the same on the members of each audited model.
        shadow_errors: the error rate of the shadows on rows that they did not train on.
        regression: whether the models are regressions.

    Returns:
        {status, text, accuracy, guessing}; without the numbers where too little is known.
    """
    describe, failures = (_explained if regression else _right), []
    for name, answers in audited.items():
        best = max(answers["z"], members[name]["z"])
        numbers = dict(accuracy=answers["accuracy"], guessing=answers["guessing"])
        if best < CLEAR and not answers["enough"]:
            return numbers | dict(
                status=OPEN,
                text="there are too few rows to check whether the labels belong to the outputs of "
                f"{name}",
            )
        if DOUBT <= best < CLEAR:
            text = (
                f"{name} {describe(answers)}: hardly more, so it learned little, or the labels do "
                "not belong to its outputs"
            )
            return numbers | dict(status=OPEN, text=text)
        if best < CLEAR:
            text = (
                f"{name} {describe(answers)}: are the labels in the same order as the outputs? (Or "
                "it learned nothing: then nothing can leak.)"
            )
            failures.append(numbers | dict(status=FAILED, text=text))
        elif answers["accuracy"] == 1.0:
            expected = (
                answers["unsure"]
                if shadow_errors is None
                else max(answers["unsure"], shadow_errors * answers["rows"])
            )
            same = f"every label equals the prediction of {name}, for members and non-members alike"
            if expected >= CERTAIN:
                text = (
                    same
                    if regression
                    else f"{same}, where about {expected:.0f} errors would be expected"
                )
                return numbers | dict(
                    status=FAILED,
                    text=text + ": provide the true labels, not the model's predictions",
                )
            if answers["rows"] >= FEWEST:
                return numbers | dict(
                    status=OPEN,
                    text=f"{same}: either it makes no errors, or its predictions were given as "
                    "labels",
                )
    # If only a few models fail, it is their rows that are in another order (see `shadow_fit`).
    if 2 * len(failures) > len(audited):
        return failures[0]
    first, answers = next(
        (name, answers)
        for name, answers in audited.items()
        if max(answers["z"], members[name]["z"]) >= CLEAR
    )
    return dict(
        status=OK,
        text=f"{first} {describe(answers)}",
        accuracy=answers["accuracy"],
        guessing=answers["guessing"],
    )


def _right(answers: Mapping) -> str:
    return (
        f"is right on {_percent(answers['accuracy'])} of the rows; with randomly permuted labels "
        f"it would be right on {_percent(answers['guessing'])}"
    )


def _explained(answers: Mapping) -> str:
    return f"explains {_percent(answers['accuracy'])} of the variance of the labels"


def consistency(value_MN, member_MN, evaluated_N, *, seed: int = 0) -> np.ndarray:
    """Returns each model's median rank correlation with the others over the rows, [M].

    Members and non-members are ranked separately.

    Models agree on which rows are hard, no matter which of them trained on the rows; a model whose
    rows are in another order agrees with no other model.

    Args:
        value_MN: a loss, or minus a score, of each model and row (lower = member).
        member_MN: the members of each model.
        evaluated_N: the rows to compare; at most MOST_ROWS of them are drawn.
        seed: the seed of that draw.
    """
    rows = np.flatnonzero(evaluated_N)
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    value_MN, member_MN = (
        np.asarray(value_MN, np.float64)[:, rows],
        np.asarray(member_MN, bool)[:, rows],
    )
    rank_MN = np.zeros(value_MN.shape)
    for m, (value_N, member_N) in enumerate(zip(value_MN, member_MN, strict=True)):
        for side_N in (member_N, ~member_N):
            if side_N.any():
                rank_N = stats.rankdata(value_N[side_N])
                rank_MN[m, side_N] = (rank_N - rank_N.mean()) / max(rank_N.std(), 1e-12)
    correlation_MM = rank_MN @ rank_MN.T / len(rows)
    np.fill_diagonal(correlation_MM, np.nan)
    return np.nanmedian(correlation_MM, 1)


def misplaced(correlation_M, rows: int) -> np.ndarray:
    """Returns which models agree with the others clearly less than these agree, booleans [M].

    Agreement is the rank correlation.
    """
    usual = float(np.median(correlation_M))
    width = CLEAR / np.sqrt(max(rows - 3, 1))
    return (
        (correlation_M < 0.25 * usual)
        & (usual - correlation_M > 1.5 * width)
        & (usual > 1.5 * width)
    )


def shadow_fit(
    *,
    member_MN,
    evaluated_MN,
    shadow_MM,
    targets: Sequence[int],
    names: Sequence[str],
    correct_MN=None,
    value_MN=None,
    guessing_M=None,
    mixed: bool = False,
    trained: bool = False,
    in_order: bool = False,
    seed: int = 0,
) -> dict:
    """Checks that the shadows are like the target.

    The check fails if a model's rows seem to be in another order than the others', or if the
    shadows fit their members clearly more or less than the target.

    Args:
        member_MN, evaluated_MN: the members and the scored rows of each model.
        shadow_MM: shadow_MM[t, m] says whether model m is a shadow of target t.
        targets: the numbers of the audited models.
        names: what each model is called in texts.
        correct_MN: 1 where a model is right; None if unknown.
        value_MN: the loss of each model, or minus its score (lower = member); None if unknown.
        guessing_M: the accuracy of each model with labels in random order; None counts as 0.
        mixed: whether every model is a target in turn.
        trained: whether all models were trained here by the same learner.
        in_order: whether the rows of all models are known to be in one order, as those of models
            that were asked here are. Then a model that guesses is one whose training failed.
        seed: the seed of the draw of rows in `consistency`.

    Returns:
        {status, text, target, shadows}, where the last two are {train_accuracy,
            validation_accuracy} or None; a failed check has `problem` ('order' or 'fit') and, for
            'order', `model`.
    """
    member_MN, evaluated_MN, shadow_MM = (
        np.asarray(a, bool) for a in (member_MN, evaluated_MN, shadow_MM)
    )
    in_order = in_order or trained
    targets = list(targets)
    used_M = shadow_MM[targets].any(0)
    if not used_M.any():
        return dict(status=OPEN, text="there are no shadow models")
    if correct_MN is None and value_MN is None:
        return dict(
            status=OPEN, text="neither losses nor scores nor predictions of the models are known"
        )
    sides = (member_MN & evaluated_MN, ~member_MN & evaluated_MN)
    right_SM = (
        None if correct_MN is None else np.stack([_rate(correct_MN, side_MN) for side_MN in sides])
    )
    numbers: dict[str, dict | None] = dict(target=None, shadows=None)
    if right_SM is not None:
        used = np.flatnonzero(used_M)
        numbers = {
            name: dict(zip(("train_accuracy", "validation_accuracy"), map(_mean, value_SM)))
            for name, value_SM in (
                ("target", right_SM[:, targets]),
                ("shadows", right_SM[:, used]),
            )
        }
        strange = _strange(right_SM, guessing_M, sides, targets, used, mixed=mixed)
        if strange:
            m, side, other, usual = strange
            word = ("members", "non-members")[side]
            text = (
                f"{names[m]} is right on {_percent(right_SM[side, m])} of its {word}, {other} on "
                f"{_percent(usual)}: "
            )
            text += (
                "did its training fail?" if in_order else "are the rows of both in the same order?"
            )
            return numbers | dict(status=FAILED, problem="order", model=int(m), text=text)
    if value_MN is not None and not in_order:
        odd = _other_order(
            value_MN, member_MN, evaluated_MN, targets, np.flatnonzero(used_M), seed=seed
        )
        if odd:
            m, correlation, usual = odd
            text = (
                "the other models agree with each other on which rows are hard (rank correlation "
                f"{usual:.2f}) and {names[m]} does not "
                f"agree with them ({correlation:.2f}): are its rows in the same order?"
            )
            return numbers | dict(status=FAILED, problem="order", model=int(m), text=text)
    if mixed:
        return numbers | dict(
            status=OK,
            text="the targets are also shadow models of each other, and all fit their rows alike"
            + _both(numbers),
        )
    shadows = [m for m in np.flatnonzero(used_M) if m not in targets]
    # The learner is the same. Where the fit differs, the design assigned different rows to the
    # models, which it states itself.
    if trained:
        return numbers | dict(
            status=OK,
            text="target and shadow models were trained here by the same learner" + _both(numbers),
        )
    unlike = _unlike(right_SM, value_MN, sides, targets, shadows) if shadows else None
    if unlike:
        text, direction = unlike
        remedy = dict(
            less="attacks with shadow models understate the leakage: train the shadow models "
            "longer, with the procedure of the target",
            more="the shadow models misrepresent the target: train them with the procedure of the "
            "target, and no longer",
            other="the shadow models differ from the target: train them with the procedure of the "
            "target, on as many rows of the same data",
        )[direction]
        return numbers | dict(status=FAILED, problem="fit", text=f"{text}; {remedy}")
    if right_SM is None and not any(_sides_known(sides, shadows)):
        return numbers | dict(
            status=OPEN,
            text="the shadow models have no members among the scored rows: no accuracy is known",
        )
    return numbers | dict(
        status=OK, text="the shadow models fit their rows as the target does" + _both(numbers)
    )


def _strange(right_SM, guessing_M, sides, targets, shadows, *, mixed: bool):
    """Returns the first model that only guesses where comparable models do better, or None.

    Returns:
        (model, side, the words for the comparable models, their accuracy).
    """
    for side in (0, 1):
        count_M, rate_M = sides[side].sum(1), right_SM[side]
        base_M = np.zeros(len(rate_M)) if guessing_M is None else np.asarray(guessing_M)
        models = [m for m in dict.fromkeys([*targets, *shadows.tolist()]) if count_M[m] >= FEWEST]
        for m in models:
            if side == 1 and sides[0][m].sum() >= FEWEST:  # it was judged by its members
                continue
            like = [o for o in models if o != m and (mixed or m in targets or o in targets)]
            if not like:
                continue
            usual, base = (
                float(np.median(rate_M[like])),
                max(float(np.median(base_M[like])), float(base_M[m])),
            )
            spread = np.sqrt(
                usual * (1 - usual) / np.median(count_M[like])
                + rate_M[m] * (1 - rate_M[m]) / count_M[m]
                + 1e-9
            )
            if (
                usual - base > 0.1
                and rate_M[m] - base < 0.25 * (usual - base)
                and usual - rate_M[m] > CLEAR * spread
            ):
                return (
                    m,
                    side,
                    (
                        "the others"
                        if mixed
                        else "the target"
                        if m not in targets
                        else "its shadows"
                    ),
                    usual,
                )
    return None


def _other_order(value_MN, member_MN, evaluated_MN, targets, shadows, *, seed: int):
    """Returns the first model that disagrees with all others, or None.

    Returns:
        (model, its rank correlation with the others, the median correlation of all models).
    """
    models = list(dict.fromkeys([*targets, *shadows.tolist()]))[:MOST_MODELS]
    common_N = evaluated_MN[models].all(0)
    if len(models) < 3 or common_N.sum() < 3 * FEWEST:
        return None
    correlation_M = consistency(value_MN[models], member_MN[models], common_N, seed=seed)
    odd = np.flatnonzero(misplaced(correlation_M, min(int(common_N.sum()), MOST_ROWS)))
    return (
        (models[odd[0]], float(correlation_M[odd[0]]), float(np.median(correlation_M)))
        if odd.size
        else None
    )


def _unlike(right_SM, value_MN, sides, targets, shadows):
    """Returns how the fit of the shadows clearly differs from that of the targets, or None.

    Returns:
        (words, 'less', 'more' or 'other').
    """
    inside_M, outside_M = (side.sum(1) for side in sides)
    both = [m for m in shadows if min(inside_M[m], outside_M[m]) >= FEWEST]
    if min(inside_M[targets].min(), outside_M[targets].min()) < FEWEST:
        return None
    if right_SM is not None and both:
        gap_M = right_SM[0] - right_SM[1]
        noise = np.sqrt(
            sum(
                (
                    right_SM[s, targets] * (1 - right_SM[s, targets]) / sides[s][targets].sum(1)
                ).mean()
                for s in (0, 1)
            )
        )
        difference = float(gap_M[both].mean() - gap_M[targets].mean())
        words = (
            f"accuracy on members and non-members: shadows {_two(right_SM[:, both])}, target "
            f"{_two(right_SM[:, targets])}"
        )
        if abs(difference) > GAP and abs(difference) > UNLIKE * max(
            noise, float(gap_M[both].std()), 1e-9
        ):
            return words, "less" if difference < 0 else "more"
    for side, word in ((0, "members"), (1, "non-members")):
        known = [m for m in shadows if sides[side][m].sum() >= FEWEST]
        if right_SM is None or not known:
            continue
        target, shadow_M = float(right_SM[side, targets].mean()), right_SM[side, known]
        noise = np.sqrt(target * (1 - target) / sides[side][targets].sum(1).mean() + 1e-9)
        if abs(shadow_M.mean() - target) > LEVEL and abs(shadow_M.mean() - target) > UNLIKE * max(
            noise, float(shadow_M.std())
        ):
            return (
                f"accuracy on {word}: shadows {_percent(shadow_M.mean())}, target "
                f"{_percent(target)}",
                "other",
            )
    if value_MN is not None and both:
        auc_M = {m: _auc(-value_MN[m], sides[0][m], sides[1][m]) for m in [*targets, *both]}
        target, shadow_M = (
            float(np.mean([auc_M[t] for t in targets])),
            np.array([auc_M[m] for m in both]),
        )
        n1, n0 = inside_M[targets].mean(), outside_M[targets].mean()
        noise = np.sqrt((n1 + n0 + 1) / (12 * n1 * n0))
        if abs(shadow_M.mean() - target) > GAP and abs(shadow_M.mean() - target) > UNLIKE * max(
            noise, float(shadow_M.std())
        ):
            words = (
                "AUC of the model's own outputs for members against non-members: shadow models "
                f"{shadow_M.mean():.2f}, target {target:.2f}"
            )
            if abs(shadow_M.mean() - 0.5) < 2 * noise:
                words += " (is every shadow's row of shadow_member in the order of its outputs?)"
            return words, "less" if shadow_M.mean() < target else "more"
    return None


def _sides_known(sides, shadows) -> list[bool]:
    return [bool(min(sides[0][m].sum(), sides[1][m].sum()) >= FEWEST) for m in shadows]


def _auc(score_N, inside_N, outside_N) -> float:
    rank_N = stats.rankdata(np.concatenate([score_N[inside_N], score_N[outside_N]]))
    n1, n0 = int(inside_N.sum()), int(outside_N.sum())
    return float((rank_N[:n1].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _rate(correct_MN, side_MN) -> np.ndarray:
    """Returns the mean over each model's rows of one side, [M]; NaN where there are no rows."""
    count_M = side_MN.sum(1)
    return np.where(
        count_M > 0, np.nansum(np.where(side_MN, correct_MN, 0), 1) / np.maximum(count_M, 1), np.nan
    )


def _mean(values) -> float | None:
    values = np.asarray(values)[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _both(numbers: Mapping) -> str:
    if not numbers["target"]:
        return ""
    parts = []
    for key, word in (("train_accuracy", "members"), ("validation_accuracy", "non-members")):
        pair = [numbers["shadows"][key], numbers["target"][key]]
        if None not in pair:
            parts.append(f"on {word} {_percent(pair[0])} (target {_percent(pair[1])})")
    return f": accuracy {' and '.join(parts)}" if parts else ""


def _two(right_SM) -> str:
    return " and ".join(_percent(right_SM[s].mean()) for s in (0, 1))


def _percent(share) -> str:
    return f"{100 * float(share):.1f}%"
