"""Loads scikit-learn's breast cancer data, without a download.

It has 569 patients, 30 positive features of very different scales, and 2 classes.
"""

from __future__ import annotations

from mia_jax.data._pool import checked
from mia_jax.types import Pool, Presentation, classification


def load() -> Pool:
    """Returns x [569,30] in the units of the data and y (0 = malignant, 1 = benign).

    x ranges from 0 to 4,254; standardize it on population rows.
    """
    from sklearn import datasets

    data = datasets.load_breast_cancer()
    shown = Presentation(
        public=True,
        features=tuple(data.feature_names.tolist()),
        classes=tuple(data.target_names.tolist()),
    )
    return checked(
        Pool(
            x=data.data,
            y=data.target,
            name="breast_cancer",
            task=classification(2),
            presentation=shown,
        )
    )
