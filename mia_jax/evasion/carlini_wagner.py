"""Finds the nearest adversarial example by optimization, with white-box access.

Source: Carlini & Wagner 2017 (arXiv:1608.04644), section VI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.evasion import _margins, _points


class Found(NamedTuple):
    """Holds the result of the search.

    If no adversarial example was found, the distance is an upper bound (the farthest corner of the
    box; infinity without a box) and `adversarial` is the example itself.

    Attributes:
        distance_B: [B] >= 0, in l2.
        adversarial: [B,...], a point at that distance.
        queries_B: [B] int32, the number of forward passes.
        found_B: [B], whether there is an adversarial example.
    """

    distance_B: jax.Array
    adversarial: jax.Array
    queries_B: jax.Array
    found_B: jax.Array


class _Run(NamedTuple):
    """Holds the state of one run of the optimizer."""

    k: jax.Array
    point_BF: jax.Array
    mean_BF: jax.Array
    square_BF: jax.Array
    going_B: jax.Array
    least_B: jax.Array  # The smallest objective so far.
    before_B: jax.Array  # The smallest objective at the last check.
    success_B: jax.Array
    best_B: jax.Array
    best_BF: jax.Array
    queries_B: jax.Array


def carlini_wagner(
    out: Callable,
    x,
    y_B,
    *,
    iterations: int = 1000,
    search_steps: int = 5,
    learning_rate: float = 5e-3,
    const: float = 1e-2,
    confidence: float = 0.0,
    abort_early: bool = True,
    polish: int = 12,
    box: tuple[float, float] | None = (0.0, 1.0),
) -> Found:
    """Finds the nearest adversarial example by projected Adam.

    It minimizes |x' - x|^2 + c max(0, z_y(x') - max_{j != y} z_j(x') + confidence) over x'.
    Each step ends in the box by clipping. With the paper's alternative, x' = tanh(w), pixels that
    start on the border (black, white) hardly move. The learning rate falls by exp(-5 k /
    iterations) within a run, because otherwise the steps would stay larger than the remaining
    improvement.

    c starts at `const`. After each of `search_steps` runs of at most `iterations` steps, it is
    bisected between the largest c that failed and the smallest that worked, or multiplied by 10
    while none has worked. The nearest successful x' of all steps is kept. With `abort_early` an
    example stops if its smallest objective has not fallen by 1e-4 of itself in iterations / 10
    steps, and a run ends when all examples have stopped. In the end `polish` halvings on the line
    from x to the result move it to the boundary (0: none, as in the original; only with confidence
    0).

    The function is deterministic and pure. Misclassified examples have the distance 0.

    Args:
        out: out(x_B..) -> out_BC, differentiable logits in inference mode.
        x: the examples, [B,...].
        y_B: the true labels.
        iterations: the largest number of steps per run.
        search_steps: the number of runs.
        learning_rate: the initial learning rate.
        const: the initial c.
        confidence: the required margin.
        abort_early: whether examples stop early.
        polish: the number of halvings in the end.
        box: the range of the values; None for no limit.

    Raises:
        ValueError: for examples outside the box.
    """
    _points.check(x, norm="l2", box=box)
    checks.at_least(1, iterations=iterations, search_steps=search_steps)
    checks.at_least(0, confidence=confidence, polish=polish)
    checks.positive(learning_rate=learning_rate, const=const)
    shape, x_BF = jnp.shape(x), _points.flat(x)
    look_every = max(1, iterations // 10)

    def excess(point_BF):
        return _margins.margin(out(point_BF.reshape(shape)), y_B) + confidence

    def objective(point_BF, c_B):
        square_B, excess_B = jnp.square(point_BF - x_BF).sum(-1), excess(point_BF)
        value_B = square_B + c_B * jnp.maximum(excess_B, 0)
        return value_B.sum(), (value_B, square_B, excess_B)

    def step(c_B, run: _Run) -> _Run:
        gradient_BF, (value_B, square_B, excess_B) = jax.grad(objective, has_aux=True)(
            run.point_BF, c_B
        )
        gradient_BF = jnp.where(jnp.isfinite(gradient_BF), gradient_BF, 0)
        hit_B = run.going_B & (excess_B < 0)
        nearer_B = hit_B & (square_B < run.best_B)
        k = run.k + 1
        mean_BF, square_BF = (
            0.9 * run.mean_BF + 0.1 * gradient_BF,
            0.999 * run.square_BF + 0.001 * jnp.square(gradient_BF),
        )
        falling = learning_rate * jnp.exp((-5 * run.k).astype(jnp.float32) / iterations)
        rate = falling * jnp.sqrt(1 - jnp.float32(0.999) ** k) / (1 - jnp.float32(0.9) ** k)
        moved_BF = _points.clip(run.point_BF - rate * mean_BF / (jnp.sqrt(square_BF) + 1e-8), box)
        least_B = jnp.minimum(run.least_B, value_B)
        look = jnp.bool_(abort_early) & (k % look_every == 0)
        return _Run(
            k=k,
            point_BF=jnp.where(run.going_B[:, None], moved_BF, run.point_BF),
            mean_BF=mean_BF,
            square_BF=square_BF,
            going_B=run.going_B & ~(look & (least_B > 0.9999 * run.before_B)),
            least_B=least_B,
            before_B=jnp.where(look, least_B, run.before_B),
            success_B=run.success_B | hit_B,
            best_B=jnp.where(nearer_B, square_B, run.best_B),
            best_BF=jnp.where(nearer_B[:, None], run.point_BF, run.best_BF),
            queries_B=run.queries_B + run.going_B,
        )

    def search(state, _):
        low_B, high_B, c_B, best_B, best_BF, queries_B = state
        zeros_BF, huge_B = jnp.zeros_like(x_BF), jnp.full(len(x_BF), jnp.inf, jnp.float32)
        fresh = _Run(
            jnp.int32(0),
            x_BF,
            zeros_BF,
            zeros_BF,
            ~wrong_B,
            huge_B,
            huge_B,
            jnp.zeros(len(x_BF), bool),
            best_B,
            best_BF,
            queries_B,
        )
        run = lax.while_loop(
            lambda run: (run.k < iterations) & run.going_B.any(), lambda run: step(c_B, run), fresh
        )
        high_B = jnp.where(run.success_B, jnp.minimum(high_B, c_B), high_B)
        low_B = jnp.where(run.success_B, low_B, jnp.maximum(low_B, c_B))
        c_B = jnp.where(
            jnp.isfinite(high_B), (low_B + jnp.where(jnp.isfinite(high_B), high_B, 0)) / 2, c_B * 10
        )
        return (low_B, high_B, c_B, run.best_B, run.best_BF, run.queries_B), None

    wrong_B = excess(x_BF) < confidence
    some_B = jnp.ones(len(x_BF), jnp.float32)
    state = (
        0 * some_B,
        jnp.inf * some_B,
        const * some_B,
        jnp.inf * some_B,
        x_BF,
        jnp.ones(len(x_BF), jnp.int32),
    )
    *_, best_B, best_BF, queries_B = lax.scan(search, state, length=search_steps)[0]
    found_B = jnp.isfinite(best_B)
    if polish and confidence == 0:
        near_BF = _points.bisected(
            lambda point_BF: excess(point_BF) < 0, x_BF, best_BF, steps=polish, norm="l2", box=box
        )
        best_BF = jnp.where(found_B[:, None], near_BF, best_BF)
        queries_B = queries_B + jnp.where(found_B, polish, 0)
    bound_B = jnp.inf * some_B if box is None else _points.farthest(x_BF, "l2", box)
    distance_B = jnp.where(found_B | wrong_B, _points.length(best_BF - x_BF, "l2"), bound_B)
    return Found(distance_B, best_BF.reshape(shape), queries_B, found_B | wrong_B)
