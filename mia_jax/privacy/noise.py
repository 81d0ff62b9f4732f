"""Gaussian noise keyed by (key, leaf): the caller folds in the step.

Batch, microbatches, padding and devices play no part.

jax.random's normals were slow in place, because on CPUs their threefry rounds are a loop that
nothing fuses with: a private step of the conv net (1.25M parameters, 64 images, 2 cores, 2 runs
each) takes 162 and 167 ms with them, 103 and 111 ms with `normal`; 203k draws alone, .43 of the
time.

Floats are not reals: float32 normals have gaps, which an attacker with exact outputs could exploit
(Mironov 2012); and whoever knows the seed, or tries them all, can subtract the noise. Neither is
protected against; where the claim must hold against its reader, keep the seed secret and large
(every bit counts: --config.seed takes 63 of them), or give Learner.init a key of your own.
"""

from __future__ import annotations

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
ABOVE_MINUS_ONE = np.nextafter(np.float32(-1), np.float32(0))


def leaf_key(key, path: str):
    """fold_in(key, crc32(path)): the noise of a leaf does not depend on which other leaves there
    are.
    """
    return jax.random.fold_in(key, jnp.uint32(zlib.crc32(path.encode())))


def gaussian(key, tree, std):
    """N(0, std^2) of each leaf's shape, float32, independent over coordinates and leaves; `std` is
    a number or an array [] (0: exactly 0).
    """

    def one(path, leaf):
        if (
            isinstance(std, int | float) and std == 0
        ):  # nothing is drawn: a compiler may not drop 0 * x
            return jnp.zeros(leaf.shape, jnp.float32)
        return std * normal(
            leaf_key(key, jax.tree_util.keystr(path, simple=True, separator="/")), leaf.shape
        )

    return jax.tree_util.tree_map_with_path(one, tree)


def normal(key, shape: tuple[int, ...]):
    """jax.random.normal(key, shape) in float32, bit for bit, drawn in one pass over memory.

    jax rolls threefry's rounds into a loop on CPUs, whose five turns each read and write two arrays
    of the draw's size; here they are written out, so that counter, rounds and the inverse error
    function fuse into one loop over the coordinates.
    """
    if str(jax.random.key_impl(key)) != "threefry2x32":  # a key of the user's own kind
        return jax.random.normal(key, shape, jnp.float32)
    unit = (
        lax.bitcast_convert_type((_threefry(key, shape) >> 9) | jnp.uint32(0x3F800000), jnp.float32)
        - 1
    )  # [0, 1), 23 bits
    uniform = jnp.maximum(ABOVE_MINUS_ONE, unit * (1 - ABOVE_MINUS_ONE) + ABOVE_MINUS_ONE)
    return np.float32(math.sqrt(2)) * lax.erf_inv(uniform)


def _threefry(key, shape: tuple[int, ...]):
    """jax.random.bits(key, shape): Threefry-2x32-20 of (0, position), its two words xored.

    (Salmon et al. 2011.)
    """
    first, second = jax.random.key_data(key)
    keys = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    position = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    a, b = jnp.full(shape, keys[0], jnp.uint32), position + keys[1]
    for turn in range(5):
        for by in ROTATIONS[turn % 2]:
            a = a + b
            b = ((b << by) | (b >> (32 - by))) ^ a
        a, b = a + keys[(turn + 1) % 3], b + keys[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return a ^ b
