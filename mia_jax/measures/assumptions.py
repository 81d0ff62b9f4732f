"""Measures whether the assumptions of an attack hold, by its `Attack.diagnose`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

# The first targets suffice: an assumption that fails for most examples fails on any model.
TARGETS = 4
LEVEL = 0.05  # of the test of normality (attacks._normality)


def measure(attack, *, evidence_against: Callable, targets: Sequence[int]) -> dict[str, float]:
    """Returns the mean of each number that an attack's diagnosis gives on the first targets.

    Args:
        attack: the attack; `attack.diagnose(evidence)` gives the numbers of a target.
        evidence_against: maps the number of a target to the attack's evidence.
        targets: the numbers of all targets, of which the first TARGETS are examined.

    Returns:
        {name: mean} and, in `targets`, how many targets were examined.
    """
    examined = list(targets)[:TARGETS]
    diagnoses = [attack.diagnose(evidence_against(t)) for t in examined]
    means = {}
    for name in dict.fromkeys(name for diagnosis in diagnoses for name in diagnosis):
        means[name] = statistics.fmean(
            diagnosis[name] for diagnosis in diagnoses if name in diagnosis
        )
    return means | dict(targets=len(examined))
