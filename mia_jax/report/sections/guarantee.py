"""The differential-privacy guarantee: epsilon with all it depends on, and what it covers."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 40
NEEDS = ("guarantee",)
SEED = "readers of the seed"  # begins the part of `not_covered` about it: privacy/guarantee.py


def text(*, guarantee: Mapping, about: Mapping = {}) -> str:
    """Writes the guarantee, or why no epsilon can be claimed."""
    public_seed = any(part.startswith(SEED) for part in guarantee.get("not_covered", ()))
    epsilons = {guarantee["accountant"]: guarantee["epsilon"], **guarantee["others"]}
    claimed = not guarantee["refused"] and guarantee["epsilon"] is not None
    return rendering.render(
        "guarantee",
        guarantee=guarantee,
        delta=f"{guarantee['delta']:.3g}",
        finite={name: value for name, value in guarantee["others"].items() if value is not None},
        neighbors=words("neighbors", guarantee["adjacency"], guarantee["unit"]) if claimed else "",
        seed=about.get("seed") if public_seed else None,
        lines=[[name, tables.epsilon(value)] for name, value in epsilons.items()],
        mechanism=mechanism(guarantee) if claimed else "",
        **attacks(guarantee),
    )


def attacks(guarantee: Mapping) -> dict:
    """Returns the words of the template about what is proven about attacks."""
    proven = guarantee.get("proven")
    if not proven:
        return dict(risks=[])
    priors = [f"posterior at most, prior {tables.percent(prior)}%" for prior in proven["priors"]]
    percent = lambda value: f"{tables.percent(value)}%"  # noqa: E731
    return dict(
        unit="example" if guarantee["unit"] == "example" else "user",
        advantage=percent(proven["advantage"]),
        risk_header=["at FPR", "TPR at most", *priors],
        risks=[
            [percent(row["fpr"]), percent(row["tpr"]), *map(percent, row["posterior"])]
            for row in proven["rates"]
        ],
        last_iterate=guarantee.get("last_iterate"),
    )


def mechanism(guarantee: Mapping) -> str:
    """Describes what ran: 'DP-SGD, Poisson sampling, 390 steps, ...'."""
    return words("mechanism", guarantee)


def words(macro: str, /, *values) -> str:
    """Writes a phrase: a macro of templates/guarantee_words.md.j2."""
    return rendering.line(getattr(rendering.macros("guarantee_words"), macro)(*values))
