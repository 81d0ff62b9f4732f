"""Audits epsilon with canaries: a lower bound next to the accountant's upper bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax import checks
from mia_jax.privacy import audit
from mia_jax.types import Design

FIELDS = dict(attacks=(), guesses=(0.05,), delta=None, method="one_run")
DELTA = 1e-5  # of an audit of training that promises none
# what an attacker may know: nothing that was fitted on the target's own coins
ALLOWED = ("nothing", "shadows", "population")
ASSUMES = dict(
    one_run="any mechanism (Steinke et al. 2023)",
    fdp="any mechanism (Mahloujifar et al. 2024)",
    gdp="a mechanism whose trade-off curve is a Gaussian's: not a bound otherwise (Mahloujifar et "
    "al. 2024)",
)


def settings(
    section: Mapping | None,
    *,
    design: Design,
    knows: Mapping[str, str],
    level: float,
    promised: float | None = None,
    arrays: bool = False,
) -> dict | None:
    """Returns the audit that config.report.audit requests, with every field; None without one.

    Everything is fixed here, before any score is seen.

    Args:
        section: {attacks, guesses, delta, method}, each optional. `attacks` () means every attack
            that knows no more than shadow models. `guesses` are k+/m = k-/m, the shares of the
            coins guessed IN and OUT. `delta` None means `promised`. A section of None audits the
            design `canaries` with the defaults, and no other design.
        design: the design of the run.
        knows: what each attack knows.
        level: the confidence level of the bound.
        promised: the delta of the private training that is audited; None without one (then DELTA).
        arrays: whether the caller supplied arrays and cannot choose a design.

    Raises:
        ValueError: the design has no independent fair coins, a field or an attack is unknown, or an
            attack was fitted on the target's own members.
    """
    if section is None:
        if design.name != "canaries" or not any(k in ALLOWED for k in knows.values()):
            return None
        section = {}
    for field in section:
        if field not in FIELDS:
            raise ValueError(checks.lacks("report.audit", "field", field, FIELDS))
    if design.coin_N is None and arrays:
        raise ValueError(
            "report.audit needs canaries, rows that independent fair coins put into the training "
            "set, and arrays do not say which rows those are. "
            "Leave report.audit out; an audit of epsilon trains with canaries "
            "(configs/dp_fashion_mnist.py)."
        )
    if design.coin_N is None:
        raise ValueError(
            f"report.audit needs independent fair coins, and in the design {design.name!r} members "
            "depend on each other or are not drawn: exact "
            "halves, folds and blocks prove nothing about epsilon. Use design.name='canaries' (or "
            "'bernoulli' with probability=0.5)."
        )
    chosen = FIELDS | dict(section) | dict(level=level)
    names = list(chosen["attacks"]) or [name for name, known in knows.items() if known in ALLOWED]
    for name in names:
        checks.one_of(knows, **{"report.audit.attacks": name})
        if knows[name] not in ALLOWED:
            raise ValueError(
                f"report.audit: attack {name!r} knows {knows[name]!r}, which was fitted on the "
                "coins that it would guess."
            )
    if not names:
        raise ValueError("report.audit needs at least one attack.")
    checks.one_of(audit.METHODS, **{"report.audit.method": chosen["method"]})
    chosen["delta"] = (
        (DELTA if promised is None else promised) if chosen["delta"] is None else chosen["delta"]
    )
    checks.fraction(closed="neither", **{"report.audit.delta": chosen["delta"]})
    shares = tuple(chosen["guesses"])
    if not shares or not all(0 < share <= 0.5 for share in shares):
        raise ValueError(
            f"report.audit.guesses={shares} must be shares in (0, 0.5]: of the canaries, guessed "
            "IN and as many guessed OUT."
        )
    return chosen | dict(attacks=names, guesses=list(shares))


def measure(
    planned: Mapping,
    *,
    design: Design,
    score_TN: Mapping[str, np.ndarray],
    claim: Mapping | None = None,
) -> dict:
    """Returns the section `audit` of report.json.

    The bound shares alpha over all attacks, targets and numbers of guesses. The line of an attack
    shares it only over the targets and numbers of that attack.

    Args:
        planned: what `settings` returned.
        design: the design of the run.
        score_TN: the scores of each attack on the design's targets.
        claim: {epsilon, delta, accountant, adjacency, sampling, ...}, what an accountant proves
            about one model at the same delta; None without one.

    Returns:
        {bound, attacks, claim, violated, other_neighbors, coins, one_of_two, level, delta, method,
            assumes, guesses}; {why} if no attack scored a target.
    """
    alpha, tries = 1 - planned["level"], {}
    for name in planned["attacks"]:
        score = np.asarray(score_TN[name])
        scored = [
            (t, score[i])
            for i, t in enumerate(design.targets)
            if not np.isnan(score[i, design.evaluated_MN[t]]).all()
        ]
        tries[name] = [
            (t, counts(score_N, design, t, share))
            for t, score_N in scored
            for share in planned["guesses"]
        ]
    tries = {name: guesses for name, guesses in tries.items() if guesses}
    if not tries:
        return dict(why="no attack scored a target")
    share = dict(delta=planned["delta"], method=planned["method"])
    total = sum(map(len, tries.values()))
    lines = {
        name: row(audit.best(guesses, alpha=alpha, **share)) for name, guesses in tries.items()
    }
    best = {
        name: audit.best(guesses, alpha=alpha, tests=total, **share)
        for name, guesses in tries.items()
    }
    name = max(best, key=lambda n: best[n].epsilon)
    bound = row(best[name]) | dict(
        attack=name, ceiling=max(best_bound.ceiling for best_bound in best.values())
    )
    coins = int(design.coin_N.max()) + 1
    pairs = bool((np.bincount(design.coin_N[design.coin_N >= 0]) == 2).all())
    claimed = None if claim is None else claim["epsilon"]
    other = "" if claim is None else other_neighbors(claim, pairs=pairs)
    violated = claimed is not None and not other and bound["epsilon"] > claimed
    return dict(
        bound=bound,
        attacks=lines,
        claim=None if claim is None else dict(claim),
        violated=violated,
        other_neighbors=other,
        coins=coins,
        one_of_two=pairs,
        level=planned["level"],
        delta=planned["delta"],
        method=planned["method"],
        assumes=ASSUMES[planned["method"]],
        guesses=planned["guesses"],
    )


def other_neighbors(claim: Mapping, *, pairs: bool) -> str:
    """Returns why these coins do not test the neighbors of the claim, with the remedy.

    Args:
        claim: as in `measure`.
        pairs: whether every coin decides between two rows.

    Returns:
        '' where the coins test these neighbors.
    """
    adjacency = claim.get("adjacency")
    if (adjacency == "replace_one") != pairs:
        remedy = "design.pairs=True" if adjacency == "replace_one" else "design.pairs=False"
        return (
            f"not under the claimed adjacency {adjacency}: these coins test a different one; audit "
            f"with {remedy}."
        )
    if claim.get("unit", "example") != "example":
        return (
            f"that is about one row, and the claim is about all rows of one {claim['unit']!r}: "
            "audit it with canaries that are users "
            "of their own."
        )
    if claim.get("sampling") == "shuffle" and not pairs:
        return (
            "leaving out a canary moves other rows to other batches of a shuffled epoch, while "
            f"the claim ({adjacency}) keeps them in place: audit "
            "with privacy.sampling='poisson' or 'balls_in_bins'."
        )
    return ""


def counts(score_N: np.ndarray, design: Design, t: int, share: float) -> audit.Guesses:
    """Returns the guesses about the coins of target t.

    Args:
        score_N: the scores of the target, higher = more likely a member.
        design: the design of the run, with its coins.
        t: the number of the target.
        share: the share of the coins that is guessed IN; as many are guessed OUT. Of pairs, twice
            that share is decided.
    """
    rows = np.flatnonzero(design.coin_N >= 0)
    order = rows[np.argsort(design.coin_N[rows], kind="stable")]
    coin, inside = design.coin_N[order], design.member_MN[t, order]
    score = score_N[order]
    if (np.bincount(coin) == 2).all():
        pairs = len(order) // 2
        return audit.guess_pairs(
            score.reshape(pairs, 2),
            inside[::2],
            guesses=max(1, min(pairs, round(2 * share * pairs))),
        )
    each = max(1, min(len(order) // 2, round(share * len(order))))
    return audit.guess(score, inside, high=each, low=each)


def row(bound: audit.Bound) -> dict:
    """Returns a bound as plain values."""
    fields = bound._asdict() | bound.counts._asdict()
    return {k: v for k, v in fields.items() if k != "counts"}
