"""The adversarial example itself (one gradient step), for images in the report."""

from __future__ import annotations

from mia_jax import checks
from mia_jax.evasion.fgsm import fgsm
from mia_jax.signals import _images
from mia_jax.types import Signal


def make(*, epsilon: float = 0.1) -> Signal:
    """Returns clip(x + epsilon sign(gradient of the loss)), flat [B,F]: as large as the data.

    White box, one pass forward and backward.
    """
    checks.at_least(0, epsilon=epsilon)

    def ask(probe, x_B, y_B, key_B):
        del key_B
        return fgsm(probe.out, x_B, y_B, epsilon=epsilon).reshape(len(x_B), -1)

    return Signal(None, 0, ask, "white_box", 1, _images.inside("fgsm_image", "unit", fixed=True))
