"""Loads scikit-learn's handwritten digits, without a download.

They are 1,797 gray images of 8x8 pixels in 10 classes.
"""

from __future__ import annotations

from mia_jax.data._pool import checked, first
from mia_jax.types import Pool, Presentation, classification


def load(*, flat: bool = True, examples: int | None = None) -> Pool:
    """Returns the digits as [N,64] (flat) or images [N,8,8,1], in [0,1].

    `examples` is the number of first rows that are used; None for all.
    """
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    x, y = first(examples, x=x / 16.0, y=y)
    return checked(
        Pool(
            x=x if flat else x.reshape(-1, 8, 8, 1),
            y=y,
            name="digits",
            task=classification(10),
            presentation=Presentation(public=True, picture=(8, 8, 1) if flat else ()),
        )
    )
