"""What enters the model's last layer: features, for attacks that compare examples."""

from __future__ import annotations

from mia_jax.types import Signal


def make() -> Signal:
    """[B,F]: the penultimate layer's output (Model.inside). White box, one forward pass. A vector: it has no sign."""
    return Signal(None, 0, lambda probe, x_B, y_B, key_B: probe.inside(x_B)["penultimate"], "white_box", 1)
