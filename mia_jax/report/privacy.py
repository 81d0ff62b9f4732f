"""What the canaries prove: an audited lower bound on epsilon next to the accountant's upper bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import checks
from mia_jax.privacy import audit
from mia_jax.report import tables
from mia_jax.types import Design

FIELDS = dict(attacks=(), guesses=(0.05,), delta=None, method="one_run")
DELTA = 1e-5  # of an audit without a promise
TITLE = "Audited lower bound on epsilon"
ALLOWED = ("nothing", "shadows", "population")  # what an attacker may know: nothing that was fitted on the target's own coins
ASSUMES = dict(
    one_run="any mechanism (Steinke et al. 2023)",
    fdp="any mechanism (Mahloujifar et al. 2024)",
    gdp="a mechanism whose trade-off curve is a Gaussian's: not a bound otherwise (Mahloujifar et al. 2024)",
)


def settings(
    wanted: Mapping | None, *, design: Design, knows: Mapping[str, str], level: float, promised: float | None = None, arrays: bool = False
) -> dict | None:
    """The audit that config.report.audit asks for, every field filled in; None without one. Nothing is fixed here after scores were seen.

    `wanted` {attacks, guesses, delta, method}: () means every attack of `knows` = {attack: what it knows} that knows no more than shadows do;
    `guesses` are k+/m = k-/m, the shares of the coins guessed IN and OUT; `delta` None is `promised`, the delta of the private training that is
    audited (DELTA without one). None audits the design `canaries` with the defaults. `arrays`: the caller brought arrays and has no design to choose.
    ValueError without independent fair coins, for unknown fields or attacks, and for attacks fitted on the target's own members.
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
            "report.audit needs canaries, rows that independent fair coins put into the training set, and arrays do not say which rows those are. "
            "Leave report.audit out; an audit of epsilon trains with canaries (configs/dp_fashion_mnist.py)."
        )
    if design.coin_N is None:
        raise ValueError(
            f"report.audit needs independent fair coins, and in the design {design.name!r} members depend on each other or are not drawn: exact "
            "halves, folds and blocks prove nothing about epsilon. Use design.name='canaries' (or 'bernoulli' with probability=0.5)."
        )
    found = FIELDS | dict(wanted) | dict(level=level)
    names = list(found["attacks"]) or [name for name, known in knows.items() if known in ALLOWED]
    for name in names:
        checks.one_of(knows, **{"report.audit.attacks": name})
        if knows[name] not in ALLOWED:
            raise ValueError(f"report.audit: attack {name!r} knows {knows[name]!r}, which was fitted on the coins that it would guess.")
    if not names:
        raise ValueError("report.audit needs at least one attack.")
    checks.one_of(audit.METHODS, **{"report.audit.method": found["method"]})
    found["delta"] = (DELTA if promised is None else promised) if found["delta"] is None else found["delta"]
    checks.fraction(closed="neither", **{"report.audit.delta": found["delta"]})
    shares = tuple(found["guesses"])
    if not shares or not all(0 < share <= 0.5 for share in shares):
        raise ValueError(f"report.audit.guesses={shares} must be shares in (0, 0.5]: of the canaries, guessed IN and as many guessed OUT.")
    return found | dict(attacks=names, guesses=list(shares))


def measure(wanted: Mapping, *, design: Design, score_TN: Mapping[str, np.ndarray], claim: Mapping | None = None) -> dict:
    """{bound, attacks, claim, violated, ...}: the section `audit` of report.json.

    `wanted` is what `settings` returned, `score_TN[name]` the scores of the design's targets; `claim` {epsilon, delta, accountant, adjacency,
    sampling, ...} what an accountant proves about one model at the same delta. The bound shares alpha over all attacks, targets and numbers of
    guesses; an attack's own line over its targets and numbers alone.
    """
    alpha, tries = 1 - wanted["level"], {}
    for name in wanted["attacks"]:
        score = np.asarray(score_TN[name])
        scored = [(t, score[i]) for i, t in enumerate(design.targets) if not np.isnan(score[i, design.evaluated_MN[t]]).all()]
        tries[name] = [(t, counts(own_N, design, t, share)) for t, own_N in scored for share in wanted["guesses"]]
    tries = {name: found for name, found in tries.items() if found}
    if not tries:
        return dict(why="no attack scored a target")
    share = dict(delta=wanted["delta"], method=wanted["method"])
    total = sum(map(len, tries.values()))
    lines = {name: row(audit.best(found, alpha=alpha, **share)) for name, found in tries.items()}
    best = {name: audit.best(found, alpha=alpha, tests=total, **share) for name, found in tries.items()}
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
        level=wanted["level"], delta=wanted["delta"], method=wanted["method"], assumes=ASSUMES[wanted["method"]], guesses=wanted["guesses"]
    )


def other_neighbors(claim: Mapping, *, pairs: bool) -> str:
    """Why these coins do not test the neighbors that the claim is about, with the remedy; '' where they do."""
    adjacency = claim.get("adjacency")
    if (adjacency == "replace_one") != pairs:
        wanted = "design.pairs=True" if adjacency == "replace_one" else "design.pairs=False"
        return f"not under adjacency {adjacency}, which is what is claimed: these coins test another neighbor; audit with {wanted}."
    if claim.get("unit", "example") != "example":
        return (
            f"about one row, and the claim is about all rows of one {tables.code(claim['unit'])}: audit it with canaries that are users of their own."
        )
    if claim.get("sampling") == "shuffle" and not pairs:
        return (
            f"a canary that is out moves others to other batches of a shuffled epoch, and the claim ({adjacency}) leaves them where they are: audit "
            "privacy.sampling='poisson' or 'balls_in_bins'."
        )
    return ""


