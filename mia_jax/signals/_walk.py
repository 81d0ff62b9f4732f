"""Provides what the distance signals share: HopSkipJump as a question to a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from mia_jax import checks
from mia_jax.evasion import hop_skip_jump
from mia_jax.signals import _images

TRIES, HALVINGS = 100, 16  # HopSkipJump's draws of a first point, and halvings of a step


class Walker(NamedTuple):
    """Holds HopSkipJump with fixed settings.

    `run(label, x_B.., y_B, key_B) -> Walk`; `check(x)` of examples; `most(features)`: the most
    labels that one walk queries.
    """

    run: Callable
    check: Callable
    most: Callable


def walker(
    name: str, *, iterations: int, norm: str, evaluations: int, budget: int, box: str
) -> Walker:
    """Returns HopSkipJump with these settings; `budget` 0 means no budget.

    Its `check` raises ValueError for a budget that one iteration does not fit into.
    """
    checks.one_of(("l2", "linf"), norm=norm)
    checks.one_of(_images.BOXES, box=box)
    checks.at_least(0, iterations=iterations, budget=budget)
    settings = dict(
        iterations=iterations,
        norm=norm,
        evaluations=evaluations,
        budget=budget or None,
        box=_images.BOXES[box],
    )
    settings |= dict(tries=TRIES, halvings=HALVINGS)
    inside = _images.inside(name, box)

    def run(label, x_B, y_B, key_B):
        return hop_skip_jump.hop_skip_jump(label, x_B, y_B, key_B, **settings)

    def check(x) -> None:
        if inside is not None:
            inside(x)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        example = (
            jax.ShapeDtypeStruct((1, *x.shape[1:]), "float32"),
            jax.ShapeDtypeStruct((1,), "int32"),
        )
        jax.eval_shape(
            lambda x_B, y_B, key_B: run(
                lambda x_B: x_B.reshape(len(x_B), -1)[:, 0] > 0.5, x_B, y_B, key_B
            ),
            *example,
            keys,
        )

    def most(features: int) -> int:
        if budget:
            return budget
        n_S = hop_skip_jump.directions_per_iteration(iterations=iterations, evaluations=evaluations)
        steps = hop_skip_jump.bisections(features=features, norm=norm)
        return 1 + TRIES + steps + int(n_S.sum()) + iterations * (HALVINGS + 1 + steps)

    return Walker(run, check, most)
