"""Implements HopSkipJump: the distance to the decision boundary from predicted labels only.

Source: Chen, Jordan & Wainwright 2020 (arXiv:1904.02144).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax import checks
from mia_jax.evasion import _points
from mia_jax.runtime import machine

KEEP = ("best", "last")


class Walk(NamedTuple):
    """Holds the result of the walk.

    If no point with another label was found, the distance is an upper bound (the farthest corner of
    the box, or the farthest noise that was tried) and `adversarial` is the example itself.

    Attributes:
        distance_B: [B] >= 0.
        adversarial: [B,...], a point at that distance whose label is not y.
        queries_B: [B] int32, the number of labels that were asked.
        found_B: [B], whether there is such a point.
        distance_SB: [iterations + 1, B], the distance after the first projection and after each
            iteration, which is the result of fewer iterations.
        queries_SB: [iterations + 1, B], the queries until then.
    """

    distance_B: jax.Array
    adversarial: jax.Array
    queries_B: jax.Array
    found_B: jax.Array
    distance_SB: jax.Array
    queries_SB: jax.Array


class _State(NamedTuple):
    """Holds the state of the walk between iterations."""

    point_BF: jax.Array  # On the boundary, adversarial.
    before_B: jax.Array  # The distance of the point before it was projected onto the boundary.
    best_BF: jax.Array
    best_B: jax.Array
    queries_B: jax.Array


def directions_per_iteration(
    *, iterations: int, evaluations: int = 100, max_evaluations: int = 10_000
) -> np.ndarray:
    """Returns min(floor(evaluations * sqrt(t)), max_evaluations) for t = 1..iterations, [S] int32.

    With the defaults these are 2,243 directions in 10 iterations and 34,487 in 64.
    """
    t_S = np.arange(1, iterations + 1)
    return np.minimum(np.floor(evaluations * np.sqrt(t_S)), max_evaluations).astype(np.int32)


def bisections(*, features: int, norm: str = "l2", gamma: float = 1.0) -> int:
    """Returns how often a projection halves the way.

    It stops at a share of gamma / F^1.5 (l2) or gamma / F^2 (linf) of the way.
    """
    return max(1, math.ceil(math.log2(features ** (1.5 if norm == "l2" else 2.0) / gamma)))


def hop_skip_jump(
    label: Callable,
    x,
    y_B,
    key_B,
    *,
    iterations: int = 10,
    norm: str = "l2",
    box: tuple[float, float] | None = (0.0, 1.0),
    start=None,
    keep: str = "best",
    evaluations: int = 100,
    max_evaluations: int = 10_000,
    gamma: float = 1.0,
    first_radius: float = 0.1,
    tries: int = 100,
    halvings: int = 16,
    budget: int | None = None,
    chunk: int | None = None,
) -> Walk:
    """Returns the distance from each example to the nearest point found with another label than y.

    The distance is 0 for examples that are misclassified. The walk starts at uniform noise in the
    box with another label (up to `tries` draws), or at `start` if that has another label, and
    bisects back towards x. Iteration t = 1..iterations has three parts:

    1. It estimates the normal of the boundary from n_t = floor(evaluations sqrt(t)) random
    directions u:
          g = sum (phi_u - mean phi) u,    (eq. 14-16)
    where phi_u = +1 if clip(point + delta u) has another label than y, else -1. delta is
    `first_radius` times the width of the box at t = 1, then gamma / F of the distance before the
    last projection.

    2. It steps by dist / sqrt(t) along g, halved until the label is another one (at most `halvings`
    times, otherwise the point stays).

    3. It bisects back towards x.

    It takes 1 + tries used + bisections + sum_t (n_t + halvings used + bisections) queries, counted
    exactly. The function is pure: jit it, or vmap it over models that `label` closes over.

    Args:
        label: label(x_B'..) -> [B'], the only access to the model. It must be traceable, and is
            called with batches of B and of B * chunk examples.
        x: the examples, [B,...].
        y_B: the true labels.
        key_B: one key per example. The walk of an example depends on its row only, and not on
            `chunk`.
        iterations: the number of iterations.
        norm: the norm of the distances.
        box: the range of the values. None searches everywhere, and the noise then grows from
            `first_radius` by a quarter each try.
        start: points to start from, [B,...].
        keep: 'last' returns the last point as the original does, 'best' the nearest.
        evaluations: see n_t.
        max_evaluations: the largest n_t.
        gamma: see delta and `bisections`.
        first_radius: see delta.
        tries: the largest number of draws of noise.
        halvings: the largest number of halvings of a step.
        budget: no example asks more labels than this: an iteration that may exceed it is not begun.
        chunk: the number of directions per example that are evaluated (and held in memory) at once.
            None is 20, and on a CPU about 100 points in total, which fit into the caches.

    Raises:
        ValueError: for examples outside the box, an unknown norm or keep, or a budget that is
            smaller than one iteration.
    """
    _points.check(x, norm=norm, box=box)
    checks.one_of(KEEP, keep=keep)
    if chunk is None:
        chunk = max(1, 100 // len(x)) if machine.platform() == "cpu" else 20
    checks.at_least(
        1,
        evaluations=evaluations,
        max_evaluations=max_evaluations,
        tries=tries,
        halvings=halvings,
        chunk=chunk,
    )
    checks.at_least(0, iterations=iterations)
    checks.positive(gamma=gamma, first_radius=first_radius)
    shape, x_BF, y_B = jnp.shape(x), _points.flat(x), jnp.asarray(y_B)
    features = x_BF.shape[1]
    steps = bisections(features=features, norm=norm, gamma=gamma)
    n_S = directions_per_iteration(
        iterations=iterations, evaluations=evaluations, max_evaluations=max_evaluations
    )
    least = 2 + steps + (int(n_S[0]) + 1 + steps if iterations else 0)
    if budget is not None and budget < least:
        raise ValueError(
            f"budget={budget} queries is less than the {least} that one iteration takes; raise it, "
            f"or lower evaluations={evaluations}."
        )
    limit = np.iinfo(np.int32).max if budget is None else budget
    start_BF = None if start is None else _points.flat(start)

    def elsewhere(point_BF) -> jax.Array:
        return label(point_BF.reshape(shape)) != y_B

    def elsewhere_each(point_BKF) -> jax.Array:
        count = point_BKF.shape[1]
        return (label(point_BKF.reshape(-1, *shape[1:])) != jnp.repeat(y_B, count)).reshape(
            -1, count
        )

    def project(far_BF):
        return _points.bisected(elsewhere, x_BF, far_BF, steps=steps, norm=norm, box=box)

    def iteration(state: _State, now):
        t, n = now
        walks_B = ready_B & (state.queries_B + n + 1 + steps <= limit)
        width = 1.0 if box is None else box[1] - box[0]
        delta_B = jnp.where(t == 1, first_radius * width, state.before_B * gamma / features)
        normal_BF = _normal(
            elsewhere_each,
            state.point_BF,
            delta_B,
            jax.vmap(jax.random.fold_in, (0, None))(key_B, t),
            n,
            chunk,
            norm,
            box,
        )
        room_B = jnp.where(walks_B, limit - state.queries_B - n - steps, 0)
        size_B = _points.length(state.point_BF - x_BF, norm) / jnp.sqrt(t.astype(jnp.float32))
        far_BF, moved_B, asked_B = _step(
            elsewhere, state.point_BF, normal_BF, size_B, room_B, halvings, box
        )
        point_BF = jnp.where(moved_B[:, None], project(far_BF), state.point_BF)
        distance_B = _points.length(point_BF - x_BF, norm)
        better_B = moved_B & (distance_B < state.best_B) if keep == "best" else moved_B
        new = _State(
            point_BF=point_BF,
            before_B=jnp.where(moved_B, _points.length(far_BF - x_BF, norm), state.before_B),
            best_BF=jnp.where(better_B[:, None], point_BF, state.best_BF),
            best_B=jnp.where(better_B, distance_B, state.best_B),
            queries_B=state.queries_B
            + jnp.where(walks_B, n, 0)
            + asked_B
            + jnp.where(moved_B, steps, 0),
        )
        return new, (new.best_B, new.queries_B)

    wrong_B = elsewhere(x_BF)
    far_BF, found_B, asked_B = _beginning(
        elsewhere, x_BF, start_BF, wrong_B, key_B, tries, limit - 1 - steps, first_radius, box
    )
    ready_B = found_B & ~wrong_B
    point_BF = jnp.where(ready_B[:, None], project(far_BF), x_BF)
    bound_B = (
        _points.length(far_BF - x_BF, norm) if box is None else _points.farthest(x_BF, norm, box)
    )
    first_B = jnp.where(found_B | wrong_B, _points.length(point_BF - x_BF, norm), bound_B)
    queries_B = 1 + asked_B + jnp.where(ready_B, steps, 0)
    state = _State(point_BF, _points.length(far_BF - x_BF, norm), point_BF, first_B, queries_B)
    times = jnp.arange(1, iterations + 1, dtype=jnp.int32), jnp.asarray(n_S)
    end, (distance_SB, queries_SB) = lax.scan(iteration, state, times)
    return Walk(
        distance_B=end.best_B,
        adversarial=end.best_BF.reshape(shape),
        queries_B=end.queries_B,
        found_B=found_B | wrong_B,
        distance_SB=jnp.concatenate([first_B[None], distance_SB]),
        queries_SB=jnp.concatenate([queries_B[None], queries_SB]),
    )


def _beginning(
    elsewhere, x_BF, start_BF, wrong_B, key_B, tries: int, limit: int, radius: float, box
):
    """Returns (point_BF with another label, found_B, labels asked [B]).

    It tries `start`, then noise.
    """
    far_BF, found_B, asked_B = x_BF, jnp.zeros(len(x_BF), bool), jnp.zeros(len(x_BF), jnp.int32)
    if start_BF is not None:
        far_BF, found_B, asked_B = (
            start_BF,
            elsewhere(start_BF) & ~wrong_B,
            jnp.where(wrong_B, 0, 1),
        )

    def noise(k):
        unit_BF = jax.vmap(
            lambda key: jax.random.uniform(
                jax.random.fold_in(jax.random.fold_in(key, 0), k), x_BF.shape[1:], jnp.float32
            )
        )(key_B)
        if box is None:
            return x_BF + radius * 1.25 ** k.astype(jnp.float32) * (2 * unit_BF - 1)
        return box[0] + (box[1] - box[0]) * unit_BF

    def unanswered(found_B, asked_B):
        return ~wrong_B & ~found_B & (asked_B < limit)

    def attempt(state):
        k, far_BF, found_B, asked_B = state
        open_B, point_BF = unanswered(found_B, asked_B), noise(k)
        hit_B = open_B & elsewhere(point_BF)
        return (
            k + 1,
            jnp.where(open_B[:, None], point_BF, far_BF),
            found_B | hit_B,
            asked_B + open_B,
        )

    def unfinished(state):
        k, _, found_B, asked_B = state
        return (k < tries) & unanswered(found_B, asked_B).any()

    return lax.while_loop(unfinished, attempt, (jnp.int32(0), far_BF, found_B, asked_B))[1:]


def _normal(elsewhere_each, point_BF, delta_B, key_B, n, chunk: int, norm: str, box) -> jax.Array:
    """Returns the estimated direction away from the example's label, [B,F].

    It is a unit vector (l2) or signs (linf), and 0 if it could not be estimated.
    """
    radius_B11 = jnp.maximum(delta_B, 1e-30)[:, None, None]
    point_B1F = point_BF[:, None]

    def some(c, sums):
        sum_B2F, phi_sum_B = sums
        j_K = c * chunk + jnp.arange(chunk, dtype=jnp.int32)
        u_BKF = jax.vmap(
            lambda key: jax.vmap(
                lambda j: _direction(jax.random.fold_in(key, j), point_BF.shape[1], norm)
            )(j_K)
        )(key_B)
        if box is not None:  # The clipped query really moved by this.
            u_BKF = jnp.clip(
                u_BKF, (box[0] - point_B1F) / radius_B11, (box[1] - point_B1F) / radius_B11
            )
        # The directions are drawn once, not once for the query and once for the sum.
        u_BKF = lax.optimization_barrier(u_BKF)
        used_BK = jnp.broadcast_to((j_K < n)[None], u_BKF.shape[:2]).astype(jnp.float32)
        phi_BK = used_BK * jnp.where(elsewhere_each(point_B1F + radius_B11 * u_BKF), 1.0, -1.0)
        weight_B2K = jnp.stack([phi_BK, used_BK], 1)
        return sum_B2F + jnp.einsum("bwk,bkf->bwf", weight_B2K, u_BKF), phi_sum_B + phi_BK.sum(1)

    examples, features = point_BF.shape
    chunks = (n + chunk - 1) // chunk
    sum_B2F, phi_sum_B = lax.fori_loop(
        0,
        chunks,
        some,
        (jnp.zeros((examples, 2, features), jnp.float32), jnp.zeros(examples, jnp.float32)),
    )
    phi_sum_BF, sum_BF = sum_B2F[:, 0], sum_B2F[:, 1]
    mean_B1 = (phi_sum_B / n.astype(jnp.float32))[:, None]
    g_BF = jnp.where(jnp.abs(mean_B1) == 1, phi_sum_BF, phi_sum_BF - mean_B1 * sum_BF)
    if norm == "linf":
        return jnp.sign(g_BF)
    return g_BF / jnp.maximum(_points.length(g_BF, "l2"), 1e-30)[:, None]


def _direction(key, features: int, norm: str) -> jax.Array:
    """Returns a random vector of length 1, [F]: normal coordinates (l2) or uniform ones (linf).

    From 64 coordinates on, a normal coordinate is Binomial(8, 1/2) - 4, four from a random word.
    This costs a twentieth, and sums over coordinates, which are all that matters, are as normal.
    """
    if features < 64:
        draw = (
            jax.random.normal
            if norm == "l2"
            else functools.partial(jax.random.uniform, minval=-1.0)
        )
        u_F = draw(key, (features,), jnp.float32)
    else:
        word_P = jax.random.bits(key, (-(-features // 4),), jnp.uint32)
        byte_F = ((word_P[:, None] >> jnp.array([[0, 8, 16, 24]], jnp.uint32)) & 255).reshape(-1)[
            :features
        ]
        u_F = (
            lax.population_count(byte_F).astype(jnp.float32) - 4.0
            if norm == "l2"
            else byte_F.astype(jnp.float32) - 127.5
        )
    return u_F / jnp.maximum(_points.length(u_F, "l2"), 1e-30)


def _step(elsewhere, point_BF, normal_BF, size_B, room_B, halvings: int, box):
    """Returns (point_BF, moved_B, labels asked [B]) of one step along the normal.

    The new point is the first of point + size 2^-k normal, k = 0..halvings, with another label; if
    there is none, the point stays.
    """

    def unanswered(moved_B, asked_B):
        return ~moved_B & (asked_B < jnp.minimum(room_B, halvings + 1))

    def attempt(state):
        k, far_BF, moved_B, asked_B = state
        open_B = unanswered(moved_B, asked_B)
        candidate_BF = _points.clip(
            point_BF + (size_B * jnp.float32(0.5) ** k)[:, None] * normal_BF, box
        )
        hit_B = open_B & elsewhere(candidate_BF)
        return (
            k + 1,
            jnp.where(hit_B[:, None], candidate_BF, far_BF),
            moved_B | hit_B,
            asked_B + open_B,
        )

    first = (
        jnp.int32(0),
        point_BF,
        jnp.zeros(len(point_BF), bool),
        jnp.zeros(len(point_BF), jnp.int32),
    )
    return lax.while_loop(lambda state: unanswered(*state[2:]).any(), attempt, first)[1:]
