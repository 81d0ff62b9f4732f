"""Makes the design of supplied arrays: who may attack whom.

It also detects what the membership matrix itself would give away, such as twins and fixed counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax.designs import _rows
from mia_jax.metrics import membership
from mia_jax.types import Design


def make(
    member_MN: np.ndarray,
    population_N: np.ndarray,
    *,
    target: bool,
    shadows: bool,
    pair_M: np.ndarray | None = None,
    coin_N: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Design, list[str]]:
    """Returns the design of supplied arrays, and notes for the report.

    Models of one unit never attack each other. These are models with complementary members (twins)
    and models with the same members, such as a shadow that is the target itself. If the number of
    IN shadows would still reveal who is a member, the design is balanced: it hides shadows until
    all examples have equally many.

    Args:
        member_MN: whether model m was trained on example n.
        population_N: rows that no model was trained on and that are not scored.
        target: whether row 0 is the target, which all other rows attack; if not, every model is
            the target of all others in turn.
        shadows: whether shadow models were supplied.
        pair_M: one number per shadow; shadows with the same number are twins. None: twins are
            detected.
        coin_N: the number of the fair coin that decided about an example, -1 without one; only
            examples with a coin are scored. None if there are no coins.
        seed: the seed of the shadows that are hidden.

    Raises:
        ValueError: if a coin of two examples did not pick exactly one of them.
    """
    first, models = int(target), len(member_MN)
    scored_N = ~population_N if coin_N is None else coin_N >= 0
    evaluated_MN = np.tile(scored_N, (models, 1))
    if coin_N is not None:
        check_alternatives(member_MN, coin_N)
    twins, copies = membership.relations(member_MN, evaluated_MN)
    unit_M = np.arange(models)
    if pair_M is not None:
        unit_M[first:] = np.unique(pair_M, return_inverse=True)[1] + first
    for a, b in [*(p for p in twins if pair_M is None or (target and p[0] == 0)), *copies]:
        unit_M[unit_M == unit_M[b]] = unit_M[a]
    shadow_MM = unit_M[:, None] != unit_M[None]
    if target:
        shadow_MM[:, 0] = False
    targets = (0,) if target else tuple(range(models))
    balance = any(count_tells(member_MN, evaluated_MN, shadow_MM, t) for t in targets)
    balance = balance or count_hints(member_MN, evaluated_MN, shadow_MM, unit_M, targets)
    supports, lacking = supported_needs(member_MN, evaluated_MN, shadow_MM, targets, balance)
    design = _rows.checked(
        name="supplied",
        member_MN=member_MN,
        evaluated_MN=evaluated_MN,
        shadow_MM=shadow_MM,
        population_N=population_N,
        unit_M=unit_M,
        targets=targets,
        supports=frozenset(supports),
        note=lacking if shadows else "no shadow models were given",
        num_rows=int(member_MN.sum(1).max()),
        balance=balance,
        seed=seed,
        coin_N=coin_N,
    )
    return design, relation_notes(twins, copies, target=target, balance=balance)


def check_alternatives(member_MN: np.ndarray, coin_N: np.ndarray) -> None:
    """Raises ValueError unless each coin of two examples picked exactly one of them."""
    rows = np.flatnonzero(coin_N >= 0)
    order = rows[np.argsort(coin_N[rows], kind="stable")]
    if (np.bincount(coin_N[order]) == 1).all():
        return
    picked_MP = member_MN[:, order].reshape(len(member_MN), -1, 2).sum(2)
    wrong = int((picked_MP != 1).sum())
    if wrong:
        raise ValueError(
            f"coin: {wrong} coins of two examples did not pick exactly one of them as a member; "
            "give each example its own number if an own coin decided about it."
        )


def count_tells(
    member_MN: np.ndarray, evaluated_MN: np.ndarray, shadow_MM: np.ndarray, t: int
) -> bool:
    """Returns whether the number of IN shadows reveals with certainty who is a member of target t.

    This is so if every member of t is in the same number of its shadows, and every non-member in
    the same other number.
    """
    count_N = member_MN[shadow_MM[t]].sum(0)
    inside, outside = (
        np.unique(count_N[evaluated_MN[t] & side_N]) for side_N in (member_MN[t], ~member_MN[t])
    )
    return len(inside) == len(outside) == 1 and inside[0] != outside[0]


def count_hints(
    member_MN: np.ndarray,
    evaluated_MN: np.ndarray,
    shadow_MM: np.ndarray,
    unit_M: np.ndarray,
    targets: Sequence[int],
) -> bool:
    """Returns whether the number of IN shadows predicts membership better than by chance.

    False as well if a scored example has no IN or no OUT shadow, because then none can be hidden.

    Args:
        member_MN: whether model m was trained on example n.
        evaluated_MN: whether example n is scored when model m is the target.
        shadow_MM: [t, m], whether model m attacks target t.
        unit_M: models with the same number are resampled together.
        targets: the models that are audited.
    """
    targets = [t for t in targets if shadow_MM[t].any()]
    if not targets:
        return False
    off = membership.counted(member_MN, evaluated_MN, shadow_MM, targets).mean() - 0.5
    if abs(off) <= membership.chance(member_MN[targets], evaluated_MN[targets], unit_M[targets]):
        return False
    return all(
        side_MN[shadow_MM[t]].sum(0)[evaluated_MN[t]].min() > 0
        for t in targets
        for side_MN in (member_MN, ~member_MN)
    )


def supported_needs(
    member_MN: np.ndarray,
    evaluated_MN: np.ndarray,
    shadow_MM: np.ndarray,
    targets: Sequence[int],
    balance: bool,
) -> tuple[set[str], str]:
    """Returns the shadow needs that the shadows of every target meet, and what they do not meet.

    Returns:
        (supports, words): a part of SHADOW_NEEDS (mia_jax.threat_model), and a text that says what
        is lacking.
    """
    both_M = (member_MN & evaluated_MN).any(1) & (~member_MN & evaluated_MN).any(1)
    # Balanced evidence keeps as many shadows of a side as the row with the fewest has.
    least = np.min if balance else np.max
    supports, lacking = set(), []
    for need, side_MN, words in (
        ("shadow_in", member_MN, "no usable shadow trained on a scored example"),
        ("shadow_out", ~member_MN, "every usable shadow trained on every scored example"),
    ):
        enough = all(
            shadow_MM[t].any() and least(side_MN[shadow_MM[t]].sum(0)[evaluated_MN[t]]) > 0
            for t in targets
        )
        if enough:
            supports.add(need)
        else:
            lacking.append(words)
    # Where no OUT (or no IN) shadow is kept, the shadows that are kept show one side only.
    one_sided = balance and len(supports) < 2
    if all((shadow_MM[t] & both_M).any() for t in targets) and not one_sided:
        supports.add("shadow_own")
    else:
        lacking = lacking or [
            "no usable shadow has members and non-members among the scored examples"
        ]
    if not all(shadow_MM[t].any() for t in targets):
        lacking = ["a target has no shadow but itself, its twin or models of the same members"]
    return supports, "; ".join(lacking) or "user-supplied arrays"


def relation_notes(
    twins: Sequence[tuple], copies: Sequence[tuple], *, target: bool, balance: bool
) -> list[str]:
    """Returns sentences about twins, copies and hidden shadows for the report.

    Args:
        twins: pairs (a, b) of models with complementary members.
        copies: pairs (a, b) of models with the same members.
        target: whether row 0 is the target.
        balance: whether the design hides shadows.
    """
    notes = []
    of_target = {
        kind: [b - 1 for a, b in pairs if target and a == 0]
        for kind, pairs in (("twin", twins), ("copy", copies))
    }
    if of_target["twin"]:
        notes.append(
            f"{list_shadows(of_target['twin'])} trained on exactly the examples that the "
            "target did not (a twin): not used against it."
        )
    if of_target["copy"]:
        notes.append(
            f"{list_shadows(of_target['copy'])} trained on exactly the target's members (or "
            "the target itself): not used against it."
        )
    others = {
        kind: [p for p in pairs if not (target and p[0] == 0)]
        for kind, pairs in (("twin", twins), ("copy", copies))
    }
    if others["twin"]:
        notes.append(
            f"{len(others['twin'])} pairs of models have complementary members: no model attacks "
            "its twin."
        )
    if others["copy"]:
        notes.append(
            f"{len(others['copy'])} pairs of models have the same members: no model attacks one "
            "that was trained on the same examples."
        )
    if balance:
        notes.append(
            "The number of shadows that trained on an example would tell whether it is a member, "
            "whatever they answer: for every example the same number of IN and of OUT shadows is "
            "drawn."
        )
    return notes


def list_shadows(numbers: Sequence[int]) -> str:
    """Returns 'Shadow 3' for [3] and 'Shadows 1, 4' for [1, 4]."""
    return f"Shadow{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
