"""Distance from the decision boundary, estimated from labels only."""

from __future__ import annotations

from mia_jax.signals import _walk
from mia_jax.types import Signal


def make(
    *,
    iterations: int = 10,
    norm: str = "l2",
    evaluations: int = 100,
    budget: int = 0,
    box: str = "unit",
) -> Signal:
    """Returns the distance [B, iterations + 1] to the nearest point with another label, by labels.

    The columns are HopSkipJump's distance after 0, 1, ... iterations; 0 where the example is
    misclassified. Labels only; queries are counted exactly. Large = member.

    Args:
        iterations: how many iterations.
        norm: 'l2' or 'linf'.
        evaluations: directions of the first iteration; sqrt(t) times that number in iteration t
            (2,243 in 10 iterations, about 2,500 queries in all).
        budget: the most labels queried per example; 0: no limit.
        box: 'unit': queries stay in [0, 1]; 'none': anywhere.

    Raises:
        ValueError: Examples are outside the box, or one iteration does not fit into the budget.

    Sources: Choquette-Choo et al. 2021 (arXiv:2007.14321), section 4; Chen et al. 2020
    (arXiv:1904.02144).
    """
    walker = _walk.walker(
        "boundary_distance",
        iterations=iterations,
        norm=norm,
        evaluations=evaluations,
        budget=budget,
        box=box,
    )

    def ask(probe, x_B, y_B, key_B):
        walk = walker.run(probe.label, x_B, y_B, key_B)
        return walk.distance_SB.T, walk.queries_SB.T

    return Signal(None, +1, ask, "labels", walker.most, walker.check)
