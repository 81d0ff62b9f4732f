"""Distance from the decision boundary by gradients: a reference for the label-only distances."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax import checks
from mia_jax.evasion.carlini_wagner import carlini_wagner
from mia_jax.signals import _images
from mia_jax.types import Signal

FAR = 1e6  # the distance where no point with another label is known and no box bounds it


def make(
    *, iterations: int = 1000, search_steps: int = 5, learning_rate: float = 5e-3, box: str = "unit"
) -> Signal:
    """Returns the l2 distance [B] to the nearest point with another label, by Carlini and Wagner.

    0 where the example is misclassified. White box: it follows the gradients of the logits; queries
    are forward passes. Large = member.

    Args:
        iterations: steps of each search.
        search_steps: how many values of the trade-off between distance and label are tried.
        learning_rate: of the optimization.
        box: 'unit': queries stay in [0, 1]; 'none': anywhere.

    Raises:
        ValueError: Examples are outside [0, 1] (box 'unit').

    Sources: Carlini and Wagner 2017 (arXiv:1608.04644); Choquette-Choo et al. 2021
    (arXiv:2007.14321).
    """
    checks.one_of(_images.BOXES, box=box)
    checks.at_least(1, iterations=iterations, search_steps=search_steps)
    settings = dict(
        iterations=iterations,
        search_steps=search_steps,
        learning_rate=learning_rate,
        box=_images.BOXES[box],
    )

    def ask(probe, x_B, y_B, key_B):
        del key_B
        nearest = carlini_wagner(probe.out, x_B, y_B, **settings)
        return jnp.minimum(nearest.distance_B, FAR), nearest.queries_B

    return Signal(
        None,
        +1,
        ask,
        "white_box",
        32 + search_steps * (iterations + 2),
        _images.inside("carlini_wagner_distance", box),
    )
