"""Embedding: what enters a net's last layer, for attacks that compare examples."""

from __future__ import annotations

from mia_jax.types import Signal


def make() -> Signal:
    """Returns the embedding [B,E], unchanged ('penultimate' of Model.inside).

    A vector: it has no sign. White box, or a service that returns embeddings: one query.
    """

    def ask(probe, x_B, y_B, key_B):
        del y_B, key_B
        return probe.inside(x_B)["penultimate"]

    return Signal(None, 0, ask, "white_box", 1, tasks=("classification", "regression"), tokens=True)
