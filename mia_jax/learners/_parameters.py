"""Chooses which parameters are trained and where they start.

Trained and frozen parameters are trees of the same form, in which the other part is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.privacy.gradients import nested, paths

__all__ = ["merge", "nested", "paths", "split", "started", "where"]


def split(params, pattern: str) -> tuple[dict, dict]:
    """Returns (trained, frozen), two trees of the same form with None for the leaves of the other.

    Args:
        params: all parameters.
        pattern: a regular expression that is searched in the path 'a/b/c' of a leaf; '' trains all.

    Raises:
        ValueError: if nothing matches; the message lists the paths.
    """
    names = list(paths(params))
    kept = [bool(re.search(pattern, name)) for name in names]
    if not any(kept):
        raise ValueError(
            f"trainable={pattern!r} matches no parameter; the paths are {', '.join(names)}."
        )
    leaves, form = jax.tree.flatten(params)
    parts = (
        [leaf if keep is trained else None for leaf, keep in zip(leaves, kept, strict=True)]
        for trained in (True, False)
    )
    return tuple(jax.tree.unflatten(form, part) for part in parts)


def merge(trained, frozen):
    """Returns the whole tree again from its two parts."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None
    )


def where(pattern: str, new, old, *, matching):
    """Returns the leaves of `new` whose path matches the pattern, and those of `old` elsewhere.

    Leaves that are None stay None.

    Args:
        pattern: a regular expression that is searched in the path of a leaf.
        new: a tree.
        old: a tree of the same form.
        matching: a boolean scalar; where it is false, the leaves of `new` are those whose path does
            not match.

    Raises:
        ValueError: if the pattern matches no leaf, or all of them.
    """
    names = list(paths(new))
    hits = {name: bool(re.search(pattern, name)) for name in names}
    if len(set(hits.values())) == 1:
        how_many = "every" if hits[names[0]] else "no"
        raise ValueError(
            f"learner.extra_trainable={pattern!r} matches {how_many} trained parameter, and "
            f"either phase trains some; the paths are {', '.join(names)}."
        )
    leaves, form = jax.tree.flatten(new)
    chosen = [
        jnp.where(matching == hit, leaf, before)
        for leaf, before, hit in zip(leaves, jax.tree.leaves(old), hits.values(), strict=True)
    ]
    return jax.tree.unflatten(form, chosen)


def started(params, initial: Mapping[str, np.ndarray], pattern: str):
    """Returns `params` with the leaves of `initial` that have the same path and shape.

    Raises:
        ValueError: if no leaf matches, or if another leaf would stay frozen at its random start.
    """
    if not initial:
        return params
    flat = paths(params)
    loaded = {
        name: jnp.asarray(initial[name], leaf.dtype)
        for name, leaf in flat.items()
        if name in initial and initial[name].shape == leaf.shape
    }
    if not loaded:
        raise ValueError(
            f"init_from has no parameter of this model; it has {', '.join(initial)}, the model "
            f"{', '.join(flat)}."
        )
    stuck = [name for name in flat if name not in loaded and not re.search(pattern, name)]
    if stuck:
        raise ValueError(
            f"init_from lacks {', '.join(stuck)} (or has another shape), and trainable={pattern!r} "
            "leaves them untrained."
        )
    return nested(flat | loaded)
