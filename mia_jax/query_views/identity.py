"""identity: the unchanged example."""

from __future__ import annotations


def make():
    """Returns the view of examples [B,..]."""
    return lambda x: x
