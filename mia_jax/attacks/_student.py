"""Student-t and Gaussian predictives: the distribution of the next model's signal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, log_ndtr, stdtr

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float64).tiny)


class Predictive(NamedTuple):
    """Holds location, squared scale and degrees of freedom (inf: Gaussian) per example."""

    center: np.ndarray
    variance: np.ndarray
    dof: np.ndarray | float

    def standardized(self, own_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ((own - center) / sd, log sd).

        No sd is below the float32 resolution of `own` and its center; a zero sd counts as 1.
        """
        floor_N = EPS * np.maximum(np.abs(self.center), np.abs(own_N))
        sd_N = np.maximum(np.sqrt(self.variance), floor_N)
        sd_N = np.where(sd_N > 0, sd_N, 1)
        return (own_N - self.center) / sd_N, np.log(sd_N)


def log_density(squares_N: np.ndarray, dof, axes: int = 1) -> np.ndarray:
    """Returns the log density of a spherical Student-t in `axes` dimensions.

    `squares_N` are squared radii. The Gaussian's constant is left out of all.
    """
    dof_N, gaussian_N = _finite(dof)
    if gaussian_N.all():
        return -squares_N / 2
    log_N = (
        gammaln((dof_N + axes) / 2)
        - gammaln(dof_N / 2)
        - axes / 2 * np.log(dof_N / 2)
        - (dof_N + axes) / 2 * np.log1p(squares_N / dof_N)
    )
    return np.where(gaussian_N, -squares_N / 2, log_N)


def log_cdf(z_N: np.ndarray, dof) -> np.ndarray:
    """Returns log P(T <= z), accurate in both tails.

    log(P) in float32 is 0 from z = 5.4 on, which ties the most important examples.
    """
    dof_N, gaussian_N = _finite(dof)
    if gaussian_N.all():
        return log_ndtr(z_N)
    tail_N = stdtr(dof_N, -np.abs(z_N))
    log_N = np.where(z_N > 0, np.log1p(-tail_N), np.log(np.maximum(tail_N, TINY)))
    return np.where(gaussian_N, log_ndtr(z_N), log_N)


def _finite(dof) -> tuple[np.ndarray, np.ndarray]:
    """Returns (degrees of freedom with 1 in the place of inf, where they are inf)."""
    dof_N = np.asarray(dof, np.float64)
    return np.where(np.isinf(dof_N), 1.0, dof_N), np.isinf(dof_N)
