"""What the canaries prove: an audited lower bound on epsilon next to the accountant's upper bound."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 50
NEEDS = ("audit",)
TITLE = "Audited lower bound on epsilon"


def text(*, audit: Mapping, guarantee: Mapping | None = None) -> str:
    """Writes the bound, what it can and cannot contradict, and the bound of each attack."""
    if "why" in audit:
        return rendering.render("privacy_audit_missing", title=TITLE, why=audit["why"])
    bound, claim = audit["bound"], audit["claim"]
    confidence = f"{100 * audit['level']:g}% confidence, delta {audit['delta']:g}"
    tests = f"the best of {bound['tests']} tests" if bound["tests"] != 1 else "one test"
    lines = [
        [
            "audited lower bound",
            tables.epsilon(bound["epsilon"]),
            f"{confidence}; {audit['method']}, for {audit['assumes']}; {tests}",
        ]
    ]
    if claim is not None:
        lines.append(["accounted upper bound", tables.epsilon(claim["epsilon"]), basis(claim)])
    lines.append(
        [
            "largest bound this audit could have shown",
            tables.epsilon(bound["ceiling"]),
            f"every guess correct, {audit['coins']:,} coins per model",
        ]
    )
    return rendering.render(
        "privacy_audit",
        title=TITLE,
        verdict=verdict(audit),
        note=other_delta(audit, guarantee),
        lines=lines,
        attacks=attack_lines(audit["attacks"]),
        pairs=audit["one_of_two"],
    )


def violation(audit: Mapping) -> str:
    """Writes that the claimed epsilon is contradicted, and by how many correct guesses."""
    bound, claim = audit["bound"], audit["claim"]
    text = f"**THE CLAIM IS VIOLATED: epsilon is at least {tables.epsilon(bound['epsilon'])}, and {tables.epsilon(claim['epsilon'])} is claimed.** "
    text += f"{tables.code(bound['attack'])} guessed {bound['correct']:,} of {bound['guesses']:,} coins of model {bound['model']} correctly. "
    return (
        text
        + f"The mechanism that ran is not the one that was accounted for{' (if it is Gaussian)' if audit['method'] == 'gdp' else ''}."
    )


def verdict(audit: Mapping) -> str:
    """Compares the audited lower bound with the claimed upper bound in a paragraph."""
    bound, claim = audit["bound"], audit["claim"]
    audited = f"Epsilon is at least {tables.epsilon(bound['epsilon'])}"
    if claim is None:
        return f"{audited} ({tables.code(bound['attack'])}); no accountant claims an upper bound for this training."
    if audit["other_neighbors"]:
        return f"{audited}, but {audit['other_neighbors']}"
    if audit["violated"]:
        return "> " + violation(audit)
    claimed, ceiling = tables.epsilon(claim["epsilon"]), tables.epsilon(bound["ceiling"])
    text = f"Claimed at delta {audit['delta']:g}: epsilon at most {claimed}. Audited: epsilon at least {tables.epsilon(bound['epsilon'])}. "
    if bound["ceiling"] <= claim["epsilon"]:
        text += f"**This audit could at most have shown {ceiling}, so it could not have contradicted {claimed}**: that no violation was detected is no "
        return (
            text
            + "evidence for the claim. More canaries or more guesses raise what an audit can show."
        )
    return (
        text
        + f"No violation was detected, which does not prove that there is none (the audit could have shown up to {ceiling})."
    )


def other_delta(audit: Mapping, guarantee: Mapping | None) -> str:
    """Says where audit and guarantee are at different deltas: the two epsilons are not the same quantity."""
    if not guarantee or guarantee.get("epsilon") is None or audit["delta"] == guarantee["delta"]:
        return ""
    text = f"This audit was asked for at delta {audit['delta']:g}, and the guarantee is at delta {guarantee['delta']:.3g}: epsilon depends on delta. "
    if audit["claim"]:
        text += f"At delta {audit['delta']:g} the accountant proves {tables.epsilon(audit['claim']['epsilon'])}. "
    return text + "Leave report.audit.delta out to audit at the guarantee's delta."


def basis(claim: Mapping) -> str:
    """Names what an accounted epsilon rests on: 'pld, add_remove, poisson, delta 1e-05'."""
    parts = [str(claim[key]) for key in ("accountant", "adjacency", "sampling") if claim.get(key)]
    others = [
        f"{name} {tables.epsilon(value)}" for name, value in (claim.get("others") or {}).items()
    ]
    return ", ".join([*parts, f"delta {claim['delta']:g}", *others])


def attack_lines(attacks: Mapping[str, Mapping]) -> list[list[str]]:
    """Writes one line per attack, the largest bound first."""
    order = sorted(attacks.items(), key=lambda item: -item[1]["epsilon"])
    return [
        [
            name,
            tables.epsilon(row["epsilon"]),
            f"{row['correct']:,}",
            f"{row['guesses']:,}",
            tables.epsilon(row["ceiling"]),
        ]
        for name, row in order
    ]
