"""The privacy statement of a run: epsilon with everything that it depends on, what it covers and what it does not."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import tables
from mia_jax.report.privacy import number

NEIGHBORS = dict(
    add_remove="one {unit} more or less",
    zero_out="one {unit} replaced by one whose gradient is zero",
    replace_one="one {unit} replaced by any other",
)


SEED = "readers of the seed"  # how the part of `not_covered` about the seed begins (privacy/guarantee.py)


def section(found: Mapping) -> str:
    """The section of report.md; '' for a run without private training."""
    one = found.get("guarantee")
    if not one:
        return ""
    head = "## What is promised: differential privacy\n\n"
    if one["refused"]:
        listed = "".join(f"- {text}\n" for text in one["refused"])
        return head + f"> **No epsilon: what ran is not the mechanism that was declared.**\n\n{listed}"
    if one["epsilon"] is None:
        others = ", ".join(f"`{name}`: {number(value)}" for name, value in one["others"].items() if value is not None)
        which = f"that of `{one['accountant']}` is not finite. Others, at delta {one['delta']:.3g}: {others}" if others else "none is finite"
        return head + f"> **No epsilon: {which}.**\n\n" + " ".join(one["notes"]) + "\n"
    unit = "example" if one["unit"] == "example" else f"user (column {tables.code(one['unit'])}, all rows)"
    text = head + f"Each model is **({number(one['epsilon'])}, {one['delta']:.3g})-differentially private** by the accountant `{one['accountant']}`: "
    text += f"neighbors are data sets with {NEIGHBORS[one['adjacency']].format(unit=unit)}.\n\n"
    seed = found.get("about", {}).get("seed")
    if seed is not None and any(what.startswith(SEED) for what in one["not_covered"]):
        text += f"> **Only against those who do not know the seed.** It is {seed} and stands in config.json and in this report: whoever knows it "
        text += "subtracts the noise. For a model that is released, train with a secret seed and publish neither.\n\n"
    lines = [[name, number(value)] for name, value in one["others"].items()]
    lines = [[one["accountant"], number(one["epsilon"])], *lines]
    text += tables.markdown(["accountant", f"epsilon at delta {one['delta']:.3g}"], lines, code_first=False)
    text += f"\nMechanism: {mechanism(one)}.\n\n"
    text += f"It covers {one['covers']}. It does not cover:\n\n" + "".join(f"- {what}\n" for what in one["not_covered"])
    return text + ("\n" + "".join(f"{note} " for note in one["notes"]).strip() + "\n" if one["notes"] else "")


def mechanism(one: Mapping) -> str:
    """What ran: 'DP-SGD, Poisson sampling, 390 steps, ...'."""
    text = f"DP-SGD, {SAMPLING.get(one['sampling'], one['sampling'])}, {one['steps']:,} steps, expected batch {one['expected_batch']:g}, "
    return (
        text
        + f"clip norm {one['clip_norm']:.4g}, noise multiplier {one['noise_multiplier']:.4g} (of the sensitivity), gradients by `{one['method']}`"
    )


SAMPLING = dict(poisson="Poisson sampling", shuffle="shuffled batches", balls_in_bins="balls-in-bins batches")
