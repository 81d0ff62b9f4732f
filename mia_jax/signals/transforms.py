"""Defenses at query time: what a model's owner does to its outputs before anybody sees them. Pure functions of logits, [B,C] -> [B,C]."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mia_jax import checks, fields

FLOOR = 1e-12  # the smallest probability that is ever handed on


class Transform(NamedTuple):
    """`apply(out_BC) -> out_BC`, logits of the probabilities that are shown; `keeps_labels`: the predicted label never changes."""

    apply: Callable[[jax.Array], jax.Array]
    keeps_labels: bool


def memguard() -> Transform:
    """p = 1/C + .001 for the predicted class and 1/C - .001 / (C - 1) for every other: labels stay, everything else is a function of them.

    The strongest version of MemGuard (Jia et al. 2019, arXiv:1909.10594), as in Choquette-Choo et al. 2021 (arXiv:2007.14321).
    """

    def apply(out_BC):
        classes = out_BC.shape[-1]
        top_BC = jax.nn.one_hot(out_BC.argmax(-1), classes, dtype=bool)
        return jnp.where(top_BC, jnp.log(1 / classes + 1e-3), jnp.log(1 / classes - 1e-3 / (classes - 1))).astype(jnp.float32)

    return Transform(apply, True)


def top_k(*, k: int = 1) -> Transform:
    """The k largest probabilities stay; the other classes share the rest equally. Of equal probabilities the lowest class numbers come first."""
    checks.at_least(1, k=k)

    def apply(out_BC):
        p_BC, classes = jax.nn.softmax(out_BC, -1), out_BC.shape[-1]
        place_BC = jnp.argsort(jnp.argsort(-p_BC, axis=-1, stable=True), axis=-1)
        others_B1 = jnp.where(place_BC < k, 0, p_BC).sum(-1, keepdims=True) / max(1, classes - k)
        return jnp.log(jnp.maximum(jnp.where(place_BC < k, p_BC, others_B1), FLOOR))

    return Transform(apply, True)


def rounding(*, digits: int = 2) -> Transform:
    """Probabilities rounded to `digits` decimals, not renormalized; 0 is handed on as 1e-12. Close classes can tie, so labels may change."""
    checks.at_least(0, digits=digits)
    return Transform(lambda out_BC: jnp.log(jnp.maximum(jnp.round(jax.nn.softmax(out_BC, -1), digits), FLOOR)), False)


TRANSFORMS = dict(memguard=memguard, top_k=top_k, rounding=rounding)


def make(spec: str) -> Transform:
    """'memguard', 'top_k:k=3', 'rounding:digits=1'; ValueError that lists the transforms otherwise."""
    name, given = fields.named(spec)
    checks.one_of(TRANSFORMS, defense=name)
    return TRANSFORMS[name](**fields.typed(given, fields.of(TRANSFORMS[name]), label=f"defense {name}"))