def counts(score_N: np.ndarray, design: Design, t: int, share: float) -> audit.Guesses:
    """The guesses about target t's coins: `share` of them IN and as many OUT (of pairs: twice that share is decided)."""
    rows = np.flatnonzero(design.coin_N >= 0)
    order = rows[np.argsort(design.coin_N[rows], kind="stable")]
    coin, inside = design.coin_N[order], design.member_MN[t, order]
    score = score_N[order]
    if (np.bincount(coin) == 2).all():
        pairs = len(order) // 2
        return audit.guess_pairs(score.reshape(pairs, 2), inside[::2], guesses=max(1, min(pairs, round(2 * share * pairs))))
    each = max(1, min(len(order) // 2, round(share * len(order))))
    return audit.guess(score, inside, high=each, low=each)


def row(bound: audit.Bound) -> dict:
    """A bound as plain values."""
    found = bound._asdict() | bound.counts._asdict()
    return {k: v for k, v in found.items() if k != "counts"}


def section(found: Mapping) -> str:
    """The section of report.md; a violated claim comes first, in capitals."""
    one = found.get("audit")
    if not one:
        return ""
    head = f"## {TITLE}\n\n"
    if "why" in one:
        return head + f"Nothing: {one['why']}.\n"
    bound, claim = one["bound"], one["claim"]
    said = f"{100 * one['level']:g}% confidence, delta {one['delta']:g}"
    text = head + verdict(one) + other_delta(one, found.get("guarantee"))
    lines = [["audited lower bound", number(bound["epsilon"]), f"{said}; {one['method']}, for {one['assumes']}; best of {bound['tests']} tests"]]
    if claim is not None:
        lines.append(["accounted upper bound", number(claim["epsilon"]), basis(claim)])
    lines.append(["the most this audit could have shown", number(bound["ceiling"]), f"every guess right, {one['coins']:,} coins per model"])
    text += tables.markdown(["", "epsilon", ""], lines, code_first=False, align="left")
    text += "\n" + tables.markdown(["attack", "bound of this attack", "right", "guesses", "most it could have shown"], attack_lines(one["attacks"]))
    kind = "which of two canaries a model was trained on" if one["one_of_two"] else "which canaries a model was trained on"
    text += f"\nAttackers guess {kind}; the numbers of guesses were fixed beforehand, and the coins of several models are never pooled. "
    return text + "An attack's bound holds for an attack that was chosen beforehand; the first line holds for whichever was best.\n"


def other_delta(one: Mapping, promise: Mapping | None) -> str:
    """A sentence where the audit is at another delta than the promise: the two epsilons are not the same quantity."""
    if not promise or promise.get("epsilon") is None or one["delta"] == promise["delta"]:
        return ""
    text = f"This audit was asked for at delta {one['delta']:g}, the promise is at delta {promise['delta']:.3g}: epsilon depends on delta. "
    claimed = f"What the accountant proves at delta {one['delta']:g} is {number(one['claim']['epsilon'])}. " if one["claim"] else ""
    return text + claimed + "Leave report.audit.delta out to audit at the promised delta.\n\n"


def verdict(one: Mapping) -> str:
    """A sentence about bound and claim."""
    bound, claim = one["bound"], one["claim"]
    if claim is None:
        text = f"Epsilon is at least {number(bound['epsilon'])} ({tables.code(bound['attack'])}); "
        return text + "no accountant claims an upper bound for this training.\n\n"
    if one["other_neighbors"]:
        return f"Epsilon is at least {number(bound['epsilon'])}, but {one['other_neighbors']}\n\n"
    if one["violated"]:
        text = f"> **THE CLAIM IS VIOLATED: epsilon is at least {number(bound['epsilon'])}, and {number(claim['epsilon'])} is claimed.** "
        text += f"{tables.code(bound['attack'])} was right {bound['correct']} times of {bound['guesses']} on model {bound['model']}. "
        return text + f"The mechanism that ran is not the one that was accounted{' (if it is Gaussian)' if one['method'] == 'gdp' else ''}.\n\n"
    text = f"Claimed at delta {one['delta']:g}: at most {number(claim['epsilon'])}. Audited: at least {number(bound['epsilon'])}. "
    if bound["ceiling"] <= claim["epsilon"]:
        text += (
            f"**This audit could at most have shown {number(bound['ceiling'])}, so it could not have contradicted {number(claim['epsilon'])}**: that "
        )
        return text + "no violation was seen is no evidence. More canaries or more guesses raise what it can show.\n\n"
    return text + f"No violation was seen, which does not prove that there is none (the audit could have shown up to {number(bound['ceiling'])}).\n\n"


def basis(claim: Mapping) -> str:
    """'pld, delta 1e-05, add_remove, poisson'."""
    parts = [str(claim[k]) for k in ("accountant", "adjacency", "sampling") if claim.get(k)]
    others = [f"{k} {number(v)}" for k, v in (claim.get("others") or {}).items()]
    return ", ".join([*parts, f"delta {claim['delta']:g}", *others])


def attack_lines(attacks: Mapping[str, Mapping]) -> Sequence[Sequence[str]]:
    """One line an attack, the best first."""
    order = sorted(attacks.items(), key=lambda item: -item[1]["epsilon"])
    return [[name, number(a["epsilon"]), f"{a['correct']:,}", f"{a['guesses']:,}", number(a["ceiling"])] for name, a in order]


def number(value: float | None) -> str:
    """An epsilon for a person."""
    return tables.ABSENT if value is None else "infinite" if math.isinf(value) else f"{value:.3g}" if value else "0"
