"""Computes how much of each unit's gradient counts: clipping rules as factors from squared norms.

All computations are in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mia_jax import checks

RULES = ("flat", "per_layer", "per_layer_by_size", "normalized", "automatic", "adaptive")
GAMMA = 0.01  # The constant of the automatic rule.


class Rule(NamedTuple):
    """Describes a clipping rule.

    Attributes:
        factors: factors(squares, clip, sizes) -> {leaf path: factor_U}. `squares` is {leaf path:
            squared norm_U} and `sizes` is {leaf path: number of parameters}.
        bound: bound(clip) -> the largest norm of what a unit adds to the sum.
        flat: whether all leaves have the same factor.
    """

    factors: Callable[..., dict[str, jax.Array]]
    bound: Callable
    flat: bool


def rule(name: str) -> Rule:
    """Returns the clipping rule of this name.

    With the norm |g| over all parameters, the norm |g|_l over the parameters of layer l of L
    layers, and p_l the share of the parameters that is in layer l, the factors are:

    - 'flat' and 'adaptive' (whose C moves): min(1, C / |g|); a unit adds at most C (Abadi et al.
      2016, arXiv:1607.00133).
    - 'per_layer': min(1, C / sqrt(L) / |g|_l); at most C (McMahan et al. 2018, arXiv:1812.06210).
    - 'per_layer_by_size': min(1, C sqrt(p_l) / |g|_l); at most C (McMahan et al. 2018).
    - 'normalized': min(1 / C, 1 / |g|); at most 1, so that the learning rate does not depend on C
      (De et al. 2022, arXiv:2204.13650).
    - 'automatic': C / (|g| + 0.01); less than C (Bu et al. 2023, arXiv:2206.07136, AUTO-S).
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
    """Returns |g|_U over all leaves."""
    return jnp.sqrt(sum(squares.values()))


def within(clip, norm_U):
    """Returns min(1, C / norm), which is 1 for a norm of 0."""
    return jnp.minimum(1.0, clip / jnp.maximum(norm_U, 1e-30))


def layer_of(path: str) -> str:
    """Returns the layer that owns a leaf: 'Dense_0' for 'Dense_0/kernel'."""
    return path.rpartition("/")[0]


def _by_layer(squares: dict, clip, sizes: dict, uniform: bool) -> dict:
    """Returns the factors of the rules that clip each layer separately."""
    layers: dict[str, list[str]] = {}
    for path in squares:
        layers.setdefault(layer_of(path), []).append(path)
    whole, factors = sum(sizes.values()), {}
    for paths in layers.values():
        share = 1 / len(layers) if uniform else sum(sizes[p] for p in paths) / whole
        factor_U = within(clip * math.sqrt(share), jnp.sqrt(sum(squares[p] for p in paths)))
        factors |= dict.fromkeys(paths, factor_U)
    return {path: factors[path] for path in squares}


def moved_clip(clip, within_count, noise, *, expected_batch: float, quantile: float, rate: float):
    """Returns the next C of the adaptive rule: C exp(-rate (b - quantile)).

    b = (sum_u (1[|g_u| <= C] - 1/2) + noise) / expected_batch + 1/2 is the noisy fraction of units
    within the clip norm (Andrew et al. 2021, arXiv:1905.03871, algorithm 1). `within_count` is that
    sum; one unit changes it by 1/2.
    """
    b = (within_count + noise) / expected_batch + 0.5
    return clip * jnp.exp(-rate * (b - quantile))
