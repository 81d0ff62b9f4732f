"""Audits epsilon with canaries: a lower bound next to the accountant's upper bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from mia_jax import checks
from mia_jax.privacy import audit, audit_order, audit_runs, audit_shift, audit_sums
from mia_jax.privacy.audit_shift import Shift
from mia_jax.types import Design

FIELDS = dict(
    attacks=(),
    guesses=(0.05,),
    delta=None,
    method="one_run",
    epsilon=None,
    labels=False,
    shift=0.0,
    slack=0.0,
    control=None,
)
DELTA = 1e-5  # of an audit of training that promises none
# what an attacker may know: nothing that was fitted on the target's own coins
ALLOWED = ("nothing", "shadows", "population")
# what an attacker may know so that its scores of one run depend on no other run
SINGLE_RUN = ("nothing", "population")
GROWING = ("order", "rank_sum")  # methods that add up runs
# control rows refute a stated shift that is right with so small a probability
REFUTED = 1e-3
UNFAIR = 1e-6  # fair coins are as uneven as this or more with so small a probability
ANY = "any mechanism"
CURVE = "a mechanism whose trade-off curve is a Gaussian's"
INDEPENDENT = "canaries independent given the coins"
ASSUMES = dict(
    one_run=f"{ANY} (Steinke et al. 2023)",
    fdp=f"{ANY} (Mahloujifar et al. 2024)",
    gdp=f"{CURVE}: not a bound otherwise (Mahloujifar et al. 2024)",
    order_dp=f"{ANY}, {INDEPENDENT}",
    order=f"{CURVE}, {INDEPENDENT}",
    sum=f"{CURVE}, {INDEPENDENT}, normal scores",
    rank_sum=f"{CURVE}, {INDEPENDENT}",
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
        section: some of FIELDS. `attacks` () means every
            attack that knows no more than shadow models. `guesses` are k+/m = k-/m, the shares of
            the coins guessed IN and OUT. `delta` None means `promised`. `epsilon` is the claim
            about supplied arrays. `labels` says that each coin decides between two labels of one
            row (label inference, external/label_inference.py), which differ from fair coins by
            `shift` (log odds; None: estimated from `control`) up to `slack`; `control` are the
            guesses {pairs, guesses, correct} about rows outside the training set, a list entry per
            share. A section of None audits the design `canaries` and arrays with
            coins with the defaults, and no other design.
        design: the design of the run.
        knows: what each attack knows.
        level: the confidence level of the bound.
        promised: the delta of the private training that is audited; None without one (then DELTA).
        arrays: whether the caller supplied arrays and cannot choose a design.

    Raises:
        ValueError: the design has no independent fair coins, the coins of supplied arrays cannot
            be fair, a field or an attack is unknown, an attack was fitted on the target's own
            members, or not even perfect guesses would show an epsilon above 0.
    """
    if section is None:
        coins = design.name == "canaries" or (arrays and design.coin_N is not None)
        if not coins or not any(k in ALLOWED for k in knows.values()):
            return None
        section = {}
    for field in section:
        if field not in FIELDS:
            raise ValueError(checks.lacks("report.audit", "field", field, FIELDS))
    if design.coin_N is None and arrays:
        raise ValueError(
            "report.audit needs canaries, rows that independent fair coins put into the training "
            "set, and the arrays do not say which rows those are. Pass coin=..., True for these "
            "rows (or the number of the coin that decided about a row, and -1), or leave "
            "report.audit out."
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
    if chosen["epsilon"] is not None:
        if not arrays:
            raise ValueError(
                f"report.audit.epsilon={chosen['epsilon']} is the claim about supplied arrays; the "
                "claim about models that are trained here is that of learner.privacy. Leave it out."
            )
        checks.at_least(0, **{"report.audit.epsilon": chosen["epsilon"]})
    if arrays:
        check_coins(design)
    chosen |= dict(attacks=names, guesses=list(shares))
    chosen |= check_shift(chosen)
    check_ceiling(chosen, design)
    return chosen | dict(single_run=[name for name in names if knows[name] in SINGLE_RUN])


def check_shift(chosen: Mapping) -> dict:
    """Returns the fields of the shift, as plain values.

    Raises:
        ValueError: labels are not audited and there is a shift, it is neither given nor can be
            estimated, or control rows show that it is larger.
    """
    shift, control = chosen["shift"], chosen["control"]
    if not chosen["labels"] and (shift != 0 or chosen["slack"] or control is not None):
        raise ValueError(
            f"report.audit: shift={shift}, slack={chosen['slack']} and control are about labels of "
            "a proxy model; pass them in mia_jax.audit(label_inference=...). Fair coins have none."
        )
    if shift is None and control is None:
        raise ValueError(
            "report.audit.shift=None is estimated from guesses about control rows, and there are "
            "none: pass the log odds, 0.0 if the proxy draws labels from their own distribution."
        )
    known = audit_shift.checked(Shift(0.0 if shift is None else shift, chosen["slack"]))
    shown = shift_shown(chosen, alpha=REFUTED)
    if shift is not None and shown is not None and shown > shift:
        raise ValueError(
            f"shift={shift}, and guesses about control rows, on which the model was not trained, "
            f"show a shift of at least {shown:.3g}: the proxy's labels are further from their true "
            "distribution than was stated, and no bound on epsilon follows. State a larger shift, "
            "or pass shift=None to have it estimated."
        )
    return dict(
        shift=None if shift is None else float(known.odds),
        slack=float(known.slack),
        control=None if control is None else {key: list(value) for key, value in control.items()},
    )


def shift_of(chosen: Mapping) -> tuple[Shift, float]:
    """Returns the shift of the coins, and the alpha that is left for the bound.

    A shift that is estimated from control rows takes half of alpha, shared over the numbers of
    guesses.
    """
    alpha = 1 - chosen["level"]
    if chosen["shift"] is not None:
        return Shift(chosen["shift"], chosen["slack"]), alpha
    control, counts = chosen["control"], len(chosen["control"]["guesses"])
    odds = max(
        audit_shift.estimated(guesses=guesses, correct=correct, alpha=alpha / 2 / counts)
        for guesses, correct in zip(control["guesses"], control["correct"], strict=True)
    )
    return Shift(odds, chosen["slack"], estimated=True), alpha / 2


def shift_shown(chosen: Mapping, *, alpha: float) -> float | None:
    """Returns a lower bound on the shift from the guesses about control rows; None without any.

    There only the order of the labels can be right, so what these guesses show of a mechanism's
    epsilon is a bound on the shift.
    """
    control = chosen["control"]
    if control is None:
        return None
    counts = zip(control["pairs"], control["guesses"], control["correct"], strict=True)
    tries = [(0, audit.Guesses(*count)) for count in counts]
    return audit.best(tries, delta=chosen["slack"], alpha=alpha).epsilon


def shift_numbers(chosen: Mapping) -> dict | None:
    """Returns what report.json says of the shift of label pairs; None for other coins.

    Returns:
        {odds, slack, estimated, control, shown}. `shown` is the lower bound on the shift that the
            control rows prove, None without control rows.
    """
    if not chosen["labels"]:
        return None
    shown = shift_shown(chosen, alpha=1 - chosen["level"])
    return shift_of(chosen)[0]._asdict() | dict(control=chosen["control"], shown=shown)


def claim_about_arrays(planned: Mapping, design: Design) -> dict:
    """Returns the claim that a caller made about supplied arrays.

    It is about the neighbors that the coins decide between.
    """
    _, paired, _ = coins_of(design, design.targets[0])
    return dict(
        epsilon=planned["epsilon"],
        delta=planned["delta"],
        adjacency="replace_label"
        if planned.get("labels")
        else "replace_one"
        if paired
        else "add_remove",
    )


def check_coins(design: Design) -> None:
    """Raises ValueError if the coins of supplied arrays cannot have been fair and independent.

    They are not if far more or fewer than half of a model's coins came up IN, or if exactly as many
    did in each of three models or more.
    """
    inside = [coins_of(design, t)[2].sum() for t in design.targets]
    total = len(coins_of(design, design.targets[0])[2])
    for t, count in zip(design.targets, inside, strict=True):
        if stats.binomtest(int(count), total).pvalue < UNFAIR:
            raise ValueError(
                f"member: {count} of {total} canaries of model {t} are members, which independent "
                "fair coins do not give: no bound on epsilon follows. Let a coin with probability "
                "1/2 decide about each canary, and mark only those rows in coin=... ."
            )
    if len(inside) > 2 and len(set(inside)) == 1 and total > 20:
        raise ValueError(
            f"member: exactly {inside[0]} of {total} canaries are members of each of "
            f"{len(inside)} models, so that their number was fixed and coins were not independent: "
            "no bound on epsilon follows. Flip an independent fair coin for each canary."
        )


def check_ceiling(chosen: Mapping, design: Design) -> None:
    """Raises ValueError if no guesses, not even perfect ones, would show an epsilon above 0."""
    t, method = design.targets[0], chosen["method"]
    _, paired, inside = coins_of(design, t)
    coins = len(inside)
    if method in audit_sums.METHODS:
        audit_sums.enough(coins)
    shift, whole = shift_of(chosen)
    alpha = whole / (len(chosen["attacks"]) * len(design.targets) * len(shares_of(chosen, method)))
    guesses = [guesses_about(coins, share, paired=paired) for share in shares_of(chosen, method)]

    def top(delta: float) -> float:
        return max(
            audit.ceiling(
                canaries=coins, guesses=k, delta=delta, alpha=alpha, method=method, shift=shift
            )
            for k in guesses
        )

    if top(chosen["delta"]) > 0:
        return
    most = max(guesses)
    if shift.odds and audit.ceiling(
        canaries=coins, guesses=most, delta=chosen["delta"], alpha=alpha, method=method
    ):
        raise ValueError(
            f"a shift of {shift.odds:.3g} (slack {shift.slack:g}) is too large for {coins:,} pairs "
            f"of labels: {most} perfect guesses would show no epsilon above 0. Use a proxy model "
            "that is nearer to the labels' distribution, more control rows, or more pairs."
        )
    if shift.slack:
        raise ValueError(
            f"slack={shift.slack} is too large for {coins:,} pairs of labels: "
            f"up to 2 x {coins:,} x slack is added to every p-value, so {most} perfect guesses "
            "would show nothing. Use method='fdp' or fewer pairs, or state the shift as log odds."
        )
    if method in ("one_run", "fdp", "order_dp") and top(1e-12) > 0:
        raise ValueError(
            f"report.audit.delta={chosen['delta']} is too large for {coins:,} canaries: the method "
            f"{method!r} adds up to 2 x {coins:,} x delta to every p-value, so {most} perfect "
            "guesses would show nothing. Lower delta, or audit with fewer canaries."
        )
    raise ValueError(
        f"{coins:,} canaries with {most} guesses are too few for any bound: at level "
        f"{alpha:.2g} per test (attacks x models x shares of guesses) perfect guesses would "
        "show nothing. Use more canaries, larger report.audit.guesses, or fewer attacks and models."
    )


def shares_of(planned: Mapping, method: str) -> list[float]:
    """Returns the shares of the coins that a method guesses IN, and as many OUT.

    'order' has its own, the most efficient one; sums guess nothing and count as one try.
    """
    if method == "order":
        return [audit_order.SHARE]
    return [0.0] if method in audit_sums.METHODS else list(planned["guesses"])


def measure(
    planned: Mapping,
    *,
    design: Design,
    score_TN: Mapping[str, np.ndarray],
    claim: Mapping | None = None,
    refused: Sequence[str] = (),
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
        refused: the differences between the mechanism that was accounted for and the one that ran,
            for which there is no claim.

    Returns:
        {bound, attacks, methods, growing, claim, refused, violated, other_neighbors, coins,
            one_of_two, shift, level, delta, method, assumes, guesses}; {why} if no attack scored a
            target. `shift` is what `shift_numbers` returns, `methods` are the rows of `by_method`,
            `growing` is what `over_runs` returns.
    """
    method, evidence = planned["method"], {}
    shift, alpha = shift_of(planned)
    for name in planned["attacks"]:
        score = np.asarray(score_TN[name])
        scored = [
            (t, score[i])
            for i, t in enumerate(design.targets)
            if not np.isnan(score[i, design.evaluated_MN[t]]).all()
        ]
        if scored:
            evidence[name] = scored
    if not evidence:
        return dict(why="no attack scored a target")

    def tries_of(method: str) -> dict[str, list]:
        return {
            name: [
                (t, statistics(score_N, design, t, share, method))
                for t, score_N in scored
                for share in shares_of(planned, method)
            ]
            for name, scored in evidence.items()
        }

    share = dict(delta=planned["delta"], method=method, shift=shift)
    tries = tries_of(method)
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
    shifted = shift_numbers(planned)
    violated = claimed is not None and not other and bound["epsilon"] > claimed
    return dict(
        bound=bound,
        attacks=lines,
        methods=by_method(tries_of, planned, mu=mu_of(claim, planned, other)),
        growing=None if shifted else over_runs(evidence, planned, design),
        claim=None if claim is None else dict(claim),
        refused=list(refused),
        violated=violated,
        other_neighbors=other,
        coins=coins,
        one_of_two=pairs,
        shift=shifted,
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
    if (adjacency in ("replace_one", "replace_label")) != pairs:
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


def mu_of(claim: Mapping | None, planned: Mapping, other: str) -> float | None:
    """Returns mu of a Gaussian mechanism with the claimed epsilon; None without a tested claim."""
    if claim is None or other or claim["epsilon"] is None or not np.isfinite(claim["epsilon"]):
        return None
    return audit.gaussian_mu(claim["epsilon"], planned["delta"])


def by_method(
    tries_of: Callable[[str], Mapping[str, list]], planned: Mapping, *, mu: float | None
) -> list[dict]:
    """Returns what every method shows, what it could have shown, and what an ideal attacker would.

    Args:
        tries_of: tries_of(method) -> {attack: [(model, counts or sums)]}.
        planned: what `settings` returned.
        mu: that of the claimed mechanism; None without one.

    Returns:
        A row per method: {method, assumes, attack, model, epsilon, tests, corrected, ceiling,
            ideal}. `epsilon` holds if this method was chosen in advance, and shares the level over
            attacks, models and numbers of guesses (`tests`); all `corrected` ones hold together.
            `ceiling` is the largest `epsilon` with these canaries, `ideal` what an ideal attacker
            of a Gaussian mechanism with the claimed epsilon expects at the level of one of
            `tests`. {method, assumes, why} if there are too few
            canaries.
    """
    rows: list[dict] = []
    shift, alpha = shift_of(planned)
    for method in audit.METHODS:
        why = audit_shift.usable(shift, method, gaussian=method in audit.GAUSSIAN)
        try:
            tries = [(name, *one) for name, each in tries_of(method).items() for one in each]
        except ValueError as error:
            why = str(error)
        if why:
            rows.append(dict(method=method, assumes=ASSUMES[method], why=why))
            continue
        common = dict(delta=planned["delta"], method=method, shift=shift)
        pairs = [(i, counts) for i, (_, _, counts) in enumerate(tries)]
        best = audit.best(pairs, alpha=alpha, **common)
        together = audit.best(pairs, alpha=alpha, tests=len(tries) * len(audit.METHODS), **common)
        ideal = None
        if mu is not None:
            share = alpha / len(tries)
            sizes = {audit.size(counts) for _, counts in pairs}
            ideal = max(
                audit.ideal(mu, canaries=n, guesses=k, alpha=share, **common) for n, k in sizes
            )
        attack, model, _ = tries[best.model]
        rows.append(
            dict(
                method=method,
                assumes=ASSUMES[method],
                attack=attack,
                model=model,
                epsilon=best.epsilon,
                tests=len(tries),
                corrected=together.epsilon,
                ceiling=best.ceiling,
                ideal=ideal,
            )
        )
    return rows


def over_runs(evidence: Mapping[str, list], planned: Mapping, design: Design) -> dict | None:
    """Returns the bound of all runs together, after each run; None if runs cannot be added up.

    It may be looked at while the fleet grows: all bounds hold together, at the level of the audit.
    Attacks that read other models are left out, because the runs' scores are not independent then.

    Returns:
        {attack, method, epsilon, models}: of the attack and method with the largest last bound; the
            level is shared over these attacks and methods. `epsilon` has a bound after each of
            `models`.
    """
    attacks = [name for name in planned["single_run"] if len(evidence.get(name, ())) > 1]
    coins = len(coins_of(design, design.targets[0])[2])
    if not attacks or coins < audit_sums.FEWEST:
        return None
    alpha, rows = (1 - planned["level"]) / (len(attacks) * len(GROWING)), []
    for name in attacks:
        for method in GROWING:
            share = shares_of(planned, method)[0]
            counts_R = [
                statistics(score_N, design, t, share, method) for t, score_N in evidence[name]
            ]
            bounds = audit_runs.running(
                counts_R, delta=planned["delta"], alpha=alpha, method=method
            )
            models = [t for t, _ in evidence[name]]
            rows.append(dict(attack=name, method=method, epsilon=bounds, models=models))
    return max(rows, key=lambda made: made["epsilon"][-1])


def coins_of(design: Design, t: int) -> tuple[np.ndarray, bool, np.ndarray]:
    """Returns (rows, paired, inside) of the coins of target t.

    Args:
        design: the design of the run, with its coins.
        t: the number of the target.

    Returns:
        rows: the rows with a coin, in the order of the coins; of pairs two of each coin.
        paired: whether each coin decides between two rows.
        inside: of each coin, whether the row (or the first of the two) is a member.
    """
    rows = np.flatnonzero(design.coin_N >= 0)
    order = rows[np.argsort(design.coin_N[rows], kind="stable")]
    inside = design.member_MN[t, order]
    if (np.bincount(design.coin_N[order]) == 2).all():
        return order, True, inside[::2]
    return order, False, inside


def guesses_about(coins: int, share: float, *, paired: bool) -> int:
    """Returns the number of guesses: `share` of the coins IN, and as many OUT."""
    if paired:
        return max(1, min(coins, round(2 * share * coins)))
    return 2 * max(1, min(coins // 2, round(share * coins)))


def counts(score_N: np.ndarray, design: Design, t: int, share: float) -> audit.Guesses:
    """Returns the guesses about the coins of target t.

    Args:
        score_N: the scores of the target, higher = more likely a member.
        design: the design of the run, with its coins.
        t: the number of the target.
        share: the share of the coins that is guessed IN; as many are guessed OUT. Of pairs, twice
            that share is decided.
    """
    order, paired, inside = coins_of(design, t)
    score = score_N[order]
    guesses = guesses_about(len(inside), share, paired=paired)
    if paired:
        return audit.guess_pairs(score.reshape(-1, 2), inside, guesses=guesses)
    return audit.guess(score, inside, high=guesses // 2, low=guesses // 2)


def statistics(
    score_N: np.ndarray, design: Design, t: int, share: float, method: str
) -> audit.Guesses | audit_sums.Sums:
    """Returns what a method reads of the scores of target t, with the arguments of `counts`."""
    if method not in audit_sums.METHODS:
        return counts(score_N, design, t, share)
    order, paired, inside = coins_of(design, t)
    if paired:
        return audit_sums.sums_of_pairs(score_N[order].reshape(-1, 2), inside)
    return audit_sums.sums(score_N[order], inside)


def row(bound: audit.Bound) -> dict:
    """Returns a bound as plain values; None is an infinite difference."""
    fields = bound._asdict() | bound.counts._asdict()
    if "difference" in fields and not np.isfinite(fields["difference"]):
        fields["difference"] = None
    return {k: v for k, v in fields.items() if k != "counts"}
