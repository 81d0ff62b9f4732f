"""Does what an attack assumes hold here? What `Attack.diagnose` measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

# the first targets speak for all: an assumption that fails for most examples shows on one model
TARGETS = 4
LEVEL = 0.05  # of the test of normality (attacks._normality)


def measure(attack, *, evidence_against: Callable, targets: Sequence[int]) -> dict[str, float]:
    """Returns the mean of each number that an attack's diagnosis gives on the first targets.

    `attack.diagnose(evidence_against(target))` gives the numbers of one target; `targets` is how
    many targets were looked at.
    """
    looked = list(targets)[:TARGETS]
    found = [attack.diagnose(evidence_against(t)) for t in looked]
    names = dict.fromkeys(name for one in found for name in one)
    return {
        name: statistics.fmean(one[name] for one in found if name in one) for name in names
    } | dict(targets=len(looked))
