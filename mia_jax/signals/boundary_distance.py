"""Distance from the decision boundary, found with labels alone."""

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
    """[B, iterations + 1]: the distance to the nearest point with another label that HopSkipJump
    has found after 0, 1, ... iterations; l2 or linf.

    0 where the example is misclassified. `evaluations`: directions of the first iteration, sqrt(t)
    times as many in iteration t (2,243 in 10 iterations, about 2,500 queries in all). `budget`: no
    example asks more labels (0: as many as it takes). box 'unit': queries stay in [0, 1]; 'none':
    anywhere. Labels only, queries counted exactly. Large = member. ValueError for examples outside
    the box, or a budget that one iteration does not fit into. Sources: Choquette-Choo et al. 2021
    (arXiv:2007.14321), section 4; Chen et al. 2020 (arXiv:1904.02144).
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
