"""Audits epsilon with canaries: a lower bound next to the accountant's upper bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax import checks
from mia_jax.privacy import audit
from mia_jax.types import Design

FIELDS = dict(attacks=(), guesses=(0.05,), delta=None, method="one_run")
DELTA = 1e-5  # of an audit without a promise
ALLOWED = (
    "nothing",
    "shadows",
    "population",
)  # what an attacker may know: nothing that was fitted on the target's own coins
ASSUMES = dict(
    one_run="any mechanism (Steinke et al. 2023)",
    fdp="any mechanism (Mahloujifar et al. 2024)",
    gdp="a mechanism whose trade-off curve is a Gaussian's: not a bound otherwise (Mahloujifar et "
    "al. 2024)",
)


def settings(
    wanted: Mapping | None,
    *,
    design: Design,
    knows: Mapping[str, str],
    level: float,
    promised: float | None = None,
    arrays: bool = False,
) -> dict | None:
    """Returns the audit that config.report.audit asks for, with every field; None without one.

    Nothing is fixed here after scores were seen.

    `wanted` {attacks, guesses, delta, method}: () means every attack of `knows` = {attack: what it
    knows} that knows no more than shadows do; `guesses` are k+/m = k-/m, the shares of the coins
    guessed IN and OUT; `delta` None is `promised`, the delta of the private training that is
    audited (DELTA without one). None audits the design `canaries` with the defaults. `arrays`: the
    caller supplied arrays and has no design to choose. ValueError without independent fair coins,
    for unknown fields or attacks, and for attacks fitted on the target's own members.
    """
    if wanted is None:
        if design.name != "canaries" or not any(k in ALLOWED for k in knows.values()):
            return None
        wanted = {}
    for field in wanted:
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
    found = FIELDS | dict(wanted) | dict(level=level)
    names = list(found["attacks"]) or [name for name, known in knows.items() if known in ALLOWED]
    for name in names:
        checks.one_of(knows, **{"report.audit.attacks": name})
        if knows[name] not in ALLOWED:
            raise ValueError(
                f"report.audit: attack {name!r} knows {knows[name]!r}, which was fitted on the "
                "coins that it would guess."
            )
    if not names:
        raise ValueError("report.audit needs at least one attack.")
    checks.one_of(audit.METHODS, **{"report.audit.method": found["method"]})
    found["delta"] = (
        (DELTA if promised is None else promised) if found["delta"] is None else found["delta"]
    )
    checks.fraction(closed="neither", **{"report.audit.delta": found["delta"]})
    shares = tuple(found["guesses"])
    if not shares or not all(0 < share <= 0.5 for share in shares):
        raise ValueError(
            f"report.audit.guesses={shares} must be shares in (0, 0.5]: of the canaries, guessed "
            "IN and as many guessed OUT."
        )
    return found | dict(attacks=names, guesses=list(shares))


def measure(
    wanted: Mapping,
    *,
    design: Design,
    score_TN: Mapping[str, np.ndarray],
    claim: Mapping | None = None,
) -> dict:
    """Returns the section `audit` of report.json: {bound, attacks, claim, violated, ...}.

    `wanted` is what `settings` returned, `score_TN[name]` the scores of the design's targets;
    `claim` {epsilon, delta, accountant, adjacency, sampling, ...} what an accountant proves about
    one model at the same delta. The bound shares alpha over all attacks, targets and numbers of
    guesses; an attack's own line over its targets and numbers alone.
    """
    alpha, tries = 1 - wanted["level"], {}
    for name in wanted["attacks"]:
        score = np.asarray(score_TN[name])
        scored = [
            (t, score[i])
            for i, t in enumerate(design.targets)
            if not np.isnan(score[i, design.evaluated_MN[t]]).all()
        ]
        tries[name] = [
            (t, counts(own_N, design, t, share))
            for t, own_N in scored
            for share in wanted["guesses"]
        ]
    tries = {name: found for name, found in tries.items() if found}
    if not tries:
        return dict(why="no attack scored a target")
    share = dict(delta=wanted["delta"], method=wanted["method"])
    total = sum(map(len, tries.values()))
    lines = {name: row(audit.best(found, alpha=alpha, **share)) for name, found in tries.items()}
    best = {
        name: audit.best(found, alpha=alpha, tests=total, **share) for name, found in tries.items()
    }
    name = max(best, key=lambda n: best[n].epsilon)
    bound = row(best[name]) | dict(attack=name, ceiling=max(one.ceiling for one in best.values()))
    coins = int(design.coin_N.max()) + 1
    pairs = bool((np.bincount(design.coin_N[design.coin_N >= 0]) == 2).all())
    claimed = None if claim is None else claim["epsilon"]
    other = "" if claim is None else other_neighbors(claim, pairs=pairs)
    violated = claimed is not None and not other and bound["epsilon"] > claimed
    found = dict(
        bound=bound,
        attacks=lines,
        claim=None if claim is None else dict(claim),
        violated=violated,
        other_neighbors=other,
        coins=coins,
        one_of_two=pairs,
    )
    return found | dict(
        level=wanted["level"],
        delta=wanted["delta"],
        method=wanted["method"],
        assumes=ASSUMES[wanted["method"]],
        guesses=wanted["guesses"],
    )


def other_neighbors(claim: Mapping, *, pairs: bool) -> str:
    """Returns why these coins do not test the neighbors of the claim, with the remedy.

    '' where they test them.
    """
    adjacency = claim.get("adjacency")
    if (adjacency == "replace_one") != pairs:
        wanted = "design.pairs=True" if adjacency == "replace_one" else "design.pairs=False"
        return (
            f"not under the claimed adjacency {adjacency}: these coins test a different one; audit "
            f"with {wanted}."
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

    A `share` of the coins is guessed IN and as many are guessed OUT; of pairs, twice that share is
    decided.
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
    found = bound._asdict() | bound.counts._asdict()
    return {k: v for k, v in found.items() if k != "counts"}
