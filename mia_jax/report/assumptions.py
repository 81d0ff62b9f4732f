"""Does what an attack assumes hold here? What `Attack.diagnose` says, and a section of report.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from mia_jax.report import tables

TARGETS = 4  # the first targets speak for all: an assumption that fails for most examples shows on one model
LEVEL = 0.05  # of the test of normality (attacks._normality)


def measure(attack, *, view: Callable, targets: Sequence[int]) -> dict[str, float]:
    """{number: its mean over the first targets} of attack.diagnose(view(target)), with `targets`, how many were looked at."""
    looked = list(targets)[:TARGETS]
    found = [attack.diagnose(view(t)) for t in looked]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: statistics.fmean(one[name] for one in found if name in one) for name in names} | dict(targets=len(looked))


def section(found: Mapping) -> str:
    """A line an attack: the share of examples whose shadows are not Gaussian, how coarse the scores are, what was tuned."""
    told = {name: text for name, one in (found.get("assumptions") or {}).items() if (text := sentence(one))}
    if not told:
        return ""
    text = "## Do the attacks' assumptions hold?\n\n" + tables.markdown(["attack", "what was found"], list(map(list, told.items())), align="left")
    if any("normal" in line for line in told.values()):
        text += f"\nIf the shadows' answers were Gaussian, {tables.percent(LEVEL)}% would be rejected. A rejection costs power, never validity: "
        text += "scores are ranked, and thresholds come from shadows.\n"
    return text


def sentence(one: Mapping[str, float]) -> str:
    """What the numbers of one attack say."""
    parts = []
    for side in ("in", "out"):
        if one.get(f"{side}_normality_tested"):
            share, tested = tables.percent(one[f"{side}_normality_rejected"]), one[f"{side}_normality_tested"]
            parts.append(f"{side.upper()} shadows not normal on {share}% of {tested:,.0f} examples and views")
        elif f"{side}_normality_tested" in one:
            parts.append(f"too few {side.upper()} shadows to test normality")
    if "resolution" in one:
        parts.append(f"scores are multiples of {one['resolution']:.2g}, {tables.percent(one['top_tie_share'])}% of the rows tie at the top")
    if "a" in one:
        parts.append(f"a = {one['a']:.2g} tuned on shadows")
    return "; ".join(parts)
