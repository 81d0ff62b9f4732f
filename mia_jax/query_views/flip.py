"""flip: left-right."""

from __future__ import annotations

IMAGES = True


def make():
    """Returns the view of images [B,H,W,C]."""
    return lambda x: x[:, :, ::-1]
