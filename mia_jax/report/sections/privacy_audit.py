"""The audited lower bound on epsilon, next to the accountant's upper bound."""

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
        audit=audit,
        violation=violation(audit) if audit["violated"] else "",
        guarantee=other_delta(audit, guarantee),
        lines=lines,
        attacks=attack_lines(audit["attacks"]),
        pairs=audit["one_of_two"],
    )


def violation(audit: Mapping) -> str:
    """Writes that the claimed epsilon is contradicted, and by how many correct guesses."""
    return rendering.render("privacy_violation", audit=audit).strip()


def other_delta(audit: Mapping, guarantee: Mapping | None) -> Mapping | None:
    """Returns the guarantee where the audit has another delta, so that the epsilons differ."""
    if not guarantee or guarantee.get("epsilon") is None or audit["delta"] == guarantee["delta"]:
        return None
    return guarantee


def basis(claim: Mapping) -> str:
    """Names what an accounted epsilon rests on.

    >>> basis(dict(accountant='pld', adjacency='add_remove', sampling='poisson', delta=1e-5))
    'accountant pld, adjacency add_remove, sampling poisson, delta 1e-05'
    """
    parts = [f"{k} {claim[k]}" for k in ("accountant", "adjacency", "sampling") if claim.get(k)]
    others = [
        f"{tables.epsilon(value)} by {name}" for name, value in (claim.get("others") or {}).items()
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
