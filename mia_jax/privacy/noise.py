"""Gaussian noise keyed by (key, leaf): the caller folds in the step. Batch, microbatches, padding and devices play no part.

Floats are not reals: float32 normals have gaps, which an attacker with exact outputs could exploit (Mironov 2012); and whoever knows the seed can
subtract the noise. Neither is protected against; keep the seed secret where the claim must hold against its reader.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp


def leaf_key(key, path: str):
    """fold_in(key, crc32(path)): the noise of a leaf does not depend on which other leaves there are."""
    return jax.random.fold_in(key, jnp.uint32(zlib.crc32(path.encode())))


def gaussian(key, tree, std):
    """N(0, std^2) of each leaf's shape, float32, independent over coordinates and leaves; `std` is a number or an array [] (0: exactly 0)."""

    def one(path, leaf):
        return std * jax.random.normal(leaf_key(key, jax.tree_util.keystr(path, simple=True, separator="/")), leaf.shape, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, tree)
