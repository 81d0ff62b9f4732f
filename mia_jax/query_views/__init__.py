"""Query views: the versions of each example that every model is asked about.

A file each, with make(...) -> x_B.. -> x_B.., deterministic and the same for all models.

config.query.views = ('identity', 'flip', 'shift:1,0', 'my_pkg.my_view:strength=3'): a name, and its
settings in order or by name. A file with IMAGES = True accepts only images [B,H,W,C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mia_jax import registry


def make(names: Sequence[str]) -> list[Callable[[jax.Array], jax.Array]]:
    """Returns one function x_B.. -> x_B.. per name: a model is asked A times about each example.

    Raises:
        ValueError: There is no such view or setting, or it needs images and the examples are not.
    """
    if isinstance(names, str) or not names:
        raise ValueError(
            f"views={names!r} must be a list such as ['identity', 'flip']. Forms: "
            f"{registry.forms('query_views')}."
        )
    return [_view(name) for name in names]


def _view(name: str) -> Callable[[jax.Array], jax.Array]:
    show = registry.make_spelled("query_views", name, noun="view")
    if not getattr(registry.load("query_views", name), "IMAGES", False):
        return show

    def apply(x):
        if x.ndim != 4:
            raise ValueError(
                f"view {name!r} needs images [B,H,W,C]; these examples have shape "
                f"{tuple(x.shape[1:])}, which is not an image."
            )
        return show(jnp.asarray(x))

    return apply
