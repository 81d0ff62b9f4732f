"""Draws Gaussian classes of chosen size and difficulty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool, Presentation, classification


def load(
    *,
    examples: int = 1000,
    features: int = 20,
    shape: Sequence[int] | None = None,
    classes: int = 2,
    separation: float = 2.0,
    noise: float = 1.0,
    random_labels: bool = False,
    seed: int = 0,
) -> Pool:
    """Returns N = `examples` rows, each a class center plus Gaussian noise; classes are balanced.

    Centers are on the sphere of radius `separation`, and the noise has the standard deviation
    `noise` per feature. x is [N,features]. For `shape`=(H,W,C) it is images [N,H,W,C], squashed by
    the logistic function into (0,1). `random_labels=True` draws y independently of x: all that a
    model knows about such labels is memorized.
    """
    size = features if shape is None else int(np.prod(shape))
    checks.at_least(2, classes=classes)
    checks.at_least(classes, examples=examples)
    checks.at_least(0, separation=separation, noise=noise)
    checks.positive(features=size)
    if shape is not None and len(shape) != 3:
        raise ValueError(f"shape={tuple(shape)} must be (height, width, channels).")
    checks.in_memory(f"examples={examples} of {size} features", 20.0 * (examples + classes) * size)
    rng = np.random.default_rng(seed)
    center_CF = rng.standard_normal((classes, size))
    center_CF *= separation / np.linalg.norm(center_CF, axis=1, keepdims=True)
    y = rng.permutation(np.arange(examples) % classes)
    x = center_CF[y] + noise * rng.standard_normal((examples, size))
    if random_labels:
        y = rng.permutation(y)
    if shape is not None:
        x = (0.5 + 0.5 * np.tanh(0.5 * x)).reshape(examples, *shape)
    shown = Presentation(public=True)
    return checked(
        Pool(x=x, y=y, name="synthetic", task=classification(classes), presentation=shown)
    )
