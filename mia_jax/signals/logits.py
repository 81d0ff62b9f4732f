"""The logits themselves, for attacks that read whole vectors."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.types import Signal


def make() -> Signal:
    """Returns z [B,C] in float32, unchanged. A vector: it has no sign."""
    return Signal(
        lambda out_BC, batch: out_BC.astype(jnp.float32), 0, tasks=("classification", "regression")
    )
