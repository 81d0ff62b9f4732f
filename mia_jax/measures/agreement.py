"""Measures which records the attacks of a report identify together: its section `agreement`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import agreement, roc

FPR = 0.01
MOST = 10  # attacks, or groups of attacks alike, that are compared
SAME = 0.95  # the Jaccard index from which on two attacks share a place


def measure(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    order: Sequence[str],
    fpr: float = FPR,
    most: int = MOST,
) -> dict | None:
    """Returns the section `agreement` of report.json.

    Args:
        attacks: {attack: what has its `score_TN`}.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        order: the attacks that a real attacker could run, the strongest first.
        fpr: the false-positive rate of each attack on each target.
        most: how many of the first attacks are compared; those that identify almost the same
            members (SAME) share a place.

    Returns:
        {fpr, targets, members, nonmembers, left_out, same, alike, jaccard, chance, attacks, union},
            means over targets. `attacks[name]` is {identified, false, only, only_false}: the
            members and non-members that it flags, and those that no other one of them flags;
            `alike[name]` are the attacks whose Jaccard index with it is at least `same`, which are
            not listed themselves. `jaccard` and
            `chance` are lists of rows in the order of `attacks`, None where no member is
            identified. `union` is {identified, false, tpr, fpr, first_tpr} of the records that any
            of them flags; `first_tpr` is the TPR of the first attack alone at the union's FPR.
            {why} if the rate is below a single false positive. None with fewer than two attacks.
    """
    if len(order) < 2:
        return None
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    sides = {
        "members": evaluated_TN & member_TN,
        "nonmembers": evaluated_TN & ~member_TN,
    }
    fewest = int(sides["nonmembers"].sum(1).min())
    if not roc.resolvable(fpr, fewest):
        return dict(
            why=f"a false-positive rate of {100 * fpr:g}% is below one false positive of {fewest} "
            "non-members"
        )
    alike = agreement.groups(
        [attacks[name]["score_TN"] for name in order],
        member_TN,
        evaluated_TN,
        same=SAME,
        most=most,
        fpr=fpr,
    )
    names = [order[first] for first, *_ in alike]
    measured = agreement.measure(
        [attacks[name]["score_TN"] for name in names], member_TN, evaluated_TN, fpr=fpr
    )
    columns = dict(
        identified=measured.identified_A,
        false=measured.false_A,
        only=measured.only_A,
        only_false=measured.only_false_A,
    )
    return dict(
        fpr=fpr,
        targets=len(member_TN),
        **{side: float(rows_TN.sum(1).mean()) for side, rows_TN in sides.items()},
        left_out=len(order) - sum(map(len, alike)),
        same=SAME,
        alike={order[first]: [order[a] for a in more] for first, *more in alike if more},
        jaccard=_rounded(measured.jaccard_AA),
        chance=_rounded(measured.chance_AA),
        attacks={
            name: {key: round(float(of_A[a]), 3) for key, of_A in columns.items()}
            for a, name in enumerate(names)
        },
        union=dict(
            identified=measured.union,
            false=measured.union_false,
            tpr=measured.union_tpr,
            fpr=measured.union_fpr,
            first_tpr=measured.first_tpr,
        ),
    )


def _rounded(value_AA: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in value_AA]
