"""The audited lower bound on epsilon, next to the accountant's upper bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import rendering, tables

ORDER = 50
NEEDS = ("audit",)
TITLE = "Audited lower bound on epsilon"
NO_LIMIT = 1e4  # perfect scores without noise refute larger epsilons than anybody claims


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
        origin = "accounted" if claim.get("accountant") else "claimed"
        lines.append([f"{origin} upper bound", tables.epsilon(claim["epsilon"]), basis(claim)])
    lines.append(
        [
            "largest bound this audit could have shown",
            tables.epsilon(bound["ceiling"]),
            f"{'every guess correct' if 'correct' in bound else 'perfect scores'}, "
            f"{audit['coins']:,} {'pairs of labels' if audit.get('shift') else 'coins per model'}",
        ]
    )
    return rendering.render(
        "privacy_audit",
        title=TITLE,
        audit=audit,
        violation=violation(audit) if audit["violated"] else "",
        contradicted=contradicted(audit),
        guarantee=other_delta(audit, guarantee),
        lines=lines,
        attacks=attack_lines(audit["attacks"]),
        pairs=audit["one_of_two"],
        confidence=f"{100 * audit['level']:g}%",
        methods=method_lines(audit.get("methods") or ()),
        contradicting=contradicting(audit),
        unavailable=[f"{row['method']}: {row['why']}" for row in unavailable(audit)],
        growing=audit.get("growing"),
        growing_lines=growing_lines(audit.get("growing")),
        shift=audit.get("shift"),
        released=audit.get("releases"),
        release_lines=release_lines(audit.get("releases")),
    )


def unavailable(audit: Mapping) -> list[Mapping]:
    """Returns the rows of methods that had too few canaries."""
    return [row for row in audit.get("methods") or () if "why" in row]


def method_lines(methods: Sequence[Mapping]) -> list[list[str]]:
    """Writes one line per method: what it shows, could have shown, and holds for."""
    return [
        [
            row["method"],
            *(tables.epsilon(row[key]) for key in ("epsilon", "corrected", "ideal")),
            "no limit" if row["ceiling"] > NO_LIMIT else tables.epsilon(row["ceiling"]),
            row["assumes"],
        ]
        for row in methods
        if "why" not in row
    ]


def contradicting(audit: Mapping) -> str:
    """Names the methods whose corrected bound exceeds the claim; '' for none, or without one."""
    claim = audit["claim"]
    if claim is None or claim["epsilon"] is None or audit["other_neighbors"]:
        return ""
    names = [
        tables.code(row["method"])
        for row in audit.get("methods") or ()
        if "why" not in row and row["corrected"] > claim["epsilon"]
    ]
    return f"{', '.join(names)} contradict{'s' * (len(names) == 1)}" if names else ""


def growing_lines(growing: Mapping | None) -> list[list[str]]:
    """Writes the bound after 1, 2, 4, ... and all runs."""
    if not growing:
        return []
    bounds = growing["epsilon"]
    ends = sorted({2**i for i in range(len(bounds).bit_length())} & set(range(1, len(bounds))))
    return [[f"{end:,}", tables.epsilon(bounds[end - 1])] for end in [*ends, len(bounds)]]


def release_lines(releases: Mapping | None) -> list[list[str]]:
    """Writes one line per test of what training released."""
    if not releases or "why" in releases:
        return []
    return [
        [
            row["name"],
            f"{row['observed']:.4g}",
            f"{row['expected']:.4g}",
            tables.p_text(row["p_value"]),
            str(row["model"]),
        ]
        for row in releases["tests"]
    ]


def contradicted(audit: Mapping) -> str:
    """Writes that what training released is not what the mechanism releases; '' if it may be."""
    releases = audit.get("releases")
    if not releases or not releases.get("contradicted"):
        return ""
    least = min(releases["tests"], key=lambda row: row["p_value"])
    p_value = tables.p_text(releases["p_value"])
    return rendering.render(
        "privacy_releases", releases=releases, least=least, p_value=p_value
    ).strip()


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
            f"{row['correct']:,}" if "correct" in row else tables.ABSENT,
            f"{row['guesses']:,}" if "guesses" in row else tables.ABSENT,
            tables.epsilon(row["ceiling"]),
        ]
        for name, row in order
    ]
