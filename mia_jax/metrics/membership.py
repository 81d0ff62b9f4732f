"""Checks the membership matrix: twins, fixed counts, and what counting shadows reveals.

An attacker might only count the shadows that contain a record, which must not reveal membership.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax.metrics import placements


def relations(member_MN, evaluated_MN) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Returns (twins, copies): pairs of models with complementary memberships, and with equal ones.

    All rows that are evaluated for both models are compared.
    """
    evaluated_MN = np.asarray(evaluated_MN, np.float32)
    sign_MN = evaluated_MN * np.where(member_MN, np.float32(1), np.float32(-1))
    common_MM, agree_MM = evaluated_MN @ evaluated_MN.T, sign_MN @ sign_MN.T
    upper_MM = np.triu(common_MM > 0, 1)
    matches = (np.argwhere(upper_MM & (agree_MM == sign * common_MM)) for sign in (-1, 1))
    twins, copies = ([(int(a), int(b)) for a, b in pairs] for pairs in matches)
    return twins, copies


def counted(member_MN, evaluated_MN, shadow_MM, targets: Sequence[int]) -> np.ndarray:
    """Returns the AUC [T] of scoring a record by the number of shadows that trained on it.

    It is 1/2 unless the design reveals who is a member.

    Args:
        member_MN, evaluated_MN, shadow_MM, targets: as in `check`.
    """
    targets = list(targets)
    count_TN = np.asarray(shadow_MM, np.float32)[targets] @ np.asarray(member_MN, np.float32)
    aucs = []
    for t, count_N in zip(targets, count_TN):
        order = placements.order(count_N, evaluated_MN[t])
        aucs.append(
            placements.placements(order, member_MN[t], np.zeros(len(count_N), int), 1)[0][0]
        )
    return np.array(aucs)


def check(
    *,
    member_MN,
    evaluated_MN,
    shadow_MM,
    population_N,
    unit_M,
    targets: Sequence[int],
    counts_matter: bool = True,
) -> dict:
    """Returns what the membership matrix shows, and what is wrong with it.

    Args:
        member_MN, evaluated_MN: the members and the scored rows of each model.
        shadow_MM: shadow_MM[t, m] says whether model m is a shadow of target t.
        population_N: the rows of the population.
        unit_M: models of equal numbers are resampled together (twins).
        targets: the numbers of the targets.
        counts_matter: False if the design's attacks see no IN/OUT shadows, or if their number was
            made equal for all records.

    Returns:
        {models, twins, copies, column_sums, constant, paired, count_auc, problems}. `column_sums`
            is the fewest and the most models that contain a usable record, `constant` whether all
            records are in equally many, and `paired` whether all models are in complementary pairs.
            `count_auc` is the mean of `counted` over the targets; None without shadows or if
            `counts_matter` is False. `problems` are sentences.
    """
    member_MN, evaluated_MN, shadow_MM = (
        np.asarray(a, bool) for a in (member_MN, evaluated_MN, shadow_MM)
    )
    population_N, unit_M, targets = (
        np.asarray(population_N, bool),
        np.asarray(unit_M),
        list(targets),
    )
    twins, copies = relations(member_MN, evaluated_MN)
    usable_N = evaluated_MN.any(0)
    sums = member_MN[:, usable_N].sum(0)
    constant, paired = (
        len(np.unique(sums)) == 1,
        len({m for pair in twins for m in pair}) == len(member_MN),
    )
    problems = []
    if (member_MN & population_N).any():
        problems.append(
            f"{int((member_MN & population_N).any(0).sum())} population rows are members of a model"
        )
    if (evaluated_MN & population_N).any():
        problems.append("population rows are evaluated")
    attacking = [
        (a, b)
        for a, b in twins
        if (shadow_MM[a, b] and a in targets) or (shadow_MM[b, a] and b in targets)
    ]
    if attacking and counts_matter:
        problems.append(
            f"model {attacking[0][1]} is a shadow of its twin {attacking[0][0]} ({len(attacking)} "
            "such pairs): its membership is the answer"
        )
    apart = [(a, b) for a, b in twins if unit_M[a] != unit_M[b]]
    if apart:
        problems.append(
            f"models {apart[0]} are twins but resampled separately ({len(apart)} such pairs): "
            "intervals are too narrow"
        )
    if copies:
        problems.append(
            f"models {copies[0]} have the same members ({len(copies)} such pairs): they are not "
            "independent evidence"
        )
    count_auc = None
    if counts_matter and shadow_MM[targets].any():
        auc_T = counted(member_MN, evaluated_MN, shadow_MM, targets)
        count_auc = float(auc_T.mean())
        if abs(count_auc - 0.5) > chance(
            member_MN[targets], evaluated_MN[targets], unit_M[targets]
        ):
            problems.append(
                "the number of shadows that trained on a record reveals who is a member (AUC "
                f"{count_auc:.3f})"
            )
    return dict(
        models=len(member_MN),
        twins=len(twins),
        copies=len(copies),
        column_sums=[int(sums.min()), int(sums.max())],
        constant=constant,
        paired=paired,
        count_auc=count_auc,
        problems=problems,
    )


def chance(member_TN, evaluated_TN, unit_T, deviations: float = 4.0) -> float:
    """Returns how far from 1/2 the mean AUC of random scores strays.

    It is 4 standard deviations (by default) of one target's AUC, divided by the square root of the
    number of units.
    """
    inside_T, outside_T = (member_TN & evaluated_TN).sum(1), (~member_TN & evaluated_TN).sum(1)
    variance = np.mean((inside_T + outside_T + 1) / (12 * inside_T * outside_T))
    return float(deviations * np.sqrt(variance / len(np.unique(unit_T))))
