"""The design of arrays that were supplied: who may attack whom, and what the membership matrix
would give away by itself.
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
    seed: int = 0,
) -> tuple[Design, list[str]]:
    """Returns the design and sentences for the report.

    `target`: row 0 is the target, attacked by all other rows; without one every model is a target
    of all others in turn. Models of one unit never attack each other: complementary members (twins;
    or those that `pair_M`, one number a shadow, says), and the same members, the target's own among
    them. Where the number of IN shadows would still tell members from non-members, `balance` hides
    shadows until it does not.
    """
    first, models = int(target), len(member_MN)
    evaluated_MN = np.tile(~population_N, (models, 1))
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
    supports, lacking = carried(member_MN, evaluated_MN, shadow_MM, targets, balance)
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
    )
    return design, said(twins, copies, target=target, balance=balance)


def count_tells(
    member_MN: np.ndarray, evaluated_MN: np.ndarray, shadow_MM: np.ndarray, t: int
) -> bool:
    """Returns whether all members of t are in one number of its shadows and all its non-members in
    another.
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
    """Tells whether the number of IN shadows tells more than chance who is a member, and every
    scored example has shadows of both sides to hide some.
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


def carried(
    member_MN: np.ndarray,
    evaluated_MN: np.ndarray,
    shadow_MM: np.ndarray,
    targets: Sequence[int],
    balance: bool,
) -> tuple[set[str], str]:
    """Returns the shadow needs that every target's shadows can meet, and in words what they
    cannot.
    """
    both_M = (member_MN & evaluated_MN).any(1) & (~member_MN & evaluated_MN).any(1)
    least = (
        np.min if balance else np.max
    )  # balanced evidence keeps as many shadows of a side as the row with the fewest has
    found, lacking = set(), []
    for need, side_MN, words in (
        ("shadow_in", member_MN, "no usable shadow trained on a scored example"),
        ("shadow_out", ~member_MN, "every usable shadow trained on every scored example"),
    ):
        enough = all(
            shadow_MM[t].any() and least(side_MN[shadow_MM[t]].sum(0)[evaluated_MN[t]]) > 0
            for t in targets
        )
        found |= {need} if enough else set()
        lacking += [] if enough else [words]
    if all((shadow_MM[t] & both_M).any() for t in targets):
        found.add("shadow_own")
    else:
        lacking = lacking or [
            "no usable shadow has members and non-members among the scored examples"
        ]
    if not all(shadow_MM[t].any() for t in targets):
        lacking = ["a target has no shadow but itself, its twin or models of the same members"]
    return found, "; ".join(lacking) or "arrays of the user's own"


def said(
    twins: Sequence[tuple], copies: Sequence[tuple], *, target: bool, balance: bool
) -> list[str]:
    """Returns what the membership matrix told."""
    found = []
    own = {
        kind: [b - 1 for a, b in pairs if target and a == 0]
        for kind, pairs in (("twin", twins), ("copy", copies))
    }
    if own["twin"]:
        found.append(
            f"{shadows_named(own['twin'])} trained on exactly the examples that the target did not "
            "(a twin): not used against it."
        )
    if own["copy"]:
        found.append(
            f"{shadows_named(own['copy'])} trained on exactly the target's members (or the target "
            "itself): not used against it."
        )
    others = {
        kind: [p for p in pairs if not (target and p[0] == 0)]
        for kind, pairs in (("twin", twins), ("copy", copies))
    }
    if others["twin"]:
        found.append(
            f"{len(others['twin'])} pairs of models have complementary members: no model attacks "
            "its twin."
        )
    if others["copy"]:
        found.append(
            f"{len(others['copy'])} pairs of models have the same members: no model attacks one "
            "that was trained on the same examples."
        )
    if balance:
        found.append(
            "The number of shadows that trained on an example would tell whether it is a member, "
            "whatever they answer: for every example the same "
            "number of IN and of OUT shadows is drawn."
        )
    return found


def shadows_named(numbers: Sequence[int]) -> str:
    """Returns 'Shadow 3', 'Shadows 1, 4'."""
    return f"Shadow{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
