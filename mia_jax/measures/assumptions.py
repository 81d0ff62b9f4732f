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
    many targets were examined.
    """
    examined = list(targets)[:TARGETS]
    diagnoses = [attack.diagnose(evidence_against(t)) for t in examined]
    means = {}
    for name in dict.fromkeys(name for diagnosis in diagnoses for name in diagnosis):
        means[name] = statistics.fmean(
            diagnosis[name] for diagnosis in diagnoses if name in diagnosis
        )
    return means | dict(targets=len(examined))
