"""Training augmentations: random changes of an example by the example's own key.

A file each, with make(...) -> change(x, key).

config.learner.augment = ('flip', 'shift:2', 'my_pkg.my_augmentation:strength=3'): a name, and its
settings in order or by name. A file with IMAGES = True changes only images [H,W,C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from mia_jax import registry

# Separates the draws from those of a model's layers, which fold small numbers into the same key.
_SITE = 0x617567


def make(specs: Sequence[str]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns (x_B.., key_B) -> x_B.. with the random changes in `specs`, one after the other.

    Each example changes by its own key only, whatever else is in the batch; of pairs x_B2HWC each
    image changes by itself.

    Raises:
        ValueError: There is no such augmentation or setting, or it needs images and the examples
            are not.
    """
    if isinstance(specs, str):
        raise ValueError(
            f"augmentation={specs!r} must be a list such as ['flip']. Forms: "
            f"{registry.forms('augmentations')}."
        )
    changes = [registry.make_spelled("augmentations", spec, noun="augmentation") for spec in specs]
    images = next(
        (spec for spec in specs if getattr(registry.load("augmentations", spec), "IMAGES", False)),
        None,
    )

    def change_example(x, key):
        for site, change in enumerate(changes):
            x = change(x, jax.random.fold_in(key, _SITE + site))
        return x

    def apply(x, key_B):
        if not changes:
            return x
        if x.ndim == 5:
            key_B2 = jax.vmap(lambda key: jax.random.split(key, x.shape[1]))(key_B)
            return jax.vmap(jax.vmap(change_example))(x, key_B2)
        if images is not None and x.ndim != 4:
            raise ValueError(
                f"augmentation {images!r} needs images [B,H,W,C]; these examples have shape "
                f"{tuple(x.shape[1:])}, which is not an image."
            )
        return jax.vmap(change_example)(x, key_B)

    return apply
