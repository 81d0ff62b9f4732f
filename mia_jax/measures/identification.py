"""Measures how many records an attacker identifies who bounds the expected share of false ones: the
section `identification` of report.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import conformal
from mia_jax.metrics.record_groups import EXACT

SHARE = 0.1
MOST = 10  # attacks that are measured


def measure(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    order: Sequence[str],
    targets: Sequence[int],
    seed: int = 0,
    share: float = SHARE,
    most: int = MOST,
) -> dict | None:
    """Returns the section `identification` of report.json.

    Of each target, a random half of the scored non-members is known to the attacker; the others and
    all scored members are the candidates. The half is the same for all attacks.

    Args:
        attacks: {attack: what has its `score_TN`}.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        order: the attacks that a real attacker could run, the strongest first.
        targets: the numbers of the targets; with `seed` the key of a target's split.
        seed: the seed of the splits.
        share: the largest expected share of non-members among the identified records.
        most: how many of the first attacks are measured.

    Returns:
        {share, seed, targets, left_out, candidates, calibration, expected_share, attacks}, means
            over targets. `expected_share` is `share` times the share of non-members among the
            candidates, the bound that holds for every score. `attacks[name]` is {identified, false,
            realized_share, targets_with_any}: the records that are named, the non-members among
            them, and the mean of false / identified, which is 0 for a target where none is named.
            `fewest` is the smallest number of records that can be named in a target. None without
            an attack or without two scored non-members of every target.
    """
    names = list(order)[:most]
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    nonmember_TN = evaluated_TN & ~member_TN
    if not names or nonmember_TN.sum(1).min() < 2:
        return None
    calibration_TN, other_TN = np.stack(
        [
            conformal.split(nonmember_N, (seed, int(t)))
            for t, nonmember_N in zip(targets, nonmember_TN, strict=True)
        ],
        axis=1,
    )
    candidate_TN = (evaluated_TN & member_TN) | other_TN
    size_T, calibration_T = candidate_TN.sum(1), calibration_TN.sum(1)
    return dict(
        share=share,
        seed=seed,
        targets=len(member_TN),
        left_out=len(order) - len(names),
        candidates=float(size_T.mean()),
        calibration=float(calibration_T.mean()),
        fewest=min(
            conformal.fewest(int(size), int(known), share)
            for size, known in zip(size_T, calibration_T, strict=True)
        ),
        expected_share=float(share * (other_TN.sum(1) / size_T).mean()),
        attacks={
            name: _of_attack(
                np.asarray(attacks[name]["score_TN"]),
                member_TN,
                candidate_TN,
                calibration_TN,
                share=share,
            )
            for name in names
        },
    )


def _of_attack(
    score_TN: np.ndarray, member_TN, candidate_TN, calibration_TN, *, share: float
) -> dict[str, float]:
    """Returns the means over targets of what one attack identifies."""
    named_T, false_T = np.zeros((2, len(score_TN)))
    for t, score_N in enumerate(score_TN):
        row_K = np.flatnonzero(candidate_TN[t])
        known_C = score_N[calibration_TN[t]]
        if len(score_N) > EXACT:
            member_K = member_TN[t, row_K]
            named_T[t], false_T[t] = conformal.counts(
                score_N[row_K], member_K, known_C, share=share
            )
            continue
        named_K = conformal.identify(score_N[row_K], known_C, share=share).named_K
        named_T[t], false_T[t] = named_K.sum(), (named_K & ~member_TN[t, row_K]).sum()
    return dict(
        identified=float(named_T.mean()),
        false=float(false_T.mean()),
        realized_share=float((false_T / np.maximum(named_T, 1)).mean()),
        targets_with_any=int((named_T > 0).sum()),
    )
