"""Correctness: whether the predicted label is the true one."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.types import Signal


def make() -> Signal:
    """Returns 1 if argmax_j z_j = y, else 0; a tie goes to the lowest class number. Large = member.

    Source: Yeom et al. 2018 (arXiv:1709.01604).
    """

    def measure(out_BC, batch):
        if out_BC.shape[-1] < 2:
            raise ValueError(
                f"correctness needs outputs of at least 2 classes, got {out_BC.shape[-1]}."
            )
        return (out_BC.argmax(-1) == batch.y).astype(jnp.float32)

    return Signal(measure, +1, access="labels")
