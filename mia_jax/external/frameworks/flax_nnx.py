"""Flax nnx modules, which hold their variables; a copy of the module is asked."""

from __future__ import annotations

import sys

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

BATCH_SIZE = 1024


def takes(model) -> bool:
    """Returns whether a model is an nnx.Module."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(model, nnx.Module)


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns a compiled copy of the module in evaluation mode, as a function of rows.

    The module itself is not changed. Later changes of its parameters do not reach the copy.

    Args:
        model: an nnx.Module with `__call__(x)`.
        batch_size: rows per compiled call; None: 1,024.
        device: a jax.Device; None: JAX's default.
    """
    import jax

    nnx = sys.modules["flax.nnx"]
    copy = nnx.clone(model)
    copy.eval()
    graph, state = nnx.split(copy)
    state = jax.device_put(state, device)
    apply = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    size = BATCH_SIZE if batch_size is None else batch_size

    def ask(part) -> np.ndarray:
        return np.asarray(apply(state, jax.device_put(rows.for_net(part), device)), np.float32)

    return Predictor(
        answer=lambda x: rows.in_batches(ask, x, size),
        form=None,
        classes=None,
        words=f"Flax nnx {type(model).__name__}",
    )


def trainer(model) -> None:
    """Returns None: a module does not say how it is trained."""
