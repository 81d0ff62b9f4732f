"""Defenses at query time: how a model's owner changes its outputs before anyone sees them.

A file each, with make(...) -> Defense. config.attacks.<attack>.defense = 'memguard', with settings
'top_k:k=3', or a module of your own: 'my_pkg.my_defense:strength=2'.
"""

from __future__ import annotations

from mia_jax import registry
from mia_jax.types import Defense


def make(spec: str) -> Defense:
    """Returns the defense of a name with settings.

    Raises:
        ValueError: There is no such defense or setting (the message lists those there are), or
            `make` did not return a Defense.
    """
    defense = registry.make("defenses", spec)
    if not isinstance(defense, Defense):
        raise ValueError(
            f"defense={spec!r}: its make(...) returned a {type(defense).__name__} and must return "
            "mia_jax.types.Defense(apply, keeps_labels)."
        )
    return defense
