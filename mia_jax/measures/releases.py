"""Compares what Dirac canaries saw training release with the mechanism that is claimed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax.privacy import dirac
from mia_jax.privacy.mechanism import Mechanism


def measure(
    mechanisms: Mapping[int, Mechanism],
    *,
    size: float,
    moment_TC: Mapping[str, np.ndarray],
    inside_TC: np.ndarray,
    level: float,
) -> dict:
    """Returns the comparison of all models, `releases` in the section `audit` of report.json.

    The tests of all models share 1 - level, apart from the bounds on epsilon, which have a level of
    their own.

    Args:
        mechanisms: {model: the claimed mechanism after the steps that the model took}.
        size: the norm of a canary's clipped gradient.
        moment_TC: the moments of each canary's releases, {name: [T,C]} of dirac.MOMENTS.
        inside_TC: whether the canary is in the training set of the model, boolean [T,C].
        level: the confidence level.

    Returns:
        {tests, count, p_value, contradicted, level}. `tests` has the model with the smallest
            p-value of each test, {name, model, observed, expected, p_value}; `p_value` is the
            smallest times `count`, the number of tests of all models. {why} if the releases
            cannot be compared.
    """
    rows: list[dict] = []
    for i, (model, mechanism) in enumerate(mechanisms.items()):
        moments = {name: np.asarray(moment_TC[name])[i] for name in dirac.MOMENTS}
        try:
            tests = dirac.checked(mechanism, size=size, moments=moments, inside_C=inside_TC[i])
        except ValueError as error:
            return dict(why=str(error))
        rows += [dict(model=model) | test._asdict() for test in tests]
    least: dict[str, dict] = {}
    for row in rows:
        if row["name"] not in least or row["p_value"] < least[row["name"]]["p_value"]:
            least[row["name"]] = row
    p_value = min(1.0, min(row["p_value"] for row in rows) * len(rows))
    return dict(
        tests=list(least.values()),
        count=len(rows),
        p_value=p_value,
        contradicted=p_value <= 1 - level,
        level=level,
    )
