"""How much of each unit's gradient counts: clipping rules as factors from squared norms, in
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mia_jax import checks

RULES = ("flat", "per_layer", "per_layer_by_size", "normalized", "automatic", "adaptive")
GAMMA = 0.01  # of the automatic rule


class Rule(NamedTuple):
    """`factors(squares, clip, sizes) -> {leaf: factor_U}` from {leaf path: squared norm_U};
    `bound(clip)` is the norm of what a unit adds.

    `flat` says that all leaves have the same factor. `sizes` are {leaf path: number of parameters}.
    """

    factors: Callable[..., dict[str, jax.Array]]
    bound: Callable
    flat: bool


def rule(name: str) -> Rule:
    """With the norm |g| over all parameters, or |g|_l over those of layer l of L layers (of size
    share p_l):

    'flat' and 'adaptive' (whose C moves): min(1, C / |g|), adds at most C (Abadi et al. 2016,
    arXiv:1607.00133); 'per_layer': min(1, C / sqrt(L) / |g|_l); 'per_layer_by_size': min(1, C
    sqrt(p_l) / |g|_l); at most C (McMahan et al. 2018, arXiv:1812.06210); 'normalized': min(1 / C,
    1 / |g|), at most 1, so that the learning rate does not depend on C (De et al. 2022,
    arXiv:2204.13650); 'automatic': C / (|g| + .01), below C (Bu et al. 2023, arXiv:2206.07136,
    AUTO-S).
    """
    checks.one_of(RULES, clipping=name)
    if name.startswith("per_layer"):
        return Rule(
            lambda squares, clip, sizes: _by_layer(squares, clip, sizes, name == "per_layer"),
            lambda clip: clip,
            False,
        )

    def factors(squares, clip, sizes):
        norm_U = total_norm(squares)
        if name == "automatic":
            factor_U = clip / (norm_U + GAMMA)
        elif name == "normalized":
            factor_U = jnp.minimum(1 / clip, 1 / jnp.maximum(norm_U, 1e-30))
        else:
            factor_U = within(clip, norm_U)
        return dict.fromkeys(squares, factor_U)

    return Rule(factors, (lambda clip: 1.0) if name == "normalized" else (lambda clip: clip), True)


def total_norm(squares: dict) -> jax.Array:
    """|g|_U over all leaves."""
    return jnp.sqrt(sum(squares.values()))


def within(clip, norm_U):
    """min(1, C / norm), 1 for a norm of 0."""
    return jnp.minimum(1.0, clip / jnp.maximum(norm_U, 1e-30))


def layer_of(path: str) -> str:
    """'Dense_0/kernel' -> 'Dense_0': the layer that owns the leaf."""
    return path.rpartition("/")[0]


def _by_layer(squares: dict, clip, sizes: dict, uniform: bool) -> dict:
    layers: dict[str, list[str]] = {}
    for path in squares:
        layers.setdefault(layer_of(path), []).append(path)
    whole, found = sum(sizes.values()), {}
    for paths in layers.values():
        share = 1 / len(layers) if uniform else sum(sizes[p] for p in paths) / whole
        factor_U = within(clip * math.sqrt(share), jnp.sqrt(sum(squares[p] for p in paths)))
        found |= dict.fromkeys(paths, factor_U)
    return {path: found[path] for path in squares}


def moved_clip(clip, within_count, noise, *, expected_batch: float, quantile: float, rate: float):
    """The adaptive rule's next C: C exp(-rate (b - quantile)), b = (sum_u (1[|g_u| <= C] - 1/2) +
    noise) / expected_batch + 1/2.

    `within_count` is that sum, which one unit changes by 1/2. (Andrew et al. 2021,
    arXiv:1905.03871, algorithm 1.)
    """
    b = (within_count + noise) / expected_batch + 0.5
    return clip * jnp.exp(-rate * (b - quantile))
