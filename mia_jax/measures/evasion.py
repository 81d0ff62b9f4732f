"""Measures accuracy under attack: how far examples must move until the targets err.

Members and non-members are measured separately. What reads signals is imported within functions: a
report is written again without jax and reads LEVEL here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from mia_jax.configuration import fields
from mia_jax.runtime import files

CURVES = ("correct_under_fgsm", "correct_under_pgd")
# The accuracy at which a radius is reported: that of a tutorial's ResNet-18 under a radius that the
# tutorial does not state.
LEVEL = 0.332
PICTURES = 8


def measure(
    folder: pathlib.Path, names: Sequence[str], *, models: Sequence[int], member_TN, evaluated_TN
) -> dict[str, dict]:
    """Returns the mean accuracies under attack over the targets' evaluated rows.

    Args:
        folder: the workdir.
        names: the signals; those of CURVES are measured.
        models: the numbers of the T targets.
        member_TN, evaluated_TN: the members and the scored rows of each target.

    Returns:
        {signal: {epsilon [E], members [E], nonmembers [E], crossing}}, where `crossing` is the
            interpolated radius at which the accuracy on non-members falls to LEVEL; None if it does
            not.
    """
    from mia_jax.query import interactive
    from mia_jax.signals._adversarial import EPSILONS

    curves = {}
    for name in (n for n in names if fields.named(n)[0] in CURVES):
        sides: dict[str, list] = dict(members=[], nonmembers=[])
        for m, member_N, evaluated_N in zip(
            models, np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool), strict=True
        ):
            value_NE = files.read_npy(interactive.signal_file(folder, name, m))[0]
            sides["members"].append(value_NE[member_N & evaluated_N].mean(0))
            sides["nonmembers"].append(value_NE[~member_N & evaluated_N].mean(0))
        means = {side: np.mean(values, 0) for side, values in sides.items()}
        curve = dict(epsilon=list(EPSILONS), crossing=crossing(EPSILONS, means["nonmembers"]))
        curves[name] = curve | {
            side: [float(v) for v in value_E] for side, value_E in means.items()
        }
    return curves


def crossing(
    epsilon_E: Sequence[float], accuracy_E: Sequence[float], level: float = LEVEL
) -> float | None:
    """Returns the first radius at which the line through the points falls to `level`.

    None if the line stays above `level` or starts below it.

    >>> crossing([0.0, 0.1, 0.3], [0.9, 0.5, 0.1], 0.3)
    0.2
    """
    for i in range(1, len(epsilon_E)):
        high, low = accuracy_E[i - 1], accuracy_E[i]
        if high > level >= low:
            return round(
                float(
                    epsilon_E[i - 1]
                    + (high - level) / (high - low) * (epsilon_E[i] - epsilon_E[i - 1])
                ),
                6,
            )
    return None


def chosen(
    folder: pathlib.Path, names: Sequence[str], *, m: int, x_N, y_N, member_N, evaluated_N
) -> dict | None:
    """Returns images of the first non-members of target m, before and after the attack.

    Args:
        folder: the workdir.
        names: the signals of the run.
        m: the number of the target.
        x_N, y_N: the examples and their labels.
        member_N, evaluated_N: the members and the scored rows of the target.

    Returns:
        {before [P,...], after [P,...], y [P], epsilon}; None if the signal `fgsm_image` is not
            among `names` or examples are not images.
    """
    from mia_jax.query import interactive

    name = next((n for n in names if fields.named(n)[0] == "fgsm_image"), None)
    if name is None or np.ndim(x_N) != 4:
        return None
    rows = np.flatnonzero(np.asarray(evaluated_N) & ~np.asarray(member_N))[:PICTURES]
    after = files.read_npy(interactive.signal_file(folder, name, m))[0, rows].reshape(
        -1, *np.shape(x_N)[1:]
    )
    before = np.asarray(x_N)[rows]
    return dict(
        before=before,
        after=after,
        y=np.asarray(y_N)[rows],
        epsilon=float(np.abs(after - before).max()),
    )
