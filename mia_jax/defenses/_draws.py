"""Randomness of defenses that answer the same question in the same way."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def keys_of(out_BC: jax.Array, *, seed: int) -> jax.Array:
    """Returns a key per output vector, [B], which is a function of its bits and of `seed`.

    Asking the same model twice about the same example thus draws the same numbers, and averaging
    such answers is useless; a slightly different example draws other numbers.
    """
    bits_BC = jax.lax.bitcast_convert_type(out_BC.astype(jnp.float32), jnp.uint32)
    # odd multipliers, one per class: a change of any class changes the sum (modulo 2^32)
    odd_C = 2 * jnp.arange(out_BC.shape[-1], dtype=jnp.uint32) + 1
    mixed_BC = (bits_BC ^ (bits_BC >> 15)) * (jnp.uint32(2654435761) * odd_C)[None]
    mixed_B = (mixed_BC ^ (mixed_BC >> 13)).sum(-1, dtype=jnp.uint32)
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda bits: jax.random.fold_in(root, bits))(mixed_B)
