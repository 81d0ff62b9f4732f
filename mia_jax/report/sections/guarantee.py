"""The differential-privacy guarantee: epsilon with all it depends on, and what it covers."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 40
NEEDS = ("guarantee",)
NEIGHBORS = dict(
    add_remove="one {unit} added or removed (add/remove adjacency)",
    zero_out="one {unit} replaced by one whose gradient is zero (zero-out adjacency)",
    replace_one="one {unit} replaced by any other (replace-one adjacency)",
)
SAMPLING = dict(
    poisson="Poisson sampling", shuffle="shuffled batches", balls_in_bins="balls-in-bins batches"
)
SEED = "readers of the seed"  # begins the part of `not_covered` about it: privacy/guarantee.py


def text(*, guarantee: Mapping, about: Mapping = {}) -> str:
    """Writes the guarantee, or why no epsilon can be claimed."""
    public_seed = any(part.startswith(SEED) for part in guarantee.get("not_covered", ()))
    unit = (
        "example"
        if guarantee["unit"] == "example"
        else f"user (column {tables.code(guarantee['unit'])}, all rows)"
    )
    epsilons = {guarantee["accountant"]: guarantee["epsilon"], **guarantee["others"]}
    claimed = not guarantee["refused"] and guarantee["epsilon"] is not None
    return rendering.render(
        "guarantee",
        guarantee=guarantee,
        delta=f"{guarantee['delta']:.3g}",
        finite={name: value for name, value in guarantee["others"].items() if value is not None},
        neighbors=NEIGHBORS[guarantee["adjacency"]].format(unit=unit) if claimed else "",
        seed=about.get("seed") if public_seed else None,
        lines=[[name, tables.epsilon(value)] for name, value in epsilons.items()],
        mechanism=mechanism(guarantee) if claimed else "",
    )


def mechanism(guarantee: Mapping) -> str:
    """Describes what ran: 'DP-SGD, Poisson sampling, 390 steps, ...'."""
    sampling = SAMPLING.get(guarantee["sampling"], guarantee["sampling"])
    parts = [
        "DP-SGD",
        sampling,
        f"{guarantee['steps']:,} steps",
        f"expected batch {guarantee['expected_batch']:g}",
        f"clip norm {guarantee['clip_norm']:.4g}",
        f"noise multiplier {guarantee['noise_multiplier']:.4g} (of the sensitivity)",
        f"gradients by `{guarantee['method']}`",
    ]
    return ", ".join(parts)
