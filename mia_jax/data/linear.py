"""Draws a linear relation with Gaussian noise, for regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool, Presentation, regression


def load(
    *,
    examples: int = 1000,
    features: int = 2,
    weights: float | Sequence[float] = (2.0, -3.4),
    bias: float = 4.2,
    noise: float = 0.01,
    seed: int = 0,
) -> Pool:
    """Returns y = x @ w + b + N(0, noise^2) with x ~ N(0, I) [N,features].

    `weights` is w, or one number for all features. The task is regression.

    Raises:
        ValueError: if the number of weights is not the number of features.
    """
    checks.at_least(1, features=features)
    checks.at_least(2, examples=examples)
    checks.at_least(0, noise=noise)
    checks.in_memory(f"examples={examples} of {features} features", 12.0 * examples * features)
    w_F = np.asarray(weights, float)
    if w_F.ndim and len(w_F) != features:
        raise ValueError(
            f"weights={tuple(w_F.tolist())} are {len(w_F)} numbers for features={features}; give "
            "one per feature, or a single number."
        )
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((examples, features))
    y = x @ np.broadcast_to(w_F, (features,)) + bias + noise * rng.standard_normal(examples)
    shown = Presentation(public=True)
    return checked(Pool(x=x, y=y, name="linear", task=regression(), presentation=shown))
