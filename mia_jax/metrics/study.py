"""Defines what all attacks' results share (`Study`) and the row of a result (`result_row`)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mia_jax.metrics import bootstrap
from mia_jax.metrics.outcomes import Counts, Outcome

# each({attack: compute}) returns what the functions return, in this order
Each = Callable[[Mapping[str, Callable[[], Any]]], Sequence]


def in_turn(computes: Mapping[str, Callable[[], Any]]) -> list:
    """Returns what functions that do not depend on each other return."""
    return [compute() for compute in computes.values()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Holds what all attacks share.

    Attributes:
        member_TN: which target trained on which record.
        evaluated_TN: which records are scored for which target.
        draws: the bootstrap draws of the intervals.
        fprs: the false-positive rates of tpr@FPR.
        level: the confidence level of the intervals.
        ratio: non-members per member at which precision is reported.
    """

    member_TN: np.ndarray
    evaluated_TN: np.ndarray
    draws: bootstrap.Draws
    fprs: tuple[float, ...]
    level: float
    ratio: float = 1.0

    @functools.cached_property
    def inside_T(self) -> np.ndarray:
        """Returns the number of evaluated members of each target, float64."""
        return (self.evaluated_TN & self.member_TN).sum(1).astype(np.float64)

    @functools.cached_property
    def outside_T(self) -> np.ndarray:
        """Returns the number of evaluated non-members of each target, float64."""
        return (self.evaluated_TN & ~self.member_TN).sum(1).astype(np.float64)


class TargetCounts(NamedTuple):
    """Holds the `Counts` of each target at its threshold, float64 [T]."""

    tp: np.ndarray
    inside: np.ndarray
    fp: np.ndarray
    outside: np.ndarray

    def of_target(self, t: int) -> Counts:
        """Returns the counts of target t."""
        return Counts(*(float(count_T[t]) for count_T in self))

    def total(self) -> Counts:
        """Returns the counts summed over all targets."""
        return Counts(*(float(count_T.sum()) for count_T in self))


def result_row(
    outcome: Outcome,
    *,
    attack: str,
    target: int | str | None,
    metric: str,
    n_member: float,
    n_nonmember: float,
    n_targets: int,
    knows: str,
    slice_name: str = "all",
    **more,
) -> dict:
    """Returns the row of a result, in the order of results.csv.

    Args:
        outcome: the number with its interval; its further columns come last.
        attack: the name of the attack.
        target: None for a mean over targets, 'pooled' for the ROC of all pairs, else the number of
            a model.
        metric: the name of the metric.
        n_member, n_nonmember: the numbers of rows, which are rounded.
        n_targets: the number of targets.
        knows: what the attack knows.
        slice_name: the name of the slice.
        **more: further columns, which come before those of the outcome.
    """
    return dict(
        attack=attack,
        target=target,
        slice=slice_name,
        metric=metric,
        value=outcome.value,
        low=outcome.low,
        high=outcome.high,
        interval=outcome.interval,
        method=outcome.method,
        convention=outcome.convention,
        fpr_realized=outcome.fpr_realized,
        n_member=round(n_member),
        n_nonmember=round(n_nonmember),
        n_targets=n_targets,
        knows=knows,
        **more,
        **outcome.more,
    )
