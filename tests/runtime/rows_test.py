"""Bytes become the same float32 numbers everywhere: in NumPy, and in compiled programs that merge
what follows with the scaling.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.runtime.rows import Rows, concatenated

BYTES = np.arange(256, dtype=np.uint8)
FACTORS = (1 / 255, np.float32(1 / 255), 1.0, 0.5, np.float32(-3.7), np.float32(1e-20))


def test_every_byte_is_rounded_once_whatever_follows():
    """A compiler that merges a product and a sum would round x * factor + c once, not twice."""
    rng = np.random.default_rng(0)
    stored, noise = np.tile(BYTES, 64), rng.normal(size=(256 * 64)).astype(np.float32)
    exact = [stored.astype(np.float32) * np.float32(factor) for factor in FACTORS]
    exact[0] = stored / np.float32(255)  # which is not the product with float32(1 / 255)
    rows = [Rows(stored, factor=factor) for factor in FACTORS]

    @jax.jit
    def inside(rows, noise):
        x = [part[jnp.arange(len(part))] for part in rows]
        return x, [a + noise for a in x], [noise - a for a in x]

    x, added, left = inside(jax.device_put(rows), noise)
    for k, expected in enumerate(exact):
        np.testing.assert_array_equal(rows[k][:], expected)
        np.testing.assert_array_equal(x[k], expected)
        np.testing.assert_array_equal(added[k], expected + noise)
        np.testing.assert_array_equal(left[k], noise - expected)


def test_rows_that_are_scaled_alike_stay_bytes_when_they_are_joined():
    first, second = (Rows(BYTES[k:], factor=0.5) for k in (0, 200))
    both = concatenated(first, second)
    assert both.stored.dtype == np.uint8 and both.shape == (312,)
    np.testing.assert_array_equal(both[:], np.concatenate([first[:], second[:]]))
    mixed = concatenated(first, Rows(BYTES, factor=0.25))
    assert isinstance(mixed, np.ndarray) and mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed[256:], np.float32(0.25) * BYTES)
